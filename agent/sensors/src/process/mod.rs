//! Processes: exec and exit, with arguments, users, session and parent.
//!
//! | Module | Holds |
//! |---|---|
//! | [`audit`] | the audit source: complete |
//! | [`ebpf`] | programs in the kernel and a ring buffer; behind the cargo feature `ebpf` |
//! | [`connector`] | the proc connector: details may be gone before they are read |
//! | [`poll`] | polling of `/proc` |
//! | [`procfs`] | `/proc`, for start-up, for the connector and for polling |
//! | [`table`] | the bounded process table |
//! | `module_file` | which file a kernel module came from |
//! | [`writers`] | who wrote to a file, for the file sensor |
//! | [`sensor`] | picks a source, runs it, falls back |
//! | `active` | the source in force |
//! | [`preference`] | which sources are tried, in which order |
//! | [`recording`] | audit log text instead of a live kernel, for `replay` |

mod active;
pub(crate) mod audit;
pub(crate) mod connector;
mod directory;
#[cfg(ebpf)]
pub(crate) mod ebpf;
mod module_file;
pub(crate) mod poll;
mod preference;
pub(crate) mod procfs;
mod recording;
mod sensor;
pub(crate) mod table;
mod writers;

pub use directory::Directory;
#[cfg(ebpf)]
pub use ebpf::decode_ring;
pub use preference::Preference;
pub use recording::AuditLog;
pub use sensor::{ProcessSensor, Settings, Status, UPGRADE};
pub use writers::{Writer, Writers};

/// A source that cannot be used here, and why: the cause and the next step, in words for `defender status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    reason: String,
}

impl Unavailable {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl core::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unavailable {}
