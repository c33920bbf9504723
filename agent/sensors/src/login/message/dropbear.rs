//! dropbear (svr-auth.c, svr-authpasswd.c, svr-authpam.c, svr-authpubkey.c, svr-session.c), since 0.44.

use std::net::IpAddr;

use super::{digits, Found, Role};
use crate::login::address;

const SERVICE: &str = "dropbear";

/// `Child connection from 192.0.2.7:40022`: the process's first line.
pub(super) fn origin(message: &str) -> Option<(IpAddr, u16)> {
    address::with_port(message.strip_prefix("Child connection from ")?)
}

pub(super) fn parse(message: &str) -> Option<Found<'_>> {
    // Old versions began their messages with a small letter.
    let tail = |start: &str| match message.get(..start.len()) {
        Some(head) if head.eq_ignore_ascii_case(start) => Some(&message[start.len()..]),
        _ => None,
    };
    if let Some(rest) = tail("Bad password attempt for '").or_else(|| tail("Bad PAM password attempt for '"))
    {
        let (user, source) = rest.rsplit_once("' from ")?;
        return Some(from(
            Found { method: Some("password"), ..Found::failure(SERVICE).user(user, true) },
            source,
        ));
    }
    if let Some(rest) = tail("Login attempt for nonexistent user") {
        let found = Found { user_known: Some(false), ..Found::failure(SERVICE) };
        // Up to 0.52 they name the user, up to 2022.83 they name neither user nor address.
        if rest.is_empty() {
            return Some(found);
        }
        return match rest.strip_prefix(" '") {
            Some(rest) => {
                rest.rsplit_once("' from ").map(|(user, source)| from(found.user(user, false), source))
            }
            None => rest.strip_prefix(" from ").map(|source| from(found, source)),
        };
    }
    if let Some(rest) = tail("Login attempt with wrong user ") {
        return Some(match rest.rsplit_once(" from ") {
            Some((user, source)) => from(Found::failure(SERVICE).user(user, true), source),
            None => Found::failure(SERVICE).user(rest, true),
        });
    }
    if let Some(rest) =
        tail("Password auth succeeded for '").or_else(|| tail("PAM password auth succeeded for '"))
    {
        let (user, source) = rest.rsplit_once("' from ")?;
        return accepted(user, source, "password");
    }
    if let Some(rest) = tail("Auth succeeded with blank password for '") {
        let (user, source) = rest.rsplit_once("' from ")?;
        return accepted(user, source, "none");
    }
    if let Some(rest) = tail("Pubkey auth succeeded for '") {
        let (rest, source) = rest.rsplit_once(" from ")?;
        let (user, _key) = rest.split_once("' with ")?;
        return accepted(user, source, "publickey");
    }
    if let Some(rest) = tail("Exit before auth") {
        return early_exit(rest);
    }
    // "Exit (root) from <192.0.2.7:40022>: Disconnect received", before 2020.79 without the address.
    let (user, rest) = tail("Exit (")?.split_once(')')?;
    let (source, port) = exit_source(rest).unzip();
    Some(Found { source, port, ..Found::end(SERVICE).user(user, true) })
}

/// One that only got half-way (", extra auth required") is no login yet.
fn accepted<'a>(user: &'a str, source: &str, method: &'a str) -> Option<Found<'a>> {
    if source.contains(',') {
        return None;
    }
    Some(from(Found { method: Some(method), ..Found::success(SERVICE).user(user, true) }, source))
}

/// `[ from <address:port>]: (user 'x', 3 fails): why`, before 2020.79 ` (user 'x', 3 fails): why`.
fn early_exit(rest: &str) -> Option<Found<'_>> {
    let (source, port) = exit_source(rest).unzip();
    let found = Found { source, port, role: Role::Fallback, ..Found::failure(SERVICE) };
    let rest = match rest.strip_prefix(" from <") {
        Some(after) => after.split_once(">: ")?.1,
        None => rest.strip_prefix(' ').or_else(|| rest.strip_prefix(": "))?,
    };
    if let Some(rest) = rest.strip_prefix("(user '") {
        let (user, rest) = rest.split_once("', ")?;
        let fails = digits(rest.split_once(" fails)")?.0)?;
        return (fails > 0).then(|| Found { count: fails, ..found.user(user, true) });
    }
    rest.starts_with("Max auth tries reached").then_some(Found { user_known: Some(false), ..found })
}

fn exit_source(rest: &str) -> Option<(IpAddr, u16)> {
    address::with_port(rest.strip_prefix(" from <")?.split_once('>')?.0)
}

fn from<'a>(found: Found<'a>, source: &str) -> Found<'a> {
    let (source, port) = address::with_port(source).unzip();
    Found { source, port, ..found }
}
