//! The learned profile: what a product does, so that what it does not do is noticed.
//!
//! | Module | Holds |
//! |---|---|
//! | here | what a profile knows about a program |
//! | `observed` | from an event to what it says about a program |
//! | `generalise` | from a name seen to the name kept |
//! | `pattern` | names with placeholders |
//! | `endpoint` | where a program listens and what it connects to |
//! | `learn` | from events to a profile |
//! | `document` | the profile as a file, differences of two |
//! | `watch` | the profile in force: what of an event it lacks |

mod document;
pub(crate) mod endpoint;
mod generalise;
mod learn;
mod observed;
mod pattern;
mod watch;

pub use document::{difference, Document, Entry, ProfileError, MAX_BYTES};
pub use learn::Learner;
pub use watch::{Lack, Profile};

#[cfg(test)]
mod tests;

use endpoint::Endpoint;
use pattern::{Name, Separator};

/// What a profile knows about a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facet {
    /// Who runs it.
    Users,
    /// Which programs start it.
    Parents,
    /// Where it listens.
    Listens,
    /// What it connects to.
    Connects,
    /// Which domains it looks up.
    LooksUp,
    /// Which watched files it creates, changes, renames and removes.
    Writes,
    /// Which watched files it reads.
    Reads,
    /// Who logs in where; of no program.
    Logins,
}

impl Facet {
    /// Every facet, in the order of the file.
    pub const ALL: [Self; 8] = [
        Self::Users,
        Self::Parents,
        Self::Listens,
        Self::Connects,
        Self::LooksUp,
        Self::Writes,
        Self::Reads,
        Self::Logins,
    ];

    /// The key in the file.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Parents => "parents",
            Self::Listens => "listens",
            Self::Connects => "connects",
            Self::LooksUp => "looks_up",
            Self::Writes => "writes",
            Self::Reads => "reads",
            Self::Logins => "logins",
        }
    }

    /// Whether it stands in the section of that program; the empty name is the section `any`.
    fn fits(self, program: &str) -> bool {
        match self {
            Self::Users | Self::Parents => !program.is_empty(),
            Self::Logins => program.is_empty(),
            _ => true,
        }
    }

    /// Reads an entry that is a name; `None` for entries that are none.
    fn name(self, text: &str) -> Option<Result<Name, String>> {
        match self {
            Self::Users | Self::Logins => Some(Name::parse(text, Separator::Slash)),
            Self::Parents | Self::Writes | Self::Reads => Some(document::path(text)),
            Self::LooksUp => Some(document::domain(text)),
            Self::Listens | Self::Connects => None,
        }
    }

    /// Reads an entry that is an end of a connection.
    fn endpoint(self, text: &str) -> Result<Endpoint, String> {
        if self == Self::Listens {
            Endpoint::listen(text)
        } else {
            Endpoint::peer(text)
        }
    }

    /// What is wrong with an entry.
    fn check(self, text: &str) -> Result<(), String> {
        match self.name(text) {
            Some(name) => name.map(drop),
            None => self.endpoint(text).map(drop),
        }
    }
}
