//! What other sensors are told of the calls that audit tells of: who wrote to a file, who loaded a module, who changed
//! an account.

use std::time::Instant;

use defender_model::process::Actor;
use defender_model::time::Timestamp;
use tokio::sync::mpsc;

use super::{ProcessSensor, ANCESTORS};
use crate::account;
use crate::module::Told;
use crate::network::Owners;
use crate::process::audit::arch::Effect;
use crate::process::audit::assembly::Exec;
use crate::process::audit::record::Stamp;
use crate::process::recording::actor;
use crate::process::Writers;

impl ProcessSensor {
    /// Hands what the audit stream tells of kernel modules to the module sensor.
    pub fn tell_modules(&mut self, modules: mpsc::Sender<Told>) {
        self.modules = Some(modules);
    }

    /// Tells the file sensor who wrote.
    #[must_use]
    pub fn writers(&self) -> Writers {
        self.writers.clone()
    }

    /// Tells the network sensor whose connections are.
    #[must_use]
    pub fn owners(&self) -> Owners {
        self.owners.clone()
    }

    /// What the audit stream tells of accounts, for the account sensor.
    #[must_use]
    pub fn account_records(&self) -> account::audit::Records {
        self.account_records.clone()
    }

    pub(super) fn told_account(&mut self, stamp: Stamp, record: u16, fields: &[u8]) {
        let Some(said) = account::audit::read(record, fields) else { return };
        let by = self.doer(&Exec {
            stamp,
            pid: said.pid,
            ppid: 0,
            uid: said.uid,
            euid: None,
            gid: None,
            auid: said.auid,
            session: None,
            tty: None,
            executable: said.executable.clone(),
            argv: Vec::new(),
            cwd: String::new(),
            truncated: false,
        });
        self.account_records.hear(said, by, stamp.time, Instant::now());
    }

    pub(super) fn wrote(&mut self, watch: usize, effect: Effect, by: &Exec) {
        let by = self.doer(by);
        self.writers.heard(watch, effect, by, Instant::now());
    }

    /// The process behind a call that audit tells of.
    pub(super) fn doer(&mut self, by: &Exec) -> Actor {
        self.adopt(by.pid, ANCESTORS);
        let user = by.uid.and_then(|uid| self.accounts.name(uid));
        actor(by, &self.table(), user)
    }

    pub(super) fn module(&mut self, loaded: bool, name: String, by: &Exec) {
        let process = self.doer(by);
        self.told_module(by.stamp.time, loaded, name, process);
    }

    pub(super) fn told_module(&mut self, time: Timestamp, loaded: bool, name: String, process: Actor) {
        let path = if loaded { self.module_files.of(process.pid, &name) } else { None };
        if let Some(modules) = &self.modules {
            let told = Told { time, loaded, name, path, process };
            // What finds no room is found by comparing.
            let _ = modules.try_send(told);
        }
    }
}
