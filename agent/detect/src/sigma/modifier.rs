//! Modifiers: what stands after the bar in `field|modifier`.

use crate::encoding::{self, Utf16};
use crate::error::Cause;
use crate::field;
use crate::pattern::Pattern;
use crate::predicate::{Comparison, Network, Number, Place, RegexFlags, Test};
use crate::sigma::detection::{Placeholders, Scope};
use crate::yaml::{Kind, Node};

/// Most values one value may expand to.
const MAX_EXPANSION: usize = 1000;
/// Longest string with wildcards, in bytes: bounds the work of matching one.
const MAX_PATTERN: usize = 4096;

/// The modifiers of one item, checked against each other.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// All values must match: `all`.
    pub(crate) all: bool,
    /// The item as a whole must not match: `neq`.
    pub(crate) negated: bool,
    kind: Interpretation,
    encodings: Vec<Encoding>,
    starts: bool,
    ends: bool,
    cased: bool,
    expand: bool,
    fieldref: bool,
    /// The modifiers that change text, for messages.
    on_text: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Interpretation {
    #[default]
    Text,
    Regex(RegexFlags),
    Cidr,
    Compare(Comparison),
    Exists,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Encoding {
    Base64,
    Base64Offset,
    Utf16(Utf16),
    Windash,
}

/// A test and how it must come out.
#[derive(Debug)]
pub(crate) enum Outcome {
    Holds(Test),
    Fails(Test),
}

impl Chain {
    /// Reads the modifiers in the order they are written.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, Cause> {
        let mut chain = Self::default();
        for word in words {
            chain.add(word)?;
        }
        if chain.kind != Interpretation::Text && !chain.on_text.is_empty() {
            return Err(Cause::Modifier(format!(
                "`{}` does not go with the others",
                chain.on_text.join("`, `")
            )));
        }
        if chain.fieldref && (!chain.encodings.is_empty() || chain.expand) {
            return Err(Cause::Modifier("`fieldref` takes no encoding".to_owned()));
        }
        Ok(chain)
    }

    fn add(&mut self, word: &str) -> Result<(), Cause> {
        match word {
            "all" => self.all = true,
            "neq" => self.negated = true,
            "contains" | "startswith" | "endswith" => {
                self.ends |= word != "endswith";
                self.starts |= word != "startswith";
                // A regular expression already matches anywhere, so `contains` adds nothing to it.
                if !(word == "contains" && matches!(self.kind, Interpretation::Regex(_))) {
                    self.on_text.push(word.to_owned());
                }
            }
            "cased" => {
                self.cased = true;
                self.on_text.push(word.to_owned());
            }
            "expand" => self.expand = true,
            "fieldref" => self.fieldref = true,
            "base64" => self.encode(word, Encoding::Base64),
            "base64offset" => self.encode(word, Encoding::Base64Offset),
            "wide" | "utf16le" => self.encode(word, Encoding::Utf16(Utf16::Little)),
            "utf16be" => self.encode(word, Encoding::Utf16(Utf16::Big)),
            "utf16" => self.encode(word, Encoding::Utf16(Utf16::Marked)),
            "windash" => self.encode(word, Encoding::Windash),
            "re" => self.interpret(word, Interpretation::Regex(RegexFlags::default()))?,
            "i" | "ignorecase" => self.flag(word, |flags| flags.ignore_case = true)?,
            "m" | "multiline" => self.flag(word, |flags| flags.multi_line = true)?,
            "s" | "dotall" => self.flag(word, |flags| flags.dot_all = true)?,
            "cidr" => self.interpret(word, Interpretation::Cidr)?,
            "exists" => self.interpret(word, Interpretation::Exists)?,
            "lt" | "lte" | "gt" | "gte" => {
                let comparison = Comparison::from_name(word).unwrap_or(Comparison::Eq);
                self.interpret(word, Interpretation::Compare(comparison))?;
            }
            "minute" | "hour" | "day" | "week" | "month" | "year" => {
                return Err(Cause::Unsupplied(format!(
                    "`{word}` needs a field that holds a time, and no sensor supplies one"
                )))
            }
            "" => return Err(Cause::Modifier("a modifier is missing after `|`".to_owned())),
            _ => return Err(Cause::Modifier(format!("`{word}` is not a modifier"))),
        }
        Ok(())
    }

    fn encode(&mut self, word: &str, encoding: Encoding) {
        self.on_text.push(word.to_owned());
        self.encodings.push(encoding);
    }

    fn interpret(&mut self, word: &str, kind: Interpretation) -> Result<(), Cause> {
        if self.kind != Interpretation::Text {
            return Err(Cause::Modifier(format!(
                "`{word}` after another modifier that interprets the value"
            )));
        }
        self.kind = kind;
        Ok(())
    }

    fn flag(&mut self, word: &str, set: impl FnOnce(&mut RegexFlags)) -> Result<(), Cause> {
        match &mut self.kind {
            Interpretation::Regex(flags) => {
                set(flags);
                Ok(())
            }
            _ => Err(Cause::Modifier(format!("`{word}` is a flag of `re` and must come after it"))),
        }
    }

    /// The tests one of which a value must pass.
    pub(crate) fn tests(&self, value: &Node, scope: &Scope<'_>) -> Result<Vec<Outcome>, Cause> {
        let holds = |test| Ok(vec![Outcome::Holds(test)]);
        match (self.kind, &value.kind) {
            (_, Kind::List(_) | Kind::Map(_)) => {
                Err(Cause::Structure(format!("a value must be a scalar, not {}", value.kind_name())))
            }
            (Interpretation::Exists, Kind::Bool(true)) => holds(Test::Exists),
            (Interpretation::Exists, Kind::Bool(false)) => Ok(vec![Outcome::Fails(Test::Exists)]),
            (Interpretation::Exists, _) => Err(Cause::Modifier("`exists` takes true or false".to_owned())),
            (Interpretation::Compare(comparison), Kind::Int(n)) => {
                holds(Test::Number { comparison, bound: Number::Whole(*n) })
            }
            (Interpretation::Compare(comparison), Kind::Float(n)) => {
                holds(Test::Number { comparison, bound: Number::fraction(*n) })
            }
            (Interpretation::Compare(c), _) => {
                Err(Cause::Modifier(format!("`{}` takes a number, not {}", c.name(), value.kind_name())))
            }
            (Interpretation::Text, Kind::Null) if self.on_text.is_empty() && !self.fieldref => {
                Ok(vec![Outcome::Fails(Test::Exists)])
            }
            (_, Kind::Null) => Err(Cause::Modifier("null takes no modifiers".to_owned())),
            (Interpretation::Text, Kind::Int(n)) if self.on_text.is_empty() && !self.fieldref => {
                holds(Test::Number { comparison: Comparison::Eq, bound: Number::Whole(*n) })
            }
            (Interpretation::Text, Kind::Float(n)) if self.on_text.is_empty() && !self.fieldref => {
                holds(Test::Number { comparison: Comparison::Eq, bound: Number::fraction(*n) })
            }
            _ if self.fieldref => {
                let name = value
                    .text()
                    .ok_or_else(|| Cause::Modifier("`fieldref` takes a field name".to_owned()))?;
                let other = field::resolve(scope.class, name)?;
                let place = match (self.starts, self.ends) {
                    (false, false) => Place::Whole,
                    (true, true) => Place::Anywhere,
                    (true, false) => Place::End,
                    (false, true) => Place::Start,
                };
                holds(Test::OtherField { other, place, cased: self.cased })
            }
            _ => Ok(self.text_tests(value, scope)?.into_iter().map(Outcome::Holds).collect()),
        }
    }

    /// Tests of a keyword: like those of a field, but anywhere in the text.
    pub(crate) fn keyword_tests(&self, value: &Node, scope: &Scope<'_>) -> Result<Vec<Test>, Cause> {
        if self.fieldref || matches!(self.kind, Interpretation::Exists | Interpretation::Compare(_)) {
            return Err(Cause::Modifier("this modifier needs a field".to_owned()));
        }
        let anywhere = Self {
            starts: true,
            ends: true,
            kind: self.kind,
            encodings: self.encodings.clone(),
            cased: self.cased,
            expand: self.expand,
            ..Self::default()
        };
        anywhere.text_tests(value, scope)
    }

    fn text_tests(&self, value: &Node, scope: &Scope<'_>) -> Result<Vec<Test>, Cause> {
        let text = value.scalar_text().ok_or_else(|| {
            Cause::Structure(format!("a value must be a scalar, not {}", value.kind_name()))
        })?;
        match self.kind {
            Interpretation::Cidr => self
                .expanded(&text, scope.placeholders, str::to_owned)?
                .iter()
                .map(|text| Network::parse(text).map(Test::Cidr))
                .collect(),
            Interpretation::Regex(flags) => Ok(self
                .expanded(&text, scope.placeholders, escape_regex)?
                .into_iter()
                .map(|expression| Test::Regex { expression, flags })
                .collect()),
            Interpretation::Text | Interpretation::Exists | Interpretation::Compare(_) => {
                // A placeholder may stand for a pattern (the specification's `srv*`), so wildcards in its values are wildcards.
                let mut patterns: Vec<Pattern> = self
                    .expanded(&text, scope.placeholders, str::to_owned)?
                    .iter()
                    .map(|text| Pattern::parse(text))
                    .collect();
                for encoding in &self.encodings {
                    patterns = patterns
                        .iter()
                        .map(|pattern| encode(pattern, *encoding))
                        .collect::<Result<Vec<_>, _>>()?
                        .concat();
                }
                patterns
                    .into_iter()
                    .map(|mut pattern| {
                        if pattern.has_wildcards() && pattern.len() > MAX_PATTERN {
                            return Err(Cause::TooLarge(format!(
                                "a value with wildcards has more than {MAX_PATTERN} bytes"
                            )));
                        }
                        if self.starts {
                            pattern.open_start();
                        }
                        if self.ends {
                            pattern.open_end();
                        }
                        Ok(Test::from_pattern(pattern, self.cased))
                    })
                    .collect()
            }
        }
    }

    /// The texts a value stands for, once its placeholders are replaced.
    fn expanded(
        &self,
        text: &str,
        placeholders: &Placeholders,
        escape: impl Fn(&str) -> String,
    ) -> Result<Vec<String>, Cause> {
        if !self.expand {
            return Ok(vec![text.to_owned()]);
        }
        let plain = vec!["%".to_owned()];
        let mut done = vec![String::new()];
        let mut rest = text;
        while let Some((before, token, after)) = next_percent(rest) {
            rest = after;
            let values = match token {
                Percent::Plain => &plain,
                Percent::Placeholder(name) => placeholders.get(name).ok_or_else(|| {
                    Cause::Value(format!(
                        "the configuration gives no values for the placeholder `%{name}%`; add it to [rules.placeholders]"
                    ))
                })?,
            };
            if done.len().saturating_mul(values.len()) > MAX_EXPANSION {
                return Err(Cause::TooLarge(format!(
                    "placeholders expand to more than {MAX_EXPANSION} values"
                )));
            }
            let escape = |value: &str| match token {
                Percent::Plain => value.to_owned(),
                Percent::Placeholder(_) => escape(value),
            };
            done = done
                .iter()
                .flat_map(|start| {
                    values.iter().map(|v| format!("{start}{before}{}", escape(v))).collect::<Vec<_>>()
                })
                .collect();
        }
        for text in &mut done {
            text.push_str(rest);
        }
        Ok(done)
    }
}

/// What a percent sign can be.
#[derive(Clone, Copy)]
enum Percent<'a> {
    /// `\%`: a plain one.
    Plain,
    /// `%name%`.
    Placeholder(&'a str),
}

/// What is before the first `\%` or `%name%`, which of them it is, and what is after it.
fn next_percent(text: &str) -> Option<(&str, Percent<'_>, &str)> {
    let mut from = 0;
    while let Some(open) = text[from..].find('%').map(|i| from + i) {
        if text[..open].ends_with('\\') {
            return Some((&text[..open - 1], Percent::Plain, &text[open + 1..]));
        }
        let close = open + 1 + text[open + 1..].find('%')?;
        let name = &text[open + 1..close];
        if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            return Some((&text[..open], Percent::Placeholder(name), &text[close + 1..]));
        }
        from = close;
    }
    None
}

/// The text as a regular expression that matches it alone.
pub(crate) fn escape_regex(text: &str) -> String {
    escape(text, |c| r"\.+*?()|[]{}^$#&-~/".contains(c))
}

fn escape(text: &str, special: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if special(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn encode(pattern: &Pattern, encoding: Encoding) -> Result<Vec<Pattern>, Cause> {
    let literal = || {
        pattern
            .as_literal()
            .ok_or_else(|| Cause::Modifier("a value with wildcards cannot be encoded in Base64".to_owned()))
    };
    match encoding {
        Encoding::Base64 => Ok(vec![Pattern::literal(encoding::base64(literal()?))]),
        Encoding::Base64Offset => Ok(encoding::base64_offsets(literal()?).map(Pattern::literal).to_vec()),
        Encoding::Utf16(order) => Ok(vec![encoding::utf16(pattern, order)?]),
        Encoding::Windash => encoding::windash(pattern),
    }
}
