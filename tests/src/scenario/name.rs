//! Names that the device looks up at a real server, and connections to what it answered.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::device::class;
use crate::error::{Error, Result};

use super::{expect, World};

const REPORT: Duration = Duration::from_secs(20);
const NAME: &str = "update.device.test";

/// It is stopped when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn names_are_told(world: &mut World<'_>) -> Result<()> {
    let host = world.node()?;
    let address = host.v4.to_string();
    let mut dnsmasq = host.netns.command("dnsmasq");
    dnsmasq
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"])
        .args(["--bind-interfaces", "--pid-file="])
        .arg(format!("--listen-address={address}"))
        .arg(format!("--address=/{NAME}/{address}"));
    // nsenter says 127 for a program that is not there.
    let mut server = Server(
        dnsmasq
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("cannot start nsenter"))?,
    );
    let machine = world.machine()?;
    let look_up = format!("nslookup {NAME} {address}");
    machine.wait("the name is resolved", REPORT, |machine| {
        if let Ok(Some(status)) = server.0.try_wait() {
            return Err(Error::Skipped(format!("dnsmasq is not installed, or ended: {status}")));
        }
        let reply = machine.run(&look_up)?;
        // Once for the server, once for what it answers.
        Ok(if reply.output.matches(&address).count() > 1 { Ok(()) } else { Err(reply.output) })
    })?;
    // A question and its answer are one event.
    let told = machine.event("the look-up is told", NAME, REPORT, |event| {
        event.class() == class::DNS
            && event.at("/activity_id") == 2
            && event.at("/query/hostname") == NAME
            && event.at("/answers/0/rdata") == address.as_str()
    })?;
    expect(told.at("/dst_endpoint/ip") == address.as_str(), || format!("whom it asked: {}", told.0))?;
    // The server also takes questions over TCP.
    machine.ok(&format!("busybox nc -w 2 {address} 53 </dev/null || true"))?;
    machine
        .event("a connection to that address bears the name", NAME, REPORT, |event| {
            event.class() == class::NETWORK
                && event.at("/dst_endpoint/ip") == address.as_str()
                && event.at("/dst_endpoint/hostname") == NAME
        })
        .map(drop)
}
