//! The packet filter: what nftables rules accept and drop, of the running kernel or of the files that would be loaded at boot.
//!
//! | Module | Holds |
//! |---|---|
//! | `syntax` | nft(8)'s own language, as far as filters use it |
//! | `tokens` | its tokens |
//! | `listing` | `nft -j list ruleset` |
//! | [`rule`] | a rule as what it looks at and what it does |
//! | [`traffic`] | what a ruleset does with packets |

mod listing;
pub(crate) mod rule;
mod syntax;
mod tokens;
pub(crate) mod traffic;

use std::collections::HashMap;

use self::rule::{Draft, Rule};
use super::image;
use crate::root::Root;
use crate::scan::Inputs;

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    Ip,
    Ip6,
    Inet,
    /// arp, bridge, netdev: they see no packets of the network layer, or not as a filter.
    Other,
}

impl Family {
    fn of(word: &str) -> Self {
        match word {
            "ip" => Self::Ip,
            "ip6" => Self::Ip6,
            "inet" => Self::Inet,
            _ => Self::Other,
        }
    }

    /// Chains of this family see packets of that one.
    pub(crate) fn sees(self, family: Self) -> bool {
        self == family || self == Self::Inet
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chain {
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) name: String,
    /// `filter`, `nat` or `route`, of a base chain.
    pub(crate) kind: Option<String>,
    pub(crate) hook: Option<String>,
    /// What nothing decided is dropped.
    pub(crate) policy_drop: bool,
    pub(crate) rules: Vec<Rule>,
}

/// A ruleset.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Ruleset {
    pub(crate) chains: Vec<Chain>,
    /// Where it was read.
    pub(crate) from: String,
    /// Something loads it at boot, or it is in force.
    pub(crate) loaded: bool,
}

/// A ruleset as either reader finds it; sets are looked up when all are known.
#[derive(Debug, Default)]
struct Found {
    chains: Vec<(Chain, Vec<Draft>)>,
    sets: HashMap<(Family, String, String), Vec<String>>,
}

/// Most rules of a ruleset.
const MAX_RULES: usize = 20_000;
/// What the agent's own loader loads.
const OWN: &str = "/etc/defender/nftables/base.nft";
/// Files that are loaded where nothing says which.
const USUAL: &[&str] = &[
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/nftables/main.nft",
    "/etc/nftables.nft",
    OWN,
];

impl Ruleset {
    /// The ruleset; the error says why it is not known.
    pub(crate) fn find(root: &Root, inputs: &Inputs) -> Result<Self, String> {
        if let Some(text) = &inputs.ruleset {
            let found = listing::read(text)?;
            return Ok(found.finish("the ruleset in force".to_owned(), true));
        }
        if inputs.live {
            return Err("the ruleset in force could not be read: it takes nft and root".to_owned());
        }
        let loaders = loaders(root)?;
        let loaded = !loaders.is_empty();
        let mut files = loaders;
        if files.is_empty() {
            files.extend(image::any(root, USUAL).map_err(|unreadable| unreadable.to_string())?);
        }
        if files.is_empty() {
            return Ok(Self { from: "no nftables ruleset in the image".to_owned(), ..Self::default() });
        }
        let mut found = Found::default();
        for file in &files {
            syntax::read(root, file, &mut found)?;
        }
        Ok(found.finish(files.join(", "), loaded))
    }
}

impl Found {
    fn rules(&self) -> usize {
        self.chains.iter().map(|(_, rules)| rules.len()).sum()
    }

    fn finish(self, from: String, loaded: bool) -> Ruleset {
        let Self { chains, sets } = self;
        let chains = chains.into_iter().map(|(mut chain, drafts)| {
            let set = |name: &str| {
                sets.get(&(chain.family, chain.table.clone(), name.to_owned())).map(Vec::as_slice)
            };
            chain.rules = drafts.iter().flat_map(|draft| draft.rules(&set)).collect();
            chain
        });
        Ruleset { chains: chains.collect(), from, loaded }
    }
}

/// The files that scripts and units of the image load by `nft -f`, when they are started at boot.
fn loaders(root: &Root) -> Result<Vec<String>, String> {
    let mut files: Vec<String> = Vec::new();
    let patterns = [
        "/etc/systemd/system/*.wants/*.service",
        "/{usr/,}lib/systemd/system/*.wants/*.service",
        "/etc/init.d/S*",
        "/etc/rc*.d/S*",
        "/etc/runlevels/*/*",
        "/etc/init.d/rcS",
        "/etc/rc.local",
        "/etc/network/if-pre-up.d/*",
    ];
    for pattern in patterns {
        for path in root.glob(pattern).map_err(|unreadable| unreadable.to_string())? {
            let Ok(Some(text)) = root.text(&path) else { continue };
            for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
                // Our own loader is named in a variable of the init script, and takes the directory from its environment.
                let own = line.contains("/usr/libexec/defender/firewall").then(|| OWN.to_owned());
                let file = own.or_else(|| file_of(line)).or_else(|| default_file(line));
                for file in file.into_iter() {
                    if !files.contains(&file) && root.exists(&file).unwrap_or(false) {
                        files.push(file);
                    }
                }
            }
        }
    }
    Ok(files)
}

/// The file of `nft -f FILE` in a line of a script.
fn file_of(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let nft = words
        .iter()
        .position(|word| word.trim_start_matches("ExecStart=").trim_matches(['"', '-']).ends_with("nft"))?;
    let flag = words[nft..].iter().position(|word| matches!(*word, "-f" | "--file"))?;
    let file = words.get(nft + flag + 1)?.trim_matches(['"', '\'', ';']);
    file.starts_with('/').then(|| file.to_owned())
}

/// The file of a script's variable (`CONFIG=/etc/nftables.conf`).
fn default_file(line: &str) -> Option<String> {
    let (_, value) = line.trim().split_once('=')?;
    let value = value.trim().trim_matches(['"', '\'']);
    (value.starts_with('/') && value.contains("nft") && (value.ends_with(".conf") || value.ends_with(".nft")))
        .then(|| value.to_owned())
}

#[cfg(test)]
mod tests;
