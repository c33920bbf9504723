//! What a ruleset does with packets: policies, rules that are too wide, ports by family.

use std::collections::BTreeSet;

use super::rule::{Match, Rule, Verdict};
use super::{Chain, Family, Ruleset};

/// Deepest jump.
const MAX_DEPTH: usize = 16;
/// Most rules looked at in one question, jumps counted each time.
const MAX_STEPS: usize = 100_000;

/// A rule with everything that must fit on the way to it.
pub(crate) struct Reached<'r> {
    pub(crate) chain: &'r Chain,
    pub(crate) rule: &'r Rule,
    pub(crate) matches: Vec<&'r Match>,
}

/// How wide a rule may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Width {
    /// Shorter prefixes are wide.
    pub(crate) prefix: u32,
    pub(crate) prefix6: u32,
    /// More ports are wide.
    pub(crate) ports: u32,
}

impl Ruleset {
    /// Base chains of a hook that filter packets of a family.
    pub(crate) fn bases(&self, hook: &str, family: Family) -> Vec<&Chain> {
        let is = |chain: &&Chain| {
            chain.hook.as_deref() == Some(hook)
                && chain.family.sees(family)
                && chain.kind.as_deref().is_none_or(|kind| kind == "filter")
        };
        self.chains.iter().filter(is).collect()
    }

    /// The chain that drops what no rule accepts: by policy, or by a last rule without conditions.
    #[inline(never)] // Flash is counted, and every question asks it.
    pub(crate) fn drops_by_default(&self, hook: &str, family: Family) -> Option<&Chain> {
        let unconditional = |rule: &Rule| {
            rule.verdict == Some(Verdict::Drop)
                && rule.matches.iter().all(|m| matches!(m, Match::Family(of) if of.sees(family)))
        };
        let mut bases = self.bases(hook, family).into_iter();
        bases.find(|chain| chain.policy_drop || chain.rules.last().is_some_and(unconditional))
    }

    /// Every rule a packet of a family can come to in a hook, jumps followed.
    #[inline(never)] // Flash is counted, and every question asks it.
    pub(crate) fn reached(&self, hook: &str, family: Family) -> Vec<Reached<'_>> {
        let mut reached = Vec::new();
        let mut steps = 0;
        for base in self.bases(hook, family) {
            let mut stack = vec![(base, 0_usize, Vec::<&Match>::new())];
            while let Some((chain, at, before)) = stack.pop() {
                steps += 1;
                let Some(rule) = chain.rules.get(at).filter(|_| steps < MAX_STEPS) else { continue };
                let deep = stack.len() >= MAX_DEPTH;
                stack.push((chain, at + 1, before.clone()));
                let mut matches = before;
                matches.extend(&rule.matches);
                let other_family = |m: &&Match| matches!(m, Match::Family(of) if !of.sees(family));
                if matches.iter().any(other_family) {
                    continue;
                }
                if let Some(Verdict::Jump(name) | Verdict::Goto(name)) = &rule.verdict {
                    let target = self.chains.iter().find(|other| {
                        other.family == chain.family && other.table == chain.table && other.name == *name
                    });
                    if let Some(target) = target.filter(|_| !deep) {
                        stack.push((target, 0, matches.clone()));
                    }
                }
                reached.push(Reached { chain, rule, matches });
            }
        }
        reached
    }

    /// Rules that accept packets from (in `output`: to) a wide range of addresses on a wide range of ports.
    pub(crate) fn permissive(&self, hook: &str, family: Family, width: Width) -> Vec<String> {
        let accepts = self
            .reached(hook, family)
            .into_iter()
            .filter(|reached| reached.rule.verdict == Some(Verdict::Accept));
        accepts
            .filter(|reached| reached.is_wide(hook != "output", family, width))
            .map(|reached| reached.shown())
            .collect()
    }

    /// Transport ports that new connections are accepted on, as protocol and range.
    #[inline(never)] // Flash is counted, and every question asks it.
    pub(crate) fn open_ports(&self, hook: &str, family: Family) -> BTreeSet<(String, u16, u16)> {
        let mut open = BTreeSet::new();
        for reached in
            self.reached(hook, family).iter().filter(|reached| reached.rule.verdict == Some(Verdict::Accept))
        {
            let (mut protocols, mut ports, mut other) = (vec!["any".to_owned()], vec![(0, u16::MAX)], false);
            for m in &reached.matches {
                match m {
                    Match::Protocol { names, negated: false } => protocols.clone_from(names),
                    Match::Port { source: false, ranges, negated: false } => ports.clone_from(ranges),
                    Match::Family(_) | Match::Address { .. } => {}
                    Match::Interface { names, .. } if names.iter().all(|name| name != "lo") => {}
                    Match::State(states) if states.iter().any(|state| state == "new") => {}
                    // Source ports, answers to our own connections, loopback, limits: not an open port as such.
                    _ => other = true,
                }
            }
            if !other {
                for protocol in protocols.iter().filter(|protocol| !is_icmp(protocol)) {
                    open.extend(ports.iter().map(|(first, last)| (protocol.clone(), *first, *last)));
                }
            }
        }
        open
    }
}

impl Reached<'_> {
    /// One line of evidence.
    pub(crate) fn shown(&self) -> String {
        format!("table {} chain {}: {}", self.chain.table, self.chain.name, self.rule.shown)
    }

    /// Every condition is one of those.
    pub(crate) fn only(&self, allowed: impl Fn(&Match) -> bool) -> bool {
        self.matches.iter().all(|m| matches!(m, Match::Family(_)) || allowed(m))
    }

    fn is_wide(&self, source: bool, family: Family, width: Width) -> bool {
        let (mut addresses, mut ports) = (true, true);
        for m in &self.matches {
            match m {
                // Answers to our own connections, and what never leaves the device.
                Match::State(states)
                    if !states.iter().any(|state| state == "new" || state == "untracked") =>
                {
                    return false
                }
                Match::Interface { names, negated: false, .. } if names.iter().all(|name| name == "lo") => {
                    return false
                }
                Match::Protocol { names, negated: false } if names.iter().all(|name| is_icmp(name)) => {
                    return false
                }
                Match::Other => return false,
                Match::Address { source: of, prefixes, negated } if *of == source => {
                    let least = if family == Family::Ip6 { width.prefix6 } else { width.prefix };
                    addresses &= *negated || prefixes.iter().any(|range| range.prefix_length() < least);
                }
                Match::Port { source: false, ranges, negated } => {
                    let count: u32 =
                        ranges.iter().map(|(first, last)| u32::from(last.saturating_sub(*first)) + 1).sum();
                    let count = if *negated { 65_536_u32.saturating_sub(count) } else { count };
                    ports &= count > width.ports;
                }
                _ => {}
            }
        }
        addresses && ports
    }
}

/// ICMP by its names and numbers (1, 58).
fn is_icmp(protocol: &str) -> bool {
    matches!(protocol, "icmp" | "icmpv6" | "ipv6-icmp" | "1" | "58")
}
