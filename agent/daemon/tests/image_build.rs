//! `agent/build-host/defender-image`, which Yocto's classes and Buildroot's hooks run on a finished root file system: what a good image
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
        let output = Command::new(top().join("agent/build-host/defender-image"))
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
fn an_enforced_profile_is_there_and_in_order() {
    let image = Image::new();
    image.write("etc/defender/conf.d/profile.toml", "[profile]\nenforce = \"alert\"\n");
    image.is_told(1, &["/etc/defender/profile.toml", "profile.enforce", "learn one"]);
    image.write("etc/defender/profile.toml", "version = 1\n\n[any]\nlogins = [\"operator dropbear\"]\n");
    assert_eq!(image.check(), (0, String::new()));
    image.write("etc/defender/profile.toml", "version = 1\n[any]\nlogin = []\n");
    image.is_told(2, &["/etc/defender/profile.toml:", "login"]);
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

/// A python function of the Yocto layer's classes, run on the image: whether its task would go on, and what it said.
fn yocto(image: &Image, function: &str, variables: &[&str]) -> (bool, String) {
    let native = image.0.path().join("native");
    for (from, to) in [
        (PathBuf::from(env!("CARGO_BIN_EXE_defender")), "bin/defender"),
        (top().join("agent/build-host/defender-image"), "bin/defender-image"),
        (
            top().join("meta-defender/recipes-kernel/linux/files/defender.cfg"),
            "share/defender/kernel-options.cfg",
        ),
    ] {
        let to = native.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    image.write("usr/bin/defender", "");
    fs::create_dir_all(image.0.path().join("deploy")).unwrap();
    let classes = ["defender-config", "defender-posture"];
    let of_the_image =
        [("IMAGE_ROOTFS", ""), ("STAGING_BINDIR_NATIVE", "/native/bin"), ("IMGDEPLOYDIR", "/deploy")];
    let output = Command::new("python3")
        .arg(top().join("tests/lib/bbclass_run.py"))
        .arg(function)
        .args(classes.map(|class| top().join(format!("meta-defender/classes-recipe/{class}.bbclass"))))
        .arg("--")
        .args(of_the_image.map(|(name, path)| format!("{name}={}{path}", image.0.path().display())))
        .args(["bindir=/usr/bin", "IMAGE_NAME=image-1", "IMAGE_LINK_NAME=image"])
        .args(variables)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn yoctos_class_fails_the_root_file_system_for_a_mistake() {
    let image = Image::new();
    assert_eq!(yocto(&image, "defender_config_check", &[]), (true, String::new()));
    image.write("etc/defender/conf.d/50-product.toml", "[response]\n\nblock_second = 60\n");
    for missing in ["fail", "warn"] {
        let (goes_on, said) =
            yocto(&image, "defender_config_check", &[&format!("DEFENDER_CONFIG_MISSING={missing}")]);
        assert!(!goes_on && said.starts_with("error: "), "{said}");
        assert!(said.contains("50-product.toml:3") && said.contains("block_second"), "{said}");
    }
    let image = Image::new();
    image.remove("usr/sbin/nft");
    let (goes_on, said) = yocto(&image, "defender_config_check", &["DEFENDER_CONFIG_MISSING=warn"]);
    assert!(goes_on && said.starts_with("warning: ") && said.contains("add nftables"), "{said}");
    let (goes_on, said) = yocto(&image, "defender_config_check", &[]);
    assert!(!goes_on && said.starts_with("error: ") && said.contains("add nftables"), "{said}");
    let (goes_on, said) = yocto(&image, "defender_config_check", &["DEFENDER_CONFIG_MISSING=maybe"]);
    assert!(!goes_on && said.contains("fail or warn, not 'maybe'"), "{said}");
    // No agent, nothing to check.
    let (goes_on, said) = yocto(&image, "defender_config_check", &["bindir=/opt/bin"]);
    assert!(goes_on && said.is_empty(), "{said}");
}

#[test]
fn yoctos_class_looks_at_the_kernels_options() {
    let image = Image::new();
    image.write("kernel.config", "CONFIG_NET=y\n");
    let named = format!("DEFENDER_KERNEL_CONFIG={}", image.0.path().join("kernel.config").display());
    let (goes_on, said) = yocto(&image, "defender_config_check", &[&named]);
    assert!(!goes_on && said.contains("CONFIG_AUDIT is off"), "{said}");
    let (goes_on, said) = yocto(&image, "defender_config_check", &["DEFENDER_KERNEL_CONFIG=/nonexistent"]);
    assert!(goes_on && said.starts_with("note: ") && said.contains("not checked"), "{said}");
}

#[test]
fn yoctos_class_grades_and_leaves_reports_beside_the_image() {
    let image = Image::new();
    let posture = |variables: &[&str]| {
        let mut all = vec!["DEFENDER_POSTURE_OPTIONS=--assume-root-owned"];
        all.extend(variables);
        yocto(&image, "defender_posture_gate", &all)
    };
    image.write("etc/passwd", "root::0:0:root:/root:/bin/sh\n");
    image.write("etc/shadow", "root::19000:0:99999:7:::\n");
    let (goes_on, said) = posture(&[]);
    assert!(
        !goes_on && said.starts_with("error: ") && said.contains("of severity high or above fail"),
        "{said}"
    );
    assert!(said.contains("deploy/image-1.posture.html"), "{said}");
    let (goes_on, said) = posture(&["DEFENDER_POSTURE_ACTION=warn", "DEFENDER_POSTURE_MIN_SCORE=100"]);
    assert!(goes_on && said.starts_with("warning: ") && said.contains("below 100"), "{said}");
    for ending in ["html", "json", "junit.xml"] {
        let link = image.0.path().join(format!("deploy/image.posture.{ending}"));
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(&format!("image-1.posture.{ending}")));
        assert!(fs::metadata(link).unwrap().len() > 1000, "{ending}");
    }
    let (goes_on, said) = posture(&["DEFENDER_POSTURE_FAIL_ON=", "DEFENDER_POSTURE_MIN_SCORE="]);
    assert!(goes_on && said.starts_with("note: "), "{said}");
    // A mistake is no matter of the bar.
    let (goes_on, said) = posture(&["DEFENDER_POSTURE_ACTION=warn", "DEFENDER_POSTURE_FAIL_ON=hihg"]);
    assert!(!goes_on && said.contains("hihg"), "{said}");
}
