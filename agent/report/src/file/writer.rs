//! The file itself: opening, writing whole records, rotation.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Config;
use crate::error::Error;
use crate::record::Record;

const MODE: u32 = 0o640;

/// The open file and how much of it is whole records.
#[derive(Debug)]
pub(super) struct Writer {
    config: Config,
    open: Option<Open>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    size: u64,
}

impl Writer {
    pub(super) fn new(config: Config) -> Self {
        Self { config, open: None, buffer: Vec::new() }
    }

    /// Writes records from the front of the batch; says how many, and what stopped it.
    pub(super) fn write(&mut self, batch: &VecDeque<Record>) -> (usize, Result<(), Error>) {
        let mut written = 0;
        while written < batch.len() {
            match self.write_some(batch.iter().skip(written)) {
                Ok(count) => written += count,
                Err((count, error)) => return (written + count, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// A second handle of the open file.
    pub(super) fn duplicate(&self) -> Result<Option<File>, Error> {
        match &self.open {
            Some(open) => open.file.try_clone().map(Some).map_err(|e| self.error("sync", e)),
            None => Ok(None),
        }
    }

    pub(super) fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::File { path: self.config.path.clone(), action, source }
    }

    /// What fits into the current file, in one write; if nothing does, a new file is begun.
    fn write_some<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<usize, (usize, Error)> {
        self.look().map_err(|e| (0, e))?;
        let max_size = self.config.max_size;
        let size = self.open.as_ref().map_or(0, |open| open.size);
        self.buffer.clear();
        let mut ends = Vec::new();
        for record in records {
            let end = self.buffer.len() + record.ocsf.len() + 1;
            let first_of_file = size == 0 && ends.is_empty();
            if size + end as u64 > max_size && !first_of_file {
                break;
            }
            self.buffer.extend_from_slice(&record.ocsf);
            self.buffer.push(b'\n');
            ends.push(end);
        }
        if ends.is_empty() {
            self.rotate().map_err(|e| (0, e))?;
            return Ok(0);
        }
        let Some(open) = &mut self.open else { return Ok(0) };
        let (length, outcome) = write_all(&mut open.file, &self.buffer);
        let whole = ends.iter().take_while(|&&end| end <= length).count();
        open.size += whole.checked_sub(1).map_or(0, |last| ends[last] as u64);
        match outcome {
            Ok(()) => Ok(whole),
            Err(source) => {
                // Takes back what is half written. If that fails too, opening the file again ends the line.
                let _ = open.file.set_len(open.size);
                self.open = None;
                Err((whole, self.error("write to", source)))
            }
        }
    }

    /// Opens the file if it is not open, or not any more what its name leads to.
    fn look(&mut self) -> Result<(), Error> {
        if let Some(open) = &self.open {
            match fs::symlink_metadata(&self.config.path) {
                Ok(meta) if (meta.dev(), meta.ino()) == open.identity => return Ok(()),
                // What stands in the way shows when the file is opened.
                Ok(_) | Err(_) => self.open = None,
            }
        }
        let open = self.open_file().map_err(|e| self.error("open", e))?;
        self.open = Some(open);
        Ok(())
    }

    fn open_file(&self) -> io::Result<Open> {
        // Never through a link that somebody put there, and never blocking on a pipe.
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.config.path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if meta.permissions().mode() & 0o7777 & !MODE != 0 {
            // A file that was there with wider permissions. If it is not ours to change, it is used as it is.
            let _ = file.set_permissions(fs::Permissions::from_mode(MODE));
        }
        let mut open = Open { file, identity: (meta.dev(), meta.ino()), size: meta.len() };
        let mut last = [b'\n'];
        if open.size > 0 {
            open.file.read_exact_at(&mut last, open.size - 1)?;
        }
        if last != [b'\n'] {
            open.file.write_all(b"\n")?;
            open.size += 1;
        }
        Ok(open)
    }

    /// The file becomes `.1`, that `.2`, and so on; what is one too many goes.
    fn rotate(&mut self) -> Result<(), Error> {
        self.open = None;
        let path = &self.config.path;
        let done = if self.config.keep == 0 {
            fs::remove_file(path)
        } else {
            (0..self.config.keep)
                .rev()
                .try_for_each(|number| rename(&numbered(path, number), &numbered(path, number + 1)))
        };
        done.map_err(|e| self.error("rotate", e))
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// There is not always a file to rename.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How much was written, and what stopped it before the end.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(length) => written += length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (written, Err(e)),
        }
    }
    (written, Ok(()))
}
