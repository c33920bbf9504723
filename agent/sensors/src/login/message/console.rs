//! `login` on consoles and behind telnet daemons: util-linux, shadow, BusyBox.

use super::{digits, tty_name, Found};
use crate::login::address;

const SERVICE: &str = "login";

pub(super) fn parse(message: &str) -> Option<Found<'_>> {
    if let Some(rest) = message.strip_prefix("FAILED LOGIN ") {
        return failed(rest.strip_prefix("SESSION").unwrap_or(rest));
    }
    if let Some(rest) = message.strip_prefix("TOO MANY LOGIN TRIES ") {
        return failed(rest);
    }
    if let Some(rest) = message.strip_prefix("invalid password for '") {
        return invalid_password(rest);
    }
    // BusyBox: "root login on 'ttyS0'"; shadow: "ROOT LOGIN  on '/dev/tty1'"; util-linux: "ROOT LOGIN ON tty1[ FROM host]".
    if let Some(rest) = message.strip_prefix("root login on '") {
        return Some(quoted_place(Found::success(SERVICE).user("root", true), rest));
    }
    if let Some(rest) = message.strip_prefix("ROOT LOGIN ") {
        let found = Found::success(SERVICE).user("root", true);
        return match rest.trim_start().strip_prefix("on '") {
            Some(rest) => Some(quoted_place(found, rest)),
            None => Some(plain_place(found, rest.strip_prefix("ON ")?)),
        };
    }
    if let Some(rest) = message.strip_prefix("LOGIN ON ") {
        // "LOGIN ON tty1 BY user[ FROM host]"
        let (tty, rest) = rest.split_once(" BY ")?;
        let (user, host) = match rest.rsplit_once(" FROM ") {
            Some((user, host)) => (user, Some(host)),
            None => (rest, None),
        };
        let found = Found { tty: tty_name(tty), ..Found::success(SERVICE).user(user, true) };
        return Some(Found { source: host.and_then(address::parse), ..found });
    }
    // shadow: "'user' logged in  on '/dev/tty1'"
    let (user, rest) = message.strip_prefix('\'')?.split_once("' logged in")?;
    let found = Found::success(SERVICE).user(user, true);
    Some(match rest.trim_start().strip_prefix("on '") {
        Some(rest) => quoted_place(found, rest),
        None => found,
    })
}

/// util-linux: `1 FROM host FOR user, why` and ` FROM host FOR user, why`; shadow: `(1) on 'tty'[ from 'host'] FOR 'user', why`.
/// The user comes last, so everything before it is the daemon's own text.
fn failed(rest: &str) -> Option<Found<'_>> {
    let rest = rest.trim_start();
    // A failed session has no count.
    let rest = match rest.split_once(' ') {
        Some((count, after)) if digits(count.trim_matches(['(', ')'])).is_some() => after,
        _ => rest,
    };
    let found = Found { method: Some("password"), ..Found::failure(SERVICE) };
    if let Some(rest) = rest.strip_prefix("FROM ") {
        let (host, user) = rest.split_once(" FOR ")?;
        let user = user.rsplit_once(", ").map_or(user, |(user, _)| user);
        return Some(plain_place(named(found, user), host));
    }
    let (place, user) = rest.strip_prefix("on '")?.split_once(" FOR '")?;
    let user = user.rsplit_once('\'').map_or(user, |(user, _)| user);
    Some(quoted_place(named(found, user), place))
}

/// shadow and util-linux hide names that do not exist, since people type passwords there.
fn named<'a>(found: Found<'a>, user: &'a str) -> Found<'a> {
    match user {
        "(unknown)" | "UNKNOWN" | "" => Found { user_known: Some(false), ..found },
        user => Found { user: Some(user), ..found },
    }
}

/// BusyBox: `user' on 'tty'[ from 'host']`; shadow without PAM: `user'  on '/dev/tty'[ from 'host']`. The user stands before
/// the place: from the right.
fn invalid_password(rest: &str) -> Option<Found<'_>> {
    let (user, place) = rest.rsplit_once("on '")?;
    let user = user.trim_end().strip_suffix('\'')?;
    let found = Found { method: Some("password"), ..Found::failure(SERVICE) };
    Some(quoted_place(named(found, user), place))
}

/// `tty'` or `tty' from 'host'`, to the end of the text.
fn quoted_place<'a>(found: Found<'a>, place: &'a str) -> Found<'a> {
    let Some(place) = place.strip_suffix('\'') else { return found };
    let (tty, host) = match place.rsplit_once("' from '") {
        Some((tty, host)) => (tty, Some(host)),
        None => (place, None),
    };
    if tty.contains([' ', '\'']) {
        return found;
    }
    Found { tty: tty_name(tty), source: host.and_then(address::parse), ..found }
}

/// `tty`, `host`, or `tty FROM host`.
fn plain_place<'a>(found: Found<'a>, place: &'a str) -> Found<'a> {
    let (tty, host) = match place.split_once(" FROM ") {
        Some((tty, host)) => (Some(tty), Some(host)),
        None if place.starts_with("tty") || place.starts_with("pts/") || place.starts_with("/dev/") => {
            (Some(place), None)
        }
        None => (None, Some(place)),
    };
    Found { tty: tty.and_then(tty_name), source: host.and_then(address::parse), ..found }
}
