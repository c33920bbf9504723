//! From a name that was seen to the name a profile keeps: what is generated becomes a placeholder, the rest stays.
//!
//! Each name is generalised by itself, so the result depends neither on other names nor on their order. What is generated is told
//! by its shape; where that is in doubt, the name stays exact: a false alert is seen, a profile that allows too much is not. The
//! first component of a path, and the last two labels of a domain, always stay.

use super::pattern::{escape, is_uuid, Separator};

/// Endings of compressed files, behind which a rotated log's number still counts.
const COMPRESSED: [&str; 5] = [".gz", ".xz", ".bz2", ".zst", ".lz4"];
/// Shortest run of hexadecimal digits that is taken for a digest or id.
const DIGEST: usize = 16;
/// Shortest run of digits within a word that is taken for a date or a counter.
const LONG_NUMBER: usize = 8;
/// Fewest digits, between punctuation, that are taken for a number.
const SHORT_NUMBER: usize = 3;
/// How many characters mkstemp(3), Python's tempfile and mktemp(1) put in.
const RANDOM: [usize; 3] = [6, 8, 10];

/// The name of a file that was written or read.
pub(super) fn file(path: &str) -> String {
    components(path, |_, component, out| words(component, Separator::Slash, out))
}

/// The path of a program: exact, but for components that are generated as a whole and versions in directories.
pub(super) fn executable(path: &str) -> String {
    components(path, |last, component, out| program(component, last, out))
}

/// A domain, in lower case and without the dot at its end.
pub(super) fn domain(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let labels = name.split('.').count();
    for (number, label) in name.split('.').enumerate() {
        if number > 0 {
            out.push('.');
        }
        if number + 2 < labels {
            words(label, Separator::Dot, &mut out);
        } else {
            escape(label, &mut out);
        }
    }
    out
}

/// Generalises each component but the first; the function is told whether it is the last.
fn components(path: &str, each: impl Fn(bool, &str, &mut String)) -> String {
    let mut out = String::with_capacity(path.len());
    let count = path.split('/').count();
    let first = usize::from(path.starts_with('/'));
    for (number, component) in path.split('/').enumerate() {
        if number > 0 {
            out.push('/');
        }
        if number <= first {
            escape(component, &mut out);
        } else {
            each(number + 1 == count, component, &mut out);
        }
    }
    out
}

/// A component of an executable's path.
fn program(component: &str, last: bool, out: &mut String) {
    let bytes = component.as_bytes();
    let number = Separator::Slash.number(bytes);
    if number > 0 && number == bytes.len() {
        return out.push_str("{number}");
    }
    if is_uuid(bytes) && bytes.len() == 36 {
        return out.push_str("{uuid}");
    }
    if is_digest(bytes) {
        return placeholder("hex", bytes.len(), out);
    }
    let word = component.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
    let tail = &bytes[word.min(bytes.len())..];
    if RANDOM.contains(&tail.len()) && is_random(tail) {
        escape(&component[..word], out);
        return placeholder("random", tail.len(), out);
    }
    // `app-1.2.3/bin/app`, `v2.0/app`: only a directory's version, and only one with a dot in it.
    if !last {
        let start = component.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let before = start.checked_sub(1).map(|at| bytes[at]);
        let stands_alone = matches!(before, Some(b'-' | b'_')) || (before == Some(b'v') && start == 1);
        let length = Separator::Slash.number(&bytes[start..]);
        if stands_alone && start + length == bytes.len() && bytes[start..].contains(&b'.') {
            escape(&component[..start], out);
            return out.push_str("{number}");
        }
    }
    escape(component, out);
}

/// A component of a file's path, or a label of a domain.
fn words(text: &str, separator: Separator, out: &mut String) {
    let bytes = text.as_bytes();
    if !bytes.is_empty() && separator.number(bytes) == bytes.len() {
        return out.push_str("{number}");
    }
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if word == 0 {
            // Everything up to the next word, characters beyond ASCII among it.
            let length = rest.iter().take_while(|byte| !byte.is_ascii_alphanumeric()).count();
            escape(&text[at..at + length], out);
            at += length;
            continue;
        }
        if is_uuid(rest) && !rest.get(36).is_some_and(u8::is_ascii_alphanumeric) {
            out.push_str("{uuid}");
            at += 36;
        } else if is_digest(&rest[..word]) {
            placeholder("hex", word, out);
            at += word;
        } else if let Some(length) = number(text, at, separator) {
            out.push_str("{number}");
            at += length;
        } else {
            at += plain_word(text, at, word, separator, out);
        }
    }
}

/// A word that is no number by itself: it may hold a long one, or end in random characters. Returns how much was taken.
fn plain_word(text: &str, at: usize, word: usize, separator: Separator, out: &mut String) -> usize {
    let rest = &text.as_bytes()[at..];
    let mut start = 0;
    while start < word {
        let digits = rest[start..word].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits >= LONG_NUMBER {
            escape(&text[at..at + start], out);
            out.push_str("{number}");
            return start + separator.number(&rest[start..]);
        }
        start += digits.max(1);
    }
    let suffix = at > 0 && text.as_bytes()[at - 1] == b'.' && at + word == text.len();
    let random = if suffix && separator == Separator::Slash { may_be_random } else { is_random };
    if RANDOM.contains(&word) && random(&rest[..word]) {
        placeholder("random", word, out);
        return word;
    }
    // mkstemp("nameXXXXXX"): nothing stands between.
    let tail = RANDOM[0];
    if word > tail && at + word == text.len() && is_random(&rest[word - tail..word]) {
        escape(&text[at..at + word - tail], out);
        placeholder("random", tail, out);
        return word;
    }
    escape(&text[at..at + word], out);
    word
}

/// Length of the number at `at`, where one stands by itself there: as long as numbers are, or at the end of a rotated log.
fn number(text: &str, at: usize, separator: Separator) -> Option<usize> {
    let bytes = text.as_bytes();
    let length = separator.number(&bytes[at..]);
    let after = &bytes[at + length..];
    // `20261127T101112Z`
    let zulu = after.first() == Some(&b'Z') && !after.get(1).is_some_and(u8::is_ascii_alphanumeric);
    if length == 0 || (!zulu && after.first().is_some_and(u8::is_ascii_alphanumeric)) {
        return None;
    }
    let digits = bytes[at..at + length].iter().filter(|byte| byte.is_ascii_digit()).count();
    let rotated = || {
        let behind = &text[at + length..];
        at > 1
            && bytes[at - 1] == b'.'
            && !bytes[at - 2].is_ascii_digit()
            && (behind.is_empty() || COMPRESSED.contains(&behind))
            && !text.contains(".so.")
    };
    (digits >= SHORT_NUMBER || (separator == Separator::Slash && rotated())).then_some(length)
}

fn placeholder(kind: &str, count: usize, out: &mut String) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = write!(out, "{{{kind}:{count}}}");
}

/// Hexadecimal digits of one case, as long as digests are, with letters and digits among them.
fn is_digest(word: &[u8]) -> bool {
    (DIGEST..=128).contains(&word.len())
        && word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_digit)
        && word.iter().any(u8::is_ascii_alphabetic)
        && !(word.iter().any(u8::is_ascii_lowercase) && word.iter().any(u8::is_ascii_uppercase))
}

/// Letters and digits in each other's midst as no word of a language or of a programmer has them: `v1alpha1`, `libX11`, `PangoFT2` and
/// `MyFile` are not. Random characters often do not look it either; then the name stays exact.
fn is_random(word: &[u8]) -> bool {
    is_mixed(word) && word.iter().any(u8::is_ascii_digit) && changes(word) * 2 >= word.len()
}

/// The same where random characters stand as a rule, in a name such as `passwd.Xk29aB`.
fn may_be_random(word: &[u8]) -> bool {
    let hump = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    is_mixed(word) && (word.iter().any(u8::is_ascii_digit) || word.windows(2).any(hump))
}

/// Letters of both cases, and digits maybe.
fn is_mixed(word: &[u8]) -> bool {
    word.iter().any(u8::is_ascii_lowercase)
        && word.iter().any(u8::is_ascii_uppercase)
        && word.iter().all(u8::is_ascii_alphanumeric)
}

/// How often small letters, capitals and digits give way to each other.
fn changes(word: &[u8]) -> usize {
    let kind = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    word.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pattern::Name;
    use super::*;

    #[test]
    fn what_is_generated_becomes_a_placeholder() {
        for (path, expected) in [
            ("/var/log/app-2026-11-27.log", "/var/log/app-{number}.log"),
            ("/var/log/app_20261127T101112Z.log", "/var/log/app_{number}Z.log"),
            ("/var/log/messages.1", "/var/log/messages.{number}"),
            ("/var/log/syslog.2.gz", "/var/log/syslog.{number}.gz"),
            ("/var/core/core.app.1234", "/var/core/core.app.{number}"),
            ("/proc/812/comm", "/proc/{number}/comm"),
            ("/run/app.812.tmp", "/run/app.{number}.tmp"),
            ("/data/img20261127.jpg", "/data/img{number}.jpg"),
            ("/tmp/tmp.aB3dE6gH9j", "/tmp/tmp.{random:10}"),
            ("/etc/hostnameaB3dE6", "/etc/hostname{random:6}"),
            ("/etc/passwd.Xk29aB", "/etc/passwd.{random:6}"),
            ("/d/5f1c3a52-0d5e-4a64-9a0e-6a3f2d1b7c11/x", "/d/{uuid}/x"),
            ("/d/0123456789abcdef0123.bin", "/d/{hex:20}.bin"),
            (
                "/tmp/systemd-private-5f1c3a520d5e4a649a0e6a3f2d1b7c11-ntp.service-aB3dE6/tmp",
                "/tmp/systemd-private-{hex:32}-ntp.service-{random:6}/tmp",
            ),
            ("/opt/lib/libfoo-1.2.3.bin", "/opt/lib/libfoo-{number}.bin"),
        ] {
            assert_eq!(file(path), expected);
        }
        for (path, expected) in [
            ("/opt/app/1.2.3/bin/app", "/opt/app/{number}/bin/app"),
            ("/opt/app-1.2.3/bin/app", "/opt/app-{number}/bin/app"),
            ("/opt/app/v2.0/app", "/opt/app/v{number}/app"),
            ("/tmp/tmp.aB3dE6gH9j", "/tmp/tmp.{random:10}"),
            ("/tmp/x/0123456789abcdef", "/tmp/x/{hex:16}"),
        ] {
            assert_eq!(executable(path), expected);
        }
        assert_eq!(domain("host-12345.dyn.example.com"), "host-{number}.dyn.example.com");
        assert_eq!(domain("0.pool.ntp.org"), "{number}.pool.ntp.org");
    }

    #[test]
    fn what_has_a_meaning_stays() {
        for path in [
            "/root/.ssh/id_ed25519",
            "/dev/ttyS0",
            "/dev/i2c-1",
            "/sys/class/gpio/gpio17/value",
            "/usr/lib/libfoo.so.6",
            "/etc/x509.pem",
            "/1234/a",
            "/20261127.log",
            "/etc/Makefile",
            "/etc/MyFile",
            "/home/a{b",
            "/etc/README",
            "/usr/lib/python3.11/lib2to3/v1alpha1/log4j2.xml",
            "/usr/lib/libX11-xcb.so.1.0",
            "/usr/share/girepository-1.0/PangoFT2-1.0.typelib",
            "/etc/x.md5sum",
            "/etc/x.service",
            "/etc/x.config",
            "/etc/x.README",
            "/var/lib/sha256sums",
        ] {
            assert_eq!(file(path), path.replace('{', "{{"));
        }
        for path in [
            "/usr/bin/python3.11",
            "/usr/bin/md5sum",
            "/usr/sbin/i2cget",
            "/usr/bin/x86_64-linux-gnu-gcc-12",
            "/usr/sbin/mkfs.ext4",
            "/lib64/ld-linux-x86-64.so.2",
            "/usr/lib/jvm/java-17-openjdk/bin/java",
            "/tmp/app-2026-11-27",
            "/1.2.3",
            "/bin/[",
        ] {
            assert_eq!(executable(path), path);
        }
        for name in ["ntp.example.org", "20261127.org", "2026.11", "mqtt3.example.org", "localhost"] {
            assert_eq!(domain(name), name);
        }
    }

    proptest! {
        #[test]
        fn what_was_generalised_matches(path in "(/[a-cA-C0-9{}._:TZ é-]{0,14}){1,4}") {
            for (general, separator) in [
                (file(&path), Separator::Slash),
                (executable(&path), Separator::Slash),
                (domain(&path.replace('/', ".")), Separator::Dot),
            ] {
                let name = Name::parse(&general, separator).unwrap();
                let text = if separator == Separator::Dot { path.replace('/', ".") } else { path.clone() };
                prop_assert!(name.matches(&text), "{text} {general}");
                prop_assert!(!name.has_any());
            }
        }

        #[test]
        fn any_text_is_generalised_to_what_it_matches(text in any::<String>()) {
            prop_assume!(!text.is_empty());
            prop_assert!(Name::parse(&file(&text), Separator::Slash).unwrap().matches(&text));
            prop_assert!(Name::parse(&executable(&text), Separator::Slash).unwrap().matches(&text));
            prop_assert!(Name::parse(&domain(&text), Separator::Dot).unwrap().matches(&text));
        }

        /// Directories of letters alone are what they are: a program seen in one says nothing about another.
        #[test]
        fn the_directory_stays(a in "(/[a-z]{1,8}){1,3}", b in "(/[a-z]{1,8}){1,3}", name in "[a-zA-Z0-9.-]{1,12}") {
            prop_assume!(a != b);
            let learned = Name::parse(&executable(&format!("{a}/{name}")), Separator::Slash).unwrap();
            let other = format!("{b}/{name}");
            prop_assert!(!learned.matches(&other), "{other}");
        }
    }
}
