//! File systems: what is mounted on a running device; what fstab and mount units would mount elsewhere.

use std::collections::HashSet;

use defender_model::order;
use defender_model::text;

use super::image;
use crate::root::{Root, Unreadable};

/// One file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: String,
    pub(crate) fstype: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
    /// Where this was read.
    pub(crate) from: String,
}

/// The file systems of an image, a later one on the same point in place of an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<Mount>,
}

/// What systemd mounts by itself (src/shared/mount-setup.c).
const API: &[(&str, &str, &str)] = &[
    ("/proc", "proc", "rw,nosuid,nodev,noexec"),
    ("/sys", "sysfs", "rw,nosuid,nodev,noexec"),
    ("/dev", "devtmpfs", "rw,nosuid"),
    ("/dev/shm", "tmpfs", "rw,nosuid,nodev"),
    ("/dev/pts", "devpts", "rw,nosuid,noexec"),
    ("/run", "tmpfs", "rw,nosuid,nodev"),
];

impl Mounts {
    pub(crate) fn read(root: &Root, live: bool) -> Result<Self, Unreadable> {
        let mut mounts = Self::default();
        if live {
            // Those of init: a service manager may show us our own, with everything read-only.
            let of_init = root.read("/proc/1/mountinfo").ok().flatten();
            let own = || root.read("/proc/self/mountinfo");
            let bytes = of_init.map_or_else(own, |bytes| Ok(Some(bytes)))?.ok_or_else(|| Unreadable {
                path: "/proc/self/mountinfo".into(),
                reason: "missing; is /proc mounted?".into(),
            })?;
            for mount in mountinfo(&bytes) {
                mounts.add(mount);
            }
            return Ok(mounts);
        }
        if image::systemd(root)? {
            for (point, fstype, options) in API {
                mounts.add(mount(point, fstype, fstype, options, "systemd"));
            }
            mounts.units(root)?;
        }
        for mount in fstab(&root.read("/etc/fstab")?.unwrap_or_default()) {
            mounts.add(mount);
        }
        Ok(mounts)
    }

    fn add(&mut self, mount: Mount) {
        self.mounts.retain(|other| other.point != mount.point);
        self.mounts.push(mount);
    }

    /// The file system on a mount point.
    pub(crate) fn on(&self, point: &str) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.point == point)
    }

    /// The file system a path lies on is mounted read-only.
    pub(crate) fn read_only_at(&self, path: &str) -> bool {
        let below = |point: &str| {
            path.strip_prefix(point.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let nearest =
            self.mounts.iter().filter(|mount| below(&mount.point)).max_by_key(|mount| mount.point.len());
        nearest.is_some_and(|mount| mount.options.iter().any(|option| option == "ro"))
    }

    /// Mount units that something pulls in.
    fn units(&mut self, root: &Root) -> Result<(), Unreadable> {
        for pattern in
            ["/{usr/,}lib/systemd/system/*.wants/*.mount", "/etc/systemd/system/*.{wants,requires}/*.mount"]
        {
            for link in root.glob(pattern)? {
                let Some(name) = link.file_name() else { continue };
                let name = name.to_string_lossy();
                for directory in ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"] {
                    let path = format!("{directory}/{name}");
                    match root.read(&path) {
                        Ok(Some(bytes)) => {
                            if let Some(mount) = unit(&bytes, &path) {
                                self.add(mount);
                            }
                            break;
                        }
                        Ok(None) => {}
                        Err(_) => break,
                    }
                }
            }
        }
        Ok(())
    }
}

fn mount(point: &str, fstype: &str, source: &str, options: &str, from: &str) -> Mount {
    Mount {
        point: if point == "/" { point.to_owned() } else { point.trim_end_matches('/').to_owned() },
        fstype: fstype.to_owned(),
        source: source.to_owned(),
        options: options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect(),
        from: from.to_owned(),
    }
}

/// The lines of fstab(5) that mount something.
pub(crate) fn fstab(bytes: &[u8]) -> Vec<Mount> {
    let text = text::from_bytes(bytes);
    let mut mounts = Vec::new();
    for line in text.lines() {
        let words: Vec<String> = line.split_whitespace().map(unescape).collect();
        let [source, point, fstype, rest @ ..] = words.as_slice() else { continue };
        if source.starts_with('#') || !point.starts_with('/') || fstype == "swap" {
            continue;
        }
        let options = rest.first().map_or("defaults", String::as_str);
        mounts.push(mount(point, fstype, source, options, "/etc/fstab"));
    }
    mounts
}

/// The lines of /proc/self/mountinfo (proc_pid_mountinfo(5)): options of the mount and of the file system.
pub(crate) fn mountinfo(bytes: &[u8]) -> Vec<Mount> {
    let text = text::from_bytes(bytes);
    let mut mounts = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(point), Some(options), [fstype, source, rest @ ..]) =
            (left.get(4), left.get(5), right.as_slice())
        else {
            continue;
        };
        let mut options = (*options).to_owned();
        // `ro` of the file system holds for every mount of it; its other options are its own business.
        if rest.first().is_some_and(|own| own.split(',').any(|option| option == "ro")) {
            options.push_str(",ro");
        }
        let mut found = mount(&unescape(point), fstype, &unescape(source), &options, "mounted");
        if found.options.iter().any(|option| option == "ro") {
            found.options.retain(|option| option != "rw");
        }
        mounts.push(found);
    }
    mounts
}

/// Where a process sees something else than init does, by the mountinfo of both: a service manager may have put an empty directory or a
/// private file system there. Another view of the same thing, such as a read-only one, is none.
pub(crate) fn hidden(own: &[u8], of_init: &[u8]) -> Vec<String> {
    let (own, of_init) = (Place::all(own), Place::all(of_init));
    let covering = |point: &str| {
        let covers = |place: &&Place| below(point, &place.point).is_some();
        // The last of the longest: a later mount on the same point covers the earlier one.
        of_init.iter().filter(covers).max_by_key(|place| place.point.len())
    };
    let is_hidden = |place: &&Place| {
        let Some(outer) = covering(&place.point) else { return false };
        let rest = below(&place.point, &outer.point).unwrap_or_default();
        let wanted = format!("{}{rest}", outer.root.trim_end_matches('/'));
        outer.device != place.device || wanted.trim_end_matches('/') != place.root.trim_end_matches('/')
    };
    // A later mount on the same point covers the earlier ones.
    let mut seen = HashSet::new();
    let tops = own.iter().rev().filter(|place| seen.insert(&place.point));
    let mut hidden: Vec<String> = tops.filter(is_hidden).map(|place| place.point.clone()).collect();
    order::sort(&mut hidden);
    hidden
}

/// What follows `above` in a path that lies at or below it.
fn below<'p>(path: &'p str, above: &str) -> Option<&'p str> {
    path.strip_prefix(above.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What of which file system is mounted where.
struct Place {
    device: String,
    root: String,
    point: String,
}

impl Place {
    fn all(mountinfo: &[u8]) -> Vec<Self> {
        let text = text::from_bytes(mountinfo);
        let place = |line: &str| {
            let mut words = line.split(' ').skip(2);
            let mut place = Self {
                device: words.next()?.to_owned(),
                root: unescape(words.next()?),
                point: unescape(words.next()?),
            };
            let (_, file_system) = line.split_once(" - ")?;
            let mut words = file_system.split(' ');
            let is_proc = words.next() == Some("proc");
            let restricted =
                words.nth(1)?.split(',').any(|o| o.starts_with("hidepid=") || o.starts_with("subset="));
            if is_proc && !restricted {
                // systemd mounts another one for a unit; it shows the same processes and parameters (proc(5)).
                "proc".clone_into(&mut place.device);
            }
            Some(place)
        };
        text.lines().filter_map(place).collect()
    }
}

/// The file system of a systemd mount unit.
fn unit(bytes: &[u8], from: &str) -> Option<Mount> {
    let text = text::from_bytes(bytes);
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .rfind(|(k, _)| k.trim() == key)
            .map(|(_, v)| v.trim())
    };
    Some(mount(
        value("Where")?,
        value("Type").unwrap_or("auto"),
        value("What")?,
        value("Options").unwrap_or("defaults"),
        from,
    ))
}

/// Octal escapes of blanks (`\040`) undone.
fn unescape(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fstab() {
        let mounts = fstab(b"# /dev/x /x ext4\n/dev/root / auto ro 0 1\ntmpfs /tmp/ tmpfs mode=1777,nosuid\nnone swap swap sw\n/dev/sda1 /my\\040disk vfat\nshort /x\n");
        assert_eq!(mounts.iter().map(|m| m.point.as_str()).collect::<Vec<_>>(), ["/", "/tmp", "/my disk"]);
        assert_eq!(mounts[1].options, ["mode=1777", "nosuid"]);
        assert_eq!(mounts[2].options, ["defaults"]);
    }

    #[test]
    fn reads_mountinfo() {
        let mounts = mountinfo(
            b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root ro,errors=panic\n30 22 0:5 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=1k\ngarbage\n",
        );
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].options, ["relatime", "ro"]);
        assert_eq!((mounts[1].fstype.as_str(), mounts[1].options.len()), ("tmpfs", 3));
    }

    #[test]
    fn tells_what_a_service_manager_hides() {
        let init = b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /dev rw - devtmpfs d rw\n3 1 0:20 / /proc rw - proc p rw\n4 1 8:2 / /home rw - ext4 h rw\n";
        // Read-only views of the same, a bind of its own state, private devices, an empty home, no modules.
        let twice = b"5 1 0:6 / /run rw - tmpfs a rw\n6 5 0:7 / /run rw - tmpfs b rw\n";
        assert!(hidden(twice, twice).is_empty());
        let own = b"11 10 8:1 / / ro - ext4 a rw\n12 11 8:1 /var/lib/defender /var/lib/defender rw - ext4 a rw\n13 11 0:20 / /proc rw - proc p rw\n14 13 0:20 /sys /proc/sys ro - proc p rw\n15 11 0:77 / /dev rw - tmpfs t rw\n16 11 0:23 /systemd/inaccessible/dir /home ro - tmpfs t rw\n17 11 0:23 /systemd/inaccessible/dir /usr/lib/modules ro - tmpfs t rw\n";
        assert_eq!(hidden(own, init), ["/dev", "/home", "/usr/lib/modules"]);
        assert!(hidden(init, init).is_empty());
        let another = b"13 11 0:36 / /proc rw - proc p rw\n14 13 0:36 /sys /proc/sys ro - proc p rw\n15 13 0:23 /systemd/inaccessible/reg /proc/kcore ro - tmpfs t rw\n";
        assert_eq!(hidden(another, init), ["/proc/kcore"]);
        assert_eq!(hidden(b"13 11 0:36 / /proc rw - proc p rw,subset=pid\n", init), ["/proc"]);
        assert!(hidden(own, b"").is_empty(), "nothing is known of init's");
    }

    #[test]
    fn reads_mount_units() {
        let unit =
            unit(b"[Mount]\nWhat=tmpfs\nWhere=/tmp\nType=tmpfs\nOptions=mode=1777,nosuid\n", "tmp.mount")
                .unwrap();
        assert_eq!((unit.point.as_str(), unit.options.len()), ("/tmp", 2));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), word in ".{0,30}") {
            let _ = (hidden(&bytes, &bytes), fstab(&bytes), mountinfo(&bytes), unit(&bytes, ""), unescape(&word));
        }
    }
}
