//! `account`: accounts, passwords, home directories, duplicates.

use std::collections::BTreeMap;

use super::Primitive;
use crate::expression::{Outcome, Truth};
use crate::facts::accounts::{Account, Accounts};
use crate::policy::keys::{Fault, Keys};
use crate::root::{Kind, Unreadable};
use crate::scan::Scan;

/// Which accounts are meant.
#[derive(Debug, Clone, PartialEq)]
enum Selector {
    Any,
    /// User id 0, whatever its name.
    Superuser,
    /// Ids below those of people, but not 0.
    System,
    /// The shell lets someone work.
    Login,
    /// Ids of people.
    Person,
    Named(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Password {
    Empty,
    Locked,
    Set,
    WeakHash,
    Unshadowed,
    WellKnown,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Duplicate {
    Uid,
    Name,
    Gid,
    Group,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Age {
    Max,
    Min,
    Warn,
    Inactive,
}

#[derive(Debug)]
struct Question {
    selector: Selector,
    /// All of them must be so, else one is enough.
    every: bool,
    /// Accounts of these names are left alone.
    except: Vec<String>,
    /// Only accounts with such a password.
    with_password: Vec<Password>,
    conditions: Vec<Condition>,
}

/// What must be so of an account.
#[derive(Debug, PartialEq)]
enum Condition {
    Password(Vec<Password>),
    Uid(i64),
    Gid(i64),
    ShellIn(Vec<String>),
    ShellNotIn(Vec<String>),
    HomeModeMax(u32),
    HomeModeBeyond(u32),
    HomeExists(bool),
    HomeOwned(bool),
    HomeUnder(String),
    /// It has at least this many days.
    AgeAtLeast(Age, i64),
    /// It has a number of days, and at most this many.
    AgeAtMost(Age, i64),
    GroupExists(bool),
    /// Its own group has this name.
    Group(String),
    LoginShell(bool),
    /// None of these is in its home directory.
    HomeLacks(Vec<String>),
    /// Files of this pattern in its home directory have no mode bits beyond these.
    HomeFiles(String, u32),
    /// The last change of the password lies after today.
    ChangedInFuture(bool),
}

/// Questions about the database as a whole.
#[derive(Debug)]
enum Whole {
    Duplicate(Duplicate),
    Legacy,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let selector = match keys.required_text("account")?.as_str() {
        "any" => Selector::Any,
        "superuser" => Selector::Superuser,
        "system" => Selector::System,
        "login" => Selector::Login,
        "person" => Selector::Person,
        name => Selector::Named(name.to_owned()),
    };
    let duplicates = [
        ("uid", Duplicate::Uid),
        ("name", Duplicate::Name),
        ("gid", Duplicate::Gid),
        ("group", Duplicate::Group),
    ];
    if let Some(duplicate) = keys.word("duplicate", &duplicates)? {
        return Ok(Box::new(Whole::Duplicate(duplicate)));
    }
    if keys.flag("legacy_plus")? == Some(true) {
        return Ok(Box::new(Whole::Legacy));
    }
    let passwords = [
        ("empty", Password::Empty),
        ("locked", Password::Locked),
        ("set", Password::Set),
        ("weak_hash", Password::WeakHash),
        ("unshadowed", Password::Unshadowed),
        ("well_known", Password::WellKnown),
    ];
    let mut conditions = Vec::new();
    conditions.extend(keys.words("password", &passwords)?.map(Condition::Password));
    conditions.extend(keys.number("uid")?.map(Condition::Uid));
    conditions.extend(keys.number("gid")?.map(Condition::Gid));
    conditions.extend(keys.list("shell_in")?.map(Condition::ShellIn));
    conditions.extend(keys.list("shell_not_in")?.map(Condition::ShellNotIn));
    conditions.extend(keys.mode("home_mode_max")?.map(Condition::HomeModeMax));
    conditions.extend(keys.mode("home_mode_beyond")?.map(Condition::HomeModeBeyond));
    conditions.extend(keys.flag("home_exists")?.map(Condition::HomeExists));
    conditions.extend(keys.flag("home_owned")?.map(Condition::HomeOwned));
    conditions.extend(keys.text("home_under")?.map(Condition::HomeUnder));
    conditions.extend(keys.text("group")?.map(Condition::Group));
    conditions.extend(keys.flag("login_shell")?.map(Condition::LoginShell));
    conditions.extend(keys.list("home_lacks")?.map(Condition::HomeLacks));
    conditions.extend(keys.flag("changed_in_future")?.map(Condition::ChangedInFuture));
    let (files, mode) = (keys.text("home_files")?, keys.mode("home_files_mode_max")?);
    match (files, mode) {
        (Some(files), Some(mode)) => conditions.push(Condition::HomeFiles(files, mode)),
        (None, None) => {}
        _ => return Err(Fault::new(keys.at, "`home_files` and `home_files_mode_max` belong together")),
    }
    conditions.extend(keys.flag("group_exists")?.map(Condition::GroupExists));
    for (least, most, age) in [
        ("max_days_at_least", "max_days_at_most", Age::Max),
        ("min_days_at_least", "min_days_at_most", Age::Min),
        ("warn_days_at_least", "warn_days_at_most", Age::Warn),
        ("inactive_days_at_least", "inactive_days_at_most", Age::Inactive),
    ] {
        conditions.extend(keys.number(least)?.map(|days| Condition::AgeAtLeast(age, days)));
        conditions.extend(keys.number(most)?.map(|days| Condition::AgeAtMost(age, days)));
    }
    let every = keys.flag("every")?.unwrap_or(false);
    let except = keys.list("except")?.unwrap_or_default();
    let with_password = keys.words("with_password", &passwords)?.unwrap_or_default();
    Ok(Box::new(Question { selector, every, except, with_password, conditions }))
}

impl Selector {
    fn selects(&self, account: &Account, accounts: &Accounts) -> bool {
        match self {
            Self::Any => true,
            Self::Superuser => account.uid == Some(0),
            Self::System => {
                account.uid.is_some_and(|uid| uid != 0 && (uid < accounts.uid_min || uid == 65_534))
            }
            Self::Login => account.can_log_in(),
            Self::Person => account.uid.is_some_and(|uid| uid >= accounts.uid_min && uid < 65_534),
            Self::Named(name) => account.name == *name,
        }
    }
}

/// An account's answer to one condition, with words for the evidence.
type Answer = Result<(Truth, String), Unreadable>;

impl Condition {
    fn judge(&self, account: &Account, accounts: &Accounts, scan: &Scan<'_>) -> Answer {
        let yes_no = |holds: bool, words: String| Ok((if holds { Truth::Yes } else { Truth::No }, words));
        let home = || scan.root.metadata(&account.home);
        match self {
            Self::Password(kinds) => Ok(password(kinds, account, accounts)),
            Self::Uid(wanted) => {
                yes_no(account.uid.map(i64::from) == Some(*wanted), format!("user id {}", shown(account.uid)))
            }
            Self::Gid(wanted) => yes_no(
                account.gid.map(i64::from) == Some(*wanted),
                format!("group id {}", shown(account.gid)),
            ),
            Self::ShellIn(shells) => {
                yes_no(shells.contains(&account.shell), format!("shell {}", account.shell))
            }
            Self::ShellNotIn(shells) => {
                yes_no(!shells.contains(&account.shell), format!("shell {}", account.shell))
            }
            Self::HomeUnder(above) => {
                let below = account
                    .home
                    .strip_prefix(above.trim_end_matches('/'))
                    .is_some_and(|rest| rest.starts_with('/'));
                yes_no(below, format!("home {}", account.home))
            }
            Self::HomeExists(wanted) => {
                let is = home()?.is_some_and(|found| found.kind == Kind::Directory);
                let words = format!("home {} {}", account.home, if is { "is there" } else { "is missing" });
                yes_no(is == *wanted, words)
            }
            Self::HomeOwned(wanted) => match home()? {
                Some(found) => {
                    let is = Some(found.uid) == account.uid;
                    yes_no(is == *wanted, format!("home {} belongs to {}", account.home, found.uid))
                }
                None => Ok((Truth::No, format!("home {} is missing", account.home))),
            },
            Self::HomeModeMax(mode) | Self::HomeModeBeyond(mode) => match home()? {
                Some(found) => {
                    let beyond = found.mode & !mode != 0;
                    let words = format!("home {} has mode {:04o}", account.home, found.mode);
                    yes_no(beyond == matches!(self, Self::HomeModeBeyond(_)), words)
                }
                None => Ok((Truth::No, format!("home {} is missing", account.home))),
            },
            Self::GroupExists(wanted) => {
                let is = accounts.groups.iter().any(|group| group.gid.is_some() && group.gid == account.gid);
                let gid = shown(account.gid);
                yes_no(
                    is == *wanted,
                    format!("group id {gid} is{} in /etc/group", if is { "" } else { " not" }),
                )
            }
            Self::Group(name) => {
                let is = account.gid.is_some() && account.gid == accounts.gid(name);
                yes_no(is, format!("{} its group {name}", if is { "has as" } else { "has not as" }))
            }
            Self::LoginShell(wanted) => {
                let shell = if account.shell.is_empty() { "/bin/sh" } else { &account.shell };
                yes_no(account.can_log_in() == *wanted, format!("shell {shell}"))
            }
            Self::HomeLacks(names) => {
                for name in names {
                    let path = format!("{}/{name}", account.home.trim_end_matches('/'));
                    if scan.root.link_metadata(&path)?.is_some() {
                        return yes_no(false, format!("{path} is there"));
                    }
                }
                yes_no(true, format!("home {} has no {}", account.home, names.join(", ")))
            }
            Self::HomeFiles(pattern, mode) => {
                for path in scan.root.glob(&format!("{}/{pattern}", account.home.trim_end_matches('/')))? {
                    let found = scan.root.link_metadata(&path)?;
                    if let Some(found) =
                        found.filter(|found| found.kind == Kind::File && found.mode & !mode != 0)
                    {
                        return yes_no(
                            false,
                            format!(
                                "{} has mode {:04o}, wanted at most {mode:04o}",
                                path.display(),
                                found.mode
                            ),
                        );
                    }
                }
                yes_no(true, format!("home {}: {pattern} at most {mode:04o}", account.home))
            }
            Self::ChangedInFuture(wanted) => {
                let day = account.shadow.as_ref().and_then(|shadow| shadow.last_change);
                let today = scan.inputs.time.millis() / 86_400_000;
                let is = day.is_some_and(|day| day > today);
                let shown = day.map_or_else(|| "never".to_owned(), |day| format!("day {day}"));
                yes_no(is == *wanted, format!("password changed on {shown}, today is day {today}"))
            }
            Self::AgeAtLeast(age, days) => {
                let has = age.of(account);
                // No limit is more than any.
                let holds = has.map_or(*age == Age::Max || *age == Age::Inactive, |has| has >= *days);
                yes_no(holds, age.words(has))
            }
            Self::AgeAtMost(age, days) => {
                let has = age.of(account);
                let holds = has.map_or(*age == Age::Min || *age == Age::Warn, |has| has <= *days);
                yes_no(holds, age.words(has))
            }
        }
    }
}

impl Age {
    fn of(self, account: &Account) -> Option<i64> {
        let shadow = account.shadow.as_ref()?;
        let days = match self {
            Self::Max => shadow.max_days,
            Self::Min => shadow.min_days,
            Self::Warn => shadow.warn_days,
            Self::Inactive => shadow.inactive_days,
        };
        days.filter(|days| *days >= 0)
    }

    fn words(self, days: Option<i64>) -> String {
        let what = match self {
            Self::Max => "password valid for",
            Self::Min => "password kept for at least",
            Self::Warn => "warned before the end for",
            Self::Inactive => "inactive after the end for",
        };
        days.map_or_else(|| format!("{what} days without limit"), |days| format!("{what} {days} days"))
    }
}

/// An id as text.
fn shown(id: Option<u32>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

fn password(kinds: &[Password], account: &Account, accounts: &Accounts) -> (Truth, String) {
    let Some(secret) = account.secret() else {
        return match &accounts.shadow_unreadable {
            Some(unreadable) => (Truth::Unknown(unreadable.to_string()), String::new()),
            // `x` without a shadow line: nobody can log in by it.
            None => {
                let locked = kinds.contains(&Password::Locked);
                (if locked { Truth::Yes } else { Truth::No }, "no line in /etc/shadow".to_owned())
            }
        };
    };
    let locked = secret.starts_with(['!', '*']) || secret == "x";
    let set = !locked && !secret.is_empty();
    let mut unknown = None;
    for kind in kinds {
        let words = match kind {
            Password::Empty if secret.is_empty() => "the password is empty".to_owned(),
            Password::Locked if locked => "the password is locked".to_owned(),
            Password::Set if set => "a password is set".to_owned(),
            Password::Unshadowed if account.password != "x" && set => {
                "the password is in /etc/passwd".to_owned()
            }
            Password::WeakHash if set => match weak_hash(secret) {
                Some(hash) => format!("the password is hashed by {hash}"),
                None => continue,
            },
            Password::WellKnown if set => match crate::facts::password::well_known(&account.name, secret) {
                Ok(Some(word)) => format!("the password is `{word}`"),
                Ok(None) => continue,
                Err(reason) => {
                    unknown = Some(format!("{}: {reason}", account.name));
                    continue;
                }
            },
            _ => continue,
        };
        return (Truth::Yes, words);
    }
    match unknown {
        Some(reason) => (Truth::Unknown(reason), String::new()),
        None => {
            let is = if secret.is_empty() {
                "empty"
            } else if locked {
                "locked"
            } else {
                "set"
            };
            (Truth::No, format!("the password is {is}"))
        }
    }
}

/// The name of a hash that is cheap to search; `None` for crypt(5)'s strong ones.
fn weak_hash(secret: &str) -> Option<&'static str> {
    let method = secret.strip_prefix('$').and_then(|rest| rest.split('$').next());
    match method {
        Some("1") => Some("MD5"),
        Some("3") => Some("NT"),
        Some("md5" | "sha1") => Some("an old method"),
        Some("5" | "6" | "7" | "y" | "gy" | "2" | "2a" | "2b" | "2x" | "2y" | "argon2id" | "argon2i") => None,
        Some(_) => Some("an unknown method"),
        None if secret.starts_with('_') => Some("BSDi DES"),
        None => Some("DES"),
    }
}

impl Question {
    fn judge_account(&self, account: &Account, accounts: &Accounts, scan: &Scan<'_>) -> Answer {
        let (mut words, mut unknown) = (Vec::new(), None);
        for condition in &self.conditions {
            let (truth, said) = condition.judge(account, accounts, scan)?;
            match truth {
                Truth::No => return Ok((Truth::No, format!("{}: {said}", account.name))),
                Truth::Unknown(_) => unknown = unknown.or(Some(truth)),
                _ => words.push(said),
            }
        }
        let words = if words.is_empty() { "is there".to_owned() } else { words.join(", ") };
        Ok((unknown.unwrap_or(Truth::Yes), format!("{}: {words}", account.name)))
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let accounts = scan.accounts()?;
        if !accounts.present {
            return Ok(Outcome::absent("/etc/passwd: missing"));
        }
        let (mut yes, mut no, mut unknown) = (Vec::new(), Vec::new(), None);
        for account in &accounts.accounts {
            if !self.selector.selects(account, accounts) || self.except.contains(&account.name) {
                continue;
            }
            if !self.with_password.is_empty() {
                match password(&self.with_password, account, accounts).0 {
                    Truth::Yes => {}
                    Truth::No | Truth::Absent(_) => continue,
                    Truth::Unknown(reason) => {
                        unknown = unknown.or(Some(reason));
                        continue;
                    }
                }
            }
            let (truth, words) = self.judge_account(account, accounts, scan)?;
            let list = match truth {
                Truth::Yes => &mut yes,
                Truth::No => &mut no,
                Truth::Unknown(reason) | Truth::Absent(reason) => {
                    unknown = unknown.or(Some(reason));
                    continue;
                }
            };
            if list.len() <= crate::result::EVIDENCE_LINES {
                list.push(words);
            }
        }
        let nobody = || vec!["/etc/passwd: no such account".to_owned()];
        Ok(match (self.every, unknown) {
            (false, _) if !yes.is_empty() => Outcome::yes(yes),
            (true, _) if !no.is_empty() => Outcome::no(no),
            (_, Some(reason)) => Outcome::unknown(reason),
            (false, None) => Outcome::no(if no.is_empty() { nobody() } else { no }),
            (true, None) => Outcome::yes(if yes.is_empty() { nobody() } else { yes }),
        })
    }
}

impl Primitive for Question {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}

impl Whole {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let accounts = scan.accounts()?;
        Ok(match self {
            Self::Legacy => {
                let found: Vec<_> = accounts
                    .legacy
                    .iter()
                    .map(|file| format!("{file}: a line that starts with `+`"))
                    .collect();
                match found.is_empty() {
                    true => Outcome::no(vec!["no `+` line in passwd, shadow or group".to_owned()]),
                    false => Outcome::yes(found),
                }
            }
            Self::Duplicate(kind) => {
                let mut holders: BTreeMap<String, Vec<&str>> = BTreeMap::new();
                for account in &accounts.accounts {
                    let key = match kind {
                        Duplicate::Uid => account.uid.map(|uid| format!("user id {uid}")),
                        Duplicate::Name => Some(format!("user name {}", account.name)),
                        _ => None,
                    };
                    if let Some(key) = key {
                        holders.entry(key).or_default().push(&account.name);
                    }
                }
                for group in &accounts.groups {
                    let key = match kind {
                        Duplicate::Gid => group.gid.map(|gid| format!("group id {gid}")),
                        Duplicate::Group => Some(format!("group name {}", group.name)),
                        _ => None,
                    };
                    if let Some(key) = key {
                        holders.entry(key).or_default().push(&group.name);
                    }
                }
                let found: Vec<String> = holders
                    .iter()
                    .filter(|(_, names)| names.len() > 1)
                    .map(|(key, names)| format!("{key}: {}", names.join(", ")))
                    .collect();
                match found.is_empty() {
                    true => Outcome::no(vec!["no duplicates".to_owned()]),
                    false => Outcome::yes(found),
                }
            }
        })
    }
}

impl Primitive for Whole {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
