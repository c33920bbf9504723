//! Devices as `/sys` shows them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use defender_model::text;

use super::uevent::{is_device, Uevent};

/// Bytes read of one attribute: a USB string has at most 126 characters, a page is the most an attribute can have.
const ATTRIBUTE: u64 = 4096;
/// Bytes kept of a text a device says of itself.
const TEXT: usize = 256;
/// Where devices are listed: what others are parts of first, but in a list in no order.
const LISTS: [&str; 4] = ["bus/usb/devices", "class/block", "class/net", "class/input"];
/// Devices listed at most, parts of devices included.
const MOST: usize = 4096;

/// A mounted `/sys`.
#[derive(Debug, Clone)]
pub(super) struct Sysfs {
    root: PathBuf,
}

/// A device found there.
pub(super) struct Found {
    path: String,
    subsystem: String,
    file: Vec<u8>,
}

impl Found {
    pub(super) fn event(&self) -> Option<Uevent<'_>> {
        Uevent::found(&self.path, &self.subsystem, &self.file)
    }
}

impl Sysfs {
    pub(super) fn new(root: &Path) -> Self {
        // Links in there are followed to their ends, which are below the true root.
        Self { root: root.canonicalize().unwrap_or_else(|_| root.to_path_buf()) }
    }

    fn read(&self, device: &str, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.root.join(&device[1..]).join(name))?.take(ATTRIBUTE).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A text the device says of itself: whatever its maker wrote, made fit for a line. `None` where it says nothing.
    pub(super) fn text(&self, device: &str, name: &str) -> Option<String> {
        let bytes = self.read(device, name).ok()?;
        let text = text::from_bytes(&bytes);
        let text = text::printable(text.trim_matches(|c: char| c.is_whitespace() || c == '\0')).into_owned();
        (!text.is_empty()).then(|| text::truncate(&text, TEXT).to_owned())
    }

    /// Every device there is, usable as if it had just been added.
    pub(super) fn scan(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for list in LISTS {
            let Ok(entries) = fs::read_dir(self.root.join(list)) else { continue };
            for entry in entries.flatten() {
                if found.len() >= MOST {
                    break;
                }
                let Ok(target) = entry.path().canonicalize() else { continue };
                let Ok(below) = target.strip_prefix(&self.root) else { continue };
                let path = format!("/{}", below.display());
                let Ok(file) = (if is_device(&path) { self.read(&path, "uevent") } else { continue }) else {
                    continue;
                };
                let subsystem = match list.rsplit('/').next() {
                    Some("devices") | None => "usb",
                    Some(class) => class,
                };
                found.push(Found { path, subsystem: subsystem.to_owned(), file });
            }
        }
        found
    }
}

/// Name and path of the USB device that a device is, or is a part of: the last of its path that is called like one (`1-1.2`).
pub(super) fn usb_device(path: &str) -> Option<&str> {
    let mut at = 0;
    let mut last = None;
    let mut on_bus = false;
    for part in path.split('/') {
        let end = at + part.len();
        let hub =
            part.strip_prefix("usb").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        let numbered = part.starts_with(|c: char| c.is_ascii_digit())
            && part.contains('-')
            && part.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
        on_bus |= hub;
        if hub || (on_bus && numbered) {
            last = path.get(..end);
        }
        at = end + 1;
    }
    last
}

/// How a device is connected, by its path.
pub(super) fn bus(path: &str) -> &'static str {
    if usb_device(path).is_some() {
        return "usb";
    }
    // The innermost that is known.
    let known = path.rsplit('/').find_map(|part| match part {
        "virtual" => Some("virtual"),
        "mmc_host" => Some("mmc"),
        "bluetooth" => Some("bluetooth"),
        "platform" => Some("platform"),
        part if part.starts_with("pci") => Some("pci"),
        _ => None,
    });
    known.unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_device_of_a_part() {
        let hub = "/devices/pci0000:00/0000:00:14.0/usb1";
        let device = format!("{hub}/1-1/1-1.4");
        for part in
            ["", "/1-1.4:1.0", "/1-1.4:1.0/host2/target2:0:0/2:0:0:0/block/sda/sda1", "/1-1.4:1.0/net/eth1"]
        {
            assert_eq!(usb_device(&format!("{device}{part}")), Some(device.as_str()));
        }
        assert_eq!(usb_device(hub), Some(hub));
        for other in ["/devices/platform/1-1/x", "/devices/pci0000:00/0000:00:03.0/virtio0/block/vda", ""] {
            assert_eq!(usb_device(other), None);
        }
        assert_eq!(bus("/devices/pci0000:00/0000:00:03.0/virtio0/block/vda"), "pci");
        assert_eq!(bus("/devices/platform/soc/2000000.mmc/mmc_host/mmc0/mmc0:0001/block/mmcblk0"), "mmc");
        assert_eq!(bus("/devices/virtual/net/dummy0"), "virtual");
        assert_eq!(bus("/devices/soc/x"), "other");
    }

    #[test]
    fn hostile_text_is_bounded_and_printable() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("devices/d");
        fs::create_dir_all(&device).unwrap();
        let sysfs = Sysfs::new(root.path());
        fs::write(device.join("product"), b"  Evil \x1b[2J\xff\n\n").unwrap();
        assert_eq!(sysfs.text("/devices/d", "product").as_deref(), Some("Evil \\u{1b}[2J\\xff"));
        fs::write(device.join("product"), vec![b'\x07'; 100_000]).unwrap();
        assert!(sysfs.text("/devices/d", "product").unwrap().len() <= TEXT);
        fs::write(device.join("product"), b"\n").unwrap();
        assert_eq!(sysfs.text("/devices/d", "product"), None);
    }

    proptest! {
        #[test]
        fn a_part_of_the_path_is_named(path in "(/[a-z0-9:.-]{0,6}|/usb[0-9]|/[0-9]-[0-9.]{1,3}){0,8}") {
            if let Some(device) = usb_device(&path) {
                prop_assert!(path.starts_with(device));
                prop_assert!(path[device.len()..].is_empty() || path[device.len()..].starts_with('/'));
            }
        }
    }
}
