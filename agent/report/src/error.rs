//! What can go wrong in a sink.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a sink cannot deliver.
#[derive(Debug)]
pub enum Error {
    /// A file of the sink.
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done with it, as an infinitive: `write to`.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A socket.
    Socket {
        /// Path, or host and port.
        target: String,
        /// What was to be done: `connect to`, `send to`.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The peer did not answer in time.
    Timeout {
        /// Host and port.
        target: String,
        /// What was to be done.
        action: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The peer closed the connection.
    Closed {
        /// Host and port.
        target: String,
    },
    /// TLS could not be set up, or the peer's certificate is not accepted.
    Tls {
        /// Host and port.
        target: String,
        /// What exactly: the certificate's fault, or OpenSSL's words.
        detail: String,
    },
    /// The peer does not let us in.
    Refused {
        /// Host and port.
        target: String,
        /// What it said.
        detail: String,
    },
    /// The peer does not keep to its protocol.
    Protocol {
        /// Host and port.
        target: String,
        /// What it said.
        detail: String,
    },
}

impl Error {
    /// The file system has no room.
    pub(crate) fn is_full(&self) -> bool {
        let Self::File { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, action, source } => write!(f, "cannot {action} {}: {source}", path.display()),
            Self::Socket { target, action, source } => write!(f, "cannot {action} {target}: {source}"),
            Self::Timeout { target, action, after } => {
                write!(f, "cannot {action} {target}: no answer within {} s", after.as_secs())
            }
            Self::Closed { target } => write!(f, "{target} closed the connection"),
            Self::Tls { target, detail } => write!(f, "no TLS with {target}: {detail}"),
            Self::Refused { target, detail } | Self::Protocol { target, detail } => {
                write!(f, "{target}: {detail}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Socket { source, .. } => Some(source),
            _ => None,
        }
    }
}
