//! Regular expressions: compiled within bounds, with the literals they cannot match without.
//!
//! Loading a rule only checks its expression. It is compiled when an event first asks, which most expressions never see: hundreds of
//! automatons that lie idle would cost a small device more memory than the rest of the agent.

use std::sync::{Mutex, PoisonError};

use regex_automata::hybrid::dfa::{self, DFA};
use regex_automata::nfa::thompson::pikevm::{self, PikeVM};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::Input;
use regex_syntax::hir::{Capture, Class, ClassBytes, ClassBytesRange, Hir, HirKind, Repetition};
use regex_syntax::ParserBuilder;

use crate::error::Cause;
use crate::predicate::RegexFlags;

/// Longest regular expression, in bytes.
pub(crate) const MAX_EXPRESSION: usize = 4096;
/// Deepest nesting.
const MAX_NESTING: u32 = 64;
/// Bytes a compiled regular expression may take.
const MAX_COMPILED: usize = 512 * 1024;
/// Bytes of its lazily built automaton: only expressions that events exercise come near it.
const CACHE: usize = 32 * 1024;
/// Most alternatives in a set of required literals.
const MAX_REQUIRED: usize = 128;
/// Most texts that alternatives are written out into.
const MAX_JOINED: usize = 96;
/// Most bytes of a class that literals are tried with: `\s` has six.
const MOST_FOLLOWING: usize = 8;

/// Nodes of a parsed expression that compile to less than [`MAX_COMPILED`] for certain: a state takes at most 64 bytes, and a node
/// yields few.
const SMALL: usize = 1024;

/// Whether the expression compiles within bounds, and the literals at least one of which is in every text that matches, ASCII case
/// aside; empty when nothing is known. What is small enough to compile for certain is not compiled for that.
pub(crate) fn check(expression: &str, flags: RegexFlags) -> Result<Vec<Vec<u8>>, Cause> {
    let (hir, unicode) = read(expression, flags)?;
    if unicode || weight(&hir) > SMALL {
        build(expression, &hir, unicode)?;
    }
    Ok(required(&hir).unwrap_or_default())
}

/// Compiles a regular expression within bounds. Matching takes time linear in the value (no backtracking); what would need more,
/// look-around and back-references, is an error.
///
/// Classes and boundaries are ASCII's, which keeps automatons small and agrees with how literals fold; an expression that ASCII
/// cannot express (`[é]`, `\p{L}`) gets Unicode's. Either way `.` and `[^a]` are one character, however many bytes it has.
pub(crate) fn compile(expression: &str, flags: RegexFlags) -> Result<Regex, Cause> {
    let (hir, unicode) = read(expression, flags)?;
    build(expression, &hir, unicode)
}

/// The parsed expression, and whether it needs Unicode's classes.
fn read(expression: &str, flags: RegexFlags) -> Result<(Hir, bool), Cause> {
    if expression.len() > MAX_EXPRESSION {
        return Err(Cause::TooLarge(format!(
            "a regular expression has {} bytes, the bound is {MAX_EXPRESSION}",
            expression.len()
        )));
    }
    match parse(expression, flags, false) {
        Ok(hir) => Ok((whole_characters(hir), false)),
        Err(_) => Ok((parse(expression, flags, true).map_err(|e| uncompiled(expression, &e))?, true)),
    }
}

fn build(expression: &str, hir: &Hir, unicode: bool) -> Result<Regex, Cause> {
    let config = thompson::Config::new()
        .utf8(unicode)
        .nfa_size_limit(Some(MAX_COMPILED))
        .shrink(false)
        .which_captures(WhichCaptures::None);
    let refused = |error: thompson::BuildError| match error.size_limit() {
        Some(_) => Cause::TooLarge(format!(
            "the regular expression `{}` compiles to more than {MAX_COMPILED} bytes",
            shown(expression)
        )),
        None => uncompiled(expression, &error),
    };
    let states = thompson::Compiler::new().configure(config).build_from_hir(hir).map_err(refused)?;
    let simulation = pikevm::Builder::new().build_from_nfa(states.clone()).map_err(refused)?;
    let config = dfa::Config::new()
        .cache_capacity(CACHE)
        .minimum_cache_clear_count(Some(3))
        .minimum_bytes_per_state(Some(10));
    let lazy = dfa::Builder::new().configure(config).build_from_nfa(states).ok();
    Ok(Regex { lazy, simulation, caches: Mutex::new((None, None)) })
}

/// A compiled expression. Only whether it matches can be asked, and the automaton of all rules has looked for its literals already.
#[derive(Debug)]
pub(crate) struct Regex {
    /// Built as texts are read; absent when its cache could not hold it.
    lazy: Option<DFA>,
    /// For texts the lazy one gives up on.
    simulation: PikeVM,
    /// Made when first needed.
    caches: Mutex<(Option<dfa::Cache>, Option<pikevm::Cache>)>,
}

impl Regex {
    /// Whether it matches somewhere in the text.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_lazy, of_simulation) = &mut *caches;
        let input = Input::new(text).earliest(true);
        if let Some(lazy) = &self.lazy {
            let cache = of_lazy.get_or_insert_with(|| lazy.create_cache());
            if let Ok(found) = lazy.try_search_fwd(cache, &input) {
                return found.is_some();
            }
        }
        let cache = of_simulation.get_or_insert_with(|| self.simulation.create_cache());
        self.simulation.is_match(cache, input)
    }
}

/// Leaves of the expression, each as often as repetitions write it out. Recursion is bounded by the parser's nesting limit.
fn weight(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len(),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len().saturating_mul(4),
        HirKind::Capture(capture) => weight(&capture.sub),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            weight(&repetition.sub).saturating_add(1).saturating_mul(times as usize)
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(0, |sum: usize, part| sum.saturating_add(weight(part)))
        }
    }
}

fn parse(expression: &str, flags: RegexFlags, unicode: bool) -> Result<Hir, Box<regex_syntax::Error>> {
    ParserBuilder::new()
        .unicode(unicode)
        .utf8(unicode)
        .case_insensitive(flags.ignore_case)
        .multi_line(flags.multi_line)
        .dot_matches_new_line(flags.dot_all)
        .nest_limit(MAX_NESTING)
        .build()
        .parse(expression)
        .map_err(Box::new)
}

/// Lets every class that takes any byte beyond ASCII (`.`, `[^a]`, `\S`) take a whole character there. What is judged is always
/// UTF-8, so a leading byte and what continues it are one (RFC 3629, section 3). Recursion is bounded by the parser's nesting limit.
fn whole_characters(hir: Hir) -> Hir {
    match hir.into_kind() {
        HirKind::Class(Class::Bytes(class)) => {
            let beyond = ClassBytesRange::new(0x80, 0xff);
            let takes_all = class.ranges().last().is_some_and(|r| r.start() <= 0x80 && r.end() == 0xff);
            if !takes_all {
                return Hir::class(Class::Bytes(class));
            }
            let mut ascii = class;
            ascii.difference(&ClassBytes::new([beyond]));
            let leading = ClassBytes::new([ClassBytesRange::new(0xc2, 0xf4)]);
            let continuing = ClassBytes::new([ClassBytesRange::new(0x80, 0xbf)]);
            let continued = Repetition {
                min: 1,
                max: Some(3),
                greedy: true,
                sub: Box::new(Hir::class(Class::Bytes(continuing))),
            };
            let character = Hir::concat(vec![Hir::class(Class::Bytes(leading)), Hir::repetition(continued)]);
            Hir::alternation(vec![Hir::class(Class::Bytes(ascii)), character])
        }
        HirKind::Class(class) => Hir::class(class),
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(whole_characters(*repetition.sub)), ..repetition })
        }
        HirKind::Capture(capture) => {
            Hir::capture(Capture { sub: Box::new(whole_characters(*capture.sub)), ..capture })
        }
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(whole_characters).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.into_iter().map(whole_characters).collect()),
    }
}

fn uncompiled(expression: &str, error: &impl ToString) -> Cause {
    // The message draws the expression over several lines; the last one says what is wrong.
    let text = error.to_string();
    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    Cause::Value(format!("the regular expression `{}` does not compile: {why}", shown(expression)))
}

fn shown(expression: &str) -> &str {
    defender_model::text::truncate(expression, 80)
}

/// Literals at least one of which every match contains. Recursion is bounded by the parser's nesting limit.
fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Class(class) => letter(class).map(|b| vec![vec![b]]),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(required(part)?);
            }
            (all.len() <= MAX_REQUIRED).then_some(all)
        }
        HirKind::Concat(parts) => {
            let mut best: Option<Vec<Vec<u8>>> = None;
            let mut runs = vec![Vec::new()];
            for part in parts {
                let next = texts(part);
                if next.is_none() {
                    better(&mut best, followed(&runs, part));
                }
                match next.as_ref().and_then(|next| joined(&runs, next)) {
                    Some(longer) => runs = longer,
                    None => {
                        better(
                            &mut best,
                            Some(std::mem::replace(&mut runs, next.unwrap_or(vec![Vec::new()]))),
                        );
                        better(&mut best, required(part));
                    }
                }
            }
            better(&mut best, Some(runs));
            best
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// All texts the expression matches, where they are few and it looks at nothing else. Recursion is bounded by the parser's nesting
/// limit.
fn texts(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Class(class) => letter(class).map(|b| vec![vec![b]]),
        HirKind::Capture(capture) => texts(&capture.sub),
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(texts(part)?);
            }
            (all.len() <= MAX_JOINED).then_some(all)
        }
        HirKind::Concat(parts) => {
            parts.iter().try_fold(vec![Vec::new()], |all, part| joined(&all, &texts(part)?))
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// The texts with each byte of a small class behind them, where that makes them much rarer: `nc` is in many a word, `nc` and a blank is
/// not.
fn followed(texts: &[Vec<u8>], next: &Hir) -> Option<Vec<Vec<u8>>> {
    let class = match next.kind() {
        HirKind::Class(class) => class,
        HirKind::Repetition(Repetition { min: 1.., sub, .. }) => match sub.kind() {
            HirKind::Class(class) => class,
            _ => return None,
        },
        _ => return None,
    };
    let Class::Bytes(class) = class else { return None };
    let ranges = class.ranges().iter();
    let count: usize = ranges.clone().map(ClassBytesRange::len).sum();
    if count > MOST_FOLLOWING {
        return None;
    }
    let bytes = ranges.flat_map(|range| range.start()..=range.end()).map(|byte| vec![byte]);
    joined(texts, &bytes.collect::<Vec<_>>()).filter(|longer| rarity(longer) * 2.0 < rarity(texts))
}

/// Each of the first followed by each of the second; `None` when they are too many.
fn joined(first: &[Vec<u8>], second: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let join = |a: &Vec<u8>| second.iter().map(move |b| [a.as_slice(), b].concat()).collect::<Vec<_>>();
    (first.len() * second.len() <= MAX_JOINED).then(|| first.iter().flat_map(join).collect())
}

/// The lower-case letter of a class that is one ASCII letter in both cases.
fn letter(class: &Class) -> Option<u8> {
    let mut bytes = Vec::with_capacity(2);
    match class {
        Class::Bytes(class) => {
            for range in class.ranges() {
                bytes.extend([range.start(), range.end()]);
            }
        }
        Class::Unicode(class) => {
            for range in class.ranges() {
                bytes.extend([u8::try_from(range.start()).ok()?, u8::try_from(range.end()).ok()?]);
            }
        }
    }
    match bytes.as_slice() {
        [a, b, c, d] if a == b && c == d && a.is_ascii_uppercase() && a.to_ascii_lowercase() == *c => {
            Some(*c)
        }
        _ => None,
    }
}

fn better(best: &mut Option<Vec<Vec<u8>>>, candidate: Option<Vec<Vec<u8>>>) {
    let Some(candidate) = candidate else { return };
    if candidate.iter().any(Vec::is_empty) {
        return;
    }
    if best.as_ref().is_none_or(|best| rarity(&candidate) < rarity(best)) {
        *best = Some(candidate);
    }
}

/// How often one of these literals is found in some text, very roughly: only the order matters. One byte is in nearly every text,
/// two are in many; control characters are in few.
pub(crate) fn rarity(literals: &[Vec<u8>]) -> f64 {
    let one = |literal: &Vec<u8>| {
        let length = match literal.len() {
            0 | 1 => 4.0,
            2 => 1.0,
            n => 0.6_f64.powi(i32::try_from(n.min(40)).unwrap_or(40)),
        };
        if literal.iter().any(u8::is_ascii_control) {
            length / 64.0
        } else {
            length
        }
    };
    literals.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_are_bounded() {
        let error = |e: &str| check(e, RegexFlags::default()).unwrap_err();
        assert!(matches!(error(&"a".repeat(1 << 20)), Cause::TooLarge(_)));
        assert!(matches!(error(r"(\w{500}){500}"), Cause::TooLarge(_)));
        assert!(matches!(error("(?<=a)b"), Cause::Value(m) if m.contains("look-around")));
        assert!(matches!(error(&"(".repeat(2000)), Cause::Value(_)));
        assert!(matches!(error(r"(a)\1"), Cause::Value(m) if m.contains("backreferences")));
    }

    #[test]
    fn knows_what_a_match_contains() {
        let of = |e: &str, ignore_case| {
            let flags = RegexFlags { ignore_case, ..RegexFlags::default() };
            let required = check(e, flags).unwrap();
            required.into_iter().map(|l| String::from_utf8(l).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of(r"(^|\s)(killall|pkill)\s+(-\S+\s+)*auditd\b", false), ["auditd"]);
        assert_eq!(of("(exec|system):sh", true), ["exec:sh", "system:sh"]);
        assert_eq!(of("x{0,3}:Sh[0-9]", true), [":sh"]);
        assert_eq!(of("wget|curl", true), ["wget", "curl"]);
        assert_eq!(of("/(nc|ncat)$", false), ["/nc", "/ncat"]);
        assert_eq!(of(r"\S+\.(deb|rpm)(\s|$)", false), [".deb", ".rpm"]);
        assert_eq!(of(r"a(b|c*)d", false), ["a"], "what may be empty ends a text");
        assert_eq!(of(r"(ab|c)?de", false), ["de"]);
        assert_eq!(of(r"(x|\bab)cd", false), ["cd"]);
        assert_eq!(of("a*|b", false), Vec::<String>::new());
        assert_eq!(of("[0-9]+", false), Vec::<String>::new());
        assert_eq!(of("(abc)?", false), Vec::<String>::new());
        assert_eq!(of("é{2}x?", false), ["é"]);
        assert_eq!(of(r"\bnc[ \t]", false), ["nc\t", "nc "]);
        assert_eq!(of(r"wget[ \t]", false), ["wget"], "long enough by itself");
    }

    proptest! {
        #[test]
        fn what_matches_contains_what_is_required(
            (expression, text) in prop::sample::select(vec![
                r"(^|[;&|/])(nc|ncat|nc\.traditional)[\t ]+-[a-z]{1,3}",
                r"sh[\t\n ](-[ic]+|x)[ \t]",
                r"ld[.=][a-c]*",
                r"(id|ps)[;&|]+[ab]?",
            ])
            .prop_flat_map(|expression| {
                (Just(expression), prop::string::string_regex(expression.trim_start_matches("(^|[;&|/])")).unwrap())
            }),
        ) {
            let required = check(expression, RegexFlags::default()).unwrap();
            prop_assert!(compile(expression, RegexFlags::default()).unwrap().is_match(&text));
            let found = |literal: &Vec<u8>| text.as_bytes().windows(literal.len()).any(|part| part == literal);
            prop_assert!(required.iter().any(found), "{required:?} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_for_small_compiles(
            parts in prop::collection::vec("[a-z]{1,4}|\\(a\\|bc\\)\\{0,9\\}|\\[\\^a-f\\]\\+|\\.\\*|\\\\S\\{1,30\\}|\\(x\\{3\\}y\\)\\{20\\}|\\\\b", 0..40),
            ignore_case in any::<bool>(),
        ) {
            let expression = parts.concat();
            let flags = RegexFlags { ignore_case, ..RegexFlags::default() };
            prop_assert_eq!(check(&expression, flags).is_ok(), compile(&expression, flags).is_ok(), "{}", expression);
        }
    }

    #[test]
    fn answers_where_the_lazy_automaton_gives_up() {
        // Its cache is full again and again.
        let large = compile("(a|b)*a(a|b){14}c", RegexFlags::default()).unwrap();
        let mut state = 1_u32;
        let text: String = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            if state >> 31 == 0 {
                'a'
            } else {
                'b'
            }
        })
        .take(60_000)
        .collect();
        let lazy = large.lazy.as_ref().unwrap();
        assert!(lazy.try_search_fwd(&mut lazy.create_cache(), &Input::new(&text)).is_err());
        assert!(!large.is_match(&text));
        assert!(large.is_match(&format!("{text}a{}c", "b".repeat(14))));
    }

    #[test]
    fn unicode_where_ascii_cannot_express_it() {
        let matches = |e: &str, text: &str| compile(e, RegexFlags::default()).unwrap().is_match(text);
        assert!(matches("^[é]$", "é"));
        assert!(matches(r"^\p{L}$", "ß"));
        assert!(!matches(r"^\w$", "ß"), "ASCII where ASCII can express it");
        for one in ["a", "ß", "日", "😀"] {
            assert!(matches("^.$", one) && matches("^[^b]$", one) && matches(r"^\S$", one), "{one}");
            assert!(!matches("^..$", one) && !matches("..", one), "{one}");
        }
        assert!(matches("^a..b$", "aß日b") && !matches("^a.b$", "aß日b"));
    }
}
