//! `build-host/defender-image`, which Yocto's classes and Buildroot's hooks run on a finished root file system: what a good image
//! passes with, and the sentence each mistake is met with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A root file system as the packages would leave it, with the programs it needs.
struct Image(tempfile::TempDir);

impl Image {
    fn new() -> Self {
        let image = Self(tempfile::tempdir().unwrap());
        let copied = Command::new("cp")
            .args(["-a"])
            .arg(top().join("rootfs-overlay/."))
            .arg(image.0.path())
            .status()
            .unwrap();
        assert!(copied.success());
        image.write("usr/sbin/nft", "");
        image.write("usr/bin/dbus-daemon", "");
        image
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    /// Exit code and what went to standard error.
    fn run(&self, command: &str, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(top().join("build-host/defender-image"))
            .arg(command)
            .arg(self.0.path())
            .args(arguments)
            .env("DEFENDER", env!("CARGO_BIN_EXE_defender"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn check(&self) -> (i32, String) {
        self.run("check", &[])
    }

    /// The check finds exactly one thing, and says all of `words` about it.
    fn is_told(&self, code: i32, words: &[&str]) {
        let (status, told) = self.check();
        assert_eq!((status, told.lines().count()), (code, 1), "{told}");
        for word in words {
            assert!(told.contains(word), "{word:?} is not in: {told}");
        }
    }
}

#[test]
fn an_image_in_order_passes() {
    assert_eq!(Image::new().check(), (0, String::new()));
}

#[test]
fn a_mistake_in_the_configuration_is_named_by_file_line_and_key() {
    let image = Image::new();
    image.write("etc/defender/conf.d/50-product.toml", "[response]\n\nblock_second = 60\n");
    image.is_told(2, &["/etc/defender/conf.d/50-product.toml:3: ", "`block_second`", "`block_seconds`"]);
}

#[test]
fn a_rule_that_does_not_parse_is_named_by_file_and_line() {
    let image = Image::new();
    image.write(
        "etc/defender/rules/product.yml",
        "title: Product\nlogsource: {category: process_creation}\ndetection:\n  condition: nothing\n",
    );
    image.is_told(2, &["/etc/defender/rules/product.yml:", "Product"]);
}

#[test]
fn rules_are_those_of_the_configured_directories_and_may_lie_behind_links() {
    let image = Image::new();
    image.write("etc/defender/conf.d/rules.toml", "[rules]\ndirectories = [\"/opt/rules\"]\n");
    image.is_told(1, &["rules.directories"]);
    fs::create_dir_all(image.0.path().join("opt")).unwrap();
    symlink("/usr/share/defender/rules", image.0.path().join("opt/rules")).unwrap();
    assert_eq!(image.check(), (0, String::new()));
}

#[test]
fn a_policy_that_does_not_parse_is_named() {
    let image = Image::new();
    image.write(
        "etc/defender/policies/product.toml",
        "[policy]\nid = \"product\"\ntitle = \"P\"\nversion = \"1\"\nlevel = 3\n",
    );
    image.is_told(2, &["/etc/defender/policies/product.toml:5", "level"]);
}

#[test]
fn what_the_configuration_asks_for_must_be_in_the_image() {
    let image = Image::new();
    image.remove("etc/defender/defender.toml");
    image.is_told(1, &["/etc/defender/defender.toml", "install"]);

    let image = Image::new();
    image.remove("usr/sbin/nft");
    let (status, told) = image.check();
    assert_eq!(status, 1);
    assert!(told.contains("response.enabled = false") && told.contains("add nftables"), "{told}");
    image.write("etc/defender/conf.d/no-response.toml", "[response]\nenabled = false\n");
    image.is_told(1, &["base firewall", "leave the base firewall out"]);
    image.remove("usr/libexec/defender/firewall");
    assert_eq!(image.check(), (0, String::new()));

    let image = Image::new();
    image.remove("usr/bin/dbus-daemon");
    image.is_told(1, &["dbus.enabled = false"]);
    // An agent without D-Bus comes without its policy.
    image.remove("usr/share/dbus-1/system.d/org.defender.Agent1.conf");
    assert_eq!(image.check(), (0, String::new()));
}

#[test]
fn a_read_only_root_needs_a_place_to_write() {
    let image = Image::new();
    image.write("etc/fstab", "/dev/root / auto ro 0 0\ntmpfs /run tmpfs mode=0755 0 0\n");
    image.is_told(1, &["/var/lib/defender", "read-only", "agent.state_dir"]);
    for way in ["fstab", "unit", "volatile", "link"] {
        let image = Image::new();
        image.write("etc/fstab", "/dev/root / auto ro 0 0\n");
        match way {
            "fstab" => image.write("etc/fstab", "/dev/root / auto ro 0 0\n/dev/vdb /var ext4 rw 0 0\n"),
            "unit" => image.write("usr/lib/systemd/system/var-lib.mount", ""),
            // Yocto's volatile-binds.
            "volatile" => image.write("usr/lib/systemd/system/var-volatile-lib.service", ""),
            _ => {
                fs::create_dir_all(image.0.path().join("var")).unwrap();
                symlink("/data/lib", image.0.path().join("var/lib")).unwrap();
            }
        }
        assert_eq!(image.check(), (0, String::new()), "{way}");
    }
}

#[test]
fn a_missing_kernel_option_is_named_with_what_it_costs() {
    let image = Image::new();
    let options =
        fs::read_to_string(top().join("meta-defender/recipes-kernel/linux/files/defender.cfg")).unwrap();
    // As modules they do as well.
    image.write("config", &options.replace("=y", "=m"));
    let config = image.0.path().join("config");
    let arguments = ["--kernel-config", config.to_str().unwrap()];
    assert_eq!(image.run("check", &arguments), (0, String::new()));
    image.write("config", &options.replace("CONFIG_AUDIT=y", "# CONFIG_AUDIT is not set"));
    let (status, told) = image.run("check", &arguments);
    assert_eq!((status, told.lines().count()), (1, 1), "{told}");
    assert!(told.contains("CONFIG_AUDIT is off") && told.contains("proc connector"), "{told}");
    let (status, told) = image.run("check", &["--kernel-config", "/nonexistent"]);
    assert_eq!(status, 3, "{told}");
}

#[test]
fn the_posture_gate_writes_its_reports_and_answers() {
    let image = Image::new();
    let reports = image.0.path().join("gate");
    let gate = |options: &[&str]| {
        let mut arguments = vec![reports.to_str().unwrap(), "--assume-root-owned"];
        arguments.extend(options);
        image.run("posture", &arguments)
    };
    let (status, told) = gate(&[]);
    assert_eq!(status, 0, "{told}");
    for (ending, begins) in [("html", "<!"), ("json", "{"), ("junit.xml", "<?xml")] {
        let report = fs::read_to_string(format!("{}.{ending}", reports.display())).unwrap();
        assert!(report.to_lowercase().starts_with(begins), "{ending}: {report:.60}");
    }
    image.write("etc/passwd", "root::0:0:root:/root:/bin/sh\n");
    image.write("etc/shadow", "root::19000:0:99999:7:::\n");
    let (status, told) = gate(&["--fail-on", "critical"]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("of severity critical or above fail: "), "{told}");
    image.write("etc/defender/conf.d/a.toml", "[nonsense]\n");
    let (status, told) = gate(&[]);
    assert_eq!(status, 2, "{told}");
    assert!(told.contains("a.toml:1"), "{told}");
}

#[test]
fn usage_is_told() {
    let image = Image::new();
    for (command, arguments) in [
        ("nonsense", &[][..]),
        ("check", &["--nonsense", "x"]),
        ("check", &["--kernel-config"]),
        ("posture", &[]),
    ] {
        let (status, told) = image.run(command, arguments);
        assert_eq!(status, 2, "{command} {arguments:?}: {told}");
    }
}
