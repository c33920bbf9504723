//! Comparisons of a value with what a check wants: one vocabulary for every primitive that has a value.

use crate::pattern::Pattern;
use crate::policy::keys::{Fault, Keys};

/// Everything that is stated must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Comparison {
    equals: Option<String>,
    not_equals: Option<String>,
    one_of: Option<Vec<String>>,
    none_of: Option<Vec<String>>,
    at_least: Option<i64>,
    at_most: Option<i64>,
    matches: Option<Pattern>,
    lacks: Option<Pattern>,
    contains: Option<Vec<String>>,
    set: Option<bool>,
}

impl Comparison {
    /// Reads the keys of a comparison from a primitive's table.
    pub(crate) fn parse(keys: &mut Keys<'_>) -> Result<Self, Fault> {
        Ok(Self {
            equals: keys.scalar("equals")?,
            not_equals: keys.scalar("not_equals")?,
            one_of: keys.list("one_of")?,
            none_of: keys.list("none_of")?,
            at_least: keys.number("at_least")?,
            at_most: keys.number("at_most")?,
            matches: keys.pattern("matches")?,
            lacks: keys.pattern("lacks")?,
            contains: keys.list("contains")?,
            set: keys.flag("set")?,
        })
    }

    /// Like [`Self::parse`]; a comparison that compares nothing is a mistake.
    pub(crate) fn required(keys: &mut Keys<'_>) -> Result<Self, Fault> {
        let comparison = Self::parse(keys)?;
        if comparison == Self::default() {
            return Err(Fault::new(
                keys.at,
                "no comparison; one of equals, not_equals, one_of, none_of, at_least, at_most, matches, lacks, contains, set",
            ));
        }
        Ok(comparison)
    }

    /// Whether nothing is compared.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a value, or its absence, is as wanted. Absent values satisfy only what forbids a value: `set = false`, `not_equals`,
    /// `none_of`, `lacks`.
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return self.set != Some(true)
                && self.equals.is_none()
                && self.one_of.is_none()
                && self.at_least.is_none()
                && self.at_most.is_none()
                && self.matches.is_none()
                && self.contains.is_none();
        };
        let number = || number(value);
        self.set != Some(false)
            && self.equals.as_ref().is_none_or(|wanted| same(wanted, value))
            && self.not_equals.as_ref().is_none_or(|unwanted| !same(unwanted, value))
            && self.one_of.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| same(wanted, value)))
            && self
                .none_of
                .as_ref()
                .is_none_or(|unwanted| !unwanted.iter().any(|unwanted| same(unwanted, value)))
            && self.at_least.is_none_or(|least| number().is_some_and(|number| number >= least))
            && self.at_most.is_none_or(|most| number().is_some_and(|number| number <= most))
            && self.matches.as_ref().is_none_or(|pattern| pattern.matches(value))
            && self.lacks.as_ref().is_none_or(|pattern| !pattern.matches(value))
            && self
                .contains
                .as_ref()
                .is_none_or(|wanted| wanted.iter().all(|wanted| words(value).any(|w| w == wanted)))
    }

    /// What is wanted, for evidence: `at most 4`.
    pub(crate) fn wanted(&self) -> String {
        let mut parts = Vec::new();
        let quoted = |list: &[String]| list.join(", ");
        if let Some(wanted) = &self.equals {
            parts.push(wanted.clone());
        }
        if let Some(unwanted) = &self.not_equals {
            parts.push(format!("not {unwanted}"));
        }
        if let Some(wanted) = &self.one_of {
            parts.push(format!("one of {}", quoted(wanted)));
        }
        if let Some(unwanted) = &self.none_of {
            parts.push(format!("none of {}", quoted(unwanted)));
        }
        if let Some(least) = self.at_least {
            parts.push(format!("at least {least}"));
        }
        if let Some(most) = self.at_most {
            parts.push(format!("at most {most}"));
        }
        if let Some(pattern) = &self.matches {
            parts.push(format!("matching `{}`", pattern.as_str()));
        }
        if let Some(pattern) = &self.lacks {
            parts.push(format!("not matching `{}`", pattern.as_str()));
        }
        if let Some(wanted) = &self.contains {
            parts.push(format!("with {}", quoted(wanted)));
        }
        match self.set {
            Some(true) => parts.push("set".to_owned()),
            Some(false) => parts.push("not set".to_owned()),
            None => {}
        }
        parts.join(" and ")
    }

    /// One line of evidence: what the value is, and what was wanted where it is not so.
    pub(crate) fn evidence(&self, what: &str, value: Option<&str>, holds: bool) -> String {
        let value = value.unwrap_or("not set");
        match holds {
            true => format!("{what}: {value}"),
            false => format!("{what}: {value}, wanted {}", self.wanted()),
        }
    }
}

/// A whole number, decimal or `0x`; the first word of the value where it has several.
fn number(value: &str) -> Option<i64> {
    let word = value.split_whitespace().next()?;
    match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Equal as text, or as numbers where both are.
fn same(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<i64>(), b.parse::<i64>()), (Ok(a), Ok(b)) if a == b)
}

/// The parts of a list such as `a,b c`.
fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(toml: &str) -> Comparison {
        let table = toml::de::DeTable::parse(toml).unwrap();
        let mut keys = Keys::new(table.get_ref(), 0);
        let comparison = Comparison::required(&mut keys).unwrap();
        keys.finish().unwrap();
        comparison
    }

    #[test]
    fn compares_numbers_as_numbers_and_text_as_text() {
        let table = [
            ("at_most = 4", "4", true),
            ("at_most = 4", "5", false),
            ("at_most = 4", "four", false),
            ("at_least = 16", "0x10", true),
            ("equals = 1", "01", true),
            ("equals = \"yes\"", "Yes", false),
            ("one_of = [\"a\", 2]", "2", true),
            ("none_of = [\"a\"]", "a", false),
            ("contains = [\"nodev\", \"nosuid\"]", "rw,nosuid,nodev", true),
            ("contains = \"nodev\"", "rw,nodevx", false),
            ("matches = \"^a.c$\"", "abc", true),
            ("lacks = \"b\"", "abc", false),
            ("set = false", "x", false),
            ("at_least = 1\nat_most = 3", "2", true),
            ("at_least = 1\nat_most = 3", "0", false),
        ];
        for (toml, value, holds) in table {
            assert_eq!(comparison(toml).holds(Some(value)), holds, "{toml} on {value}");
        }
    }

    #[test]
    fn absence_satisfies_only_what_forbids() {
        for (toml, holds) in [
            ("equals = \"\"", false),
            ("set = true", false),
            ("set = false", true),
            ("none_of = [\"a\"]", true),
            ("at_most = 3", false),
        ] {
            assert_eq!(comparison(toml).holds(None), holds, "{toml}");
        }
    }

    #[test]
    fn evidence_says_what_is_and_what_was_wanted() {
        let comparison = comparison("at_least = 1\nat_most = 3");
        assert_eq!(
            comparison.evidence("MaxAuthTries", Some("6"), false),
            "MaxAuthTries: 6, wanted at least 1 and at most 3"
        );
        assert_eq!(comparison.evidence("MaxAuthTries", Some("2"), true), "MaxAuthTries: 2");
    }
}
