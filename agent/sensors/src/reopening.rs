//! A source that failed while it was read: when it is opened again, and what is said of that. Pauses double between two bounds, and a source
//! that fails soon after it was opened does not begin anew with them. Time is passed in.

use std::fmt::Display;
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};

/// The first pause.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// A source that worked for so long has recovered for good: the next pause is the first again.
const STEADY: Duration = Duration::from_secs(60);

/// Where a source stands that is opened again when it fails.
#[derive(Debug, Clone, Copy)]
pub struct Reopening {
    /// Since when it does not work; `None` while it does.
    since: Option<Instant>,
    /// When it is opened again, or was opened last.
    at: Option<Instant>,
    pause: Duration,
}

impl Default for Reopening {
    fn default() -> Self {
        Self { since: None, at: None, pause: SHORTEST }
    }
}

impl Reopening {
    /// It failed, or could not be opened. True when it worked until now, which is to be said.
    pub fn failed(&mut self, now: Instant) -> bool {
        let news = self.since.is_none();
        if news && self.at.is_some_and(|opened| now.saturating_duration_since(opened) >= STEADY) {
            self.pause = SHORTEST;
        }
        self.at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
        self.since.get_or_insert(now);
        news
    }

    /// It works. For how long it did not, if it did not.
    pub fn opened(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        self.at = Some(now);
        Some(now.saturating_duration_since(since))
    }

    /// When it is to be opened again; `None` while it works.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        self.since.and(self.at)
    }

    /// It is to be opened again now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.wake().is_some_and(|at| at <= now)
    }

    /// [`failed`](Self::failed), in words for who does not know yet: `what` is the source.
    pub fn broke(
        &mut self,
        now: Instant,
        component: &str,
        what: &str,
        cause: &dyn Display,
    ) -> Option<Health> {
        let words = || {
            format!("{what}: {cause}; nothing is heard of it until it can be opened again, which is tried")
        };
        self.failed(now).then(|| Health::new(Kind::Degraded, component, words()))
    }

    /// [`opened`](Self::opened), in words, with the length of the gap.
    pub fn mended(&mut self, now: Instant, component: &str, what: &str) -> Option<Health> {
        let gap = self.opened(now)?;
        let words = format!("{what}: opened again");
        Some(Health::new(Kind::Recovered, component, words).with("gap_ms", gap.as_millis() as u64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_failure_and_its_end_are_said_once_each() {
        let mut source = Reopening::default();
        let start = Instant::now();
        assert!(source.mended(start, "x", "y").is_none() && source.wake().is_none());
        let said = source.broke(start, "network.packets", "NFLOG", &"no such socket").unwrap();
        assert_eq!((said.kind, &*said.component), (Kind::Degraded, "network.packets"));
        assert!(said.message.starts_with("NFLOG: no such socket"), "{}", said.message);
        assert!(!source.is_due(start) && source.is_due(start + SHORTEST));
        assert!(source.broke(start + SHORTEST, "network.packets", "NFLOG", &"again").is_none());
        let said = source.mended(start + 3 * SHORTEST, "network.packets", "NFLOG").unwrap();
        assert_eq!((said.kind, said.counters), (Kind::Recovered, vec![("gap_ms".to_owned(), 3000)]));
    }

    proptest! {
        /// `None` for "it is opened", else it fails; after so many milliseconds.
        #[test]
        fn pauses_are_bounded_and_every_end_has_its_beginning(steps in prop::collection::vec((any::<bool>(), 0..200_000u64), 0..60)) {
            let mut source = Reopening::default();
            let (mut now, mut broken, mut opened) = (Instant::now(), None, None::<Instant>);
            for (fails, millis) in steps {
                now += Duration::from_millis(millis);
                if fails {
                    prop_assert_eq!(source.failed(now), broken.is_none());
                    let pause = source.wake().unwrap() - now;
                    prop_assert!((SHORTEST..=LONGEST).contains(&pause));
                    if broken.is_none() && opened.is_some_and(|at| now - at >= STEADY) {
                        prop_assert_eq!(pause, SHORTEST);
                    }
                    broken.get_or_insert(now);
                    prop_assert!(source.is_due(now + LONGEST));
                } else {
                    let gap = source.opened(now);
                    prop_assert_eq!(gap, broken.take().map(|since| now - since));
                    if gap.is_some() {
                        opened = Some(now);
                    }
                    prop_assert!(source.wake().is_none() && !source.is_due(now + LONGEST));
                }
            }
        }
    }
}
