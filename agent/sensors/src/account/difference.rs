//! From two states to what became of whom.

use std::fmt::Write as _;

use defender_model::account::{AccountActivity, AccountChange};

use super::database::{named, Accounts, Group, Password, User};

/// Most changes told of one look; the rest is counted.
const MOST: usize = 256;

/// What became of users and groups, and how many changes there were beyond the bound.
pub(super) fn between(before: &Accounts, now: &Accounts) -> (Vec<AccountActivity>, u64) {
    let mut told = Told::default();
    for (name, user) in &now.users {
        match named(&before.users, name) {
            None => {
                told.user(AccountChange::UserCreated, name, user, String::new());
            }
            Some(old) => changed(name, old, user, &mut told),
        }
    }
    for (name, user) in before.users.iter().filter(|(name, _)| named(&now.users, name).is_none()) {
        told.user(AccountChange::UserDeleted, name, user, String::new());
    }
    for (name, group) in &now.groups {
        let old = named(&before.groups, name);
        if old.is_none() {
            told.group(AccountChange::GroupCreated, name, group, None, String::new());
        }
        let members = |group: Option<&Group>| group.map(|group| group.members.clone()).unwrap_or_default();
        let was = members(old);
        for member in group.members.iter().filter(|member| !was.contains(member)) {
            told.group(AccountChange::MemberAdded, name, group, Some((member, now)), String::new());
        }
        for member in was.iter().filter(|member| !group.members.contains(member)) {
            told.group(AccountChange::MemberRemoved, name, group, Some((member, now)), String::new());
        }
    }
    for (name, group) in before.groups.iter().filter(|(name, _)| named(&now.groups, name).is_none()) {
        told.group(AccountChange::GroupDeleted, name, group, None, String::new());
    }
    (told.activities, told.beyond)
}

fn changed(name: &str, old: &User, new: &User, told: &mut Told) {
    let mut detail = String::new();
    let mut differs = |what: &str, old: &dyn std::fmt::Display, new: &dyn std::fmt::Display| {
        let comma = if detail.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(detail, "{comma}{what} {old} -> {new}");
    };
    if old.uid != new.uid {
        differs("uid", &old.uid, &new.uid);
    }
    if old.gid != new.gid {
        differs("gid", &old.gid, &new.gid);
    }
    if old.home != new.home {
        differs("home", &old.home, &new.home);
    }
    if old.shell != new.shell {
        differs("shell", &old.shell, &new.shell);
    }
    if !detail.is_empty() {
        told.user(AccountChange::UserChanged, name, new, detail);
    }
    let password = match (old.password, new.password) {
        (Password::Unknown, _) | (_, Password::Unknown) => return,
        (old, new) if old == new => return,
        (_, Password::Empty) => (AccountChange::PasswordChanged, "no password is needed any more"),
        (Password::Set(_) | Password::Empty, Password::Locked(_)) => (AccountChange::UserLocked, ""),
        (Password::Locked(_), Password::Locked(_)) => (AccountChange::PasswordChanged, "still locked"),
        (Password::Locked(behind), Password::Set(hash)) if behind == hash => {
            (AccountChange::UserUnlocked, "")
        }
        (_, Password::Set(_)) => (AccountChange::PasswordChanged, ""),
    };
    told.user(password.0, name, new, password.1.to_owned());
}

#[derive(Default)]
struct Told {
    activities: Vec<AccountActivity>,
    beyond: u64,
}

impl Told {
    fn push(&mut self, activity: AccountActivity) {
        if self.activities.len() < MOST {
            self.activities.push(activity);
        } else {
            self.beyond += 1;
        }
    }

    fn user(&mut self, change: AccountChange, name: &str, user: &User, mut detail: String) {
        if change == AccountChange::UserCreated && user.password == Password::Empty {
            detail.push_str("without a password");
        }
        self.push(AccountActivity {
            change,
            user: name.to_owned(),
            uid: Some(user.uid),
            group: String::new(),
            gid: Some(user.gid),
            shell: user.shell.clone(),
            detail,
            process: None,
        });
    }

    fn group(
        &mut self,
        change: AccountChange,
        name: &str,
        group: &Group,
        member: Option<(&String, &Accounts)>,
        detail: String,
    ) {
        self.push(AccountActivity {
            change,
            user: member.map(|(member, _)| member.clone()).unwrap_or_default(),
            uid: member.and_then(|(member, accounts)| named(&accounts.users, member)).map(|user| user.uid),
            group: name.to_owned(),
            gid: Some(group.gid),
            shell: String::new(),
            detail,
            process: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: [&str; 3], now: [&str; 3]) -> Vec<String> {
        let state = |files: [&str; 3]| {
            Accounts::parse(files[0].as_bytes(), files[1].as_bytes(), Some(files[2].as_bytes()))
        };
        let (activities, beyond) = between(&state(before), &state(now));
        assert_eq!(beyond, 0);
        let words = |a: AccountActivity| {
            format!("{} {}{} {}", a.change.name(), a.user, a.group, a.detail).trim_end().to_owned()
        };
        activities.into_iter().map(words).collect()
    }

    #[test]
    fn users() {
        let root = "root:x:0:0::/root:/bin/sh\n";
        let with = |line: &str| format!("{root}{line}");
        let alice = with("alice:x:1000:1000::/home/alice:/bin/false\n");
        assert_eq!(
            told([root, "", ""], [&alice, "", "alice::1::::::\n"]),
            ["user_created alice without a password"]
        );
        let root_too = with("alice:x:0:1000::/home/alice:/bin/sh\n");
        assert_eq!(
            told([&alice, "", ""], [&root_too, "", ""]),
            ["user_changed alice uid 1000 -> 0, shell /bin/false -> /bin/sh"]
        );
        assert_eq!(told([&alice, "", ""], [root, "", ""]), ["user_deleted alice"]);
        assert_eq!(told([&alice, "", "alice:!:::::::\n"], [&alice, "", "alice:!:2::::::\n"]), [""; 0]);
    }

    #[test]
    fn passwords() {
        let passwd = "a:x:1:1::/:/bin/sh\n";
        let shadow = |from: &str, to: &str| {
            let line = |field: &str| format!("a:{field}:19000::::::\n");
            told([passwd, "", &line(from)], [passwd, "", &line(to)])
        };
        assert_eq!(shadow("$6$a$b", "$6$c$d"), ["password_changed a"]);
        assert_eq!(shadow("$6$a$b", "!$6$a$b"), ["user_locked a"]);
        assert_eq!(shadow("!$6$a$b", "$6$a$b"), ["user_unlocked a"]);
        assert_eq!(shadow("!", "$6$a$b"), ["password_changed a"]);
        assert_eq!(shadow("$6$a$b", ""), ["password_changed a no password is needed any more"]);
        assert_eq!(shadow("!", "*"), [""; 0], "nothing opens it either way");
        // Where the file cannot be read nothing is said.
        assert_eq!(told([passwd, "", "a:$6$a$b:1::::::\n"], [passwd, "", ""]), [""; 0]);
    }

    #[test]
    fn groups() {
        let before = "wheel:x:10:a,b\nold:x:11:\n";
        let now = "wheel:x:10:b,c\nnew:x:12:c\n";
        assert_eq!(
            told(["", before, ""], ["", now, ""]),
            [
                "member_added cwheel",
                "member_removed awheel",
                "group_created new",
                "member_added cnew",
                "group_deleted old"
            ]
        );
    }
}
