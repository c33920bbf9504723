//! The devices there are, and what is to be told of those that come and go.
//!
//! The kernel announces one stick with a dozen messages: the device, each of its interfaces, hosts, targets, disk, partitions. What
//! belongs to a device is gathered for a moment, so that it is told once, with all that it offers. A disk and a network interface are told
//! by themselves too: they are what the device does to the system. Serial ports, sound cards, cameras, keyboards and mice of a USB
//! device are told with it.

use std::path::Path;
use std::time::{Duration, Instant};

use defender_model::peripheral::{PeripheralActivity, PeripheralClass};
use defender_model::time::Timestamp;

use super::allow::{judge, Entry};
use super::function::{of_input, Functions, Triple};
use super::sysfs::{bus, usb_device, Sysfs};
use super::uevent::Uevent;

/// A device is told when nothing new was heard of it for so long,
const SETTLE: Duration = Duration::from_millis(250);
/// and at the latest after this.
const LONGEST: Duration = Duration::from_secs(2);
/// Devices remembered at most.
const MOST: usize = 1024;
/// Bytes kept of a list of interfaces or nodes.
const LIST: usize = 256;

/// When it was seen, and what it is.
pub(super) type Told = (Timestamp, PeripheralActivity);

struct Device {
    activity: PeripheralActivity,
    functions: Functions,
    /// `DEVNUM`: another device at the same port has another.
    number: String,
    seen: Timestamp,
    /// It is told then, if nothing more is heard of it.
    due: Option<Instant>,
    latest: Instant,
    told: bool,
    /// Found by the look at everything that goes on.
    found: bool,
}

pub(super) struct Registry {
    sysfs: Sysfs,
    allow: Vec<Entry>,
    devices: Vec<Device>,
    tally: Tally,
}

/// What messages and looks at everything came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// A device came, went, or turned out to be more than it said: told when it has settled.
    pub(super) news: u64,
    /// Messages about parts, which are told with their device.
    pub(super) joined: u64,
    /// News that the end of the device came before.
    pub(super) superseded: u64,
    /// Messages about what is no device, or is known.
    pub(super) idle: u64,
    /// Devices that found no room.
    pub(super) untracked: u64,
}

impl Registry {
    pub(super) fn new(sys: &Path, allow: Vec<Entry>) -> Self {
        Self { sysfs: Sysfs::new(sys), allow, devices: Vec::new(), tally: Tally::default() }
    }

    /// Takes over what is there. Only what is not on the product's list is told of it.
    pub(super) fn baseline(&mut self, now: Instant, time: Timestamp) -> Vec<Told> {
        let mut out = Vec::new();
        self.look(now, time, &mut out);
        let mut all = Vec::new();
        for at in 0..self.devices.len() {
            self.tell(at, &mut all);
        }
        all.retain(|(_, device)| {
            device.allowed == Some(false) && device.bus == "usb" && device.parent.is_none()
        });
        self.tally = Tally { news: all.len() as u64, ..Tally::default() };
        all
    }

    /// Compares with what there is, after messages were lost. Only what that brings to light is counted.
    pub(super) fn rescan(&mut self, now: Instant, time: Timestamp, out: &mut Vec<Told>) {
        let Tally { joined, idle, .. } = self.tally;
        self.find_again(now, time, out);
        self.tally = Tally { joined, idle, ..self.tally };
    }

    fn find_again(&mut self, now: Instant, time: Timestamp, out: &mut Vec<Told>) {
        for device in &mut self.devices {
            device.found = false;
        }
        if !self.look(now, time, out) {
            // Nothing can be read there, which says nothing about the devices.
            return;
        }
        while let Some(at) = self.devices.iter().position(|device| !device.found) {
            self.forget(at, time, out);
        }
    }

    fn look(&mut self, now: Instant, time: Timestamp, out: &mut Vec<Told>) -> bool {
        let found = self.sysfs.scan();
        // Twice, since a part may stand before what it is a part of; what is known already stays as it is.
        for found in found.iter().chain(&found) {
            if let Some(event) = found.event() {
                self.handle(&event, now, time, out);
            }
        }
        !found.is_empty()
    }

    /// Takes note of one message.
    pub(super) fn handle(&mut self, event: &Uevent<'_>, now: Instant, time: Timestamp, out: &mut Vec<Told>) {
        let before = self.tally;
        self.take(event, now, time, out);
        self.tally.idle += u64::from(self.tally == before);
    }

    fn take(&mut self, event: &Uevent<'_>, now: Instant, time: Timestamp, out: &mut Vec<Told>) {
        match event.action {
            "add" => self.add(event, now, time, out),
            "remove" => {
                // What is below a device is gone with it, should a message have been lost.
                let below = |path: &str| {
                    path.strip_prefix(event.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                while let Some(at) = self.devices.iter().rposition(|device| below(&device.activity.path)) {
                    self.forget(at, time, out);
                }
            }
            "move" => {
                let Some(at) = event.value("DEVPATH_OLD").and_then(|old| self.position(old)) else { return };
                let activity = &mut self.devices[at].activity;
                event.path.clone_into(&mut activity.path);
                event.name().clone_into(&mut activity.interface);
            }
            _ => {}
        }
    }

    fn add(&mut self, event: &Uevent<'_>, now: Instant, time: Timestamp, out: &mut Vec<Told>) {
        let of_usb = usb_device(event.path).is_some();
        match (event.subsystem, event.value("DEVTYPE")) {
            ("usb", Some("usb_device")) => {
                let number = event.value("DEVNUM").unwrap_or_default();
                let known = self.position(event.path);
                if let Some(at) = known.filter(|at| self.devices[*at].number != number) {
                    self.forget(at, time, out);
                }
                let (activity, functions) = self.usb(event);
                self.appear(activity, functions, number, SETTLE, now, time);
            }
            ("usb", Some("usb_interface")) => {
                if let Some(triple) = event.value("INTERFACE").and_then(Triple::parse) {
                    let [class, subclass, protocol] = triple.0;
                    let text = format!(":{class:02x}{subclass:02x}{protocol:02x}:");
                    self.part(event.path, triple.functions(), Part::Interface(&text), now);
                }
            }
            ("block", Some("disk")) if bus(event.path) != "virtual" => {
                self.part(event.path, Functions::of(PeripheralClass::Storage), Part::Node(event.name()), now);
                let activity = self.disk(event);
                self.appear(activity, Functions::of(PeripheralClass::Storage), "", SETTLE, now, time);
            }
            ("block", Some("partition")) => {
                let disk = event.path.rsplit_once('/').and_then(|(disk, _)| self.position(disk));
                if let Some(at) = disk {
                    note(&mut self.devices[at].activity.nodes, event.name(), ' ');
                    self.devices[at].renew(now);
                    self.tally.joined += 1;
                }
            }
            ("net", _) => {
                self.part(event.path, Functions::of(PeripheralClass::Network), Part::Node(event.name()), now);
                let activity = self.card(event);
                self.appear(activity, Functions::of(PeripheralClass::Network), "", Duration::ZERO, now, time);
            }
            ("input", _) if event.name().starts_with("input") => {
                let Some(class) = of_input(event.value("KEY"), event.value("REL")) else { return };
                if of_usb {
                    self.part(event.path, Functions::of(class), Part::Telling(event.name()), now);
                } else {
                    let activity = self.input(event);
                    self.appear(activity, Functions::of(class), "", Duration::ZERO, now, time);
                }
            }
            (subsystem @ ("tty" | "sound" | "video4linux"), _) if of_usb => {
                let class = match subsystem {
                    "tty" => PeripheralClass::Serial,
                    "sound" => PeripheralClass::Audio,
                    _ => PeripheralClass::Camera,
                };
                self.part(event.path, Functions::of(class), Part::Node(event.name()), now);
            }
            _ => {}
        }
    }

    fn position(&self, path: &str) -> Option<usize> {
        self.devices.iter().position(|device| device.activity.path == path)
    }

    fn appear(
        &mut self,
        activity: PeripheralActivity,
        functions: Functions,
        number: &str,
        settle: Duration,
        now: Instant,
        seen: Timestamp,
    ) {
        if let Some(at) = self.position(&activity.path) {
            // udev asks for messages about what has long been there.
            self.devices[at].found = true;
            return;
        }
        if self.devices.len() >= MOST {
            self.tally.untracked += 1;
            return;
        }
        self.tally.news += 1;
        self.devices.push(Device {
            activity,
            functions,
            number: number.to_owned(),
            seen,
            due: Some(now + settle),
            latest: now + LONGEST,
            told: false,
            found: true,
        });
    }

    /// Something of a USB device.
    fn part(&mut self, path: &str, functions: Functions, part: Part<'_>, now: Instant) {
        let Some(at) = usb_device(path).and_then(|device| self.position(device)) else { return };
        let device = &mut self.devices[at];
        let new = device.functions.add(functions);
        match part {
            Part::Interface(text) => note(&mut device.activity.interfaces, text, ':'),
            Part::Node(name) | Part::Telling(name) => note(&mut device.activity.nodes, name, ' '),
        }
        if device.told && new && !matches!(part, Part::Node(_)) {
            // It turns out to be more than it said: that is told.
            match device.due {
                None => self.tally.news += 1,
                Some(_) => self.tally.joined += 1,
            }
            device.due = Some(now + SETTLE);
            device.latest = now + LONGEST;
        } else {
            device.renew(now);
            self.tally.joined += 1;
        }
    }

    /// Tells what has settled.
    pub(super) fn settle(&mut self, now: Instant, out: &mut Vec<Told>) {
        for at in 0..self.devices.len() {
            if self.devices[at].due.is_some_and(|due| due <= now) {
                self.tell(at, out);
            }
        }
    }

    /// When the next device is to be told.
    pub(super) fn next(&self) -> Option<Instant> {
        self.devices.iter().filter_map(|device| device.due).min()
    }

    fn tell(&mut self, at: usize, out: &mut Vec<Told>) {
        let device = &mut self.devices[at];
        device.due = None;
        device.told = true;
        device.activity.class = device.functions.first();
        device.activity.functions = device.functions.words();
        let judged =
            usb_device(&self.devices[at].activity.path).and_then(|whole| self.position(whole)).unwrap_or(at);
        let whole = &self.devices[judged];
        let allowed = if whole.activity.interface.starts_with("usb") && whole.activity.bus == "usb" {
            // The root of a bus is the kernel's own.
            None
        } else {
            judge(&self.allow, &whole.activity, whole.functions)
        };
        let device = &mut self.devices[at];
        device.activity.allowed = allowed;
        out.push((device.seen, device.activity.clone()));
    }

    fn forget(&mut self, at: usize, time: Timestamp, out: &mut Vec<Told>) {
        if !self.devices[at].told {
            self.tell(at, out);
        }
        let gone = self.devices.swap_remove(at);
        // That it was more than it said is told by its end.
        self.tally.superseded += u64::from(gone.due.is_some());
        self.tally.news += 1;
        let mut gone = gone.activity;
        gone.connected = false;
        out.push((time, gone));
    }

    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// What messages came to.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Devices that have not settled.
    pub(super) fn held(&self) -> u64 {
        self.devices.iter().filter(|device| device.due.is_some()).count() as u64
    }

    fn usb(&self, event: &Uevent<'_>) -> (PeripheralActivity, Functions) {
        let mut activity = blank(event.path);
        let mut numbers = event.value("PRODUCT").unwrap_or_default().split('/').map(hex);
        activity.vendor_id = numbers.next().flatten();
        activity.product_id = numbers.next().flatten();
        activity.vendor = self.sysfs.text(event.path, "manufacturer");
        activity.product = self.sysfs.text(event.path, "product");
        activity.serial = self.sysfs.text(event.path, "serial");
        // 0: each interface says for itself. 239: several of them belong together, and each says so too.
        let whole =
            event.value("TYPE").and_then(Triple::parse).filter(|triple| !matches!(triple.0[0], 0 | 239));
        (activity, whole.map(Triple::functions).unwrap_or_default())
    }

    fn disk(&self, event: &Uevent<'_>) -> PeripheralActivity {
        let sysfs = &self.sysfs;
        let mut activity = blank(event.path);
        if !self.inherit(&mut activity) {
            self.numbers(&mut activity);
            let either = |one: &str, other: &str| {
                sysfs.text(event.path, one).or_else(|| sysfs.text(event.path, other))
            };
            activity.vendor = sysfs.text(event.path, "device/vendor").filter(|text| !text.starts_with("0x"));
            activity.product = either("device/model", "device/name");
            activity.serial = either("serial", "device/serial");
        }
        activity
    }

    fn card(&self, event: &Uevent<'_>) -> PeripheralActivity {
        let mut activity = blank(event.path);
        if !self.inherit(&mut activity) {
            self.numbers(&mut activity);
        }
        activity
    }

    fn input(&self, event: &Uevent<'_>) -> PeripheralActivity {
        let mut activity = blank(event.path);
        let mut numbers = event.value("PRODUCT").unwrap_or_default().split('/').map(hex);
        // BUS_BLUETOOTH, linux/input.h; what BlueZ makes stands below /devices/virtual.
        if numbers.next().flatten() == Some(5) {
            "bluetooth".clone_into(&mut activity.bus);
        }
        activity.vendor_id = numbers.next().flatten();
        activity.product_id = numbers.next().flatten();
        activity.product = self.sysfs.text(event.path, "name");
        activity.serial = self.sysfs.text(event.path, "uniq");
        activity
    }

    /// Vendor and product number of the device behind it: PCI, virtio, SDIO.
    fn numbers(&self, activity: &mut PeripheralActivity) {
        let number = |name: &str| self.sysfs.text(&activity.path, name).filter(|text| text.starts_with("0x"));
        let (vendor, product) = (number("device/vendor"), number("device/device"));
        activity.vendor_id = vendor.as_deref().and_then(hex);
        activity.product_id = product.as_deref().and_then(hex);
    }

    /// A part of a USB device is called what the device is called; false where it is not a part of one.
    fn inherit(&self, activity: &mut PeripheralActivity) -> bool {
        let Some(whole) = usb_device(&activity.path) else { return false };
        activity.parent = whole.rsplit('/').next().map(str::to_owned);
        if let Some(at) = self.position(whole) {
            let whole = &self.devices[at].activity;
            activity.vendor_id = whole.vendor_id;
            activity.product_id = whole.product_id;
            activity.vendor.clone_from(&whole.vendor);
            activity.product.clone_from(&whole.product);
            activity.serial.clone_from(&whole.serial);
        }
        true
    }
}

impl Device {
    /// Something more was heard of it.
    fn renew(&mut self, now: Instant) {
        if self.due.is_some() {
            self.due = Some((now + SETTLE).min(self.latest));
        }
    }
}

/// What is heard of a USB device.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// An interface that it offers.
    Interface(&'a str),
    /// What the kernel made of one.
    Node(&'a str),
    /// The same, and nothing else tells of it.
    Telling(&'a str),
}

/// A device of which only the path is known.
pub(super) fn blank(path: &str) -> PeripheralActivity {
    PeripheralActivity {
        connected: true,
        class: PeripheralClass::Other,
        bus: bus(path).to_owned(),
        interface: path.rsplit('/').next().unwrap_or_default().to_owned(),
        path: path.to_owned(),
        vendor_id: None,
        product_id: None,
        vendor: None,
        product: None,
        serial: None,
        functions: String::new(),
        interfaces: String::new(),
        nodes: String::new(),
        parent: None,
        allowed: None,
    }
}

fn hex(text: &str) -> Option<u16> {
    u16::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// Adds a word to a list that stays short, once.
fn note(list: &mut String, word: &str, between: char) {
    let bare = word.trim_matches(between);
    if list.split(between).any(|known| known == bare) || list.len() + word.len() + 1 > LIST {
        return;
    }
    if between == ':' {
        // As udev writes them, with one on each side of all.
        if list.is_empty() {
            list.push(between);
        }
        list.push_str(bare);
        list.push(between);
        return;
    }
    if !list.is_empty() {
        list.push(between);
    }
    list.push_str(bare);
}
