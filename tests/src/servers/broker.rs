//! mosquitto over TLS with client certificates, and its subscriber.
//!
//! A broker that is killed forgets. So a subscriber takes everything it hands on, and devices get through to it only when the
//! subscriber stands: mosquitto hands a message on before it acknowledges it, so what was acknowledged is with the subscriber.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use super::arrivals::Shared;
use super::authority::Pair;
use super::subscriber::Subscriber;
use crate::command;
use crate::error::{Error, Result};
use crate::netns::Netns;

/// Where devices come in.
pub const PORT: u16 = 8883;
/// Where the subscriber does.
const INSIDE: u16 = 1883;

/// A running mosquitto.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    subscriber: Option<Subscriber>,
    netns: Arc<Netns>,
}

impl Broker {
    /// Starts it with its files in `directory`; clients of `clients` (a file of certificates) are let in.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub fn start(
        netns: &Arc<Netns>,
        directory: &Path,
        own: &Pair,
        clients: &Path,
        arrivals: &Shared,
    ) -> Result<Self> {
        gate(netns, false)?;
        let file = configure(directory, own, clients)?;
        let mut command = netns.command("mosquitto");
        command.arg("-c").arg(file);
        let log = directory.join("mosquitto.log");
        let mut child = super::spawn(command, &log)?;
        super::listening(netns, &mut child, INSIDE, &log)?;
        let subscriber = Subscriber::start(netns, INSIDE, "defender/#", arrivals.clone())?;
        gate(netns, true)?;
        Ok(Self { child, subscriber: Some(subscriber), netns: Arc::clone(netns) })
    }

    /// SIGKILL; afterwards everything it had handed on is noted.
    ///
    /// # Errors
    /// When the subscriber cannot read to the end.
    pub fn kill(mut self) -> Result<()> {
        // Nobody gets through to the next one before its subscriber does.
        gate(&self.netns, false)?;
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.subscriber.take().map_or(Ok(()), Subscriber::finish)
    }

    /// SIGSTOP or SIGCONT: connections are accepted by the kernel and nothing is answered.
    pub fn freeze(&self, frozen: bool) {
        super::signal(&self.child, if frozen { libc::SIGSTOP } else { libc::SIGCONT });
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configure(directory: &Path, own: &Pair, clients: &Path) -> Result<PathBuf> {
    let text = format!(
        "per_listener_settings true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 0\n\
         listener {PORT} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\n\
         cafile {}\ncertfile {}\nkeyfile {}\n\
         listener {INSIDE} 127.0.0.1\nallow_anonymous true\n",
        clients.display(),
        own.certificate.display(),
        own.key.display()
    );
    let file = directory.join("mosquitto.conf");
    fs::write(&file, text).map_err(Error::io(format!("cannot write {}", file.display())))?;
    Ok(file)
}

/// Lets devices through to the broker or turns them away at once.
fn gate(netns: &Netns, open: bool) -> Result<()> {
    let chain = "add table inet gate; add chain inet gate in { type filter hook input priority 0; }; flush chain inet gate in;";
    let rule = if open {
        String::new()
    } else {
        format!("add rule inet gate in tcp dport {PORT} reject with tcp reset")
    };
    let mut nft = Command::new("nsenter");
    nft.arg(format!("--net={}", netns.path())).args(["nft", &format!("{chain} {rule}")]);
    command::run(&mut nft, Duration::from_secs(60)).map(drop)
}
