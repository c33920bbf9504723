//! `nftables`: what the packet filter lets through.

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::nftables::rule::{Match, Verdict};
use crate::facts::nftables::traffic::{Reached, Width};
use crate::facts::nftables::{Family, Ruleset};
use crate::policy::keys::{Fault, Keys};
use crate::scan::Scan;

#[derive(Debug)]
struct Nftables {
    question: Question,
    hook: &'static str,
    /// Both when none is named.
    families: Vec<Family>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Question {
    /// A ruleset is loaded at boot, or in force.
    Loaded,
    /// What no rule accepts is dropped (or, with false, accepted).
    Policy(bool),
    /// A rule accepts this kind of packets.
    Accepts(Traffic),
    /// A rule drops this kind of packets.
    Drops(Traffic),
    /// A rule accepts wide ranges of addresses and ports.
    Permissive(Width),
    /// IPv6 is treated as IPv4 is.
    Parity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Loopback,
    ForgedLoopback,
    Established,
    Invalid,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let words = ["loaded", "policy", "accepts", "drops", "permissive", "parity"].map(|word| (word, word));
    let word = keys.word("nftables", &words)?.unwrap_or_default();
    let hooks = ["input", "output", "forward"].map(|hook| (hook, hook));
    let hook = keys.word("hook", &hooks)?.unwrap_or("input");
    let family = keys.word("family", &[("ip", Family::Ip), ("ip6", Family::Ip6)])?;
    let traffic = || {
        [
            ("loopback", Traffic::Loopback),
            ("forged-loopback", Traffic::ForgedLoopback),
            ("established", Traffic::Established),
            ("invalid", Traffic::Invalid),
        ]
    };
    let missing = |keys: &Keys<'_>, key: &str| Fault::new(keys.at, format!("`{key}` is missing"));
    let question = match word {
        "policy" => match keys.word("policy", &[("drop", true), ("accept", false)])? {
            Some(drop) => Question::Policy(drop),
            None => return Err(missing(keys, "policy")),
        },
        "accepts" | "drops" => match keys.word("traffic", &traffic())? {
            Some(traffic) if word == "accepts" => Question::Accepts(traffic),
            Some(traffic) => Question::Drops(traffic),
            None => return Err(missing(keys, "traffic")),
        },
        "permissive" => {
            let number = |value: Option<usize>, default| {
                value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
            };
            Question::Permissive(Width {
                prefix: number(keys.count("prefix_below")?, 8),
                prefix6: number(keys.count("prefix6_below")?, 32),
                ports: number(keys.count("ports_above")?, 1024),
            })
        }
        "parity" => Question::Parity,
        _ => Question::Loaded,
    };
    let families = family.map_or_else(|| vec![Family::Ip, Family::Ip6], |family| vec![family]);
    Ok(Box::new(Nftables { question, hook, families }))
}

impl Traffic {
    /// The rule is about this traffic and not narrower.
    fn is(self, reached: &Reached<'_>) -> bool {
        match self {
            Self::Loopback => {
                let lo = |m: &Match| matches!(m, Match::Interface { out: false, names, negated: false } if names.iter().any(|name| name == "lo"));
                reached.matches.iter().any(|m| lo(m)) && reached.only(lo)
            }
            Self::ForgedLoopback => {
                let forged = |m: &Match| {
                    matches!(m, Match::Address { source: true, prefixes, negated: false }
                    if prefixes.iter().any(|range| if range.v6 { range.first <= 1 && range.last >= 1 } else { range.first <= 0x7f00_0001 && range.last >= 0x7fff_ffff }))
                };
                let not_lo = |m: &Match| matches!(m, Match::Interface { negated: true, .. });
                reached.matches.iter().any(|m| forged(m)) && reached.only(|m| forged(m) || not_lo(m))
            }
            Self::Established => {
                let state = |m: &Match| matches!(m, Match::State(states) if states.iter().any(|state| state == "established"));
                reached.matches.iter().any(|m| state(m)) && reached.only(state)
            }
            Self::Invalid => {
                let state = |m: &Match| matches!(m, Match::State(states) if states.iter().any(|state| state == "invalid"));
                reached.matches.iter().any(|m| state(m)) && reached.only(state)
            }
        }
    }
}

impl Nftables {
    fn answer(&self, ruleset: &Ruleset) -> Outcome {
        let from = &ruleset.from;
        let hook = self.hook;
        let name = |family: Family| if family == Family::Ip6 { "IPv6" } else { "IPv4" };
        let (mut good, mut faults) = (Vec::new(), Vec::new());
        match self.question {
            Question::Loaded => {
                let is = ruleset.loaded && ruleset.chains.iter().any(|chain| chain.hook.is_some());
                let words = if is {
                    "in force or loaded at boot"
                } else {
                    "nothing loads a ruleset with base chains at boot"
                };
                return Outcome::of(is, vec![format!("{from}: {words}")]);
            }
            Question::Policy(wanted) => {
                for family in &self.families {
                    match ruleset.drops_by_default(hook, *family) {
                        Some(chain) if wanted => good.push(format!(
                            "{from}: table {} chain {} drops {} by default",
                            chain.table,
                            chain.name,
                            name(*family)
                        )),
                        Some(chain) => faults.push(format!(
                            "{from}: table {} chain {} drops {} by default",
                            chain.table,
                            chain.name,
                            name(*family)
                        )),
                        None if wanted => faults.push(format!(
                            "{from}: no chain of hook {hook} drops {} by default",
                            name(*family)
                        )),
                        None => good.push(format!("{from}: {hook} accepts {} by default", name(*family))),
                    }
                }
            }
            Question::Accepts(traffic) | Question::Drops(traffic) => {
                let wanted = if matches!(self.question, Question::Accepts(_)) {
                    Verdict::Accept
                } else {
                    Verdict::Drop
                };
                for family in &self.families {
                    let reached = ruleset.reached(hook, *family);
                    let found = reached.iter().find(|reached| {
                        reached.rule.verdict.as_ref() == Some(&wanted) && traffic.is(reached)
                    });
                    match found {
                        Some(found) => good.push(format!("{from}: {}", found.shown())),
                        None => faults.push(
                            format!(
                                "{from}: no rule of hook {hook} for {traffic:?} packets of {}",
                                name(*family)
                            )
                            .to_lowercase(),
                        ),
                    }
                }
            }
            Question::Permissive(width) => {
                for family in &self.families {
                    for rule in ruleset.permissive(hook, *family, width) {
                        let line = format!("{from}: {rule}");
                        if !good.contains(&line) {
                            good.push(line);
                        }
                    }
                }
                return match good.is_empty() {
                    true => Outcome::no(vec![format!(
                        "{from}: no rule of hook {hook} accepts wide ranges of addresses and ports"
                    )]),
                    false => Outcome::yes(good),
                };
            }
            Question::Parity => {
                let (v4, v6) = (
                    ruleset.drops_by_default(hook, Family::Ip).is_some(),
                    ruleset.drops_by_default(hook, Family::Ip6).is_some(),
                );
                if v4 && !v6 {
                    faults.push(format!("{from}: {hook} drops IPv4 by default and accepts IPv6"));
                }
                let open = ruleset.open_ports(hook, Family::Ip);
                for (protocol, first, last) in ruleset.open_ports(hook, Family::Ip6) {
                    let covered = open.iter().any(|(of, from, to)| {
                        (*of == protocol || of == "any") && *from <= first && last <= *to
                    });
                    if v4 && !covered {
                        faults.push(format!(
                            "{from}: {protocol} {first}-{last} is open to IPv6 and not to IPv4"
                        ));
                    }
                }
                good.push(format!("{from}: {hook} treats IPv6 as IPv4"));
            }
        }
        if faults.is_empty() {
            Outcome::yes(good)
        } else {
            Outcome::no(faults)
        }
    }
}

impl Primitive for Nftables {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        match scan.ruleset() {
            Ok(ruleset) => self.answer(ruleset),
            Err(reason) => Outcome::unknown(reason),
        }
    }
}
