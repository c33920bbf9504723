//! The laboratory: a switch with the machine under test on one port and attackers, each a host with addresses of its own,
//! on others. All of it in network namespaces; the build machine's own network is never touched.
//!
//! ```text
//!   node "a" ── veth ──┐
//!   node "b" ── veth ──┤ bridge br0 (10.77.0.1, fd77::1) ── tap0 ── QEMU: eth0 10.77.0.2, fd77::2
//!                      └ in the switch's namespace
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::command;
use crate::error::{Error, Result};
use crate::netns::Netns;

/// Name of the tap device QEMU uses, inside the switch's namespace.
pub const TAP: &str = "tap0";

/// The guest's IPv4 address.
pub const GUEST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

/// The guest's IPv6 address.
pub const GUEST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));

const TOOL: Duration = Duration::from_secs(10);

/// The switch.
#[derive(Debug)]
pub struct Lab {
    switch: Netns,
}

/// A host on the switch.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub netns: Netns,
    /// 10.77.0.N
    pub v4: IpAddr,
    /// fd77::N (in hexadecimal)
    pub v6: IpAddr,
}

impl Lab {
    /// Sets the switch up, with the port for the machine under test. Needs root.
    ///
    /// # Errors
    /// When a namespace or device cannot be made.
    pub fn new() -> Result<Self> {
        let lab = Self { switch: Netns::new()? };
        lab.ip("link set lo up")?;
        lab.ip("link add br0 type bridge")?;
        lab.ip(&format!("tuntap add dev {TAP} mode tap"))?;
        lab.ip(&format!("link set {TAP} master br0 up"))?;
        lab.ip("link set br0 up")?;
        lab.ip("addr add 10.77.0.1/24 dev br0")?;
        lab.ip("-6 addr add fd77::1/64 dev br0 nodad")?;
        Ok(lab)
    }

    /// Where QEMU has to run.
    #[must_use]
    pub fn switch(&self) -> &Netns {
        &self.switch
    }

    /// Plugs in a host with the addresses 10.77.0.`number` and fd77::`number`. It leaves when it is dropped.
    ///
    /// # Errors
    /// When a namespace or device cannot be made; also for a number used twice.
    pub fn node(&self, number: u8) -> Result<Node> {
        let v4 = Ipv4Addr::new(10, 77, 0, number);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number));
        let node = Node { netns: Netns::new()?, v4: v4.into(), v6: v6.into() };
        let port = format!("port{number}");
        self.ip(&format!("link add {port} type veth peer name eth0 netns {}", node.netns.path()))?;
        self.ip(&format!("link set {port} master br0 up"))?;
        for change in [
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("addr add {v4}/24 dev eth0"),
            format!("-6 addr add {v6}/64 dev eth0 nodad"),
        ] {
            ip(&node.netns, &change)?;
        }
        // An attacker's tool gives up on a target that went silent; the kernel's own default is two hours.
        node.netns.within(|| {
            for (name, value) in [("time", "2"), ("intvl", "1"), ("probes", "3")] {
                let path = format!("/proc/sys/net/ipv4/tcp_keepalive_{name}");
                fs::write(&path, value).map_err(Error::io(format!("cannot write {path}")))?;
            }
            let path = "/proc/sys/net/ipv4/tcp_retries2";
            fs::write(path, "4").map_err(Error::io(format!("cannot write {path}")))
        })?;
        Ok(node)
    }

    /// Whether the guest's ssh port can be reached over IPv4 and IPv6 from the switch itself; otherwise, where it cannot.
    ///
    /// # Errors
    /// The address that does not answer.
    pub fn ssh_answers(&self) -> std::result::Result<(), IpAddr> {
        for target in [GUEST_V4, GUEST_V6] {
            let reached = self.switch.within(|| {
                let address = SocketAddr::new(target, 22);
                Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
            });
            if !reached.unwrap_or(false) {
                return Err(target);
            }
        }
        Ok(())
    }

    fn ip(&self, change: &str) -> Result<()> {
        ip(&self.switch, change)
    }
}

fn ip(netns: &Netns, change: &str) -> Result<()> {
    command::run(netns.command("ip").args(change.split(' ')), TOOL).map(drop)
}
