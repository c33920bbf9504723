//! A turn of the eBPF sources.

use defender_model::health::{Health, Kind};
use defender_model::process::Change;
use defender_model::time::Timestamp;

use super::{ProcessSensor, ANCESTORS};
use crate::process::active::Active;
use crate::process::ebpf::{entry, since_boot, Connection, Told};
use crate::process::Unavailable;
use crate::Observation;

impl ProcessSensor {
    pub(super) async fn ebpf_turn(&mut self, out: &mut Vec<Observation>) -> Result<(), Unavailable> {
        let (Active::Ebpf(stream) | Active::EbpfEntry(stream)) = &mut self.active else { return Ok(()) };
        let mut told = std::mem::take(&mut self.heard);
        let lost = stream.read(&mut told).await?;
        let pauses = stream.pauses();
        self.hear(&mut told, u64::MAX, out);
        self.heard = told;
        if pauses {
            self.owners.announce();
        }
        if lost > 0 {
            let words = "the ring buffer was full or the kernel left programs out, records of processes are missing; what still runs is found by comparing /proc";
            out.push(Observation::Health(Health::new(Kind::Lost, "process", words).with("records", lost)));
            self.resynchronise(out);
        }
        Ok(())
    }

    /// What is left in the ring when another source has taken over: that one tells of all that happens from now on.
    pub(super) fn drain_ring(&mut self, out: &mut Vec<Observation>) {
        let until = since_boot();
        let (Active::Ebpf(stream) | Active::EbpfEntry(stream)) = &mut self.active else { return };
        let mut told = Vec::new();
        stream.drain(&mut told);
        self.hear(&mut told, until, out);
        self.owners.announce();
    }

    /// Takes what happened before that time, in nanoseconds since boot.
    fn hear(&mut self, told: &mut Vec<Told>, until: u64, out: &mut Vec<Observation>) {
        let source = self.active.source();
        let (now, up) = ((self.settings.clock)(), since_boot());
        let when = |time: u64| Timestamp(now.0 - (up.saturating_sub(time) / 1_000_000) as i64);
        for event in told.drain(..) {
            match event {
                Told::Exec { time, activity, ppid } if time < until => {
                    let process = &activity.process;
                    self.module_files.note(process.pid, &process.cwd, &process.argv);
                    self.exec(activity, ppid, when(time), out);
                }
                Told::Entered { time, mut activity, mut ppid, called } if time < until => {
                    let process = &mut activity.process;
                    if !entry::complete(&self.settings.proc, called, process, &mut ppid) {
                        activity.change = Change::Exec { truncated: true };
                    }
                    self.exec(activity, ppid, when(time), out);
                }
                Told::Module { time, pid, loaded, command, name } if time < until => {
                    let process = self.directory().of_stream(pid, &command);
                    self.told_module(when(time), loaded, name, process);
                }
                Told::Traced { time, pid, command, target } if time < until => {
                    let process = self.directory().of_stream(pid, &command);
                    self.told_traced(when(time), process, target, source, out);
                }
                Told::Program { time, pid, command, name, kind } if time < until => {
                    let process = self.directory().of_stream(pid, &command);
                    self.told_program(when(time), process, name, kind, out);
                }
                Told::Credentials { time, pid, command, uid } if time < until => {
                    self.became_root(when(time), pid, &command, uid, source, out);
                }
                Told::Connection(connection) if connection.time < until => self.connects(*connection),
                Told::Exit { time, pid, reason } if time < until => {
                    self.exit(pid, reason, when(time), source, out);
                }
                _ => {}
            }
        }
    }

    /// Tells the network sensor who it is.
    fn connects(&mut self, connection: Connection) {
        let Connection { pid, parent, command, listens, protocol, local, remote, .. } = connection;
        if self.table().get(pid).is_none() {
            // It forked, and runs its parent's program, or is older than the table.
            if self.table().get(parent).is_some_and(|parent| parent.is_called(&command)) {
                self.table().fork(pid, parent);
            } else {
                self.adopt(pid, ANCESTORS);
            }
        }
        let by = self.directory().of_stream(pid, &command);
        self.owners.tell(protocol, local, remote, listens, by);
    }
}
