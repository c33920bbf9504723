//! Sequence numbers: from 1 at each boot, going on over restarts of the agent.
//!
//! A file in the run directory, which every boot empties, holds the number up to which numbers may have been given out. They are
//! reserved in blocks, so a crash leaves a gap of at most a block and never a number that is used twice.

use std::io;
use std::path::{Path, PathBuf};

use crate::small_file;

/// Numbers reserved at a time.
const BLOCK: u64 = 4096;

/// Bytes of the file that are read; the longest number has 20.
const LIMIT: u64 = 64;

/// The source of sequence numbers.
#[derive(Debug)]
pub(super) struct Sequence {
    file: PathBuf,
    last: u64,
    reserved: u64,
}

impl Sequence {
    /// Goes on where the file says, or starts at 1.
    pub(super) fn open(file: &Path) -> Self {
        let text = small_file::read(file, LIMIT).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let last = text.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        Self { file: file.to_owned(), last, reserved: last }
    }

    /// The last number given out, or that may have been.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        if self.last > self.reserved {
            self.reserved = self.last + BLOCK;
            // Without the file numbers begin anew after a restart; the boot goes on being guarded.
            if let Err(error) = self.write(self.reserved) {
                tracing::warn!(%error, file = %self.file.display(), "cannot reserve sequence numbers");
            }
        }
        self.last
    }

    /// Gives back what was reserved and not used.
    pub(super) fn close(self) {
        if let Err(error) = self.write(self.last) {
            tracing::warn!(%error, file = %self.file.display(), "cannot give back sequence numbers");
        }
    }

    fn write(&self, value: u64) -> io::Result<()> {
        small_file::replace(&self.file, value.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_after_a_stop_and_leaps_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sequence");
        let mut sequence = Sequence::open(&file);
        assert_eq!((sequence.next(), sequence.next()), (1, 2));
        sequence.close();
        let mut sequence = Sequence::open(&file);
        assert_eq!(sequence.next(), 3);
        drop(sequence);
        assert_eq!(Sequence::open(&file).next(), 3 + BLOCK + 1);
    }
}
