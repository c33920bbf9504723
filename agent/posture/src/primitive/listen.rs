//! `listen`: what a running device listens on.

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::sockets::{self, Listener};
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// Most sockets whose process is looked for: it means a look at every descriptor of every process.
const NAMED: usize = 20;

/// Holds when there is such a socket.
#[derive(Debug)]
struct Listen {
    protocol: Option<&'static str>,
    ports: Vec<u16>,
    reach: Reach,
    /// Only ports that the configuration does not allow.
    unless_allowed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reach {
    Any,
    Loopback,
    Global,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let protocols = [("any", None), ("tcp", Some("tcp")), ("udp", Some("udp")), ("raw", Some("raw"))];
    let named = keys.word("listen", &protocols)?.flatten();
    let protocol = keys.word("protocol", &protocols)?.flatten().or(named);
    let ports = keys.list("port")?.unwrap_or_default();
    let numbers: Result<Vec<u16>, _> = ports.iter().map(|port| port.parse()).collect();
    let reaches = [("any", Reach::Any), ("loopback", Reach::Loopback), ("global", Reach::Global)];
    Ok(Box::new(Listen {
        protocol,
        ports: numbers
            .map_err(|_| keys.fault("port", "`port` is a number of at most 65535, or a list of them"))?,
        reach: keys.word("address", &reaches)?.unwrap_or(Reach::Any),
        unless_allowed: keys.word("allowed", &[("config", true)])?.unwrap_or(false),
    }))
}

impl Listen {
    fn is(&self, listener: &Listener, scan: &Scan<'_>) -> bool {
        self.protocol.is_none_or(|protocol| protocol == listener.protocol)
            && (self.ports.is_empty() || self.ports.contains(&listener.port))
            && match self.reach {
                Reach::Any => true,
                Reach::Loopback => !listener.is_global(),
                Reach::Global => listener.is_global(),
            }
            && !(self.unless_allowed && scan.inputs.allowed_ports.contains(&listener.port))
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        if !scan.inputs.live {
            return Ok(Outcome::absent("only a running device shows what it listens on"));
        }
        let found: Vec<Listener> =
            sockets::read(scan.root)?.into_iter().filter(|listener| self.is(listener, scan)).collect();
        if found.is_empty() {
            return Ok(Outcome::no(vec!["no such listening socket".to_owned()]));
        }
        let shown = found.iter().enumerate().map(|(at, listener)| {
            let owner = if at < NAMED { sockets::owner(scan.root, listener) } else { None };
            let owner = owner.unwrap_or_else(|| format!("user {}", listener.uid));
            let address = match listener.address {
                std::net::IpAddr::V4(address) => address.to_string(),
                std::net::IpAddr::V6(address) => format!("[{address}]"),
            };
            format!("{} {address}:{} by {owner}", listener.protocol, listener.port)
        });
        Ok(Outcome::yes(shown.collect()))
    }
}

impl Primitive for Listen {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
