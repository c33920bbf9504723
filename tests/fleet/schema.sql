-- Events of a fleet. Device, boot and sequence name an event for ever: what comes twice is stored once.
-- Partitions by device: each may be moved to a tablespace, or to a server of its own (postgres_fdw).

create table events ( -- from MQTT: the whole event, OCSF
	device text, boot text, sequence bigint, time timestamptz not null, class integer not null, severity integer not null,
	message text, event jsonb not null, primary key (device, boot, sequence)
) partition by hash (device);
create table lines ( -- from syslog: the summary
	device text, boot text, sequence bigint, time timestamptz not null, class integer, severity integer not null,
	message text, rule text, primary key (device, boot, sequence)
) partition by hash (device);
do $$ begin
	for part in 0..3 loop
		execute format('create table events_%1$s partition of events for values with (modulus 4, remainder %1$s)', part);
		execute format('create table lines_%1$s partition of lines for values with (modulus 4, remainder %1$s)', part);
	end loop;
end $$;
create index on events (class, time);
create index on lines (class, time);
