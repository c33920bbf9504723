//! What programs tell the audit subsystem of logins: records 1100 to 1199 of linux/audit.h, by PAM, sshd and login(1).
//!
//! They come with the stream of the process sensor; without its audit source there are none. Only programs with CAP_AUDIT_WRITE can write
//! them, and libaudit encodes the user's name, so their fields can be believed.
//!
//! | Record | Meaning | Counts |
//! |---|---|---|
//! | `USER_START` | PAM opened a session | always |
//! | `USER_LOGIN`, success | sshd or login let somebody in | if its process has not said `USER_START` |
//! | `USER_AUTH`, failed | PAM turned somebody away | always |
//! | `USER_LOGIN`, `USER_ACCT`, failed | sshd, login or PAM did | if its process has not said `USER_AUTH` |
//! | `USER_END` | PAM closed a session | always |
//! | `USER_LOGOUT` | sshd or login says so | if its process has not said `USER_END` |

use std::time::Instant;

use defender_model::authentication::{Activity, Authentication, Outcome};
use defender_model::text;

use super::address;
use super::attempt::Attempts;
use super::message::{tty_name, Role};
use super::report::{Report, Teller};
use crate::process::audit::record::{decimal, Fields, Value};

/// Record types, from linux/audit.h and libaudit's audit-records.h.
mod kind {
    pub(super) const USER_AUTH: u16 = 1100;
    pub(super) const USER_ACCT: u16 = 1101;
    pub(super) const USER_START: u16 = 1105;
    pub(super) const USER_END: u16 = 1106;
    pub(super) const USER_LOGIN: u16 = 1112;
    pub(super) const USER_LOGOUT: u16 = 1113;
}

/// Services whose sessions are no logins, by the name of their program.
const NO_LOGINS: [&str; 9] = [
    "cron",
    "crond",
    "atd",
    "systemd",
    "systemd-executor",
    "(systemd)",
    "runuser",
    "polkit-agent-helper-1",
    "systemctl",
];
/// Longest evidence kept of a record, in bytes.
const MAX_EVIDENCE: usize = 1024;

/// Whether the record type may say something of a login.
pub(crate) const fn concerns_logins(record: u16) -> bool {
    matches!(
        record,
        kind::USER_AUTH
            | kind::USER_ACCT
            | kind::USER_START
            | kind::USER_END
            | kind::USER_LOGIN
            | kind::USER_LOGOUT
    )
}

/// Records to reports, with what has to be remembered between them: which processes have been counted.
#[derive(Debug, Default)]
pub(crate) struct Records {
    begun: Attempts,
    failed: Attempts,
    ended: Attempts,
}

impl Records {
    /// What a record says, if it says something that counts: `pid=1 uid=0 ... msg='op=... acct="root" exe="..." addr=... res=success'`.
    pub(crate) fn read(&mut self, record: u16, fields: &[u8], now: Instant) -> Option<Report> {
        let mut pid = None;
        let mut user = None;
        let mut program = String::new();
        let mut source = None;
        let mut tty = None;
        let mut success = None;
        for (name, value) in Fields::new(fields) {
            match (name, value) {
                (b"pid", Value::Bare(digits)) => {
                    pid = decimal(digits).and_then(|pid| u32::try_from(pid).ok());
                }
                (b"acct", value) => user = Some(value.text()),
                (b"exe", value) => program = value.text(),
                (b"addr", value) => source = address::parse(&value.text()),
                (b"terminal", value) => tty = tty_name(&value.text()).map(str::to_owned),
                (b"res", Value::Bare(word)) => {
                    let word = word.strip_suffix(b"'").unwrap_or(word);
                    // The kernel's own writing of it is a number.
                    success = Some(word == b"success" || word == b"1");
                }
                _ => {}
            }
        }
        let program = program.rsplit('/').next().unwrap_or_default();
        if program.is_empty() || NO_LOGINS.contains(&program) {
            return None;
        }
        let service = match program {
            "sshd-session" | "sshd-auth" => "sshd",
            other => other,
        };
        let activity = match service {
            "su" | "sudo" => Activity::AccountSwitch,
            _ => Activity::Logon,
        };
        let (activity, outcome, role, attempts) = match (record, success?) {
            (kind::USER_START, true) => (activity, Outcome::Success, Role::Counted, &mut self.begun),
            (kind::USER_LOGIN, true) => (activity, Outcome::Success, Role::Fallback, &mut self.begun),
            (kind::USER_AUTH, false) => (activity, Outcome::Failure, Role::Counted, &mut self.failed),
            (kind::USER_LOGIN | kind::USER_ACCT, false) => {
                (activity, Outcome::Failure, Role::Fallback, &mut self.failed)
            }
            // Nobody waits for the end of sudo.
            (kind::USER_END, true) if service != "sudo" => {
                (Activity::Logoff, Outcome::Success, Role::Counted, &mut self.ended)
            }
            (kind::USER_LOGOUT, true) => {
                (Activity::Logoff, Outcome::Success, Role::Fallback, &mut self.ended)
            }
            _ => return None,
        };
        if !attempts.counts(pid, role, now) {
            return None;
        }
        // What libaudit, sshd and login write of names that do not exist.
        let user =
            user.filter(|user| !matches!(user.as_str(), "" | "UNKNOWN" | "(unknown)" | "(invalid user)"));
        let login = Authentication {
            activity,
            outcome,
            user_known: (outcome == Outcome::Success).then_some(true),
            user,
            service: service.to_owned(),
            method: None,
            source,
            source_port: None,
            tty,
            pid,
            count: 1,
            duration_ms: None,
            message: text::truncate(text::from_bytes(fields).trim(), MAX_EVIDENCE).to_owned(),
        };
        Some(Report::new(Teller::Audit, login))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Put together after the formats of OpenSSH (audit-linux.c), Linux-PAM (libpam/pam_audit.c) and shadow; no recording.
    const HEAD: &str = "pid=812 uid=0 auid=4294967295 ses=4294967295 subj=unconfined ";

    fn read(records: &mut Records, record: u16, tail: &str) -> String {
        let fields = format!("{HEAD}{tail}\0");
        let Some(Report { login, .. }) = records.read(record, fields.as_bytes(), Instant::now()) else {
            return "-".to_owned();
        };
        let source = login.source.map(|source| source.to_string()).unwrap_or_default();
        format!(
            "{:?} {:?} {} {} {source} {} {}",
            login.activity,
            login.outcome,
            login.service,
            login.user.unwrap_or_default(),
            login.tty.unwrap_or_default(),
            login.pid.unwrap_or_default()
        )
    }

    #[test]
    fn an_ssh_session_counts_once_from_begin_to_end() {
        let mut records = Records::default();
        let place = "exe=\"/usr/sbin/sshd\" hostname=192.0.2.7 addr=192.0.2.7 terminal=ssh res=success'";
        for (record, tail, expected) in [
            (1100, format!("msg='op=PAM:authentication grantors=pam_unix acct=\"root\" {place}"), "-"),
            (1101, format!("msg='op=PAM:accounting grantors=pam_unix acct=\"root\" {place}"), "-"),
            (1103, format!("msg='op=PAM:setcred grantors=pam_unix acct=\"root\" {place}"), "-"),
            (
                1105,
                format!("msg='op=PAM:session_open grantors=pam_unix acct=\"root\" {place}"),
                "Logon Success sshd root 192.0.2.7  812",
            ),
            (1112, format!("msg='op=login id=0 {place}"), "-"),
            (
                1106,
                format!("msg='op=PAM:session_close grantors=pam_unix acct=\"root\" {place}"),
                "Logoff Success sshd root 192.0.2.7  812",
            ),
            (1113, format!("msg='op=login id=0 {place}"), "-"),
        ] {
            assert_eq!(read(&mut records, record, &tail), expected, "{record} {tail}");
        }
    }

    #[test]
    fn failures_hexadecimal_names_and_terminals() {
        let mut records = Records::default();
        let tail = "msg='op=PAM:authentication grantors=? acct=6576696C2075736572 exe=\"/usr/lib/openssh/sshd-session\" hostname=2001:db8::7 addr=2001:db8::7 terminal=ssh res=failed'";
        let expected = "Logon Failure sshd evil user 2001:db8::7  812";
        assert_eq!(read(&mut records, 1100, tail), expected);
        assert_eq!(read(&mut records, 1100, tail), expected);
        assert_eq!(read(&mut records, 1112, tail), "-");
        let console = "msg='op=login acct=\"(unknown)\" exe=\"/usr/bin/login\" hostname=? addr=? terminal=/dev/ttyS0 res=failed'";
        assert_eq!(read(&mut Records::default(), 1112, console), "Logon Failure login   ttyS0 812");
        let su = "msg='op=PAM:session_open grantors=pam_unix acct=\"root\" exe=\"/usr/bin/su\" hostname=? addr=? terminal=pts/0 res=success'";
        assert_eq!(read(&mut Records::default(), 1105, su), "AccountSwitch Success su root  pts/0 812");
        for program in ["/usr/sbin/crond", "/usr/lib/systemd/systemd-executor"] {
            let job = su.replace("/usr/bin/su", program);
            assert_eq!(read(&mut Records::default(), 1105, &job), "-");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(record in 1100u16..1200, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records::default().read(record, &bytes, Instant::now());
        }

        #[test]
        fn a_name_moves_nothing(name in prop::collection::vec(any::<u8>(), 1..60)) {
            // libaudit writes a name that holds anything but plain characters in hexadecimal.
            let name: String = name.iter().map(|byte| format!("{byte:02X}")).collect();
            let tail = format!("msg='op=PAM:authentication acct={name} exe=\"/usr/sbin/sshd\" hostname=? addr=192.0.2.7 terminal=ssh res=failed'");
            let report = Records::default().read(1100, tail.as_bytes(), Instant::now()).expect("a failure");
            prop_assert_eq!(report.login.source, "192.0.2.7".parse().ok());
            prop_assert_eq!((report.login.service.as_str(), report.login.outcome), ("sshd", Outcome::Failure));
        }
    }
}
