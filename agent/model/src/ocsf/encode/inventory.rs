//! What the device consists of: Device Inventory Info, 5001, Software Inventory Info, 5020.

use super::observed::fingerprint;
use super::{name, Object};
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
            record.said(name!("message"), detail);
            vlans(record, core::slice::from_ref(interface));
        }
        Inventory::Software { packages, sha256, os } => {
            record.object(name!("package"), |package| {
                package.text(name!("name"), &os.0);
                package.text(name!("version"), &os.1);
                if let Some(digest) = sha256 {
                    package.object(name!("hash"), |hash| fingerprint(hash, digest));
                }
            });
            record.object(name!("unmapped"), |unmapped| unmapped.number(name!("packages"), *packages));
        }
        Inventory::Package { package, change, before } => {
            record.object(name!("package"), |object| {
                object.text(name!("name"), &package.name);
                object.text(name!("version"), &package.version);
                object.said(name!("architecture"), &package.architecture);
                object.said(name!("purl"), &package.purl);
            });
            record.object(name!("unmapped"), |unmapped| {
                unmapped.text(name!("kind"), change.name());
                unmapped.said(name!("before"), before);
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
    described.said(name!("vendor_name"), &info.vendor);
    described.said(name!("model"), &info.model);
    if let Some(booted) = info.booted.map(Timestamp::millis) {
        described.signed(name!("boot_time"), booted);
    }
    described.object(name!("os"), |os| {
        os.text(name!("name"), name);
        os.number(name!("type_id"), LINUX);
        os.said(name!("version"), version);
        os.said(name!("kernel_release"), &info.kernel);
    });
    described.object(name!("hw_info"), |hardware| {
        hardware.said(name!("vendor_name"), &info.vendor);
        hardware.said(name!("serial_number"), &info.serial);
        hardware.said(name!("bios_manufacturer"), maker);
        hardware.said(name!("bios_ver"), firmware);
        hardware.said(name!("bios_date"), date);
        hardware.said(name!("cpu_architecture"), &info.machine);
        hardware.number(name!("cpu_count"), info.processors);
        hardware.number(name!("ram_size"), info.memory_mb);
    });
    interfaces(described, &info.interfaces);
}

/// One object for each address, since the schema has room for one in each; one without where there is none.
fn interfaces(described: &mut Object<'_>, interfaces: &[Interface]) {
    described.list(name!("network_interfaces"), |list| {
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
                    object.text(name!("name"), &interface.name);
                    object.said(name!("type"), &interface.kind);
                    object.number(name!("type_id"), type_id);
                    object.said(name!("mac"), &interface.mac);
                    if let Some(address) = address {
                        object.shown(name!("ip"), address);
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
    record.any(name!("unmapped"), |unmapped| {
        unmapped.texts(name!("vlans"), &mut vlans.iter().map(String::as_str));
    });
}
