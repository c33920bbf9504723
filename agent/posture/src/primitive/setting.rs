//! `setting`: the effective value of a key in one or several configuration files.

use super::text::uncommented;
use super::{expand, paths, Primitive};
use crate::comparison::Comparison;
use crate::expression::Outcome;
use crate::policy::keys::{Fault, Keys};
use crate::scan::Scan;

#[derive(Debug)]
struct Setting {
    patterns: Vec<String>,
    key: String,
    layout: Layout,
    default: Option<String>,
    comparison: Comparison,
}

/// How the files are written and which of several values counts.
#[derive(Debug, Clone, PartialEq)]
struct Layout {
    separator: Separator,
    section: Option<String>,
    /// The first value counts, else the last.
    first: bool,
    ignore_case: bool,
    comment: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Separator {
    Equals,
    Blank,
    Colon,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let separators = [
        ("=", Separator::Equals),
        ("space", Separator::Blank),
        (" ", Separator::Blank),
        (":", Separator::Colon),
    ];
    Ok(Box::new(Setting {
        patterns: paths(keys, "setting")?,
        key: keys.required_text("key")?,
        layout: Layout {
            separator: keys.word("separator", &separators)?.unwrap_or(Separator::Equals),
            section: keys.text("section")?,
            first: keys.flag("first")?.unwrap_or(false),
            ignore_case: keys.flag("ignore_case")?.unwrap_or(false),
            comment: keys.text("comment")?.unwrap_or_else(|| "#".to_owned()),
        },
        default: keys.scalar("default")?,
        comparison: Comparison::required(keys)?,
    }))
}

/// The values of a key in one file, with their lines, in order.
fn values<'t>(text: &'t str, key: &str, layout: &Layout) -> Vec<(usize, &'t str)> {
    let same = |a: &str, b: &str| if layout.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
    let (mut values, mut inside) = (Vec::new(), layout.section.is_none());
    for (number, line) in text.lines().enumerate() {
        let line = uncommented(line, &layout.comment).trim();
        if line.starts_with(';') {
            continue;
        }
        if let (Some(section), Some(name)) =
            (&layout.section, line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')))
        {
            inside = same(name.trim(), section);
            continue;
        }
        let split = match layout.separator {
            Separator::Equals => line.split_once('='),
            Separator::Colon => line.split_once(':'),
            Separator::Blank => Some(line.split_once(char::is_whitespace).unwrap_or((line, ""))),
        };
        let Some((name, value)) = split.filter(|_| inside) else { continue };
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if same(name, key) {
            values.push((number + 1, unquoted(value.trim())));
        }
    }
    values
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

impl Primitive for Setting {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        let paths = match expand(scan, &self.patterns) {
            Ok(paths) => paths,
            Err(unreadable) => return unreadable.into(),
        };
        let (mut found, mut read): (Option<(String, String)>, usize) = (None, 0);
        for path in paths {
            let text = match scan.root.text(&path) {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(unreadable) => return unreadable.into(),
            };
            read += 1;
            let values = values(&text, &self.key, &self.layout);
            let of_file = if self.layout.first { values.first() } else { values.last() };
            if let Some((line, value)) = of_file {
                if !(self.layout.first && found.is_some()) {
                    found = Some((format!("{}:{line}: {}", path.display(), self.key), (*value).to_owned()));
                }
            }
        }
        let (what, value) = match (found, &self.default) {
            (Some((what, value)), _) => (what, Some(value)),
            (None, Some(default)) => (format!("{} (default)", self.key), Some(default.clone())),
            (None, None) if read == 0 => {
                (format!("{} ({}: missing)", self.key, self.patterns.join(", ")), None)
            }
            (None, None) => (format!("{}: {}", self.patterns.join(", "), self.key), None),
        };
        let holds = self.comparison.holds(value.as_deref());
        Outcome::of(holds, vec![self.comparison.evidence(&what, value.as_deref(), holds)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(separator: Separator, section: Option<&str>) -> Layout {
        Layout {
            separator,
            section: section.map(str::to_owned),
            first: false,
            ignore_case: false,
            comment: "#".into(),
        }
    }

    #[test]
    fn reads_the_usual_layouts() {
        let equals = layout(Separator::Equals, None);
        assert_eq!(
            values("A=1\n#A=2\n A = 'x y' # c\nAB=3\nexport A=\"4\"", "A", &equals),
            [(1, "1"), (3, "x y"), (5, "4")]
        );
        let blank = layout(Separator::Blank, None);
        assert_eq!(values("UMASK\t\t027\nUMASKX 1\nUMASK", "UMASK", &blank), [(1, "027"), (3, "")]);
        let ini = layout(Separator::Equals, Some("Journal"));
        assert_eq!(
            values("Storage=a\n[Journal]\nStorage=b\n;Storage=c\n[Other]\nStorage=d\n", "Storage", &ini),
            [(3, "b")]
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[A=#;\"' \\[\\]\\n]{0,60}") {
            for separator in [Separator::Equals, Separator::Blank, Separator::Colon] {
                let _ = values(&text, "A", &layout(separator, Some("A")));
            }
        }
    }
}
