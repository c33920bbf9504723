//! The socket with the kernel's messages, and the whole ruleset read anew.

use std::io;
use std::time::Duration;

use super::message::{parse, Message, GENERIC, SUBSYSTEM};
use super::ruleset::Ruleset;
use crate::netlink::{acknowledgement, Socket, ERROR, NETFILTER};

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h) as a bit of the mask.
const GROUP: u32 = 1 << (7 - 1);
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NFT_MSG_GETTABLE`, `NFT_MSG_GETCHAIN` and `NFT_MSG_GETRULE`: chains need their table, rules their chain.
const DUMPS: [u16; 3] = [SUBSYSTEM | 1, SUBSYSTEM | 4, SUBSYSTEM | 7];
/// `NFT_MSG_GETGEN`.
const GETGEN: u16 = SUBSYSTEM | 16;
/// How long the kernel may take to answer; it does so at once, unless a module has to be loaded.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the ruleset may change while it is read.
const ATTEMPTS: usize = 5;

/// Joins the group.
///
/// # Errors
/// In words that name the next step.
pub(super) fn subscribe(receive_buffer: u32) -> Result<Socket, String> {
    // The question makes the kernel load the module where it is one, and tells whether there is any.
    let open = || {
        generation(&mut Socket::open(NETFILTER, 0)?)?;
        Socket::open(NETFILTER, GROUP)
    };
    let socket = open().map_err(|error| explain(&error))?;
    socket.set_receive_buffer(i32::try_from(receive_buffer).unwrap_or(i32::MAX));
    Ok(socket)
}

fn explain(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT) => ": the kernel lacks CONFIG_NETFILTER_NETLINK",
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => ": the kernel lacks CONFIG_NF_TABLES",
        Some(libc::EPERM | libc::EACCES) => ": CAP_NET_ADMIN is needed",
        _ => "",
    };
    format!("changes of the packet filter are not seen: {error}{why}")
}

/// Number of the ruleset as it is now.
fn generation(socket: &mut Socket) -> io::Result<u32> {
    let mut current = None;
    socket.request(GETGEN, REQUEST, &[0; GENERIC], PATIENCE, |message| {
        if message.kind == ERROR {
            acknowledgement(message.payload)?;
        }
        if let Some(Message::Generation { id, .. }) = parse(message.kind, message.payload) {
            current = Some(id);
        }
        Ok(current.is_some())
    })?;
    current.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The ruleset and its number, read in one piece.
///
/// # Errors
/// When the kernel does not answer, or the ruleset never stands still.
pub(super) fn read() -> io::Result<(Ruleset, u32)> {
    let mut socket = Socket::open(NETFILTER, 0)?;
    for _ in 0..ATTEMPTS {
        let before = generation(&mut socket)?;
        let mut ruleset = Ruleset::default();
        for dump in DUMPS {
            socket.dump(dump, &[0; GENERIC], PATIENCE, &mut |message| {
                if let Some(Message::Object(object)) = parse(message.kind, message.payload) {
                    ruleset.apply(&object);
                }
            })?;
        }
        if generation(&mut socket)? == before {
            return Ok((ruleset, before));
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
