//! The gate of a build, as a device builder runs it: `defender posture --root IMAGE --fail-on high --min-score 90` lets the reference
//! images of both flavours pass with the shipped policies and configuration, and stops the same images with the twelve faults of
//! [`FAULTS`] planted, naming those and no others.
//!
//! Needs root (owners of files), a Debian or Ubuntu machine (packages of the images) and a built agent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{chown, symlink, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use defender_validation::command;
use defender_validation::error::Error;
use defender_validation::image::{self, Flavour, Tree};
use defender_validation::workspace::Workspace;
use serde_json::Value;

/// What the images have to reach, policy by policy and in all.
const MINIMUM: u8 = 90;
/// Most a scan may take; a debug build needs less than a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Faults that the reference images accept, with their reasons in `tests/image/common/etc/defender/conf.d/20-posture.toml`.
const EXCEPTED: [&str; 5] = [
    "cis-2.2.1.1-time-sync",
    "firmware-shared-password",
    "firmware-ssh-password",
    "firmware-time",
    "firmware-updater",
];

/// A mistake that images really ship with.
struct Fault {
    what: &'static str,
    plant: fn(&Path, Flavour),
    /// Checks that have to fail for it, on both flavours.
    both: &'static [&'static str],
    /// And those about OpenSSH, which the BusyBox flavour does not have.
    systemd: &'static [&'static str],
}

const FAULTS: [Fault; 12] = [
    Fault {
        what: "root has an empty password",
        plant: |root, _| edit(root, "etc/shadow", |text| text.replacen("root:*:", "root::", 1)),
        both: &["cis-6.2.1-empty-passwords", "firmware-empty-password"],
        systemd: &[],
    },
    Fault {
        what: "a telnet server starts and gives a shell without a login",
        plant: |root, flavour| {
            symlink("/usr/bin/busybox", root.join("usr/sbin/telnetd")).unwrap();
            start(root, flavour, "telnetd", "/usr/sbin/telnetd -F -l /bin/sh");
        },
        both: &[
            "cis-2.1.8-telnet-server",
            "firmware-script-shell",
            "firmware-telnet",
            "firmware-telnet-program",
        ],
        systemd: &[],
    },
    Fault {
        what: "the serial console is a root shell",
        plant: |root, flavour| match flavour {
            Flavour::Busybox => {
                edit(root, "etc/inittab", |text| text.to_owned() + "ttyS0::respawn:-/bin/sh\n");
            }
            Flavour::Systemd => {
                let wants = root.join("etc/systemd/system/sysinit.target.wants");
                symlink("/usr/lib/systemd/system/debug-shell.service", wants.join("debug-shell.service"))
                    .unwrap();
            }
        },
        both: &["firmware-console-shell"],
        systemd: &[],
    },
    Fault {
        what: "a shell is setuid",
        plant: |root, _| {
            fs::copy(root.join("usr/bin/busybox"), root.join("usr/bin/dash")).unwrap();
            mode(root, "usr/bin/dash", 0o4755);
        },
        both: &["cis-6.1.13-setuid", "firmware-setuid", "firmware-setuid-shell"],
        systemd: &[],
    },
    Fault {
        what: "a private key of the fleet is readable by everyone",
        plant: |root, _| {
            let path = root.join("etc/product/device.key");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut openssl = Command::new("openssl");
            openssl.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]);
            command::run(openssl.arg(path), LIMIT).unwrap();
            mode(root, "etc/product/device.key", 0o644);
        },
        both: &["firmware-private-key-modes", "firmware-private-keys"],
        systemd: &[],
    },
    Fault {
        what: "the packet filter lets everything in",
        plant: |root, _| {
            write(
                root,
                "etc/defender/nftables/conf.d/99-debug.nft",
                "add rule inet defender_base product_input accept\n",
            );
        },
        both: &["network-input-rules"],
        systemd: &[],
    },
    Fault {
        what: "ssh lets root in, with an empty password too",
        plant: |root, flavour| match flavour {
            Flavour::Busybox => write(root, "etc/default/dropbear", "DROPBEAR_ARGS=\"-B -j -k -T 4\"\n"),
            Flavour::Systemd => {
                write(
                    root,
                    "etc/ssh/sshd_config.d/10-debug.conf",
                    "PermitRootLogin yes\nPermitEmptyPasswords yes\n",
                );
                mode(root, "etc/ssh/sshd_config.d/10-debug.conf", 0o600);
            }
        },
        both: &["firmware-ssh-empty", "firmware-ssh-root", "firmware-ssh-root-keys"],
        systemd: &["cis-5.2.10-sshd-root", "cis-5.2.11-sshd-empty"],
    },
    Fault {
        what: "every device has the same ssh host key",
        plant: |root, flavour| {
            let key = match flavour {
                Flavour::Busybox => "etc/dropbear/dropbear_ed25519_host_key",
                Flavour::Systemd => "etc/ssh/ssh_host_ed25519_key",
            };
            if flavour == Flavour::Busybox {
                fs::remove_file(root.join("etc/dropbear")).unwrap();
                fs::create_dir(root.join("etc/dropbear")).unwrap();
            }
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(root.join(key));
            command::run(&mut keygen, LIMIT).unwrap();
        },
        both: &["firmware-host-keys"],
        systemd: &[],
    },
    Fault {
        what: "everyone may write what root starts at boot",
        plant: |root, flavour| match flavour {
            Flavour::Busybox => mode(root, "etc/init.d/S50dropbear", 0o777),
            Flavour::Systemd => mode(root, "usr/lib/systemd/system/ssh.service", 0o666),
        },
        both: &["cis-6.1.10-world-writable", "firmware-start-files", "firmware-world-writable"],
        systemd: &[],
    },
    Fault {
        what: "files belong to the developer's user and group, which the device does not know",
        plant: |root, _| {
            write(root, "usr/share/product/readme", "\n");
            chown(root.join("usr/share/product/readme"), Some(4711), Some(4711)).unwrap();
        },
        both: &["cis-6.1.11-unowned", "cis-6.1.12-ungrouped"],
        systemd: &[],
    },
    Fault {
        what: "the broker's certificate ran out and has a key of 1024 bits",
        plant: |root, _| write(root, "etc/mosquitto/certs/broker.pem", CERTIFICATE),
        both: &["network-certificate-expiry", "network-certificate-keys"],
        systemd: &[],
    },
    Fault {
        what: "the updater takes packages without a signature",
        plant: |root, _| {
            write(root, "usr/bin/opkg", "");
            mode(root, "usr/bin/opkg", 0o755);
            write(root, "etc/opkg/opkg.conf", "src/gz base https://updates.example/base\n");
        },
        both: &["cis-1.2.2-package-signatures", "firmware-opkg-signature"],
        systemd: &[],
    },
];

/// CN=broker.example, RSA 1024, 1 January 2020 to 1 January 2021.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBoTCCAQoCAQEwDQYJKoZIhvcNAQELBQAwGTEXMBUGA1UEAwwOYnJva2VyLmV4
YW1wbGUwHhcNMjAwMTAxMDAwMDAwWhcNMjEwMTAxMDAwMDAwWjAZMRcwFQYDVQQD
DA5icm9rZXIuZXhhbXBsZTCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEA3Flj
oBc50OTUsl8D73EV3+lrGoncAhlLa/7SGKMbwvJ1MxV2wr63zlZk76Kqhj2O+sCO
gEun4zHzPiuVTUahtaH+b88wPPyZUqipcIwg1U7vST4Gqxx43xXGZYZ4zdxAb/rL
0LUlnUVnylJN21SYjtmhHn5hiIYtDOGaBwNbCzECAwEAATANBgkqhkiG9w0BAQsF
AAOBgQB0iIc9AJqpxJ5ziMUOWyau0TWahDlRo0f3kUCc/vO5EoH8+/Hh1unmo2Qs
lJHmX0aq66APBrOwuDvQ3CasKH+bI4AoGMJxo2Sih6uCMY37JKepWAzaEnaFwJPG
oK1m2bf+HGo2BZHKm56Xo4cNn4AF7Gn3aYzCO/7Azq73IdAoxw==
-----END CERTIFICATE-----
";

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn edit(root: &Path, path: &str, change: impl Fn(&str) -> String) {
    let path = root.join(path);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed, "{} was not changed", path.display());
    fs::write(path, changed).unwrap();
}

fn mode(root: &Path, path: &str, mode: u32) {
    fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
}

/// Starts a command at boot.
fn start(root: &Path, flavour: Flavour, name: &str, command: &str) {
    match flavour {
        Flavour::Busybox => {
            edit(root, "etc/inittab", |text| text.to_owned() + &format!("::respawn:{command}\n"));
        }
        Flavour::Systemd => {
            let unit = format!("etc/systemd/system/{name}.service");
            write(
                root,
                &unit,
                &format!("[Service]\nExecStart={command}\n\n[Install]\nWantedBy=multi-user.target\n"),
            );
            let wants = root.join("etc/systemd/system/multi-user.target.wants");
            symlink(format!("/{unit}"), wants.join(format!("{name}.service"))).unwrap();
        }
    }
}

/// What the gate said.
struct Answer {
    status: i32,
    /// What it printed for people.
    text: String,
    /// Verdict of every check: `pass`, `fail`, `excepted`, `unknown`, `not_applicable`.
    verdicts: BTreeMap<String, String>,
}

impl Answer {
    fn with(&self, verdict: &str) -> BTreeSet<&str> {
        self.verdicts.iter().filter(|(_, said)| *said == verdict).map(|(id, _)| id.as_str()).collect()
    }

    /// The scores of the text report: of each policy, and the last one in all.
    fn scores(&self) -> Vec<f32> {
        let after = |line: &str| line.split_once("score ")?.1.split(' ').next()?.parse().ok();
        self.text.lines().filter(|line| !line.starts_with(' ')).filter_map(after).collect()
    }
}

fn gate(agent: &Path, tree: &Tree) -> Answer {
    let scan = |format: &str| {
        let mut gate = Command::new(agent);
        gate.arg("posture").arg("--root").arg(&tree.root);
        gate.arg("--policies").arg(tree.root.join("usr/share/defender/policies"));
        gate.arg("--kernel-config").arg(&tree.kernel_config).arg("--cmdline").arg(&tree.command_line);
        gate.args(["--fail-on", "high", "--min-score"]).arg(MINIMUM.to_string());
        command::output(gate.args(["--format", format]), LIMIT).unwrap()
    };
    let (text, json) = (scan("text"), scan("json"));
    let string = |value: &Value| value.as_str().unwrap().to_owned();
    let finding = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        (string(&event["finding_info"]["uid"]), string(&event["unmapped"]["verdict"]))
    };
    Answer {
        status: text.status.code().unwrap(),
        text: String::from_utf8(text.stdout).unwrap() + &String::from_utf8(text.stderr).unwrap(),
        verdicts: String::from_utf8(json.stdout).unwrap().lines().map(finding).collect(),
    }
}

/// The newest agent that is built.
fn agent(workspace: &Workspace) -> Option<PathBuf> {
    let release = workspace.agent();
    let debug = release.parent()?.with_file_name("debug").join("defender");
    let built = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    [release, debug].into_iter().filter(|path| built(path).is_some()).max_by_key(built)
}

/// Why this test cannot run here, or what it needs.
fn ready(flavour: Flavour, name: &str) -> Result<(PathBuf, Tree), String> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Err("it needs root, for the owners of files".to_owned());
    }
    let workspace = Workspace::locate().unwrap();
    let agent = agent(&workspace).ok_or("no agent is built: cargo build --release --locked -p defender")?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gate-{name}-{}", flavour.name()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    match image::tree(&workspace, flavour, &agent, &place) {
        Ok(tree) => Ok((agent, tree)),
        // Without a distribution's packages there is no image.
        Err(error @ (Error::Missing { .. } | Error::Command { .. })) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn the_gate_tells_good_from_bad(flavour: Flavour) {
    let (agent, tree) = match ready(flavour, "reference") {
        Ok(ready) => ready,
        Err(obstacle) => {
            println!("skipped: {obstacle}");
            return;
        }
    };
    let good = gate(&agent, &tree);
    println!("{}: scores {:?}, failing {:?}", flavour.name(), good.scores(), good.with("fail"));
    assert_eq!(good.status, 0, "{}", good.text);
    assert_eq!(good.scores().len(), 5, "four policies and the total: {}", good.text);
    assert!(good.scores().iter().all(|score| *score >= f32::from(MINIMUM)), "{}", good.text);
    assert_eq!(good.with("excepted"), BTreeSet::from(EXCEPTED));
    assert_eq!(good.with("unknown"), BTreeSet::new(), "{}", good.text);

    for fault in &FAULTS {
        (fault.plant)(&tree.root, flavour);
    }
    let bad = gate(&agent, &tree);
    let named: BTreeSet<&str> = bad.with("fail").difference(&good.with("fail")).copied().collect();
    let mut wanted = BTreeSet::new();
    for fault in &FAULTS {
        let own = match flavour {
            Flavour::Busybox => &[],
            Flavour::Systemd => fault.systemd,
        };
        for check in fault.both.iter().chain(own) {
            assert!(named.contains(check), "{}: {check} does not fail: {}", fault.what, bad.text);
            assert!(bad.text.contains(&format!("[{check}]")), "{check} is not in the report: {}", bad.text);
            assert!(wanted.insert(*check), "{check} is named for two faults");
        }
    }
    assert_eq!(named, wanted, "fails without a fault: {:?}", named.difference(&wanted));
    assert_eq!(bad.status, 1, "{}", bad.text);
    fs::remove_dir_all(&tree.root).unwrap();
}

#[test]
fn the_busybox_image_passes_and_its_bad_variant_does_not() {
    the_gate_tells_good_from_bad(Flavour::Busybox);
}

#[test]
fn the_systemd_image_passes_and_its_bad_variant_does_not() {
    the_gate_tells_good_from_bad(Flavour::Systemd);
}
