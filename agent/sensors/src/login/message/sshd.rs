//! OpenSSH's sshd (auth.c, auth-pam.c, packet.c), all versions since 5.

use super::{Found, Role};
use crate::login::address;

const SERVICE: &str = "sshd";

pub(super) fn parse(message: &str) -> Option<Found<'_>> {
    // Lines of the unprivileged child pass through the monitor, which says so at the end.
    let (message, preauth) = match message.strip_suffix(" [preauth]") {
        Some(rest) => (rest, true),
        None => (message, false),
    };
    if let Some(rest) = message.strip_prefix("Failed ") {
        return attempt(rest, Found::failure(SERVICE));
    }
    if let Some(rest) = message.strip_prefix("Accepted ") {
        return attempt(rest, Found::success(SERVICE));
    }
    if let Some(rest) = message.strip_prefix("error: ") {
        if let Some(rest) = rest.strip_prefix("PAM: ") {
            return pam_error(rest);
        }
        if !preauth {
            return None;
        }
        let rest = rest.strip_prefix("maximum authentication attempts exceeded for ")?;
        let (rest, known) = known(rest, "invalid user ");
        return Some(place(
            Found { role: Role::Fallback, ..Found::failure(SERVICE) },
            known,
            endpoint(rest)?,
        ));
    }
    if let Some(rest) = message.strip_prefix("Disconnecting ") {
        // Other reasons than this one quote text of the client.
        return closing(rest.strip_suffix(": Too many authentication failures")?, preauth);
    }
    let closed = ["Connection closed by ", "Connection reset by ", "Disconnected from "];
    closed.into_iter().find_map(|prefix| message.strip_prefix(prefix)).and_then(|rest| closing(rest, preauth))
}

/// `<method>[/<submethod>] for [invalid user ]<user> from <address> port <port> ssh2[: <what>]` (auth.c, `auth_log`).
fn attempt<'a>(rest: &'a str, found: Found<'a>) -> Option<Found<'a>> {
    let (method, rest) = rest.split_once(' ')?;
    let rest = rest.strip_prefix("for ")?;
    let failed = found.user_known.is_none();
    let (rest, known) = known(rest, "invalid user ");
    let role = match method {
        _ if !failed => Role::Counted,
        "none" => return None,
        // `error: PAM:` has been counted. Of users that do not exist this line is the one.
        "keyboard-interactive/pam" if known => return None,
        "publickey" => Role::Fallback,
        _ => Role::Counted,
    };
    let found = Found { method: Some(method), role, ..found };
    if let Some(end) = endpoint(rest) {
        return Some(place(found, known, end));
    }
    // Only these methods say more after "ssh2": the key, the certificate, the client's host and user.
    if !matches!(method, "publickey" | "hostbased" | "gssapi-with-mic" | "gssapi-keyex") {
        return None;
    }
    match rest.rsplit_once(": ") {
        Some((before, key)) if is_key(key) => endpoint(before).map(|end| place(found, known, end)),
        _ => quoting(found, known, rest),
    }
}

/// The line quotes client's text on both sides of the address: a certificate's id, or a host-based client's names. The address is
/// certain only if there is one place it can be, and if the line is seen to have its end.
fn quoting<'a>(found: Found<'a>, known: bool, rest: &'a str) -> Option<Found<'a>> {
    let certificate = rest.rsplit_once(" CA ").is_some_and(|(_, key)| is_key(key));
    let host_based = rest.contains(", client host \"") && rest.ends_with('"');
    if !certificate && !host_based {
        return None;
    }
    let mut ends = rest.match_indices(" ssh2: ").filter_map(|(at, sign)| {
        let mut words = rest[at + sign.len()..].splitn(3, [' ', ',']);
        let key =
            words.next().zip(words.next()).is_some_and(|(kind, print)| is_kind(kind) && is_print(print));
        endpoint(&rest[..at + " ssh2".len()]).filter(|_| key)
    });
    Some(match (ends.next(), ends.next()) {
        (Some(end), None) => place(found, known, end),
        _ => Found { user_known: Some(known), ..found },
    })
}

/// `RSA SHA256:...`: nothing of the client's choosing, and of one length.
fn is_key(text: &str) -> bool {
    text.split_once(' ').is_some_and(|(kind, print)| is_kind(kind) && is_print(print))
}

/// `RSA`, `ED25519-CERT` (sshkey.c, `sshkey_type`).
fn is_kind(text: &str) -> bool {
    (3..=24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// SHA-256 in base64 without padding, MD5 in hexadecimal with colons, before OpenSSH 6.8 without the name in front.
fn is_print(text: &str) -> bool {
    if let Some(hash) = text.strip_prefix("SHA256:") {
        return hash.len() == 43
            && hash.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    }
    let hash = text.strip_prefix("MD5:").unwrap_or(text);
    hash.len() == 47 && hash.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

/// `<what> for [illegal user ]<user> from <host>` (auth-pam.c). PAM's text comes from its library and is one of a few.
fn pam_error(rest: &str) -> Option<Found<'_>> {
    const TEXTS: [&str; 6] = [
        "Authentication failure for ",
        "User not known to the underlying authentication module for ",
        "Permission denied for ",
        "Authentication service cannot retrieve authentication info for ",
        "Have exhausted maximum number of retries for service for ",
        "Insufficient credentials to access authentication data for ",
    ];
    let rest = TEXTS.into_iter().find_map(|text| rest.strip_prefix(text))?;
    let (rest, known) = known(rest, "illegal user ");
    if !known {
        return None;
    }
    let (user, host) = rest.rsplit_once(" from ")?;
    let found = Found { method: Some("keyboard-interactive/pam"), ..Found::failure(SERVICE) };
    Some(Found { source: address::parse(host), ..found.user(user, true) })
}

/// `authenticating user <user> <address> port <port>` and the like (packet.c, `sshpkt_fmt_connection_id`).
fn closing(rest: &str, preauth: bool) -> Option<Found<'_>> {
    let (rest, found, known) = if let Some(rest) = rest.strip_prefix("user ") {
        if preauth {
            return None;
        }
        (rest, Found::end(SERVICE), true)
    } else {
        // Without one of these no user was named: a scan, not an attempt.
        if !preauth {
            return None;
        }
        let (rest, known) = match rest.strip_prefix("authenticating user ") {
            Some(rest) => (rest, true),
            None => (rest.strip_prefix("invalid user ")?, false),
        };
        (rest, Found { role: Role::Fallback, ..Found::failure(SERVICE) }, known)
    };
    let (rest, port) = rest.rsplit_once(" port ")?;
    let (user, host) = rest.rsplit_once(' ')?;
    Some(place(found, known, (user, host, address::port(port)?)))
}

/// Takes the words off that sshd puts before a user that does not exist or may not log in.
fn known<'a>(rest: &'a str, unknown: &str) -> (&'a str, bool) {
    match rest.strip_prefix(unknown) {
        Some(rest) => (rest, false),
        None => (rest, true),
    }
}

/// `<user> from <address> port <port> ssh2`, taken from the right.
fn endpoint(rest: &str) -> Option<(&str, &str, u16)> {
    let (rest, port) = rest.strip_suffix(" ssh2")?.rsplit_once(" port ")?;
    let (user, host) = rest.rsplit_once(" from ")?;
    if host.contains(' ') {
        return None;
    }
    Some((user, host, address::port(port)?))
}

fn place<'a>(found: Found<'a>, known: bool, (user, host, port): (&'a str, &str, u16)) -> Found<'a> {
    Found { source: address::parse(host), port: Some(port), ..found.user(user, known) }
}
