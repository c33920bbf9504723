//! What Buildroot's hooks do with the answers of `defender-image`, which has its own tests beside the agent's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::{have, top, Scratch};

/// Buildroot's way of turning a hook into lines of the script it runs under fakeroot (support/misc/utils.mk, fs/common.mk).
const FAKEROOT_SCRIPT: &str = r#"
define sep


endef
PERCENT = %
QUOTE = '
qstrip = $(strip $(subst ",,$(1)))
PRINTF = printf '$(subst $(sep),\n,$(subst $(PERCENT),$(PERCENT)$(PERCENT),$(subst $(QUOTE),$(QUOTE)\$(QUOTE)$(QUOTE),$(subst \,\\,$(1)))))\n'
script:
	echo 'set -e' >$(SCRIPT)
	$(foreach hook,$(DEFENDER_ROOTFS_PRE_CMD_HOOKS),$(call PRINTF,$($(hook))) >>$(SCRIPT)$(sep))
"#;

/// Runs the hooks with a program that answers `code` to the posture, and with lines of a `.config`.
fn hooks(scratch: &Scratch, code: i32, config: &str) -> (Output, String) {
    let (log, script) = (scratch.join("log"), scratch.join("fakeroot-script"));
    let _ = fs::remove_file(&log);
    for directory in ["host/bin", "target/etc/defender/conf.d"] {
        fs::create_dir_all(scratch.join(directory)).expect("directory");
    }
    let program = scratch.join("host/bin/defender-image");
    let text = format!("#!/bin/sh\necho \"$*\" >>{}\n[ \"$1\" = check ] || exit {code}\n", log.display());
    fs::write(&program, text).expect("program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("program");
    let makefile = format!(
        "HOST_DIR = {host}\nTARGET_DIR = {target}\nBINARIES_DIR = /images\nLINUX_DIR = /linux\nSCRIPT = {script}\n\
         BR2_EXTERNAL_DEFENDER_PATH = {external}\nBR2_PACKAGE_DEFENDER_CHECK = y\n{config}\n\
         cargo-package =\nhost-cargo-package =\n{FAKEROOT_SCRIPT}include {external}/package/defender/defender.mk\n",
        host = scratch.join("host").display(),
        target = scratch.join("target").display(),
        script = script.display(),
        external = top().join("buildroot-package").display(),
    );
    let file = scratch.join("Makefile");
    fs::write(&file, makefile).expect("makefile");
    crate::run(Command::new("make").args(["-s", "-f"]).arg(&file).arg("script"));
    let output = Command::new("sh").arg(&script).stdin(Stdio::null()).output().expect("sh");
    (output, fs::read_to_string(&log).unwrap_or_default())
}

#[test]
fn buildroot_fails_or_warns_as_configured() {
    if !have("make", "Buildroot's hooks on a finished root file system") {
        return;
    }
    let scratch = Scratch::new("gate");
    let warn =
        "BR2_PACKAGE_DEFENDER_POSTURE_WARN = y\nBR2_PACKAGE_DEFENDER_POSTURE_OPTIONS = \"--fail-on high\"";
    let fail =
        "BR2_PACKAGE_DEFENDER_POSTURE_FAIL = y\nBR2_PACKAGE_DEFENDER_POSTURE_OPTIONS = \"--min-score 80\"";
    let off = "BR2_PACKAGE_DEFENDER_POSTURE_OFF = y\nBR2_LINUX_KERNEL = y";
    for (config, code, passes) in [
        (warn, 0, true),
        (warn, 1, true),
        (warn, 2, false),
        (warn, 3, false),
        (fail, 0, true),
        (fail, 1, false),
        (off, 1, true),
    ] {
        let (output, log) = hooks(&scratch, code, config);
        assert_eq!(output.status.success(), passes, "{config}, answer {code}: {output:?}");
        let log = log.replace(&scratch.join("target").display().to_string(), "/target");
        let lines: Vec<_> = log.lines().collect();
        let expected = match config {
            _ if config == off => vec!["check /target --kernel-config /linux/.config"],
            _ if config == warn => vec!["check /target", "posture /target /images/posture --fail-on high"],
            _ => vec!["check /target", "posture /target /images/posture --min-score 80"],
        };
        assert_eq!(lines, expected);
    }
}

#[test]
fn buildroot_lets_nobody_read_a_products_drop_ins() {
    if !have("make", "Buildroot's hooks on a finished root file system") {
        return;
    }
    let scratch = Scratch::new("credentials");
    let directory = scratch.join("target/etc/defender/conf.d");
    fs::create_dir_all(&directory).expect("directory");
    // As Buildroot copies a root file system overlay: go=rX.
    let file = directory.join("50-product.toml");
    fs::write(&file, "").expect("file");
    for (path, mode) in [(&file, 0o644), (&directory, 0o755), (&scratch.join("target/etc/defender"), 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }
    hooks(&scratch, 0, "BR2_PACKAGE_DEFENDER_POSTURE_OFF = y");
    for (path, mode) in [(&file, 0o640), (&directory, 0o750), (&scratch.join("target/etc/defender"), 0o750)] {
        let found = fs::metadata(path).expect("metadata").permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{}: {found:o}", path.display());
    }
}
