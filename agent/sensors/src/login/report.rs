//! What one source says of a login, before it is compared with what the others say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use defender_model::authentication::Authentication;
use tokio::sync::mpsc;

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

/// Where other sensors and programs hand in what they know of logins. Nobody waits there: what finds no room is counted.
#[derive(Debug, Clone)]
pub struct Reports {
    sender: mpsc::Sender<Report>,
    refused: Arc<AtomicU64>,
}

/// The login sensor's end of [`Reports`].
#[derive(Debug)]
pub struct Inbox {
    pub(super) receiver: mpsc::Receiver<Report>,
    pub(super) refused: Arc<AtomicU64>,
}

impl Reports {
    /// A queue of so many reports, and its other end.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel(capacity);
        let refused = Arc::<AtomicU64>::default();
        (Self { sender, refused: Arc::clone(&refused) }, Inbox { receiver, refused })
    }

    /// Hands a report in; false where it found no room.
    pub fn tell(&self, report: Report) -> bool {
        let attempts = u64::from(report.login.count.max(1));
        let told = self.sender.try_send(report).is_ok();
        if !told {
            self.refused.fetch_add(attempts, Ordering::Relaxed);
        }
        told
    }
}

impl Report {
    /// News.
    #[must_use]
    pub const fn new(teller: Teller, login: Authentication) -> Self {
        Self { teller, login, since: None }
    }
}
