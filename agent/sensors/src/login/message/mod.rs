//! What a service says of a login, as an event: a pure function of the service's name and its message.
//!
//! # One failed attempt counts once
//!
//! Several lines speak of most attempts. For each service one line is *the* line; the others are known and left out, or step
//! in only when the process has not been counted yet ([`Role::Fallback`], decided by [`super::attempt`]).
//!
//! | Service | Counted | Steps in | Left out |
//! |---|---|---|---|
//! | sshd | `Failed <method> for`, except as at the right; `error: PAM: ... for` of an existing user (the only line for the first keyboard-interactive failures) | `Failed publickey for` (a client tries all its keys in one attempt), `maximum authentication attempts exceeded`, `Connection closed/reset by`, `Disconnected from`, `Disconnecting` an authenticating or invalid user | `Invalid user`, `Failed none` (how clients ask for the methods), `Failed keyboard-interactive/pam` of an existing user, `error: PAM:` of one that does not exist, every `pam_unix(sshd:...)`, `User ... not allowed` |
//! | dropbear | `Bad password attempt`, `Bad PAM password attempt`, `Login attempt for nonexistent user` (once a connection: dropbear says no more; up to 2022.83 without an address, which then is the process's `Child connection from`), `Login attempt with wrong user` | `Exit before auth ... (user 'x', N fails)` with N > 0, counted N times, and `Max auth tries reached` | `root login rejected`, `has invalid shell`, `pam_unix(dropbear:...)` |
//! | login | util-linux and shadow: `FAILED LOGIN`, `FAILED LOGIN SESSION`, `TOO MANY LOGIN TRIES`; BusyBox: `invalid password for` (old versions write it at every third failure only) | – | `pam_unix(login:auth)`, `pam_unix(remote:auth)` |
//! | su | util-linux `FAILED SU (to x)`, shadow `FAILED su for` | `- tty old:new`, BusyBox's only line and shadow's second one | `pam_unix(su:auth)` |
//! | any other service with PAM | `pam_unix(service:auth): authentication failure` and `N more authentication failures` | – | its own lines |
//!
//! Successes and ends of sessions likewise: `Accepted`, `... auth succeeded`, `LOGIN ON`, `ROOT LOGIN`, `(to x)`, `Successful su`
//! are logons; `Disconnected from user` (sshd, which has the address; not PAM's line), `Exit (user)` and
//! `pam_unix(login|su:session): session closed` are ends. A telnet daemon says nothing of logins; the `login` it starts does.
//!
//! # The user name is the attacker's text
//!
//! A user named `root from 192.0.2.1 port 22 ssh2` must not get 192.0.2.1 blocked. So addresses are taken from where the daemon
//! puts them, from the right end of the line where the user stands before them, and only if the line has exactly the daemon's
//! shape up to its end. A line whose end is missing (longer than the reader's bound, or written half) gives no address. Nor does
//! one that its syslog daemon may have cut without a trace, since what remains after a cut could end like a whole line: BusyBox
//! syslogd reads datagrams into 256 bytes unless built otherwise, and there are names long enough (sshd cuts them at 100 bytes in
//! some lines and not in others, and escapes what does not print, four bytes for one). So a failure whose message is longer than
//! 211 bytes gives no address; with names that exist no message is that long.
//!
//! What this cannot see: a local user can write any line into the log (`logger -t sshd`). Datagrams carry the sender's user id,
//! and [`super::sensor`] uses it; files do not.

mod console;
mod dropbear;
mod pam;
mod sshd;
mod su;

use std::net::IpAddr;

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::text;

/// Longest evidence kept of a message, in bytes.
const MAX_EVIDENCE: usize = 1024;
/// Longest message that no syslog daemon has cut: 256 bytes with a NUL, less `<191>`, the stamp, and `sshd-session[4194304]: `.
const MAX_UNCUT: usize = 255 - "<191>Nov  3 20:50:52 sshd-session[4194304]: ".len();
/// Most attempts one line may stand for, so that a forged "message repeated" cannot make more of it.
const MAX_COUNT: u32 = 1000;

/// Whether the line is the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The line of its kind that is counted for each attempt.
    Counted,
    /// Counts only if no line of the same process did before.
    Fallback,
}

/// A line that speaks of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it says; `pid` is left for the caller to fill in.
    pub authentication: Authentication,
    /// Whether it counts.
    pub role: Role,
}

/// What the message `logged` under the tag `service`, says of a login; `None` if nothing, or nothing that should count.
///
/// `whole` is false for a line whose end is missing: it gives no address.
#[must_use]
pub fn parse(service: &str, logged: &str, whole: bool) -> Option<Message> {
    let (message, repeated) = repetition(logged);
    let found = match service {
        // Since OpenSSH 9.8 a session has a binary of its own, since 10.0 its authentication too.
        "sshd" | "sshd-session" | "sshd-auth" => sshd::parse(message),
        "dropbear" => dropbear::parse(message),
        "login" => console::parse(message).or_else(|| pam::session_end("login", message)),
        "su" | "su-l" => su::parse(message).or_else(|| pam::session_end("su", message)),
        _ => pam::parse(message),
    };
    let Found { service, activity, outcome, user, user_known, method, source, port, tty, count, role } =
        found?;
    let trusted = whole && (outcome == Outcome::Success || logged.len() <= MAX_UNCUT);
    let source = source.filter(|_| trusted);
    let authentication = Authentication {
        activity,
        outcome,
        user: user.map(str::to_owned),
        user_known,
        service: service.to_owned(),
        method: method.map(str::to_owned),
        source_port: port.filter(|_| source.is_some()),
        source,
        tty: tty.map(str::to_owned),
        pid: None,
        count: count.saturating_mul(repeated).clamp(1, MAX_COUNT),
        duration_ms: None,
        message: text::truncate(message, MAX_EVIDENCE).to_owned(),
    };
    Some(Message { authentication, role })
}

/// rsyslog's `message repeated 3 times: [ text]`: the text and how often it was said.
fn repetition(message: &str) -> (&str, u32) {
    let inner = message.strip_prefix("message repeated ").and_then(|rest| {
        let (count, rest) = rest.split_once(" times: [")?;
        let text = rest.strip_suffix(']')?;
        Some((text.strip_prefix(' ').unwrap_or(text), digits(count)?))
    });
    inner.unwrap_or((message, 1))
}

/// Where the client is that the process which logged this has just begun to serve. Only dropbear is asked: its older versions say it
/// nowhere else when a user does not exist.
#[must_use]
pub fn origin(service: &str, logged: &str) -> Option<(IpAddr, u16)> {
    match service {
        "dropbear" => dropbear::origin(logged),
        _ => None,
    }
}

/// How often the line before was said again, if that is all the message says (sysklogd and its relatives).
#[must_use]
pub fn repeats_of_last(message: &str) -> Option<u32> {
    let rest = message.strip_prefix("last message ")?;
    // sysklogd 2 writes "last message buffered N times", the classic ones "repeated".
    let rest = rest.strip_prefix("repeated ").or_else(|| rest.strip_prefix("buffered "))?;
    let count = rest.strip_suffix(" times").or_else(|| rest.strip_suffix(" time"))?;
    digits(count).map(|n| n.clamp(1, MAX_COUNT))
}

fn digits(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// What the parser of one service found; the rest of the event is the same for all.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    service: &'a str,
    activity: Activity,
    outcome: Outcome,
    user: Option<&'a str>,
    user_known: Option<bool>,
    method: Option<&'a str>,
    source: Option<IpAddr>,
    port: Option<u16>,
    tty: Option<&'a str>,
    count: u32,
    role: Role,
}

impl<'a> Found<'a> {
    fn new(service: &'a str, activity: Activity, outcome: Outcome) -> Self {
        Self {
            service,
            activity,
            outcome,
            user: None,
            user_known: None,
            method: None,
            source: None,
            port: None,
            tty: None,
            count: 1,
            role: Role::Counted,
        }
    }

    fn failure(service: &'a str) -> Self {
        Self::new(service, Activity::Logon, Outcome::Failure)
    }

    fn success(service: &'a str) -> Self {
        Self { user_known: Some(true), ..Self::new(service, Activity::Logon, Outcome::Success) }
    }

    fn end(service: &'a str) -> Self {
        Self { user_known: Some(true), ..Self::new(service, Activity::Logoff, Outcome::Success) }
    }

    fn user(self, user: &'a str, known: bool) -> Self {
        Self { user: Some(user), user_known: Some(known), ..self }
    }
}

/// `/dev/tty1` as `tty1`, `/dev/pts/0` as `pts/0`; none for what says that there is none.
pub(super) fn tty_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("/dev/").unwrap_or(text);
    (!matches!(name, "" | "none" | "???" | "??" | "?" | "UNKNOWN" | "ssh" | "sshd" | "ssh:notty"))
        .then_some(name)
}

#[cfg(test)]
mod tests;
