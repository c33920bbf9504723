//! ArcSight's Common Event Format, version 0: `CEF:0|vendor|product|version|id|name|severity|key=value ...`.
//!
//! Keys, their meaning and the escapes are those of Micro Focus' *ArcSight Common Event Format Implementation Standard*, which
//! Microsoft Sentinel (table `CommonSecurityLog`) and QRadar follow. In the header `\` and `|` are escaped, in values `\`, `=` and line
//! ends.

use std::fmt::Write as _;

use defender_model::text;
use serde_json::Value;

use super::format::of_ten;
use crate::event::text_at;
use crate::record::Record;

/// Longest value, in bytes before escaping: what the standard allows for `msg`, `request` and `filePath`.
const MAX_VALUE: usize = 1023;
/// The same of a name in the header.
const MAX_NAME: usize = 512;

/// Extension keys and where the event has their value: at its top, or in the first event an alert rests on. `docs/sinks.md` has the
/// same table for people.
const KEYS: [(&str, &str); 28] = [
    ("rt", "/time"),
    ("start", "/start_time"),
    ("end", "/end_time"),
    ("cnt", "/count"),
    ("act", "/unmapped/response"),
    ("spt", "/src_endpoint/port"),
    ("dhost", "/dst_endpoint/hostname"),
    ("dpt", "/dst_endpoint/port"),
    ("in", "/traffic/bytes_in"),
    ("out", "/traffic/bytes_out"),
    ("duser", "/user/name"),
    ("duid", "/user/uid"),
    ("app", "/service/name"),
    ("dproc", "/process/name"),
    ("dpid", "/process/pid"),
    ("duser", "/process/user/name"),
    ("duid", "/process/user/uid"),
    ("sproc", "/actor/process/file/path"),
    ("spid", "/actor/process/pid"),
    ("suser", "/actor/process/user/name"),
    ("filePath", "/file/path"),
    ("filePath", "/process/file/path"),
    ("filePath", "/driver/file/path"),
    ("fileHash", "/file/hashes/0/value"),
    ("destinationDnsDomain", "/query/hostname"),
    ("deviceExternalId", "/device/uid"),
    ("dvchost", "/device/hostname"),
    ("reason", "/status_detail"),
];

/// Custom keys, with the label that says what they are.
const CUSTOM: [(&str, &str, &str); 6] = [
    ("cs1", "cmd_line", "/process/cmd_line"),
    ("cs2", "technique", "/finding_info/attacks/0/technique/uid"),
    ("cs3", "boot_uid", "/device/boot_uid"),
    ("cs4", "finding_uid", "/finding_info/uid"),
    ("cs5", "check", "/compliance/control"),
    ("cs6", "component", "/unmapped/component"),
];

/// Addresses: CEF has other keys for IPv6.
const ADDRESSES: [(&str, &str, &str, &str); 2] = [
    ("src", "c6a2", "Source IPv6 Address", "/src_endpoint/ip"),
    ("dst", "c6a3", "Destination IPv6 Address", "/dst_endpoint/ip"),
];

/// The record in CEF: printable, on one line.
pub(super) fn encode(record: &Record, event: &Value) -> String {
    let at = |place: &str| text_at(event, place);
    let or = |value: Option<String>, other: &str| value.unwrap_or_else(|| other.to_owned());
    let mut cef = String::from("CEF:0");
    let name = at("/finding_info/title").or_else(|| class_name(event).map(str::to_owned));
    for field in [
        or(at("/metadata/product/vendor_name"), "defender project"),
        or(at("/metadata/product/name"), "defender"),
        or(at("/metadata/product/version"), env!("CARGO_PKG_VERSION")),
        or(at("/finding_info/analytic/uid").or_else(|| at("/type_uid")), "0"),
        or(name, "event"),
        of_ten(record.severity).to_string(),
    ] {
        cef.push('|');
        push_header(&mut cef, &field);
    }
    cef.push('|');
    push(&mut cef, "msg", &record.summary);
    let mut given: Vec<&str> = Vec::new();
    for (key, place) in KEYS {
        if !given.contains(&key) {
            if let Some(value) = anywhere(event, place) {
                push(&mut cef, key, &value);
                given.push(key);
            }
        }
    }
    for (v4, v6, label, place) in ADDRESSES {
        // Of a block the address stands in an observable; its peer is the source of what was blocked.
        let blocked = || {
            let named = event.pointer("/observables/0/name")?.as_str()? == "blocked.ip" && v4 == "src";
            named.then(|| text_at(event, "/observables/0/value"))?
        };
        let Some(value) = anywhere(event, place).or_else(blocked) else { continue };
        match value.parse() {
            Ok(std::net::IpAddr::V4(_)) => push(&mut cef, v4, &value),
            Ok(std::net::IpAddr::V6(_)) => push_labelled(&mut cef, v6, label, &value),
            Err(_) => {}
        }
    }
    for (key, label, place) in CUSTOM {
        if let Some(value) = anywhere(event, place) {
            push_labelled(&mut cef, key, label, &value);
        }
    }
    push_labelled(&mut cef, "cn1", "sequence", &record.sequence.to_string());
    // The separator behind the last one.
    cef.pop();
    cef
}

/// What the classes are called that have no title of their own.
fn class_name(event: &Value) -> Option<&'static str> {
    Some(match event.pointer("/class_uid")?.as_u64()? {
        0 => "Submitted Event",
        1001 => "File System Activity",
        1002 => "Kernel Extension Activity",
        1007 => "Process Activity",
        1010 => "Peripheral Activity",
        2003 => "Compliance Finding",
        3001 => "Account Change",
        3002 => "Authentication",
        3004 => "Entity Management",
        3006 => "Group Management",
        4001 => "Network Activity",
        4003 => "DNS Activity",
        5001 => "Device Inventory Info",
        5020 => "Software Inventory Info",
        6002 => "Application Lifecycle",
        6008 => "Application Error",
        7004 => "Network Remediation Activity",
        7003 => "Process Remediation Activity",
        7001 => "Remediation Activity",
        _ => return None,
    })
}

fn anywhere(event: &Value, place: &str) -> Option<String> {
    text_at(event, place).or_else(|| text_at(event.pointer("/evidences/0")?, place))
}

fn push_labelled(cef: &mut String, key: &str, label: &str, value: &str) {
    push(cef, key, value);
    let _ = write!(cef, "{key}Label={label} ");
}

fn push(cef: &mut String, key: &str, value: &str) {
    let _ = write!(cef, "{key}=");
    for c in text::truncate(value, MAX_VALUE).chars() {
        match c {
            '\\' | '=' => cef.extend(['\\', c]),
            '\n' => cef.push_str("\\n"),
            '\r' => cef.push_str("\\r"),
            c => push_printable(cef, c),
        }
    }
    cef.push(' ');
}

fn push_header(cef: &mut String, value: &str) {
    for c in text::truncate(value, MAX_NAME).chars() {
        match c {
            '\\' | '|' => cef.extend(['\\', c]),
            // The header has no escape for line ends.
            '\n' | '\r' => cef.push(' '),
            c => push_printable(cef, c),
        }
    }
}

/// What a terminal must not see is escaped as everywhere, its backslash as CEF wants it.
fn push_printable(cef: &mut String, c: char) {
    let mut one = [0; 4];
    match text::printable(c.encode_utf8(&mut one)) {
        std::borrow::Cow::Borrowed(_) => cef.push(c),
        std::borrow::Cow::Owned(escaped) => {
            cef.push('\\');
            cef.push_str(&escaped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sink::tests::record;

    /// A reader of the standard's grammar, written apart from the encoder: header fields and extension, unescaped.
    fn read(line: &str) -> Option<(Vec<String>, BTreeMap<String, String>)> {
        let mut rest = line.strip_prefix("CEF:0|")?.chars();
        let mut fields = vec![String::new()];
        while fields.len() < 7 {
            match rest.next()? {
                '\\' => fields.last_mut()?.push(rest.next().filter(|c| "\\|".contains(*c))?),
                '|' => fields.push(String::new()),
                c => fields.last_mut()?.push(c),
            }
        }
        fields.pop();
        // An unescaped `=` ends a key, which begins behind the last space before it.
        let (mut pairs, mut key, mut value) = (BTreeMap::new(), None::<String>, String::new());
        while let Some(c) = rest.next() {
            match c {
                '\\' => value.push(match rest.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    c @ ('\\' | '=') => c,
                    _ => return None,
                }),
                '=' => {
                    let (before, next) = value.rsplit_once(' ').unwrap_or(("", &value));
                    let (before, next) = (before.to_owned(), next.to_owned());
                    if next.is_empty() || !next.chars().all(|c| c.is_ascii_alphanumeric()) {
                        return None;
                    }
                    if let Some(key) = key.replace(next) {
                        if pairs.insert(key, before).is_some() {
                            return None;
                        }
                    }
                    value.clear();
                }
                c => value.push(c),
            }
        }
        if pairs.insert(key?, value).is_some() {
            return None;
        }
        Some((fields, pairs))
    }

    #[test]
    fn an_alert() {
        let event = json!({
            "class_uid": 2004, "type_uid": 200_401, "time": 1_700_000_000_000_u64, "count": 5,
            "finding_info": {
                "uid": "9d1c-1", "title": "Brute | force", "analytic": { "uid": "9d1c" },
                "attacks": [{ "technique": { "uid": "T1110" } }],
            },
            "evidences": [{
                "user": { "name": "a=b" }, "src_endpoint": { "ip": "192.0.2.7", "port": 50000 },
                "dst_endpoint": { "ip": "2001:db8::9" },
            }],
            "device": { "uid": "device-1", "hostname": "camera", "boot_uid": "b0a7" },
            "metadata": { "product": { "name": "defender", "vendor_name": "defender project", "version": "0.1.0" } },
        });
        let record = Record { summary: "5 failed\nlogins".into(), ..record(24, true) };
        assert_eq!(
            encode(&record, &event),
            "CEF:0|defender project|defender|0.1.0|9d1c|Brute \\| force|8|msg=5 failed\\nlogins rt=1700000000000 \
             cnt=5 spt=50000 duser=a\\=b deviceExternalId=device-1 dvchost=camera src=192.0.2.7 \
             c6a3=2001:db8::9 c6a3Label=Destination IPv6 Address cs2=T1110 cs2Label=technique \
             cs3=b0a7 cs3Label=boot_uid cs4=9d1c-1 cs4Label=finding_uid cn1=24 cn1Label=sequence"
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(title in "(?s).*", words in "(?s).*", user in "(?s).*", path in ".*") {
            let event = json!({
                "finding_info": { "title": title }, "user": { "name": user }, "file": { "path": path },
            });
            let record = Record { summary: words.as_str().into(), ..record(1, true) };
            let line = encode(&record, &event);
            let (fields, pairs) = read(&line).expect("CEF");
            let shown = |text: &str, most| -> String {
                let escaped = |c: char| match c {
                    '\n' | '\r' => c.to_string(),
                    c => text::printable(&c.to_string()).into_owned(),
                };
                text::truncate(text, most).chars().map(escaped).collect()
            };
            let name = if title.is_empty() { "event".to_owned() } else { shown(&title, MAX_NAME) };
            prop_assert_eq!(&fields[4], &name.replace(['\n', '\r'], " "));
            prop_assert_eq!(&pairs["msg"], &shown(&words, MAX_VALUE));
            let found = |key: &str| pairs.get(key).map_or("", String::as_str);
            prop_assert_eq!(found("duser"), &shown(&user, MAX_VALUE));
            prop_assert_eq!(found("filePath"), &shown(&path, MAX_VALUE));
            prop_assert_eq!(found("cn1"), "1");
        }
    }
}
