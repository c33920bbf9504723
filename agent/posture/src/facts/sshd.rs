//! sshd_config(5): Include, first value wins, Match blocks, the defaults of OpenSSH 9.

use std::net::IpAddr;

use crate::root::glob::matches_name;
use crate::root::{Root, Unreadable};

/// Deepest nesting of Include, as in OpenSSH.
const MAX_INCLUDES: usize = 16;
/// Most lines of all files together.
const MAX_LINES: usize = 100_000;

const CIPHERS: &str = "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com";
const MACS: &str = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1";
const KEX: &str = "sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,diffie-hellman-group14-sha256";
const KEYS: &str = "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp384-cert-v01@openssh.com,ecdsa-sha2-nistp521-cert-v01@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com,sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256";

/// Options and their defaults (sshd_config(5) of OpenSSH 9.6); an empty default means that there is none.
pub(crate) const OPTIONS: &[(&str, &str)] = &[
    ("acceptenv", ""),
    ("addressfamily", "any"),
    ("allowagentforwarding", "yes"),
    ("allowgroups", ""),
    ("allowstreamlocalforwarding", "yes"),
    ("allowtcpforwarding", "yes"),
    ("allowusers", ""),
    ("authenticationmethods", "any"),
    ("authorizedkeyscommand", "none"),
    ("authorizedkeysfile", ".ssh/authorized_keys .ssh/authorized_keys2"),
    ("banner", "none"),
    ("casignaturealgorithms", KEYS),
    ("chrootdirectory", "none"),
    ("ciphers", CIPHERS),
    ("clientalivecountmax", "3"),
    ("clientaliveinterval", "0"),
    ("compression", "yes"),
    ("denygroups", ""),
    ("denyusers", ""),
    ("disableforwarding", "no"),
    ("exposeauthinfo", "no"),
    ("fingerprinthash", "sha256"),
    ("forcecommand", "none"),
    ("gatewayports", "no"),
    ("gssapiauthentication", "no"),
    ("hostbasedauthentication", "no"),
    ("hostkey", ""),
    ("hostkeyalgorithms", KEYS),
    ("ignorerhosts", "yes"),
    ("ignoreuserknownhosts", "no"),
    ("kbdinteractiveauthentication", "yes"),
    ("kerberosauthentication", "no"),
    ("kexalgorithms", KEX),
    ("listenaddress", ""),
    ("logingracetime", "120"),
    ("loglevel", "INFO"),
    ("macs", MACS),
    ("maxauthtries", "6"),
    ("maxsessions", "10"),
    ("maxstartups", "10:30:100"),
    ("passwordauthentication", "yes"),
    ("permitemptypasswords", "no"),
    ("permitrootlogin", "prohibit-password"),
    ("permittty", "yes"),
    ("permittunnel", "no"),
    ("permituserenvironment", "no"),
    ("permituserrc", "yes"),
    ("port", "22"),
    ("printlastlog", "yes"),
    ("printmotd", "yes"),
    ("protocol", "2"),
    ("pubkeyacceptedalgorithms", KEYS),
    ("pubkeyauthentication", "yes"),
    ("rekeylimit", "default none"),
    ("requiredrsasize", "1024"),
    ("strictmodes", "yes"),
    ("subsystem", ""),
    ("syslogfacility", "AUTH"),
    ("tcpkeepalive", "yes"),
    ("usedns", "no"),
    ("usepam", "no"),
    ("versionaddendum", "none"),
    ("x11forwarding", "no"),
    ("x11uselocalhost", "yes"),
];

/// Options whose values add up over several lines.
const ADDING: &[&str] = &[
    "acceptenv",
    "allowgroups",
    "allowusers",
    "denygroups",
    "denyusers",
    "hostkey",
    "listenaddress",
    "port",
    "subsystem",
];
const LISTS: &[&str] = &[
    "casignaturealgorithms",
    "ciphers",
    "hostkeyalgorithms",
    "kexalgorithms",
    "macs",
    "pubkeyacceptedalgorithms",
];
const TIMES: &[&str] = &["clientaliveinterval", "logingracetime"];

/// The default of an option; `None` for what is not an option.
pub(crate) fn default_of(option: &str) -> Option<&'static str> {
    OPTIONS.iter().find(|(name, _)| *name == canonical(option)).map(|(_, default)| *default)
}

/// Old names of options.
fn canonical(option: &str) -> &str {
    match option {
        "challengeresponseauthentication" | "skeyauthentication" => "kbdinteractiveauthentication",
        "pubkeyacceptedkeytypes" => "pubkeyacceptedalgorithms",
        "dsaauthentication" => "pubkeyauthentication",
        option => option,
    }
}

/// Who connects, for Match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Connection {
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) address: Option<String>,
}

/// One setting and the Match block it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    option: String,
    value: String,
    /// Criteria of the block; `None` outside of any.
    block: Option<String>,
    from: String,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// `None` where the default holds.
    pub(crate) value: Option<String>,
    pub(crate) from: String,
}

/// The settings of all files, in the order sshd reads them.
#[derive(Debug, Default)]
pub(crate) struct Config {
    settings: Vec<Setting>,
}

impl Config {
    /// Reads a file and what it includes. A missing file has no settings.
    pub(crate) fn read(root: &Root, file: &str) -> Result<Self, Unreadable> {
        let mut config = Self::default();
        let (mut block, mut lines) = (None, 0);
        config.add(root, file, &mut block, 0, &mut lines)?;
        Ok(config)
    }

    fn add(
        &mut self,
        root: &Root,
        file: &str,
        block: &mut Option<String>,
        depth: usize,
        lines: &mut usize,
    ) -> Result<(), Unreadable> {
        let Some(text) = root.text(file)? else { return Ok(()) };
        for (number, line) in text.lines().enumerate() {
            *lines += 1;
            if depth > MAX_INCLUDES || *lines > MAX_LINES {
                return Err(Unreadable {
                    path: file.to_owned(),
                    reason: "its Includes go too deep".to_owned(),
                });
            }
            let Some((option, value)) = split(line) else { continue };
            match option.as_str() {
                "include" => {
                    for pattern in value.split_whitespace() {
                        let pattern = match pattern.starts_with('/') {
                            true => pattern.to_owned(),
                            false => format!("/etc/ssh/{pattern}"),
                        };
                        for path in root.glob(&pattern)? {
                            // A Match of an included file ends with it.
                            let mut inner = block.clone();
                            self.add(root, &path.to_string_lossy(), &mut inner, depth + 1, lines)?;
                        }
                    }
                }
                "match" => *block = Some(value),
                _ => {
                    let option = canonical(&option).to_owned();
                    let from = format!("{file}:{}", number + 1);
                    self.settings.push(Setting { option, value, block: block.clone(), from });
                }
            }
        }
        Ok(())
    }

    /// The value for one connection: what a matching block says first, else what stands outside of blocks.
    pub(crate) fn value(&self, option: &str, connection: &Connection) -> Found {
        self.choose(option, |block| matches(block, connection))
    }

    /// The values of all connections together: outside of blocks, and in each block that sets the option.
    pub(crate) fn every_value(&self, option: &str) -> Vec<Found> {
        let always = |block: &str| block.trim().eq_ignore_ascii_case("all");
        let mut found = vec![self.choose(option, always)];
        let option = canonical(option);
        let mut blocks: Vec<&str> = Vec::new();
        for setting in self.settings.iter().filter(|setting| setting.option == option) {
            if let Some(block) =
                setting.block.as_deref().filter(|block| !always(block) && !blocks.contains(block))
            {
                blocks.push(block);
                found.push(Found {
                    value: Some(setting.value.clone()),
                    from: format!("{}, Match {block}", setting.from),
                });
            }
        }
        found
    }

    fn choose(&self, option: &str, matches: impl Fn(&str) -> bool) -> Found {
        let option = canonical(option);
        let of_option = || self.settings.iter().filter(|setting| setting.option == option);
        let in_block = of_option().find(|setting| setting.block.as_deref().is_some_and(&matches));
        let outside = of_option().find(|setting| setting.block.is_none());
        match in_block.or(outside) {
            Some(first) if ADDING.contains(&option) => {
                let values = of_option().filter(|setting| setting.block == first.block);
                let value = values.map(|setting| setting.value.as_str()).collect::<Vec<_>>().join(" ");
                Found { value: Some(value), from: first.from.clone() }
            }
            Some(first) => Found { value: Some(first.value.clone()), from: first.from.clone() },
            None => Found { value: None, from: "OpenSSH's default".to_owned() },
        }
    }
}

/// The value in force: defaults filled in, `+`, `-` and `^` of lists applied, times in seconds.
pub(crate) fn resolved(option: &str, value: Option<&str>) -> Option<String> {
    let option = canonical(option);
    let default = default_of(option).unwrap_or_default();
    let Some(value) = value else { return (!default.is_empty()).then(|| default.to_owned()) };
    if LISTS.contains(&option) {
        return Some(list(value, default));
    }
    if TIMES.contains(&option) {
        return Some(seconds(value).map_or_else(|| value.to_owned(), |seconds| seconds.to_string()));
    }
    // Words of yes and no are read without regard to case.
    let lower = value.to_ascii_lowercase();
    Some(match lower.as_str() {
        "yes"
        | "no"
        | "none"
        | "prohibit-password"
        | "forced-commands-only"
        | "all"
        | "local"
        | "remote"
        | "any"
        | "delayed" => lower,
        "without-password" => "prohibit-password".to_owned(),
        "true" => "yes".to_owned(),
        "false" => "no".to_owned(),
        _ => value.to_owned(),
    })
}

fn list(value: &str, default: &str) -> String {
    let Some(sign @ (b'+' | b'-' | b'^')) = value.as_bytes().first() else { return value.to_owned() };
    let given: Vec<&str> = value[1..].split(',').filter(|name| !name.is_empty()).collect();
    let named = |name: &&str| given.iter().any(|pattern| matches_name(pattern.as_bytes(), name.as_bytes()));
    let rest = default.split(',').filter(|name| !named(name));
    let all: Vec<&str> = match sign {
        b'+' => default.split(',').chain(given.iter().copied()).collect(),
        b'-' => rest.collect(),
        _ => given.iter().copied().chain(rest).collect(),
    };
    all.join(",")
}

/// Time formats of sshd_config(5): `90`, `1m30s`, `1h`.
fn seconds(value: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, None::<u64>);
    for c in value.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or_default().checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    total.checked_add(number.unwrap_or_default())
}

/// Keyword in lower case and value of a line: separated by blanks or one `=`, quotes taken off, comments left out.
fn split(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let (mut value, mut quoted, mut before) = (String::new(), false, ' ');
    for c in rest.chars() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted && before.is_whitespace() => break,
            c => value.push(c),
        }
        before = c;
    }
    Some((line[..end].to_ascii_lowercase(), value.trim().to_owned()))
}

/// Whether a block's criteria all fit. A criterion about something unknown of the connection does not.
fn matches(block: &str, connection: &Connection) -> bool {
    let words: Vec<&str> =
        block.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty()).collect();
    let mut words = words.into_iter();
    while let Some(criterion) = words.next() {
        let criterion = criterion.to_ascii_lowercase();
        if criterion == "all" {
            continue;
        }
        let Some(patterns) = words.next() else { return false };
        let fits = match criterion.as_str() {
            "user" => connection
                .user
                .as_ref()
                .is_some_and(|user| in_list(patterns, |p| matches_name(p.as_bytes(), user.as_bytes()))),
            "group" => connection
                .group
                .as_ref()
                .is_some_and(|group| in_list(patterns, |p| matches_name(p.as_bytes(), group.as_bytes()))),
            "host" => connection
                .host
                .as_ref()
                .is_some_and(|host| in_list(patterns, |p| matches_name(p.as_bytes(), host.as_bytes()))),
            "address" => connection
                .address
                .as_ref()
                .is_some_and(|address| in_list(patterns, |p| address_fits(p, address))),
            _ => false,
        };
        if !fits {
            return false;
        }
    }
    true
}

/// A list of patterns: a negated one that fits decides against.
fn in_list(patterns: &str, fits: impl Fn(&str) -> bool) -> bool {
    let mut any = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if fits(negated) => return false,
            Some(_) => {}
            None => any |= fits(pattern),
        }
    }
    any
}

fn address_fits(pattern: &str, address: &str) -> bool {
    let Some((network, bits)) = pattern.split_once('/') else {
        return matches_name(pattern.as_bytes(), address.as_bytes());
    };
    let (Ok(network), Ok(bits), Ok(address)) =
        (network.parse::<IpAddr>(), bits.parse::<u32>(), address.parse::<IpAddr>())
    else {
        return false;
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            (u32::from(network) ^ u32::from(address)).checked_shr(32 - bits).unwrap_or_default() == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            (u128::from(network) ^ u128::from(address)).checked_shr(128 - bits).unwrap_or_default() == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(files: &[(&str, &str)]) -> Config {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Config::read(&Root::open(directory.path()).unwrap(), "/etc/ssh/sshd_config").unwrap()
    }

    #[test]
    fn the_first_value_wins_includes_in_their_place() {
        let config = config(&[
            (
                "etc/ssh/sshd_config",
                "Include sshd_config.d/*.conf\nPermitRootLogin yes\nport 22\nPort=2222\n",
            ),
            (
                "etc/ssh/sshd_config.d/10.conf",
                "PERMITROOTLOGIN \"no\" # c\nMatch User a\nX11Forwarding yes\n",
            ),
            ("etc/ssh/sshd_config.d/20.conf", "PermitRootLogin without-password\n"),
        ]);
        let anyone = Connection::default();
        assert_eq!(config.value("permitrootlogin", &anyone).value.as_deref(), Some("no"));
        assert_eq!(config.value("port", &anyone).value.as_deref(), Some("22 2222"));
        assert_eq!(config.value("x11forwarding", &anyone).value, None);
        assert_eq!(config.every_value("x11forwarding").len(), 2);
    }

    #[test]
    fn blocks_match_who_connects() {
        let config = config(&[(
            "etc/ssh/sshd_config",
            "PermitRootLogin no\nMatch Address 10.0.0.0/8,!10.1.0.0/16 User root\n PermitRootLogin yes\nMatch all\nBanner /etc/issue\n",
        )]);
        let from = |address: &str, user: &str| Connection {
            user: Some(user.into()),
            address: Some(address.into()),
            ..Connection::default()
        };
        let value = |connection: &Connection| config.value("permitrootlogin", connection).value.unwrap();
        assert_eq!(value(&from("10.2.3.4", "root")), "yes");
        assert_eq!(value(&from("10.1.3.4", "root")), "no");
        assert_eq!(value(&from("10.2.3.4", "a")), "no");
        assert_eq!(value(&Connection::default()), "no");
        assert_eq!(config.every_value("permitrootlogin")[1].value.as_deref(), Some("yes"));
        assert_eq!(config.every_value("banner")[0].value.as_deref(), Some("/etc/issue"));
    }

    #[test]
    fn values_in_force() {
        let of = |option: &str, value: &str| resolved(option, Some(value)).unwrap();
        assert_eq!(of("logingracetime", "1m30s"), "90");
        assert_eq!(of("logingracetime", "2h"), "7200");
        assert_eq!(of("permitrootlogin", "Without-Password"), "prohibit-password");
        assert!(of("ciphers", "+3des-cbc").ends_with(",3des-cbc"));
        assert!(!of("ciphers", "-chacha20*").contains("chacha20"));
        assert!(of("macs", "^hmac-sha2-512").starts_with("hmac-sha2-512,umac"));
        assert_eq!(of("macs", "hmac-md5"), "hmac-md5");
        assert_eq!(resolved("maxauthtries", None).as_deref(), Some("6"));
        assert_eq!(resolved("allowusers", None), None);
    }

    #[test]
    fn includes_in_a_circle_end() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("etc/ssh")).unwrap();
        std::fs::write(directory.path().join("etc/ssh/sshd_config"), "Include /etc/ssh/sshd_config\n")
            .unwrap();
        let error = Config::read(&Root::open(directory.path()).unwrap(), "/etc/ssh/sshd_config").unwrap_err();
        assert!(error.reason.contains("too deep"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in ".{0,60}", block in ".{0,60}") {
            let who = Connection { user: Some("a".into()), group: Some("b".into()), host: Some("c".into()), address: Some("::1".into()) };
            let _ = (split(&line), matches(&block, &who), seconds(&line), list(&line, CIPHERS));
        }
    }
}
