//! What the device consists of to OCSF.

use super::some;
use super::wire::{Device, Fingerprint, HardwareInfo, Interface, OperatingSystem, Package, Record, Unmapped};
use crate::file::Sha256;
use crate::inventory::{self, DeviceInfo, Inventory};
use crate::ocsf::class;
use crate::time::Timestamp;

/// `os.type_id` 200: Linux.
const LINUX: u16 = 200;
/// 1: Log, what changed; 2: Collect, how it is.
const LOG: u32 = 1;
const COLLECT: u32 = 2;

pub(super) fn record(inventory: &Inventory) -> Record<'_> {
    match inventory {
        Inventory::Device(info) => Record {
            class_uid: Some(class::DEVICE_INVENTORY),
            activity_id: Some(COLLECT),
            device: Some(device(info)),
            unmapped: vlans(&info.interfaces),
            ..Record::default()
        },
        Inventory::Interface { interface, detail } => Record {
            class_uid: Some(class::DEVICE_INVENTORY),
            activity_id: Some(LOG),
            message: some(detail),
            device: Some(Device { network_interfaces: Some(told(interface).collect()), ..Device::default() }),
            unmapped: vlans(std::slice::from_ref(interface)),
            ..Record::default()
        },
        Inventory::Software { packages, sha256, os } => Record {
            class_uid: Some(class::SOFTWARE_INVENTORY),
            activity_id: Some(COLLECT),
            package: Some(Package {
                name: Some(os.0.as_str()),
                version: Some(os.1.as_str()),
                hash: fingerprint(*sha256),
                ..Package::default()
            }),
            unmapped: Some(Unmapped { packages: Some(*packages), ..Unmapped::default() }),
            ..Record::default()
        },
        Inventory::Package { package, change, before } => Record {
            class_uid: Some(class::SOFTWARE_INVENTORY),
            activity_id: Some(LOG),
            package: Some(Package {
                name: Some(package.name.as_str()),
                version: Some(package.version.as_str()),
                architecture: some(&package.architecture),
                purl: some(&package.purl),
                ..Package::default()
            }),
            unmapped: Some(Unmapped {
                kind: Some(change.name()),
                before: some(before),
                ..Unmapped::default()
            }),
            ..Record::default()
        },
    }
}

fn fingerprint<'a>(sha256: Option<Sha256>) -> Option<Fingerprint<'a>> {
    // 3: SHA-256.
    sha256.map(|digest| Fingerprint { algorithm_id: Some(3), value: Some(digest), ..Fingerprint::default() })
}

fn device(info: &DeviceInfo) -> Device<'_> {
    let (name, version) = &info.os;
    let [maker, firmware, date] = &info.firmware;
    Device {
        vendor_name: some(&info.vendor),
        model: some(&info.model),
        boot_time: info.booted.map(Timestamp::millis),
        os: Some(OperatingSystem {
            name: Some(name.as_str()),
            type_id: Some(LINUX),
            version: some(version),
            kernel_release: some(&info.kernel),
            ..OperatingSystem::default()
        }),
        hw_info: Some(HardwareInfo {
            vendor_name: some(&info.vendor),
            serial_number: some(&info.serial),
            bios_manufacturer: some(maker),
            bios_ver: some(firmware),
            bios_date: some(date),
            cpu_architecture: some(&info.machine),
            cpu_count: Some(info.processors),
            ram_size: Some(info.memory_mb),
            ..HardwareInfo::default()
        }),
        network_interfaces: (!info.interfaces.is_empty())
            .then(|| info.interfaces.iter().flat_map(told).collect()),
        ..Device::default()
    }
}

/// One object for each address, since the schema has room for one in each; one without where there is none.
fn told(interface: &inventory::Interface) -> impl Iterator<Item = Interface<'_>> {
    let type_id = match interface.kind.as_str() {
        "wired" => 1,
        "wireless" => 2,
        "tunnel" => 4,
        _ => 99,
    };
    let addresses = interface.addresses.iter().map(|address| Some(*address));
    let none = interface.addresses.is_empty().then_some(None);
    addresses.chain(none).map(move |ip| Interface {
        name: Some(interface.name.as_str()),
        kind: some(&interface.kind),
        type_id: Some(type_id),
        mac: some(&interface.mac),
        ip,
        ..Interface::default()
    })
}

/// `eth0.5 5 eth0`: name, number and what it runs on.
fn vlans(interfaces: &[inventory::Interface]) -> Option<Unmapped<'_>> {
    let vlans: Vec<String> = interfaces
        .iter()
        .filter_map(|interface| {
            let (number, on) = interface.vlan.as_ref()?;
            Some(format!("{} {number} {on}", interface.name))
        })
        .collect();
    (!vlans.is_empty()).then(|| Unmapped { vlans: Some(vlans), ..Unmapped::default() })
}
