//! `/etc/passwd`, `/etc/group`, `/etc/shadow`. Sources: passwd(5), group(5), shadow(5).

use defender_model::{order, text};

use crate::file::check;

/// Most users, and most groups.
const MOST: usize = 4096;
/// Most members of a group that are looked at.
const MEMBERS: usize = 1024;

/// How an account may be opened. Of a hash no more is kept than what tells it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Password {
    /// `/etc/shadow` could not be read.
    Unknown,
    /// Without one.
    Empty,
    /// None opens it. A hash may be kept behind the lock.
    Locked(u64),
    /// There is one.
    Set(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
    pub(super) shell: String,
    pub(super) password: Password,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) gid: u32,
    /// In order.
    pub(super) members: Vec<String>,
}

/// Users and groups with their names, each name once, in the order of the files. Lists and not maps: they are searched when a file has
/// changed, and a map of each type costs 5 KB of flash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Accounts {
    pub(super) users: Vec<(String, User)>,
    pub(super) groups: Vec<(String, Group)>,
}

/// The entry of a name.
pub(super) fn named<'a, T>(list: &'a [(String, T)], name: &str) -> Option<&'a T> {
    list.iter().find(|(known, _)| known == name).map(|(_, entry)| entry)
}

impl Accounts {
    pub(super) fn parse(passwd: &[u8], group: &[u8], shadow: Option<&[u8]>) -> Self {
        let mut this = Self::default();
        for fields in lines(passwd).take(MOST) {
            let [name, password, uid, gid, _, home, shell] = fields[..] else { continue };
            let (Some(uid), Some(gid)) = (id(uid), id(gid)) else { continue };
            // `x` says that it stands in the other file, where that can be read.
            let password = match password {
                b"x" => Password::Unknown,
                password => secret(password),
            };
            let (home, shell) = (text::from_bytes(home), text::from_bytes(shell));
            let name = text::from_bytes(name);
            // Of two lines for one name the C library takes the first.
            if named(&this.users, &name).is_none() {
                this.users.push((name, User { uid, gid, home, shell, password }));
            }
        }
        for fields in shadow.into_iter().flat_map(lines).take(MOST) {
            let [name, password, ..] = fields[..] else { continue };
            let name = text::from_bytes(name);
            if let Some((_, user)) = this.users.iter_mut().find(|(known, _)| *known == name) {
                if user.password == Password::Unknown {
                    user.password = secret(password);
                }
            }
        }
        for fields in lines(group).take(MOST) {
            let [name, _, gid, members] = fields[..] else { continue };
            let Some(gid) = id(gid) else { continue };
            let members = members.split(|byte| *byte == b',').filter(|name| !name.is_empty()).take(MEMBERS);
            let mut members: Vec<String> = members.map(text::from_bytes).collect();
            order::sort(&mut members);
            members.dedup();
            let name = text::from_bytes(name);
            if named(&this.groups, &name).is_none() {
                this.groups.push((name, Group { gid, members }));
            }
        }
        this
    }
}

/// Lines of fields between colons; those without a name, and comments of NIS, are left out.
fn lines(content: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let lines = content.split(|byte| *byte == b'\n');
    lines
        .map(|line| line.split(|byte| *byte == b':').take(10).collect::<Vec<_>>())
        .filter(|fields| fields.len() > 1 && !fields[0].is_empty() && !fields[0].starts_with(b"#"))
}

fn id(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn secret(field: &[u8]) -> Password {
    // crypt(3) never writes `!` or `*`; passwd(1) puts the first in front to lock.
    match field {
        [] => Password::Empty,
        [b'!' | b'*', ..] => {
            let start = field.iter().position(|byte| !matches!(byte, b'!' | b'*')).unwrap_or(field.len());
            // A salted hash has too much of chance in it to be found again from this number.
            Password::Locked(if start == field.len() { 0 } else { check(&field[start..]) })
        }
        _ => Password::Set(check(field)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_files() {
        let accounts = Accounts::parse(
            b"root:x:0:0:root:/root:/bin/sh\n+::::::\nbad:x:y:0::/:/\nold:$1$a$b:7:7::/:/bin/sh\nopen::8:8::/:\nnobody:*:9:9::/:/bin/false\n",
            b"root:x:0:\nwheel:x:10:b,a,,a\n",
            Some(b"root:$6$salt$hash:19000:0:99999:7:::\n"),
        );
        let of = |name: &str| named(&accounts.users, name).unwrap().password;
        assert!(matches!(of("root"), Password::Set(_)) && matches!(of("old"), Password::Set(_)));
        assert_eq!((of("open"), of("nobody")), (Password::Empty, Password::Locked(0)));
        assert_eq!(accounts.users.len(), 4);
        assert_eq!(named(&accounts.groups, "wheel").unwrap().members, ["a", "b"]);
        // The lock keeps the hash, and shows it as the same.
        let (Password::Set(set), Password::Locked(locked)) = (secret(b"$6$s$h"), secret(b"!$6$s$h")) else {
            panic!()
        };
        assert_eq!(set, locked);
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Accounts::parse(&bytes, &bytes, Some(&bytes));
        }
    }
}
