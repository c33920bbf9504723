//! The names in `services.watch`.

use std::fmt::Write as _;

/// Longest name of a unit (systemd.unit(5)).
const UNIT: usize = 255;
/// Longest short name of a process that is compared: `TASK_COMM_LEN` less its end (linux/sched.h).
pub(super) const SHORT: usize = 15;
/// Types of units that can be active (systemd.unit(5)).
const TYPES: [&str; 9] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer"];

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// A unit of systemd, such as `nftables.service`.
    Unit(String),
    /// A process by its short name, such as `dropbear`.
    Process(String),
}

impl Watched {
    /// Reads `nftables.service` or `process:dropbear`; `None` for what is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("process:") {
            let plain = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            return ((1..=SHORT).contains(&name.len()) && plain).then(|| Self::Process(name.to_owned()));
        }
        let (name, kind) = text.rsplit_once('.')?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let valid =
            !name.is_empty() && text.len() <= UNIT && TYPES.contains(&kind) && text.bytes().all(allowed);
        valid.then(|| Self::Unit(text.to_owned()))
    }
}

/// The object of a unit: every byte of its name that is no ASCII letter or digit becomes `_` and two hexadecimal digits, as does a
/// digit in front (sd_bus_path_encode(3)).
#[cfg_attr(not(feature = "dbus"), allow(dead_code))] // Only the bus has objects.
pub(super) fn object(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && at > 0) {
            path.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_and_processes_are_told_apart() {
        for unit in ["nftables.service", "getty@tty1.service", "dev-disk-by\\x2dlabel-a.device", "a.b.mount"]
        {
            assert_eq!(Watched::parse(unit), Some(Watched::Unit(unit.to_owned())));
        }
        assert_eq!(Watched::parse("process:dropbear"), Some(Watched::Process("dropbear".to_owned())));
        for wrong in
            ["", "nftables", ".service", "a.slice", "a/b.service", "process:", "process:a/b", "process:a b"]
        {
            assert_eq!(Watched::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Watched::parse(&format!("process:{}", "x".repeat(16))), None);
    }

    #[test]
    fn objects_are_systemd_s() {
        // As busctl tree org.freedesktop.systemd1 shows them.
        assert_eq!(object("dbus.service"), "/org/freedesktop/systemd1/unit/dbus_2eservice");
        assert_eq!(object("getty@tty1.service"), "/org/freedesktop/systemd1/unit/getty_40tty1_2eservice");
        assert_eq!(object("0a.mount"), "/org/freedesktop/systemd1/unit/_30a_2emount");
    }

    proptest! {
        #[test]
        fn what_is_read_is_bounded_and_harmless_in_a_match_rule(text in "\\PC{0,300}|(process:)?[a-z0-9@.'/\\\\-]{0,20}(.service)?") {
            if let Some(watched) = Watched::parse(&text) {
                let (Watched::Unit(name) | Watched::Process(name)) = watched;
                prop_assert!(name.len() <= UNIT && name.is_ascii());
                let path = object(&name);
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_/".contains(&byte)));
            }
        }
    }
}
