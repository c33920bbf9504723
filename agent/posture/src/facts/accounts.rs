//! The account database: passwd(5), shadow(5), group(5) and the limits of login.defs(5).

use std::collections::HashMap;

use crate::root::{Root, Unreadable};

/// One line of passwd, with the shadow line of that name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// Second field of passwd.
    pub(crate) password: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) home: String,
    pub(crate) shell: String,
    pub(crate) shadow: Option<Shadow>,
}

/// One line of shadow; days are counted from 1970-01-01.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shadow {
    pub(crate) password: String,
    pub(crate) last_change: Option<i64>,
    pub(crate) min_days: Option<i64>,
    pub(crate) max_days: Option<i64>,
    pub(crate) warn_days: Option<i64>,
    pub(crate) inactive_days: Option<i64>,
}

/// One line of group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) gid: Option<u32>,
    pub(crate) members: Vec<String>,
}

/// The account database of an image.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) accounts: Vec<Account>,
    pub(crate) groups: Vec<Group>,
    /// Why shadow could not be read; passwords are unknown then.
    pub(crate) shadow_unreadable: Option<Unreadable>,
    /// Files with a legacy `+` line, which takes accounts from NIS.
    pub(crate) legacy: Vec<&'static str>,
    /// Smallest user id of a person.
    pub(crate) uid_min: u32,
    /// There is a passwd at all.
    pub(crate) present: bool,
}

impl Accounts {
    pub(crate) fn read(root: &Root) -> Result<Self, Unreadable> {
        let mut accounts = Self { uid_min: 1000, ..Self::default() };
        let passwd = root.text("/etc/passwd")?;
        accounts.present = passwd.is_some();
        let passwd = passwd.unwrap_or_default();
        let group = root.text("/etc/group")?.unwrap_or_default();
        let shadow = root.text("/etc/shadow").unwrap_or_else(|unreadable| {
            accounts.shadow_unreadable = Some(unreadable);
            None
        });
        let shadow = shadow.unwrap_or_default();
        for (file, text) in [("/etc/passwd", &passwd), ("/etc/shadow", &shadow), ("/etc/group", &group)] {
            if text.lines().any(|line| line.starts_with('+')) {
                accounts.legacy.push(file);
            }
        }
        let mut secrets: HashMap<&str, Shadow> = shadow_lines(&shadow).collect();
        accounts.accounts = passwd_lines(&passwd).collect();
        for account in &mut accounts.accounts {
            account.shadow = secrets.remove(account.name.as_str());
        }
        accounts.groups = group_lines(&group).collect();
        if let Some(defs) = root.text("/etc/login.defs").ok().flatten() {
            for line in defs.lines() {
                let mut words = line.split_whitespace();
                if words.next() == Some("UID_MIN") {
                    accounts.uid_min = words.next().and_then(|word| word.parse().ok()).unwrap_or(1000);
                }
            }
        }
        Ok(accounts)
    }

    /// User id of a name.
    pub(crate) fn uid(&self, name: &str) -> Option<u32> {
        if name == "root" {
            return Some(0);
        }
        self.accounts.iter().find(|account| account.name == name).and_then(|account| account.uid)
    }

    /// Group id of a name.
    pub(crate) fn gid(&self, name: &str) -> Option<u32> {
        if name == "root" {
            return Some(0);
        }
        self.groups.iter().find(|group| group.name == name).and_then(|group| group.gid)
    }
}

impl Account {
    /// The password field in force: shadow's where passwd refers to it.
    pub(crate) fn secret(&self) -> Option<&str> {
        match (self.password.as_str(), &self.shadow) {
            ("x", Some(shadow)) => Some(&shadow.password),
            ("x", None) => None,
            (own, _) => Some(own),
        }
    }

    /// The shell lets someone work: not one of the programs that end at once.
    pub(crate) fn can_log_in(&self) -> bool {
        let program = self.shell.rsplit('/').next().unwrap_or_default();
        !matches!(program, "nologin" | "false" | "true" | "sync" | "shutdown" | "halt" | "null" | "git-shell")
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(['#', '+', '-']))
}

/// The accounts of a passwd file. Lines that lack fields have empty ones.
pub(crate) fn passwd_lines(text: &str) -> impl Iterator<Item = Account> + '_ {
    lines(text).map(|line| {
        let mut fields = line.split(':');
        let mut next = || fields.next().unwrap_or_default().to_owned();
        let (name, password, uid, gid, _comment) = (next(), next(), next(), next(), next());
        Account {
            name,
            password,
            uid: uid.parse().ok(),
            gid: gid.parse().ok(),
            home: next(),
            shell: next().trim_end().to_owned(),
            shadow: None,
        }
    })
}

/// The lines of a shadow file, by name; the first of a name counts, as in the C library.
pub(crate) fn shadow_lines(text: &str) -> impl Iterator<Item = (&str, Shadow)> {
    let mut seen = std::collections::HashSet::new();
    lines(text).filter_map(move |line| {
        let fields: Vec<&str> = line.splitn(10, ':').collect();
        let days = |at: usize| fields.get(at).and_then(|field| field.trim().parse().ok());
        let shadow = Shadow {
            password: fields.get(1).map(|field| (*field).to_owned()).unwrap_or_default(),
            last_change: days(2),
            min_days: days(3),
            max_days: days(4),
            warn_days: days(5),
            inactive_days: days(6),
        };
        seen.insert(fields[0]).then_some((fields[0], shadow))
    })
}

/// The groups of a group file.
pub(crate) fn group_lines(text: &str) -> impl Iterator<Item = Group> + '_ {
    lines(text).map(|line| {
        let mut fields = line.split(':');
        let mut next = || fields.next().unwrap_or_default();
        let (name, password, gid, members) = (next(), next(), next(), next());
        Group {
            name: name.to_owned(),
            password: password.to_owned(),
            gid: gid.parse().ok(),
            members: members.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_whole_and_broken() {
        let accounts: Vec<_> =
            passwd_lines("root:x:0:0:root:/root:/bin/sh\n# c\n\nbroken\n+::::::\nbad:x:many:1:::\n")
                .collect();
        assert_eq!(accounts.len(), 3);
        assert_eq!((accounts[0].uid, accounts[0].shell.as_str()), (Some(0), "/bin/sh"));
        assert_eq!(accounts[1], Account { name: "broken".into(), ..Account::default() });
        assert_eq!(accounts[2].uid, None);
        assert!(accounts[2].can_log_in(), "an empty shell is /bin/sh");
        let shadows: Vec<_> = shadow_lines("root:$6$a$b:19000:0:99999:7:::\nroot:!:::::::\nx\n").collect();
        assert_eq!(shadows.len(), 2);
        assert_eq!(shadows[0].1.max_days, Some(99_999));
        let groups: Vec<_> = group_lines("wheel:x:10:a,b\nempty:x:11:\n").collect();
        assert_eq!(groups[0].members, ["a", "b"]);
        assert!(groups[1].members.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-z:+#\\n0-9]{0,200}") {
            let _ = (passwd_lines(&text).count(), shadow_lines(&text).count(), group_lines(&text).count());
        }
    }
}
