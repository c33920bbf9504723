//! From what a service is to what became of it. A stop is held for a moment: when the service runs again by then, it was restarted.

use std::time::{Duration, Instant};

use defender_model::service::ServiceChange;

/// How long a stop is held.
const HOLD: Duration = Duration::from_secs(2);
/// How long a service may be on its way down or up before it counts as stopped.
const UNDER_WAY: Duration = Duration::from_secs(30);

/// What a service is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    /// It runs.
    Active,
    /// It does not.
    Inactive,
    /// It ended by a fault.
    Failed,
    /// It is on its way.
    Between,
}

impl Now {
    /// From `ActiveState` (org.freedesktop.systemd1(5), "Unit Objects").
    #[cfg_attr(not(feature = "dbus"), allow(dead_code))]
    pub(super) fn from_active_state(word: &str) -> Option<Self> {
        Some(match word {
            "active" | "reloading" | "refreshing" => Self::Active,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" | "deactivating" | "maintenance" => Self::Between,
            _ => return None,
        })
    }
}

/// One service.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// What was told of it last: it runs. `None` before anything is known.
    runs: Option<bool>,
    /// It stopped running then, and is that now.
    leaving: Option<(Instant, Now)>,
}

impl Service {
    /// Takes note of what it is; tells what became of it where that is plain at once.
    pub(super) fn is(&mut self, now: Now, at: Instant) -> Option<ServiceChange> {
        match (now, self.runs) {
            (Now::Active, Some(true)) => self.leaving.take().map(|_| ServiceChange::Restarted),
            (Now::Active, before) => {
                self.runs = Some(true);
                self.leaving = None;
                before.map(|_| ServiceChange::Started)
            }
            (_, Some(true)) => {
                let since = self.leaving.map_or(at, |(since, _)| since);
                self.leaving = Some((since, now));
                None
            }
            // What did not run when the watch began may not belong to this device.
            (_, before) => {
                self.runs = before.or((now != Now::Between).then_some(false));
                None
            }
        }
    }

    /// Another instance runs, though nobody saw the first one end.
    pub(super) fn replaced(&mut self) -> Option<ServiceChange> {
        self.leaving = None;
        (self.runs.replace(true) == Some(true)).then_some(ServiceChange::Restarted)
    }

    /// A stop is held.
    #[cfg(feature = "dbus")]
    pub(super) const fn waits(&self) -> bool {
        self.leaving.is_some()
    }

    /// What became of it, when a stop was held long enough.
    pub(super) fn settle(&mut self, at: Instant) -> Option<ServiceChange> {
        let (since, now) = self.leaving?;
        let hold = if now == Now::Between { UNDER_WAY } else { HOLD };
        if at.saturating_duration_since(since) < hold {
            return None;
        }
        self.leaving = None;
        self.runs = Some(false);
        Some(if now == Now::Failed { ServiceChange::Failed } else { ServiceChange::Stopped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(steps: &[(u64, Option<Now>)]) -> Vec<ServiceChange> {
        let start = Instant::now();
        let mut service = Service::default();
        let mut told = Vec::new();
        for (seconds, now) in steps {
            let at = start + Duration::from_secs(*seconds);
            told.extend(now.and_then(|now| service.is(now, at)));
            told.extend(service.settle(at));
        }
        told
    }

    #[test]
    fn each_story_is_told_in_one_word() {
        use Now::{Active, Between, Failed, Inactive};
        use ServiceChange::{Failed as Broke, Restarted, Started, Stopped};
        let never = story(&[(0, Some(Inactive)), (9, Some(Failed)), (99, None)]);
        assert_eq!(never, []);
        assert_eq!(story(&[(0, Some(Inactive)), (5, Some(Between)), (6, Some(Active))]), [Started]);
        assert_eq!(story(&[(0, Some(Active)), (5, Some(Between)), (5, Some(Inactive)), (6, None)]), []);
        assert_eq!(
            story(&[(0, Some(Active)), (5, Some(Between)), (5, Some(Inactive)), (7, None)]),
            [Stopped]
        );
        assert_eq!(story(&[(0, Some(Active)), (5, Some(Failed)), (8, None), (99, Some(Failed))]), [Broke]);
        let restart =
            [(0, Some(Active)), (5, Some(Between)), (5, Some(Inactive)), (6, Some(Active)), (99, None)];
        assert_eq!(story(&restart), [Restarted]);
        assert_eq!(story(&[(0, Some(Active)), (5, Some(Between)), (34, None), (35, None)]), [Stopped]);
        let back = [(0, Some(Active)), (1, Some(Inactive)), (9, None), (20, Some(Active))];
        assert_eq!(story(&back), [Stopped, Started]);
    }
}
