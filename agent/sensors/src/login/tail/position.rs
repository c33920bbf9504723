//! Where in a log file reading got to, in a form that survives a restart.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::str::FromStr;

/// How many bytes before the offset identify the content.
const CHECKED: usize = 64;

/// Where in a log file reading got to: everything before it has been handed out.
///
/// As text (for a state file) it is one line: inode, offset, check and path, separated by single spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file's configured path.
    pub path: PathBuf,
    /// Inode of the file that was read; it stays when the file is renamed by a rotation.
    pub inode: u64,
    /// Offset in bytes behind the last line that was handed out.
    pub offset: u64,
    /// Hash of the bytes just before the offset: tells a rewritten or another file with the same inode number.
    pub check: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:016x} {}", self.inode, self.offset, self.check, self.path.display())
    }
}

/// The text is not a [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPosition;

impl fmt::Display for BadPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a log position: expected inode, offset, check and path")
    }
}

impl std::error::Error for BadPosition {}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(line: &str) -> Result<Self, BadPosition> {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().ok_or(BadPosition);
        let inode = word()?.parse().map_err(|_| BadPosition)?;
        let offset = word()?.parse().map_err(|_| BadPosition)?;
        let check = u64::from_str_radix(word()?, 16).map_err(|_| BadPosition)?;
        let path = PathBuf::from(word()?);
        if path.as_os_str().is_empty() {
            return Err(BadPosition);
        }
        Ok(Self { path, inode, offset, check })
    }
}

/// The hash for a [`Position`] at `offset` of `file`; fails if the file is shorter.
pub(super) fn check(file: &File, offset: u64) -> io::Result<u64> {
    let mut bytes = [0; CHECKED];
    let length = usize::try_from(offset).map_or(CHECKED, |offset| offset.min(CHECKED));
    let bytes = &mut bytes[..length];
    file.read_exact_at(bytes, offset - length as u64)?;
    // FNV-1a.
    Ok(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let position = Position { path: "/var/log/auth log".into(), inode: 12, offset: 3456, check: 0xabc };
        assert_eq!(position.to_string(), "12 3456 0000000000000abc /var/log/auth log");
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "1 2 3", "1 2 3 ", "x 2 3 /a", "1 -2 3 /a", "1 2 z /a"] {
            assert_eq!(bad.parse::<Position>(), Err(BadPosition), "{bad}");
        }
    }
}
