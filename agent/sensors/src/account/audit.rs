//! What programs tell the audit subsystem of accounts: useradd, usermod, passwd and their like, PAM where it changes a password.
//!
//! The files say what became of an account, these records say who did it; one event has both. What a record tells of and no file shows
//! (an account that came and went between two looks, one of a directory service, an age of a password, a role) is an event of its own a
//! little later. Failed attempts change nothing and are left out.
//!
//! Record types: libaudit's audit-records.h. Only programs with `CAP_AUDIT_WRITE` can write them, and libaudit encodes names.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use defender_model::account::{AccountActivity, AccountChange};
use defender_model::process::Actor;
use defender_model::text;
use defender_model::time::Timestamp;

use crate::process::audit::record::{decimal, Fields, Value};

/// Records, and events, that are remembered.
const MOST: usize = 256;
/// How long the files have to show what a record tells: longer than the sensor waits for them to settle.
const WAIT: Duration = Duration::from_secs(7);
/// How long a record after its event is still about the same change.
const LATE: Duration = Duration::from_secs(15);
/// Bytes kept of a record's own words.
const WORDS: usize = 200;

/// What a record type is about; `Some(None)` of one that names a doer but no change of its own.
const fn change(record: u16) -> Option<Option<AccountChange>> {
    Some(match record {
        // USER_MGMT, ROLE_ASSIGN, ROLE_REMOVE.
        1102 | 2301 | 2302 => Some(AccountChange::UserChanged),
        // USER_CHAUTHTOK.
        1108 => Some(AccountChange::PasswordChanged),
        // ADD_USER, DEL_USER, ADD_GROUP, DEL_GROUP.
        1114 => Some(AccountChange::UserCreated),
        1115 => Some(AccountChange::UserDeleted),
        1116 => Some(AccountChange::GroupCreated),
        1117 => Some(AccountChange::GroupDeleted),
        // GRP_MGMT, GRP_CHAUTHTOK: of members, whom the record may not name, and of a group's password.
        1132 | 1133 => None,
        // ACCT_LOCK, ACCT_UNLOCK.
        1135 => Some(AccountChange::UserLocked),
        1136 => Some(AccountChange::UserUnlocked),
        _ => return None,
    })
}

/// Whether the record type says something of an account.
pub(crate) const fn concerns_accounts(record: u16) -> bool {
    change(record).is_some()
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Said {
    change: Option<AccountChange>,
    /// The user or group; empty where the record has its number alone.
    name: String,
    id: Option<u32>,
    words: String,
    /// The program that wrote it.
    pub(crate) pid: u32,
    pub(crate) uid: Option<u32>,
    pub(crate) auid: Option<u32>,
    pub(crate) executable: String,
}

/// `pid=1 uid=0 auid=1000 ... msg='op=add-user acct="eve" exe="/usr/sbin/useradd" ... res=success'`, in which the name may be a number
/// (`id=1001`). `None` of other record types, of what failed, and of what names nobody.
pub(crate) fn read(record: u16, fields: &[u8]) -> Option<Said> {
    let mut said = Said { change: change(record)?, ..Said::default() };
    let mut success = false;
    for (name, value) in Fields::new(fields) {
        match (name, value) {
            (b"acct" | b"grp", value) if said.name.is_empty() => said.name = value.text(),
            (b"exe", value) => said.executable = value.text(),
            (b"res", Value::Bare(word)) => success = word.starts_with(b"success") || word.starts_with(b"1"),
            (b"pid" | b"uid" | b"auid" | b"id", Value::Bare(digits)) => {
                let number =
                    decimal(digits).and_then(|number| u32::try_from(number).ok()).filter(|n| *n != u32::MAX);
                match name {
                    b"pid" => said.pid = number.unwrap_or_default(),
                    b"uid" => said.uid = number,
                    b"auid" => said.auid = number,
                    _ => said.id = number,
                }
            }
            _ => {}
        }
    }
    if !success || (said.name.is_empty() && said.id.is_none()) {
        return None;
    }
    said.words = text::truncate(&words(fields), WORDS).to_owned();
    Some(said)
}

/// What the program did, in its words: behind `op=` up to the next field.
fn words(fields: &[u8]) -> String {
    let all = text::from_bytes(fields);
    let operation = all.split_once("op=").map_or("", |(_, rest)| rest);
    let mut words = String::new();
    for word in operation.split(' ').take_while(|word| !word.contains('=')) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word.trim_matches('"'));
    }
    words
}

#[derive(Debug)]
struct Heard {
    said: Said,
    by: Actor,
    time: Timestamp,
    at: Instant,
    /// An event tells of it.
    told: bool,
}

#[derive(Debug, Default)]
struct Log {
    heard: VecDeque<Heard>,
    /// Whom events were about: user, group, id.
    events: VecDeque<(String, String, Option<u32>, Instant)>,
    lost: u64,
}

/// What was heard lately, shared by who hears and who tells.
#[derive(Debug, Clone, Default)]
pub struct Records(Arc<Mutex<Log>>);

impl Records {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program said something.
    pub(crate) fn hear(&self, said: Said, by: Actor, time: Timestamp, at: Instant) {
        let mut log = self.log();
        log.heard.retain(|heard| !heard.told || at.saturating_duration_since(heard.at) < LATE);
        if log.heard.len() >= MOST {
            log.lost += log.heard.pop_front().map_or(0, |heard| u64::from(!heard.told));
        }
        log.heard.push_back(Heard { said, by, time, at, told: false });
    }

    /// The files show a change: who made it, where a record tells. That record is no event of its own any more.
    pub(crate) fn doer(&self, activity: &AccountActivity, now: Instant) -> Option<Actor> {
        let id = if activity.change.concerns_group() { activity.gid } else { activity.uid };
        let about = (activity.user.clone(), activity.group.clone(), id, now);
        let mut log = self.log();
        let mut by = None;
        for heard in log.heard.iter_mut().filter(|heard| {
            is_about(&heard.said, &about)
                && heard.said.change.is_none_or(|said| may_be(said, activity.change))
        }) {
            heard.told = true;
            // The first is the program's own; what PAM adds comes later.
            if by.is_none() && now.saturating_duration_since(heard.at) < LATE {
                by = Some(heard.by.clone());
            }
        }
        log.remember(about);
        by
    }

    /// Something waits that no file has shown.
    pub(crate) fn due(&self, now: Instant) -> bool {
        self.log().heard.iter().any(|heard| heard.is_due(now))
    }

    /// The next event of a record alone, with its time; how many found no room is taken with [`Records::lost`].
    pub(crate) fn next(&self, now: Instant) -> Option<(Timestamp, AccountActivity)> {
        let mut log = self.log();
        loop {
            let at = log.heard.iter().position(|heard| heard.is_due(now))?;
            let Some(Heard { said, by, time, .. }) = log.heard.remove(at) else { continue };
            let Some(change) = said.change else { continue };
            if log.events.iter().any(|about| is_about(&said, about)) {
                continue;
            }
            let group = change.concerns_group();
            let about = if group {
                (String::new(), said.name, said.id, now)
            } else {
                (said.name, String::new(), said.id, now)
            };
            let activity = AccountActivity {
                change,
                user: about.0.clone(),
                uid: said.id.filter(|_| !group),
                group: about.1.clone(),
                gid: said.id.filter(|_| group),
                shell: String::new(),
                detail: format!("{}; the files of accounts do not show it", said.words),
                process: Some(by),
            };
            log.remember(about);
            return Some((time, activity));
        }
    }

    /// How many records found no room since this was asked last.
    pub(crate) fn lost(&self) -> u64 {
        std::mem::take(&mut self.log().lost)
    }
}

impl Heard {
    fn is_due(&self, now: Instant) -> bool {
        !self.told && now.saturating_duration_since(self.at) >= WAIT
    }
}

impl Log {
    fn remember(&mut self, about: (String, String, Option<u32>, Instant)) {
        let now = about.3;
        self.events.retain(|(.., at)| now.saturating_duration_since(*at) < LATE);
        if self.events.len() >= MOST {
            self.events.pop_front();
        }
        self.events.push_back(about);
    }
}

/// Whether a record of one kind may be about a change of the other: who made an account has not removed it.
fn may_be(said: AccountChange, shown: AccountChange) -> bool {
    use AccountChange::{GroupCreated, GroupDeleted, MemberAdded, MemberRemoved, UserCreated, UserDeleted};
    let (made, removed) =
        ([UserCreated, GroupCreated, MemberAdded], [UserDeleted, GroupDeleted, MemberRemoved]);
    !(made.contains(&said) && removed.contains(&shown) || removed.contains(&said) && made.contains(&shown))
}

fn is_about(said: &Said, (user, group, id, _): &(String, String, Option<u32>, Instant)) -> bool {
    if said.name.is_empty() {
        said.id.is_some() && said.id == *id
    } else {
        said.name == *user || said.name == *group
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Put together after shadow's audit_help.c and libaudit's audit_log_acct_message(); no recording.
    const HEAD: &str = "pid=812 uid=0 auid=1000 ses=4 subj=unconfined msg='op=";
    const TAIL: &str = "exe=\"/usr/sbin/useradd\" hostname=? addr=? terminal=pts/0 res=success'";

    fn said(record: u16, middle: &str) -> Option<Said> {
        read(record, format!("{HEAD}{middle} {TAIL}\0").as_bytes())
    }

    fn activity(change: AccountChange, user: &str, uid: Option<u32>) -> AccountActivity {
        AccountActivity {
            change,
            user: user.to_owned(),
            uid,
            group: String::new(),
            gid: None,
            shell: String::new(),
            detail: String::new(),
            process: None,
        }
    }

    fn by(pid: u32) -> Actor {
        Actor { pid, ..Actor::default() }
    }

    #[test]
    fn names_numbers_and_what_failed() {
        let eve = said(1114, "add-user acct=\"eve\"").unwrap();
        assert_eq!((eve.change, eve.name.as_str(), eve.pid), (Some(AccountChange::UserCreated), "eve", 812));
        assert_eq!((eve.uid, eve.auid, eve.executable.as_str()), (Some(0), Some(1000), "/usr/sbin/useradd"));
        let number = said(1108, "changing password in shadow id=1001").unwrap();
        assert_eq!((number.name.as_str(), number.id), ("", Some(1001)));
        assert_eq!(number.words, "changing password in shadow");
        assert_eq!(said(1116, "add-group grp=\"wheel\"").unwrap().name, "wheel");
        assert_eq!(said(1105, "PAM:session_open acct=\"eve\""), None, "a login");
        assert_eq!(said(1108, "PAM:chauthtok"), None, "nobody");
        let failed = format!("{HEAD}add-user acct=\"eve\" {TAIL}").replace("success", "failed");
        assert_eq!(read(1114, failed.as_bytes()), None);
    }

    #[test]
    fn a_record_and_the_files_are_one_event() {
        let (records, now) = (Records::default(), Instant::now());
        let hear = |record, middle: &str, pid, after| {
            records.hear(
                said(record, middle).unwrap(),
                by(pid),
                Timestamp(5),
                now + Duration::from_secs(after),
            );
        };
        hear(1114, "adding user id=1001", 812, 0);
        hear(1108, "adding home directory acct=\"eve\"", 812, 0);
        let eve = activity(AccountChange::UserCreated, "eve", Some(1001));
        assert_eq!(records.doer(&eve, now + Duration::from_secs(2)).map(|by| by.pid), Some(812));
        // Who made it has not removed it.
        let gone = activity(AccountChange::UserDeleted, "eve", Some(1001));
        hear(1114, "adding user id=1001", 812, 2);
        records.log().heard.retain(|heard| heard.said.change == Some(AccountChange::UserCreated));
        assert_eq!(records.doer(&gone, now + Duration::from_secs(2)), None);
        // What comes after the event is about it still.
        hear(1102, "changing the age acct=\"eve\"", 812, 3);
        let late = now + Duration::from_secs(12);
        assert!(records.due(late));
        assert_eq!(records.next(late), None);
        assert!(!records.due(late));
    }

    #[test]
    fn what_no_file_shows_is_an_event_of_its_own_once() {
        let (records, now) = (Records::default(), Instant::now());
        for pid in [7, 8] {
            records.hear(said(1108, "PAM:chauthtok acct=\"eve\"").unwrap(), by(pid), Timestamp(5), now);
        }
        records.hear(said(1132, "adding user to group acct=\"bob\"").unwrap(), by(9), Timestamp(5), now);
        assert!(!records.due(now + Duration::from_secs(1)));
        let later = now + WAIT;
        let (time, eve) = records.next(later).unwrap();
        assert_eq!(
            (time, eve.change, eve.user.as_str()),
            (Timestamp(5), AccountChange::PasswordChanged, "eve")
        );
        assert_eq!(eve.process.map(|by| by.pid), Some(7));
        assert_eq!(eve.detail, "PAM:chauthtok; the files of accounts do not show it");
        assert_eq!(records.next(later), None);
        for _ in 0..MOST + 3 {
            records.hear(said(1115, "x acct=\"u\"").unwrap(), by(1), Timestamp(5), later);
        }
        assert_eq!((records.lost(), records.lost()), (3, 0));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(record in 1100u16..1140, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(record, &bytes);
        }

        #[test]
        fn a_name_moves_nothing(name in prop::collection::vec(any::<u8>(), 1..60)) {
            // libaudit writes a name that holds anything but plain characters in hexadecimal.
            let name: String = name.iter().map(|byte| format!("{byte:02X}")).collect();
            let said = said(1114, &format!("add-user acct={name}")).unwrap();
            prop_assert_eq!((said.change, said.pid, said.uid), (Some(AccountChange::UserCreated), 812, Some(0)));
            prop_assert_eq!((said.words.as_str(), said.executable.as_str()), ("add-user", "/usr/sbin/useradd"));
        }
    }
}
