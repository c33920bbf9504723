//! Files of threat feeds: read at the start, and again whenever one changes.
//!
//! Files are looked at from time to time rather than watched: that works on every file system, and a list that is thirty seconds
//! old is a fresh list.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use defender_detect::feed::{Feed, Kind, List, ListBuilder};
use defender_model::finding::Responses;
use defender_model::health::{self, Health};
use defender_model::severity::Severity;
use tokio::sync::mpsc;

use crate::config::Config;

/// Most feeds.
const FEEDS: usize = 64;
/// Longest file read, in bytes. Comments are not entries, so the bound on entries is none on the file.
const BYTES: u64 = 64 << 20;

/// What came of a look at the files.
#[derive(Debug)]
pub enum News {
    /// This feed is in force from now on.
    Set(Box<Feed>),
    /// The feed of that name is no longer there.
    Remove(String),
    /// Something to say about a feed.
    Said(Health),
}

/// A file that is, or should be, a feed.
#[derive(Debug, Clone, PartialEq)]
struct Source {
    path: PathBuf,
    kind: Kind,
    level: Severity,
    response: Responses,
    /// The configuration names it: it should be there.
    named: bool,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// A feed as it was read last.
#[derive(Debug)]
struct Known {
    source: Source,
    /// `None` when the file could not be looked at.
    stamp: Option<Stamp>,
    /// Entries in force.
    entries: usize,
    in_force: bool,
    /// Entries it might have had when it was read.
    room: usize,
    /// Why the latest state of the file is not in force.
    fault: Option<String>,
}

/// Reads the files of feeds.
#[derive(Debug)]
pub struct Reader {
    directories: Vec<PathBuf>,
    named: Vec<(String, Source)>,
    standard: Source,
    most: usize,
    known: BTreeMap<String, Known>,
    crowded: bool,
}

impl Reader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let standard = Source {
            path: PathBuf::new(),
            kind: Kind::Any,
            level: config.feeds.level.0,
            response: config.feeds.response.0,
            named: false,
        };
        let named = config.feed.iter().map(|feed| {
            let name = if feed.name.is_empty() { stem(&feed.path) } else { feed.name.clone() };
            let source = Source {
                path: feed.path.clone(),
                kind: feed.kind.0,
                level: feed.level.map_or(standard.level, |level| level.0),
                response: feed.response.map_or(standard.response, |response| response.0),
                named: true,
            };
            (name, source)
        });
        Self {
            directories: config.feeds.directories.clone(),
            named: named.collect(),
            standard,
            most: config.feeds.max_entries,
            known: BTreeMap::new(),
            crowded: false,
        }
    }

    /// Looks at the files and reads those that changed since. Reads flash, so it does not belong on the thread that judges events.
    pub fn look(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        let sources = self.sources(&mut news);
        let gone: Vec<String> =
            self.known.keys().filter(|name| !sources.contains_key(*name)).cloned().collect();
        for name in gone {
            self.gone(&name, &mut news);
        }
        for (name, source) in sources {
            self.source(name, source, &mut news);
        }
        news
    }

    /// The files there are, by name of the feed.
    fn sources(&mut self, news: &mut Vec<News>) -> BTreeMap<String, Source> {
        let mut sources = BTreeMap::new();
        for directory in &self.directories {
            // One that is not there, or not for the agent to read, has no feeds.
            let Ok(entries) = fs::read_dir(directory) else { continue };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
            for path in paths {
                // A named file of a directory is that feed and no other.
                if !self.named.iter().any(|(_, source)| source.path == path) {
                    sources.insert(stem(&path), Source { path, ..self.standard.clone() });
                }
            }
        }
        sources.extend(self.named.iter().cloned());
        let crowded = sources.len() > FEEDS;
        if crowded && !self.crowded {
            let words = format!("{} feeds; the first {FEEDS} by name are in force", sources.len());
            news.push(News::Said(Health::new(health::Kind::Degraded, "feeds", words)));
        } else if !crowded && self.crowded {
            let words = format!("no more than {FEEDS} feeds any longer");
            news.push(News::Said(Health::new(health::Kind::Recovered, "feeds", words)));
        }
        self.crowded = crowded;
        while sources.len() > FEEDS {
            sources.pop_last();
        }
        sources
    }

    fn gone(&mut self, name: &str, news: &mut Vec<News>) {
        let Some(known) = self.known.remove(name) else { return };
        news.push(News::Remove(name.to_owned()));
        let kind = if known.fault.is_some() { health::Kind::Recovered } else { health::Kind::Changed };
        let words = format!("{} is gone, and its entries with it", known.source.path.display());
        news.push(News::Said(Health::new(kind, component(name), words)));
    }

    fn source(&mut self, name: String, source: Source, news: &mut Vec<News>) {
        let stamp = fs::metadata(&source.path).map(|file| (Stamp::from(&file), file.is_file()));
        let now = stamp.as_ref().ok().map(|(stamp, _)| *stamp);
        let others: usize =
            self.known.iter().filter(|(other, _)| **other != name).map(|(_, k)| k.entries).sum();
        let room = self.most.saturating_sub(others);
        let before = self.known.get(&name);
        // What did not fit may fit once others are shorter.
        let hopeless = |known: &Known| known.fault.is_none() || room <= known.room;
        if before.is_some_and(|known| known.stamp == now && known.source == source && hopeless(known)) {
            return;
        }
        let read = match stamp {
            Ok((stamp, true)) => read(&source, stamp, room),
            Ok((_, false)) => Err("not a regular file".to_owned()),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        let (was_in_force, entries, old_fault) = match before {
            Some(known) => (known.in_force, known.entries, known.fault.clone()),
            None => (false, 0, None),
        };
        let mut known = Known { source, stamp: now, entries, in_force: was_in_force, room, fault: None };
        match read {
            // Somebody is writing it: the next look shows the rest.
            Ok(None) => return,
            Ok(Some(list)) => {
                (known.entries, known.in_force) = (list.len(), true);
                let kind = if old_fault.is_some() { health::Kind::Recovered } else { health::Kind::Changed };
                news.push(News::Said(summary(kind, &name, &known.source.path, &list)));
                let file = known.source.path.display().to_string();
                let feed = Feed::new(&name, &file, known.source.level, known.source.response, list);
                news.push(News::Set(Box::new(feed)));
            }
            Err(why) => {
                let path = known.source.path.display();
                let words = if was_in_force {
                    format!("{path}: {why}; the list read before stays in force")
                } else {
                    format!("{path}: {why}; nothing of it is in force")
                };
                if old_fault.as_ref() != Some(&words) {
                    news.push(News::Said(Health::new(
                        health::Kind::Degraded,
                        component(&name),
                        words.clone(),
                    )));
                }
                known.fault = Some(words);
            }
        }
        self.known.insert(name, known);
    }
}

fn component(name: &str) -> String {
    format!("feed {name}")
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn summary(kind: health::Kind, name: &str, path: &Path, list: &List) -> Health {
    let bad = list.bad_lines();
    let mut words = format!("{} is in force", path.display());
    if bad.count > 0 {
        words.push_str(&format!("; left out: {bad}"));
    }
    Health::new(kind, component(name), words)
        .with("entries", list.len() as u64)
        .with("kib", (list.bytes() / 1024) as u64)
        .with("bad_lines", bad.count as u64)
}

/// Reads a file; nothing when it changed meanwhile.
fn read(source: &Source, stamp: Stamp, most: usize) -> Result<Option<List>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut file = File::open(&source.path).map_err(unreadable)?;
    let mut builder = ListBuilder::new(source.kind, most);
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        total += count as u64;
        if total > BYTES {
            return Err(format!("longer than {BYTES} bytes"));
        }
        builder.take(&buffer[..count]).map_err(|error| error.to_string())?;
    }
    if Stamp::from(&file.metadata().map_err(unreadable)?) != stamp {
        return Ok(None);
    }
    builder.finish().map(Some).map_err(|error| error.to_string())
}

/// Reads every feed now and the changed ones from time to time, on a thread for work that blocks. Needs a runtime.
#[must_use]
pub fn start(config: &Config) -> mpsc::Receiver<News> {
    let mut reader = Reader::new(config);
    let mut interval = tokio::time::interval(Duration::from_secs(config.feeds.interval_s));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (sender, receiver) = mpsc::channel(FEEDS);
    tokio::spawn(async move {
        loop {
            interval.tick().await;
            let look = move || {
                let news = reader.look();
                (reader, news)
            };
            // It fails only when the runtime ends.
            let Ok((back, news)) = tokio::task::spawn_blocking(look).await else { return };
            reader = back;
            for one in news {
                if sender.send(one).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::value::{FeedKind, Level};

    fn reader(directory: &Path, change: impl FnOnce(&mut Config)) -> Reader {
        let mut config = Config::default();
        config.feeds.directories = vec![directory.join("a"), directory.join("b"), directory.join("missing")];
        config.feeds.max_entries = 5;
        change(&mut config);
        for name in ["a", "b"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        Reader::new(&config)
    }

    /// News as text: `+name entries`, `-name`, or kind of health and its component.
    fn told(news: &[News]) -> Vec<String> {
        news.iter()
            .map(|one| match one {
                News::Set(feed) => format!("+{} {}", feed.name(), feed.list().len()),
                News::Remove(name) => format!("-{name}"),
                News::Said(health) => format!("{} {}", health.kind.name(), health.component),
            })
            .collect()
    }

    fn words(news: &[News]) -> &str {
        news.iter()
            .find_map(|one| if let News::Said(health) = one { Some(health.message.as_str()) } else { None })
            .unwrap()
    }

    #[test]
    fn files_come_change_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = reader(directory.path(), |_| {});
        let (a, b) = (directory.path().join("a/bots.txt"), directory.path().join("b/bots.txt"));
        assert!(reader.look().is_empty());
        fs::write(&a, "192.0.2.1\n").unwrap();
        fs::write(directory.path().join("a/README"), "no feed").unwrap();
        assert_eq!(told(&reader.look()), ["changed feed bots", "+bots 1"]);
        assert!(reader.look().is_empty(), "nothing changed");
        fs::write(&b, "192.0.2.1\n192.0.2.2\n").unwrap();
        assert_eq!(told(&reader.look()), ["changed feed bots", "+bots 2"], "the later directory counts");
        fs::remove_file(&b).unwrap();
        assert_eq!(told(&reader.look()), ["changed feed bots", "+bots 1"]);
        fs::remove_file(&a).unwrap();
        assert_eq!(told(&reader.look()), ["-bots", "changed feed bots"]);
    }

    #[test]
    fn a_bad_new_list_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = reader(directory.path(), |_| {});
        let file = directory.path().join("a/bots.txt");
        fs::write(&file, "192.0.2.1\n").unwrap();
        reader.look();
        fs::write(&file, "<html>gateway timeout</html>\n").unwrap();
        let news = reader.look();
        assert_eq!(told(&news), ["degraded feed bots"]);
        assert!(words(&news).contains("stays in force"), "{}", words(&news));
        assert!(reader.look().is_empty(), "said once");
        fs::write(&file, "192.0.2.1\n192.0.2.2\nbad line\n").unwrap();
        let news = reader.look();
        assert_eq!(told(&news), ["recovered feed bots", "+bots 2"]);
        assert!(words(&news).contains("line 3"), "{}", words(&news));
    }

    #[test]
    fn the_bound_is_on_all_feeds_together() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = reader(directory.path(), |_| {});
        let file = |name: &str| directory.path().join("a").join(name);
        fs::write(file("one.txt"), "192.0.2.1\n192.0.2.2\n192.0.2.3\n").unwrap();
        fs::write(file("two.txt"), "192.0.2.1\n192.0.2.2\n192.0.2.3\n").unwrap();
        let news = reader.look();
        assert_eq!(told(&news), ["changed feed one", "+one 3", "degraded feed two"]);
        let News::Said(fault) = &news[2] else { panic!() };
        assert!(
            fault.message.contains("2 entries") && fault.message.contains("max_entries"),
            "{}",
            fault.message
        );
        fs::write(file("one.txt"), "192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n192.0.2.5\n").unwrap();
        assert_eq!(told(&reader.look()), ["changed feed one", "+one 5"]);
        fs::remove_file(file("one.txt")).unwrap();
        assert_eq!(told(&reader.look()), ["-one", "changed feed one", "recovered feed two", "+two 3"]);
    }

    #[test]
    fn named_feeds_are_missed_and_have_their_own_kind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/pools.txt");
        let mut reader = reader(directory.path(), |config| {
            config.feed = vec![config::Feed {
                path: path.clone(),
                name: "miners".into(),
                kind: FeedKind(Kind::Domain),
                level: Some(Level(Severity::Low)),
                ..config::Feed::default()
            }];
        });
        assert_eq!(told(&reader.look()), ["degraded feed miners"]);
        fs::write(&path, "192.0.2.1\n").unwrap();
        let news = reader.look();
        assert!(words(&news).contains("another kind"), "{}", words(&news));
        fs::write(&path, "pool.example\n").unwrap();
        let news = reader.look();
        assert_eq!(told(&news), ["recovered feed miners", "+miners 1"]);
        let News::Set(feed) = &news[1] else { panic!() };
        assert_eq!((feed.rules()[0].level, feed.rules()[0].response), (Severity::Low, Responses::NONE));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let news = reader.look();
        assert!(
            words(&news).contains("not a regular file") && words(&news).contains("stays"),
            "{}",
            words(&news)
        );
    }
}
