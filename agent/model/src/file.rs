//! Files created, changed, removed.

use crate::process::Actor;

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileChange {
    /// It is new.
    Created,
    /// Its content changed.
    Modified,
    /// It is gone.
    Deleted,
    /// It has a new path.
    Renamed,
    /// Its mode, owner, times or extended attributes changed.
    Attributes,
    /// It was opened for reading.
    Read,
}

impl FileChange {
    /// Every change.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Modified, Self::Deleted, Self::Renamed, Self::Attributes, Self::Read];

    /// The word for it, in summaries and tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Renamed => "renamed",
            Self::Attributes => "attributes",
            Self::Read => "read",
        }
    }

    /// The change of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }
}

/// What kind of file it is: `st_mode & S_IFMT` (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FileType {
    /// Not known, such as of a file that is gone.
    #[default]
    Unknown,
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
    /// A named pipe.
    Pipe,
    /// A symbolic link.
    Link,
}

/// SHA-256 of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl core::fmt::Display for Sha256 {
    /// 64 hexadecimal digits, lower case.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::str::FromStr for Sha256 {
    type Err = NotSha256;

    fn from_str(text: &str) -> Result<Self, NotSha256> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotSha256);
        }
        let value = |digit: u8| (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (value(pair[0]), value(pair[1])) else { return Err(NotSha256) };
            *byte = high << 4 | low;
        }
        Ok(Self(out))
    }
}

/// A text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSha256;

impl core::fmt::Display for NotSha256 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a SHA-256 is 64 hexadecimal digits")
    }
}

impl std::error::Error for NotSha256 {}

/// A file was created, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileActivity {
    /// What happened.
    pub change: FileChange,
    /// Absolute path; of a rename, the new one.
    pub path: String,
    /// Path before a rename, where it was seen.
    pub old_path: Option<String>,
    /// What kind of file.
    pub file_type: FileType,
    /// Permission bits after the change (`st_mode & 07777`), where known.
    pub mode: Option<u16>,
    /// User id of the owner after the change, where known.
    pub owner: Option<u32>,
    /// Digest of the content after the change, where computed.
    pub sha256: Option<Sha256>,
    /// Who did it.
    pub process: Option<Actor>,
}

#[cfg(test)]
mod tests {
    use super::Sha256;

    #[test]
    fn digests_are_read_as_they_are_printed() {
        let text = "00ff".repeat(16);
        let digest: Sha256 = text.to_uppercase().parse().unwrap();
        assert_eq!(digest.to_string(), text);
        for bad in ["", "0", &text[1..], &format!("{}g", &text[1..]), &"é".repeat(32)] {
            assert!(bad.parse::<Sha256>().is_err(), "{bad}");
        }
    }
}
