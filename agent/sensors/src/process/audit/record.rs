//! One audit record's text: `audit(1700000000.123:456): name=value name="text" name=68657861`.
//!
//! The same text comes from the netlink socket and stands in an audit log. Values that a program controls are either quoted or,
//! when they hold a quote, a space or a control character, written as bare hexadecimal digits (kernel/audit.c,
//! `audit_log_untrustedstring`); `(null)` and `?` stand for nothing.

use defender_model::time::Timestamp;

/// Record types of linux/audit.h that the sensor looks at.
pub(crate) mod kind {
    /// `AUDIT_CONFIG_CHANGE`: rules or settings of audit itself were changed.
    pub(crate) const CONFIG_CHANGE: u16 = 1305;
    /// `AUDIT_SYSCALL`: first record of an event, who and what.
    pub(crate) const SYSCALL: u16 = 1300;
    /// `AUDIT_CWD`: working directory.
    pub(crate) const CWD: u16 = 1307;
    /// `AUDIT_EXECVE`: the argument vector, in as many records as it takes.
    pub(crate) const EXECVE: u16 = 1309;
    /// `AUDIT_EOE`: the event is complete.
    pub(crate) const EOE: u16 = 1320;
    /// `AUDIT_REPLACE`: another process asks to become the audit daemon.
    pub(crate) const REPLACE: u16 = 1329;
    /// `AUDIT_KERN_MODULE`: the name of the module that the call was about.
    pub(crate) const KERN_MODULE: u16 = 1330;
    /// `AUDIT_ANOM_ABEND`: a process died of a signal that dumps core.
    pub(crate) const ANOM_ABEND: u16 = 1701;
}

/// Number of the record type that audit logs call by this name; only those the sensor looks at.
pub(crate) fn kind_from_name(name: &[u8]) -> Option<u16> {
    Some(match name {
        b"SYSCALL" => kind::SYSCALL,
        b"EXECVE" => kind::EXECVE,
        b"CWD" => kind::CWD,
        b"EOE" => kind::EOE,
        b"KERN_MODULE" => kind::KERN_MODULE,
        b"ANOM_ABEND" => kind::ANOM_ABEND,
        b"CONFIG_CHANGE" => kind::CONFIG_CHANGE,
        _ => return None,
    })
}

/// Time and number that all records of one event share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) time: Timestamp,
    pub(crate) serial: u64,
}

/// Splits a record into its stamp and its fields: `audit(SECONDS.MILLIS:SERIAL): FIELDS`.
pub(crate) fn split(payload: &[u8]) -> Option<(Stamp, &[u8])> {
    let rest = payload.strip_prefix(b"audit(")?;
    let (seconds, rest) = number(rest)?;
    let (millis, rest) = number(rest.strip_prefix(b".")?)?;
    let (serial, rest) = number(rest.strip_prefix(b":")?)?;
    let rest = rest.strip_prefix(b"):")?;
    let time = i64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(i64::try_from(millis).ok()?)?;
    Some((Stamp { time: Timestamp(time), serial }, rest))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    decimal(digits).map(|value| (value, rest))
}

/// An unsigned decimal number that fills the whole text.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// An unsigned hexadecimal number that fills the whole text.
pub(crate) fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| Some(value << 4 | u64::from(nibble(*byte)?)))
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// A field's value as it stands in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Between quotes: the bytes themselves.
    Quoted(&'a [u8]),
    /// Bare: a number, a word, or hexadecimal digits of bytes, as the field's meaning has it.
    Bare(&'a [u8]),
}

impl Value<'_> {
    /// Appends the bytes of a value that a program controls.
    pub(crate) fn decode_into(self, out: &mut Vec<u8>) {
        match self {
            Self::Quoted(bytes) => out.extend_from_slice(bytes),
            Self::Bare(b"(null)" | b"?") => {}
            Self::Bare(digits) => {
                let bytes = digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?));
                let start = out.len();
                for byte in bytes {
                    let Some(byte) = byte else {
                        // Not hexadecimal after all: some records carry plain words unquoted.
                        out.truncate(start);
                        out.extend_from_slice(digits);
                        return;
                    };
                    out.push(byte);
                }
                if digits.len() % 2 != 0 {
                    out.truncate(start);
                    out.extend_from_slice(digits);
                }
            }
        }
    }

    /// Text of a value that a program controls; see [`defender_model::text::from_vec`].
    pub(crate) fn text(self) -> String {
        let mut bytes = Vec::new();
        self.decode_into(&mut bytes);
        defender_model::text::from_vec(bytes)
    }
}

/// The fields of a record, in order.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(fields: &'a [u8]) -> Self {
        // An audit log in "enriched" format repeats numbers as names after a group separator.
        let end = fields.iter().position(|byte| *byte == 0x1d).unwrap_or(fields.len());
        Self { rest: &fields[..end] }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | 0))?;
            let text = &self.rest[start..];
            let end = text.iter().position(|byte| matches!(byte, b'=' | b' '))?;
            let name = &text[..end];
            if text[end] == b' ' {
                // A word without a value ("old auid=1"): skip it.
                self.rest = &text[end..];
                continue;
            }
            let value = &text[end + 1..];
            return Some(match value.first() {
                Some(b'"') => {
                    let value = &value[1..];
                    let close = value.iter().position(|byte| *byte == b'"').unwrap_or(value.len());
                    self.rest = value.get(close + 1..).unwrap_or_default();
                    (name, Value::Quoted(&value[..close]))
                }
                _ => {
                    let close =
                        value.iter().position(|byte| matches!(byte, b' ' | b'\n' | 0)).unwrap_or(value.len());
                    self.rest = &value[close..];
                    (name, Value::Bare(&value[..close]))
                }
            });
        }
    }
}

/// A line of an audit log: record type, stamp and fields. `None` for lines of other types or forms.
pub(crate) fn log_line(line: &[u8]) -> Option<(u16, Stamp, &[u8])> {
    let mut rest = line;
    let mut record_kind = None;
    loop {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        rest = &rest[start..];
        if let Some(name) = rest.strip_prefix(b"type=") {
            let end = name.iter().position(|byte| *byte == b' ')?;
            record_kind = Some(kind_from_name(&name[..end])?);
            rest = &name[end..];
        } else if let Some(message) = rest.strip_prefix(b"msg=") {
            let (stamp, fields) = split(message)?;
            return Some((record_kind?, stamp, fields));
        } else {
            // node=NAME, or the time stamp a syslog daemon put in front.
            let end = rest.iter().position(|byte| *byte == b' ')?;
            rest = &rest[end..];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splits_the_stamp_from_the_fields() {
        let (stamp, fields) = split(b"audit(1700000000.042:99): argc=1 a0=\"ls\"").unwrap();
        assert_eq!(stamp, Stamp { time: Timestamp(1_700_000_000_042), serial: 99 });
        let fields: Vec<_> = Fields::new(fields).collect();
        assert_eq!(fields, [(&b"argc"[..], Value::Bare(b"1")), (&b"a0"[..], Value::Quoted(b"ls"))]);
        assert!(split(b"audit(1.2)").is_none());
        assert!(split(b"audit(99999999999999999999.0:1):").is_none());
    }

    #[test]
    fn decodes_what_a_program_controls() {
        assert_eq!(Value::Quoted(b"/bin/ls").text(), "/bin/ls");
        assert_eq!(Value::Bare(b"612062").text(), "a b");
        assert_eq!(Value::Bare(b"61FF").text(), "a\\xff");
        assert_eq!(Value::Bare(b"(null)").text(), "");
        assert_eq!(Value::Bare(b"pts0").text(), "pts0");
    }

    #[test]
    fn reads_log_lines_raw_and_enriched() {
        let line = b"node=dev type=CWD msg=audit(1.002:3): cwd=\"/\"\x1dOUID=\"root\"";
        let (kind, stamp, fields) = log_line(line).unwrap();
        assert_eq!((kind, stamp.serial), (kind::CWD, 3));
        assert_eq!(Fields::new(fields).collect::<Vec<_>>(), [(&b"cwd"[..], Value::Quoted(b"/"))]);
        assert!(log_line(b"type=PROCTITLE msg=audit(1.002:3): proctitle=6C73").is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = split(&bytes);
            let _ = log_line(&bytes);
            for (_, value) in Fields::new(&bytes) {
                let _ = value.text();
            }
        }

        #[test]
        fn encoded_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 1..40)) {
            let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
            let mut out = Vec::new();
            Value::Bare(hex.as_bytes()).decode_into(&mut out);
            prop_assert_eq!(out, bytes);
        }
    }
}
