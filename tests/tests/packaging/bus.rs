//! The D-Bus contract, the bus policy, and a real bus that enforces it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{eventually, have, is_root, read, Running, Scratch};

const INTERFACE: &str = "org.defender.Agent1";

/// An opening tag of an XML file and the comment before it.
struct Tag {
    name: String,
    attributes: BTreeMap<String, String>,
    comment: String,
}

/// Opening tags in document order. Panics where the file is not well formed.
fn tags(file: &str) -> Vec<Tag> {
    let text = read(file);
    let (mut rest, mut open, mut tags, mut comment) =
        (text.as_str(), Vec::<String>::new(), Vec::new(), String::new());
    while let Some(start) = rest.find('<') {
        assert!(
            open.is_empty() || rest[..start].trim().is_empty(),
            "{file}: stray text {:?}",
            &rest[..start]
        );
        rest = &rest[start..];
        if let Some(body) = rest.strip_prefix("<!--") {
            let end = body.find("-->").unwrap_or_else(|| panic!("{file}: comment without end"));
            assert!(!body[..end].contains("--"), "{file}: -- inside a comment");
            comment = body[..end].trim().to_owned();
            rest = &body[end + 3..];
            continue;
        }
        let end = rest.find('>').unwrap_or_else(|| panic!("{file}: tag without end"));
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{file}: </{name}> closes another tag");
            continue;
        }
        let closed = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, mut attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let mut found = BTreeMap::new();
        while let Some((key, value)) = attributes.split_once("=\"") {
            let (value, after) =
                value.split_once('"').unwrap_or_else(|| panic!("{file}: quote without end in <{tag}>"));
            found.insert(key.trim().to_owned(), value.to_owned());
            attributes = after;
        }
        assert!(attributes.trim().is_empty(), "{file}: <{tag}>: {attributes:?} is no attribute");
        if !closed {
            open.push(name.to_owned());
        }
        tags.push(Tag { name: name.to_owned(), attributes: found, comment: std::mem::take(&mut comment) });
    }
    assert!(open.is_empty(), "{file}: not closed: {open:?}");
    tags
}

#[test]
fn the_bus_policy_matches_the_interface() {
    let (mut open, mut restricted) = (BTreeSet::new(), BTreeSet::new());
    for tag in tags(&format!("rootfs-overlay/usr/share/dbus-1/interfaces/{INTERFACE}.xml")) {
        let kind = match tag.name.as_str() {
            kind @ ("method" | "signal" | "property") => kind.to_owned(),
            _ => continue,
        };
        let member = (kind, tag.attributes["name"].clone());
        match (tag.comment.ends_with("Open."), tag.comment.ends_with("Restricted.")) {
            (true, false) => open.insert(member),
            (false, true) => restricted.insert(member),
            _ => panic!("{member:?}: its comment must end with Open. or Restricted.: {:?}", tag.comment),
        };
    }
    assert!(!restricted.iter().any(|(kind, _)| kind == "property"), "the bus cannot restrict one property");

    let (mut context, mut allowed, mut denied) = (String::new(), BTreeSet::new(), BTreeSet::new());
    for tag in tags(&format!("rootfs-overlay/usr/share/dbus-1/system.d/{INTERFACE}.conf")) {
        let attribute = |key: &str| tag.attributes.get(key).cloned().unwrap_or_default();
        match tag.name.as_str() {
            "policy" => context = attribute("context"),
            "allow" if context == "default" && attribute("send_interface") == INTERFACE => {
                allowed.insert(attribute("send_member"));
            }
            "deny" if context == "default" && attribute("receive_sender") == INTERFACE => {
                denied.insert(attribute("receive_member"));
            }
            _ => {}
        }
    }
    let named = |members: &BTreeSet<(String, String)>, kind: &str| -> BTreeSet<String> {
        members.iter().filter(|(k, _)| k == kind).map(|(_, name)| name.clone()).collect()
    };
    assert_eq!(
        allowed,
        named(&open, "method"),
        "methods open to everybody: policy (left), interface (right)"
    );
    assert_eq!(
        denied,
        named(&restricted, "signal"),
        "signals kept from others: policy (left), interface (right)"
    );
}

/// A connection to the bus that owns the agent's name and emits its signals; answers nothing.
struct Owner {
    socket: UnixStream,
    serial: u32,
}

impl Owner {
    fn connect(path: &Path) -> Self {
        let mut socket = UnixStream::connect(path).expect("bus");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        // EXTERNAL with the user id, 0, in hexadecimal digits of its decimal text.
        socket.write_all(b"\0AUTH EXTERNAL 30\r\n").expect("bus");
        let mut answer = [0; 256];
        let length = socket.read(&mut answer).expect("bus");
        assert!(answer[..length].starts_with(b"OK "), "{:?}", String::from_utf8_lossy(&answer[..length]));
        socket.write_all(b"BEGIN\r\n").expect("bus");
        let mut owner = Self { socket, serial: 0 };
        let bus = ("/org/freedesktop/DBus", "org.freedesktop.DBus");
        owner.send(1, bus.0, bus.1, "Hello", Some(bus.1), None);
        owner.send(1, bus.0, bus.1, "RequestName", Some(bus.1), Some(INTERFACE));
        owner
    }

    /// Sends a message as the D-Bus specification marshals it, little-endian. name: arguments of RequestName.
    fn send(
        &mut self,
        kind: u8,
        path: &str,
        interface: &str,
        member: &str,
        destination: Option<&str>,
        name: Option<&str>,
    ) {
        fn pad(bytes: &mut Vec<u8>, to: usize) {
            bytes.resize(bytes.len().next_multiple_of(to), 0);
        }
        fn string(bytes: &mut Vec<u8>, text: &str) {
            pad(bytes, 4);
            bytes.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        let mut body = Vec::new();
        if let Some(name) = name {
            string(&mut body, name);
            pad(&mut body, 4);
            body.extend(4_u32.to_le_bytes()); // DBUS_NAME_FLAG_DO_NOT_QUEUE
        }
        let mut fields = Vec::new();
        let texts = [
            (1_u8, b'o', Some(path)),
            (2, b's', Some(interface)),
            (3, b's', Some(member)),
            (6, b's', destination),
        ];
        for (code, kind, text) in texts {
            if let Some(text) = text {
                pad(&mut fields, 8);
                fields.extend([code, 1, kind, 0]);
                string(&mut fields, text);
            }
        }
        if name.is_some() {
            pad(&mut fields, 8);
            fields.extend([8, 1, b'g', 0, 2, b's', b'u', 0]);
        }
        self.serial += 1;
        let mut message = vec![b'l', kind, 0, 1];
        message.extend(u32::try_from(body.len()).expect("short").to_le_bytes());
        message.extend(self.serial.to_le_bytes());
        message.extend(u32::try_from(fields.len()).expect("short").to_le_bytes());
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(body);
        self.socket.write_all(&message).expect("bus");
    }
}

/// Runs as: user and group.
const STRANGER: (u32, u32) = (65534, 65534);
/// In the policy under test the group defender is group daemon, since the former does not exist on a build machine.
const MEMBER: (u32, u32) = (65534, 1);

fn as_user(program: &str, (uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new(program);
    command.uid(uid).gid(gid).current_dir("/").stdin(Stdio::null());
    command
}

#[test]
fn the_bus_enforces_the_policy() {
    if !is_root() {
        println!("skipped: the policy on a real bus: needs root, to call as other users");
        return;
    }
    if !(have("dbus-daemon", "the policy on a real bus") && have("dbus-send", "the policy on a real bus")) {
        return;
    }
    let scratch = Scratch::new("bus");
    let policy = read(&format!("rootfs-overlay/usr/share/dbus-1/system.d/{INTERFACE}.conf"));
    let policy = policy
        .replace("group=\"defender\"", "group=\"daemon\"")
        .replace("user=\"defender\"", "user=\"daemon\"");
    fs::write(scratch.join("policy.conf"), policy).expect("policy");
    let socket = scratch.join("socket");
    // The decisive lines of the reference implementation's own system.conf.
    let config = format!(
        r#"<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
        <policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
        <allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
        <allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
        <allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
        <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/></policy>
        <include>{policy}</include></busconfig>"#,
        socket = socket.display(),
        policy = scratch.join("policy.conf").display()
    );
    fs::write(scratch.join("bus.conf"), config).expect("configuration");
    let _bus = Running(
        Command::new("dbus-daemon")
            .arg(format!("--config-file={}", scratch.join("bus.conf").display()))
            .arg("--nofork")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon"),
    );
    eventually("the bus listens", || UnixStream::connect(&socket).is_ok());
    let address = format!("unix:path={}", socket.display());
    let mut owner = Owner::connect(&socket);

    // Nobody answers, so an allowed call ends with a time-out and a denied one at once.
    let call = |who, interface: &str, member: &str| {
        let output = as_user("dbus-send", who)
            .args([&format!("--bus={address}"), "--print-reply", "--reply-timeout=300"])
            .args([&format!("--dest={INTERFACE}"), "/org/defender/Agent1", &format!("{interface}.{member}")])
            .output()
            .expect("dbus-send");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match (error.contains("AccessDenied"), error.contains("NoReply")) {
            (true, false) => false,
            (false, true) => true,
            _ => panic!("{member}: {error}"),
        }
    };
    eventually("the name is owned", || {
        let output = as_user("dbus-send", STRANGER)
            .args([
                &format!("--bus={address}"),
                "--print-reply",
                "--dest=org.freedesktop.DBus",
                "/org/freedesktop/DBus",
            ])
            .args(["org.freedesktop.DBus.NameHasOwner", &format!("string:{INTERFACE}")])
            .output()
            .expect("dbus-send");
        String::from_utf8_lossy(&output.stdout).contains("boolean true")
    });
    assert!(call(STRANGER, INTERFACE, "GetHealth"));
    assert!(call(STRANGER, "org.freedesktop.DBus.Properties", "GetAll"));
    assert!(call(STRANGER, "org.freedesktop.DBus.Introspectable", "Introspect"));
    assert!(!call(STRANGER, "org.freedesktop.DBus.Properties", "Set"));
    for member in ["GetStatus", "GetAlerts", "GetEvents", "Block", "Unblock", "ListBlocked", "NotYetInvented"]
    {
        assert!(!call(STRANGER, INTERFACE, member), "{member}: open to strangers");
        assert!(call(MEMBER, INTERFACE, member), "{member}: closed to the group");
    }

    if !have("gdbus", "who receives which signal") {
        return;
    }
    let signals = ["AlertRaised", "AddressBlocked", "AddressUnblocked", "HealthChanged"];
    for (who, expected) in [(STRANGER, vec!["HealthChanged"]), (MEMBER, signals.to_vec())] {
        let log = scratch.join(&format!("signals-{}", who.1));
        let _monitor = Running(
            as_user("gdbus", who)
                .args(["monitor", "--address", &address, "--dest", INTERFACE])
                .stdout(fs::File::create(&log).expect("log"))
                .spawn()
                .expect("gdbus"),
        );
        let heard = || fs::read_to_string(&log).unwrap_or_default();
        // HealthChanged goes out last: when it has arrived, so has everything else that ever will.
        eventually("a signal arrives", || {
            for signal in signals {
                owner.send(4, "/org/defender/Agent1", INTERFACE, signal, None, None);
            }
            heard().matches("HealthChanged").count() > 1
        });
        let heard = heard();
        let heard: Vec<_> =
            signals.into_iter().filter(|signal| heard.contains(&format!("{INTERFACE}.{signal} "))).collect();
        assert_eq!(heard, expected, "as user {} and group {}", who.0, who.1);
    }
}
