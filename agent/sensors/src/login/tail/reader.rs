//! One open log file, cut into lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use super::position;
use crate::login::line::MAX_LINE;

/// How long an unfinished last line is held back.
pub(super) const HOLD: Duration = Duration::from_secs(1);
/// How many of the last bytes read are compared before reading on.
const REMEMBERED: usize = 64;

/// A line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its bytes, without the line end; at most [`MAX_LINE`].
    pub bytes: Vec<u8>,
    /// False if its end is missing: it was longer than [`MAX_LINE`], or nobody finished it within a second. What came later of it
    /// is left out.
    pub whole: bool,
}

/// One open log file and what is known of its unfinished last line.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    /// Device and inode number.
    pub(super) identity: (u64, u64),
    /// Offset of the next byte to read.
    offset: u64,
    /// Offset behind the last line that was handed out, or left out.
    done: u64,
    /// The unfinished last line.
    pending: Vec<u8>,
    /// When its first byte was read.
    pending_since: Option<Instant>,
    /// The rest of the current line is left out, up to its end.
    skipping: bool,
    /// The last bytes read.
    recent: Vec<u8>,
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be more.
    More,
    /// The end of the file, for now.
    End,
    /// The file was emptied or rewritten; reading goes on at its beginning. So many bytes had been read before.
    Truncated(u64),
}

impl Reader {
    /// Reads `file` from `offset` on. If that is in the middle of a line, the rest of the line is left out.
    pub(super) fn new(file: File, offset: u64) -> io::Result<Self> {
        let meta = file.metadata()?;
        let mut skipping = false;
        if offset > 0 {
            let mut before = [0];
            skipping = file.read_at(&mut before, offset - 1)? == 1 && before[0] != b'\n';
        }
        Ok(Self {
            file,
            identity: (meta.dev(), meta.ino()),
            offset,
            done: offset,
            pending: Vec::new(),
            pending_since: None,
            skipping,
            recent: Vec::new(),
        })
    }

    /// Reads `file` from its end on; if its last line is unfinished, from the beginning of that.
    pub(super) fn at_end(file: File, size: u64) -> io::Result<Self> {
        let mut bytes = vec![0; MAX_LINE];
        let start = size.saturating_sub(MAX_LINE as u64);
        let length = file.read_at(&mut bytes, start)?;
        let last = bytes[..length].iter().rposition(|&b| b == b'\n');
        let offset = match last {
            Some(at) => start + at as u64 + 1,
            None if start == 0 => 0,
            None => start + length as u64,
        };
        Self::new(file, offset)
    }

    /// The open file's descriptor number.
    pub(super) fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Offset behind the last line that was handed out, and the check that goes with it.
    pub(super) fn position(&self) -> io::Result<(u64, u64)> {
        Ok((self.done, position::check(&self.file, self.done)?))
    }

    /// Until when the unfinished last line is held back.
    pub(super) fn hold_until(&self) -> Option<Instant> {
        self.pending_since.map(|since| since + HOLD)
    }

    /// Reads one buffer's worth and appends the lines in it.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        lines: &mut VecDeque<Line>,
    ) -> io::Result<Progress> {
        if self.was_rewritten()? {
            let before = self.offset;
            (self.offset, self.done) = (0, 0);
            (self.pending_since, self.skipping) = (None, false);
            self.pending.clear();
            self.recent.clear();
            return Ok(Progress::Truncated(before));
        }
        let length = loop {
            match self.file.read_at(buffer, self.offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if length == 0 {
            return Ok(Progress::End);
        }
        self.remember(&buffer[..length]);
        for part in buffer[..length].split_inclusive(|&b| b == b'\n') {
            self.take(part, now, lines);
        }
        Ok(if length < buffer.len() { Progress::End } else { Progress::More })
    }

    /// Hands out the unfinished last line if it is held back for too long.
    pub(super) fn give_up_waiting(&mut self, now: Instant, lines: &mut VecDeque<Line>) {
        if self.hold_until().is_some_and(|until| until <= now) {
            self.hand_out(false, lines);
            self.skipping = true;
        }
    }

    /// One line with its end, or the beginning of one.
    fn take(&mut self, part: &[u8], now: Instant, lines: &mut VecDeque<Line>) {
        self.offset += part.len() as u64;
        let (text, ended) = match part {
            [text @ .., b'\n'] => (text, true),
            text => (text, false),
        };
        if !self.skipping {
            // A file truncated under a writer that does not append has a hole at its beginning, which reads as NULs.
            let leading =
                if self.pending.is_empty() { text.iter().take_while(|&&b| b == 0).count() } else { 0 };
            let text = &text[leading..];
            let room = MAX_LINE - self.pending.len();
            self.pending.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() > room {
                self.hand_out(false, lines);
                self.skipping = true;
            } else if ended {
                if self.pending.is_empty() {
                    self.done = self.offset;
                } else {
                    self.hand_out(true, lines);
                }
            } else if self.pending_since.is_none() && !self.pending.is_empty() {
                self.pending_since = Some(now);
            }
        }
        if self.skipping {
            self.done = self.offset;
            self.skipping = !ended;
        }
    }

    fn hand_out(&mut self, whole: bool, lines: &mut VecDeque<Line>) {
        lines.push_back(Line { bytes: std::mem::take(&mut self.pending), whole });
        self.pending_since = None;
        self.done = self.offset;
    }

    fn remember(&mut self, bytes: &[u8]) {
        let keep = &bytes[bytes.len().saturating_sub(REMEMBERED)..];
        let overflow = (self.recent.len() + keep.len()).saturating_sub(REMEMBERED);
        self.recent.drain(..overflow);
        self.recent.extend_from_slice(keep);
    }

    /// The file is shorter than what was read of it, or is not what was read any more.
    fn was_rewritten(&self) -> io::Result<bool> {
        if self.offset == 0 {
            return Ok(false);
        }
        if self.recent.is_empty() {
            return Ok(self.file.metadata()?.len() < self.offset);
        }
        let mut bytes = [0; REMEMBERED];
        let bytes = &mut bytes[..self.recent.len()];
        match self.file.read_exact_at(bytes, self.offset - bytes.len() as u64) {
            Ok(()) => Ok(bytes != self.recent.as_slice()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn all(reader: &mut Reader, now: Instant) -> Vec<Line> {
        let (mut lines, mut buffer) = (VecDeque::new(), [0; 64]);
        for _ in 0..100_000 {
            if reader.read(&mut buffer, now, &mut lines).expect("a readable file") == Progress::End {
                return lines.into();
            }
        }
        panic!("no end");
    }

    fn whole(text: &str) -> Line {
        Line { bytes: text.as_bytes().to_vec(), whole: true }
    }

    #[test]
    fn lines_long_lines_and_unfinished_ones() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let mut reader = Reader::new(file.reopen().expect("open"), 0).expect("a reader");
        let now = Instant::now();
        file.write_all(b"one\n\ntwo\nthr").expect("write");
        assert_eq!(all(&mut reader, now), [whole("one"), whole("two")]);
        assert_eq!(reader.position().expect("a position").0, 9);
        file.write_all(b"ee\n").expect("write");
        assert_eq!(all(&mut reader, now), [whole("three")]);
        assert_eq!(reader.hold_until(), None);

        let long = "x".repeat(MAX_LINE);
        file.write_all(format!("{long}\n{long}y\nend\n").as_bytes()).expect("write");
        let lines = all(&mut reader, now);
        assert_eq!(lines[0], whole(&long));
        assert_eq!(lines[1], Line { bytes: long.into_bytes(), whole: false });
        assert_eq!(lines[2..], [whole("end")]);

        file.write_all(b"unfin").expect("write");
        assert_eq!(all(&mut reader, now), []);
        let mut lines = VecDeque::new();
        reader.give_up_waiting(now + HOLD / 2, &mut lines);
        assert_eq!(lines, []);
        reader.give_up_waiting(now + HOLD, &mut lines);
        assert_eq!(lines, [Line { bytes: b"unfin".to_vec(), whole: false }]);
        file.write_all(b"ished\nnext\n").expect("write");
        assert_eq!(all(&mut reader, now), [whole("next")]);
    }

    #[test]
    fn truncation_is_seen_even_when_the_file_has_grown_again() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let mut reader = Reader::new(file.reopen().expect("open"), 0).expect("a reader");
        let now = Instant::now();
        file.write_all(b"first line\n").expect("write");
        assert_eq!(all(&mut reader, now), [whole("first line")]);
        std::fs::write(file.path(), b"other line that is longer\n").expect("write");
        let (mut lines, mut buffer) = (VecDeque::new(), [0; 64]);
        assert_eq!(reader.read(&mut buffer, now, &mut lines).expect("read"), Progress::Truncated(11));
        assert_eq!(all(&mut reader, now), [whole("other line that is longer")]);
        // A hole, as left by truncating under a writer that keeps its offset.
        std::fs::write(file.path(), [&[0; 10_000][..], b"after the hole\n"].concat()).expect("write");
        assert_eq!(all(&mut reader, now), [whole("after the hole")]);
    }

    #[test]
    fn a_start_in_the_middle_of_a_line_leaves_the_rest_of_it_out() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"old\nhalf").expect("write");
        let now = Instant::now();
        let mut at_end = Reader::at_end(file.reopen().expect("open"), 8).expect("a reader");
        let mut middle = Reader::new(file.reopen().expect("open"), 6).expect("a reader");
        file.write_all(b" line\nnew\n").expect("write");
        assert_eq!(all(&mut at_end, now), [whole("half line"), whole("new")]);
        assert_eq!(all(&mut middle, now), [whole("new")]);
    }

    proptest! {
        /// However the writer's bytes arrive, the lines are those of the whole.
        #[test]
        fn chunks_do_not_matter(lines in proptest::collection::vec("[a-z ]{1,90}", 0..20), cuts in proptest::collection::vec(1usize..200, 0..20)) {
            let mut text = lines.join("\n").into_bytes();
            text.push(b'\n');
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            let mut reader = Reader::new(file.reopen().expect("open"), 0).expect("a reader");
            let (mut seen, mut rest, now) = (Vec::new(), &text[..], Instant::now());
            for cut in cuts {
                let (now_written, later) = rest.split_at(cut.min(rest.len()));
                file.write_all(now_written).expect("write");
                seen.extend(all(&mut reader, now));
                rest = later;
            }
            file.write_all(rest).expect("write");
            seen.extend(all(&mut reader, now));
            let expected: Vec<Line> = lines.iter().map(|l| whole(l)).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
