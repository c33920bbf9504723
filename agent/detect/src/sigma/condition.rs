//! The condition language: `selection and not 1 of filter_*`.

use crate::error::Cause;
use crate::expression::Expr;
use crate::pattern::{self, Pattern};

/// Deepest nesting of parentheses and `not`.
const MAX_DEPTH: usize = 32;
/// Most questions one rule may come down to.
pub(crate) const MAX_QUESTIONS: usize = 20_000;

/// Parses a condition over the searches of a detection, named in the order they are written.
pub(crate) fn parse(text: &str, searches: &[(String, Expr)]) -> Result<Expr, Cause> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, searches };
    let expr = parser.or(0)?;
    match parser.tokens.get(parser.at) {
        None if expr.size() > MAX_QUESTIONS => {
            Err(Cause::TooLarge(format!("the condition asks more than {MAX_QUESTIONS} questions")))
        }
        None => Ok(expr),
        Some(Token::Pipe) => Err(Cause::Condition(
            "aggregations (`| count() ...`) are not part of Sigma 2; write a correlation rule".to_owned(),
        )),
        Some(token) => Err(Cause::Condition(format!("`{}` is not expected there", token.text()))),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Open,
    Close,
    Pipe,
    Word(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Open => "(",
            Self::Close => ")",
            Self::Pipe => "|",
            Self::Word(word) => word,
        }
    }

    fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, Cause> {
    let mut out = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        let single = match c {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            '|' => Some(Token::Pipe),
            c if c.is_whitespace() => None,
            c if c.is_alphanumeric() || matches!(c, '_' | '-' | '*' | '.' | ':') => {
                word.push(c);
                continue;
            }
            c => {
                // What follows a bar is the old aggregation language, which has characters of its own.
                if out.contains(&Token::Pipe) {
                    continue;
                }
                return Err(Cause::Condition(format!("the character `{c}` has no place in a condition")));
            }
        };
        if !word.is_empty() {
            out.push(Token::Word(std::mem::take(&mut word)));
        }
        out.extend(single);
    }
    if !word.is_empty() {
        out.push(Token::Word(word));
    }
    Ok(out)
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    searches: &'a [(String, Expr)],
}

impl Parser<'_> {
    fn peek_is(&self, keyword: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|t| t.is(keyword))
    }

    fn or(&mut self, depth: usize) -> Result<Expr, Cause> {
        let mut parts = vec![self.and(depth)?];
        while self.peek_is("or") {
            self.at += 1;
            parts.push(self.and(depth)?);
        }
        Ok(Expr::any(parts))
    }

    fn and(&mut self, depth: usize) -> Result<Expr, Cause> {
        let mut parts = vec![self.unary(depth)?];
        while self.peek_is("and") {
            self.at += 1;
            parts.push(self.unary(depth)?);
        }
        Ok(Expr::all(parts))
    }

    fn unary(&mut self, depth: usize) -> Result<Expr, Cause> {
        if depth > MAX_DEPTH {
            return Err(Cause::TooLarge(format!("the condition nests deeper than {MAX_DEPTH} levels")));
        }
        if self.peek_is("not") {
            self.at += 1;
            return Ok(self.unary(depth + 1)?.not());
        }
        match self.tokens.get(self.at).cloned() {
            None => Err(Cause::Condition("the condition ends too early".to_owned())),
            Some(Token::Open) => {
                self.at += 1;
                let inner = self.or(depth + 1)?;
                if self.tokens.get(self.at) != Some(&Token::Close) {
                    return Err(Cause::Condition("a parenthesis is not closed".to_owned()));
                }
                self.at += 1;
                Ok(inner)
            }
            Some(Token::Word(word)) => {
                self.at += 1;
                if self.peek_is("of") {
                    self.at += 1;
                    return self.quantified(&word);
                }
                self.search(&word)
            }
            Some(token) => Err(Cause::Condition(format!("`{}` is not expected there", token.text()))),
        }
    }

    fn search(&self, name: &str) -> Result<Expr, Cause> {
        if ["and", "or", "of", "them"].iter().any(|k| name.eq_ignore_ascii_case(k)) {
            return Err(Cause::Condition(format!("`{name}` is not expected there")));
        }
        self.searches
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, expr)| expr.clone())
            .ok_or_else(|| Cause::Condition(format!("the detection defines no search `{name}`")))
    }

    fn quantified(&mut self, quantifier: &str) -> Result<Expr, Cause> {
        let Some(Token::Word(target)) = self.tokens.get(self.at).cloned() else {
            return Err(Cause::Condition(format!("`{quantifier} of` lacks a pattern or `them`")));
        };
        self.at += 1;
        let them = target.eq_ignore_ascii_case("them");
        let parts = Pattern::parse(&target).parts;
        let chosen: Vec<Expr> = self
            .searches
            .iter()
            // A leading underscore hides a search from patterns that do not start with one.
            .filter(|(name, _)| !name.starts_with('_') || target.starts_with('_'))
            .filter(|(name, _)| them || pattern::matches(&parts, name, true))
            .map(|(_, expr)| expr.clone())
            .collect();
        if chosen.is_empty() {
            return Err(Cause::Condition(format!("no search fits `{quantifier} of {target}`")));
        }
        if quantifier.eq_ignore_ascii_case("all") {
            return Ok(Expr::all(chosen));
        }
        if quantifier.eq_ignore_ascii_case("any") || quantifier == "1" {
            return Ok(Expr::any(chosen));
        }
        match quantifier.parse::<usize>() {
            Ok(0) | Err(_) => Err(Cause::Condition(format!(
                "`{quantifier} of` must be `all of`, `any of` or a number from 1"
            ))),
            Ok(n) if n > chosen.len() => Err(Cause::Condition(format!(
                "`{quantifier} of {target}` can never hold: only {} searches fit",
                chosen.len()
            ))),
            Ok(n) => Ok(Expr::AtLeast(n, chosen)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Field;
    use crate::predicate::{Question, Test};

    fn ask(n: u8) -> Expr {
        Expr::Ask(Question { field: Field(n), test: Test::Exists })
    }

    fn searches() -> Vec<(String, Expr)> {
        ["sel_a", "sel_b", "filter", "_hidden"]
            .iter()
            .enumerate()
            .map(|(i, name)| ((*name).to_owned(), ask(i as u8)))
            .collect()
    }

    fn condition(text: &str) -> Result<Expr, Cause> {
        parse(text, &searches())
    }

    #[test]
    fn not_binds_before_and_before_or() {
        assert_eq!(
            condition("sel_a or not sel_b and filter").unwrap(),
            Expr::Any(vec![ask(0), Expr::All(vec![ask(1).not(), ask(2)])])
        );
        assert_eq!(
            condition("(sel_a OR sel_b) AND NOT filter").unwrap(),
            Expr::All(vec![Expr::Any(vec![ask(0), ask(1)]), ask(2).not()])
        );
    }

    #[test]
    fn quantifiers() {
        assert_eq!(condition("1 of sel_*").unwrap(), Expr::Any(vec![ask(0), ask(1)]));
        assert_eq!(condition("all of them").unwrap(), Expr::All(vec![ask(0), ask(1), ask(2)]));
        assert_eq!(condition("2 of them").unwrap(), Expr::AtLeast(2, vec![ask(0), ask(1), ask(2)]));
        assert_eq!(condition("any of _*").unwrap(), ask(3));
    }

    #[test]
    fn errors_name_the_trouble() {
        for (text, word) in [
            ("nothing", "nothing"),
            ("sel_a and", "too early"),
            ("(sel_a", "not closed"),
            ("sel_a)", ")"),
            ("1 of other*", "other*"),
            ("9 of them", "never"),
            ("0 of them", "from 1"),
            ("1 of", "lacks"),
            ("sel_a sel_b", "sel_b"),
            ("sel_a | count() by x > 5", "correlation"),
            ("sel_a & sel_b", "&"),
            ("", "too early"),
        ] {
            let error = condition(text).unwrap_err();
            assert!(matches!(&error, Cause::Condition(m) if m.contains(word)), "{text}: {error:?}");
        }
        assert!(matches!(condition(&"(".repeat(10_000)), Err(Cause::TooLarge(_))));
        assert!(matches!(condition(&"not ".repeat(10_000)), Err(Cause::TooLarge(_))));
    }
}
