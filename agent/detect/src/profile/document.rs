//! A profile as a file: what was learned, what people changed, what tells two of them apart.
//!
//! One entry a line and everything sorted, so that a review or a version control system shows what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use defender_model::order;
use defender_model::text::{file_name, nearest};
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::endpoint::Endpoint;
use super::pattern::{Name, Separator};
use super::Facet;

/// Longest file, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Most programs and entries together.
pub(super) const MAX_ENTRIES: usize = 100_000;
/// The version of the format.
const VERSION: i64 = 1;
/// What the file begins with.
const HEAD: &str = "\
# What this product does, learned by `defender profile learn` while it was tested.
# Review every line: what is missing here raises an alert, what is here never does. See docs/profile.md.
#
# {number} stands for digits with - . _ : T between them, {hex:N} for N hexadecimal digits, {uuid} for a UUID, {random:N} for N
# letters or digits, {any} for whatever there is up to the next / (in domains: the next dot), {{ for the character itself.
# An applet of BusyBox is written below it: /bin/busybox/wget. `ephemeral` are the ports 32768-65535.
";
/// What stands above the section of what no program is named for.
const ANY: &str = "\n# Logins, and what was seen without the program behind it: holds for every program.\n";

/// What is wrong with a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError {
    /// Line, from 1; 0 when it is not in a line.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl core::fmt::Display for ProfileError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.line {
            0 => {}
            line => write!(f, "line {line}: ")?,
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ProfileError {}

/// A mistake at an offset in bytes.
struct Fault(usize, String);

/// A profile as text: what each program may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// By program; the empty name is the section `any`.
    pub(super) programs: BTreeMap<String, Facts>,
}

/// What a program may do, by facet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts(pub(super) [BTreeSet<String>; Facet::ALL.len()]);

/// One entry of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<'d> {
    /// The program; empty for the section `any`.
    pub program: &'d str,
    /// Key and value; `None` says that the program is known.
    pub value: Option<(Facet, &'d str)>,
}

impl core::fmt::Display for Entry<'_> {
    /// On one line, as the file would have it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let program = match self.program {
            "" => "any".to_owned(),
            program => quoted(program),
        };
        match self.value {
            None => f.write_str(&program),
            Some((facet, text)) => write!(f, "{program} {} {}", facet.key(), quoted(text)),
        }
    }
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProfileError> {
        let line_of = |at: usize| 1 + bytes.iter().take(at).filter(|byte| **byte == b'\n').count();
        if bytes.len() > MAX_BYTES {
            return Err(ProfileError { line: 0, message: format!("longer than {MAX_BYTES} bytes") });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| ProfileError {
            line: line_of(error.valid_up_to()),
            message: "not UTF-8".to_owned(),
        })?;
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            ProfileError { line: line_of(at), message: error.message().to_owned() }
        })?;
        read(table.get_ref()).map_err(|Fault(at, message)| ProfileError { line: line_of(at), message })
    }

    /// Every entry, sorted.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.programs.iter().flat_map(|(program, facts)| {
            let known = Entry { program, value: None };
            let of = move |facet: Facet| {
                let texts = facts.0[facet as usize].iter();
                texts.map(move |text| Entry { program, value: Some((facet, text.as_str())) })
            };
            (!program.is_empty()).then_some(known).into_iter().chain(Facet::ALL.into_iter().flat_map(of))
        })
    }

    /// Entries that allow more than a review should let pass, and why.
    #[must_use]
    pub fn too_wide(&self) -> Vec<(Entry<'_>, &'static str)> {
        self.entries().filter_map(|entry| Some((entry, wide(&entry)?))).collect()
    }

    /// The file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::from(HEAD);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "version = {VERSION}");
        for (program, facts) in &self.programs {
            if program.is_empty() {
                let _ = writeln!(out, "{ANY}[any]");
            } else {
                let _ = writeln!(out, "\n[program.{}]", quoted(program));
            }
            for facet in Facet::ALL {
                let texts = &facts.0[facet as usize];
                if texts.is_empty() {
                    continue;
                }
                let _ = writeln!(out, "{} = [", facet.key());
                for text in texts {
                    let _ = writeln!(out, "  {},", quoted(text));
                }
                out.push_str("]\n");
            }
        }
        out
    }
}

/// Entries only the one or only the other of two sorted lists has; true for those of the second.
#[must_use]
pub fn difference<'d>(old: &'d Document, new: &'d Document) -> Vec<(bool, Entry<'d>)> {
    let (before, after) = (order::set(old.entries()), order::set(new.entries()));
    let gone = before.difference(&after).map(|entry| (false, *entry));
    let mut all: Vec<_> = gone.chain(after.difference(&before).map(|entry| (true, *entry))).collect();
    order::sort_by_key(&mut all, |(new, entry)| (*entry, *new));
    all
}

fn wide(entry: &Entry<'_>) -> Option<&'static str> {
    let bare = |text: &str, separator: char| text.split(separator).any(|part| part == "{any}");
    match entry.value {
        None if entry.program.contains("{any}") => Some("programs with {any} in their path"),
        None if generated(entry.program) => {
            Some("a program whose file is generated: whoever may write there may run it")
        }
        None => None,
        Some((Facet::Listens, text)) => Endpoint::listen(text).ok().and_then(|end| end.too_wide()),
        Some((Facet::Connects, text)) => {
            let end = Endpoint::peer(text).ok()?;
            end.too_wide().or_else(|| end.is_anywhere().then_some("any host"))
        }
        Some((Facet::LooksUp, text)) if bare(text, '.') => Some("any domain below that one"),
        Some((_, text)) if bare(text, '/') => Some("whatever lies in that directory"),
        Some(_) => None,
    }
}

/// The last component of a program's path has a placeholder.
fn generated(path: &str) -> bool {
    let name = file_name(path);
    matches!(Name::parse(name, Separator::Slash), Ok(Name::Pattern(_)))
}

fn read(table: &DeTable<'_>) -> Result<Document, Fault> {
    let mut document = Document::default();
    let mut room = MAX_ENTRIES;
    let mut version = None;
    for (key, value) in table {
        let at = key.span().start;
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("version", DeValue::Integer(number)) => {
                version = Some(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(0));
            }
            ("any", DeValue::Table(section)) => {
                let facts = section_of("", section, &mut room)?;
                document.programs.insert(String::new(), facts);
            }
            ("program", DeValue::Table(programs)) => {
                for (name, section) in programs {
                    let at = name.span().start;
                    let DeValue::Table(section) = section.get_ref() else {
                        return Err(Fault(
                            at,
                            "a program is a section: [program.\"/usr/bin/name\"]".to_owned(),
                        ));
                    };
                    let name = name.get_ref();
                    path(name).map_err(|why| Fault(at, why))?;
                    take(&mut room, at)?;
                    document.programs.insert(name.to_string(), section_of(name, section, &mut room)?);
                }
            }
            ("version", _) => return Err(Fault(at, "`version` is a number".to_owned())),
            ("any" | "program", _) => return Err(Fault(at, "a section is a table".to_owned())),
            (other, _) => return Err(Fault(at, unknown(other, &["version", "any", "program"]))),
        }
    }
    match version {
        Some(VERSION) => Ok(document),
        Some(other) => {
            Err(Fault(0, format!("version {other} of the format; this agent knows version {VERSION}")))
        }
        None => Err(Fault(0, format!("no profile: `version = {VERSION}` is missing"))),
    }
}

fn take(room: &mut usize, at: usize) -> Result<(), Fault> {
    *room = room.checked_sub(1).ok_or_else(|| Fault(at, format!("more than {MAX_ENTRIES} entries")))?;
    Ok(())
}

fn section_of(program: &str, table: &DeTable<'_>, room: &mut usize) -> Result<Facts, Fault> {
    let mut facts = Facts::default();
    for (key, value) in table {
        let at = key.span().start;
        let name = key.get_ref().as_ref();
        let known = || Facet::ALL.into_iter().filter(|facet| facet.fits(program));
        let Some(facet) = known().find(|facet| facet.key() == name) else {
            let names: Vec<_> = known().map(Facet::key).collect();
            return Err(Fault(at, unknown(name, &names)));
        };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(Fault(at, format!("`{name}` is a list of strings")));
        };
        for item in items {
            let at = item.span().start;
            let text = string(item).ok_or_else(|| Fault(at, format!("`{name}` is a list of strings")))?;
            take(room, at)?;
            facet.check(text).map_err(|why| Fault(at, why))?;
            facts.0[facet as usize].insert(text.to_owned());
        }
    }
    Ok(facts)
}

fn string<'t>(value: &'t Spanned<DeValue<'t>>) -> Option<&'t str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key `{key}`; did you mean `{near}`?"),
        None => format!("unknown key `{key}`; there are {}", known.join(", ")),
    }
}

/// A path, whose first component says where it begins: no placeholder stands there.
pub(super) fn path(text: &str) -> Result<Name, String> {
    let name = Name::parse(text, Separator::Slash)?;
    let first = text.strip_prefix('/').unwrap_or(text).split('/').next().unwrap_or_default();
    match Name::parse(first, Separator::Slash) {
        Ok(Name::Pattern(_)) => Err(format!("`{text}`: the first component of a path stays as it is")),
        _ => Ok(name),
    }
}

/// A domain, whose last label says whose it is.
pub(super) fn domain(text: &str) -> Result<Name, String> {
    let name = Name::parse(text, Separator::Dot)?;
    let last = text.rsplit('.').next().unwrap_or_default();
    match Name::parse(last, Separator::Dot) {
        Ok(Name::Pattern(_)) => Err(format!("`{text}`: the last label of a domain stays as it is")),
        _ if text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Err(format!("`{text}`: domains are written in lower case"))
        }
        _ => Ok(name),
    }
}

/// A basic string of TOML. Controls and characters that reorder text are escaped, so that a review shows what is there.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if !c.is_ascii() && !c.is_alphanumeric() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: &str =
        "version = 1\n[any]\nlogins = [\"root sshd\"]\n[program.\"/usr/bin/curl\"]\nusers = [\"root\"]\n\
        connects = [\n  \"tcp 192.0.2.0/24 443\",\n  \"tcp any 80\",\n]\n";

    fn mistake(text: &str) -> String {
        Document::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_have_a_line_and_say_what_is_right() {
        for (text, says) in [
            ("", "`version = 1` is missing"),
            ("version = 2", "version 2"),
            ("version = \"1\"", "line 1: `version` is a number"),
            ("version = 1\n[programs]\n", "line 2: unknown key `programs`; did you mean `program`?"),
            (
                "version = 1\n[program.\"/a\"]\nuser = []\n",
                "line 3: unknown key `user`; did you mean `users`?",
            ),
            ("version = 1\n[program.\"/a\"]\nlogins = []\n", "line 3: unknown key `logins`"),
            ("version = 1\n[any]\nusers = []\n", "line 3: unknown key `users`"),
            ("version = 1\n[any]\nlistens = [\n\"tcp 1\",\n\"tcp x\"]\n", "line 5: `x` is no port"),
            ("version = 1\n[any]\nlistens = 1\n", "line 3: `listens` is a list"),
            ("version = 1\n[any]\nwrites = [\"/{any}/x\"]\n", "line 3: `/{any}/x`: the first component"),
            ("version = 1\n[any]\nlooks_up = [\"a.{any}\"]\n", "line 3: `a.{any}`: the last label"),
            ("version = 1\n[any]\nlooks_up = [\"A.b\"]\n", "lower case"),
            ("version = 1\n[program.\"/a{b\"]\n", "line 2: `{` begins none of"),
            ("version = 1\n[program.\"{any}\"]\n", "line 2: "),
            ("version = 1\n[program]\n\"/a\" = 1\n", "line 3: a program is a section"),
            ("version = 1\n[any\n", "line 2: "),
        ] {
            assert!(mistake(text).contains(says), "{text}: {}", mistake(text));
        }
        assert_eq!(Document::parse(b"version = 1\n\xff").unwrap_err().to_string(), "line 2: not UTF-8");
        assert!(Document::parse(&vec![b' '; MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let document = Document::parse(SMALL.as_bytes()).unwrap();
        let text = document.to_toml();
        assert_eq!(Document::parse(text.as_bytes()).unwrap(), document, "{text}");
        assert!(text.ends_with(
            "[program.\"/usr/bin/curl\"]\nusers = [\n  \"root\",\n]\nconnects = [\n  \"tcp 192.0.2.0/24 443\",\n  \"tcp any 80\",\n]\n"
        ));
    }

    #[test]
    fn differences_and_width() {
        let old = Document::parse(SMALL.as_bytes()).unwrap();
        let new = Document::parse(SMALL.replace("192.0.2.0/24", "192.0.2.0/25").as_bytes()).unwrap();
        assert!(difference(&old, &old).is_empty());
        let told: Vec<_> =
            difference(&old, &new).iter().map(|(new, entry)| format!("{new} {entry}")).collect();
        assert_eq!(
            told,
            [
                "false \"/usr/bin/curl\" connects \"tcp 192.0.2.0/24 443\"",
                "true \"/usr/bin/curl\" connects \"tcp 192.0.2.0/25 443\""
            ]
        );
        let wide: Vec<_> = old.too_wide().iter().map(|(entry, why)| format!("{entry}: {why}")).collect();
        assert_eq!(wide, ["\"/usr/bin/curl\" connects \"tcp any 80\": any host"]);
        let text = "version = 1\n[program.\"/tmp/tmp.{random:10}\"]\nwrites = [\"/a/{any}\", \"/a/b{any}\"]\nlooks_up = [\"{any}.b.c\"]\n";
        assert_eq!(Document::parse(text.as_bytes()).unwrap().too_wide().len(), 3);
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(&bytes);
        }

        #[test]
        fn any_name_can_be_written_and_read(program in any::<String>(), user in any::<String>()) {
            let mut names = [String::new(), String::new()];
            super::super::pattern::escape(&format!("/{program}"), &mut names[0]);
            super::super::pattern::escape(&format!("u{user}"), &mut names[1]);
            let [program, user] = names;
            let mut document = Document::default();
            document.programs.entry(program).or_default().0[0].insert(user);
            let text = document.to_toml();
            prop_assert_eq!(Document::parse(text.as_bytes()), Ok(document), "{}", text);
        }
    }
}
