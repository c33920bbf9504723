//! Regular expressions of policies: checked when the policy is read, compiled when they are used, so that hundreds of them cost no
//! memory between scans.

use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use regex_automata::nfa::thompson::{Compiler, Config, WhichCaptures};
use regex_syntax::hir::Hir;
use regex_syntax::ParserBuilder;

/// Longest expression, in bytes.
const MAX_EXPRESSION: usize = 2048;
/// Deepest nesting.
const MAX_NESTING: u32 = 32;
/// Bytes a compiled expression may take.
const MAX_COMPILED: usize = 256 * 1024;

/// An expression that is known to parse. It matches anywhere in the text unless anchored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Checks an expression.
    ///
    /// # Errors
    /// Why it does not compile.
    pub(crate) fn new(expression: String) -> Result<Self, String> {
        if expression.len() > MAX_EXPRESSION {
            return Err(format!("a regular expression of more than {MAX_EXPRESSION} bytes"));
        }
        parse(&expression).map_err(|text| {
            // The message draws the expression over several lines; the last one says what is wrong.
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        Ok(Self(expression))
    }

    /// The expression as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Compiles it: linear time, no automaton that grows with what it reads.
    ///
    /// # Errors
    /// It is larger than a policy's expression may be.
    pub(crate) fn compile(&self) -> Result<Regex, String> {
        let hir = parse(&self.0)?;
        let config = Config::new()
            .utf8(false)
            .nfa_size_limit(Some(MAX_COMPILED))
            .shrink(false)
            .which_captures(WhichCaptures::None);
        let refused = |_| format!("the regular expression `{}` is too large", self.0);
        let states = Compiler::new().configure(config).build_from_hir(&hir).map_err(refused)?;
        let simulation = PikeVM::builder().build_from_nfa(states).map_err(refused)?;
        let cache = simulation.create_cache();
        Ok(Regex { simulation, cache })
    }

    /// Whether it matches one text. A pattern that is too large to compile matches nothing: [`Self::compile`] tells.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.compile().is_ok_and(|mut regex| regex.is_match(text))
    }
}

/// A compiled expression.
pub(crate) struct Regex {
    simulation: PikeVM,
    cache: Cache,
}

impl Regex {
    /// Whether it matches somewhere in the text.
    pub(crate) fn is_match(&mut self, text: &str) -> bool {
        self.simulation.is_match(&mut self.cache, text)
    }
}

/// Classes and boundaries are ASCII's, which keeps expressions small; one that ASCII cannot express (`[é]`) gets Unicode's.
fn parse(expression: &str) -> Result<Hir, String> {
    let parser =
        |unicode| ParserBuilder::new().nest_limit(MAX_NESTING).unicode(unicode).utf8(unicode).build();
    let (mut ascii, mut unicode) = (parser(false), parser(true));
    ascii.parse(expression).or_else(|_| unicode.parse(expression).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_does_not_compile() {
        assert!(Pattern::new("(".to_owned()).unwrap_err().contains("unclosed"));
        assert!(Pattern::new("(?<=a)b".to_owned()).unwrap_err().contains("look-around"));
        assert!(Pattern::new("a".repeat(5000)).unwrap_err().contains("2048"));
        assert!(Pattern::new(r"(\w{200}){200}".to_owned()).unwrap().compile().is_err());
    }

    #[test]
    fn matches_anywhere() {
        let pattern = Pattern::new(r"^\s*a\d+(b|c)\b".to_owned()).unwrap();
        assert!(pattern.matches("  a12c d") && !pattern.matches("xa12c"));
        let pattern_beyond = Pattern::new("[é]$".to_owned()).unwrap();
        assert!(pattern_beyond.matches("café") && !pattern_beyond.matches("cafe"));
        assert_eq!(pattern.as_str(), r"^\s*a\d+(b|c)\b");
    }
}
