//! Which addresses are the device's own, and on which interface each lives. Source: rtnetlink(7).

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::attribute::{address, Attributes};
use crate::netlink::{Message, Socket, ROUTE};

// linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_IFNAME: u16 = 3;
/// Size of `struct ifaddrmsg` and of `struct ifinfomsg`.
const IFADDRMSG: usize = 8;
const IFINFOMSG: usize = 16;
/// How long the kernel may take to answer; it does so at once.
const PATIENCE: Duration = Duration::from_millis(200);
/// Addresses are read again this often, and sooner when a connection belongs to none of them.
const EVERY: Duration = Duration::from_secs(30);
const SOONER: Duration = Duration::from_secs(1);
/// Most addresses and interfaces kept.
const LIMIT: usize = 1024;

/// Which interfaces are watched, by name; a `*` at the end stands for any ending.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these; empty for all.
    pub include: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
}

impl Selection {
    /// The interface is watched.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        let named = |list: &[String]| {
            list.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => pattern == name,
            })
        };
        (self.include.is_empty() || named(&self.include)) && !named(&self.exclude)
    }

    /// Everything is watched.
    fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// The device's own addresses.
#[derive(Debug, Default)]
pub(super) struct Locals {
    addresses: Vec<(IpAddr, u32)>,
    names: Vec<(u32, String)>,
    read: Option<Instant>,
}

impl Locals {
    /// Reads the addresses again where they may have changed.
    pub(super) fn refresh(&mut self, doubtful: bool) {
        let due = if doubtful { SOONER } else { EVERY };
        if self.read.is_some_and(|read| read.elapsed() < due) {
            return;
        }
        self.read = Some(Instant::now());
        match dump() {
            Ok((addresses, names)) => (self.addresses, self.names) = (addresses, names),
            Err(error) => tracing::debug!(%error, "addresses cannot be read"),
        }
    }

    /// The address is the device's own.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|(own, _)| *own == address)
    }

    /// A connection between the two is watched. Those of no interface that is known are.
    pub(super) fn admits(&self, selection: &Selection, ends: [IpAddr; 2]) -> bool {
        if selection.is_all() {
            return true;
        }
        // Between two addresses of the device, packets go over the loopback interface.
        if ends.iter().all(|end| self.contains(*end)) {
            return selection.admits("lo");
        }
        let interface = ends.iter().find_map(|end| self.addresses.iter().find(|(own, _)| own == end));
        let name = interface.and_then(|(_, at)| self.names.iter().find(|(index, _)| index == at));
        name.is_none_or(|(_, name)| selection.admits(name))
    }
}

/// The device's addresses, each with the name of its interface.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let (addresses, names) = dump()?;
    let mut found = Vec::with_capacity(addresses.len());
    for (address, index) in addresses {
        if let Some((_, name)) = names.iter().find(|(at, _)| *at == index) {
            found.push((name.clone(), address));
        }
    }
    Ok(found)
}

type Dump = (Vec<(IpAddr, u32)>, Vec<(u32, String)>);

fn dump() -> io::Result<Dump> {
    let mut socket = Socket::open(ROUTE, 0)?;
    let (mut addresses, mut names) = (Vec::new(), Vec::new());
    let mut each = |message: Message<'_>| match message.kind {
        RTM_NEWADDR if addresses.len() < LIMIT => addresses.extend(own_address(message.payload)),
        RTM_NEWLINK if names.len() < LIMIT => names.extend(link_name(message.payload)),
        _ => {}
    };
    socket.dump(RTM_GETADDR, &[0; IFADDRMSG], PATIENCE, &mut each)?;
    socket.dump(RTM_GETLINK, &[0; IFINFOMSG], PATIENCE, &mut each)?;
    Ok((addresses, names))
}

/// `IFA_LOCAL` is the device's own where both ends of a link have an address; elsewhere there is `IFA_ADDRESS` alone.
fn own_address(payload: &[u8]) -> Option<(IpAddr, u32)> {
    let index = u32::from_ne_bytes(*payload.get(4..IFADDRMSG)?.first_chunk()?);
    let (mut any, mut own) = (None, None);
    for (kind, value) in Attributes(&payload[IFADDRMSG..]) {
        match kind {
            IFA_ADDRESS => any = address(value),
            IFA_LOCAL => own = address(value),
            _ => {}
        }
    }
    Some((own.or(any)?, index))
}

fn link_name(payload: &[u8]) -> Option<(u32, String)> {
    let index = u32::from_ne_bytes(*payload.get(4..8)?.first_chunk()?);
    let (_, name) = Attributes(payload.get(IFINFOMSG..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some((index, String::from_utf8_lossy(name).into_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_of_interfaces() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection { include: list(&["eth*", "wlan0"]), exclude: list(&["eth9"]) };
        for (name, admitted) in
            [("eth0", true), ("wlan0", true), ("wlan01", false), ("eth9", false), ("lo", false)]
        {
            assert_eq!(selection.admits(name), admitted, "{name}");
        }
        assert!(Selection::default().admits("lo"));
    }

    #[test]
    fn a_connection_has_the_interface_of_its_own_end() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let locals = Locals {
            addresses: vec![(ip("192.0.2.1"), 2), (ip("2001:db8::1"), 3)],
            names: vec![(2, "eth0".into()), (3, "wlan0".into())],
            read: None,
        };
        let selection = Selection { include: vec![], exclude: vec!["wlan0".into(), "lo".into()] };
        let admits = |a, b| locals.admits(&selection, [ip(a), ip(b)]);
        assert!(admits("192.0.2.1", "198.51.100.1"));
        assert!(!admits("2001:db8::9", "2001:db8::1"));
        assert!(!admits("127.0.0.1", "127.0.0.1"));
        assert!(!admits("192.0.2.1", "192.0.2.1"));
        assert!(admits("198.51.100.1", "198.51.100.2"));
    }

    #[test]
    fn the_loopback_address_is_there() {
        let (addresses, names) = dump().unwrap();
        assert!(names.iter().any(|(_, name)| name == "lo"));
        let loopback = addresses.iter().find(|(address, _)| address.is_loopback());
        if let Some((_, index)) = loopback {
            assert!(names.iter().any(|(at, name)| at == index && name == "lo"));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = own_address(&bytes);
            let _ = link_name(&bytes);
        }
    }
}
