//! The user the agent runs as, from `/etc/passwd` and `/etc/group` (passwd(5), group(5)), and becoming it.
//!
//! Read by our own parser: `getpwnam(3)` loads name service modules into the process, may ask the network, and cannot look
//! into an image's root directory.

use std::fmt;
use std::io;
use std::path::Path;

use super::{sys, Error};
use crate::small_file;

/// More than any device has users; a larger file is refused rather than read.
const FILE_LIMIT: u64 = 1024 * 1024;
/// More groups than any service user needs; the rest would be ignored by NFS and are by us.
const GROUP_LIMIT: usize = 64;

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// User number; never 0.
    pub uid: u32,
    /// Number of the user's own group.
    pub gid: u32,
    /// Supplementary groups: those whose line in `/etc/group` names the user, such as `adm` where that group may read
    /// logs. The own group is not among them.
    pub groups: Vec<u32>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, uid {}, gid {}", self.name, self.uid, self.gid)?;
        for (index, group) in self.groups.iter().enumerate() {
            write!(f, "{}{group}", if index == 0 { ", groups " } else { " " })?;
        }
        Ok(())
    }
}

/// Looks a user up below `root`, which is `/` on a device. A missing `/etc/group` leaves the user without supplementary
/// groups.
///
/// # Errors
///
/// [`Error::NoUser`], [`Error::BadUser`] if the line is not usable or names root, [`Error::File`] for the
/// files.
pub fn lookup(root: &Path, user: &str) -> Result<Identity, Error> {
    let passwd = root.join("etc/passwd");
    let (uid, gid) = match find_user(&read(&passwd)?, user.as_bytes()) {
        Lookup::Found(uid, gid) => (uid, gid),
        Lookup::Absent => return Err(Error::NoUser { user: user.into(), path: passwd }),
        Lookup::Bad(reason) => return Err(Error::BadUser { user: user.into(), path: passwd, reason }),
    };
    let groups = match read(&root.join("etc/group")) {
        Ok(text) => groups_of(&text, user.as_bytes(), gid),
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(Identity { name: user.into(), uid, gid, groups })
}

impl Identity {
    /// Makes the process run as this user; its permitted capabilities survive, its effective ones do not
    /// (capabilities(7), `SECBIT_KEEP_CAPS`).
    pub(super) fn assume(&self) -> Result<(), Error> {
        let failed = |call| move |source| Error::Assume { call, source };
        caps::securebits::set_keepcaps(true)
            .map_err(|error| failed("prctl PR_SET_KEEPCAPS")(io::Error::other(error)))?;
        // Groups first: without the old user the kernel would no longer let us.
        let result = sys::set_groups(&self.groups)
            .map_err(failed("setgroups"))
            .and_then(|()| sys::set_gid(self.gid).map_err(failed("setresgid")))
            .and_then(|()| sys::set_uid(self.uid).map_err(failed("setresuid")));
        caps::securebits::set_keepcaps(false)
            .map_err(|error| failed("prctl PR_SET_KEEPCAPS 0")(io::Error::other(error)))?;
        result
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    small_file::read(path, FILE_LIMIT).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[derive(Debug, PartialEq, Eq)]
enum Lookup {
    Found(u32, u32),
    Absent,
    Bad(&'static str),
}

/// The numbers of the first line with that name, as `getpwnam(3)` takes the first.
fn find_user(passwd: &[u8], user: &[u8]) -> Lookup {
    for line in passwd.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next() != Some(user) {
            continue;
        }
        let _password = fields.next();
        let (Some(uid), Some(gid)) = (number(fields.next()), number(fields.next())) else {
            return Lookup::Bad("the third and fourth field are not a user and a group number");
        };
        if uid == 0 {
            return Lookup::Bad("has number 0, which is root; give it a number of its own");
        }
        return Lookup::Found(uid, gid);
    }
    Lookup::Absent
}

/// The groups whose member list names the user, without its own, in the file's order.
fn groups_of(group: &[u8], user: &[u8], own: u32) -> Vec<u32> {
    let mut groups = Vec::new();
    for line in group.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let (Some(gid), Some(members)) = (number(fields.next()), fields.next()) else { continue };
        let member =
            members.split(|byte| *byte == b',').any(|name| !name.is_empty() && name.trim_ascii() == user);
        if member && gid != own && !groups.contains(&gid) && groups.len() < GROUP_LIMIT {
            groups.push(gid);
        }
    }
    groups
}

/// A user or group number. The largest one means "unchanged" to the kernel and is nobody's (setresuid(2)).
fn number(field: Option<&[u8]>) -> Option<u32> {
    let digits = std::str::from_utf8(field?).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = include_bytes!("testdata/passwd");
    const GROUP: &[u8] = include_bytes!("testdata/group");

    #[test]
    fn finds_the_user_and_its_groups() {
        assert_eq!(find_user(PASSWD, b"defender"), Lookup::Found(990, 989));
        assert_eq!(groups_of(GROUP, b"defender", 989), [4, 108]);
        assert_eq!(groups_of(GROUP, b"syslog", 110), [4]);
        assert_eq!(groups_of(GROUP, b"", 1), [] as [u32; 0], "an empty member list names nobody");
    }

    #[test]
    fn takes_no_name_that_only_begins_alike() {
        assert_eq!(find_user(PASSWD, b"defend"), Lookup::Absent);
        assert_eq!(find_user(PASSWD, b"defenders"), Lookup::Absent);
        assert_eq!(
            find_user(b"#defender:x:1:1::/:/bin/false\n+defender::::::\n", b"defender"),
            Lookup::Absent
        );
    }

    #[test]
    fn refuses_lines_that_would_make_it_root_or_nobody() {
        for line in [
            "defender:x:0:0::/:/bin/false",
            "defender:x:00:5::/:/bin/false",
            "defender:x:-1:5::/:/bin/false",
            "defender:x:+5:5::/:/bin/false",
            "defender:x:4294967295:5::/:/bin/false",
            "defender:x:4294967296:5::/:/bin/false",
            "defender:x:5:4294967295::/:/bin/false",
            "defender:x:5",
            "defender:x::5:",
            "defender",
        ] {
            assert!(matches!(find_user(line.as_bytes(), b"defender"), Lookup::Bad(_)), "{line}");
        }
    }

    #[test]
    fn a_list_of_groups_is_bounded() {
        let text: String = (0..200).map(|n| format!("g{n}:x:{}:defender\n", 1000 + n)).collect();
        assert_eq!(groups_of(text.as_bytes(), b"defender", 1).len(), GROUP_LIMIT);
    }

    #[test]
    fn no_cut_and_no_flipped_byte_makes_it_panic() {
        for (text, end) in [PASSWD, GROUP].iter().flat_map(|text| (0..text.len()).map(move |end| (text, end)))
        {
            let mut flipped = text.to_vec();
            flipped[end] ^= 0x90;
            for text in [&text[..end], &flipped] {
                find_user(text, b"defender");
                groups_of(text, b"defender", 1);
            }
        }
    }

    #[test]
    fn errors_name_the_file_and_the_next_step() {
        let root = std::env::temp_dir().join(format!("defender-identity-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let error = lookup(&root, "defender").unwrap_err().to_string();
        assert!(error.contains("etc/passwd") && error.contains("No such file"), "{error}");
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\ndefender:x:7:8::/:\n").unwrap();
        assert!(lookup(&root, "other").unwrap_err().to_string().contains("add it to the image"));
        let identity = lookup(&root, "defender").unwrap();
        assert_eq!(
            (identity.uid, identity.gid, identity.groups.len()),
            (7, 8, 0),
            "no group file, no groups"
        );
        std::fs::write(root.join("etc/passwd"), vec![b'#'; FILE_LIMIT as usize + 1]).unwrap();
        let error = lookup(&root, "defender").unwrap_err().to_string();
        assert!(error.contains("etc/passwd: longer than 1048576 bytes"), "{error}");
        std::fs::remove_dir_all(root).unwrap();
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_answer_and_never_root(passwd: Vec<u8>, group: Vec<u8>) {
            if let Lookup::Found(uid, _) = find_user(&passwd, b"defender") {
                proptest::prop_assert_ne!(uid, 0);
            }
            proptest::prop_assert!(groups_of(&group, b"defender", 1).len() <= GROUP_LIMIT);
        }

        #[test]
        fn what_was_written_is_found_whatever_surrounds_it(
            uid in 1..u32::MAX,
            gid in 0..u32::MAX,
            others in proptest::collection::vec("[a-z#+:,0-9]{0,20}", 0..8),
            member in proptest::bool::ANY,
        ) {
            let others: String = others.iter().map(|line| format!("x{line}\n")).collect();
            let passwd = format!("{others}defender:x:{uid}:{gid}::/:/bin/false\n{others}");
            proptest::prop_assert_eq!(find_user(passwd.as_bytes(), b"defender"), Lookup::Found(uid, gid));
            let own = gid.wrapping_add(1) % u32::MAX;
            let group = format!("adm:x:{gid}:other,{}defender\n", if member { "" } else { "not" });
            let expected = if member { vec![gid] } else { vec![] };
            proptest::prop_assert_eq!(groups_of(group.as_bytes(), b"defender", own), expected);
        }
    }
}
