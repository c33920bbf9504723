//! What the device consists of: Device Inventory Info, 5001, Software Inventory Info, 5020.

use super::observed::fingerprint;
use super::Object;
use crate::inventory::{DeviceInfo, Interface, Inventory};
use crate::ocsf::class;
use crate::time::Timestamp;

/// `os.type_id` 200: Linux.
const LINUX: u8 = 200;
/// 1: Log, what changed; 2: Collect, how it is.
const LOG: u32 = 1;
const COLLECT: u32 = 2;

pub(super) fn class(inventory: &Inventory) -> (u32, u32) {
    match inventory {
        Inventory::Device(_) => (class::DEVICE_INVENTORY, COLLECT),
        Inventory::Interface { .. } => (class::DEVICE_INVENTORY, LOG),
        Inventory::Software { .. } => (class::SOFTWARE_INVENTORY, COLLECT),
        Inventory::Package { .. } => (class::SOFTWARE_INVENTORY, LOG),
    }
}

pub(super) fn write(record: &mut Object<'_>, inventory: &Inventory) {
    match inventory {
        Inventory::Device(info) => vlans(record, &info.interfaces),
        Inventory::Interface { interface, detail } => {
            record.said("message", detail);
            vlans(record, core::slice::from_ref(interface));
        }
        Inventory::Software { packages, sha256, os } => {
            record.object("package", |package| {
                package.text("name", &os.0);
                package.text("version", &os.1);
                if let Some(digest) = sha256 {
                    package.object("hash", |hash| fingerprint(hash, digest));
                }
            });
            record.object("unmapped", |unmapped| unmapped.number("packages", *packages));
        }
        Inventory::Package { package, change, before } => {
            record.object("package", |object| {
                object.text("name", &package.name);
                object.text("version", &package.version);
                object.said("architecture", &package.architecture);
                object.said("purl", &package.purl);
            });
            record.object("unmapped", |unmapped| {
                unmapped.text("kind", change.name());
                unmapped.said("before", before);
            });
        }
    }
}

/// What the event has to say of the device, besides who it is.
pub(super) fn device(described: &mut Object<'_>, inventory: &Inventory) {
    match inventory {
        Inventory::Device(info) => hardware(described, info),
        Inventory::Interface { interface, .. } => {
            interfaces(described, core::slice::from_ref(interface));
        }
        Inventory::Software { .. } | Inventory::Package { .. } => {}
    }
}

fn hardware(described: &mut Object<'_>, info: &DeviceInfo) {
    let (name, version) = &info.os;
    let [maker, firmware, date] = &info.firmware;
    described.said("vendor_name", &info.vendor);
    described.said("model", &info.model);
    if let Some(booted) = info.booted.map(Timestamp::millis) {
        described.signed("boot_time", booted);
    }
    described.object("os", |os| {
        os.text("name", name);
        os.number("type_id", LINUX);
        os.said("version", version);
        os.said("kernel_release", &info.kernel);
    });
    described.object("hw_info", |hardware| {
        hardware.said("vendor_name", &info.vendor);
        hardware.said("serial_number", &info.serial);
        hardware.said("bios_manufacturer", maker);
        hardware.said("bios_ver", firmware);
        hardware.said("bios_date", date);
        hardware.said("cpu_architecture", &info.machine);
        hardware.number("cpu_count", info.processors);
        hardware.number("ram_size", info.memory_mb);
    });
    interfaces(described, &info.interfaces);
}

/// One object for each address, since the schema has room for one in each; one without where there is none.
fn interfaces(described: &mut Object<'_>, interfaces: &[Interface]) {
    described.list("network_interfaces", |list| {
        for interface in interfaces {
            let addresses = interface.addresses.iter().map(Some);
            for address in addresses.chain(interface.addresses.is_empty().then_some(None)) {
                list.object(|object| {
                    let type_id = match interface.kind.as_str() {
                        "wired" => 1u8,
                        "wireless" => 2,
                        "tunnel" => 4,
                        _ => 99,
                    };
                    object.text("name", &interface.name);
                    object.said("type", &interface.kind);
                    object.number("type_id", type_id);
                    object.said("mac", &interface.mac);
                    if let Some(address) = address {
                        object.shown("ip", address);
                    }
                });
            }
        }
    });
}

/// `eth0.5 5 eth0`: name, number and what it runs on.
fn vlans(record: &mut Object<'_>, interfaces: &[Interface]) {
    let vlans: Vec<String> = interfaces
        .iter()
        .filter_map(|interface| {
            let (number, on) = interface.vlan.as_ref()?;
            Some(format!("{} {number} {on}", interface.name))
        })
        .collect();
    record.any("unmapped", |unmapped| unmapped.texts("vlans", &mut vlans.iter().map(String::as_str)));
}
