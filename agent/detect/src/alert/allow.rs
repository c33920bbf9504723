//! Lists of what is allowed: the rule holds for whatever is not on the list.

use std::net::IpAddr;
use std::str::FromStr;

use defender_model::file::Sha256;

use super::compile::{ask, literal, one_of};
use super::{AlertError, Program, MAX_ENTRIES};
use crate::error::Cause;
use crate::expression::Expr;
use crate::field::Class;
use crate::predicate::{Comparison, Network, Number, Place, RegexFlags, Test};
use crate::profile::endpoint;
use crate::regular::MAX_EXPRESSION;
use crate::sigma::modifier::escape_regex;

/// Whoever logs in, or becomes somebody else, and is not one of these.
pub(super) fn users(users: &[String]) -> Result<Expr, AlertError> {
    const CLASS: Class = Class::Authentication;
    let key = "allow_users";
    bounded(key, users.len())?;
    let mut allowed = Vec::new();
    for user in users {
        if user.trim().is_empty() {
            return Err(AlertError::new(key, "a user without a name"));
        }
        // Account names of Linux are told apart by case.
        allowed.push(
            ask(CLASS, "TargetUserName", literal(Place::Whole, user, true)).map_err(AlertError::at(key))?,
        );
    }
    let when = || {
        Ok(vec![
            one_of(CLASS, "outcome", &["success"])?,
            one_of(CLASS, "activity", &["logon", "account_switch"])?,
        ])
    };
    Ok(unless(when().map_err(AlertError::at(key))?, allowed))
}

/// Whatever is run and is none of these.
pub(super) fn programs(programs: &[Program]) -> Result<Expr, AlertError> {
    let key = "allow_processes";
    bounded(key, programs.len())?;
    let paths = paths(Class::ProcessCreation, "Image", programs).map_err(AlertError::at(key))?;
    // A source that cannot tell the path says nothing about the list.
    let known = ask(Class::ProcessCreation, "Image", Test::Exists).map_err(AlertError::at(key))?;
    Ok(unless(vec![known], paths))
}

/// Content written to where an allowed program lies that is none of its contents; `None` when every program may be anything.
pub(super) fn contents(programs: &[Program]) -> Result<Option<Expr>, AlertError> {
    const CLASS: Class = Class::FileEvent;
    let key = "allow_processes";
    let mut wrong = Vec::new();
    for program in programs.iter().filter(|program| !program.sha256.is_empty()) {
        let mut digests = Vec::new();
        for text in &program.sha256 {
            let digest = Sha256::from_str(text).map_err(|error| {
                AlertError::new(key, format!("`{}` of `{}`: {error}", text, program.path))
            })?;
            digests.push(
                ask(CLASS, "sha256", literal(Place::Whole, &digest.to_string(), false))
                    .map_err(AlertError::at(key))?,
            );
        }
        let path =
            paths(CLASS, "TargetFilename", std::slice::from_ref(program)).map_err(AlertError::at(key))?;
        wrong.push(unless(path, digests));
    }
    if wrong.is_empty() {
        return Ok(None);
    }
    let known = ask(CLASS, "sha256", Test::Exists).map_err(AlertError::at(key))?;
    Ok(Some(Expr::all(vec![known, Expr::any(wrong)])))
}

/// Whatever the device connects to, or tries to, and is none of these.
pub(super) fn outbound(peers: &[String]) -> Result<Expr, AlertError> {
    connections("allow_outbound", "outbound", peers, "DestinationIp", true)
}

/// Whoever connects to the device and is none of these. The port is the device's own.
pub(super) fn inbound(peers: &[String]) -> Result<Expr, AlertError> {
    connections("allow_inbound", "inbound", peers, "SourceIp", false)
}

fn connections(
    key: &'static str,
    direction: &str,
    peers: &[String],
    address: &str,
    by_name: bool,
) -> Result<Expr, AlertError> {
    const CLASS: Class = Class::NetworkFlow;
    bounded(key, peers.len())?;
    let mut allowed = Vec::new();
    for text in peers {
        let peer = peer(text, address, by_name);
        allowed.push(peer.map_err(|why| AlertError::new(key, format!("`{text}`: {why}")))?);
    }
    let when = || {
        Ok(vec![one_of(CLASS, "direction", &[direction])?, one_of(CLASS, "activity", &["opened", "failed"])?])
    };
    Ok(unless(when().map_err(AlertError::at(key))?, allowed))
}

/// `PROTOCOL HOST PORT`, the port left out for any. The words are those of profiles, with `any` for a protocol too.
fn peer(text: &str, address: &str, by_name: bool) -> Result<Expr, String> {
    const CLASS: Class = Class::NetworkFlow;
    let wanted = "write `PROTOCOL HOST` or `PROTOCOL HOST PORT`, such as `tcp 192.0.2.0/24 443`";
    let words: Vec<&str> = text.split_whitespace().collect();
    let (protocol, host, ports) = match words.as_slice() {
        [protocol, host] => (*protocol, *host, None),
        [protocol, host, ports] => (*protocol, *host, Some(*ports)),
        _ => return Err(wanted.to_owned()),
    };
    let told = |cause: Cause| cause.detail().to_owned();
    let mut parts = Vec::new();
    if protocol != "any" {
        let protocol = endpoint::protocol(Some(protocol))?.to_string();
        parts.push(one_of(CLASS, "Protocol", &[&protocol]).map_err(told)?);
    }
    if let Some(ports) = ports.filter(|ports| *ports != "any") {
        let (first, last) = endpoint::ports(ports)?;
        let bound = |comparison, port: u16| {
            let bound = Number::Whole(port.into());
            ask(CLASS, "DestinationPort", Test::Number { comparison, bound }).map_err(told)
        };
        if first == last {
            parts.push(bound(Comparison::Eq, first)?);
        } else {
            parts.push(bound(Comparison::Gte, first)?);
            parts.push(bound(Comparison::Lte, last)?);
        }
    }
    let is_network = host.contains('/') || host.parse::<IpAddr>().is_ok();
    if is_network {
        let network = Network::parse(host).map_err(told)?;
        parts.push(ask(CLASS, address, Test::Cidr(network)).map_err(told)?);
    } else if host != "any" {
        if !by_name {
            return Err(format!("`{host}` is no address or network: who comes to the device has no name"));
        }
        if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(format!("`{host}` is no address"));
        }
        parts.push(ask(CLASS, "DestinationHostname", name(host)?).map_err(told)?);
    }
    Ok(Expr::all(parts))
}

/// Names that are looked up and are none of these.
pub(super) fn names(names: &[String]) -> Result<Expr, AlertError> {
    let key = "allow_dns";
    bounded(key, names.len())?;
    let mut allowed = Vec::new();
    for text in names {
        let test = name(text).map_err(|why| AlertError::new(key, why))?;
        allowed.push(ask(Class::DnsQuery, "QueryName", test).map_err(AlertError::at(key))?);
    }
    let known = ask(Class::DnsQuery, "QueryName", Test::Exists).map_err(AlertError::at(key))?;
    Ok(unless(vec![known], allowed))
}

/// A name, or with `*.` in front whatever lies below it.
fn name(text: &str) -> Result<Test, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let (place, name) = match name.strip_prefix('*') {
        Some(below) if below.starts_with('.') => (Place::End, below),
        _ => (Place::Whole, name),
    };
    let labels = name.strip_prefix('.').filter(|_| place == Place::End).unwrap_or(name);
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if labels.len() > 253 || !labels.split('.').all(good) {
        return Err(format!(
            "`{text}` is no name such as `time.example.com` or `*.example.com`; international names are written as `xn--...`"
        ));
    }
    Ok(literal(place, name, false))
}

/// Whether a field is a path of one of the programs.
fn paths(class: Class, field: &str, programs: &[Program]) -> Result<Vec<Expr>, Cause> {
    let mut out = Vec::new();
    // Many expressions joined to few: each is a pass of its own over the path.
    let mut joined = String::new();
    for Program { path, .. } in programs {
        if !path.starts_with('/') {
            return Err(Cause::Alert(format!("`{path}` is no absolute path")));
        }
        match path.strip_suffix("/**") {
            _ if !path.contains(['*', '?']) => {
                out.push(ask(class, field, literal(Place::Whole, path, true))?);
            }
            Some(directory) if !directory.contains(['*', '?']) => {
                out.push(ask(class, field, literal(Place::Start, &path[..=directory.len()], true))?);
            }
            _ => {
                let expression = glob(path);
                if expression.len() + 8 > MAX_EXPRESSION {
                    return Err(Cause::TooLarge(format!("`{path}` is too long for a path with wildcards")));
                }
                if joined.len() + expression.len() + 8 > MAX_EXPRESSION / 4 && !joined.is_empty() {
                    out.push(ask(class, field, anchored(&joined))?);
                    joined.clear();
                }
                if !joined.is_empty() {
                    joined.push('|');
                }
                joined.push_str(&expression);
            }
        }
    }
    if !joined.is_empty() {
        out.push(ask(class, field, anchored(&joined))?);
    }
    Ok(out)
}

fn anchored(alternatives: &str) -> Test {
    let flags = RegexFlags { dot_all: true, ..RegexFlags::default() };
    Test::Regex { expression: format!(r"\A(?:{alternatives})\z"), flags }
}

/// A path with wildcards as a regular expression: `*` and `?` stay within a directory, `**` does not.
fn glob(path: &str) -> String {
    let mut out = String::with_capacity(path.len() * 2);
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("**") {
            out.push_str(".*");
            2
        } else if c == '*' {
            out.push_str("[^/]*");
            1
        } else if c == '?' {
            out.push_str("[^/]");
            1
        } else {
            out.push_str(&escape_regex(&rest[..c.len_utf8()]));
            c.len_utf8()
        };
        rest = &rest[taken..];
    }
    out
}

fn bounded(key: &'static str, entries: usize) -> Result<(), AlertError> {
    if entries > MAX_ENTRIES {
        let cause = Cause::TooLarge(format!("{entries} entries; a list has at most {MAX_ENTRIES}"));
        return Err(AlertError { key, cause });
    }
    Ok(())
}

/// All of `when` and none of `allowed`.
fn unless(mut when: Vec<Expr>, allowed: Vec<Expr>) -> Expr {
    if !allowed.is_empty() {
        when.push(Expr::any(allowed).not());
    }
    Expr::all(when)
}
