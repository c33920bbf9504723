//! Who this device is: identifiers from the configuration, the hardware and the system, in this order.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use defender_model::identity::DeviceIdentity;
use defender_model::text;

/// Longest identifier file read.
const LIMIT: u64 = 256;

/// Reads the identity below a root directory (`/` on a device). `configured` is the configuration's device id, or empty.
///
/// Without one, the serial number of the device tree stands for the device: it is the hardware's own, while a machine id that was
/// baked into a read-only image is the same in the whole fleet. The machine id of machine-id(5) is next.
#[must_use]
pub fn identify(root: &Path, configured: &str) -> DeviceIdentity {
    let one_line = |path: &str| -> Option<String> {
        let mut content = Vec::new();
        File::open(root.join(path)).ok()?.take(LIMIT).read_to_end(&mut content).ok()?;
        let content =
            text::from_bytes(content.split(|byte| matches!(byte, 0 | b'\n')).next().unwrap_or_default());
        let content = text::printable(content.trim()).into_owned();
        (!content.is_empty()).then_some(content)
    };
    let uid = (!configured.is_empty())
        .then(|| configured.to_owned())
        .or_else(|| one_line("proc/device-tree/serial-number"))
        .or_else(|| one_line("etc/machine-id"))
        .or_else(|| one_line("var/lib/dbus/machine-id"))
        .unwrap_or_else(|| "unknown".to_owned());
    DeviceIdentity {
        uid,
        boot_id: one_line("proc/sys/kernel/random/boot_id").unwrap_or_default(),
        hostname: one_line("proc/sys/kernel/hostname").unwrap_or_default(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_id_wins_then_the_hardware_s() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        assert_eq!(identify(root.path(), "").uid, "unknown");
        file("etc/machine-id", "0123456789abcdef\n");
        assert_eq!(identify(root.path(), "").uid, "0123456789abcdef");
        file("proc/device-tree/serial-number", "SN\x1b42\0");
        assert_eq!(identify(root.path(), "").uid, "SN\\u{1b}42");
        assert_eq!(identify(root.path(), "fleet-7").uid, "fleet-7");
    }
}
