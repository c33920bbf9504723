//! Names of user ids, from the account database. Source: passwd(5).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use defender_model::text;

/// Most bytes of the account database that are read; a device has a few dozen accounts.
const LIMIT: u64 = 4 << 20;
/// An unknown id makes the file be read again, at most this often.
const PATIENCE: Duration = Duration::from_secs(10);

/// User ids and names, read again when an id turns up that was not there.
#[derive(Debug)]
pub(crate) struct Accounts {
    path: PathBuf,
    names: BTreeMap<u32, Arc<str>>,
    read: Option<Instant>,
}

impl Accounts {
    /// Accounts of a file such as `/etc/passwd`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, names: BTreeMap::new(), read: None }
    }

    /// The first name that has this id.
    pub(crate) fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        if let Some(name) = self.names.get(&uid) {
            return Some(Arc::clone(name));
        }
        if self.read.is_none_or(|read| read.elapsed() > PATIENCE) {
            self.read = Some(Instant::now());
            let mut content = Vec::new();
            let file = File::open(&self.path);
            if file.is_ok_and(|file| file.take(LIMIT).read_to_end(&mut content).is_ok()) {
                self.names = parse(&content);
            }
        }
        self.names.get(&uid).cloned()
    }
}

/// `NAME:PASSWORD:UID:...` lines; what does not look so is passed over.
fn parse(content: &[u8]) -> BTreeMap<u32, Arc<str>> {
    let mut names = BTreeMap::new();
    for line in content.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let Some(uid) = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok()) else { continue };
        if !name.is_empty() {
            names.entry(uid).or_insert_with(|| text::from_bytes(name).into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_name_of_an_id_wins_and_nonsense_is_passed_over() {
        let names = parse(b"root:x:0:0::/root:/bin/sh\n:x:5:\n+\ntoor:x:0:0\na\xff:x:7:\nb:x:-1:");
        assert_eq!(names.len(), 2);
        assert_eq!((&*names[&0], &*names[&7]), ("root", "a\\xff"));
    }
}
