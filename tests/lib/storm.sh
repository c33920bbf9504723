#!/bin/bash
# A storm of everything at once against a running agent, both on the first processor, in a network namespace of its own; then the agent's
# balance sheets. Called by tests/bench storm: storm.sh AGENT STORM RULES. Process events are eBPF's, where the agent is built with it: they
# tell of the whole machine, but leave its audit alone. Fails if a sheet does not add up, if memory goes beyond 16 MiB (PSS), if an alert
# planted amid the storm is missing, or if the agent ends.
set -eu -o pipefail
agent=$1 storm=$2 rules=$3
: "${EXECS:=10000}" "${ALERTS:=20}" "${CONNECTIONS:=10000}" "${FILES:=100000}" "${NAMES:=10000}" "${FAILURES:=10000}" "${DEVICES:=1000}"
at=$(mktemp -d /var/tmp/defender-storm-XXXXXX)
trap 'kill "${pid:-}" 2>/dev/null; rm -rf "$at"' EXIT
mount --make-rprivate /
mount -t sysfs sysfs /sys
ip link set lo up
taskset -pc 0 $$ >/dev/null
: >"$at/auth.log"
: >"$at/passwd"
cat >"$at/defender.toml" <<-TOML
	[agent]
	state_dir = "$at/state"
	run_dir = "$at/run"
	[process]
	source = "ebpf"
	[posture]
	enabled = false
	[dbus]
	enabled = false
	[feeds]
	directories = []
	[rules]
	directories = ["$rules"]
	[files]
	paths = ["$at/passwd", "$at/watched"]
	[login]
	files = ["$at/auth.log"]
	accounting = []
	syslog_socket = "off"
	[sink.file]
	path = "$at/events.jsonl"
	max_kib = 262144
	[sink.syslog]
	enabled = false
	[confinement]
	drop_privileges = false
TOML
"$agent" run --config "$at/defender.toml" 2>"$at/stderr" &
pid=$!
ask() { "$agent" status --socket "$at/run/control.sock"; }
for _ in $(seq 100); do
	if ask >/dev/null 2>&1; then break; fi
	sleep 0.2
done
echo 5 >"/proc/$pid/clear_refs"
"$storm" program=/bin/true execs="$EXECS" alerts="$ALERTS" connections="$CONNECTIONS" files="$FILES" directory="$at/watched/deep" \
	names="$NAMES" failures="$FAILURES" log="$at/auth.log" devices="$DEVICES" device=/sys/class/net/lo &
making=$!
peak=0
while kill -0 "$making" 2>/dev/null; do
	pss=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup")
	peak=$((pss > peak ? pss : peak))
	sleep 0.5
done
wait "$making"
# Until nothing more is read, held or waits for a sink.
last=
for _ in $(seq 120); do
	# Processes are the whole machine's, and these programs are among them.
	now=$(ask | sed -n '/^logins/,/^services/p' | grep balance)
	if [ "$now" = "$last" ] && ! grep -qE ' [1-9][0-9]* held' <<<"$now"; then break; fi
	last=$now
	sleep 1
done
ask | grep -vE '^confinement|left out'
echo "PSS at most $peak KiB, $(awk '/VmHWM/ { print $2 }' "/proc/$pid/status") KiB resident at most, $(awk '{ print ($14 + $15) * 10 }' "/proc/$pid/stat") ms of processor"
failed=0
if ask | grep 'DOES NOT ADD UP'; then
	failed=1
fi
if [ "$peak" -gt $((16 * 1024)) ]; then
	echo "memory is over its budget of 16 MiB" >&2
	failed=1
fi
arrived=$(grep -h '"class_uid":2004' "$at"/events.jsonl* | grep -o 'planted=[a-z]*' | sort -u | wc -l)
echo "$arrived of $ALERTS planted alerts arrived"
[ "$arrived" -eq "$ALERTS" ] || failed=1
exit "$failed"
