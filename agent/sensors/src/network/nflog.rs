//! NFLOG: packets that rules of the packet filter copy to user space. Sources: linux/netfilter/nfnetlink_log.h,
//! net/netfilter/nfnetlink_log.c.

use super::attribute::{be16, put, Attributes};

/// `NFNL_SUBSYS_ULOG` in the upper byte of a message's type.
const SUBSYSTEM: u16 = 4 << 8;
/// `NFULNL_MSG_PACKET`.
const PACKET: u16 = SUBSYSTEM;
/// `NFULNL_MSG_CONFIG`.
pub(super) const CONFIG: u16 = SUBSYSTEM | 1;
/// Size of `struct nfgenmsg`.
const GENERIC: usize = 4;

// enum nfulnl_attr_config, nfulnl_msg_config_cmds, and the copy mode.
const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_QTHRESH: u16 = 5;
const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_COPY_PACKET: u8 = 2;
// enum nfulnl_attr_type.
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;

/// A packet that a rule copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged<'a> {
    /// The rule's group.
    pub group: u16,
    /// The rule's `log prefix`; empty without.
    pub prefix: &'a [u8],
    /// The packet from its IP header on, as far as it was copied.
    pub packet: &'a [u8],
}

/// Reads a message: its type and what follows the netlink header. `None` for other messages and what is malformed.
#[must_use]
pub fn parse(kind: u16, payload: &[u8]) -> Option<Logged<'_>> {
    if kind != PACKET {
        return None;
    }
    // `res_id` of `struct nfgenmsg` holds the group.
    let group = be16(payload.get(2..GENERIC)?)?;
    let (mut prefix, mut packet) = (&[][..], None);
    for (kind, value) in Attributes(payload.get(GENERIC..)?) {
        match kind {
            NFULA_PAYLOAD => packet = Some(value),
            NFULA_PREFIX => prefix = value.strip_suffix(&[0]).unwrap_or(value),
            _ => {}
        }
    }
    Some(Logged { group, prefix, packet: packet? })
}

/// The request to get what rules copy to a group: at most so many bytes of a packet, each at once.
pub(super) fn bind(group: u16, bytes: u32) -> Vec<u8> {
    let [high, low] = group.to_be_bytes();
    let mut request = vec![0, 0, high, low];
    put(&mut request, NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]);
    let [a, b, c, d] = bytes.to_be_bytes();
    put(&mut request, NFULA_CFG_MODE, &[a, b, c, d, NFULNL_COPY_PACKET, 0]);
    put(&mut request, NFULA_CFG_QTHRESH, &1u32.to_be_bytes());
    request
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_packet_with_its_prefix() {
        let mut message = vec![2, 0, 0, 54];
        put(&mut message, 1, &[8, 0, 1, 0]);
        put(&mut message, NFULA_PREFIX, b"input drop\0");
        put(&mut message, NFULA_PAYLOAD, b"\x45...");
        let logged = parse(PACKET, &message).unwrap();
        assert_eq!(logged, Logged { group: 54, prefix: b"input drop", packet: b"\x45..." });
        assert_eq!(parse(CONFIG, &message), None);
        assert_eq!(parse(PACKET, &message[..20]), None);
    }

    #[test]
    fn the_request_names_group_and_size() {
        let request = bind(0x1234, 96);
        assert_eq!(request[..4], [0, 0, 0x12, 0x34]);
        let attributes: Vec<_> =
            Attributes(&request[4..]).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(attributes, [(1, vec![1]), (2, vec![0, 0, 0, 96, 2, 0]), (5, vec![0, 0, 0, 1])]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(message in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(PACKET, &message);
        }
    }
}
