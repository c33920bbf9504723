//! Events of scenarios beyond program starts and logins.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use defender_model::account::{AccountActivity, AccountChange};
use defender_model::dns::{Answer, Dns};
use defender_model::event::EventKind;
use defender_model::file::{FileActivity, FileChange, FileType};
use defender_model::kernel::{FirewallChange, ModuleActivity, ProgramType, RuleChange};
use defender_model::network::{Direction, Endpoint, Flow, FlowChange, Listener, Protocol, Volume};
use defender_model::peripheral::{PeripheralActivity, PeripheralClass};
use defender_model::process::{Actor, Ancestor, Deed, ProcessDeed, Source};
use defender_model::service::{ServiceActivity, ServiceChange, Submitted};
use defender_model::severity::Severity;

use super::wrong;
use crate::error::At;
use crate::yaml::Node;

/// The device's own address in scenarios.
const DEVICE: &str = "192.0.2.100";

/// Reads an event that has the key of one; `None` when it has none of them.
pub(super) fn event(node: &Node, entries: &[(String, Node)]) -> Option<Result<EventKind, At>> {
    let mut keys = Keys { node, entries, used: vec![false; entries.len()] };
    let read: fn(&mut Keys<'_>) -> Result<EventKind, At> =
        entries.iter().find_map(|(key, _)| match key.as_str() {
            "connect" => Some(connect as _),
            "accept" => Some(accept as _),
            "listen" => Some(listen as _),
            "dns" => Some(dns as _),
            "file" => Some(file as _),
            "device" => Some(device as _),
            "module" => Some(module as _),
            "program" => Some(program as _),
            "trace" => Some(trace as _),
            "root_from" => Some(root_from as _),
            "firewall" => Some(firewall as _),
            "account" => Some(account as _),
            "service" => Some(service as _),
            "submitted" => Some(submitted as _),
            _ => None,
        })?;
    Some(read(&mut keys).and_then(|kind| keys.done().map(|()| kind)))
}

/// The keys of an event; one that nobody asked for is a mistake.
struct Keys<'a> {
    node: &'a Node,
    entries: &'a [(String, Node)],
    used: Vec<bool>,
}

impl<'a> Keys<'a> {
    fn node(&mut self, key: &str) -> Option<&'a Node> {
        let at = self.entries.iter().position(|(name, _)| name == key)?;
        self.used[at] = true;
        Some(&self.entries[at].1)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, At> {
        match self.node(key) {
            None => Ok(None),
            Some(value) => match value.scalar_text() {
                Some(text) => Ok(Some(text)),
                None => wrong(value, format!("`{key}` must be text")),
            },
        }
    }

    /// The value as read by `read`, which knows it by the name `what`.
    fn read<T>(
        &mut self,
        key: &str,
        what: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, At> {
        match self.text(key)? {
            None => Ok(None),
            Some(text) => match read(&text) {
                Some(value) => Ok(Some(value)),
                None => wrong(self.node, format!("`{key}: {text}` is not {what}")),
            },
        }
    }

    fn number<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, At> {
        self.read(key, "a number in range", |text| text.parse().ok())
    }

    /// The process behind the event, when anything is said of it.
    fn actor(&mut self) -> Result<Option<Actor>, At> {
        let mut parent = Ancestor { pid: 4200, ..Ancestor::default() };
        let mut actor = Actor { pid: 4242, ..Actor::default() };
        let mut known = false;
        for (key, slot) in [
            ("by", &mut actor.executable),
            ("command", &mut actor.command_line),
            ("parent", &mut parent.executable),
            ("parent_command", &mut parent.command_line),
        ] {
            if let Some(text) = self.text(key)? {
                *slot = text.into();
                known = true;
            }
        }
        actor.user = self.text("user")?.map(Into::into);
        actor.uid = self.number("uid")?;
        known |= actor.user.is_some() || actor.uid.is_some();
        if !parent.executable.is_empty() || !parent.command_line.is_empty() {
            actor.parent = Some(parent.into());
        }
        Ok(known.then_some(actor))
    }

    fn protocol(&mut self) -> Result<Protocol, At> {
        let read = |text: &str| Protocol::from_name(text).or_else(|| text.parse().ok().map(Protocol));
        Ok(self.read("protocol", "a protocol", read)?.unwrap_or(Protocol::TCP))
    }

    fn done(&self) -> Result<(), At> {
        for ((key, value), used) in self.entries.iter().zip(&self.used) {
            if !used && !matches!(key.as_str(), "wait" | "repeat" | "every") {
                return wrong(value, format!("`{key}` is not a key of this event"));
            }
        }
        Ok(())
    }
}

/// `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7`, `[2001:db8::7]:80`.
fn endpoint(text: &str) -> Option<Endpoint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Endpoint { address, port: None });
    }
    let both: SocketAddr = text.parse().ok()?;
    Some(Endpoint { address: both.ip(), port: Some(both.port()) })
}

fn here(port: Option<u16>) -> Option<Endpoint> {
    DEVICE.parse().ok().map(|address| Endpoint { address, port })
}

fn flow(
    keys: &mut Keys<'_>,
    direction: Direction,
    source: Endpoint,
    destination: Endpoint,
) -> Result<EventKind, At> {
    let change = |text: &str| {
        Some(match text {
            "opened" => FlowChange::Opened,
            "closed" => FlowChange::Closed,
            "failed" => FlowChange::Failed,
            "traffic" => FlowChange::Traffic,
            "denied" => FlowChange::Denied,
            _ => return None,
        })
    };
    let volume = |bytes: u64| Volume { bytes, packets: bytes.div_ceil(1500) };
    Ok(Flow {
        change: keys
            .read("activity", "opened, closed, failed, traffic or denied", change)?
            .unwrap_or(FlowChange::Opened),
        direction,
        protocol: keys.protocol()?,
        source,
        destination,
        destination_name: keys.text("host")?,
        forward: keys.number("bytes_out")?.map(volume),
        reply: keys.number("bytes_in")?.map(volume),
        started: None,
        ended: None,
        rule: keys.text("rule")?,
        process: keys.actor()?,
    }
    .into())
}

fn connect(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let to = keys.read("connect", "an address with a port", endpoint)?;
    let from = keys.read("from", "an address with a port", endpoint)?.or_else(|| here(Some(40_000)));
    match (from, to) {
        (Some(from), Some(to)) => flow(keys, Direction::Outbound, from, to),
        _ => wrong(keys.node, "`connect` is empty"),
    }
}

fn accept(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let from = keys.read("accept", "an address", endpoint)?;
    let port = keys.number("port")?;
    match (from, here(port)) {
        (Some(from), Some(to)) => flow(keys, Direction::Inbound, from, to),
        _ => wrong(keys.node, "`accept` is empty"),
    }
}

fn listen(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let any = |text: &str| match text.parse() {
        Ok(port) => Some(Endpoint { address: IpAddr::from([0, 0, 0, 0]), port: Some(port) }),
        Err(_) => endpoint(text),
    };
    let Some(local) = keys.read("listen", "a port, or an address with a port", any)? else {
        return wrong(keys.node, "`listen` is empty");
    };
    Ok(Listener { open: true, protocol: keys.protocol()?, local, process: keys.actor()? }.into())
}

fn dns(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let mut answers = Vec::new();
    if let Some(node) = keys.node("answers") {
        for item in node.list().unwrap_or(std::slice::from_ref(node)) {
            let Some(data) = item.scalar_text() else { return wrong(item, "an answer must be text") };
            let record_type = match data.parse() {
                Ok(IpAddr::V4(_)) => "A",
                Ok(IpAddr::V6(_)) => "AAAA",
                Err(_) => "CNAME",
            };
            answers.push(Answer { record_type: record_type.to_owned(), data });
        }
    }
    Ok(Dns {
        name: keys.text("dns")?.unwrap_or_default(),
        record_type: keys.text("type")?.unwrap_or_else(|| "A".to_owned()),
        rcode: keys.number("rcode")?.or(Some(0)),
        answers,
        server: keys.read("server", "an address", endpoint)?,
        process: keys.actor()?,
    }
    .into())
}

fn file(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let words = "created, modified, deleted, renamed, attributes or read";
    let (Some(change), Some(path)) = (keys.read("file", words, FileChange::from_name)?, keys.text("path")?)
    else {
        return wrong(keys.node, "`file` needs a `path`");
    };
    let octal = |text: &str| u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    let file_type = |text: &str| {
        Some(match text {
            "regular" => FileType::Regular,
            "directory" => FileType::Directory,
            "character_device" => FileType::CharacterDevice,
            "block_device" => FileType::BlockDevice,
            "socket" => FileType::Socket,
            "pipe" => FileType::Pipe,
            "link" => FileType::Link,
            _ => return None,
        })
    };
    Ok(FileActivity {
        change,
        path,
        old_path: keys.text("from")?,
        file_type: keys.read("type", "a type of file", file_type)?.unwrap_or(FileType::Regular),
        mode: keys.read("mode", "a mode in octal digits", octal)?,
        owner: keys.number("owner")?,
        sha256: keys.read("sha256", "a SHA-256", |text| text.parse().ok())?,
        process: keys.actor()?,
    }
    .into())
}

fn device(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let state = |text: &str| match text {
        "connected" => Some(true),
        "disconnected" => Some(false),
        _ => None,
    };
    let hex = |text: &str| u16::from_str_radix(text, 16).ok();
    let classes = PeripheralClass::ALL.map(PeripheralClass::name).join(", ");
    Ok(PeripheralActivity {
        connected: keys.read("device", "connected or disconnected", state)?.unwrap_or(true),
        class: keys.read("class", &classes, PeripheralClass::from_name)?.unwrap_or(PeripheralClass::Other),
        bus: keys.text("bus")?.unwrap_or_else(|| "usb".to_owned()),
        interface: keys.text("interface")?.unwrap_or_default(),
        path: keys.text("path")?.unwrap_or_default(),
        vendor_id: keys.read("vendor_id", "four hexadecimal digits", hex)?,
        product_id: keys.read("product_id", "four hexadecimal digits", hex)?,
        vendor: keys.text("vendor")?,
        product: keys.text("product")?,
        serial: keys.text("serial")?,
        functions: keys.text("functions")?.unwrap_or_default(),
        interfaces: keys.text("interfaces")?.unwrap_or_default(),
        nodes: keys.text("nodes")?.unwrap_or_default(),
        parent: keys.text("parent")?,
        allowed: keys.read("allowed", "true or false", |text| text.parse().ok())?,
    }
    .into())
}

fn module(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let state = |text: &str| match text {
        "loaded" => Some(true),
        "removed" => Some(false),
        _ => None,
    };
    Ok(ModuleActivity {
        loaded: keys.read("activity", "loaded or removed", state)?.unwrap_or(true),
        name: keys.text("module")?.unwrap_or_default(),
        program: None,
        path: keys.text("path")?,
        sha256: keys.read("sha256", "a SHA-256", |text| text.parse().ok())?,
        process: keys.actor()?,
    }
    .into())
}

fn program(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let kind = |text: &str| (0..=64).map(ProgramType).find(|kind| kind.name() == text);
    Ok(ModuleActivity {
        loaded: true,
        name: keys.text("program")?.unwrap_or_default(),
        program: keys.read("type", "a type of eBPF program", kind)?.or(Some(ProgramType(0))),
        path: None,
        sha256: None,
        process: keys.actor()?,
    }
    .into())
}

/// Something that a process did.
fn deed(keys: &mut Keys<'_>, deed: Deed) -> Result<EventKind, At> {
    let process = keys.actor()?.unwrap_or_else(|| Actor { pid: 4242, ..Actor::default() });
    Ok(ProcessDeed { deed, process, source: Source::Replay }.into())
}

fn trace(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let target = Actor {
        pid: 4100,
        executable: keys.text("trace")?.unwrap_or_default().into(),
        command_line: keys.text("target_command")?.unwrap_or_default().into(),
        uid: keys.number("target_uid")?,
        ..Actor::default()
    };
    deed(keys, Deed::Traced(target))
}

fn root_from(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let Some(from) = keys.number("root_from")? else { return wrong(keys.node, "`root_from` is empty") };
    deed(keys, Deed::BecameRoot { from })
}

fn firewall(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let change = keys.read("firewall", "added, changed or removed", RuleChange::from_name)?;
    Ok(FirewallChange {
        change: change.unwrap_or(RuleChange::Changed),
        family: keys.text("family")?.unwrap_or_else(|| "inet".to_owned()),
        table: keys.text("table")?.unwrap_or_else(|| "filter".to_owned()),
        operation: keys.text("operation")?.unwrap_or_default(),
        entries: keys.number("entries")?,
        effect: keys.text("effect")?.unwrap_or_default(),
        summary: keys.text("summary")?.unwrap_or_default(),
        process: keys.actor()?,
    }
    .into())
}

fn account(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let words = AccountChange::ALL.map(AccountChange::name).join(", ");
    let change = keys.read("account", &words, AccountChange::from_name)?;
    Ok(AccountActivity {
        change: change.unwrap_or(AccountChange::UserChanged),
        user: keys.text("name")?.unwrap_or_default(),
        uid: keys.number("id")?,
        group: keys.text("group")?.unwrap_or_default(),
        gid: keys.number("gid")?,
        shell: keys.text("shell")?.unwrap_or_default(),
        detail: keys.text("detail")?.unwrap_or_default(),
        process: keys.actor()?,
    }
    .into())
}

fn service(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let words = ServiceChange::ALL.map(ServiceChange::name).join(", ");
    Ok(ServiceActivity {
        name: keys.text("service")?.unwrap_or_default(),
        change: keys.read("activity", &words, ServiceChange::from_name)?.unwrap_or(ServiceChange::Stopped),
        detail: keys.text("detail")?.unwrap_or_default(),
    }
    .into())
}

fn submitted(keys: &mut Keys<'_>) -> Result<EventKind, At> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Ok(Submitted {
        title: keys.text("submitted")?.unwrap_or_default(),
        severity: keys.read("severity", "a level", Severity::from_level)?.unwrap_or(Severity::Medium),
        category: keys.text("category")?.unwrap_or_default(),
        code: keys.text("code")?.unwrap_or_default(),
        message: keys.text("message")?.unwrap_or_default(),
        attributes: keys.read("attribute", "NAME=VALUE", pair)?.into_iter().collect(),
        sender: keys.text("sender")?.unwrap_or_else(|| ":1.42".to_owned()),
        process: keys.actor()?,
    }
    .into())
}
