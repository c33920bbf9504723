//! One question about one field: the leaves of every rule.

use std::net::IpAddr;
use std::sync::OnceLock;

use crate::error::Cause;
use crate::field::{Field, Value, Values};
use crate::pattern::{self, Part, Pattern};
use crate::regular::{self, Regex};

/// A question, as rules spell it: comparable, so that equal questions of different rules are asked once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) field: Field,
    pub(crate) test: Test,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    /// The text is, starts with, ends with or contains a literal.
    Literal { place: Place, bytes: Vec<u8>, cased: bool },
    /// The text matches a pattern that is none of these.
    Glob { parts: Vec<Part>, cased: bool },
    /// Some part of the text matches a regular expression.
    Regex { expression: String, flags: RegexFlags },
    /// The text is an address in a network.
    Cidr(Network),
    /// The value is a number that compares so.
    Number { comparison: Comparison, bound: Number },
    /// The event has the field.
    Exists,
    /// The value relates so to that of another field.
    OtherField { other: Field, place: Place, cased: bool },
}

/// Where a literal must stand in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Whole,
    Start,
    End,
    Anywhere,
}

impl Place {
    /// A literal of `length` found at `start..end` of a value of `total` bytes stands in the right place.
    pub(crate) fn accepts(self, start: usize, end: usize, total: usize) -> bool {
        match self {
            Self::Whole => start == 0 && end == total,
            Self::Start => start == 0,
            Self::End => end == total,
            Self::Anywhere => true,
        }
    }
}

/// Flags of the modifiers `i`, `m`, `s` after `re`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct RegexFlags {
    pub(crate) ignore_case: bool,
    pub(crate) multi_line: bool,
    pub(crate) dot_all: bool,
}

/// How numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Less than.
    Lt,
    /// At most.
    Lte,
    /// More than.
    Gt,
    /// At least.
    Gte,
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
}

impl Comparison {
    /// Sigma's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Eq => "eq",
            Self::Neq => "neq",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Lt, Self::Lte, Self::Gt, Self::Gte, Self::Eq, Self::Neq].into_iter().find(|c| c.name() == name)
    }

    pub(crate) fn holds<T: PartialOrd + Copy>(self, left: T, right: T) -> bool {
        match self {
            Self::Lt => left < right,
            Self::Lte => left <= right,
            Self::Gt => left > right,
            Self::Gte => left >= right,
            Self::Eq => left == right,
            Self::Neq => left != right,
        }
    }
}

/// A number in a rule. A fraction keeps its bits, so that it can be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    Whole(i64),
    Fraction(u64),
}

impl Number {
    pub(crate) fn fraction(value: f64) -> Self {
        Self::Fraction(value.to_bits())
    }
}

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `192.0.2.0/24`, `2001:db8::/32`, or an address alone. Bits below the prefix must be zero, as in the specification's examples;
    /// they are masked rather than refused.
    pub(crate) fn parse(text: &str) -> Result<Self, Cause> {
        let bad = || Cause::Value(format!("`{text}` is not a network in CIDR notation"));
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => p.parse().map_err(|_| bad())?,
            Some(_) => return Err(bad()),
            None => longest,
        };
        if prefix > longest {
            return Err(bad());
        }
        Ok(Self { address, prefix })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(a)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                u32::from(net) & mask == u32::from(a) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(a)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(net) & mask == u128::from(a) & mask
            }
            _ => false,
        }
    }
}

impl Test {
    /// The simplest test equal to a pattern.
    pub(crate) fn from_pattern(pattern: Pattern, cased: bool) -> Self {
        let literal = |place, bytes: &[u8]| Self::Literal { place, bytes: bytes.to_vec(), cased };
        match pattern.parts.as_slice() {
            [] => literal(Place::Whole, &[]),
            [Part::Literal(l)] => literal(Place::Whole, l),
            [Part::Many] => Self::Exists,
            [Part::Literal(l), Part::Many] => literal(Place::Start, l),
            [Part::Many, Part::Literal(l)] => literal(Place::End, l),
            [Part::Many, Part::Literal(l), Part::Many] => literal(Place::Anywhere, l),
            _ => Self::Glob { parts: pattern.parts, cased },
        }
    }
}

/// A literal to look for.
#[derive(Debug, Clone)]
pub(crate) struct Literal {
    pub(crate) bytes: Vec<u8>,
    /// Where it must stand for the answer to be yes; `None` when finding it only makes the question worth asking.
    pub(crate) place: Option<Place>,
    pub(crate) cased: bool,
}

fn longest(parts: &[Part]) -> &[u8] {
    parts
        .iter()
        .filter_map(|p| if let Part::Literal(bytes) = p { Some(bytes.as_slice()) } else { None })
        .max_by_key(|bytes| bytes.len())
        .unwrap_or_default()
}

/// A question ready to be asked.
#[derive(Debug)]
pub(crate) struct Predicate {
    pub(crate) question: Question,
    /// Of a regular expression: literals one of which is in every text that matches.
    required: Vec<Vec<u8>>,
    /// The expression, compiled when it is first asked. Boxed: few of the thousands of predicates have one.
    regex: OnceLock<Option<Box<Regex>>>,
}

impl Predicate {
    /// Checks what will need compiling.
    pub(crate) fn new(question: Question) -> Result<Self, Cause> {
        let required = match &question.test {
            Test::Regex { expression, flags } => regular::check(expression, *flags)?,
            _ => Vec::new(),
        };
        Ok(Self { question, required, regex: OnceLock::new() })
    }

    /// Literals that answer the question or at least rule it out: when none of them is in the value, the answer is no. Empty when no
    /// literal can tell.
    pub(crate) fn literals(&self) -> Vec<Literal> {
        let one = |bytes: &[u8], place, cased| Literal { bytes: bytes.to_vec(), place, cased };
        let mut literals = match &self.question.test {
            Test::Literal { place, bytes, cased } => vec![one(bytes, Some(*place), *cased)],
            Test::Glob { parts, .. } => vec![one(longest(parts), None, false)],
            Test::Regex { .. } => self.required.iter().map(|l| one(l, None, false)).collect(),
            _ => Vec::new(),
        };
        if literals.iter().any(|l| l.bytes.is_empty()) {
            literals.clear();
        }
        literals
    }

    /// The answer for an event with these values.
    pub(crate) fn holds(&self, values: &Values<'_>) -> bool {
        let value = values.get(self.question.field);
        match &self.question.test {
            Test::Exists => value != Value::Absent,
            Test::Number { comparison, bound } => number_holds(value, *comparison, *bound),
            Test::OtherField { other, place, cased } => {
                let other = values.get(*other);
                with_text(value, |value| {
                    with_text(other, |other| {
                        literal_holds(value.as_bytes(), other.as_bytes(), *place, *cased)
                    })
                })
            }
            Test::Literal { place, bytes, cased } => {
                with_text(value, |text| literal_holds(text.as_bytes(), bytes, *place, *cased))
            }
            Test::Glob { parts, cased } => with_text(value, |text| pattern::matches(parts, text, *cased)),
            Test::Regex { expression, flags } => with_text(value, |text| {
                // It was checked when the rule was loaded, so it compiles.
                let regex =
                    self.regex.get_or_init(|| regular::compile(expression, *flags).ok().map(Box::new));
                regex.as_ref().is_some_and(|regex| regex.is_match(text))
            }),
            Test::Cidr(network) => {
                with_text(value, |text| text.parse().is_ok_and(|address| network.contains(address)))
            }
        }
    }
}

/// Calls `f` with the value as text; false without one.
fn with_text(value: Value<'_>, f: impl FnOnce(&str) -> bool) -> bool {
    match value {
        Value::Absent => false,
        Value::Text(text) => f(text),
        Value::Number(n) => {
            let mut buffer = [0; 20];
            f(decimal(n, &mut buffer))
        }
    }
}

/// Decimal text of a number, without allocating.
pub(crate) fn decimal(n: i64, buffer: &mut [u8; 20]) -> &str {
    let mut rest = n.unsigned_abs();
    let mut at = buffer.len();
    loop {
        at -= 1;
        // A digit is below ten.
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if n < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    std::str::from_utf8(&buffer[at..]).unwrap_or_default()
}

fn literal_holds(value: &[u8], literal: &[u8], place: Place, cased: bool) -> bool {
    let n = literal.len();
    match place {
        Place::Whole => pattern::equal(value, literal, cased),
        Place::Start => value.get(..n).is_some_and(|v| pattern::equal(v, literal, cased)),
        Place::End => {
            value.len().checked_sub(n).is_some_and(|at| pattern::equal(&value[at..], literal, cased))
        }
        Place::Anywhere => pattern::contains(value, literal, cased),
    }
}

#[allow(clippy::cast_precision_loss)] // A rule that compares beyond 2^53 with a fraction does not exist.
fn number_holds(value: Value<'_>, comparison: Comparison, bound: Number) -> bool {
    match (value, bound) {
        (Value::Absent, _) => false,
        (Value::Number(n), Number::Whole(b)) => comparison.holds(n, b),
        (Value::Number(n), Number::Fraction(bits)) => comparison.holds(n as f64, f64::from_bits(bits)),
        // Equality with text is that of the text: `007` is not 7.
        (Value::Text(text), Number::Whole(b)) if matches!(comparison, Comparison::Eq | Comparison::Neq) => {
            let mut buffer = [0; 20];
            (text == decimal(b, &mut buffer)) == (comparison == Comparison::Eq)
        }
        (Value::Text(text), Number::Whole(b)) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(n), _) => comparison.holds(n, b),
            (Err(_), Ok(n)) => comparison.holds(n, b as f64),
            _ => false,
        },
        (Value::Text(text), Number::Fraction(bits)) => {
            text.parse::<f64>().is_ok_and(|n| comparison.holds(n, f64::from_bits(bits)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let net = |text: &str| Network::parse(text).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(net("192.0.2.0/24").contains(ip("192.0.2.255")));
        assert!(!net("192.0.2.0/24").contains(ip("192.0.3.0")));
        assert!(net("0.0.0.0/0").contains(ip("203.0.113.9")));
        assert!(!net("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(net("2001:db8::/32").contains(ip("2001:db8:ffff::1")));
        assert!(!net("2001:db8::/32").contains(ip("2001:db9::")));
        assert!(net("192.0.2.7").contains(ip("::ffff:192.0.2.7")));
        for bad in ["192.0.2.0/33", "::/129", "host/8", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/1/2"] {
            assert!(matches!(Network::parse(bad), Err(Cause::Value(_))), "{bad}");
        }
    }

    #[test]
    fn decimals() {
        for n in [0, 7, -1, 4444, i64::MAX, i64::MIN] {
            assert_eq!(decimal(n, &mut [0; 20]), n.to_string());
        }
    }
}
