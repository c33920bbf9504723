//! Devices that come and go, against trees that look like `/sys`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use defender_model::peripheral::{PeripheralActivity, PeripheralClass};
use defender_model::time::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use super::allow::Entry;
use super::registry::{Registry, Told};
use super::uevent::Uevent;

const HUB: &str = "/devices/pci0000:00/0000:00:14.0/usb1";
const STICK: &[u8] = include_bytes!("testdata/usb-storage.uevents");
const STICK_GONE: &[u8] = include_bytes!("testdata/usb-storage-removed.uevents");
const DUCK: &[u8] = include_bytes!("testdata/keyboard-and-storage.uevents");

fn put(root: &Path, device: &str, list: Option<&str>, files: &[(&str, &str)]) {
    let directory = root.join(&device[1..]);
    fs::create_dir_all(&directory).unwrap();
    for (name, content) in files {
        fs::create_dir_all(directory.join(name).parent().unwrap()).unwrap();
        fs::write(directory.join(name), content).unwrap();
    }
    if let Some(list) = list {
        fs::create_dir_all(root.join(list)).unwrap();
        // Nothing to be removed the first time.
        let link = root.join(list).join(directory.file_name().unwrap());
        let _ = fs::remove_file(&link);
        symlink(&directory, link).unwrap();
    }
}

/// A hub, a disk that is soldered in, a network interface.
fn board() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        HUB,
        Some("bus/usb/devices"),
        &[("uevent", "DEVTYPE=usb_device\nPRODUCT=1d6b/2/601\nTYPE=9/0/1\nDEVNUM=001\n")],
    );
    put(
        root.path(),
        "/devices/pci0000:00/0000:00:03.0/virtio1/block/vda",
        Some("class/block"),
        &[("uevent", "MAJOR=254\nDEVTYPE=disk\n"), ("serial", "ROOT1\n"), ("device/vendor", "0x1af4\n")],
    );
    put(root.path(), "/devices/virtual/net/lo", Some("class/net"), &[("uevent", "INTERFACE=lo\n")]);
    root
}

fn plug_stick(root: &Path) {
    put(
        root,
        &format!("{HUB}/1-2"),
        Some("bus/usb/devices"),
        &[
            ("uevent", "DEVTYPE=usb_device\nPRODUCT=951/1666/110\nTYPE=0/0/0\nDEVNUM=005\n"),
            ("manufacturer", "Kingston\n"),
            ("product", "DataTraveler 3.0\n"),
            ("serial", "60A44C413FAE\n"),
        ],
    );
    put(
        root,
        &format!("{HUB}/1-2/1-2:1.0"),
        Some("bus/usb/devices"),
        &[("uevent", "DEVTYPE=usb_interface\nINTERFACE=8/6/80\n")],
    );
}

fn registry(root: &Path, allow: &[&str]) -> (Registry, Vec<Told>) {
    let allow = allow.iter().map(|entry| entry.parse::<Entry>().unwrap()).collect();
    let mut registry = Registry::new(root, allow);
    let unlisted = registry.baseline(Instant::now(), Timestamp(1));
    (registry, unlisted)
}

/// What is told when these messages come at once, and nothing for a while after.
fn told(registry: &mut Registry, messages: &[u8]) -> Vec<PeripheralActivity> {
    let now = Instant::now();
    let mut out = Vec::new();
    for message in messages.split(|byte| *byte == b'\n').filter(|message| !message.is_empty()) {
        registry.handle(&Uevent::parse(message).unwrap(), now, Timestamp(2), &mut out);
    }
    registry.settle(now + Duration::from_secs(3), &mut out);
    assert_eq!(registry.next(), None);
    out.into_iter().map(|(_, activity)| activity).collect()
}

#[test]
fn what_is_there_is_taken_note_of_in_silence() {
    let root = board();
    let (mut registry, unlisted) = registry(root.path(), &[]);
    assert!(unlisted.is_empty());
    assert_eq!(registry.len(), 3);
    // udev has the kernel tell of it once more.
    let again = format!("add@{HUB}\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0DEVNUM=001\0SYNTH_UUID=0\0");
    assert!(told(&mut registry, again.as_bytes()).is_empty());
    // It can be described when it goes.
    let gone = "remove@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda\0SUBSYSTEM=block\0DEVTYPE=disk\0";
    let [disk] = told(&mut registry, gone.as_bytes()).try_into().unwrap();
    assert_eq!(
        (disk.connected, disk.serial.as_deref(), disk.vendor_id),
        (false, Some("ROOT1"), Some(0x1af4))
    );
}

#[test]
fn a_stick_is_two_events_and_its_removal_two() {
    let root = board();
    let (mut registry, _) = registry(root.path(), &[]);
    plug_stick(root.path());
    let [device, disk] = told(&mut registry, STICK).try_into().unwrap();
    assert_eq!(
        (device.interface.as_str(), device.class, device.bus.as_str()),
        ("1-2", PeripheralClass::Storage, "usb")
    );
    assert_eq!((device.vendor_id, device.product_id), (Some(0x0951), Some(0x1666)));
    assert_eq!(device.vendor.as_deref(), Some("Kingston"));
    assert_eq!(device.interfaces, ":080650:");
    assert_eq!((device.parent.as_deref(), device.allowed), (None, None));
    assert_eq!(
        (disk.interface.as_str(), disk.class, disk.nodes.as_str()),
        ("sda", PeripheralClass::Storage, "sda1")
    );
    assert_eq!((disk.parent.as_deref(), disk.serial.as_deref()), (Some("1-2"), Some("60A44C413FAE")));
    // What was known of it is told when /sys has forgotten it.
    fs::remove_dir_all(root.path().join(&HUB[1..]).join("1-2")).unwrap();
    let gone = told(&mut registry, STICK_GONE);
    let names: Vec<_> =
        gone.iter().map(|d| (d.connected, d.interface.as_str(), d.serial.as_deref())).collect();
    assert_eq!(names, [(false, "sda", Some("60A44C413FAE")), (false, "1-2", Some("60A44C413FAE"))]);
}

#[test]
fn a_stick_of_which_nothing_can_be_read_still_has_its_numbers() {
    let root = tempfile::tempdir().unwrap();
    let (mut registry, _) = registry(root.path(), &[]);
    let [device, disk] = told(&mut registry, STICK).try_into().unwrap();
    assert_eq!((device.vendor_id, device.product_id, device.vendor), (Some(0x0951), Some(0x1666), None));
    assert_eq!(disk.vendor_id, Some(0x0951));
}

#[test]
fn one_that_types_and_stores_is_one_event_that_says_so() {
    let root = board();
    let (mut registry, _) = registry(root.path(), &["class:hid", "0951:1666"]);
    let [device] = told(&mut registry, DUCK).try_into().unwrap();
    assert_eq!((device.class, device.functions.as_str()), (PeripheralClass::Keyboard, "storage keyboard"));
    assert_eq!(device.interfaces, ":030101:080650:");
    assert_eq!(device.nodes, "input21");
    assert_eq!(device.allowed, Some(false));
}

#[test]
fn one_that_turns_out_to_type_is_told_again() {
    let root = board();
    let (mut registry, _) = registry(root.path(), &["class:storage", "class:network"]);
    assert!(told(&mut registry, STICK).iter().all(|device| device.allowed == Some(true)));
    let part = format!("{HUB}/1-2/1-2:1.1");
    let late = format!("add@{part}\0SUBSYSTEM=usb\0DEVTYPE=usb_interface\0INTERFACE=3/1/1\0");
    let [device] = told(&mut registry, late.as_bytes()).try_into().unwrap();
    assert_eq!((device.class, device.allowed), (PeripheralClass::Keyboard, Some(false)));
    assert!(told(&mut registry, late.as_bytes()).is_empty());
}

#[test]
fn what_is_there_at_the_start_and_not_on_the_list_is_told() {
    let root = board();
    plug_stick(root.path());
    assert!(registry(root.path(), &["0951:1666:60A44C413FAE"]).1.is_empty());
    let (_, unlisted) = registry(root.path(), &["0951:1666:OTHER"]);
    let [(_, stick)] = unlisted.try_into().unwrap();
    assert_eq!((stick.interface.as_str(), stick.connected, stick.allowed), ("1-2", true, Some(false)));
}

#[test]
fn after_a_loss_it_is_compared_with_what_there_is() {
    let root = board();
    let (mut registry, _) = registry(root.path(), &[]);
    plug_stick(root.path());
    let mut out = Vec::new();
    let now = Instant::now();
    registry.rescan(now, Timestamp(2), &mut out);
    registry.settle(now + Duration::from_secs(3), &mut out);
    let [(_, stick)] = std::mem::take(&mut out).try_into().unwrap();
    assert_eq!((stick.interface.as_str(), stick.class), ("1-2", PeripheralClass::Storage));
    // Another one at the same port.
    put(
        root.path(),
        &format!("{HUB}/1-2"),
        None,
        &[("uevent", "DEVTYPE=usb_device\nPRODUCT=781/5567/1\nTYPE=0/0/0\nDEVNUM=006\n"), ("serial", "B\n")],
    );
    registry.rescan(now, Timestamp(3), &mut out);
    registry.settle(now + Duration::from_secs(3), &mut out);
    let seen: Vec<_> = out.drain(..).map(|(_, d)| (d.connected, d.vendor_id)).collect();
    assert_eq!(seen, [(false, Some(0x0951)), (true, Some(0x0781))]);
    fs::remove_dir_all(root.path().join(&HUB[1..]).join("1-2")).unwrap();
    registry.rescan(now, Timestamp(4), &mut out);
    let seen: Vec<_> = out.drain(..).map(|(_, d)| (d.connected, d.vendor_id)).collect();
    assert_eq!(seen, [(false, Some(0x0781))]);
    // A tree that cannot be read takes nothing away.
    fs::remove_dir_all(root.path().join("bus")).unwrap();
    fs::remove_dir_all(root.path().join("class")).unwrap();
    registry.rescan(now, Timestamp(5), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_thousand_plugs_leave_nothing_behind() {
    let root = board();
    let (mut registry, _) = registry(root.path(), &[]);
    let before = registry.len();
    let mut count = 0;
    for _ in 0..1000 {
        count += told(&mut registry, STICK).len();
        count += told(&mut registry, STICK_GONE).len();
    }
    assert_eq!((count, registry.len(), registry.tally().untracked), (4000, before, 0));
    // So fast that nothing settles: each is told nevertheless.
    let now = Instant::now();
    let mut out = Vec::new();
    for _ in 0..1000 {
        for message in [STICK, STICK_GONE].concat().split(|byte| *byte == b'\n').filter(|m| !m.is_empty()) {
            registry.handle(&Uevent::parse(message).unwrap(), now, Timestamp(2), &mut out);
        }
    }
    assert_eq!((out.len(), registry.len()), (4000, before));
    let tally = registry.tally();
    assert_eq!((tally.news, tally.superseded), (8000, 0), "{tally:?}");
}

#[test]
fn more_than_can_be_remembered_are_counted() {
    let root = board();
    let (mut registry, _) = registry(root.path(), &[]);
    let mut out = Vec::new();
    for n in 0..3000 {
        let message = format!("add@/devices/virtual/net/d{n}\0SUBSYSTEM=net\0INTERFACE=d{n}\0");
        registry.handle(&Uevent::parse(message.as_bytes()).unwrap(), Instant::now(), Timestamp(2), &mut out);
    }
    assert_eq!(registry.len(), 1024);
    assert_eq!(registry.tally().untracked, 3000 - 1021);
}

#[test]
fn an_interface_that_is_renamed_goes_by_its_new_name() {
    let root = board();
    let (mut registry, _) = registry(root.path(), &[]);
    let base = "/devices/pci0000:00/0000:00:05.0/virtio4/net";
    let add = format!("add@{base}/eth1\0SUBSYSTEM=net\0INTERFACE=eth1\0");
    assert_eq!(told(&mut registry, add.as_bytes())[0].class, PeripheralClass::Network);
    let renamed = format!("move@{base}/lan\0SUBSYSTEM=net\0DEVPATH_OLD={base}/eth1\0INTERFACE=lan\0");
    assert!(told(&mut registry, renamed.as_bytes()).is_empty());
    let gone = format!("remove@{base}/lan\0SUBSYSTEM=net\0INTERFACE=lan\0");
    assert_eq!(told(&mut registry, gone.as_bytes())[0].interface, "lan");
}

proptest! {
    #[test]
    fn whatever_comes_is_bounded(
        parts in prop::collection::vec((0..4u8, "(usb|block|net|input|tty)", "[a-z_]{0,10}|usb_device|usb_interface|disk",
            "/devices/(pci0/usb1/1-[0-9](/1-[0-9]:1\\.0)?|virtual/net/[a-c]|x)(/input[0-9])?", "[0-9a-f/]{0,12}"), 0..200)
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut registry = Registry::new(root.path(), vec!["class:hid".parse().unwrap()]);
        let mut out = Vec::new();
        let now = Instant::now();
        for (action, subsystem, devtype, path, value) in &parts {
            let action = ["add", "remove", "move", "change"][usize::from(*action)];
            let message = format!("{action}@{path}\0SUBSYSTEM={subsystem}\0DEVTYPE={devtype}\0PRODUCT={value}\0INTERFACE={value}\0TYPE={value}\0DEVPATH_OLD={path}\0KEY={value}\0");
            registry.handle(&Uevent::parse(message.as_bytes()).unwrap(), now, Timestamp(1), &mut out);
        }
        let told = |registry: &Registry, out: &[Told]| {
            let tally = registry.tally();
            tally.news == out.len() as u64 + registry.held() + tally.superseded
        };
        prop_assert!(told(&registry, &out), "{:?}", registry.tally());
        registry.settle(now + Duration::from_secs(3), &mut out);
        prop_assert!(told(&registry, &out) && registry.held() == 0, "{:?}", registry.tally());
        prop_assert_eq!(registry.next(), None);
        let (came, went): (Vec<_>, Vec<_>) = out.iter().partition(|(_, device)| device.connected);
        prop_assert!(went.len() <= came.len());
        prop_assert!(out.iter().all(|(_, device)| device.interfaces.len() <= 256 && device.nodes.len() <= 256));
    }
}
