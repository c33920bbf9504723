use proptest::prelude::*;

use super::*;
use crate::login::line::Line;

const PRINT: &str = "7d1qfVZzV9nJXHtfnBAVDZ3vBBr7j4bzv5c9wnYyzCs";

fn authentication(service: &str, message: &str) -> Authentication {
    parse(service, message, true).unwrap_or_else(|| panic!("nothing in: {message}")).authentication
}

#[test]
fn a_user_name_that_spells_an_address_moves_nothing() {
    let real: IpAddr = "192.0.2.7".parse().expect("v4");
    for user in [
        "root from 198.51.100.9 port 22 ssh2",
        "root from 198.51.100.9 port 22 ssh2: RSA SHA256:7d1qfVZzV9nJXHtfnBAVDZ3vBBr7j4bzv5c9wnYyzCs",
        "invalid user x from 198.51.100.9 port 1 ssh2",
        "x 198.51.100.9 port 22",
        " from 198.51.100.9",
        "",
        "x' from 198.51.100.9:22",
        "x' on 'pts/0' from '198.51.100.9",
    ] {
        for (service, line) in [
            ("sshd", format!("Failed password for invalid user {user} from 192.0.2.7 port 40022 ssh2")),
            ("sshd", format!("Failed publickey for invalid user {user} from 192.0.2.7 port 40022 ssh2: RSA SHA256:{PRINT}")),
            ("sshd", format!("error: maximum authentication attempts exceeded for invalid user {user} from 192.0.2.7 port 40022 ssh2 [preauth]")),
            ("sshd", format!("Connection closed by invalid user {user} 192.0.2.7 port 40022 [preauth]")),
            ("dropbear", format!("login attempt for nonexistent user '{user}' from 192.0.2.7:40022")),
            ("dropbear", format!("Bad password attempt for '{user}' from 192.0.2.7:40022")),
            ("dropbear", format!("Exit before auth from <192.0.2.7:40022>: (user '{user}', 2 fails): x from <198.51.100.9:1>")),
            ("login", format!("invalid password for '{user}' on 'pts/0' from '192.0.2.7'")),
            ("login", format!("FAILED LOGIN (1) on '/dev/pts/0' from '192.0.2.7' FOR '{user}', Authentication failure")),
            ("login", format!("FAILED LOGIN 1 FROM 192.0.2.7 FOR {user}, Authentication failure")),
        ] {
            let found = authentication(service, &line);
            assert_eq!(found.source, (line.len() <= MAX_UNCUT).then_some(real), "{line}");
            if !user.is_empty() {
                assert_eq!(found.user.as_deref(), Some(user), "{line}");
            }
        }
        // Local lines have no address to find.
        for (service, line) in [
            ("login", format!("invalid password for '{user}' on 'ttyS0'")),
            ("login", format!("FAILED LOGIN (1) on '/dev/tty1' FOR '{user}', Authentication failure")),
            ("login", format!("FAILED LOGIN 1 FROM tty1 FOR {user}, Authentication failure")),
            ("su", format!("FAILED SU (to root) {user} on pts/0")),
        ] {
            assert_eq!(authentication(service, &line).source, None, "{line}");
        }
        let line = format!("pam_unix(ftp:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser={user} rhost=192.0.2.7  user={user}");
        let found = authentication("ftpd", &line).source;
        assert_eq!(found, (line.len() <= MAX_UNCUT).then_some(real), "{line}");
    }
}

#[test]
fn clients_text_on_both_sides_gives_no_address_rather_than_a_wrong_one() {
    let real: Option<IpAddr> = "192.0.2.7".parse().ok();
    let certificate = |user: &str, id: &str| {
        format!("Failed publickey for {user} from 192.0.2.7 port 1 ssh2: RSA-CERT SHA256:{PRINT} ID {id} (serial 0) CA RSA SHA256:{PRINT}")
    };
    assert_eq!(authentication("sshd", &certificate("root", "me")).source, real);
    let fake = format!("x from 198.51.100.9 port 2 ssh2: RSA-CERT SHA256:{PRINT} ID y");
    assert_eq!(authentication("sshd", &certificate("root", &fake)).source, None);
    assert_eq!(authentication("sshd", &certificate(&fake, "me")).source, None);
    let fake = "x rhost=198.51.100.9";
    let line = format!("pam_unix(ftp:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser={fake} rhost=192.0.2.7");
    assert_eq!(authentication("ftpd", &line).source, None);
    let hostbased = format!("Failed hostbased for root from 192.0.2.7 port 1 ssh2: RSA SHA256:{PRINT}, client user \"x from 198.51.100.9 port 2 ssh2\", client host \"h\"");
    assert_eq!(authentication("sshd", &hostbased).source, real);
}

#[test]
fn a_line_without_its_end_gives_no_address() {
    let line = "Failed password for root from 192.0.2.7 port 40022 ssh2";
    let found = parse("sshd", line, false).expect("a failure").authentication;
    assert_eq!((found.source, found.source_port, found.user.as_deref()), (None, None, Some("root")));
}

#[test]
fn host_names_are_no_addresses() {
    let found = authentication("sshd", "Failed password for root from 7.2.0.192.example port 40022 ssh2");
    assert_eq!((found.source, found.source_port), (None, None));
    assert_eq!(authentication("login", "FAILED LOGIN 1 FROM attacker.example FOR root, x").source, None);
}

#[test]
fn repetitions() {
    assert_eq!(repeats_of_last("last message repeated 3 times"), Some(3));
    assert_eq!(repeats_of_last("last message buffered 1 times"), Some(1));
    assert_eq!(repeats_of_last("last message repeated x times"), None);
    let many = "message repeated 4000000000 times: [ Failed password for root from 192.0.2.7 port 1 ssh2]";
    assert_eq!(authentication("sshd", many).count, MAX_COUNT);
    assert_eq!(
        parse(
            "sshd",
            "message repeated 2 times: [ Failed password for root from 192.0.2.7 port 1 ssh2",
            true
        ),
        None
    );
}

/// What sshd's log.c does to text that does not print (`strnvis` with VIS_SAFE and VIS_OCTAL).
fn vis(text: &[u8]) -> String {
    let mut out = String::new();
    for &byte in text {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(byte as char),
            _ => out.push_str(&format!("\\{byte:03o}")),
        }
    }
    out
}

/// Names an attacker might try: noise of printing and escaped bytes around something that looks like the end of a line.
fn hostile_name() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop_oneof![Just(b'x'), Just(b' '), Just(1u8), Just(b'\\'), any::<u8>()];
    let end = prop_oneof![
        Just(" from 198.51.100.9 port 1 ssh2".to_owned()),
        Just(" from 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff port 65535 ssh2".to_owned()),
        Just(" from fe80::aaaa:bbbb:cccc:dddd%abcdefghijklmno port 65535 ssh2".to_owned()),
        Just(" 198.51.100.9 port 1 [preauth]".to_owned()),
        Just(" 198.51.100.9 port 1: Too many authentication failures [preauth]".to_owned()),
        Just(" from 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff port 65535 ssh2 [preauth]".to_owned()),
        Just(" fe80::aaaa:bbbb:cccc:dddd%abcdefghijklmno port 65535 [preauth]".to_owned()),
        Just(format!(" from 198.51.100.9 port 1 ssh2: RSA SHA256:{PRINT}")),
        Just(format!(" from 198.51.100.9 port 1 ssh2: RSA {}", "aa:".repeat(15) + "aa")),
        Just(format!(" from 198.51.100.9 port 1 ssh2: ED25519-CERT SHA256:{PRINT} ID x")),
        Just(" from 198.51.100.9".to_owned()),
        Just("' from 198.51.100.9:22".to_owned()),
        Just(String::new()),
    ];
    (proptest::collection::vec(noise.clone(), 0..100), end, proptest::collection::vec(noise, 0..100))
        .prop_map(|(before, end, after)| {
            let mut name = before;
            name.extend_from_slice(end.as_bytes());
            name.extend(after);
            name.retain(|&b| b != 0);
            name
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// However an attacker names himself, and wherever a syslog daemon with a buffer of 256 bytes or more cuts the line: the
    /// address is the real one or none.
    #[test]
    fn no_name_and_no_cut_names_somebody_else(name in hostile_name(), extra in 0usize..200) {
        let short = vis(&name[..name.len().min(100)]);
        // sshpkt_fmt_connection_id has a buffer of 512 and does not shorten the name first.
        let mut id = format!("invalid user {} 192.0.2.7 port 40022", vis(&name));
        id.truncate(511);
        let real: Option<IpAddr> = "192.0.2.7".parse().ok();
        for message in [
            format!("Failed password for invalid user {short} from 192.0.2.7 port 40022 ssh2"),
            format!("Failed publickey for invalid user {short} from 192.0.2.7 port 40022 ssh2: RSA SHA256:{PRINT}"),
            format!("Failed publickey for invalid user {short} from 192.0.2.7 port 40022 ssh2: RSA-CERT SHA256:{PRINT} ID {} (serial 0) CA RSA SHA256:{PRINT}", vis(&name)),
            format!("Failed keyboard-interactive/pam for invalid user {short} from 192.0.2.7 port 40022 ssh2"),
            format!("error: maximum authentication attempts exceeded for invalid user {short} from 192.0.2.7 port 40022 ssh2 [preauth]"),
            format!("Connection closed by {id} [preauth]"),
            format!("Disconnecting {id}: Too many authentication failures [preauth]"),
            format!("Disconnected from {id} [preauth]"),
        ] {
            for tag in ["sshd[9]", "sshd-session[4194304]"] {
                let datagram = format!("<38>Nov  3 20:50:52 {tag}: {message}");
                for cut in [255, 255 + extra, usize::MAX] {
                    let line = Line::parse(&datagram.as_bytes()[..cut.min(datagram.len())]);
                    let (tag, message) = (line.tag.map(text::from_bytes), text::from_bytes(line.message));
                    if let Some(found) = parse(&tag.unwrap_or_default(), &message, true) {
                        let source = found.authentication.source;
                        prop_assert!(source.is_none() || source == real, "{source:?} of {datagram:?} cut at {cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn never_panics(service in "(sshd|dropbear|login|su|sudo)", text in "\\PC{0,120}") {
        let _ = parse(&service, &text, true);
    }

    #[test]
    fn never_panics_on_nearly_right_messages(service in "(sshd|dropbear|login|su|ftpd)", words in proptest::collection::vec(
        prop_oneof![
            Just("Failed "), Just("password for "), Just("publickey for "), Just("invalid user "), Just(" from "), Just("192.0.2.7"),
            Just(" port "), Just("22"), Just(" ssh2"), Just(": "), Just("Accepted "), Just("Connection closed by "), Just("user "),
            Just("Bad password attempt for '"), Just("'"), Just("Exit before auth"), Just(" from <"), Just(">: "), Just("(user '"),
            Just(" fails)"), Just("Exit ("), Just(")"), Just("FAILED LOGIN "), Just("(1)"), Just(" on '"), Just(" FOR "), Just("FROM "),
            Just("invalid password for '"), Just("+ "), Just("a:b"), Just("pam_unix("), Just("ftp:auth): "), Just("; logname="),
            Just("authentication failure"), Just(" tty="), Just(" ruser="), Just(" rhost="), Just("  user="), Just("ß"),
            Just("message repeated "), Just(" times: ["), Just("]"), Just("ROOT LOGIN "), Just("error: PAM: "), Just(" [preauth]"),
        ], 0..14)) {
        let text: String = words.concat();
        if let Some(found) = parse(&service, &text, true) {
            prop_assert!((1..=MAX_COUNT).contains(&found.authentication.count));
            prop_assert!(found.authentication.message.len() <= MAX_EVIDENCE);
        }
    }
}
