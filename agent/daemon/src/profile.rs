//! The file of the learned profile.

use std::path::Path;

use defender_detect::profile::{Document, Profile, MAX_BYTES};
use defender_detect::Detector;
use defender_model::health::{Health, Kind};

use crate::config::Config;
use crate::small_file;

/// Why there is no profile.
#[derive(Debug)]
pub enum Problem {
    /// The file cannot be read.
    Unreadable(String),
    /// It has a mistake.
    Mistaken(String),
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unreadable(words) | Self::Mistaken(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for Problem {}

/// Reads a profile.
///
/// # Errors
/// With the file's name, and the line of a mistake.
pub fn load(file: &Path) -> Result<Document, Problem> {
    let bytes = small_file::read(file, MAX_BYTES as u64)
        .map_err(|error| Problem::Unreadable(format!("{}: cannot be read: {error}", file.display())))?;
    Document::parse(&bytes).map_err(|error| {
        let place = match error.line {
            0 => String::new(),
            line => format!("{line}:"),
        };
        Problem::Mistaken(format!("{}:{place} {}", file.display(), error.message))
    })
}

/// Puts the profile of the configuration in force, if that is wanted, and says so. A profile that is missing or mistaken is said, and
/// the agent goes on without it.
pub fn enforce(config: &Config, detector: &mut Detector) -> Option<Health> {
    if !config.profile.enforce.0 {
        return None;
    }
    match load(&config.profile.path) {
        Ok(document) => {
            let profile = Profile::from(&document);
            let words = format!("{} is in force", config.profile.path.display());
            let health =
                Health::new(Kind::Changed, "profile", words).with("programs", profile.programs() as u64);
            detector.set_profile(profile);
            Some(health)
        }
        Err(problem) => {
            let words = format!("{problem}; the agent goes on without a profile");
            Some(Health::new(Kind::Degraded, "profile", words))
        }
    }
}
