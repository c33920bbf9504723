//! Policies, exceptions and scans: what the command line and the daemon share.
//!
//! | Module | Holds |
//! |---|---|
//! | [`policies`] | policy files, found and read |
//! | [`schedule`] | scans of the running device, when and how |
//! | [`conclusions`] | what the last scan concluded, and what changed since |
//! | `idle` | a thread that takes only what nobody else wants |
//! | [`ruleset`] | the packet filter's ruleset, asked of nft |

pub mod conclusions;
pub(crate) mod idle;
pub mod policies;
pub mod ruleset;
pub mod schedule;

use defender_model::time::Timestamp;
use defender_posture::{Exception, Exceptions, Inputs};

use crate::config::{Config, Posture};

impl Posture {
    /// The exceptions as the scan takes them.
    ///
    /// # Errors
    /// What the first lacks that is not complete.
    pub fn exceptions(&self) -> Result<Exceptions, String> {
        let of = |exception: &crate::config::PostureException| Exception {
            check: exception.check.clone(),
            reason: exception.reason.clone(),
            owner: exception.owner.clone(),
            expires: exception.expires.clone(),
        };
        Exceptions::new(self.exception.iter().map(of).collect())
    }
}

/// What a scan of the running device is told.
#[must_use]
pub fn live_inputs(config: &Config, time: Timestamp) -> Inputs {
    Inputs {
        live: true,
        ruleset: ruleset::read(&config.response.nft),
        allowed_ports: config.posture.allowed_ports.clone(),
        time,
        ..Inputs::default()
    }
}
