//! How a part of the daemon works and what became of what it heard, for `defender status`: services, and what they submit.

use std::sync::{Arc, Mutex, PoisonError};

use defender_sensors::balance::Balance;
use defender_sensors::file::Status;

/// Shared by the tasks of the part.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    status: Arc<Mutex<Status>>,
    balance: Arc<Mutex<Balance>>,
}

impl Tally {
    /// The figures, kept up to date.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// How one of the ways works, or why it does not: `what` names it and begins both.
    pub(crate) fn says(&self, what: &str, words: Result<&str, &str>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.modes.retain(|mode| !mode.starts_with(what));
        status.lacks.retain(|lack| !lack.starts_with(what));
        match words {
            Ok(words) => status.modes.push(format!("{what}: {words}")),
            Err(words) => status.lacks.push(format!("{what}: {words}")),
        }
    }

    /// Something happened, and this became of it.
    pub(crate) fn produced(&self, change: impl FnOnce(&mut Balance)) {
        self.count(|balance| {
            balance.produced += 1;
            change(balance);
        });
    }

    /// Counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Balance)) {
        let mut balance = self.balance.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut balance);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.counters = balance.counters().collect();
    }
}
