//! The state as it was last, kept over restarts, so that what changes while the agent is down is told.
//!
//! Text: a line that names the format, a line for each user and group with its fields between colons as in the system's own files, and a
//! last line with a check sum. Of passwords it has whether there is one and a number that changes with it, no hash.

use std::fmt::Write as _;

use super::database::{Accounts, Group, Password, User};
use crate::file::check;

const FORMAT: &str = "defender-accounts 1";

/// The text of a state.
pub(super) fn text(accounts: &Accounts) -> String {
    let mut out = format!("{FORMAT}\n");
    for (name, user) in &accounts.users {
        let (letter, number) = match user.password {
            Password::Unknown => ('?', 0),
            Password::Empty => ('-', 0),
            Password::Locked(number) => ('!', number),
            Password::Set(number) => ('=', number),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "u:{name}:{}:{}:{letter}:{number:x}:{}:{}",
            user.uid, user.gid, user.home, user.shell
        );
    }
    for (name, group) in &accounts.groups {
        let _ = writeln!(out, "g:{name}:{}:{}", group.gid, group.members.join(","));
    }
    let _ = writeln!(out, "end {:016x}", check(out.as_bytes()));
    out
}

/// What [`text`] wrote; `None` where it is anything else.
pub(super) fn parse(bytes: &[u8]) -> Option<Accounts> {
    let text = std::str::from_utf8(bytes).ok()?;
    let end = text.strip_suffix('\n')?.rfind('\n')? + 1;
    let (body, last) = text.split_at(end);
    let sum = last.strip_prefix("end ")?.strip_suffix('\n')?;
    if u64::from_str_radix(sum, 16).ok()? != check(body.as_bytes()) {
        return None;
    }
    let mut accounts = Accounts::default();
    for line in body.strip_prefix(FORMAT)?.strip_prefix('\n')?.split_terminator('\n') {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            ["u", name, uid, gid, letter, number, home, shell] => {
                let number = u64::from_str_radix(number, 16).ok()?;
                let password = match letter {
                    "?" => Password::Unknown,
                    "-" => Password::Empty,
                    "!" => Password::Locked(number),
                    "=" => Password::Set(number),
                    _ => return None,
                };
                let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
                let user = User { uid, gid, home: home.to_owned(), shell: shell.to_owned(), password };
                accounts.users.push((name.to_owned(), user));
            }
            ["g", name, gid, members] => {
                let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                let group = Group { gid: gid.parse().ok()?, members };
                accounts.groups.push((name.to_owned(), group));
            }
            _ => return None,
        }
    }
    Some(accounts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_state_comes_back_without_its_hashes() {
        let accounts = Accounts::parse(
            b"root:x:0:0:root:/root:/bin/sh\nodd \xff:x:7:7::/:/bin/sh\r\n",
            b"root:x:0:\nwheel:x:10:a,b\n",
            Some(b"root:$6$salt$hash:1::::::\n"),
        );
        let text = text(&accounts);
        assert!(!text.contains("hash") && !text.contains("salt"), "{text}");
        assert_eq!(parse(text.as_bytes()), Some(accounts));
        assert_eq!(parse(text.replace("wheel", "whee1").as_bytes()), None);
        assert_eq!(parse(&text.as_bytes()[..text.len() - 30]), None);
    }

    proptest! {
        /// A carriage return at the end of a line, for instance.
        #[test]
        fn states_of_arbitrary_files_come_back(files in prop::array::uniform3("([a-c]{0,2}[:,x!*$0-9\\r]{0,3}\n?){0,30}")) {
            let [passwd, group, shadow] = files;
            let _ = crate::account::fuzz([passwd.as_bytes(), group.as_bytes(), shadow.as_bytes()]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
