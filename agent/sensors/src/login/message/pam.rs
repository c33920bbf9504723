//! Linux-PAM's pam_unix, for services whose own lines are not read (support.c, pam_unix_sess.c).

use defender_model::authentication::{Activity, Outcome};

use super::{digits, tty_name, Found};
use crate::login::address;

/// Services that have their own lines, or whose sessions are no logins.
const ELSEWHERE: [&str; 11] =
    ["sshd", "dropbear", "login", "remote", "su", "su-l", "cron", "crond", "atd", "systemd-user", "runuser"];

/// A line of a service that has no parser of its own.
pub(super) fn parse(message: &str) -> Option<Found<'_>> {
    let (service, kind, text) = prefix(message)?;
    if ELSEWHERE.contains(&service) {
        return None;
    }
    match kind {
        "auth" => failure(service, text),
        "session" if service == "sudo" => {
            let user = opened(text)?;
            Some(Found::new("sudo", Activity::AccountSwitch, Outcome::Success).user(user, true))
        }
        _ => None,
    }
}

/// `session closed for user x` of `service`, whose other lines of PAM do not count.
pub(super) fn session_end<'a>(service: &'a str, message: &'a str) -> Option<Found<'a>> {
    let (_, kind, text) = prefix(message)?;
    let user = text.strip_prefix("session closed for user ")?;
    (kind == "session").then(|| Found::end(service).user(user, true))
}

/// `pam_unix(service:kind): text`.
fn prefix(message: &str) -> Option<(&str, &str, &str)> {
    let (head, text) = message.strip_prefix("pam_unix(")?.split_once("): ")?;
    let (service, kind) = head.split_once(':')?;
    Some((service, kind, text))
}

/// `session opened for user x(uid=0) by y(uid=1000)`; before Linux-PAM 1.4 without the first uid.
fn opened(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("session opened for user ")?;
    let (user, _by) = rest.split_once(" by ")?;
    Some(user.split_once("(uid=").map_or(user, |(user, _)| user))
}

/// `authentication failure; logname=a uid=0 euid=0 tty=b ruser=c rhost=d[  user=e]`, and `2 more authentication failures; ...` for
/// those after the first that the module did not log one by one. `ruser` and `user` may be the client's text.
fn failure<'a>(service: &'a str, text: &'a str) -> Option<Found<'a>> {
    let (what, fields) = text.split_once("; logname=")?;
    let count = match what.split_once(' ') {
        Some(("authentication", "failure")) => 1,
        Some((count, "more authentication failure" | "more authentication failures")) => digits(count)?,
        _ => return None,
    };
    let (_, rest) = fields.split_once(" tty=")?;
    let (tty, rest) = rest.split_once(" ruser=")?;
    // Twice means that a name says it too: then the place of the address is not certain.
    let mut hosts = rest.match_indices(" rhost=").map(|(at, found)| &rest[at + found.len()..]);
    let after = hosts.next()?;
    let ambiguous = hosts.next().is_some();
    let (host, user) = match after.split_once("  user=") {
        Some((host, user)) => (host, Some(user)),
        None => (after, None),
    };
    let host = host.trim_end();
    let activity = if service == "sudo" { Activity::AccountSwitch } else { Activity::Logon };
    Some(Found {
        user,
        method: Some("password"),
        source: if ambiguous { None } else { address::parse(host) },
        tty: tty_name(tty),
        count,
        ..Found::new(service, activity, Outcome::Failure)
    })
}
