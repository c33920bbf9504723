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
