//! From an event to what it says about a program: the one place that learner and judge have in common, so that what was learned
//! never alerts.

use std::fmt::Write as _;

use defender_model::authentication::{Activity, Outcome};
use defender_model::event::{Event, EventKind};
use defender_model::file::FileChange;
use defender_model::network::{Direction, FlowChange};
use defender_model::process::{Actor, Ancestor, Change, Source};
use defender_model::text::file_name;

use super::endpoint::{is_host_name, Seen};
use super::Facet;

/// Programs that are several: the first argument says which.
const MULTI_CALL: [&str; 2] = ["busybox", "toybox"];
/// Zones of names for addresses (RFC 1035 section 3.5, RFC 3596 section 2.5): the name is the address once more.
const REVERSE: [&str; 2] = [".in-addr.arpa", ".ip6.arpa"];

/// Buffers kept from event to event.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    program: String,
    text: String,
    user: String,
}

/// What an event says.
#[derive(Debug, Default)]
pub(super) struct Observed<'e> {
    /// The program it is about; empty when that is not known.
    pub(super) program: &'e str,
    /// The program itself was started.
    pub(super) started: bool,
    pub(super) facts: [Option<Fact<'e>>; 2],
}

/// One thing it says about the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact<'e> {
    /// A name: of a user, program, domain, file, or user and service.
    Name(Facet, &'e str),
    /// Where it listens or what it connects to.
    End(Facet, Seen<'e>),
}

/// Reads an event; `None` where a profile has nothing to say.
pub(super) fn observe<'e>(event: &'e Event, scratch: &'e mut Scratch) -> Option<Observed<'e>> {
    let Scratch { program, text, user } = scratch;
    for text in [&mut *program, &mut *text, &mut *user] {
        text.clear();
    }
    let mut facts = [None, None];
    let name = |facet, name: &'e str| (!name.is_empty()).then_some(Fact::Name(facet, name));
    let mut started = false;
    let program = match &event.kind {
        EventKind::Process(activity) => {
            let process = &activity.process;
            if process.executable.is_empty() || !matches!(activity.change, Change::Exec { .. }) {
                return None;
            }
            started = true;
            // What ran already may have given up its rights, and lost its parent, long ago.
            let fresh = activity.source != Source::Snapshot;
            facts[0] = match (&process.user, process.uid) {
                _ if !fresh => None,
                (Some(known), _) => name(Facet::Users, known),
                (None, Some(uid)) => {
                    // Writing to a String cannot fail.
                    let _ = write!(user, "{uid}");
                    name(Facet::Users, user)
                }
                (None, None) => None,
            };
            let parent = process.parent.as_deref().filter(|parent| fresh && !parent.executable.is_empty());
            if let Some(parent) = parent {
                let Ancestor { executable, command_line, .. } = parent;
                facts[1] = name(Facet::Parents, called(executable, command_line.split(' '), text));
            }
            let called = called(&process.executable, process.argv.iter().map(String::as_str), program);
            match (called, process.argv.first()) {
                // It was too short-lived for its arguments to be read.
                ("", None) => return None,
                ("", Some(_)) => &process.executable,
                (called, _) => called,
            }
        }
        EventKind::Listener(socket) if socket.open => {
            let seen = Seen {
                protocol: socket.protocol,
                port: socket.local.port,
                local: socket.local.address.is_loopback(),
                address: socket.local.address,
                name: None,
            };
            facts[0] = Some(Fact::End(Facet::Listens, seen));
            by(socket.process.as_ref(), program)
        }
        // What goes on or ends has begun; who comes in is the firewall's to say.
        EventKind::Network(flow) if matches!(flow.change, FlowChange::Opened | FlowChange::Failed) => {
            let local = match flow.direction {
                Direction::Inbound | Direction::Unknown => return None,
                Direction::Local => true,
                Direction::Outbound => flow.destination.address.is_loopback(),
            };
            text.extend(
                flow.destination_name.iter().flat_map(|name| name.chars()).map(|c| c.to_ascii_lowercase()),
            );
            let seen = Seen {
                protocol: flow.protocol,
                port: flow.destination.port,
                local,
                address: flow.destination.address,
                name: Some(text.as_str()).filter(|name| !local && is_host_name(name)),
            };
            facts[0] = Some(Fact::End(Facet::Connects, seen));
            by(flow.process.as_ref(), program)
        }
        EventKind::Dns(dns) => {
            text.extend(dns.name.chars().map(|c| c.to_ascii_lowercase()));
            let asked = text.strip_suffix('.').unwrap_or(text);
            let zone = REVERSE.into_iter().find(|zone| asked.ends_with(zone)).map(|zone| &zone[1..]);
            facts[0] = name(Facet::LooksUp, zone.unwrap_or(asked));
            by(dns.process.as_ref(), program)
        }
        EventKind::File(file) => {
            let facet = if file.change == FileChange::Read { Facet::Reads } else { Facet::Writes };
            facts[0] = name(facet, &file.path);
            facts[1] = file.old_path.as_deref().and_then(|old| name(facet, old));
            by(file.process.as_ref(), program)
        }
        EventKind::Authentication(login)
            if login.outcome == Outcome::Success && login.activity != Activity::Logoff =>
        {
            let user = login.user.as_deref().unwrap_or_default();
            if user.is_empty() {
                return None;
            }
            text.push_str(user);
            text.push(' ');
            text.push_str(&login.service);
            facts[0] = name(Facet::Logins, text);
            ""
        }
        _ => return None,
    };
    Some(Observed { program, started, facts })
}

/// The program behind an event that is not its start.
fn by<'e>(process: Option<&'e Actor>, out: &'e mut String) -> &'e str {
    let Some(process) = process else { return "" };
    called(&process.executable, process.command_line.split(' '), out)
}

/// What a program is called: its path, or, of one that is several, the path and below it which one. A file has nothing below it, so
/// this is no other program's path. Empty when it cannot be told which one it is.
fn called<'e, 'a>(path: &'e str, mut argv: impl Iterator<Item = &'a str>, out: &'e mut String) -> &'e str {
    let multi_call = |file: &str| MULTI_CALL.iter().any(|name| file.starts_with(name));
    if !multi_call(file_name(path)) {
        return path;
    }
    let Some(first) = argv.next().filter(|word| !word.is_empty()) else { return "" };
    // A login shell is called `-sh`.
    let first = file_name(first.strip_prefix('-').unwrap_or(first));
    let applet = if multi_call(first) { argv.next().map(file_name).unwrap_or_default() } else { first };
    out.push_str(path);
    if !applet.is_empty() {
        out.push('/');
        out.push_str(applet);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_are_several_are_told_apart() {
        for (path, line, expected) in [
            ("/bin/busybox", "sh -c x", "/bin/busybox/sh"),
            ("/bin/busybox", "-sh", "/bin/busybox/sh"),
            ("/bin/busybox", "/usr/bin/wget http://x", "/bin/busybox/wget"),
            ("/bin/busybox", "busybox nc 192.0.2.1", "/bin/busybox/nc"),
            ("/bin/busybox.nosuid", "/bin/busybox.nosuid", "/bin/busybox.nosuid"),
            ("/bin/busybox", "", ""),
            ("/usr/bin/curl", "", "/usr/bin/curl"),
        ] {
            assert_eq!(called(path, line.split(' '), &mut String::new()), expected);
        }
    }
}
