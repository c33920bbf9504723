//! What the firewall is told at its making.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::Cidr;

/// What the firewall is told at its making.
#[derive(Clone, Debug)]
pub struct Config {
    /// Absolute path of the `nft` program.
    pub nft: PathBuf,
    /// Bound on every single run of `nft`, after which it is killed. Generous: it is under load, an attack perhaps, that an address has to be
    /// blocked, and a run takes a fraction of a second otherwise.
    pub nft_timeout: Duration,
    /// Where blocks are kept over a reboot; `None` to forget them.
    pub state_file: Option<PathBuf>,
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// Prefixes that are never blocked (the first 1,024).
    pub allow: Vec<Cidr>,
    /// Whether the default gateways of the moment are never blocked either.
    pub allow_gateway: bool,
    /// Most blocks in force at once, 1 to 32,768. Also sizes the kernel's sets: about 32 bytes of kernel memory each.
    pub max_blocks: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nft: PathBuf::from("/usr/sbin/nft"),
            nft_timeout: Duration::from_secs(10),
            state_file: None,
            proc: PathBuf::from("/proc"),
            allow: Vec::new(),
            allow_gateway: true,
            max_blocks: 4096,
        }
    }
}
