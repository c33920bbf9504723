//! What is done about a finding: orders to the firewall, the hook, or a signal to a process.

use std::net::IpAddr;

use defender_model::event::Event;
use defender_model::finding::{Evidence, Finding, Response};
use defender_model::process::Ancestor;
use defender_model::remediation::{Action, Outcome, Remediation};

use super::isolator::IsolateOrder;
use super::responder::{BlockOrder, Order};
use super::Pipeline;
use crate::response::{self, hook, kill};

/// Why nothing was done.
const DRY_RUN: &str = "`response.dry_run` is on";
/// Why an order was not taken.
const WAITING: &str = "too many orders wait for the firewall already";

impl Pipeline {
    pub(super) fn respond(&mut self, finding: &Finding) {
        if !self.parts.config.response.enabled {
            return;
        }
        for response in response::wanted(finding, &self.parts.config.response) {
            match response {
                Response::BlockSource => self.block(finding, finding.source),
                Response::BlockDestination => self.block(finding, finding.destination),
                Response::KillProcess => self.kill(finding),
                Response::RunHook => self.run_hook(finding),
                Response::Isolate => self.isolate(finding),
            }
        }
    }

    fn run_hook(&mut self, finding: &Finding) {
        let now = (self.parts.clock)();
        let mut ocsf = Vec::new();
        self.encoder.encode(&Event::new(now, finding.clone().into()), &mut ocsf);
        let order = hook::Order {
            finding: finding.uid.clone(),
            reason: finding.rule.title.clone(),
            // JSON that serde wrote is UTF-8.
            ocsf: String::from_utf8(ocsf).unwrap_or_default().into(),
        };
        let refused = match &self.hook {
            None => Some(order.refused("`response.hook` names no program")),
            Some(_) if self.parts.config.response.dry_run => Some(order.refused(DRY_RUN)),
            Some(hook) => hook.order(order).err(),
        };
        if let Some(refused) = refused {
            self.remediated(*refused);
        }
    }

    fn kill(&mut self, finding: &Finding) {
        let process = finding.evidence.iter().find_map(|evidence| match evidence {
            Evidence::Process(process) => Some(process),
            _ => None,
        });
        let Some(process) = process else { return };
        let config = &self.parts.config.response;
        let outcome = if !config.kill_process {
            Outcome::Refused("`response.kill_process` is off".to_owned())
        } else if config.dry_run {
            Outcome::Refused(DRY_RUN.to_owned())
        } else {
            kill::kill(process, finding.last_seen, &kill::guard(&config.never_kill))
        };
        let killed = Ancestor {
            pid: process.pid,
            executable: process.executable.clone(),
            command_line: process.command_line().into(),
            parent: None,
        };
        let done = Remediation::for_finding(finding, Action::Kill, outcome);
        self.remediated(Remediation { process: Some(killed), ..done });
    }

    fn block(&mut self, finding: &Finding, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        let response = &self.parts.config.response;
        let seconds = response.block_seconds;
        let outcome = if response.dry_run {
            Outcome::Refused(DRY_RUN.to_owned())
        } else {
            let order = BlockOrder {
                address,
                seconds,
                reason: finding.rule.title.clone(),
                finding: Some(finding.uid.clone()),
                answer: None,
            };
            match self.responder.order(Order::Block(order)) {
                Ok(()) => return,
                Err(_) => Outcome::Failed(WAITING.to_owned()),
            }
        };
        let done = Remediation::for_finding(finding, Action::Block, outcome);
        self.remediated(Remediation { address: Some(address), seconds: Some(seconds), ..done });
    }

    fn isolate(&mut self, finding: &Finding) {
        let config = &self.parts.config.response;
        let seconds = config.isolate_s;
        let outcome = if !config.isolate {
            Outcome::Refused("`response.isolate` is off".to_owned())
        } else if config.dry_run {
            Outcome::Refused(DRY_RUN.to_owned())
        } else {
            let order = IsolateOrder {
                seconds,
                reason: finding.rule.title.clone(),
                finding: Some(finding.uid.clone()),
                sinks: self.sinks.peers(),
                answer: None,
            };
            match self.responder.order(Order::Isolate(order)) {
                Ok(()) => return,
                Err(_) => Outcome::Failed(WAITING.to_owned()),
            }
        };
        let done = Remediation::for_finding(finding, Action::Isolate, outcome);
        self.remediated(Remediation { seconds: Some(seconds), ..done });
    }
}
