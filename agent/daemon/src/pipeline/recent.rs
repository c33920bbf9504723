//! The latest events, kept for who asks.

use std::collections::VecDeque;
use std::sync::Arc;

/// A bounded list that forgets its oldest entries.
#[derive(Debug)]
pub(super) struct Recent {
    /// As the sinks have them: few are ever asked for.
    lines: VecDeque<Arc<[u8]>>,
    bytes: usize,
    entries: usize,
    limit: usize,
}

impl Recent {
    /// Keeps at most so many entries and so many bytes.
    pub(super) fn new(entries: usize, limit: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, entries, limit }
    }

    pub(super) fn push(&mut self, line: Arc<[u8]>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.entries || (self.bytes > self.limit && self.lines.len() > 1) {
            if let Some(oldest) = self.lines.pop_front() {
                self.bytes -= oldest.len();
            }
        }
    }

    /// The latest, at most so many, oldest first.
    pub(super) fn latest(&self, limit: usize) -> Vec<Arc<str>> {
        self.lines.iter().skip(self.lines.len().saturating_sub(limit)).map(|line| text(line)).collect()
    }
}

/// An encoded event as text, which it is.
pub(super) fn text(line: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(line).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_by_number_and_by_size() {
        let mut recent = Recent::new(3, 10);
        for line in ["a", "b", "c", "d"] {
            recent.push(line.as_bytes().into());
        }
        assert_eq!(recent.latest(2).iter().map(|l| &**l).collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(recent.latest(9).len(), 3);
        recent.push(b"0123456789ab".as_slice().into());
        assert_eq!(recent.latest(9).len(), 1);
    }
}
