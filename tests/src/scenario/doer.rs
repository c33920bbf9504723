//! Who did it, and what became of accounts and interfaces: what takes a real kernel with audit, modules and a file system of accounts.

use std::time::Duration;

use crate::device::{class, Event};
use crate::error::Result;
use crate::image::Flavour;

use super::{expect, World};

const REPORT: Duration = Duration::from_secs(20);
/// Until a directory that is new is watched, on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(40);
/// "Kernel module from a writable place loaded".
const WRITABLE_PLACE: &str = "c7fa1fca-6b01-4bde-8d3c-cc8948c8e0c2";
/// "Account with the rights of root".
const SECOND_ROOT: &str = "0b3f6c52-6d0a-4a0e-9f57-3b7d1c2e8a41";

fn by(event: &Event) -> &str {
    event.at("/actor/process/cmd_line").as_str().unwrap_or_default()
}

pub(super) fn deeds_have_a_doer(world: &mut World<'_>) -> Result<()> {
    let machine = world.machine()?;
    // A file: nothing but the system call says who wrote it.
    machine.ok("mkdir -p /var/spool/cron")?;
    let written = machine.wait("a change of a file with who made it", PATIENCE, |machine| {
        // The directory is new: the rule about it comes with the next look.
        machine.ok("sh -c 'echo \"0 0 * * * true\" >>/var/spool/cron/probe; :'")?;
        let told = machine.events("/var/spool/cron/probe")?.into_iter().find(|event| {
            event.class() == class::FILE
                && event.at("/file/path") == "/var/spool/cron/probe"
                && by(event).contains("/var/spool/cron/probe")
        });
        Ok(told.ok_or_else(|| "no process".to_owned()))
    })?;
    expect(written.at("/actor/process/user/uid") == "0", || format!("who wrote: {}", written.0))?;
    machine.ok("rm /var/spool/cron/probe")?;

    // A module, from where none should be: signed as the kernel wants it, so it is taken. BusyBox's shell would do it within its own
    // process, where no arguments are seen.
    machine.ok(
        "modprobe inet_diag; rmmod raw_diag 2>/dev/null; cp $(find /lib/modules/ -name raw_diag.ko) /tmp/ && cd /tmp && \
         busybox insmod ./raw_diag.ko",
    )?;
    let loaded = machine.event("the module is told", "raw_diag", REPORT, |event| {
        event.class() == class::KERNEL_EXTENSION && event.at("/driver/file/path") == "/tmp/raw_diag.ko"
    })?;
    expect(by(&loaded).contains("insmod"), || format!("who loaded: {}", loaded.0))?;
    machine
        .event("an alert for its place", WRITABLE_PLACE, REPORT, |event| event.class() == class::FINDING)?;
    machine.ok("rm /tmp/raw_diag.ko; busybox rmmod raw_diag")?;
    let removed = machine.event("its removal is told", "raw_diag", REPORT, |event| {
        event.class() == class::KERNEL_EXTENSION && event.at("/activity_id") == 2
    })?;
    expect(by(&removed).contains("rmmod"), || format!("who removed: {}", removed.0))?;

    // Accounts: the root is read-only, so another file is put over the one there is.
    machine.ok(
        "cp /etc/passwd /run/passwd && echo 'toor:x:0:0::/root:/bin/sh' >>/run/passwd && mount --bind /run/passwd /etc/passwd",
    )?;
    let user = |activity: u64| {
        move |event: &Event| {
            event.class() == class::ACCOUNT
                && event.at("/user/name") == "toor"
                && event.at("/activity_id") == activity
        }
    };
    machine.event("the user is told", "toor", REPORT, user(1))?;
    machine
        .event("an alert for a second root", SECOND_ROOT, REPORT, |event| event.class() == class::FINDING)?;
    machine.ok("umount /etc/passwd && rm /run/passwd")?;
    machine.event("the user's end is told", "toor", REPORT, user(6))?;
    if machine.flavour() == Flavour::Systemd {
        // shadow's programs tell audit what they do: one event has what the files show and who did it.
        machine.ok("cp -a /etc /run/etc && mount --bind /run/etc /etc")?;
        let made = machine.ok("useradd eve");
        let told = made.and_then(|_| {
            machine.event("the user is told with who made it", "\"eve\"", REPORT, |event| {
                event.class() == class::ACCOUNT && event.at("/activity_id") == 1 && by(event) == "useradd eve"
            })
        });
        machine.ok("umount -l /etc && rm -r /run/etc")?;
        told?;
        machine.event("it is gone", "\"eve\"", REPORT, |event| {
            event.class() == class::ACCOUNT && event.at("/activity_id") == 6
        })?;
        let created = machine.events("\"eve\"")?;
        let created = created.iter().filter(|event| {
            event.class() == class::ACCOUNT
                && event.at("/user/name") == "eve"
                && event.at("/activity_id") != 6
        });
        expect(created.count() == 1, || "one deed is several events".into())?;
    }

    // The inventory: told at start, and an address that appears.
    let inventory = machine.events("\"class_uid\":5001")?;
    expect(inventory.iter().any(|event| event.at("/device/os/kernel_release").is_string()), || {
        "no inventory of the device".into()
    })?;
    let packages = machine.events("\"class_uid\":5020")?;
    expect(!packages.is_empty(), || "no inventory of its software".into())?;
    machine.ok("ip addr add 192.0.2.77/32 dev eth0")?;
    machine.event("the address is told", "192.0.2.77 added", REPORT, |event| {
        event.class() == class::DEVICE_INVENTORY
    })?;
    machine.ok("ip addr del 192.0.2.77/32 dev eth0").map(drop)
}
