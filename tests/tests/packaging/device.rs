//! What runs on the device besides the agent: scripts, supervisor, units, base firewall ruleset.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{eventually, have, is_root, read, read_bytes, run, top, tree, Running, Scratch};

fn shell_scripts() -> Vec<PathBuf> {
    let mut scripts: Vec<_> = tree(&top().join("rootfs-overlay"))
        .into_keys()
        .filter(|path| read_bytes(path).starts_with(b"#!/bin/sh"))
        .map(|path| top().join("rootfs-overlay").join(path))
        .collect();
    let of_the_build = [
        "buildroot-package/scripts/vendor",
        "buildroot-package/scripts/release",
        "agent/build-host/defender-image",
    ];
    scripts.extend(of_the_build.map(|script| top().join(script)));
    assert!(scripts.len() >= 5, "{scripts:?}");
    scripts
}

#[test]
fn scripts_parse_and_are_clean() {
    for script in shell_scripts() {
        run(Command::new("sh").arg("-n").arg(&script));
        if have("busybox", "parsing with BusyBox's shell") {
            run(Command::new("busybox").args(["sh", "-n"]).arg(&script));
        }
        if have("shellcheck", "shellcheck of the scripts") {
            run(Command::new("shellcheck").arg(&script));
        }
    }
}

#[test]
fn units_verify_and_are_hardened() {
    if !have("systemd-analyze", "verification of the systemd units") {
        return;
    }
    let scratch = Scratch::new("units");
    // Exposures in tenths. 3.0 of the agent's: 0.5 of it are what the drop-in takes away, each at the cost of a function, so that it is
    // in an image by choice.
    let drop_in = "defender.service.d/50-strict.conf";
    for (unit, drop_in, exposure) in [
        ("defender.service", None, 30),
        ("defender-firewall.service", None, 25),
        ("defender.service", Some(drop_in), 25),
    ] {
        let socket = "defender-syslog.socket";
        fs::copy(top().join("rootfs-overlay/usr/lib/systemd/system").join(socket), scratch.join(socket))
            .expect("socket");
        if let Some(drop_in) = drop_in {
            fs::create_dir_all(scratch.join("defender.service.d")).expect("directory");
            fs::write(
                scratch.join(drop_in),
                read(&format!("rootfs-overlay/usr/lib/systemd/system/{drop_in}")),
            )
            .expect("drop-in");
        }
        let text = read(&format!("rootfs-overlay/usr/lib/systemd/system/{unit}"));
        // What is started is not on this machine.
        let text: String = text
            .lines()
            .map(|line| match line.split_once('=') {
                Some((key @ ("ExecStart" | "ExecReload"), _)) => format!("{key}=/bin/true\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let path = scratch.join(unit);
        fs::write(&path, text).expect("unit");
        run(Command::new("systemd-analyze").arg("verify").arg(&path));
        run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", &format!("--threshold={exposure}")])
            .arg(&path));
    }
}

#[test]
fn the_supervisor_never_gives_up_and_ends_when_told() {
    let scratch = Scratch::new("supervise");
    let agent = scratch.join("agent");
    let runs = scratch.join("runs");
    fs::write(&agent, format!("#!/bin/sh\necho \"$*\" >>{}\nexec sleep 100\n", runs.display()))
        .expect("agent");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("agent");
    let pid_file = scratch.join("agent.pid");
    let shell = if have("busybox", "BusyBox's shell as supervisor; taking sh") {
        vec!["busybox", "sh"]
    } else {
        vec!["sh"]
    };
    let mut supervisor = Running(
        Command::new(shell[0])
            .args(&shell[1..])
            .arg(top().join("rootfs-overlay/usr/libexec/defender/supervise"))
            .args(["--config", "x"])
            .env("DEFENDER_BINARY", &agent)
            .env("DEFENDER_AGENT_PIDFILE", &pid_file)
            .env("DEFENDER_AGENT_LOG", scratch.join("agent.log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("supervisor"),
    );
    let started = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
    let pid = || fs::read_to_string(&pid_file).unwrap_or_default().trim().to_owned();
    // The agent may have said that it runs before its supervisor has written its number.
    let mut last = String::new();
    for times in 1..=4 {
        eventually("the agent is started again", || started() == times && !["", &last].contains(&&*pid()));
        last = pid();
        if times < 4 {
            run(Command::new("kill").args(["-KILL", &last]));
        }
    }
    assert_eq!(fs::read_to_string(&runs).expect("runs").lines().next(), Some("run --config x"));
    run(Command::new("kill").args(["-TERM", &supervisor.0.id().to_string()]));
    eventually("the supervisor ends", || supervisor.0.try_wait().expect("supervisor").is_some());
    assert!(!Path::new("/proc").join(&last).exists(), "the agent outlived its supervisor");
    assert!(!pid_file.exists(), "a pid file was left");
}

#[test]
fn the_base_ruleset_loads_again_and_survives_a_typo() {
    let unshare = if is_root() { vec!["-n", "-m"] } else { vec!["-r", "-n", "-m"] };
    let probe = Command::new("unshare")
        .args(&unshare)
        .args(["nft", "add table inet x"])
        .stdin(Stdio::null())
        .output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: loading the base ruleset: no nft in a network namespace of our own: {probe:?}");
        return;
    }
    let scratch = Scratch::new("nft");
    run(Command::new("cp").arg("-a").arg(top().join("rootfs-overlay/etc/defender/nftables")).arg(&scratch.0));
    let script = r#"
        set -eu
        in_set() { nft list set inet defender_base "$1" | grep -qw "$2"; }
        not() { if "$@"; then echo "unexpected: $*" >&2; exit 1; fi; }
        # A small image has neither, and nft's names for protocols and ports come from them.
        for file in /etc/protocols /etc/services; do
            if test -e "$file"; then mount --bind /dev/null "$file"; fi
        done
        nft add table inet foreign
        "$LOADER" check
        "$LOADER" load
        nft add element inet defender_base tcp_open '{ 1 }'
        "$LOADER" load                                       # again: the same, not twice
        in_set tcp_open 22
        not in_set tcp_open 1
        nft list table inet foreign >/dev/null               # nobody else's table is touched
        test "$(nft list ruleset | grep -c 'policy drop')" = 2

        conf="$DEFENDER_NFTABLES/conf.d"
        echo 'add element inet defender_base tcp_open { 8883 }' >"$conf/10-product.nft"
        echo 'delete element inet defender_base tcp_open { 22 }' >>"$conf/10-product.nft"
        echo 'add rule inet defender_base product_input udp dport 5353 accept' >>"$conf/10-product.nft"
        "$LOADER" load
        in_set tcp_open 8883
        not in_set tcp_open 22

        echo 'add rule inet defender_base nonsense' >"$conf/20-typo.nft"
        not "$LOADER" check
        not "$LOADER" load                                   # refused, and what was in force still is
        in_set tcp_open 8883
        nft delete table inet defender_base                  # as at boot
        "$LOADER" load
        in_set tcp_open 22
    "#;
    run(Command::new("unshare")
        .args(&unshare)
        .args(["sh", "-c", script])
        .env("LOADER", top().join("rootfs-overlay/usr/libexec/defender/firewall"))
        .env("DEFENDER_NFTABLES", scratch.join("nftables")));
}
