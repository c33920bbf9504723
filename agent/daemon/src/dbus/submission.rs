//! Security events that other services hand in: who says what, and how much of it is listened to.
//!
//! Anybody on the bus may submit, so nothing of a submission is believed but what the bus itself says of its sender. Text is bounded
//! and printable; each user has a budget of events a second, whatever number of connections it opens; what goes over it is counted
//! and told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use defender_model::health::{Health, Kind};
use defender_model::process::Actor;
use defender_model::service::Submitted;
use defender_model::severity::Severity;
use defender_model::text::printable;
use defender_sensors::balance::Balance;
use defender_sensors::budget::Budget;
use defender_sensors::{Observation, Outlet};

use super::caller::Caller;
use crate::tally::Tally;

/// Longest texts of a submission, in bytes.
const TITLE: usize = 128;
const CATEGORY: usize = 64;
const MESSAGE: usize = 1024;
/// Most attributes, and the longest name and value of one, in bytes.
const ATTRIBUTES: usize = 16;
const NAME: usize = 32;
const VALUE: usize = 256;
/// Senders whose identity is remembered, and users whose budget is: who is forgotten begins with a full one.
const SENDERS: usize = 64;
const USERS: usize = 32;
/// Submissions at once whose sender the bus is asked about, and of one sender: a flood from a connection that is not known yet leaves room
/// for others.
const ASKED: usize = 8;
const ASKED_OF_ONE: usize = 4;
/// How long drops are gathered before they are told.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// What a submission says, before it is looked at.
pub(super) struct Draft {
    pub(super) title: String,
    pub(super) severity: String,
    pub(super) category: String,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) attributes: HashMap<String, String>,
}

impl Draft {
    /// The event, from that sender.
    ///
    /// # Errors
    /// A sentence that names the argument and its range.
    pub(super) fn check(self, sender: &str, caller: &Caller) -> Result<Submitted, String> {
        if self.title.is_empty() {
            return Err("title is empty".to_owned());
        }
        for (name, text, most) in [
            ("title", &self.title, TITLE),
            ("category", &self.category, CATEGORY),
            ("code", &self.code, CATEGORY),
            ("message", &self.message, MESSAGE),
        ] {
            plain(name, text, most)?;
        }
        let severity = Severity::from_level(&self.severity).ok_or(
            "severity is none of `informational`, `low`, `medium`, `high` and `critical`".to_owned(),
        )?;
        if self.attributes.len() > ATTRIBUTES {
            return Err(format!("attributes are more than {ATTRIBUTES}"));
        }
        let mut attributes: Vec<(String, String)> = Vec::new();
        for (name, value) in self.attributes {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if name.is_empty() || name.len() > NAME || !name.chars().all(word) {
                return Err(format!(
                    "the name of an attribute is not 1 to {NAME} letters, digits, `_`, `-` or `.`"
                ));
            }
            plain(&name, &value, VALUE)?;
            // The bus gives them in no order.
            let at = attributes.partition_point(|(other, _)| *other < name);
            attributes.insert(at, (name, value));
        }
        Ok(Submitted {
            title: self.title,
            severity,
            category: self.category,
            code: self.code,
            message: self.message,
            attributes,
            sender: sender.to_owned(),
            process: caller.pid.map(|pid| Actor { pid, uid: Some(caller.uid), ..Actor::default() }),
        })
    }
}

fn plain(name: &str, text: &str, most: usize) -> Result<(), String> {
    if text.len() > most {
        return Err(format!("{name} is longer than {most} bytes"));
    }
    if printable(text) != text {
        return Err(format!("{name} holds a character that is not printable"));
    }
    Ok(())
}

/// Who has submitted lately, and how much.
#[derive(Debug, Clone)]
pub(super) struct Senders {
    outlet: Outlet,
    per_second: u32,
    known: Arc<Mutex<Known>>,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Known {
    /// By unique name, oldest first. The bus gives a unique name once in its life (D-Bus specification, "Bus names").
    callers: Vec<(String, Caller)>,
    /// By unique name, whom the bus is asked about.
    asked: Vec<String>,
    /// By user, the one that submitted last at the end.
    users: Vec<(u32, Budget)>,
    refused: u64,
    /// Somebody will tell `refused`.
    telling: bool,
}

impl Senders {
    pub(super) fn new(outlet: Outlet, per_second: u32, tally: Tally) -> Self {
        Self { outlet, per_second, known: Arc::default(), tally }
    }

    /// The same on another connection to a bus, where unique names begin anew.
    pub(super) fn fresh(&self) -> Self {
        self.known().callers.clear();
        self.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who it is, where the bus was asked before.
    pub(super) fn caller(&self, sender: &str) -> Option<Caller> {
        self.known().callers.iter().find(|(name, _)| name == sender).map(|(_, caller)| caller.clone())
    }

    /// Leave to ask the bus who it is, for as long as the place is held.
    pub(super) fn place(&self, sender: &str) -> Option<Place<'_>> {
        let mut known = self.known();
        let of_one = known.asked.iter().filter(|name| *name == sender).count();
        if known.asked.len() >= ASKED || of_one >= ASKED_OF_ONE {
            return None;
        }
        known.asked.push(sender.to_owned());
        Some(Place { senders: self, sender: sender.to_owned() })
    }

    pub(super) fn remember(&self, sender: &str, caller: &Caller) {
        let mut known = self.known();
        // Several submissions may have asked at once.
        if known.callers.iter().any(|(name, _)| name == sender) {
            return;
        }
        if known.callers.len() >= SENDERS {
            known.callers.remove(0);
        }
        known.callers.push((sender.to_owned(), caller.clone()));
    }

    /// Whether the user may submit one more now; what may not is counted, and told a little later.
    pub(super) fn admit(&self, uid: u32, now: Instant) -> bool {
        let mut known = self.known();
        let budget = match known.users.iter().position(|(user, _)| *user == uid) {
            Some(at) => known.users.remove(at).1,
            None => Budget::new(self.per_second, now),
        };
        if known.users.len() >= USERS {
            known.users.remove(0);
        }
        known.users.push((uid, budget));
        if known.users.last_mut().is_some_and(|(_, budget)| budget.admits(now)) {
            return true;
        }
        self.end(|balance| balance.over_bound += 1);
        self.refuse(&mut known);
        false
    }

    /// A submission has come; it is held until it is known what becomes of it.
    pub(super) fn begin(&self) {
        self.tally.produced(|balance| balance.held += 1);
    }

    /// What became of a submission.
    pub(super) fn end(&self, become_of: impl FnOnce(&mut Balance)) {
        self.tally.count(|balance| {
            balance.held -= 1;
            become_of(balance);
        });
    }

    /// Counts one submission that found no room.
    pub(super) fn drop_one(&self) {
        self.end(|balance| balance.no_room += 1);
        self.refuse(&mut self.known());
    }

    fn refuse(&self, known: &mut Known) {
        known.refused += 1;
        if !std::mem::replace(&mut known.telling, true) {
            let senders = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(TELL_AFTER).await;
                senders.tell().await;
            });
        }
    }

    async fn tell(&self) {
        let refused = {
            let mut known = self.known();
            known.telling = false;
            std::mem::take(&mut known.refused)
        };
        let words = "services submitted more events than they may (dbus.submissions_per_second)";
        let health = Health::new(Kind::Lost, "dbus.submit", words).with("refused", refused);
        self.outlet.send(Observation::Health(health)).await;
    }

    /// Hands the event on; false when the pipeline is gone.
    pub(super) async fn pass(&self, event: Observation) -> bool {
        self.outlet.send(event).await
    }
}

/// One that the bus is asked about.
pub(super) struct Place<'s> {
    senders: &'s Senders,
    sender: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let asked = &mut self.senders.known().asked;
        if let Some(at) = asked.iter().position(|name| *name == self.sender) {
            asked.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller() -> Caller {
        Caller { uid: 1000, pid: Some(77), groups: None }
    }

    fn draft() -> Draft {
        Draft {
            title: "Enclosure opened".into(),
            severity: "high".into(),
            category: "tamper".into(),
            code: "T-1".into(),
            message: "lid switch 2".into(),
            attributes: HashMap::from([("z".into(), "1".into()), ("a.b".into(), "é".into())]),
        }
    }

    #[test]
    fn what_is_in_bounds_is_attributed() {
        let event = draft().check(":1.7", &caller()).unwrap();
        assert_eq!((event.severity, event.sender.as_str()), (Severity::High, ":1.7"));
        let process = event.process.unwrap();
        assert_eq!((process.pid, process.uid), (77, Some(1000)));
        assert_eq!(event.attributes[0].0, "a.b");
    }

    #[test]
    fn what_is_not_is_named() {
        type Spoil = fn(&mut Draft);
        let wrong: [(&str, Spoil); 10] = [
            ("title is empty", |d| d.title.clear()),
            ("title is longer", |d| d.title = "x".repeat(129)),
            ("title holds", |d| d.title.push('\n')),
            ("severity", |d| d.severity = "High!".into()),
            ("category is longer", |d| d.category = "x".repeat(65)),
            ("code holds", |d| d.code = "\u{202e}".into()),
            ("message is longer", |d| d.message = "x".repeat(1025)),
            ("attributes are more", |d| {
                for n in 0..16 {
                    d.attributes.insert(format!("n{n}"), String::new());
                }
            }),
            ("the name of an attribute", |d| drop(d.attributes.insert("a b".into(), String::new()))),
            ("k is longer", |d| drop(d.attributes.insert("k".into(), "x".repeat(257)))),
        ];
        for (words, spoil) in wrong {
            let mut spoilt = draft();
            spoil(&mut spoilt);
            let error = spoilt.check(":1.7", &caller()).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_passes_is_bounded_and_printable(
            texts in prop::array::uniform4("\\PC{0,40}|[\\x00-\\x7f]{0,40}|a{120,130}"),
            attributes in prop::collection::hash_map("[a-z ]{0,40}", "\\PC{0,20}|.{250,260}", 0..20),
        ) {
            let [title, category, code, message] = texts;
            let draft = Draft { title, severity: "low".into(), category, code, message, attributes };
            if let Ok(event) = draft.check(":1.1", &caller()) {
                prop_assert!((1..=TITLE).contains(&event.title.len()) && event.message.len() <= MESSAGE);
                prop_assert!(event.attributes.len() <= ATTRIBUTES && event.attributes.is_sorted());
                let values = event.attributes.iter().map(|(_, value)| value);
                for text in values.chain([&event.title, &event.category, &event.code, &event.message]) {
                    prop_assert_eq!(printable(text), text.as_str());
                }
            }
        }
    }

    #[tokio::test]
    async fn users_do_not_share_a_budget_and_the_tables_are_bounded() {
        let (outlet, _heard) = Outlet::channel(4);
        let tally = Tally::default();
        let senders = Senders::new(outlet, 10, tally.clone());
        let now = Instant::now();
        let submit = |user| {
            senders.begin();
            let admitted = senders.admit(user, now);
            if admitted {
                senders.end(|balance| balance.delivered += 1);
            }
            admitted
        };
        assert_eq!((0..1000).filter(|_| submit(1000)).count(), 50);
        assert!(submit(1001));
        let counters = tally.status().lock().unwrap().counters.clone();
        assert_eq!(defender_sensors::balance::sides(counters.clone()), Some((1001, 1001)));
        assert!(counters.contains(&("dropped_over_bound", 950)), "{counters:?}");
        assert_eq!(senders.known().refused, 950);
        for n in 0..1000 {
            submit(2000 + n);
            senders.remember(&format!(":1.{n}"), &caller());
        }
        let known = senders.known();
        assert_eq!((known.users.len(), known.callers.len()), (USERS, SENDERS));
    }

    #[tokio::test]
    async fn one_sender_leaves_places_to_others() {
        let (outlet, _heard) = Outlet::channel(4);
        let senders = Senders::new(outlet, 10, Tally::default());
        let of_one: Vec<_> = (0..50).filter_map(|_| senders.place(":1.1")).collect();
        assert_eq!(of_one.len(), ASKED_OF_ONE);
        let others: Vec<_> = (0..50).filter_map(|n| senders.place(&format!(":2.{n}"))).collect();
        assert_eq!(others.len(), ASKED - ASKED_OF_ONE);
        drop((of_one, others));
        assert!(senders.place(":1.1").is_some() && senders.known().asked.is_empty());
    }
}
