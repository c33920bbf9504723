//! A fresh network namespace for each test, and a second one behind a veth where packets have to travel.
//!
//! The test executable starts itself again under `unshare --net --mount`, so that the whole process (and the `nft` children, and
//! `/proc/net`) is inside, and nothing of the machine's own network is ever touched.

use std::env;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const INSIDE: &str = "DEFENDER_FIREWALL_TEST_INSIDE";

/// Runs the body in a namespace of its own; `name` is the test's own name. Without root it says so and passes.
pub(crate) fn inside<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if env::var_os(INSIDE).is_some() {
        // Ends the harness's own unfinished line, so that ours are lines.
        println!();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(90), body()).await.unwrap() });
    }
    if !is_root() {
        println!("skipped: {name} needs root for a network namespace of its own");
        return;
    }
    let output = Command::new("timeout")
        .args(["--kill-after=5", "100", "unshare", "--net", "--mount", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|l| l.starts_with("  ")) {
        println!("{line}");
    }
    assert!(
        text.contains("1 passed") && output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|l| l.starts_with("Uid:") && l.split_ascii_whitespace().nth(2) == Some("0"))
}

/// Runs a command that has to succeed; its standard output.
pub(crate) fn run(line: &str) -> String {
    let output = sh(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command, at most ten seconds.
pub(crate) fn sh(line: &str) -> Output {
    Command::new("timeout").args(["10", "bash", "-c", line]).output().unwrap()
}

/// A program of ours, given as a shell script.
pub(crate) fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Another host: a second namespace, joined by a veth pair.
///
/// On net n we are 198.18.n.1 and 2001:db8:n::1, it is 198.18.n.2 and 2001:db8:n::2 (RFC 2544, RFC 3849: nobody's).
pub(crate) struct Peer(Child);

impl Peer {
    pub(crate) fn on(n: u8) -> Self {
        // Ends by itself even if we are killed.
        let child =
            Command::new("unshare").args(["--net", "sleep", "100"]).stdin(Stdio::null()).spawn().unwrap();
        let peer = Self(child);
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", peer.0.id());
        for _ in 0..500 {
            if fs::read_link(&theirs).is_ok_and(|ns| ns != own) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_ne!(fs::read_link(&theirs).unwrap(), own);
        run("ip link set lo up");
        peer.run("ip link set lo up");
        run(&format!("ip link add here{n} type veth peer name there netns {}", peer.0.id()));
        let addresses = |device: &str, host: u8| {
            format!(
                "ip address add 198.18.{n}.{host}/24 dev {device} && \
                 ip -6 address add 2001:db8:{n}::{host}/64 dev {device} nodad && ip link set {device} up"
            )
        };
        run(&addresses(&format!("here{n}"), 1));
        peer.run(&addresses("there", 2));
        peer
    }

    fn command(&self, line: &str) -> String {
        let line = line.replace('\'', r"'\''");
        format!("nsenter --net=/proc/{}/ns/net bash -c '{line}'", self.0.id())
    }

    /// Runs a command over there that has to succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&self.command(line))
    }

    /// What a TCP connection from there meets.
    pub(crate) fn meets(&self, address: &str, port: u16) -> Answer {
        answer(&sh(&self.command(&attempt(address, port))))
    }
}

/// What a TCP connection meets within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Connected,
    /// Nobody listens, but packets travel both ways.
    Refused,
    Silence,
}

/// What a TCP connection from here meets.
pub(crate) fn meets(address: &str, port: u16) -> Answer {
    answer(&sh(&attempt(address, port)))
}

fn attempt(address: &str, port: u16) -> String {
    format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>&1")
}

fn answer(output: &Output) -> Answer {
    match (output.status.code(), String::from_utf8_lossy(&output.stdout)) {
        (Some(0), _) => Answer::Connected,
        (Some(124), _) => Answer::Silence,
        (_, text) if text.contains("Connection refused") => Answer::Refused,
        (code, text) => panic!("{code:?}: {text}"),
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
