//! Files created, changed and removed, seen by inotify and by comparing with a baseline.
//!
//! inotify says at once what happens to a watched file; the baseline says what happened while nobody looked: before the agent started,
//! or when the kernel's queue was too short.
//!
//! | Module | Holds |
//! |---|---|
//! | `selection` | which paths are watched |
//! | `tree` | watches on directories |
//! | `pending` | several events of the kernel about one change, moves |
//! | `watcher` | from the kernel's events and looks at files to changes |
//! | `entry` | what is known of one file |
//! | `digest` | SHA-256 |
//! | `baseline` | every file as it was last, kept over restarts |
//! | `bound` | what is counted; bounds of the configuration and the kernel |
//! | `pass` | looking at every file, in a thread that takes its time |
//! | [`sensor`] | settings, status, the task |

mod baseline;
mod bound;
mod digest;
mod entry;
mod pass;
mod pending;
mod selection;
pub mod sensor;
mod tree;
mod watcher;

pub(crate) use baseline::{check, write};
pub use digest::of as digest;
pub use sensor::{FileSensor, Order, Settings, Status};
