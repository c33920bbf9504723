//! What one source says of a login, before it is compared with what the others say.

use defender_model::authentication::Authentication;

/// Who told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// A line of a service, from a file or a datagram. It says the most, so it is never waited for others with.
    Log,
    /// The table of who is logged in, utmp(5).
    Utmp,
    /// The list of who was, wtmp.
    Wtmp,
    /// The list of who was turned away, btmp.
    Btmp,
    /// The kernel's audit stream: what PAM, sshd and login tell it.
    Audit,
    /// `defender pam`.
    Pam,
}

impl Teller {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// Service of a login of which only an accounting file tells.
    pub const ACCOUNTING: &'static str = "utmp";

    /// Position in a list of all.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What one source says of a login, a failure or a logout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who told.
    pub teller: Teller,
    /// What was told, as far as this source knows; [`Authentication::count`] attempts.
    pub login: Authentication,
    /// The session was there before the agent: since then, in seconds since 1970. It is remembered, and is no news.
    pub since: Option<i64>,
}

impl Report {
    /// News.
    #[must_use]
    pub const fn new(teller: Teller, login: Authentication) -> Self {
        Self { teller, login, since: None }
    }
}
