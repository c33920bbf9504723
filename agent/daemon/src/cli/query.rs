//! Commands that ask the running agent.

use std::io::Write;
use std::net::IpAddr;

use defender_model::text::printable;
use serde_json::{json, Value};

use super::arguments::{Given, Verb};
use super::{shown, Failure, Outcome, Streams};
use crate::control;
use crate::request::{Reply, Request};

/// Events shown unless told otherwise.
const LIMIT: usize = 100;

pub(super) fn ask(verb: Verb, given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let request = request(verb, given)?;
    request.check().map_err(Failure::usage)?;
    let reply =
        control::ask(&super::socket(given), &request).map_err(|error| Failure::failed(error.to_string()))?;
    let out = &mut *streams.output;
    match reply {
        Reply::Status(report) => {
            if given.json {
                print(out, &json!(report))?;
            } else {
                shown::status(out, &report)?;
            }
            Ok(if report.armed { Outcome::Fine } else { Outcome::No })
        }
        Reply::Events { lines } => {
            for line in lines {
                if given.json {
                    writeln!(out, "{line}")?;
                } else {
                    shown::event(out, &line, streams.colour)?;
                }
            }
            Ok(Outcome::Fine)
        }
        Reply::Blocked { addresses } => {
            if given.json {
                print(out, &json!(addresses))?;
            } else {
                shown::blocked(out, &addresses)?;
            }
            Ok(Outcome::Fine)
        }
        Reply::Done { changed } => done(&request, changed, given, streams),
        Reply::Refused { error } => Err(Failure { outcome: Outcome::No, words: error }),
        Reply::Failed { error } => Err(Failure::failed(error)),
    }
}

fn request(verb: Verb, given: &Given) -> Result<Request, Failure> {
    let limit = given.limit.unwrap_or(LIMIT);
    Ok(match verb {
        Verb::Alerts => Request::Alerts { limit },
        Verb::Events => Request::Events { limit },
        Verb::Block => {
            Request::Block { address: address(given)?, seconds: given.seconds, reason: reason(given) }
        }
        Verb::Unblock => Request::Unblock { address: address(given)? },
        Verb::Blocked => Request::Blocked,
        Verb::Isolate => Request::Isolate { seconds: given.seconds, reason: reason(given) },
        Verb::IsolateOff => Request::EndIsolation,
        Verb::BaselineAccept => Request::AcceptBaseline { next_start: false },
        Verb::BaselineAcceptNext => Request::AcceptBaseline { next_start: true },
        _ => Request::Status,
    })
}

fn reason(given: &Given) -> String {
    match given.reason.as_str() {
        "" => "operator".to_owned(),
        reason => reason.to_owned(),
    }
}

fn address(given: &Given) -> Result<IpAddr, Failure> {
    let word = given.arguments.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    word.parse().map_err(|_| {
        Failure::usage(format!(
            "`{word}` is not an IPv4 or IPv6 address (one address, without a prefix length)"
        ))
    })
}

fn done(
    request: &Request,
    changed: bool,
    given: &Given,
    streams: &mut Streams<'_>,
) -> Result<Outcome, Failure> {
    let (words, outcome) = match request {
        Request::Unblock { address } if changed => (format!("{address} is no longer blocked"), Outcome::Fine),
        Request::Unblock { address } => (format!("{address} was not blocked"), Outcome::No),
        Request::Block { address, .. } => (format!("{address} is blocked"), Outcome::Fine),
        Request::Isolate { .. } => ("the device is isolated".to_owned(), Outcome::Fine),
        Request::EndIsolation if changed => ("the device is no longer isolated".to_owned(), Outcome::Fine),
        Request::EndIsolation => ("the device was not isolated".to_owned(), Outcome::No),
        Request::AcceptBaseline { next_start: true } => {
            ("the next start takes over the files that it finds".to_owned(), Outcome::Fine)
        }
        Request::AcceptBaseline { .. } => {
            ("the files are being taken over; an event tells when that is done".to_owned(), Outcome::Fine)
        }
        _ => ("done".to_owned(), Outcome::Fine),
    };
    if given.json {
        print(streams.output, &json!({ "changed": changed }))?;
    } else {
        writeln!(streams.output, "{}", printable(&words))?;
    }
    Ok(outcome)
}

/// One line of JSON.
pub(super) fn print(out: &mut dyn Write, value: &Value) -> std::io::Result<()> {
    writeln!(out, "{value}")
}
