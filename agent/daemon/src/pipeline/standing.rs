//! How the agent is, from what its parts say.

use std::collections::BTreeMap;

use defender_model::health::{Health, Kind};

/// Parts that are degraded, and why.
#[derive(Debug, Default)]
pub(super) struct Standing {
    degraded: BTreeMap<String, String>,
}

/// Parts remembered at most; there are far fewer.
const PARTS: usize = 256;

impl Standing {
    /// Takes note; true when the standing changed.
    pub(super) fn hear(&mut self, health: &Health) -> bool {
        match health.kind {
            Kind::Degraded if self.degraded.len() < PARTS => {
                let before = self.degraded.insert(health.component.clone(), health.message.clone());
                before.as_deref() != Some(health.message.as_str())
            }
            Kind::Recovered => self.degraded.remove(&health.component).is_some(),
            _ => false,
        }
    }

    /// `ok` or `degraded`.
    pub(super) fn word(&self) -> &'static str {
        if self.degraded.is_empty() {
            "ok"
        } else {
            "degraded"
        }
    }

    /// One sentence for each degraded part.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.degraded.iter().map(|(part, why)| format!("{part}: {why}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_degraded_until_it_recovers() {
        let mut standing = Standing::default();
        assert!(standing.hear(&Health::new(Kind::Degraded, "firewall", "no nft")));
        assert!(!standing.hear(&Health::new(Kind::Degraded, "firewall", "no nft")));
        assert!(!standing.hear(&Health::new(Kind::Changed, "process", "x")));
        assert_eq!((standing.word(), standing.reasons()), ("degraded", vec!["firewall: no nft".to_owned()]));
        assert!(standing.hear(&Health::new(Kind::Recovered, "firewall", "")));
        assert_eq!(standing.word(), "ok");
    }
}
