//! Tokens of nft's language: words, braces, commas and ends of statements.

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Open,
    Close,
    /// A semicolon or the end of a line.
    End,
    Comma,
}

impl Token {
    /// The word, where it is one.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// The tokens of a text.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    let flush = |word: &mut String, tokens: &mut Vec<Token>| {
        if !word.is_empty() {
            tokens.push(Token::Word(std::mem::take(word)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                flush(&mut word, &mut tokens);
                let mut quoted = String::new();
                for c in chars.by_ref() {
                    if c == '"' || c == '\n' {
                        break;
                    }
                    quoted.push(c);
                }
                tokens.push(Token::Word(quoted));
            }
            '\\' if chars.peek() == Some(&'\n') => {
                chars.next();
            }
            '\n' | ';' | '{' | '}' | ',' => {
                flush(&mut word, &mut tokens);
                tokens.push(match c {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    ',' => Token::Comma,
                    _ => Token::End,
                });
            }
            c if c.is_whitespace() => flush(&mut word, &mut tokens),
            '=' if !word.ends_with(['!', '=', '<', '>']) && chars.peek() != Some(&'=') => {
                flush(&mut word, &mut tokens);
                tokens.push(Token::Word("=".to_owned()));
            }
            c => word.push(c),
        }
    }
    flush(&mut word, &mut tokens);
    tokens
}

/// Values from `at` on: one, several with commas between them, or what stands in braces.
pub(super) fn values(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let mut values = Vec::new();
    if tokens.get(*at) == Some(&Token::Open) {
        *at += 1;
        let (mut value, mut depth) = (String::new(), 1_usize);
        while depth > 0 {
            match tokens.get(*at) {
                Some(Token::Open) => depth += 1,
                Some(Token::Close) => depth -= 1,
                Some(Token::Comma) => values.push(std::mem::take(&mut value)),
                Some(Token::Word(word)) => {
                    if !value.is_empty() {
                        value.push(' ');
                    }
                    value.push_str(word);
                }
                Some(Token::End) => {}
                None => break,
            }
            *at += 1;
        }
        values.push(value);
        values.retain(|value| !value.is_empty());
        return values;
    }
    while let Some(word) = tokens.get(*at).and_then(Token::word) {
        values.push(word.to_owned());
        *at += 1;
        if tokens.get(*at) != Some(&Token::Comma) {
            break;
        }
        *at += 1;
    }
    values
}

/// Tokens as text, for evidence.
pub(super) fn shown(tokens: &[Token]) -> String {
    let mut out = String::new();
    for token in tokens {
        let word = match token {
            Token::Word(word) => word.as_str(),
            Token::Open => "{",
            Token::Close => "}",
            Token::Comma => {
                out.push(',');
                continue;
            }
            Token::End => continue,
        };
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.len() > 200 {
            break;
        }
    }
    out
}
