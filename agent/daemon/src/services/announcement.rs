//! What services announce on the bus: a line of the table each.

use defender_model::service::ServiceChange;
use zbus::zvariant::{Structure, Value};
use zbus::Message;

/// The interface of changes of properties (D-Bus specification).
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Longest value that is told, in bytes.
const VALUE: usize = 64;

/// How it is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A property of that name changes: `PropertiesChanged` of [`PROPERTIES`].
    Property(&'static str),
    /// A property of that name changes, by the interface's own signal `PropertyChanged`.
    OwnProperty(&'static str),
    /// A signal of that name, whose first argument is a code; 0 is success.
    Outcome(&'static str),
}

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    /// The service's name on the bus.
    pub(super) name: &'static str,
    /// The interface.
    pub(super) interface: &'static str,
    /// What it announces, and how.
    pub(super) form: Form,
    /// What it is called in events.
    pub(super) service: &'static str,
    /// What the value is of, in words.
    pub(super) what: &'static str,
    /// Words for values; others are told as they are.
    words: &'static [(&'static str, &'static str)],
}

/// What is listened for.
pub(super) const LINES: [Line; 7] = [
    Line {
        name: "de.pengutronix.rauc",
        interface: "de.pengutronix.rauc.Installer",
        form: Form::Outcome("Completed"),
        service: "rauc",
        what: "installation",
        words: &[("0", "complete")],
    },
    // NMConnectivityState and NMState (NetworkManager's D-Bus API, "Types").
    Line {
        name: "org.freedesktop.NetworkManager",
        interface: "org.freedesktop.NetworkManager",
        form: Form::Property("Connectivity"),
        service: "NetworkManager",
        what: "connectivity",
        words: &[("0", "unknown"), ("1", "none"), ("2", "portal"), ("3", "limited"), ("4", "full")],
    },
    Line {
        name: "org.freedesktop.NetworkManager",
        interface: "org.freedesktop.NetworkManager",
        form: Form::Property("State"),
        service: "NetworkManager",
        what: "network",
        words: &[
            ("20", "disconnected"),
            ("30", "disconnecting"),
            ("40", "connecting"),
            ("50", "connected locally"),
            ("60", "connected to the site"),
            ("70", "connected"),
        ],
    },
    Line {
        name: "net.connman",
        interface: "net.connman.Manager",
        form: Form::OwnProperty("State"),
        service: "connman",
        what: "network",
        words: &[],
    },
    Line {
        name: "org.bluez",
        interface: "org.bluez.Device1",
        form: Form::Property("Paired"),
        service: "bluez",
        what: "device paired",
        words: &[],
    },
    Line {
        name: "org.bluez",
        interface: "org.bluez.Adapter1",
        form: Form::Property("Discoverable"),
        service: "bluez",
        what: "adapter discoverable",
        words: &[],
    },
    Line {
        name: "org.freedesktop.UDisks2",
        interface: "org.freedesktop.UDisks2.Filesystem",
        form: Form::Property("MountPoints"),
        service: "udisks2",
        what: "mounted at",
        words: &[("", "nothing")],
    },
];

impl Line {
    /// The rule by which the bus hands its messages on (D-Bus specification, "Match Rules").
    pub(super) fn rule(&self) -> String {
        let Self { name, interface, form, .. } = self;
        match form {
            Form::Property(_) => format!(
                "type='signal',sender='{name}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{interface}'"
            ),
            Form::OwnProperty(property) => format!(
                "type='signal',sender='{name}',interface='{interface}',member='PropertyChanged',arg0='{property}'"
            ),
            Form::Outcome(member) => {
                format!("type='signal',sender='{name}',interface='{interface}',member='{member}'")
            }
        }
    }

    /// What the message says of it; `None` where it is about something else.
    pub(super) fn read(&self, message: &Message) -> Option<(ServiceChange, String)> {
        let header = message.header();
        let (interface, member) = (header.interface()?.as_str(), header.member()?.as_str());
        let value = match self.form {
            Form::Property(property) => {
                let plain = interface == PROPERTIES && member == "PropertiesChanged";
                plain.then(|| changed(message, self.interface, property))??
            }
            Form::OwnProperty(property) => {
                if interface != self.interface || member != "PropertyChanged" {
                    return None;
                }
                let body = message.body();
                let arguments: Structure<'_> = body.deserialize().ok()?;
                match arguments.fields() {
                    [Value::Str(name), value] if name.as_str() == property => word(value)?,
                    _ => return None,
                }
            }
            Form::Outcome(wanted) => {
                if interface != self.interface || member != wanted {
                    return None;
                }
                message.body().deserialize::<i32>().ok()?.to_string()
            }
        };
        let change = match (self.form, value.as_str()) {
            (Form::Outcome(_), "0") => ServiceChange::Updated,
            (Form::Outcome(_), _) => ServiceChange::Failed,
            _ => ServiceChange::Reported,
        };
        let known =
            self.words.iter().find(|(code, _)| *code == value).map_or(value.as_str(), |(_, word)| word);
        let mut detail = format!("{} {known}", self.what);
        // Of which device: services with one object only have a short path.
        if let Some(path) = header.path().filter(|_| matches!(self.service, "bluez" | "udisks2")) {
            detail.push(' ');
            detail.push_str(path);
        }
        Some((change, detail))
    }
}

/// The new value of a property in a message of [`PROPERTIES`], as text.
pub(super) fn changed(message: &Message, interface: &str, property: &str) -> Option<String> {
    let body = message.body();
    let arguments: Structure<'_> = body.deserialize().ok()?;
    let [Value::Str(of), Value::Dict(values), ..] = arguments.fields() else { return None };
    if of.as_str() != interface {
        return None;
    }
    let is = |key: &Value<'_>| matches!(key, Value::Str(name) if name.as_str() == property);
    let found = values.iter().find(|(key, _)| is(key)).and_then(|(_, value)| word(value));
    found
}

/// A simple value as text.
pub(super) fn word(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Value(inner) => return word(inner),
        Value::Str(text) => defender_model::text::truncate(text, VALUE).to_owned(),
        Value::Bool(true) => "true".to_owned(),
        Value::Bool(false) => "false".to_owned(),
        Value::U32(number) => number.to_string(),
        Value::I32(number) => number.to_string(),
        // Paths of file systems come as a list of byte strings that end with a zero (`aay`): the first of them.
        Value::Array(list) => match list.iter().next() {
            None => String::new(),
            Some(Value::Array(bytes)) => {
                let bytes = bytes.iter().map_while(|byte| match byte {
                    Value::U8(byte) if *byte != 0 => Some(*byte),
                    _ => None,
                });
                defender_model::text::from_vec(bytes.take(VALUE).collect())
            }
            Some(_) => return None,
        },
        _ => return None,
    })
}
