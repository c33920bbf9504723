//! When a sink may send: periods for a link that is paid for by the connection, a budget for one that is paid for by the byte.
//!
//! Nothing is thrown away here. What may not go yet waits in front of the sink, in the spool where there is one; what that has no room
//! for goes as ever, the oldest telemetry first, and is counted.

use std::time::{Duration, Instant};

use defender_model::health::Kind;

/// An opened lane closes when nothing has waited in it for so long.
const LINGER: Duration = Duration::from_millis(250);
/// A budget's day. By the monotonic clock: wall time may jump, and a day of 47 hours would cost as much as two.
const DAY: Duration = Duration::from_secs(86_400);

/// When a sink may send, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// Alerts are sent so often; zero: at once.
    pub alerts: Duration,
    /// Other records are sent so often; zero: at once.
    pub telemetry: Duration,
    /// Bytes a day; zero: no limit. Three quarters of it are for everything, the last one for alerts alone.
    pub daily_bytes: u64,
}

/// What a budget leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Enough,
    AlertsOnly,
    Nothing,
}

#[derive(Debug)]
struct Lane {
    period: Duration,
    open: bool,
    /// When it opens, if it is closed.
    opens: Instant,
    /// Since when it has been empty, if it is open.
    empty_since: Option<Instant>,
}

/// A sink's schedule at work.
#[derive(Debug)]
pub(crate) struct Pace {
    daily_bytes: u64,
    /// Alerts and the others.
    lanes: [Lane; 2],
    day_began: Instant,
    spent: u64,
    said: Left,
}

impl Pace {
    pub(crate) fn new(schedule: Schedule, now: Instant) -> Self {
        // What waits from before is sent at once.
        let lane = |period| Lane { period, open: true, opens: now, empty_since: None };
        Self {
            daily_bytes: schedule.daily_bytes,
            lanes: [lane(schedule.alerts), lane(schedule.telemetry)],
            day_began: now,
            spent: 0,
            said: Left::Enough,
        }
    }

    /// New periods of alerts and of other records, from now on.
    #[cfg(any(test, feature = "mqtt"))]
    pub(crate) fn reschedule(&mut self, periods: [Duration; 2], now: Instant) {
        for (lane, period) in self.lanes.iter_mut().zip(periods) {
            if lane.period != period {
                lane.period = period;
                lane.opens = lane.opens.min(now + period);
                lane.open |= period.is_zero();
            }
        }
    }

    /// So many bytes were sent.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.spent = self.spent.saturating_add(bytes);
    }

    /// Opens and closes what is due. `empty`: nothing waits in that lane.
    pub(crate) fn turn(&mut self, now: Instant, empty: [bool; 2]) {
        for (lane, empty) in self.lanes.iter_mut().zip(empty) {
            lane.turn(now, empty);
        }
        if now.saturating_duration_since(self.day_began) >= DAY {
            (self.day_began, self.spent) = (now, 0);
        }
    }

    /// Which lanes are held back.
    pub(crate) fn held(&self) -> [bool; 2] {
        let left = self.left();
        [!self.lanes[0].open || left >= Left::Nothing, !self.lanes[1].open || left >= Left::AlertsOnly]
    }

    /// When to [`Pace::turn`] next, if nothing happens before.
    pub(crate) fn due(&self) -> Option<Instant> {
        let day = (self.left() > Left::Enough).then(|| self.day_began + DAY);
        let [alerts, telemetry] = &self.lanes;
        [alerts.due(), telemetry.due(), day].into_iter().flatten().min()
    }

    /// What is to be said about the budget, once for each turn it takes.
    pub(crate) fn news(&mut self, now: Instant) -> Option<(Kind, String)> {
        let left = self.left();
        if std::mem::replace(&mut self.said, left) == left {
            return None;
        }
        let hours = (self.day_began + DAY).saturating_duration_since(now).as_secs().div_ceil(3600);
        let all = self.daily_bytes / 1024;
        let used = self.spent / 1024;
        Some(match left {
            Left::Enough => (Kind::Recovered, format!("a new day's budget of {all} KiB has begun")),
            Left::AlertsOnly => (
                Kind::Degraded,
                format!(
                    "{used} of {all} KiB a day are used; all but alerts waits, for {hours} hours at most"
                ),
            ),
            Left::Nothing => (
                Kind::Degraded,
                format!("all of {all} KiB a day are used; everything waits, for {hours} hours at most"),
            ),
        })
    }

    fn left(&self) -> Left {
        match self.daily_bytes {
            0 => Left::Enough,
            daily if self.spent >= daily => Left::Nothing,
            daily if self.spent >= daily / 4 * 3 => Left::AlertsOnly,
            _ => Left::Enough,
        }
    }
}

impl Lane {
    fn turn(&mut self, now: Instant, empty: bool) {
        if self.period.is_zero() {
            return;
        }
        if !self.open && now >= self.opens {
            (self.open, self.empty_since) = (true, None);
        }
        if !self.open {
            return;
        }
        if !empty {
            self.empty_since = None;
            return;
        }
        let since = *self.empty_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= LINGER {
            (self.open, self.opens) = (false, now + self.period);
        }
    }

    fn due(&self) -> Option<Instant> {
        if self.period.is_zero() {
            return None;
        }
        if self.open {
            self.empty_since.map(|since| since + LINGER)
        } else {
            Some(self.opens)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_lane_opens_every_period_until_it_is_empty() {
        let start = Instant::now();
        let schedule = Schedule { telemetry: MINUTE, ..Schedule::default() };
        let mut pace = Pace::new(schedule, start);
        pace.turn(start, [true, false]);
        assert_eq!((pace.held(), pace.due()), ([false, false], None));
        pace.turn(start, [true, true]);
        assert_eq!((pace.held(), pace.due()), ([false, false], Some(start + LINGER)));
        pace.turn(start + LINGER, [true, true]);
        let opens = start + LINGER + MINUTE;
        assert_eq!((pace.held(), pace.due()), ([false, true], Some(opens)));
        pace.turn(opens - LINGER, [true, false]);
        assert_eq!(pace.held(), [false, true]);
        pace.turn(opens, [true, false]);
        assert_eq!(pace.held(), [false, false]);
        // As long as something waits it stays open.
        pace.turn(opens + MINUTE * 9, [true, false]);
        assert_eq!(pace.held(), [false, false]);
    }

    #[test]
    fn a_shorter_period_holds_at_once() {
        let start = Instant::now();
        let schedule = Schedule { telemetry: MINUTE * 60, ..Schedule::default() };
        let mut pace = Pace::new(schedule, start);
        pace.turn(start, [true, true]);
        pace.turn(start + LINGER, [true, true]);
        pace.reschedule([Duration::ZERO, MINUTE], start + LINGER);
        assert_eq!(pace.due(), Some(start + LINGER + MINUTE));
        pace.reschedule([Duration::ZERO; 2], start + LINGER);
        assert_eq!((pace.held(), pace.due()), ([false, false], None));
    }

    #[test]
    fn a_budget_keeps_its_last_quarter_for_alerts_and_is_new_each_day() {
        let start = Instant::now();
        let mut pace = Pace::new(Schedule { daily_bytes: 4096, ..Schedule::default() }, start);
        pace.spend(3071);
        assert_eq!((pace.held(), pace.due(), pace.news(start)), ([false, false], None, None));
        pace.spend(1);
        assert_eq!((pace.held(), pace.due()), ([false, true], Some(start + DAY)));
        let words = "3 of 4 KiB a day are used; all but alerts waits, for 24 hours at most";
        assert_eq!(pace.news(start), Some((Kind::Degraded, words.to_owned())));
        assert_eq!(pace.news(start), None);
        pace.spend(1024);
        assert_eq!(pace.held(), [true, true]);
        assert!(pace.news(start + DAY / 2).is_some_and(|(_, words)| words.contains("for 12 hours at most")));
        pace.turn(start + DAY, [false, false]);
        assert_eq!((pace.held(), pace.due()), ([false, false], None));
        assert_eq!(pace.news(start + DAY).map(|(kind, _)| kind), Some(Kind::Recovered));
    }
}
