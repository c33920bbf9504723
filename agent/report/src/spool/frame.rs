//! One record in a file of the spool.
//!
//! | Bytes | |
//! |---|---|
//! | 4 | length of what follows the check, little endian as everything here |
//! | 4 | CRC-32 (IEEE 802.3) of what follows |
//! | 8 | sequence number |
//! | 8 | time, milliseconds since 1970 |
//! | 1 | severity, OCSF's number |
//! | 1 | 1: an alert |
//! | 4 | length of the summary |
//! | … | the summary, then the event as JSON |
//!
//! A frame that was cut off or changed is known by its check, so that a file may end anywhere.

use crc::{Crc, Table, CRC_32_ISO_HDLC};
use defender_model::severity::Severity;
use defender_model::time::Timestamp;

use crate::record::Record;

/// Length and check.
const HEAD: usize = 8;
/// What every frame has before its texts.
const FIXED: usize = 22;
/// Longest frame, in bytes: an event with the longest command line, every byte of it escaped, takes 1.6 MB.
pub(super) const LONGEST: usize = 2 << 20;

/// What stands at a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// A record, and the bytes it takes.
    Whole(T, usize),
    /// Nothing that could be read: the end of the file, a frame cut off, or one that was changed.
    Nothing,
}

/// CRC-32 as in IEEE 802.3; no secret, only a sign that bytes are as they were written.
pub(super) fn check(bytes: &[u8]) -> u32 {
    static TABLE: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);
    TABLE.checksum(bytes)
}

/// Appends a record; false when it is too long for a spool.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) -> bool {
    let length = FIXED + record.summary.len() + record.ocsf.len();
    if length > LONGEST {
        return false;
    }
    let start = out.len();
    // At most LONGEST, so each fits.
    #[allow(clippy::cast_possible_truncation)]
    {
        out.extend((length as u32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(record.sequence.to_le_bytes());
        out.extend(record.time.millis().to_le_bytes());
        out.extend([record.severity.id(), u8::from(record.alert)]);
        out.extend((record.summary.len() as u32).to_le_bytes());
    }
    out.extend(record.summary.as_bytes());
    out.extend(&*record.ocsf);
    let sum = check(&out[start + HEAD..]);
    out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
    true
}

/// The frame at the start of `bytes`, its content checked.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (length, sum) = (number(0)? as usize, number(4)?);
    if !(FIXED..=LONGEST).contains(&length) {
        return None;
    }
    let content = bytes.get(HEAD..HEAD + length)?;
    (check(content) == sum).then_some(content)
}

/// Severity and kind of the record at the start of `bytes`, without its texts.
pub(super) fn peek(bytes: &[u8]) -> Found<(Severity, bool)> {
    let Some(content) = frame(bytes) else { return Found::Nothing };
    let Some(severity) = Severity::from_id(content[16]) else { return Found::Nothing };
    Found::Whole((severity, content[17] & 1 == 1), HEAD + content.len())
}

/// The record at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Found<Record> {
    read(bytes).map_or(Found::Nothing, |(record, used)| Found::Whole(record, used))
}

fn read(bytes: &[u8]) -> Option<(Record, usize)> {
    let content = frame(bytes)?;
    let (fixed, texts) = content.split_at_checked(FIXED)?;
    let summary = u32::from_le_bytes(fixed[18..22].try_into().ok()?) as usize;
    let (summary, ocsf) = texts.split_at_checked(summary)?;
    let record = Record {
        severity: Severity::from_id(fixed[16])?,
        alert: fixed[17] & 1 == 1,
        ocsf: ocsf.into(),
        summary: core::str::from_utf8(summary).ok()?.into(),
        time: Timestamp(i64::from_le_bytes(fixed[8..16].try_into().ok()?)),
        sequence: u64::from_le_bytes(fixed[0..8].try_into().ok()?),
        ticket: None,
    };
    Some((record, HEAD + content.len()))
}

/// How many bytes from the start of `bytes` are whole frames.
pub(super) fn whole(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Found::Whole(_, used) = peek(&bytes[at..]) {
        at += used;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(sequence: u64, time: i64, alert: bool, summary: &str, ocsf: &[u8]) -> Record {
        Record {
            severity: Severity::Medium,
            alert,
            ocsf: ocsf.into(),
            summary: summary.into(),
            time: Timestamp(time),
            sequence,
            ticket: None,
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_refused() {
        let mut out = vec![7];
        assert!(!encode(&record(1, 2, true, "", &vec![0; LONGEST]), &mut out));
        assert_eq!(out, [7]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sequence: u64, time: i64, alert: bool, summary in "\\PC{0,40}", ocsf: Vec<u8>) {
            let mut out = Vec::new();
            prop_assert!(encode(&record(sequence, time, alert, &summary, &ocsf), &mut out));
            let length = out.len();
            out.extend([1, 2, 3]);
            let Found::Whole(read, used) = decode(&out) else { panic!("not read") };
            prop_assert_eq!(used, length);
            prop_assert_eq!((read.sequence, read.time.millis(), read.alert), (sequence, time, alert));
            prop_assert_eq!((&*read.summary, &*read.ocsf), (summary.as_str(), ocsf.as_slice()));
            prop_assert_eq!(peek(&out), Found::Whole((Severity::Medium, alert), length));
            prop_assert_eq!(whole(&out), length);
        }

        #[test]
        fn what_was_cut_or_changed_is_not_read(ocsf: Vec<u8>, cut: prop::sample::Index, bit in 0u8..8) {
            let mut out = Vec::new();
            encode(&record(1, 2, true, "summary", &ocsf), &mut out);
            let at = cut.index(out.len());
            prop_assert!(matches!(decode(&out[..at]), Found::Nothing));
            out[at] ^= 1 << bit;
            prop_assert!(matches!(decode(&out), Found::Nothing));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = (decode(&bytes), whole(&bytes));
        }
    }
}
