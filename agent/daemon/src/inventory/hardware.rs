//! Maker, model, firmware, system: from DMI, or the device tree, and `/proc`. Sources: Documentation/ABI/testing/sysfs-firmware-dmi-tables,
//! the devicetree specification (`/proc/device-tree`), os-release(5), proc(5).

use std::path::Path;

use defender_model::inventory::DeviceInfo;
use defender_model::text;
use defender_model::time::Timestamp;

use crate::small_file;

/// Longest file that is read, in bytes: `/proc/cpuinfo` and `/proc/stat` have a line for each processor.
const LIMIT: u64 = 256 << 10;

/// What is told below a root directory (`/` on a device).
pub(super) fn read(root: &Path) -> DeviceInfo {
    let whole = |path: &str| {
        let bytes = small_file::read(&root.join(path), LIMIT).unwrap_or_default();
        text::from_bytes(&bytes)
    };
    // A property of the device tree ends with a zero, a file of sysfs with a line feed.
    let line = |path: &str| {
        let words = whole(path);
        let end = words.find(['\0', '\n']).unwrap_or(words.len());
        text::printable(words[..end].trim()).into_owned()
    };
    let either = |tree: &str, dmi: &str| {
        let told = line(&format!("proc/device-tree/{tree}"));
        if told.is_empty() {
            line(&format!("sys/class/dmi/id/{dmi}"))
        } else {
            told
        }
    };
    // `vendor,model` in the first of the list.
    let compatible = line("proc/device-tree/compatible");
    let maker = compatible.split_once(',').map(|(maker, _)| maker.to_owned());
    let release = [whole("etc/os-release"), whole("usr/lib/os-release")];
    let release = release.iter().find(|text| !text.is_empty()).map_or("", String::as_str);
    let word = |key: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map(|value| text::printable(value.trim().trim_matches(['"', '\''])).into_owned())
    };
    let figure = |content: &str, key: &str| -> Option<u64> {
        content.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
    };
    let booted = figure(&whole("proc/stat"), "btime ").and_then(|seconds| i64::try_from(seconds).ok());
    DeviceInfo {
        vendor: maker.unwrap_or_else(|| line("sys/class/dmi/id/sys_vendor")),
        model: either("model", "product_name"),
        serial: either("serial-number", "product_serial"),
        firmware: ["bios_vendor", "bios_version", "bios_date"]
            .map(|name| line(&format!("sys/class/dmi/id/{name}"))),
        os: (
            word("NAME").unwrap_or_else(|| "Linux".to_owned()),
            word("VERSION_ID").or_else(|| word("BUILD_ID")).unwrap_or_default(),
        ),
        kernel: line("proc/sys/kernel/osrelease"),
        machine: crate::run::machine(),
        processors: processors(&line("sys/devices/system/cpu/present")),
        memory_mb: figure(&whole("proc/meminfo"), "MemTotal:").unwrap_or_default() / 1024,
        booted: booted.map(|seconds| Timestamp(seconds.saturating_mul(1000))),
        interfaces: Vec::new(),
    }
}

/// How many processors a list such as `0-3,8` has; 0 where it is none.
fn processors(list: &str) -> u32 {
    let count = |range: &str| -> Option<u32> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    list.split(',').filter_map(count).fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_board_and_a_server() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        file("sys/class/dmi/id/sys_vendor", "Example Inc.\n");
        file("sys/class/dmi/id/product_name", "Box\n");
        file("sys/class/dmi/id/bios_version", "1.2\n");
        file("sys/devices/system/cpu/present", "0-3,8\n");
        file("proc/meminfo", "MemTotal:         524288 kB\n");
        file("proc/stat", "cpu 1\nbtime 1700000000\n");
        file("etc/os-release", "NAME=\"Poky\"\nVERSION_ID=5.1\n");
        let info = read(root.path());
        assert_eq!((&*info.vendor, &*info.model, &*info.firmware[1]), ("Example Inc.", "Box", "1.2"));
        assert_eq!(
            (info.processors, info.memory_mb, info.booted),
            (5, 512, Some(Timestamp(1_700_000_000_000)))
        );
        assert_eq!(info.os, ("Poky".to_owned(), "5.1".to_owned()));
        file("proc/device-tree/compatible", "acme,gw3\0acme,gw\0");
        file("proc/device-tree/model", "Acme Gateway 3\0");
        file("proc/device-tree/serial-number", "SN\x1b1\0");
        let info = read(root.path());
        assert_eq!((&*info.vendor, &*info.model, &*info.serial), ("acme", "Acme Gateway 3", "SN\\u{1b}1"));
        assert_eq!(processors("x,4-2"), 0);
    }
}
