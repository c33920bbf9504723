//! What the kernel offers the network sensor: opened where it is there, and named where it is not.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::settings::{Settings, Status};
use super::{conntrack, nflog};
use crate::netlink::{acknowledgement, Socket, ERROR, NETFILTER, REQUEST_ACK};

/// How long the kernel may take to answer a question; it does so at once, unless a module has to be loaded.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a packet of the domain name system that are read: what Ethernet carries.
const DNS_PACKET: u32 = 1500;
/// Bytes of a dropped packet that are read: its headers.
const HEADERS: u32 = 128;

/// Subscribes to connections that begin and end.
pub(super) fn connections(settings: &Settings, status: &mut Status) -> Option<Socket> {
    match subscribe(settings) {
        Ok(socket) => {
            let counted = if settings.accounting { account(&settings.proc) } else { Ok(false) };
            status.modes.push(match counted {
                Ok(true) => "connections: events of connection tracking, with bytes and packets".to_owned(),
                Ok(false) => "connections: events of connection tracking".to_owned(),
                Err(error) => {
                    status.lacks.push(format!(
                        "connections have no byte counts: net.netfilter.nf_conntrack_acct cannot be set: {error}"
                    ));
                    "connections: events of connection tracking".to_owned()
                }
            });
            Some(socket)
        }
        Err(error) => {
            let why = match error.raw_os_error() {
                Some(libc::EPROTONOSUPPORT) => ": the kernel lacks CONFIG_NETFILTER_NETLINK",
                Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => {
                    ": the kernel lacks CONFIG_NF_CT_NETLINK"
                }
                Some(libc::EPERM | libc::EACCES) => ": CAP_NET_ADMIN is needed",
                _ => "",
            };
            status.lacks.push(format!("connections are not seen: {error}{why}"));
            None
        }
    }
}

fn subscribe(settings: &Settings) -> io::Result<Socket> {
    // The question makes the kernel load the module where it is one, and tells whether there is any.
    let mut control = Socket::open(NETFILTER, 0)?;
    confirmed(&mut control, conntrack::GET_STATS, &conntrack::UNSPECIFIC)?;
    let socket = Socket::open(NETFILTER, conntrack::GROUPS)?;
    socket.set_receive_buffer(i32::try_from(settings.receive_buffer).unwrap_or(i32::MAX));
    Ok(socket)
}

/// Has the kernel count; true when it does.
fn account(proc: &Path) -> io::Result<bool> {
    let switch = |name: &str| {
        let path = proc.join("sys/net/netfilter").join(name);
        match fs::read(&path) {
            Ok(value) if value.starts_with(b"1") => Ok(()),
            _ => fs::write(&path, "1"),
        }
    };
    // Without CONFIG_NF_CONNTRACK_TIMESTAMP the agent's own clock tells when a connection began and ended.
    let _ = switch("nf_conntrack_timestamp");
    switch("nf_conntrack_acct").map(|()| true)
}

/// Subscribes to the packets that rules copy.
pub(super) fn packets(settings: &Settings, status: &mut Status) -> Option<Socket> {
    let groups = [
        (settings.dns_group, "look-ups of names", "dns_group", DNS_PACKET),
        (settings.denied_group, "dropped packets", "denied_group", HEADERS),
    ];
    let mut socket = None;
    for (group, what, key, bytes) in groups {
        let Some(group) = group else { continue };
        match bind(&mut socket, settings, &nflog::bind(group, bytes)) {
            Ok(()) => status.modes.push(format!("{what}: NFLOG group {group}")),
            Err(error) => {
                let why = match error.raw_os_error() {
                    Some(libc::EPROTONOSUPPORT) => ": the kernel lacks CONFIG_NETFILTER_NETLINK".to_owned(),
                    Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => {
                        ": the kernel lacks CONFIG_NETFILTER_NETLINK_LOG".to_owned()
                    }
                    // The kernel has no other word for a group that is taken (net/netfilter/nfnetlink_log.c).
                    Some(libc::EPERM | libc::EBUSY) => format!(
                        "; another program has it: choose another `network.{key}`; or CAP_NET_ADMIN is missing"
                    ),
                    _ => String::new(),
                };
                status.lacks.push(format!("{what} are not seen: NFLOG group {group}: {error}{why}"));
            }
        }
    }
    socket
}

fn bind(socket: &mut Option<Socket>, settings: &Settings, request: &[u8]) -> io::Result<()> {
    if let Some(socket) = socket {
        return confirmed(socket, nflog::CONFIG, request);
    }
    let mut new = Socket::open(NETFILTER, 0)?;
    new.set_receive_buffer(i32::try_from(settings.receive_buffer).unwrap_or(i32::MAX));
    confirmed(&mut new, nflog::CONFIG, request)?;
    *socket = Some(new);
    Ok(())
}

/// Sends a request and waits for the kernel's word on it.
fn confirmed(socket: &mut Socket, kind: u16, payload: &[u8]) -> io::Result<()> {
    let mut answer = Ok(());
    socket.request(kind, REQUEST_ACK, payload, PATIENCE, |message| {
        if message.kind == ERROR {
            answer = acknowledgement(message.payload);
        }
        Ok(message.kind == ERROR)
    })?;
    answer
}
