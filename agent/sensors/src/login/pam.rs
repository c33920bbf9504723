//! What `defender pam` hands in: the environment that pam_exec(8) gives a program, of sessions that begin and end.
//!
//! `open_session` is a login (of `su` and `sudo` a change of account), `close_session` its end. Other types say nothing for certain: a
//! program in the `auth` stack does not learn how the rest of it ends.

use defender_model::authentication::{Activity, Authentication, Outcome};

use super::address;
use super::message::tty_name;
use super::report::{Report, Teller};

/// Services whose sessions are no logins.
const NO_LOGINS: [&str; 7] = ["cron", "crond", "atd", "systemd-user", "runuser", "runuser-l", "systemd-run0"];

/// PAM's items, as pam_exec(8) passes them on; empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Items {
    /// `PAM_TYPE`.
    pub kind: String,
    /// `PAM_USER`.
    pub user: String,
    /// `PAM_RHOST`.
    pub rhost: String,
    /// `PAM_TTY`.
    pub tty: String,
    /// `PAM_SERVICE`.
    pub service: String,
    /// The process that uses PAM.
    pub pid: u32,
}

/// What these items say of a login; `None` if nothing.
#[must_use]
pub fn report(items: &Items) -> Option<Report> {
    let service = match items.service.as_str() {
        "su-l" => "su",
        "sudo-i" => "sudo",
        "remote" => "login",
        other => other,
    };
    let begins = match items.kind.as_str() {
        "open_session" => true,
        "close_session" if service != "sudo" => false,
        _ => return None,
    };
    if service.is_empty() || NO_LOGINS.contains(&service) {
        return None;
    }
    let activity = match service {
        _ if !begins => Activity::Logoff,
        "su" | "sudo" => Activity::AccountSwitch,
        _ => Activity::Logon,
    };
    let login = Authentication {
        activity,
        outcome: Outcome::Success,
        user: (!items.user.is_empty()).then(|| items.user.clone()),
        user_known: Some(true),
        service: service.to_owned(),
        method: None,
        source: address::parse(&items.rhost),
        source_port: None,
        tty: tty_name(&items.tty).map(str::to_owned),
        pid: (items.pid > 1).then_some(items.pid),
        count: 1,
        duration_ms: None,
        message: format!("PAM {} of {}", items.kind, items.service),
    };
    Some(Report::new(Teller::Pam, login))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(kind: &str, service: &str) -> Items {
        let [kind, service, user, rhost, tty] =
            [kind, service, "root", "192.0.2.7", "ssh"].map(str::to_owned);
        Items { kind, user, rhost, tty, service, pid: 9 }
    }

    #[test]
    fn sessions_count_and_nothing_else() {
        let login = report(&items("open_session", "sshd")).expect("a login").login;
        assert_eq!(
            (login.activity, login.user.as_deref(), login.pid),
            (Activity::Logon, Some("root"), Some(9))
        );
        assert_eq!((login.source, login.tty), ("192.0.2.7".parse().ok(), None));
        let activity = |kind, service| report(&items(kind, service)).map(|report| report.login.activity);
        assert_eq!(activity("open_session", "su-l"), Some(Activity::AccountSwitch));
        assert_eq!(activity("close_session", "sshd"), Some(Activity::Logoff));
        assert_eq!(activity("close_session", "sudo"), None);
        for (kind, service) in
            [("auth", "sshd"), ("open_session", "crond"), ("open_session", ""), ("", "sshd")]
        {
            assert_eq!(activity(kind, service), None, "{kind} {service}");
        }
    }
}
