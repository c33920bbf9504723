//! The agent, rsyslog and mosquitto over TLS, and everything taken away in turn: `tests/bench faults` on a small scale.

use std::fs;
use std::path::Path;
use std::time::Duration;

use defender_validation::faults::{run, Plan};
use defender_validation::workspace::Workspace;

#[test]
fn nothing_is_lost_uncounted() {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let agent = Workspace::locate().expect("a source tree").target().join("debug/defender");
    let needed = ["/usr/sbin/nft", "/usr/sbin/mosquitto", "/usr/sbin/rsyslogd"].map(Path::new);
    let openssl = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/rsyslog/lmnsd_ossl.so"));
    let driver = openssl.iter().any(|file| fs::exists(file).unwrap_or_default());
    if !root || !driver || !agent.exists() || !needed.iter().all(|program| program.exists()) {
        println!(
            "skipped: needs root, nft, mosquitto, rsyslog with rsyslog-openssl, and target/debug/defender"
        );
        return;
    }
    let plan = Plan {
        agent,
        directory: format!("/var/tmp/defender-faults-{}", std::process::id()).into(),
        count: 1500,
        kills: 3,
        outage: Duration::from_secs(2),
        only: Vec::new(),
    };
    run(&plan).expect("an even balance");
}
