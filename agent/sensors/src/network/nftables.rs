//! How many rules a chain has, asked of the kernel: cheap enough to ask often. Source: linux/netfilter/nf_tables.h.

use std::io;
use std::time::Duration;

use super::attribute::{be32, put, Attributes};
use crate::netlink::{acknowledgement, Socket, ERROR, NETFILTER};

/// `NFNL_SUBSYS_NFTABLES` in the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFT_MSG_NEWCHAIN`, the answer to `NFT_MSG_GETCHAIN`.
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `struct nfgenmsg` with `NFPROTO_INET`.
const INET: [u8; 4] = [1, 0, 0, 0];
// enum nft_chain_attributes.
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_USE: u16 = 6;
/// How long the kernel may take; it answers at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many rules a chain of a table of family `inet` has; `None` when there is no such chain.
///
/// # Errors
/// When the kernel cannot be asked, or has no nf_tables.
pub fn rules(table: &str, chain: &str) -> io::Result<Option<u32>> {
    let mut request = INET.to_vec();
    for (kind, name) in [(NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain)] {
        put(&mut request, kind, &[name.as_bytes(), &[0]].concat());
    }
    let mut count = None;
    let asked = Socket::open(NETFILTER, 0)?.request(GETCHAIN, REQUEST, &request, PATIENCE, |message| {
        match message.kind {
            NEWCHAIN => count = parse(message.payload),
            ERROR => acknowledgement(message.payload)?,
            _ => return Ok(false),
        }
        Ok(true)
    });
    match asked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        asked => asked.map(|()| count),
    }
}

/// References to a chain, of which there are none but its rules when nothing jumps to it.
fn parse(payload: &[u8]) -> Option<u32> {
    let (_, value) = Attributes(payload.get(INET.len()..)?).find(|(kind, _)| *kind == NFTA_CHAIN_USE)?;
    be32(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&payload);
        }
    }
}
