//! The fleet recipe on a small scale, where its servers are installed: `tests/bench fleet`.

use std::fs;
use std::path::Path;

use defender_validation::fleet::store::Store;
use defender_validation::fleet::{run, Plan};
use defender_validation::workspace::Workspace;

#[test]
fn twenty_devices_are_stored_and_asked_about() {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let workspace = Workspace::locate().expect("a source tree");
    let (agent, devices_program) =
        (workspace.target().join("debug/defender"), workspace.target().join("debug/examples/fleet"));
    let modules = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/rsyslog"));
    let has = |module: &str| {
        modules.iter().any(|directory| fs::exists(Path::new(directory).join(module)).unwrap_or_default())
    };
    let programs = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto_sub", "/usr/sbin/rsyslogd"];
    let there = programs.iter().all(|program| Path::new(program).exists());
    let there = there && has("ompgsql.so") && has("lmnsd_ossl.so") && Store::programs().is_some();
    if !root || !there || !agent.exists() || !devices_program.exists() {
        println!(
            "skipped: needs root, mosquitto, rsyslog-openssl, rsyslog-pgsql, postgresql and the debug build"
        );
        return;
    }
    let plan = Plan {
        agent,
        devices_program,
        files: workspace.tests("fleet"),
        directory: format!("/var/tmp/defender-fleet-{}", std::process::id()).into(),
        devices: 20,
        count: 50,
    };
    run(&plan).expect("everything is stored");
}
