//! The task that owns the firewall: orders in, outcomes out. nft takes milliseconds, which the pipeline does not wait for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use defender_firewall::{BlockRequest, Blocked, Cidr, Config, Firewall, Target};
use defender_model::health::{Health, Kind};
use defender_model::order;
use defender_model::remediation::{Action, Outcome, Remediation};
use defender_model::time::Timestamp;
use tokio::sync::{mpsc, oneshot, Notify};

use super::isolator::{IsolateOrder, Isolator};
use crate::request::{BlockedAddress, IsolationStatus, Reply};

/// Orders that may wait.
const ORDERS: usize = 256;
/// Orders carried out in one transaction.
const BATCH: usize = 64;
/// How often the table is compared with what it should be.
const CHECK: Duration = Duration::from_secs(30);
/// How long after another program changed it that is done at the earliest again: a program that never ceases must not keep us busy.
const CALM: Duration = Duration::from_millis(500);

/// What the firewall is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Block an address.
    Block(BlockOrder),
    /// Let an address through again, and answer.
    Unblock(IpAddr, oneshot::Sender<Reply>),
    /// Say what is blocked.
    List(oneshot::Sender<Reply>),
    /// Let nobody but named peers through.
    Isolate(IsolateOrder),
    /// End the isolation, and answer.
    EndIsolation(oneshot::Sender<Reply>),
}

/// Block an address.
#[derive(Debug)]
pub(super) struct BlockOrder {
    pub(super) address: IpAddr,
    pub(super) seconds: u64,
    pub(super) reason: String,
    pub(super) finding: Option<String>,
    /// Who waits for the outcome.
    pub(super) answer: Option<oneshot::Sender<Reply>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    /// The table is in place, or is not.
    Ready(Result<Vec<Health>, String>),
    /// Something was done, or could not be.
    Remediation(Remediation),
    /// The firewall speaks of itself.
    Health(Health),
    /// The device is isolated now, or no longer.
    Isolation(Option<IsolationStatus>),
}

/// The pipeline's end.
#[derive(Debug, Clone)]
pub(super) struct Responder {
    orders: Option<mpsc::Sender<Order>>,
}

impl Responder {
    /// Starts the task.
    /// `peers` are let through when the device is isolated; `disturbed` is told when another program changed a table of the agent.
    pub(super) fn start(
        config: Config,
        peers: Vec<Cidr>,
        clock: fn() -> Timestamp,
        disturbed: Arc<Notify>,
    ) -> (Self, mpsc::Receiver<Done>) {
        let (orders, incoming) = mpsc::channel(ORDERS);
        let (outgoing, done) = mpsc::channel(ORDERS);
        let isolator = Isolator::new(&config, peers);
        let task =
            Task { firewall: Firewall::new(config), isolator, clock, outgoing, disturbed, failing: false };
        tokio::spawn(task.run(incoming));
        (Self { orders: Some(orders) }, done)
    }

    /// Gives an order; it comes back when too many wait already.
    pub(super) fn order(&self, order: Order) -> Result<(), Order> {
        match &self.orders {
            Some(orders) => orders.try_send(order).map_err(mpsc::error::TrySendError::into_inner),
            None => Err(order),
        }
    }

    /// No more orders: the task carries out those it has, saves its state and ends.
    pub(super) fn close(&mut self) {
        self.orders = None;
    }
}

struct Task {
    firewall: Firewall,
    isolator: Isolator,
    clock: fn() -> Timestamp,
    outgoing: mpsc::Sender<Done>,
    disturbed: Arc<Notify>,
    failing: bool,
}

impl Task {
    async fn run(mut self, mut incoming: mpsc::Receiver<Order>) {
        self.begin().await;
        let mut orders = Vec::with_capacity(BATCH);
        let mut check = tokio::time::interval_at(tokio::time::Instant::now() + CHECK, CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let disturbed = Arc::clone(&self.disturbed);
        let mut calm = tokio::time::Instant::now();
        loop {
            let due = self.isolator.due();
            tokio::select! {
                count = incoming.recv_many(&mut orders, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.carry_out(&mut orders).await;
                }
                _ = check.tick() => self.check().await,
                () = notified(&disturbed, calm) => {
                    self.check().await;
                    calm = tokio::time::Instant::now() + CALM;
                }
                () = at(due) => {
                    let said = self.isolator.check().await;
                    self.tell_all(said).await;
                }
            }
            self.save().await;
        }
        self.save().await;
    }

    async fn tell(&self, done: Done) {
        // The pipeline is gone only at the very end.
        let _ = self.outgoing.send(done).await;
    }

    async fn tell_all(&self, said: Vec<Done>) {
        for done in said {
            self.tell(done).await;
        }
    }

    fn now(&self) -> i64 {
        (self.clock)().millis()
    }

    async fn begin(&mut self) {
        let now = self.now();
        let ready = match self.firewall.start(now).await {
            Ok(started) => {
                let mut notes = Vec::new();
                if let Some(problem) = &started.state_problem {
                    notes.push(Health::new(
                        Kind::Lost,
                        "firewall",
                        format!("blocks were not restored: {problem}"),
                    ));
                }
                if started.restored + started.kept > 0 {
                    let words =
                        format!("{} blocks restored, {} still in the kernel", started.restored, started.kept);
                    notes.push(
                        Health::new(Kind::Changed, "firewall", words)
                            .with("restored", started.restored as u64)
                            .with("kept", started.kept as u64)
                            .with("expired", started.expired as u64),
                    );
                }
                Ok(notes)
            }
            Err(error) => {
                self.failing = true;
                Err(error.to_string())
            }
        };
        self.tell(Done::Ready(ready)).await;
        let said = self.isolator.begin().await;
        self.tell_all(said).await;
    }

    async fn carry_out(&mut self, orders: &mut Vec<Order>) {
        let mut blocks = Vec::new();
        for order in orders.drain(..) {
            match order {
                Order::Block(block) => blocks.push(block),
                other => {
                    // In the order they were given: a block before an unblock comes before it.
                    self.block(std::mem::take(&mut blocks)).await;
                    match other {
                        Order::Unblock(address, answer) => self.unblock(address, answer).await,
                        Order::List(answer) => self.list(answer).await,
                        Order::Isolate(order) => {
                            let said = self.isolator.isolate(order).await;
                            self.tell_all(said).await;
                        }
                        Order::EndIsolation(answer) => {
                            let said = self.isolator.end(answer).await;
                            self.tell_all(said).await;
                        }
                        Order::Block(_) => {}
                    }
                }
            }
        }
        self.block(blocks).await;
    }

    async fn block(&mut self, orders: Vec<BlockOrder>) {
        if orders.is_empty() {
            return;
        }
        let requests: Vec<BlockRequest> = orders
            .iter()
            .map(|order| BlockRequest {
                target: Target::from(order.address),
                duration: Duration::from_secs(order.seconds),
                reason: order.reason.clone(),
            })
            .collect();
        let now = self.now();
        match self.firewall.block(&requests, now).await {
            Ok(report) => {
                self.works().await;
                if report.repaired {
                    self.put_right().await;
                }
                if !report.evicted.is_empty() {
                    let words =
                        "the set of blocked addresses is full: the blocks next to expire were given up";
                    let note = Health::new(Kind::Lost, "firewall", words)
                        .with("blocks", report.evicted.len() as u64);
                    self.tell(Done::Health(note)).await;
                }
                let mut outcomes = report.outcomes.into_iter();
                for order in orders {
                    let outcome = match outcomes.next().map(|outcome| outcome.result) {
                        Some(Ok(_)) => Outcome::Verified,
                        Some(Err(error @ defender_firewall::Error::Allowed { .. })) => {
                            Outcome::Refused(error.to_string())
                        }
                        Some(Err(error)) => Outcome::Failed(error.to_string()),
                        None => Outcome::Failed("the firewall gave no outcome".to_owned()),
                    };
                    self.blocked(order, outcome).await;
                }
            }
            Err(error) => {
                let words = error.to_string();
                self.fails(&words).await;
                for order in orders {
                    self.blocked(order, Outcome::Failed(words.clone())).await;
                }
            }
        }
    }

    async fn blocked(&self, order: BlockOrder, outcome: Outcome) {
        if let Some(answer) = order.answer {
            // Whoever asked may have gone.
            let _ = answer.send(Reply::of(&outcome));
        }
        let done = Remediation::new(Action::Block, outcome, order.reason, order.finding);
        let (address, seconds) = (Some(order.address), Some(order.seconds));
        self.tell(Done::Remediation(Remediation { address, seconds, ..done })).await;
    }

    async fn unblock(&mut self, address: IpAddr, answer: oneshot::Sender<Reply>) {
        let now = self.now();
        let (reply, outcome) = match self.firewall.unblock(&[Target::from(address)], now).await {
            Ok(unblocked) => {
                self.works().await;
                let changed = unblocked.iter().any(|one| one.was_blocked);
                (Reply::Done { changed }, changed.then_some(Outcome::Verified))
            }
            Err(error) => {
                let error = error.to_string();
                self.fails(&error).await;
                (Reply::Failed { error: error.clone() }, Some(Outcome::Failed(error)))
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(reply);
        if let Some(outcome) = outcome {
            let done = Remediation::for_operator(Action::Unblock, outcome);
            self.tell(Done::Remediation(Remediation { address: Some(address), ..done })).await;
        }
    }

    async fn list(&mut self, answer: oneshot::Sender<Reply>) {
        let reply = match self.firewall.blocked().await {
            Ok(blocked) => {
                let mut addresses: Vec<BlockedAddress> = blocked.into_iter().map(describe).collect();
                order::sort_by_key(&mut addresses, |blocked| blocked.seconds_left);
                Reply::Blocked { addresses }
            }
            Err(error) => Reply::Failed { error: error.to_string() },
        };
        // Whoever asked may have gone.
        let _ = answer.send(reply);
    }

    async fn check(&mut self) {
        // A pause that is over.
        let said = self.isolator.check().await;
        self.tell_all(said).await;
        let now = self.now();
        let result = if self.failing {
            self.firewall.start(now).await.map(|_| false)
        } else {
            self.firewall.check(now).await
        };
        match result {
            Ok(repaired) => {
                self.works().await;
                if repaired {
                    self.put_right().await;
                }
            }
            Err(error) => self.fails(&error.to_string()).await,
        }
    }

    async fn save(&mut self) {
        if self.firewall.needs_save() {
            let now = self.now();
            if let Err(error) = self.firewall.save(now).await {
                let words = format!("blocks would not survive a reboot: {error}");
                self.tell(Done::Health(Health::new(Kind::Lost, "firewall.state", words))).await;
            }
        }
    }

    async fn put_right(&self) {
        let words = "table inet defender had been altered by another program and was put right";
        let mut note = Health::new(Kind::Changed, "firewall", words);
        note.severity = defender_model::severity::Severity::High;
        self.tell(Done::Health(note)).await;
    }

    async fn fails(&mut self, error: &str) {
        if !self.failing {
            self.failing = true;
            let words = format!("addresses cannot be blocked: {error}");
            self.tell(Done::Health(Health::new(Kind::Degraded, "firewall", words))).await;
        }
    }

    async fn works(&mut self) {
        if self.failing {
            self.failing = false;
            self.tell(Done::Health(Health::new(
                Kind::Recovered,
                "firewall",
                "addresses can be blocked again",
            )))
            .await;
        }
    }
}

/// Ready when there was a notice, not before a time. Dropped half way, it leaves the notice for the next call.
async fn notified(notice: &Notify, not_before: tokio::time::Instant) {
    tokio::time::sleep_until(not_before).await;
    notice.notified().await;
}

/// Ready at a time; never, where there is none.
async fn at(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn describe(blocked: Blocked) -> BlockedAddress {
    BlockedAddress {
        address: blocked.target.address(),
        seconds_left: blocked.remaining.map_or(0, |left| left.as_secs()),
        reason: blocked.reason.unwrap_or_default(),
    }
}
