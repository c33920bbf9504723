//! What the kernel says about a device: a message of its hot-plug socket, or the file `uevent` of the device.
//!
//! A message is `ACTION@DEVPATH`, then `KEY=VALUE` pairs, each ended by a zero byte (lib/kobject_uevent.c). The file has the same pairs, one
//! on a line, without action, path and subsystem (drivers/base/core.c).

/// Longest path below `/sys` that is taken; the kernel's buffer for all pairs has 2048 bytes (`UEVENT_BUFFER_SIZE`).
const PATH: usize = 1024;

/// A message, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uevent<'a> {
    /// What happened: `add`, `remove`, `move`, `change`, `bind`, `unbind`.
    pub action: &'a str,
    /// The device's path below `/sys`: `/devices/...`.
    pub path: &'a str,
    /// `usb`, `block`, `net`, `input` and the like.
    pub subsystem: &'a str,
    pairs: &'a [u8],
}

impl<'a> Uevent<'a> {
    /// Reads a message of the kernel. `None` for what is not one: other senders' (`libudev`), cut, or with a path that leads elsewhere.
    #[must_use]
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let end = message.iter().position(|byte| *byte == 0)?;
        let (action, path) = std::str::from_utf8(&message[..end]).ok()?.split_once('@')?;
        let pairs = &message[end + 1..];
        let subsystem = value(pairs, "SUBSYSTEM")?;
        (is_device(path) && !action.is_empty()).then_some(Self { action, path, subsystem, pairs })
    }

    /// What the files of a device say, as if it had just been added.
    #[must_use]
    pub fn found(path: &'a str, subsystem: &'a str, file: &'a [u8]) -> Option<Self> {
        is_device(path).then_some(Self { action: "add", path, subsystem, pairs: file })
    }

    /// The value of a key, where it is text.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&'a str> {
        value(self.pairs, key)
    }

    /// The kernel's name of the device: the last part of its path.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Whether it is the path of a device below `/sys`, and of nothing else.
pub(super) fn is_device(path: &str) -> bool {
    path.len() <= PATH
        && path.starts_with("/devices/")
        && path.bytes().all(|byte| byte > b' ' && byte != 0x7f)
        && !path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."))
}

fn value<'a>(pairs: &'a [u8], key: &str) -> Option<&'a str> {
    pairs.split(|byte| matches!(byte, 0 | b'\n')).find_map(|pair| {
        let rest = pair.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
        std::str::from_utf8(rest).ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stick_as_the_kernel_tells_it() {
        let messages = include_bytes!("testdata/usb-storage.uevents");
        let read: Vec<_> = messages
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| Uevent::parse(line).unwrap())
            .collect();
        let told: Vec<_> = read.iter().map(|e| (e.action, e.subsystem, e.name())).collect();
        assert_eq!(told[0], ("add", "usb", "1-2"));
        assert_eq!(told[1], ("add", "usb", "1-2:1.0"));
        assert!(told.contains(&("add", "block", "sda1")));
        assert_eq!(read[0].value("PRODUCT"), Some("951/1666/110"));
        assert_eq!(read[0].value("DEVTYPE"), Some("usb_device"));
        assert_eq!(read[1].value("INTERFACE"), Some("8/6/80"));
        assert_eq!(read[0].value("PROD"), None);
    }

    #[test]
    fn what_is_not_the_kernels_is_nothing() {
        let refused: [&[u8]; 8] = [
            b"",
            b"libudev\0\xfe\xed\xca\xfe",
            b"add@/devices/a",
            b"add@/devices/../../etc\0SUBSYSTEM=usb\0",
            b"add@/etc/passwd\0SUBSYSTEM=usb\0",
            b"add@/devices//a\0SUBSYSTEM=usb\0",
            b"add@/devices/a\0ACTION=add\0",
            b"@/devices/a\0SUBSYSTEM=usb\0",
        ];
        for message in refused {
            assert_eq!(Uevent::parse(message), None, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn the_file_of_a_device_says_the_same() {
        let file = b"MAJOR=189\nDEVTYPE=usb_device\nPRODUCT=951/1666/110\n";
        let found = Uevent::found("/devices/pci0/usb1/1-2", "usb", file).unwrap();
        assert_eq!(
            (found.action, found.value("PRODUCT"), found.name()),
            ("add", Some("951/1666/110"), "1-2")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(event) = Uevent::parse(&bytes) {
                let _ = event.value("PRODUCT");
                prop_assert!(is_device(event.path));
            }
        }

        #[test]
        fn pairs_are_found(key in "[A-Z]{1,8}", word in "[a-z0-9/]{0,20}") {
            let message = format!("add@/devices/x\0SUBSYSTEM=usb\0A{key}=no\0{key}={word}\0");
            let event = Uevent::parse(message.as_bytes()).unwrap();
            let wanted = if key == "SUBSYSTEM" { "usb" } else { word.as_str() };
            prop_assert_eq!(event.value(&key), Some(wanted));
        }
    }
}
