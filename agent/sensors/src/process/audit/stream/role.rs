//! Which role the stream is read in, and how it changes.

use std::io;
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};

use super::{deliver, explain, take, AuditStream, Stream, Turn};
use crate::netlink::{Socket, AUDIT, REQUEST_ACK};
use crate::process::audit::assembly::{Assembler, Audited};
use crate::process::audit::control::{Rule, Setting, UNREAD};
use crate::process::Unavailable;

/// `AUDIT_NLGRP_READLOG` as a bind mask.
const READLOG: u32 = 1;
/// Both sockets are read for this long when roles change; an event's records are microseconds apart.
const OVERLAP: Duration = Duration::from_millis(200);
/// How long the place is left free for an audit daemon that announced itself.
const COURTESY: Duration = Duration::from_secs(15);

/// How the stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Registered as the audit daemon.
    Daemon,
    /// A member of the read-only multicast group.
    Listener,
}

impl Role {
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Daemon => "registered as the audit daemon",
            Self::Listener => "reading along with the audit daemon (multicast)",
        }
    }
}

impl AuditStream {
    fn new_stream(&self, groups: u32, role: Role) -> io::Result<Stream> {
        let socket = Socket::open(AUDIT, groups)?;
        socket.set_receive_buffer(self.settings.receive_buffer);
        Ok(Stream {
            socket,
            assembler: Assembler::default(),
            role,
            retire: None,
            acknowledged: None,
            first: None,
            since: self.highest,
        })
    }

    /// Becomes the audit daemon; a daemon that was faster is listened along with.
    pub(super) fn register(&mut self) -> Result<(), Unavailable> {
        let mut stream =
            self.new_stream(0, Role::Daemon).map_err(|error| explain("open the audit socket", &error))?;
        let payload = Setting::Pid(std::process::id()).payload();
        stream
            .socket
            .send(Setting::request(), REQUEST_ACK, &payload)
            .map_err(|error| explain("register as the audit daemon", &error))?;
        let deadline = Instant::now() + Duration::from_secs(1);
        while stream.acknowledged.is_none() {
            match stream.socket.receive(&mut self.batch) {
                Ok(()) => {
                    take(&mut stream, &self.batch, &mut self.tracker, &mut self.early);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Unavailable::new(
                            "the kernel did not answer the registration as audit daemon",
                        ));
                    }
                    stream.socket.wait(left).map_err(|error| explain("wait for the kernel", &error))?;
                }
                Err(error) => return Err(explain("register as the audit daemon", &error)),
            }
        }
        match stream.acknowledged.take() {
            Some(Err(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.listen()?;
                self.stop_excluding();
                return Ok(());
            }
            Some(Err(error)) => return Err(explain("register as the audit daemon", &error)),
            _ => {}
        }
        if self.before.backlog_limit < self.settings.backlog_limit {
            // A locked configuration keeps its limit; what that costs shows in the count of lost records.
            let _ = self.control.set(Setting::BacklogLimit(self.settings.backlog_limit));
        }
        // Kernels before 3.14 have no such setting and hold processes up for a minute; nothing to do about it.
        let _ = self.control.set(Setting::BacklogWaitTime(self.settings.backlog_wait));
        for unread in UNREAD {
            // Old kernels refuse a key or the type on this list; the records are then read and dropped.
            let _ = self.control.add(&Rule::exclude(*unread));
        }
        self.supersede();
        self.streams.push(stream);
        Ok(())
    }

    pub(super) fn listen(&mut self) -> Result<(), Unavailable> {
        let stream = self
            .new_stream(READLOG, Role::Listener)
            .map_err(|error| explain("join the audit multicast group (CAP_AUDIT_READ)", &error))?;
        self.supersede();
        self.streams.push(stream);
        Ok(())
    }

    /// What is excluded for our own sake is not ours to withhold from another daemon.
    pub(super) fn stop_excluding(&mut self) {
        for unread in UNREAD {
            let _ = self.control.remove(&Rule::exclude(*unread));
        }
    }

    fn supersede(&mut self) {
        let until = Instant::now() + OVERLAP;
        for stream in &mut self.streams {
            stream.retire.get_or_insert(until);
        }
    }

    pub(super) fn retire(&mut self, events: &mut Vec<Audited>) {
        let now = Instant::now();
        let (mut kept, retired): (Vec<_>, Vec<_>) =
            self.streams.drain(..).partition(|stream| stream.retire.is_none_or(|until| until > now));
        // What began after the newer socket was there is whole in its stream; what is left was split by the change.
        let newer = kept.last().and_then(|stream| stream.first).unwrap_or(u64::MAX);
        for mut stream in retired {
            let tracker = &mut self.tracker;
            stream.assembler.flush(newer, |event| deliver(event, tracker, events));
            self.incomplete_before += stream.assembler.incomplete();
        }
        self.streams.append(&mut kept);
    }

    /// Another daemon wants the place: read along from now on, and leave the place free.
    pub(super) fn make_way(&mut self, turn: &mut Turn) -> Result<(), Unavailable> {
        self.listen()?;
        // The place must be free before the other asks for it, so it is given up first of all; the kernel then sends every record
        // to the multicast group alone, where the new socket already listens.
        self.control
            .set(Setting::Pid(0))
            .map_err(|error| explain("give up the place of the audit daemon", &error))?;
        self.stop_excluding();
        // From here on settings, and whether audit is on at all, are the other daemon's business.
        self.restore_backlog();
        self.switched_on = false;
        self.courtesy_until = Some(Instant::now() + COURTESY);
        let words = "an audit daemon is starting: made way, and read along by multicast from now on";
        turn.notes.push(Health::new(Kind::Changed, "process", words));
        Ok(())
    }

    pub(super) fn restore_backlog(&mut self) {
        // What cannot be set back was locked meanwhile.
        let _ = self.control.set(Setting::BacklogLimit(self.before.backlog_limit));
        let _ = self.control.set(Setting::BacklogWaitTime(self.before.backlog_wait_time));
    }

    pub(super) fn daemon_is_alive(&self, pid: u32) -> bool {
        pid != 0 && pid != std::process::id() && self.settings.proc.join(pid.to_string()).exists()
    }
}
