//! A bounded tree of a YAML document, with line numbers.
//!
//! Rules need the plain part of YAML 1.2: mappings, sequences and scalars of the core schema. Aliases are refused (they are
//! how a small file becomes a large tree), so are tags. Depth, number of nodes, size of a scalar and of a document are bounded.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::error::{At, Cause};

/// Most bytes of one document.
pub(crate) const MAX_DOCUMENT: usize = 256 * 1024;
/// Most bytes of one file of many documents.
pub(crate) const MAX_FILE: usize = 4 * 1024 * 1024;
/// Most bytes of one scalar.
pub(crate) const MAX_SCALAR: usize = 64 * 1024;
/// Deepest nesting.
pub(crate) const MAX_DEPTH: usize = 24;
/// Most nodes of one document.
pub(crate) const MAX_NODES: usize = 20_000;

/// A node and the line it starts at, from 1 in its file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) kind: Kind,
}

/// What a node is, by the core schema of YAML 1.2 (section 10.3).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) | Kind::Float(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// Value of `key`, where the node is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.map()?.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub(crate) fn map(&self) -> Option<&[(String, Node)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The scalar as text, whatever its type: for keys such as `timespan` and names that look like numbers.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match &self.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Int(n) => Some(n.to_string()),
            Kind::Float(n) => Some(n.to_string()),
            Kind::Bool(b) => Some(b.to_string()),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }
}

/// The documents of a file: each parsed for itself, so that a bad one does not hide the next.
pub(crate) fn documents(bytes: &[u8]) -> Vec<Result<Node, At>> {
    if bytes.len() > MAX_FILE {
        let cause = Cause::TooLarge(format!("the file has {} bytes, the bound is {MAX_FILE}", bytes.len()));
        return vec![Err(At::new(1, cause))];
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(e) => {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let cause = Cause::Yaml("the file is not UTF-8".to_owned());
            return vec![Err(At::new(to_line(line), cause))];
        }
    };
    let mut out = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut offset = 0;
    for (line, text_line) in (1u32..).zip(text.split_inclusive('\n')) {
        // A line that starts with `---` and a blank ends a document wherever it stands (YAML 1.2 section 9.1.2, c-forbidden).
        let marker = text_line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && offset > start {
            push_document(&text[start..offset], start_line, &mut out);
            start = offset;
            start_line = line;
        }
        offset += text_line.len();
    }
    push_document(&text[start..], start_line, &mut out);
    out
}

fn push_document(text: &str, first_line: u32, out: &mut Vec<Result<Node, At>>) {
    let blank = text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "---" || line == "..."
    });
    if !blank {
        out.push(parse(text, first_line));
    }
}

fn parse(text: &str, first_line: u32) -> Result<Node, At> {
    if text.len() > MAX_DOCUMENT {
        let cause =
            Cause::TooLarge(format!("the document has {} bytes, the bound is {MAX_DOCUMENT}", text.len()));
        return Err(At::new(first_line, cause));
    }
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree { first_line, stack: Vec::new(), root: None, nodes: 0 };
    while let Some(next) = parser.next_event() {
        match next {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => tree.take(event, span)?,
            Err(e) => {
                let line = first_line.saturating_add(to_line(e.marker().line())).saturating_sub(1);
                return Err(At::new(line, Cause::Yaml(e.info().to_owned())));
            }
        }
    }
    tree.root.ok_or_else(|| At::new(first_line, Cause::Yaml("the document is empty".to_owned())))
}

fn to_line(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A collection that is still open.
enum Open {
    List(u32, Vec<Node>),
    Map(u32, Vec<(String, Node)>, Option<String>),
}

struct Tree {
    first_line: u32,
    stack: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), At> {
        let line = self.first_line.saturating_add(to_line(span.start.line())).saturating_sub(1);
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(At::new(
                line,
                Cause::TooLarge(format!("the document has more than {MAX_NODES} nodes")),
            ));
        }
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                if self.root.is_some() {
                    let cause = Cause::Yaml("a second document starts without a line `---`".to_owned());
                    return Err(At::new(line, cause));
                }
                Ok(())
            }
            Event::Alias(_) => {
                Err(At::new(line, Cause::Yaml("an alias (`*name`) is not accepted in rules".to_owned())))
            }
            Event::Scalar(text, style, _, tag) => {
                refuse_tag(tag.is_some(), line)?;
                if text.len() > MAX_SCALAR {
                    let cause = Cause::TooLarge(format!(
                        "a value has {} bytes, the bound is {MAX_SCALAR}",
                        text.len()
                    ));
                    return Err(At::new(line, cause));
                }
                if let Some(Open::Map(_, entries, key @ None)) = self.stack.last_mut() {
                    if entries.iter().any(|(k, _)| *k == *text) {
                        return Err(At::new(line, Cause::Yaml(format!("the key `{text}` appears twice"))));
                    }
                    *key = Some(text.into_owned());
                    return Ok(());
                }
                self.place(Node { line, kind: scalar(text.into_owned(), style) })
            }
            Event::SequenceStart(_, tag) => {
                refuse_tag(tag.is_some(), line)?;
                self.open(Open::List(line, Vec::new()), line)
            }
            Event::MappingStart(_, tag) => {
                refuse_tag(tag.is_some(), line)?;
                self.open(Open::Map(line, Vec::new(), None), line)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List(line, items)) => self.place(Node { line, kind: Kind::List(items) }),
                Some(Open::Map(line, entries, _)) => self.place(Node { line, kind: Kind::Map(entries) }),
                None => Err(At::new(line, Cause::Yaml("a collection ends that never started".to_owned()))),
            },
        }
    }

    fn open(&mut self, open: Open, line: u32) -> Result<(), At> {
        if let Some(Open::Map(_, _, None)) = self.stack.last() {
            return Err(At::new(line, Cause::Yaml("a key must be a scalar".to_owned())));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(At::new(line, Cause::TooLarge(format!("nested deeper than {MAX_DEPTH} levels"))));
        }
        self.stack.push(open);
        Ok(())
    }

    fn place(&mut self, node: Node) -> Result<(), At> {
        match self.stack.last_mut() {
            None => {
                if self.root.is_some() {
                    return Err(At::new(
                        node.line,
                        Cause::Yaml("text after the end of the document".to_owned()),
                    ));
                }
                self.root = Some(node);
            }
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => return Err(At::new(node.line, Cause::Yaml("a key must be a scalar".to_owned()))),
            },
        }
        Ok(())
    }
}

fn refuse_tag(tagged: bool, line: u32) -> Result<(), At> {
    if tagged {
        return Err(At::new(line, Cause::Yaml("a tag (`!type`) is not accepted in rules".to_owned())));
    }
    Ok(())
}

fn scalar(text: String, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    if let Some(n) = integer(&text) {
        return Kind::Int(n);
    }
    if let Some(n) = float(&text) {
        return Kind::Float(n);
    }
    Kind::Text(text)
}

fn integer(text: &str) -> Option<i64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| i64::from_str_radix(hex, 16).ok())?;
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return octal.bytes().all(|b| b.is_ascii_digit()).then(|| i64::from_str_radix(octal, 8).ok())?;
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn float(text: &str) -> Option<f64> {
    let plausible = text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
    plausible.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Node, At> {
        let mut all = documents(text.as_bytes());
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn resolves_the_core_schema() {
        let doc =
            one("a: 1\nb: 0x10\nc: ~\nd:\ne: 'true'\nf: true\ng: 1.5\nh: yes\ni: ''\nj: 1.2.3\n").unwrap();
        let kinds: Vec<_> = doc.map().unwrap().iter().map(|(_, v)| v.kind.clone()).collect();
        assert_eq!(
            kinds,
            [
                Kind::Int(1),
                Kind::Int(16),
                Kind::Null,
                Kind::Null,
                Kind::Text("true".into()),
                Kind::Bool(true),
                Kind::Float(1.5),
                Kind::Text("yes".into()),
                Kind::Text(String::new()),
                Kind::Text("1.2.3".into()),
            ]
        );
        assert_eq!(doc.get("g").unwrap().line, 7);
    }

    #[test]
    fn a_bad_document_does_not_hide_the_next() {
        let all = documents(b"a: 1\n---\n{ bad\n---\nb: 2\n--- # comment\nc: 3\n");
        assert_eq!(all.len(), 4);
        assert!(all[0].is_ok() && all[2].is_ok() && all[3].is_ok());
        assert!(matches!(&all[1], Err(At { cause: Cause::Yaml(_), .. })), "{:?}", all[1]);
        assert_eq!(all[2].as_ref().unwrap().get("b").unwrap().line, 5);
        assert!(documents(b"# nothing\n---\n").is_empty());
    }

    #[test]
    fn refuses_what_grows() {
        let cause = |text: &str| one(text).unwrap_err().cause;
        assert!(matches!(cause("a: &x [1]\nb: *x\n"), Cause::Yaml(m) if m.contains("alias")));
        assert!(matches!(cause("a: !!binary aGk=\n"), Cause::Yaml(m) if m.contains("tag")));
        assert!(matches!(cause("a: 1\na: 2\n"), Cause::Yaml(m) if m.contains("twice")));
        assert!(matches!(cause(&"[".repeat(100)), Cause::TooLarge(_)));
        assert!(matches!(cause(&"[".repeat(50_000)), Cause::TooLarge(_) | Cause::Yaml(_)));
        assert!(matches!(cause(&"- ".repeat(50_000)), Cause::TooLarge(_) | Cause::Yaml(_)));
        assert!(matches!(cause(&format!("a: {}\n", "x".repeat(MAX_SCALAR + 1))), Cause::TooLarge(_)));
        assert!(matches!(cause(&format!("[{}]\n", "1,".repeat(MAX_NODES + 1))), Cause::TooLarge(_)));
        assert!(matches!(cause(&"x".repeat(MAX_DOCUMENT + 1)), Cause::TooLarge(_)));
        let wide = documents(&vec![b' '; MAX_FILE + 1]);
        assert!(matches!(&wide[0], Err(At { cause: Cause::TooLarge(_), .. })));
        assert_eq!(documents(b"a: 1\nb: \xff\n")[0].as_ref().unwrap_err().line, 2);
    }
}
