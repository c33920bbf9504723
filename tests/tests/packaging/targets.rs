//! Machines the agent is not for: the build says which they are, and what to change.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::{read, run};

/// A condition of Kconfig: symbols, `!`, `&&`, `||` and parentheses.
struct Condition<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Condition<'a> {
    fn new(text: &'a str) -> Self {
        let mut words = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let symbol = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match symbol {
                0 if rest.starts_with("&&") || rest.starts_with("||") => 2,
                0 => 1,
                length => length,
            };
            let (word, after) = rest.split_at(length);
            words.push(word);
            rest = after.trim_start();
        }
        Self { words, at: 0 }
    }

    fn symbols(text: &'a str) -> impl Iterator<Item = &'a str> {
        Self::new(text).words.into_iter().filter(|word| word.starts_with(char::is_alphabetic))
    }

    fn holds(text: &'a str, set: &BTreeSet<&str>) -> bool {
        let mut condition = Self::new(text);
        let value = condition.either(set);
        assert_eq!(condition.at, condition.words.len(), "{text}");
        value
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.words.get(self.at) == Some(&word);
        self.at += usize::from(there);
        there
    }

    fn either(&mut self, set: &BTreeSet<&str>) -> bool {
        let mut value = self.both(set);
        while self.take("||") {
            value |= self.both(set);
        }
        value
    }

    fn both(&mut self, set: &BTreeSet<&str>) -> bool {
        let mut value = self.one(set);
        while self.take("&&") {
            value &= self.one(set);
        }
        value
    }

    fn one(&mut self, set: &BTreeSet<&str>) -> bool {
        if self.take("!") {
            return !self.one(set);
        }
        if self.take("(") {
            let value = self.either(set);
            assert!(self.take(")"));
            return value;
        }
        self.at += 1;
        set.contains(self.words[self.at - 1])
    }
}

/// What the entries at the file's top level depend on: `config BR2_PACKAGE_DEFENDER`, and every comment by its text.
fn entries(text: &str) -> BTreeMap<String, Vec<String>> {
    let text = text.replace("\\\n", " ");
    let (mut found, mut inside) = (BTreeMap::new(), None);
    for line in text.lines() {
        if !line.starts_with('\t') {
            let name = line.strip_prefix("comment ").map(|text| text.trim_matches('"'));
            inside = name.or(line.strip_prefix("config ").filter(|name| *name == "BR2_PACKAGE_DEFENDER"));
        } else if let (Some(name), Some(condition)) = (inside, line.strip_prefix("\tdepends on ")) {
            let condition = condition.split('#').next().unwrap_or_default();
            found.entry(name.to_owned()).or_insert_with(Vec::new).push(condition.to_owned());
        }
    }
    found
}

#[test]
fn buildroot_offers_the_agent_or_says_why_not() {
    let text = read("buildroot-package/package/defender/Config.in");
    let entries = entries(&text);
    let symbols: BTreeSet<&str> = entries.values().flatten().flat_map(|c| Condition::symbols(c)).collect();
    let symbols: Vec<&str> = symbols.into_iter().collect();
    assert!((6..16).contains(&symbols.len()), "{symbols:?}");
    for machine in 0..1_u32 << symbols.len() {
        let chosen = |n: usize| machine & (1 << n) != 0;
        let set: BTreeSet<&str> =
            symbols.iter().enumerate().filter(|(n, _)| chosen(*n)).map(|(_, s)| *s).collect();
        let said: Vec<&String> = entries
            .iter()
            .filter(|(_, conditions)| conditions.iter().all(|c| Condition::holds(c, &set)))
            .map(|(name, _)| name)
            .collect();
        // A machine without an MMU is told nothing, as is usual in Buildroot.
        assert_eq!(said.len(), usize::from(set.contains("BR2_USE_MMU")), "{set:?}: {said:?}");
    }
}

#[test]
fn yocto_skips_the_agent_with_the_reason_and_what_to_change() {
    let recipe = read("meta-defender/recipes-security/defender/defender_0.1.0.bb");
    assert!(recipe.contains("raise bb.parse.SkipRecipe(unsupported)"));
    let at = recipe.find("def defender_unsupported").expect("the function");
    let function = &recipe[at..at + recipe[at..].find("\n\n").expect("its end")];
    let asked = |libc: &str, architecture: &str, tune: &str| {
        let script = format!(
            "{function}\nclass Data(dict):\n    getVar = dict.get\n\
             print(defender_unsupported(Data(TCLIBC='{libc}', TARGET_ARCH='{architecture}', TUNE_FEATURES='{tune}')))"
        );
        String::from_utf8(run(Command::new("python3").args(["-c", &script])).stdout).expect("text")
    };
    for architecture in ["x86_64", "aarch64", "arm", "i686", "riscv64"] {
        assert_eq!(asked("glibc", architecture, "armv7a vfp").trim(), "None", "{architecture}");
    }
    assert_eq!(asked("musl", "aarch64", "").trim(), "None");
    for (libc, architecture, tune, says) in [
        ("newlib", "x86_64", "", ["TCLIBC is 'newlib'", "set TCLIBC to one of them"]),
        ("glibc", "mips", "", ["TARGET_ARCH is 'mips'", "choose a MACHINE"]),
        ("glibc", "arm", "arm armv5 thumb", ["'arm' with armv5", "ARMv6 on"]),
    ] {
        let said = asked(libc, architecture, tune);
        assert!(says.iter().all(|words| said.contains(words)), "{said}");
    }
}
