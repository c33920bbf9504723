//! nft(8)'s language, as far as filters use it: tables, chains, sets, variables and includes. What a rule says beyond that only makes it
//! narrower; what is not this language at all is an error, never guessed at.

use std::collections::HashMap;

use super::rule::{Condition, Draft, Verdict};
use super::tokens::{self, shown, tokens, values, Token};
use super::{Chain, Family, Found, MAX_RULES};
use crate::root::Root;

/// Deepest nesting of includes.
const MAX_DEPTH: usize = 16;
/// Most tokens of all files together.
const MAX_TOKENS: usize = 1_000_000;
/// Most elements of one set that are kept.
const MAX_ELEMENTS: usize = 10_000;

/// Reads a file and what it includes.
pub(super) fn read(root: &Root, file: &str, found: &mut Found) -> Result<(), String> {
    let mut reader = Reader { root, found, variables: HashMap::new(), tokens: 0 };
    reader.file(file, 0)
}

struct Reader<'r> {
    root: &'r Root,
    found: &'r mut Found,
    variables: HashMap<String, Vec<Token>>,
    tokens: usize,
}

/// Where reading stands.
struct Cursor {
    tokens: Vec<Token>,
    at: usize,
    file: String,
}

impl Cursor {
    fn next(&mut self) -> Option<&Token> {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token
    }

    fn word(&mut self) -> Option<String> {
        match self.tokens.get(self.at) {
            Some(Token::Word(word)) => {
                self.at += 1;
                Some(word.clone())
            }
            _ => None,
        }
    }

    fn skip_ends(&mut self) {
        while self.tokens.get(self.at) == Some(&Token::End) {
            self.at += 1;
        }
    }

    fn expect_open(&mut self, what: &str) -> Result<(), String> {
        self.skip_ends();
        match self.next() {
            Some(Token::Open) => Ok(()),
            _ => Err(format!("{}: `{what}` without `{{`", self.file)),
        }
    }

    /// The tokens up to the end of the statement; ends of lines within braces are none.
    fn statement(&mut self) -> Vec<Token> {
        let (mut tokens, mut depth) = (Vec::new(), 0_usize);
        while let Some(token) = self.tokens.get(self.at) {
            match token {
                Token::End if depth == 0 => {
                    self.at += 1;
                    break;
                }
                Token::Close if depth == 0 => break,
                Token::Open => depth += 1,
                Token::Close => depth -= 1,
                _ => {}
            }
            if *token != Token::End {
                tokens.push(token.clone());
            }
            self.at += 1;
        }
        tokens
    }

    /// Passes over a block whose brace has been read.
    fn skip_block(&mut self) -> Result<(), String> {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Token::Open) => depth += 1,
                Some(Token::Close) => depth -= 1,
                Some(_) => {}
                None => return Err(format!("{}: a brace is not closed", self.file)),
            }
        }
        Ok(())
    }
}

impl Reader<'_> {
    fn file(&mut self, file: &str, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("{file}: its includes go too deep"));
        }
        let text = self.root.text(file).map_err(|unreadable| unreadable.to_string())?;
        let text = text.ok_or_else(|| format!("{file}: missing"))?;
        let tokens = tokens(&text);
        self.tokens += tokens.len();
        if self.tokens > MAX_TOKENS {
            return Err(format!("{file}: longer than is read"));
        }
        let mut cursor = Cursor { tokens, at: 0, file: file.to_owned() };
        while cursor.at < cursor.tokens.len() {
            cursor.skip_ends();
            if cursor.at < cursor.tokens.len() {
                self.top(&mut cursor, depth)?;
            }
        }
        Ok(())
    }

    fn top(&mut self, cursor: &mut Cursor, depth: usize) -> Result<(), String> {
        let Some(mut word) = cursor.word() else {
            return Err(format!("{}: a brace where none belongs", cursor.file));
        };
        if matches!(word.as_str(), "add" | "create" | "insert" | "replace") {
            word = cursor.word().unwrap_or_default();
        }
        match word.as_str() {
            "table" => self.table(cursor),
            "chain" => {
                let (family, table) = family_and_table(cursor);
                self.chain(cursor, family, &table)
            }
            "rule" => {
                let (family, table) = family_and_table(cursor);
                let name = cursor.word().unwrap_or_default();
                let statement = cursor.statement();
                self.rule(family, &table, &name, &statement)
            }
            "include" => {
                let name = cursor.word().unwrap_or_default();
                let directory = cursor.file.rsplit_once('/').map_or("", |(directory, _)| directory);
                let pattern = match name.starts_with('/') {
                    true => name.clone(),
                    false => format!("{directory}/{}", name.trim_start_matches("./")),
                };
                let files = self.root.glob(&pattern).map_err(|unreadable| unreadable.to_string())?;
                if files.is_empty() && !crate::root::glob::is_pattern(&pattern) {
                    return Err(format!("{}: includes {name}, which is missing", cursor.file));
                }
                files.iter().try_for_each(|file| self.file(&file.to_string_lossy(), depth + 1))
            }
            "define" | "redefine" => {
                let statement = cursor.statement();
                if let [Token::Word(name), Token::Word(equals), value @ ..] = statement.as_slice() {
                    if equals == "=" {
                        let value = self.substituted(value);
                        self.variables.insert(name.clone(), value);
                    }
                }
                Ok(())
            }
            "flush" => {
                if cursor.statement().first() == Some(&Token::Word("ruleset".to_owned())) {
                    *self.found = Found::default();
                }
                Ok(())
            }
            "delete" | "destroy" => {
                let statement = cursor.statement();
                if let [Token::Word(what), names @ ..] = statement.as_slice() {
                    if what == "table" {
                        let names: Vec<&str> = names.iter().filter_map(Token::word).collect();
                        let (family, table) = match names.as_slice() {
                            [family, table] => (Family::of(family), *table),
                            [table] => (Family::Ip, *table),
                            _ => return Ok(()),
                        };
                        self.found.chains.retain(|(chain, _)| chain.family != family || chain.table != table);
                    }
                }
                Ok(())
            }
            "set" | "map" | "element" | "counter" | "quota" | "limit" | "flowtable" | "undefine"
            | "reset" | "list" | "ct" => {
                cursor.statement();
                Ok(())
            }
            other => Err(format!("{}: `{other}` is not a statement of nft", cursor.file)),
        }
    }

    fn table(&mut self, cursor: &mut Cursor) -> Result<(), String> {
        let (family, table) = family_and_table(cursor);
        // `add table inet x` alone makes an empty one.
        if cursor.tokens.get(cursor.at).is_none_or(|token| *token == Token::End) {
            let after = cursor.at;
            cursor.skip_ends();
            if cursor.tokens.get(cursor.at) != Some(&Token::Open) {
                cursor.at = after;
                return Ok(());
            }
        }
        cursor.expect_open("table")?;
        loop {
            cursor.skip_ends();
            match cursor.next().cloned() {
                Some(Token::Close) => return Ok(()),
                Some(Token::Word(word)) if word == "chain" => self.chain(cursor, family, &table)?,
                Some(Token::Word(word)) if matches!(word.as_str(), "set" | "map") => {
                    let name = cursor.word().unwrap_or_default();
                    cursor.expect_open("set")?;
                    self.set(cursor, (family, table.clone(), name))?;
                }
                Some(Token::Word(_)) => {
                    cursor.statement();
                }
                Some(Token::Open) => cursor.skip_block()?,
                Some(_) => {}
                None => return Err(format!("{}: table {table} is not closed", cursor.file)),
            }
        }
    }

    fn set(&mut self, cursor: &mut Cursor, key: (Family, String, String)) -> Result<(), String> {
        let mut elements = Vec::new();
        loop {
            cursor.skip_ends();
            if cursor.tokens.get(cursor.at) == Some(&Token::Close) {
                cursor.at += 1;
                break;
            }
            if cursor.at >= cursor.tokens.len() {
                return Err(format!("{}: set {} is not closed", cursor.file, key.2));
            }
            let statement = self.substituted(&cursor.statement());
            if let [Token::Word(word), Token::Word(equals), values @ ..] = statement.as_slice() {
                if word == "elements" && equals == "=" {
                    let mut at = 0;
                    elements.extend(tokens::values(values, &mut at).into_iter().take(MAX_ELEMENTS));
                }
            }
        }
        self.found.sets.entry(key).or_default().extend(elements);
        Ok(())
    }

    fn chain(&mut self, cursor: &mut Cursor, family: Family, table: &str) -> Result<(), String> {
        let name = cursor.word().unwrap_or_default();
        self.ensure(family, table, &name);
        // `add chain inet x y` alone makes an empty one.
        if cursor.tokens.get(cursor.at) != Some(&Token::Open) {
            let after = cursor.at;
            cursor.skip_ends();
            if cursor.tokens.get(cursor.at) != Some(&Token::Open) {
                cursor.at = after;
                return Ok(());
            }
        }
        cursor.expect_open("chain")?;
        loop {
            cursor.skip_ends();
            match cursor.tokens.get(cursor.at) {
                None => return Err(format!("{}: chain {name} is not closed", cursor.file)),
                Some(Token::Close) => {
                    cursor.at += 1;
                    return Ok(());
                }
                Some(_) => {}
            }
            let statement = cursor.statement();
            let words: Vec<&str> = statement.iter().filter_map(Token::word).collect();
            match words.as_slice() {
                ["type", kind, "hook", hook, ..] => {
                    let (kind, hook) = ((*kind).to_owned(), (*hook).to_owned());
                    let chain = self.ensure(family, table, &name);
                    (chain.0.kind, chain.0.hook) = (Some(kind), Some(hook));
                }
                ["policy", policy] => {
                    let drop = *policy == "drop";
                    self.ensure(family, table, &name).0.policy_drop = drop;
                }
                ["comment" | "devices" | "device", ..] | [] => {}
                _ => self.rule(family, table, &name, &statement)?,
            }
        }
    }

    fn ensure(&mut self, family: Family, table: &str, name: &str) -> &mut (Chain, Vec<Draft>) {
        let chains = &mut self.found.chains;
        let is = |chain: &Chain| chain.family == family && chain.table == table && chain.name == name;
        let at = chains.iter().position(|(chain, _)| is(chain)).unwrap_or_else(|| {
            let chain = Chain {
                family,
                table: table.to_owned(),
                name: name.to_owned(),
                kind: None,
                hook: None,
                policy_drop: false,
                rules: Vec::new(),
            };
            chains.push((chain, Vec::new()));
            chains.len() - 1
        });
        &mut chains[at]
    }

    fn rule(&mut self, family: Family, table: &str, chain: &str, tokens: &[Token]) -> Result<(), String> {
        if self.found.rules() >= MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules"));
        }
        let draft = draft(&self.substituted(tokens));
        self.ensure(family, table, chain).1.push(draft);
        Ok(())
    }

    /// Variables replaced by what they stand for.
    fn substituted(&self, tokens: &[Token]) -> Vec<Token> {
        let mut out = Vec::with_capacity(tokens.len());
        for token in tokens {
            match token {
                Token::Word(word) if word.starts_with('$') => match self.variables.get(&word[1..]) {
                    Some(value) => out.extend(value.iter().cloned()),
                    None => out.push(token.clone()),
                },
                token => out.push(token.clone()),
            }
        }
        out
    }
}

/// Family (IPv4 where none is given) and name of a table.
fn family_and_table(cursor: &mut Cursor) -> (Family, String) {
    let word = cursor.word().unwrap_or_default();
    match word.as_str() {
        "ip" | "ip6" | "inet" | "arp" | "bridge" | "netdev" => {
            (Family::of(&word), cursor.word().unwrap_or_default())
        }
        _ => (Family::Ip, word),
    }
}

/// A rule from its tokens.
fn draft(tokens: &[Token]) -> Draft {
    let mut draft = Draft { shown: shown(tokens), ..Draft::default() };
    let mut at = 0;
    let narrower = |draft: &mut Draft| {
        draft.conditions.push(Condition { key: "other".to_owned(), negated: false, values: Vec::new() });
    };
    while at < tokens.len() {
        let word = |at: usize| tokens.get(at).and_then(Token::word).unwrap_or_default();
        let first = word(at);
        let key = match first {
            "meta" if word(at + 2) == "set" => {
                // `meta mark set 1` changes and does not look.
                at += 3;
                values(tokens, &mut at);
                continue;
            }
            "meta" => {
                at += 2;
                word(at - 1).to_owned()
            }
            "iif" | "iifname" | "oif" | "oifname" => {
                at += 1;
                first.to_owned()
            }
            "ct" if matches!(word(at + 1), "original" | "reply") => {
                at += 3;
                "other".to_owned()
            }
            "ip" | "ip6" | "tcp" | "udp" | "th" | "sctp" | "dccp" | "udplite" | "icmp" | "icmpv6" | "ct"
            | "ether" | "arp" => {
                at += 2;
                format!("{first} {}", word(at - 1))
            }
            "accept" | "drop" | "return" | "continue" | "reject" | "queue" => {
                draft.verdict = match first {
                    "accept" => Some(Verdict::Accept),
                    "drop" | "reject" => Some(Verdict::Drop),
                    "return" => Some(Verdict::Return),
                    // A program decides.
                    "queue" => None,
                    _ => draft.verdict,
                };
                break;
            }
            "jump" => {
                draft.verdict = Some(Verdict::Jump(word(at + 1).to_owned()));
                break;
            }
            "goto" => {
                draft.verdict = Some(Verdict::Goto(word(at + 1).to_owned()));
                break;
            }
            "counter" => {
                at += 1;
                while matches!(word(at), "packets" | "bytes" | "name") {
                    at += 2;
                }
                continue;
            }
            "log" => {
                at += 1;
                while matches!(
                    word(at),
                    "prefix" | "level" | "group" | "snaplen" | "queue-threshold" | "flags"
                ) {
                    at += 2;
                }
                continue;
            }
            "comment" => {
                at += 2;
                continue;
            }
            _ => {
                // Limits, meters, lookups: fewer packets than the rest of the rule says.
                narrower(&mut draft);
                at += 1;
                values_or_one(tokens, &mut at, first);
                continue;
            }
        };
        let mut negated = false;
        if matches!(word(at), "!=" | "==" | "eq" | "ne") {
            negated = matches!(word(at), "!=" | "ne");
            at += 1;
        }
        if word(at) == "vmap" {
            at += 1;
            match tokens.get(at) {
                Some(Token::Open) => {
                    let entries = values(tokens, &mut at);
                    draft.map = Some((key, entries.iter().filter_map(|entry| entry_of(entry)).collect()));
                }
                // A named map: what is in it is not looked up.
                _ => narrower(&mut draft),
            }
            break;
        }
        if matches!(word(at), "<" | ">" | "<=" | ">=" | "and" | "&" | "|" | "or" | "set") {
            at += 2;
            narrower(&mut draft);
            continue;
        }
        let values = values(tokens, &mut at);
        draft.conditions.push(Condition { key, negated, values });
    }
    draft
}

/// Passes over the arguments of what is not looked into.
fn values_or_one(tokens: &[Token], at: &mut usize, word: &str) {
    match word {
        // `limit rate over 10/second burst 5 packets`
        "limit" => {
            while tokens.get(*at).and_then(Token::word).is_some_and(|word| {
                matches!(word, "rate" | "over" | "until" | "burst" | "packets" | "bytes" | "name")
                    || word.contains(|c: char| c.is_ascii_digit())
            }) {
                *at += 1;
            }
        }
        _ if tokens.get(*at) == Some(&Token::Open) => {
            values(tokens, at);
        }
        _ => {}
    }
}

/// An entry of a verdict map: `22 : accept`.
fn entry_of(entry: &str) -> Option<(String, Verdict)> {
    let (value, verdict) = entry.rsplit_once(':')?;
    let mut words = verdict.split_whitespace();
    let verdict = match (words.next()?, words.next()) {
        ("accept", _) => Verdict::Accept,
        ("drop" | "reject", _) => Verdict::Drop,
        ("return", _) => Verdict::Return,
        ("jump", Some(chain)) => Verdict::Jump(chain.to_owned()),
        ("goto", Some(chain)) => Verdict::Goto(chain.to_owned()),
        _ => return None,
    };
    Some((value.trim().to_owned(), verdict))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(table|chain|\\{|\\}|;|\n|ip|saddr|vmap|accept|set|elements|=|!=|\"| |x|1|,|include|define|\\$x|add|rule|limit|rate|ct|state){0,60}") {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("f"), &text).unwrap();
            let root = Root::open(directory.path()).unwrap();
            let mut found = Found::default();
            let _ = read(&root, "/f", &mut found);
            let _ = found.finish(String::new(), false);
        }
    }
}
