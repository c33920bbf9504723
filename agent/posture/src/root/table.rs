//! Ownership and device nodes of an image that was built without privileges: Buildroot's makedevs table.
//!
//! `<path> <type> <mode> <uid> <gid> <major> <minor> <start> <inc> <count>` with `-` for what does not matter; type `f` file, `F` file
//! that may be missing, `d` directory, `r` directory and all in it, `c` and `b` devices, `p` FIFO; `|xattr` lines add capabilities to
//! the entry before. Source: Buildroot manual, "Makedev syntax documentation".

use super::Kind;

/// Most entries of a table, devices of a series counted one by one.
const MAX_ENTRIES: usize = 1 << 20;

/// Mode and ownership the table gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Mode; `None` keeps the file's own.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path in the image.
    pub path: Vec<u8>,
    /// What it is, where the table itself creates it: directory, device or FIFO.
    pub kind: Option<Kind>,
    /// Mode and owner.
    pub attributes: Attributes,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// All in the directory too.
    pub recursive: bool,
    /// File capabilities as text.
    pub capability: Option<String>,
}

/// A device and permission table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceTable {
    /// In the order they apply.
    pub entries: Vec<Entry>,
}

/// A line that is not a line of such a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl core::fmt::Display for TableError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for TableError {}

impl DeviceTable {
    /// Reads a table. `user` and `group` look names up in the image.
    ///
    /// # Errors
    /// The first line that does not fit.
    pub fn parse(
        bytes: &[u8],
        user: impl Fn(&str) -> Option<u32>,
        group: impl Fn(&str) -> Option<u32>,
    ) -> Result<Self, TableError> {
        let mut table = Self::default();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = defender_model::text::from_bytes(line);
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            table.add(&words, &user, &group).map_err(|message| TableError { line: index + 1, message })?;
        }
        Ok(table)
    }

    fn add(
        &mut self,
        words: &[&str],
        user: &impl Fn(&str) -> Option<u32>,
        group: &impl Fn(&str) -> Option<u32>,
    ) -> Result<(), String> {
        if words[0] == "|xattr" {
            let last = self.entries.last_mut().ok_or("`|xattr` without an entry before it")?;
            last.capability = Some(words[1..].join(" "));
            return Ok(());
        }
        let [path, kind, mode, uid, gid, rest @ ..] = words else {
            return Err(format!("{} columns; at least 5 are needed", words.len()));
        };
        let (kind, recursive) = match *kind {
            "f" | "F" => (None, false),
            "d" => (Some(Kind::Directory), false),
            "r" => (None, true),
            "c" => (Some(Kind::Character), false),
            "b" => (Some(Kind::Block), false),
            "p" => (Some(Kind::Fifo), false),
            other => return Err(format!("type `{other}`; it is one of f, F, d, r, c, b, p")),
        };
        let mode = match *mode {
            "-" | "-1" => None,
            octal => Some(
                u32::from_str_radix(octal, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777)
                    .ok_or_else(|| format!("mode `{octal}` is not octal"))?,
            ),
        };
        let id = |word: &str, of: &dyn Fn(&str) -> Option<u32>| match word {
            "-" => Ok(0),
            word => {
                word.parse().ok().or_else(|| of(word)).ok_or_else(|| format!("`{word}` is nobody's name"))
            }
        };
        let attributes = Attributes { mode, uid: id(uid, user)?, gid: id(gid, group)? };
        let number = |at: usize| match rest.get(at) {
            None | Some(&"-") => Ok(0_u32),
            Some(word) => word.parse().map_err(|_| format!("`{word}` is not a number")),
        };
        let is_device = matches!(kind, Some(Kind::Character | Kind::Block));
        let (major, minor) = (number(0)?, number(1)?);
        let (start, step, count) = (number(2)?, number(3)?, number(4)?);
        let entry = |path: String, minor| Entry {
            path: path.into_bytes(),
            kind,
            attributes,
            device: is_device.then_some((major, minor)),
            recursive,
            capability: None,
        };
        if self.entries.len() + count as usize > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} entries"));
        }
        if count == 0 {
            self.entries.push(entry((*path).to_owned(), minor));
        }
        for number in start..start.saturating_add(count) {
            let minor = minor.saturating_add((number - start).saturating_mul(step));
            self.entries.push(entry(format!("{path}{number}"), minor));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DeviceTable, TableError> {
        DeviceTable::parse(text.as_bytes(), |name| (name == "www-data").then_some(33), |_| None)
    }

    #[test]
    fn reads_what_makedevs_reads() {
        let table = parse(
            "# comment\n/dev d 755 0 0 - - - - -\n/bin/ping f 4755 0 0 - - - - -\n|xattr cap_net_raw+ep\n/dev/hda b 640 0 6 3 0 1 1 2\n/srv r -1 www-data 0 - - - - -\n",
        )
        .unwrap();
        assert_eq!(table.entries.len(), 5);
        assert_eq!(table.entries[1].capability.as_deref(), Some("cap_net_raw+ep"));
        assert_eq!(table.entries[1].attributes.mode, Some(0o4755));
        assert_eq!(table.entries[3].path, b"/dev/hda2");
        assert_eq!(table.entries[3].device, Some((3, 1)));
        assert!(table.entries[4].recursive);
        assert_eq!(table.entries[4].attributes, Attributes { mode: None, uid: 33, gid: 0 });
    }

    #[test]
    fn names_the_line_that_does_not_fit() {
        assert_eq!(parse("\n/dev q 755 0 0").unwrap_err().line, 2);
        assert!(parse("/a f 999 0 0").unwrap_err().message.contains("not octal"));
        assert!(parse("/a f 644 nobody 0").unwrap_err().message.contains("nobody"));
        assert!(parse("/a c 644 0 0 1 1 0 1 4294967295").unwrap_err().message.contains("more than"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = DeviceTable::parse(&bytes, |_| None, |_| None);
        }
    }
}
