//! Messages of the domain name system. Sources: RFC 1035 section 4, RFC 3597 (unknown types), IANA's list of record types.
//!
//! Whoever answers chooses every byte. Names are bounded, pointers only lead backwards, records and texts are counted; what does not
//! hold to that ends the reading, and what was read before it stands.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use defender_model::dns::Answer;

/// Port of the service.
pub const PORT: u16 = 53;
/// Size of the header.
const HEADER: usize = 12;
/// Longest name on the wire (RFC 1035 section 2.3.4).
const NAME: usize = 255;
/// Most records of an answer that are kept.
const RECORDS: usize = 32;
/// Longest text of a record that is kept, in bytes.
const DATA: usize = 512;
/// Class IN.
const INTERNET: u16 = 1;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// Names of the record types a device meets (IANA, DNS Resource Record TYPEs).
const TYPES: [(u16, &str); 17] = [
    (A, "A"),
    (NS, "NS"),
    (CNAME, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (PTR, "PTR"),
    (MX, "MX"),
    (TXT, "TXT"),
    (AAAA, "AAAA"),
    (SRV, "SRV"),
    (35, "NAPTR"),
    (43, "DS"),
    (48, "DNSKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (252, "AXFR"),
    (255, "ANY"),
];

/// A message taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Number by which an answer finds its question.
    pub id: u16,
    /// It is an answer.
    pub response: bool,
    /// Response code.
    pub rcode: u16,
    /// The name asked for, as a zone file writes it, without the dot at its end.
    pub name: String,
    /// The record type asked for.
    pub record_type: String,
    /// Records of the answer, as far as they could be read.
    pub answers: Vec<Answer>,
    /// Addresses among them, with the seconds for which they hold.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// Reads a message that may be cut. `None` for what is no question of a client, nor an answer to one.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Message> {
    let header = bytes.first_chunk::<HEADER>()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let flags = word(2);
    let (questions, records) = (word(4), word(6));
    // Opcode 0 is a query; the others are between servers.
    if flags >> 11 & 0xf != 0 || questions != 1 {
        return None;
    }
    let mut reader = Reader { bytes, at: HEADER };
    let name = reader.name()?;
    let record_type = type_name(reader.word()?);
    reader.word()?;
    let response = flags & 0x8000 != 0;
    let mut message = Message {
        id: word(0),
        response,
        rcode: flags & 0xf,
        name,
        record_type,
        answers: Vec::new(),
        addresses: Vec::new(),
    };
    if response {
        for _ in 0..usize::from(records).min(RECORDS) {
            if reader.record(&mut message).is_none() {
                break;
            }
        }
    }
    Some(message)
}

/// The message in a segment of TCP, which has its length before it (RFC 1035 section 4.2.2); more than one are not looked for.
#[must_use]
pub fn parse_segment(bytes: &[u8]) -> Option<Message> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    parse(rest.get(..length).unwrap_or(rest))
}

fn type_name(number: u16) -> String {
    match TYPES.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("TYPE{number}"),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name, with what it shares with names before it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut length, mut end) = (self.at, 0, None);
        loop {
            let first = usize::from(*self.bytes.get(at)?);
            match first >> 6 {
                0 if first == 0 => break,
                0 => {
                    length += 1 + first;
                    if length >= NAME {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    label(self.bytes.get(at + 1..at + 1 + first)?, &mut name);
                    at += 1 + first;
                }
                3 => {
                    let target = (first & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
                    end = end.or(Some(at + 2));
                    // Only backwards: there is no way round in a circle.
                    if target >= at {
                        return None;
                    }
                    // Nor for a chain of pointers to be long: each leads to a label, which counts.
                    length += 1;
                    if length >= NAME {
                        return None;
                    }
                    at = target;
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(at + 1);
        Some(name)
    }

    /// A record, of which the data stands in the message even when its kind is not known.
    fn record(&mut self, message: &mut Message) -> Option<()> {
        self.name()?;
        let kind = self.word()?;
        let class = self.word()?;
        let ttl = self.take(4)?;
        let ttl = u32::from_be_bytes([ttl[0], ttl[1], ttl[2], ttl[3]]);
        let length = usize::from(self.word()?);
        let start = self.at;
        let data = self.take(length)?;
        // Names in the data may point before it, so it is read where it stands.
        let mut inside = Reader { bytes: &self.bytes[..self.at], at: start };
        let mut text = match kind {
            A | AAAA if class == INTERNET => {
                let address = match (kind, data.len()) {
                    (A, 4) => IpAddr::V4(Ipv4Addr::new(data[0], data[1], data[2], data[3])),
                    (AAAA, 16) => IpAddr::V6(Ipv6Addr::from(*data.first_chunk::<16>()?)),
                    _ => return None,
                };
                message.addresses.push((address, ttl));
                address.to_string()
            }
            NS | CNAME | PTR => inside.name()?,
            MX => format!("{} {}", inside.word()?, inside.name()?),
            SRV => {
                let (priority, weight, port) = (inside.word()?, inside.word()?, inside.word()?);
                format!("{priority} {weight} {port} {}", inside.name()?)
            }
            TXT => strings(data),
            _ => unknown(data),
        };
        if text.len() > DATA {
            // Everything above writes ASCII.
            text.truncate(DATA);
        }
        message.answers.push(Answer { record_type: type_name(kind), data: text });
        Some(())
    }
}

/// A label as a zone file writes it (RFC 1035 section 5.1).
fn label(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'.' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            0x21..=0x7e => out.push(char::from(*byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "\\{byte:03}")),
        }
    }
}

/// Character strings, each with its length before it, put together as their reader does.
fn strings(data: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first() {
        let (string, after) = after.split_at(usize::from(*length).min(after.len()));
        for byte in string {
            match byte {
                0x20..=0x7e => text.push(char::from(*byte)),
                // Writing to a String cannot fail.
                _ => drop(write!(text, "\\{byte:03}")),
            }
        }
        if text.len() > DATA {
            break;
        }
        rest = after;
    }
    text
}

/// Data of a type that is not known: `\# LENGTH HEX` (RFC 3597 section 5).
fn unknown(data: &[u8]) -> String {
    let mut text = format!("\\# {} ", data.len());
    for byte in data.iter().take(DATA / 2) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer with two addresses behind an alias, with compression, as a resolver gave it.
    const ANSWER: &[u8] =
        b"\x12\x34\x81\x80\x00\x01\x00\x03\x00\x00\x00\x00\x03www\x07example\x03org\x00\x00\x01\x00\x01\
        \xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x06\x03web\xc0\x10\
        \xc0\x2d\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x07\
        \xc0\x2d\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x08";

    fn answer(record_type: &str, data: &str) -> Answer {
        Answer { record_type: record_type.into(), data: data.into() }
    }

    #[test]
    fn an_answer_with_pointers() {
        let message = parse(ANSWER).unwrap();
        assert_eq!((message.id, message.response, message.rcode), (0x1234, true, 0));
        assert_eq!((message.name.as_str(), message.record_type.as_str()), ("www.example.org", "A"));
        assert_eq!(
            message.answers,
            [answer("CNAME", "web.example.org"), answer("A", "192.0.2.7"), answer("A", "192.0.2.8")]
        );
        assert_eq!(message.addresses[1], ("192.0.2.8".parse().unwrap(), 300));
        let mut segment = (ANSWER.len() as u16).to_be_bytes().to_vec();
        segment.extend(ANSWER);
        assert_eq!(parse_segment(&segment), Some(message));
    }

    #[test]
    fn what_is_cut_keeps_its_beginning() {
        let whole = parse(ANSWER).unwrap();
        let cut = parse(&ANSWER[..ANSWER.len() - 1]).unwrap();
        assert_eq!(cut.answers, whole.answers[..2]);
        assert_eq!(parse(&ANSWER[..33]).unwrap().answers, []);
        assert_eq!(parse(&ANSWER[..32]), None);
    }

    fn question(name: &[u8], kind: u16) -> Vec<u8> {
        let mut message = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0".to_vec();
        message.extend(name);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn questions() {
        let asked = parse(&question(b"\x05a.b\\\xff\x00", 16)).unwrap();
        assert_eq!((asked.response, asked.name.as_str()), (false, "a\\.b\\\\\\255"));
        assert_eq!(asked.record_type, "TXT");
        assert_eq!(parse(&question(b"\0", 12345)).unwrap().record_type, "TYPE12345");
        // Between servers, or with several questions.
        let mut update = question(b"\0", 1);
        update[2] = 5 << 3;
        assert_eq!(parse(&update), None);
        let mut two = question(b"\0", 1);
        two[5] = 2;
        assert_eq!(parse(&two), None);
    }

    #[test]
    fn names_that_lead_nowhere() {
        for name in [
            &b"\xc0\x0c"[..],    // to itself
            b"\xc0\x0e\xc0\x0c", // forwards
            b"\x01a\xc0\x0c",    // round in a circle
            b"\x40aaaa\x00",     // a kind of label that was never used
            b"\x3faaaa",         // beyond the end
        ] {
            assert_eq!(parse(&question(name, 1)), None, "{name:?}");
        }
        let longest: Vec<u8> = [&[63; 64][..]; 3].concat().into_iter().chain([62; 63]).chain([0]).collect();
        assert!(parse(&question(&longest, 1)).is_none(), "256 bytes");
    }

    #[test]
    fn kinds_of_records() {
        let mut message = question(b"\x01x\x00", 255);
        message[2] = 0x81;
        message[3] = 0x03;
        message[7] = 4;
        let mut record = |kind: u16, data: &[u8]| {
            message.extend(b"\xc0\x0c");
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 9]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        };
        record(TXT, b"\x03a\nb\x02c\"");
        record(MX, b"\0\x0a\xc0\x0c");
        record(AAAA, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        record(65, b"\x00\x01");
        let message = parse(&message).unwrap();
        assert_eq!(message.rcode, 3);
        assert_eq!(
            message.answers,
            [
                answer("TXT", "a\\010bc\""),
                answer("MX", "10 x"),
                answer("AAAA", "2001:db8::1"),
                answer("HTTPS", "\\# 2 0001")
            ]
        );
    }

    proptest! {
        #[test]
        fn damaged_answers_never_panic(at in 0..ANSWER.len(), byte: u8, cut in 0..ANSWER.len()) {
            let mut message = ANSWER.to_vec();
            message[at] = byte;
            let _ = parse(&message);
            let _ = parse(&message[..cut]);
            let _ = parse_segment(&message[cut..]);
        }

        #[test]
        fn arbitrary_messages_are_bounded(body in prop::collection::vec(any::<u8>(), 0..600), records in 0u8..255) {
            let mut message = vec![0, 1, 0x80, 0, 0, 1, 0, records, 0, 0, 0, 0];
            message.extend(body);
            if let Some(read) = parse(&message) {
                prop_assert!(read.name.len() <= 4 * NAME);
                prop_assert!(read.answers.len() <= RECORDS);
                prop_assert!(read.answers.iter().all(|answer| answer.data.len() <= 4 * NAME));
            }
        }
    }
}
