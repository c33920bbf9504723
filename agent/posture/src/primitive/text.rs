//! `text`: lines of files.

use defender_model::text::truncate;

use super::{expand, paths, Primitive};
use crate::expression::Outcome;
use crate::pattern::Pattern;
use crate::policy::keys::{Fault, Keys};
use crate::result::EVIDENCE_LINES;
use crate::root::Kind;
use crate::scan::Scan;

/// Longest piece of a line shown as evidence.
const SHOWN: usize = 160;

#[derive(Debug)]
struct Text {
    patterns: Vec<String>,
    pattern: Pattern,
    /// What the expression looks for, in words for the evidence.
    shown: String,
    /// Some line must match; else none may.
    wanted: bool,
    /// What starts a comment; `None` where comments count.
    comment: Option<String>,
    /// Every file must have a matching line, else one line of one file is enough.
    each: bool,
    /// A missing file is a fault.
    required: bool,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let patterns = paths(keys, "text")?;
    let (matches, lacks) = (keys.pattern("matches")?, keys.pattern("lacks")?);
    let comments = keys.flag("comments")?.unwrap_or(false);
    let comment = keys.text("comment")?.unwrap_or_else(|| "#".to_owned());
    let (pattern, wanted) = match (matches, lacks) {
        (Some(pattern), None) => (pattern, true),
        (None, Some(pattern)) => (pattern, false),
        _ => return Err(Fault::new(keys.at, "`text` needs `matches` or `lacks`, not both")),
    };
    let shown = shown(keys, &pattern)?;
    let each = keys.word("match", &[("any", false), ("all", true)])?.unwrap_or(false);
    let required = keys.flag("required")?.unwrap_or(false);
    Ok(Box::new(Text {
        patterns,
        pattern,
        shown,
        wanted,
        comment: (!comments).then_some(comment),
        each,
        required,
    }))
}

/// What an expression looks for, in words for the evidence: the key `shown`, or the expression itself.
pub(super) fn shown(keys: &mut Keys<'_>, pattern: &Pattern) -> Result<String, Fault> {
    Ok(keys.text("shown")?.unwrap_or_else(|| format!("line that matches `{}`", pattern.as_str())))
}

/// A line without its comment: from a comment sign at the start or after a blank.
pub(super) fn uncommented<'t>(line: &'t str, signs: &str) -> &'t str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if signs.contains(c) && before.is_whitespace() {
            return line[..at].trim_end();
        }
        before = c;
    }
    line
}

impl Primitive for Text {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        let mut regex = match self.pattern.compile() {
            Ok(regex) => regex,
            Err(reason) => return Outcome::unknown(reason),
        };
        let paths = match expand(scan, &self.patterns) {
            Ok(paths) => paths,
            Err(unreadable) => return unreadable.into(),
        };
        let (mut hits, mut without, mut unread, mut read) = (Vec::new(), Vec::new(), None, 0);
        for path in paths {
            if scan.root.metadata(&path).ok().flatten().is_some_and(|m| m.kind == Kind::Directory) {
                continue;
            }
            let text = match scan.root.text(&path) {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(unreadable) => {
                    unread = unread.or(Some(unreadable));
                    continue;
                }
            };
            read += 1;
            let mut matched = false;
            for (number, line) in text.lines().enumerate() {
                let line = match &self.comment {
                    Some(signs) => uncommented(line, signs),
                    None => line,
                };
                let counts = self.comment.is_none() || !line.trim().is_empty();
                if !counts || !regex.is_match(line) {
                    continue;
                }
                matched = true;
                if hits.len() <= EVIDENCE_LINES {
                    hits.push(format!("{}:{}: {}", path.display(), number + 1, truncate(line.trim(), SHOWN)));
                }
            }
            if !matched {
                without.push(format!("{}: no {}", path.display(), self.shown));
            }
        }
        if self.wanted && self.each && !without.is_empty() {
            return Outcome::no(without);
        }
        let names = || self.patterns.join(", ");
        match (hits.is_empty(), unread, self.wanted) {
            (false, _, wanted) => Outcome::of(wanted, hits),
            (true, Some(unreadable), _) => unreadable.into(),
            (true, None, true) if read == 0 => Outcome::no(vec![format!("{}: missing", names())]),
            (true, None, true) => Outcome::no(vec![format!("{}: no {}", names(), self.shown)]),
            (true, None, false) if read == 0 => {
                Outcome::of(!self.required, vec![format!("{}: missing", names())])
            }
            (true, None, false) => Outcome::yes(vec![format!("{}: no {}", names(), self.shown)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::uncommented;

    #[test]
    fn comments_start_a_line_or_follow_a_blank() {
        assert_eq!(uncommented("# all", "#"), "");
        assert_eq!(uncommented("a=b # c", "#"), "a=b");
        assert_eq!(uncommented("color=#fff", "#"), "color=#fff");
        assert_eq!(uncommented("a ; b", "#;"), "a");
    }
}
