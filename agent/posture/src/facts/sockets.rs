//! What a running device listens on: /proc/net (proc_net(5)) and the processes behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use defender_model::order;
use defender_model::text;

use crate::root::{Root, Unreadable};

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// `tcp`, `udp` or `raw`.
    pub(crate) protocol: &'static str,
    pub(crate) address: IpAddr,
    /// The port; the protocol number of a raw socket.
    pub(crate) port: u16,
    pub(crate) uid: u32,
    inode: u64,
}

impl Listener {
    /// Reachable from elsewhere.
    pub(crate) fn is_global(&self) -> bool {
        match self.address {
            IpAddr::V4(address) => !address.is_loopback(),
            IpAddr::V6(address) => {
                !address.is_loopback()
                    && !address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
            }
        }
    }
}

/// Every listening socket.
pub(crate) fn read(root: &Root) -> Result<Vec<Listener>, Unreadable> {
    let mut listeners = Vec::new();
    for (file, protocol) in
        [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"), ("raw", "raw"), ("raw6", "raw")]
    {
        // A kernel without IPv6 lacks half of them.
        if let Some(bytes) = root.read(format!("/proc/net/{file}"))? {
            listeners.extend(table(&text::from_bytes(&bytes), protocol));
        }
    }
    order::sort_by_key(&mut listeners, |listener| (listener.port, listener.protocol));
    Ok(listeners)
}

/// The listening sockets of one table.
pub(crate) fn table(text: &str, protocol: &'static str) -> Vec<Listener> {
    let wanted = if protocol == "tcp" { "0A" } else { "07" };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (local, state) = (words.get(1)?, words.get(3)?);
            if *state != wanted {
                return None;
            }
            let (address, port) = local.split_once(':')?;
            Some(Listener {
                protocol,
                address: address_of(address)?,
                port: u16::from_str_radix(port, 16).ok()?,
                uid: words.get(7)?.parse().ok()?,
                inode: words.get(9)?.parse().ok()?,
            })
        })
        .collect()
}

/// An address as the kernel prints it: words of 32 bits in the machine's own byte order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0_u8; 16];
            for (at, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Name of the process that holds a socket; `None` when it may not be looked at.
pub(crate) fn owner(root: &Root, listener: &Listener) -> Option<String> {
    let wanted = format!("socket:[{}]", listener.inode);
    for process in root.list("/proc").ok()? {
        let Some(pid) = process.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        let Ok(descriptors) = root.list(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors {
            let link = format!("/proc/{pid}/fd/{}", descriptor.to_string_lossy());
            if root
                .read_link(&link)
                .ok()
                .flatten()
                .is_some_and(|target| target.as_os_str() == wanted.as_str())
            {
                let name = root.text(format!("/proc/{pid}/comm")).ok().flatten().unwrap_or_default();
                return Some(format!("{} (process {pid})", name.trim_end()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_kernels_tables() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let tcp = format!("{head}   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1\n   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12346 1\n   2: 0100007F:1F91 0100007F:0016 01 0:0 0:0 0 0 0 1 1\nbroken\n");
        let found = table(&tcp, "tcp");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].port, found[0].is_global(), found[1].is_global()), (22, true, false));
        let udp6 =
            format!("{head} 10: 00000000000000000000000001000000:0035 0:0 07 0:0 0:0 0 0 0 77 2 0 0\n");
        assert_eq!(table(&udp6, "udp")[0].address, IpAddr::V6(Ipv6Addr::LOCALHOST));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[ 0-9A-F:\\n]{0,200}") {
            let _ = (table(&text, "tcp"), address_of(&text));
        }
    }
}
