//! Local users and groups: what is another since the last look, also since the last run.
//!
//! | Module | Holds |
//! |---|---|
//! | [`audit`] | who changed them, as programs tell audit |
//! | `database` | `/etc/passwd`, `/etc/group`, `/etc/shadow` |
//! | `difference` | from two states to what became of whom |
//! | `baseline` | the state as it was last, kept over restarts |
//! | [`sensor`] | settings, the task |

pub mod audit;
mod baseline;
mod database;
mod difference;
pub mod sensor;

pub use sensor::{AccountSensor, Settings};

/// Reads the files of accounts from these bytes, and what another state of them comes to; for fuzzing. The number of changes told.
///
/// # Panics
/// When a state is not read back as it was written, or differs from itself.
#[doc(hidden)]
#[must_use]
pub fn fuzz(files: [&[u8]; 3]) -> usize {
    let [passwd, group, shadow] = files;
    let now = database::Accounts::parse(passwd, group, Some(shadow));
    assert!(baseline::parse(baseline::text(&now).as_bytes()).as_ref() == Some(&now));
    assert!(difference::between(&now, &now).0.is_empty());
    let _ = baseline::parse(passwd);
    difference::between(&database::Accounts::default(), &now).0.len()
}
