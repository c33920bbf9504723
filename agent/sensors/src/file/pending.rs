//! What was heard of files and is not told yet: one change of a file makes several events of the kernel.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long news of a file that is not closed waits for more.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// How long a file that left its path may take to turn up under another.
const ON_THE_MOVE: Duration = Duration::from_millis(100);
/// Files with news at most.
const FILES: usize = 4096;
/// Files on the move at most.
const MOVES: usize = 64;

/// News of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    /// It was not there before.
    pub(super) created: bool,
    /// It was written to.
    pub(super) written: bool,
    /// It got this path by a rename; from where, if that is known.
    pub(super) renamed: Option<Option<PathBuf>>,
}

/// News by file.
#[derive(Debug, Default)]
pub(super) struct Pending {
    news: HashMap<PathBuf, (Instant, News)>,
    order: VecDeque<(Instant, PathBuf)>,
}

impl Pending {
    /// Takes news of a file; true if there was some already, which it joined.
    pub(super) fn add(&mut self, path: &Path, news: News, now: Instant) -> bool {
        if let Some((_, known)) = self.news.get_mut(path) {
            known.created |= news.created;
            known.written |= news.written;
            if news.renamed.is_some() {
                known.renamed = news.renamed;
            }
            return true;
        }
        if self.order.len() >= 2 * FILES {
            // Most was told early.
            self.order.retain(|(since, path)| self.news.get(path).is_some_and(|(begun, _)| begun == since));
        }
        self.news.insert(path.to_path_buf(), (now, news));
        self.order.push_back((now, path.to_path_buf()));
        false
    }

    /// Files with news.
    pub(super) fn len(&self) -> usize {
        self.news.len()
    }

    /// The news of one file.
    pub(super) fn take(&mut self, path: &Path) -> Option<News> {
        self.news.remove(path).map(|(_, news)| news)
    }

    /// A file whose news waited long enough, or has to make room.
    pub(super) fn due(&mut self, now: Instant) -> Option<(PathBuf, News)> {
        while let Some((since, path)) = self.order.front() {
            let stands = self.news.get(path).is_some_and(|(begun, _)| begun == since);
            if stands && *since + SETTLE > now && self.news.len() <= FILES {
                return None;
            }
            let (_, path) = self.order.pop_front()?;
            if stands {
                let (_, news) = self.news.remove(&path)?;
                return Some((path, news));
            }
        }
        None
    }

    /// When the next is due.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since + SETTLE)
    }
}

/// Something that left its path.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) path: PathBuf,
    pub(super) directory: bool,
    cookie: u32,
    since: Instant,
}

/// What is between an old path and, perhaps, a new one.
#[derive(Debug, Default)]
pub(super) struct Moves {
    left: VecDeque<Left>,
}

impl Moves {
    /// Something left its path.
    pub(super) fn left(&mut self, cookie: u32, path: PathBuf, directory: bool, now: Instant) {
        self.left.push_back(Left { path, directory, cookie, since: now });
    }

    /// Something has a new path: what it left.
    pub(super) fn arrived(&mut self, cookie: u32) -> Option<Left> {
        let at = self.left.iter().position(|left| left.cookie == cookie)?;
        self.left.remove(at)
    }

    /// What did not turn up again.
    pub(super) fn gone(&mut self, now: Instant) -> Option<Left> {
        let first = self.left.front()?;
        if first.since + ON_THE_MOVE > now && self.left.len() <= MOVES {
            return None;
        }
        self.left.pop_front()
    }

    /// When the next is given up.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.left.front().map(|left| left.since + ON_THE_MOVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_one_file_is_joined_and_told_in_order() {
        let start = Instant::now();
        let mut pending = Pending::default();
        let created = News { created: true, ..News::default() };
        let written = News { written: true, ..News::default() };
        assert!(!pending.add(Path::new("/b"), created.clone(), start));
        assert!(!pending.add(Path::new("/a"), written.clone(), start));
        assert!(pending.add(Path::new("/b"), written.clone(), start));
        assert_eq!(pending.due(start), None);
        assert_eq!(pending.take(Path::new("/a")), Some(written.clone()));
        assert!(!pending.add(Path::new("/a"), written.clone(), start + SETTLE / 2));
        let both = News { created: true, written: true, renamed: None };
        assert_eq!(pending.due(start + SETTLE), Some(("/b".into(), both)));
        assert_eq!(pending.due(start + SETTLE), None, "/a began later");
        assert_eq!(pending.due(start + SETTLE * 2), Some(("/a".into(), written)));
        assert_eq!(pending.wake(), None);
    }

    #[test]
    fn a_flood_makes_room() {
        let now = Instant::now();
        let mut pending = Pending::default();
        let mut told = 0;
        for file in 0..FILES * 3 {
            pending.add(&PathBuf::from(format!("/{file}")), News::default(), now);
            while pending.due(now).is_some() {
                told += 1;
            }
        }
        assert_eq!((told, pending.news.len(), pending.order.len()), (FILES * 2, FILES, FILES));
    }

    #[test]
    fn moves_are_paired_or_given_up() {
        let now = Instant::now();
        let mut moves = Moves::default();
        moves.left(1, "/a".into(), false, now);
        moves.left(2, "/b".into(), true, now);
        assert_eq!(moves.arrived(2).map(|left| left.path), Some("/b".into()));
        assert!(moves.arrived(2).is_none() && moves.gone(now).is_none());
        assert_eq!(moves.gone(now + ON_THE_MOVE).map(|left| left.path), Some("/a".into()));
    }
}
