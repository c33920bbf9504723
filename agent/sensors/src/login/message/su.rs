//! `su`: util-linux, shadow, BusyBox.

use defender_model::authentication::{Activity, Outcome};

use super::{tty_name, Found, Role};

const SERVICE: &str = "su";

pub(super) fn parse(message: &str) -> Option<Found<'_>> {
    // util-linux: "(to root) alice on pts/0", "FAILED SU (to root) alice on pts/0"
    let (rest, outcome) = match message.strip_prefix("FAILED SU ") {
        Some(rest) => (rest, Outcome::Failure),
        None => (message, Outcome::Success),
    };
    if let Some(rest) = rest.strip_prefix("(to ") {
        let (rest, tty) = rest.rsplit_once(" on ")?;
        let (target, _by) = rest.rsplit_once(") ")?;
        return Some(switch(outcome, target, Some(tty)));
    }
    // shadow: "Successful su for root by alice", "FAILED su for root by alice"
    for (prefix, outcome) in [("Successful su for ", Outcome::Success), ("FAILED su for ", Outcome::Failure)]
    {
        if let Some(rest) = message.strip_prefix(prefix) {
            let (target, _by) = rest.rsplit_once(" by ")?;
            return Some(switch(outcome, target, None));
        }
    }
    // BusyBox, and shadow after the line above: "+ /dev/pts/0 alice:root", "- /dev/pts/0 alice:root"
    let (sign, rest) = message.split_once(' ')?;
    let outcome = match sign {
        "+" => Outcome::Success,
        "-" => Outcome::Failure,
        _ => return None,
    };
    let (tty, users) = rest.split_once(' ')?;
    let (_by, target) = users.split_once(':')?;
    Some(Found { role: Role::Fallback, ..switch(outcome, target, Some(tty)) })
}

fn switch<'a>(outcome: Outcome, target: &'a str, tty: Option<&'a str>) -> Found<'a> {
    Found {
        user: Some(target),
        // Root switches without one.
        method: (outcome == Outcome::Failure).then_some("password"),
        tty: tty.and_then(tty_name),
        ..Found::new(SERVICE, Activity::AccountSwitch, outcome)
    }
}
