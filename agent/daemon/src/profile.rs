//! The file of the learned profile.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use defender_detect::profile::{Document, MAX_BYTES};

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
    let bytes = read(file)
        .map_err(|error| Problem::Unreadable(format!("{}: cannot be read: {error}", file.display())))?;
    Document::parse(&bytes).map_err(|error| {
        let place = match error.line {
            0 => String::new(),
            line => format!("{line}:"),
        };
        Problem::Mistaken(format!("{}:{place} {}", file.display(), error.message))
    })
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is taken shows that it is too long.
    File::open(file)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
