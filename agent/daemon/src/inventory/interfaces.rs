//! Network interfaces. Sources: Documentation/ABI/testing/sysfs-class-net, `/proc/net/vlan/config` (net/8021q/vlanproc.c).

use std::fs;
use std::path::Path;

use defender_model::inventory::Interface;
use defender_model::{order, text};
use defender_sensors::network;

use crate::small_file;

/// Longest file that is read, in bytes.
const LIMIT: u64 = 64 << 10;
/// Most interfaces that are told of.
const MOST: usize = 256;
/// `ARPHRD_LOOPBACK` (linux/if_arp.h).
const LOOPBACK: &str = "772";

/// The interfaces there are, but for the loopback.
pub(super) fn read(root: &Path) -> Vec<Interface> {
    let line = |path: &Path| {
        let bytes = small_file::read(path, LIMIT).unwrap_or_default();
        text::from_bytes(bytes.trim_ascii())
    };
    let vlans = line(&root.join("proc/net/vlan/config"));
    let addresses = network::addresses().unwrap_or_default();
    let mut found = Vec::new();
    let class = root.join("sys/class/net");
    for entry in fs::read_dir(class).into_iter().flatten().flatten().take(MOST) {
        let at = entry.path();
        let name = text::from_bytes(entry.file_name().as_encoded_bytes());
        let number = line(&at.join("type"));
        // `bonding_masters` is a file.
        if number.is_empty() || number == LOOPBACK {
            continue;
        }
        let mac = line(&at.join("address"));
        let mut interface = Interface {
            kind: kind(&at, &number, &line(&at.join("uevent"))),
            mac: if mac.bytes().any(|byte| !matches!(byte, b'0' | b':')) { mac } else { String::new() },
            vlan: vlans.lines().find_map(|line| vlan(line, &name)),
            addresses: Vec::new(),
            name,
        };
        let own = addresses.iter().filter(|(on, _)| *on == interface.name);
        interface.addresses.extend(own.map(|(_, address)| *address));
        order::sort(&mut interface.addresses);
        found.push(interface);
    }
    found
}

fn kind(at: &Path, number: &str, uevent: &str) -> String {
    let device_type = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    match (device_type, number) {
        (Some("wlan"), _) => "wireless",
        (Some(word), _) => word,
        _ if at.join("wireless").exists() || at.join("phy80211").exists() => "wireless",
        _ if at.join("tun_flags").exists() => "tunnel",
        // ARPHRD_ETHER; 768 to 778 are tunnels of IP.
        (None, "1") => "wired",
        (None, "768" | "769" | "776" | "778" | "65534") => "tunnel",
        _ => "other",
    }
    .to_owned()
}

/// `eth0.5         | 5  | eth0`
fn vlan(line: &str, name: &str) -> Option<(u16, String)> {
    let mut columns = line.split('|').map(str::trim);
    if columns.next() != Some(name) {
        return None;
    }
    Some((columns.next()?.parse().ok()?, columns.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_a_root() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        for (name, number, uevent) in [
            ("lo", "772", ""),
            ("dv0", "1", "INTERFACE=dv0\n"),
            ("dv0.5", "1", "DEVTYPE=vlan\n"),
            ("dw0", "1", "DEVTYPE=wlan\n"),
        ] {
            file(&format!("sys/class/net/{name}/type"), &format!("{number}\n"));
            file(&format!("sys/class/net/{name}/uevent"), uevent);
            file(&format!("sys/class/net/{name}/address"), "52:54:00:00:00:01\n");
        }
        file("sys/class/net/bonding_masters", "");
        file("proc/net/vlan/config", "VLAN Dev name    | VLAN ID\nName-Type: X\ndv0.5          | 5  | dv0\n");
        let mut found = read(root.path());
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let told: Vec<_> = found.iter().map(|i| (&*i.name, &*i.kind, i.vlan.clone())).collect();
        assert_eq!(
            told,
            [
                ("dv0", "wired", None),
                ("dv0.5", "vlan", Some((5, "dv0".to_owned()))),
                ("dw0", "wireless", None)
            ]
        );
    }
}
