//! What is asked of the agent: orders to the firewall and the file sensor, and how everything is.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use defender_sensors::file;
use defender_sensors::login::pam::{self, Items};
use tokio::sync::oneshot;

use super::isolator::IsolateOrder;
use super::responder::{BlockOrder, Order};
use super::Pipeline;
use crate::request::{
    EventCounts, FirewallStatus, ProcessStatus, Reply, Request, RulesStatus, SensorStatus, StatusReport,
};

impl Pipeline {
    pub(super) fn serve(&mut self, request: Request, answer: oneshot::Sender<Reply>) {
        let reply = match request {
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Alerts { limit } => Reply::Events { lines: self.alerts.latest(limit) },
            Request::Events { limit } => Reply::Events { lines: self.events.latest(limit) },
            Request::Block { address, seconds, reason } => {
                let order = BlockOrder {
                    address,
                    seconds: seconds.unwrap_or(self.parts.config.response.block_seconds),
                    reason,
                    finding: None,
                    answer: Some(answer),
                };
                return self.order(Order::Block(order));
            }
            Request::Unblock { address } => return self.order(Order::Unblock(address, answer)),
            Request::Blocked => return self.order(Order::List(answer)),
            Request::Isolate { seconds, reason } => {
                let order = IsolateOrder {
                    seconds: seconds.unwrap_or(self.parts.config.response.isolate_s),
                    reason,
                    finding: None,
                    sinks: self.sinks.peers(),
                    answer: Some(answer),
                };
                return self.order(Order::Isolate(order));
            }
            Request::EndIsolation => return self.order(Order::EndIsolation(answer)),
            Request::Pam { kind, user, rhost, tty, service, pid } => {
                let items = Items { kind, user, rhost, tty, service, pid };
                let report = pam::report(&items).zip(self.parts.logins.as_ref());
                // A full queue means that more sessions begin than anybody reads of.
                let changed = report.is_some_and(|(report, logins)| logins.reports.tell(report));
                Reply::Done { changed }
            }
            Request::AcceptBaseline { next_start } => self.accept_baseline(next_start),
        };
        // Whoever asked may have gone.
        let _ = answer.send(reply);
    }

    fn accept_baseline(&self, next_start: bool) -> Reply {
        let order = if next_start { file::Order::AcceptAtNextStart } else { file::Order::Accept };
        let failed = |error: &str| Reply::Failed { error: error.to_owned() };
        match &self.parts.files {
            None => failed("there is no baseline: `files.enabled` is false"),
            Some(files) => match files.orders.try_send(order) {
                Ok(()) => Reply::Done { changed: true },
                Err(_) => failed("too many orders wait for the file sensor, or it has ended; try again"),
            },
        }
    }

    pub(super) fn order(&self, order: Order) {
        let Err(order) = self.responder.order(order) else { return };
        let answer = match order {
            Order::Block(order) => order.answer,
            Order::Isolate(order) => order.answer,
            Order::Unblock(_, answer) | Order::List(answer) | Order::EndIsolation(answer) => Some(answer),
        };
        if let Some(answer) = answer {
            let error = "too many orders wait for the firewall already; try again".to_owned();
            // Whoever asked may have gone.
            let _ = answer.send(Reply::Failed { error });
        }
    }

    pub(super) fn process_status(&self) -> ProcessStatus {
        let Some(shared) = &self.parts.process else { return ProcessStatus::default() };
        let status = shared.lock().unwrap_or_else(PoisonError::into_inner);
        ProcessStatus {
            source: status.source.map(|source| source.name().to_owned()).unwrap_or_default(),
            detail: status.detail.clone(),
            declined: status.declined.iter().map(|(source, reason)| format!("{source}: {reason}")).collect(),
            lost: status.lost,
            table: status.table as u64,
            counters: named(status.counters()),
        }
    }

    pub(super) fn files_status(&self) -> SensorStatus {
        part_status(self.parts.files.as_ref().map(|files| &files.status))
    }

    pub(super) fn peripherals_status(&self) -> SensorStatus {
        part_status(self.parts.peripherals.as_ref())
    }

    pub(super) fn logins_status(&self) -> SensorStatus {
        part_status(self.parts.logins.as_ref().map(|logins| &logins.status))
    }

    pub(super) fn packet_filter_status(&self) -> SensorStatus {
        part_status(self.parts.packet_filter.as_ref())
    }

    pub(super) fn network_status(&self) -> SensorStatus {
        let Some(shared) = &self.parts.network else { return SensorStatus::default() };
        let status = shared.lock().unwrap_or_else(PoisonError::into_inner);
        SensorStatus {
            modes: status.modes.clone(),
            lacks: status.lacks.clone(),
            counters: named(status.counters()),
        }
    }

    pub(super) fn status(&self) -> StatusReport {
        StatusReport {
            version: self.parts.device.agent_version.clone(),
            health: self.health_word().to_owned(),
            armed: self.armed_after.is_some(),
            armed_after_ms: self.armed_after.map_or(0, |after| after.as_millis() as u64),
            uptime_s: self.parts.began.elapsed().as_secs(),
            device: self.parts.device.uid.clone(),
            boot: self.parts.device.boot_id.clone(),
            degraded: self.standing.reasons(),
            process: self.process_status(),
            logins: self.logins_status(),
            network: self.network_status(),
            files: self.files_status(),
            peripherals: self.peripherals_status(),
            packet_filter: self.packet_filter_status(),
            modules: part_status(self.parts.modules.as_ref()),
            services: part_status(self.parts.services.as_ref()),
            submissions: part_status(self.parts.submissions.as_ref()),
            accounts: part_status(self.parts.accounts.as_ref()),
            inventory: part_status(self.parts.inventory.as_ref()),
            events: EventCounts { dropped: self.drops.load(Ordering::Relaxed), ..self.counts.clone() },
            rules: RulesStatus {
                loaded: self.parts.detector.rules().rules().filter(|rule| rule.enabled).count() as u64,
                errors: self.parts.rule_errors.clone(),
            },
            firewall: FirewallStatus {
                ready: self.ready && self.firewall_error.is_empty(),
                error: self.firewall_error.clone(),
                isolation: self.isolation(),
            },
            sinks: self.sinks.status(),
            confinement: self.parts.confinement.clone(),
        }
    }
}

/// Figures as they leave the agent.
fn named(counters: Vec<(&'static str, u64)>) -> Vec<(String, u64)> {
    let mut named = Vec::with_capacity(counters.len());
    for (name, count) in counters {
        named.push((name.to_owned(), count));
    }
    named
}

/// What a sensor says of itself; nothing where it is off.
pub(super) fn part_status(shared: Option<&Arc<Mutex<file::Status>>>) -> SensorStatus {
    let Some(shared) = shared else { return SensorStatus::default() };
    let status = shared.lock().unwrap_or_else(PoisonError::into_inner);
    SensorStatus {
        modes: status.modes.clone(),
        lacks: status.lacks.clone(),
        counters: named(status.counters.clone()),
    }
}
