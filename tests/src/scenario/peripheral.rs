//! Devices that are plugged into the running machine.
//!
//! The distribution's kernel for virtual machines has no USB: on it a disk, a keyboard and a network card are plugged into PCI. For USB the
//! machine is booted on the kernel for any hardware.

use std::fs::File;
use std::time::Duration;

use serde_json::Value;

use crate::device::{class, Event};
use crate::error::{Error, Result};

use super::{expect, World};

const REPORT: Duration = Duration::from_secs(20);
/// "Device that is not on the product's list connected"; the list is in `tests/image/common/etc/defender/conf.d`.
const UNLISTED: &str = "5e0c3a83-3a0e-4a6c-9d5b-0f1b6f0c7a52";
/// Serial number of the disk: as long as virtio carries, which is what an attacker may choose.
const SERIAL: &str = "STICK-4C530001220512";

pub(super) fn devices_come_and_go(world: &mut World<'_>) -> Result<()> {
    let listed = world.image.configures_network;
    let machine = world.machine()?;
    // Where no udev loads it.
    machine.run("modprobe virtio_input")?;
    let disk = machine.setup().directory.join("plugged.img");
    File::create(&disk)
        .and_then(|file| file.set_len(4 << 20))
        .map_err(Error::io(format!("cannot make {}", disk.display())))?;
    let before = machine.events("\"class_uid\":1010")?.len();
    let ports = machine.setup().image.architecture.ports();
    let port = |n: usize| ports.get(n).map(|port| format!(",bus={port}")).unwrap_or_default();
    let plug = [
        format!("drive_add 0 if=none,id=plugged,format=raw,file={}", disk.display()),
        format!("device_add virtio-blk-pci,id=plug0,drive=plugged,serial={SERIAL}{}", port(0)),
        format!("device_add virtio-keyboard-pci,id=plug1{}", port(1)),
        format!("device_add virtio-net-pci,id=plug2,mac=52:54:00:77:00:99,romfile={}", port(2)),
    ];
    for command in &plug {
        let said = machine.monitor(command)?;
        expect(said.trim().is_empty() || said.trim() == "OK", || format!("{command}: {said}"))?;
    }
    let came = |class: &'static str| move |event: &Event| is(event, class, 1);
    let disk = machine.event("the disk is told", SERIAL, REPORT, came("storage"))?;
    expect(
        disk.at("/unmapped/bus") == "pci" && disk.at("/peripheral_device/vendor_id_list/0") == "1af4",
        || format!("the disk: {}", disk.0),
    )?;
    let keyboard = machine.event("the keyboard is told", "keyboard", REPORT, came("keyboard"))?;
    expect(
        keyboard.at("/peripheral_device/model").as_str().is_some_and(|name| name.contains("Keyboard")),
        || format!("the keyboard: {}", keyboard.0),
    )?;
    let card = machine.event("the card is told", "\"network\"", REPORT, came("network"))?;
    if listed {
        for (event, allowed) in [(&disk, true), (&keyboard, false), (&card, false)] {
            expect(event.at("/unmapped/allowed") == allowed, || format!("allowed: {}", event.0))?;
        }
        let name = keyboard.at("/peripheral_device/name").as_str().unwrap_or_default().to_owned();
        machine.event("an alert for what is not on the list", UNLISTED, REPORT, |event| {
            event.class() == class::FINDING && event.0.to_string().contains(&name)
        })?;
        let alerts = machine.events(UNLISTED)?;
        expect(!alerts.iter().any(|alert| alert.0.to_string().contains(SERIAL)), || {
            "an alert for what is on the list".into()
        })?;
    }
    for id in ["plug0", "plug1", "plug2"] {
        machine.monitor(&format!("device_del {id}"))?;
    }
    let went = |class: &'static str| move |event: &Event| is(event, class, 2);
    machine.event("the disk's removal is told, with what was known", SERIAL, REPORT, went("storage"))?;
    machine.event("the keyboard's removal is told", "keyboard", REPORT, went("keyboard"))?;
    machine.event("the card's removal is told", "\"network\"", REPORT, went("network"))?;
    // One event for each that came and for each that went.
    let events = machine.events("\"class_uid\":1010")?;
    expect(events.len() == before + 6, || {
        let all: Vec<_> = events.iter().skip(before).map(|event| event.0.to_string()).collect();
        format!("{} events: {all:?}", all.len())
    })?;
    let status = machine.query("status")?;
    let modes = status["peripherals"]["modes"].to_string();
    expect(modes.contains("messages of the kernel"), || format!("status: {}", status["peripherals"]))
}

/// Of the two keyboards, which are of one vendor and product, the list has the one with this serial number.
const LISTED_KEYBOARD: &str = "PRODUCT-KEYPAD";
const OTHER_KEYBOARD: &str = "FOREIGN-KEYBOARD";
const STICK: &str = "USBSTICK-0042";

pub(super) fn usb_devices_come_and_go(world: &mut World<'_>) -> Result<()> {
    world.boot_with_usb()?;
    let machine = world.machine()?;
    machine.wait_armed()?;
    let file = machine.setup().directory.join("stick.img");
    File::create(&file)
        .and_then(|file| file.set_len(4 << 20))
        .map_err(Error::io(format!("cannot make {}", file.display())))?;
    for command in [
        format!("drive_add 0 if=none,id=stick,format=raw,file={}", file.display()),
        format!("device_add usb-storage,id=usb0,bus=usb.0,drive=stick,serial={STICK}"),
        format!("device_add usb-kbd,id=usb1,bus=usb.0,serial={LISTED_KEYBOARD}"),
        format!("device_add usb-kbd,id=usb2,bus=usb.0,serial={OTHER_KEYBOARD}"),
    ] {
        let said = machine.monitor(&command)?;
        expect(said.trim().is_empty() || said.trim() == "OK", || format!("{command}: {said}"))?;
    }
    // Vendor, product and interfaces as QEMU's devices have them: a disk by SCSI over bulk transfers, a boot keyboard.
    let devices = [
        (STICK, "storage", ("46f4", "0001"), ":080650:", true),
        (LISTED_KEYBOARD, "keyboard", ("0627", "0001"), ":030101:", true),
        (OTHER_KEYBOARD, "keyboard", ("0627", "0001"), ":030101:", false),
    ];
    let usb = |event: &Event, class: &str, activity| {
        is(event, class, activity)
            && event.at("/unmapped/bus") == "usb"
            && *event.at("/unmapped/parent") == Value::Null
    };
    for (serial, class, (vendor, product), interfaces, allowed) in devices {
        let came = machine.event("a USB device is told", serial, REPORT, |event| usb(event, class, 1))?;
        expect(
            came.at("/peripheral_device/vendor_id_list/0") == vendor
                && came.at("/unmapped/product_id") == product
                && came.at("/peripheral_device/vendor_name") == "QEMU"
                && came.at("/peripheral_device/serial_number") == serial
                && came.at("/unmapped/interfaces") == interfaces
                && came.at("/unmapped/allowed") == allowed,
            || format!("{serial}: {}", came.0),
        )?;
    }
    machine.event("the stick's disk is told as a part of it", STICK, REPORT, |event| {
        is(event, "storage", 1) && event.at("/unmapped/parent").is_string()
    })?;
    machine.event("an alert for the keyboard that is not on the list", UNLISTED, REPORT, |event| {
        event.class() == class::FINDING && event.0.to_string().contains(OTHER_KEYBOARD)
    })?;
    for id in ["usb0", "usb1", "usb2"] {
        machine.monitor(&format!("device_del {id}"))?;
    }
    for (serial, class, ..) in devices {
        machine.event("its removal is told, with what was known", serial, REPORT, |event| {
            usb(event, class, 2)
        })?;
    }
    let alerts = machine.events(UNLISTED)?;
    let listed =
        |alert: &Event| [STICK, LISTED_KEYBOARD].iter().any(|serial| alert.0.to_string().contains(serial));
    expect(!alerts.iter().any(listed), || format!("an alert for what is on the list: {alerts:?}"))
}

fn is(event: &Event, of: &str, activity: u64) -> bool {
    event.class() == class::PERIPHERAL
        && event.at("/activity_id") == activity
        && event.at("/peripheral_device/class") == of
}
