//! The overlay as the Yocto recipe and the Buildroot package install it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{have, read, read_bytes, run, top, tree, Scratch};

/// What the Yocto recipe's install function puts into an image.
fn yocto_installs(source: &Path, scratch: &Scratch, init: &str, dbus: bool) -> BTreeMap<String, u32> {
    let target = scratch.join(&format!("yocto-{init}-{dbus}"));
    fs::create_dir_all(&target).expect("target directory");
    // The configuration is a recipe of its own, for a product to replace.
    for (recipe, function) in
        [("defender", "defender_install_overlay ()"), ("defender-config", "do_install ()")]
    {
        let body = shell_function(recipe, function);
        // The machine this runs on has no such group.
        let body = body.replace("chown -R root:defender", ": chown -R root:defender");
        // bitbake would put these variables' values in; to the shell they look the same.
        run(Command::new("sh")
            .args(["-euc", &body])
            .env("S", source)
            .env("D", &target)
            .env("sysconfdir", "/etc")
            .env("DEFENDER_INIT", init)
            .env("PACKAGECONFIG", if dbus { "dbus mqtt tls" } else { "mqtt tls" }));
    }
    tree(&target)
}

/// The body of a shell function of one of our recipes.
fn shell_function(recipe: &str, function: &str) -> String {
    let text = read(&format!("meta-defender/recipes-security/defender/{recipe}_0.1.0.bb"));
    let body = text.split_once(&format!("\n{function} {{\n")).expect("install function").1;
    body.split_once("\n}\n").expect("end of install function").0.to_owned()
}

/// Options of the Buildroot package that leave files out when they are off.
const OPTIONS: [&str; 6] = ["DBUS", "FIREWALL", "HARDENING", "RULES", "POLICIES", "STRICT"];

/// What the Buildroot package's install hooks put into an image with all options but these.
fn buildroot_installs(source: &Path, scratch: &Scratch, init: &str, off: &[&str]) -> BTreeMap<String, u32> {
    let target = scratch.join(&format!("buildroot-{init}-{}", off.join("-")));
    fs::create_dir_all(&target).expect("target directory");
    let options: String = OPTIONS
        .iter()
        .filter(|option| !off.contains(option))
        .map(|option| format!("BR2_PACKAGE_DEFENDER_{option} = y\n"))
        .collect();
    let makefile = format!(
        "INSTALL = install\nTARGET_DIR = {target}\nBR2_EXTERNAL_DEFENDER_PATH = {external}\n\
         {options}cargo-package =\nhost-cargo-package =\ninclude {external}/package/defender/defender.mk\n\
         {source}/install:\n\t$(DEFENDER_INSTALL_OVERLAY)\n\t$(DEFENDER_INSTALL_INIT_{init})\n",
        target = target.display(),
        external = top().join("buildroot-package").display(),
        source = source.display(),
        init = if init == "systemd" { "SYSTEMD" } else { "SYSV" },
    );
    let file = scratch.join("Makefile");
    fs::write(&file, makefile).expect("makefile");
    run(Command::new("make").args(["-s", "-f"]).arg(&file).arg(source.join("install")));
    tree(&target)
}

/// Buildroot orders init scripts by name, Yocto by links.
fn without_start_order(files: BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let name = |path: String| match path.strip_prefix("etc/init.d/S") {
        Some(script) => format!("etc/init.d/{}", script.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => path,
    };
    files.into_iter().map(|(path, mode)| (name(path), mode)).collect()
}

#[test]
fn both_installers_install_the_whole_overlay() {
    if !have("make", "Buildroot's install hooks") {
        return;
    }
    let scratch = Scratch::new("install");
    let source = scratch.join("source");
    fs::create_dir_all(&source).expect("source directory");
    run(Command::new("cp").arg("-a").arg(top().join("rootfs-overlay")).arg(&source));
    // A file nobody has heard of, as a new rule would be, in a place with a space in its name.
    fs::create_dir_all(source.join("rootfs-overlay/usr/share/defender/rules/new rules")).expect("directory");
    fs::write(source.join("rootfs-overlay/usr/share/defender/rules/new rules/a.yml"), "title: a\n")
        .expect("file");

    let mut installed = BTreeSet::new();
    for init in ["systemd", "sysvinit"] {
        let yocto = yocto_installs(&source, &scratch, init, true);
        let buildroot = buildroot_installs(&source, &scratch, init, &[]);
        installed.extend(buildroot.keys().cloned());
        assert_eq!(
            yocto,
            without_start_order(buildroot),
            "{init}: Yocto (left) and Buildroot (right) install differently"
        );
        assert!(yocto.contains_key("usr/share/defender/rules/new rules/a.yml"));
        let (unit, script) = ("usr/lib/systemd/system/defender.service", "etc/init.d/defender");
        assert_eq!(yocto.contains_key(unit), init == "systemd");
        assert_eq!(yocto.contains_key(script), init == "sysvinit");

        let yocto = yocto_installs(&source, &scratch, init, false);
        let buildroot = without_start_order(buildroot_installs(&source, &scratch, init, &["DBUS"]));
        assert_eq!(yocto, buildroot, "{init} without D-Bus");
        assert!(!yocto.keys().any(|path| path.contains("dbus-1")), "{init}: D-Bus files without D-Bus");
        let left_out: [(&str, &[&str]); 5] = [
            (
                "FIREWALL",
                &[
                    "defender/nftables/",
                    "init.d/S35defender-firewall",
                    "libexec/defender/firewall",
                    "-firewall.service",
                ],
            ),
            ("HARDENING", &["etc/ssh/", "usr/lib/sysctl.d/"]),
            ("RULES", &["share/defender/rules/"]),
            ("POLICIES", &["share/defender/policies/"]),
            ("STRICT", &["defender.service.d/"]),
        ];
        for (option, patterns) in left_out {
            let mut expected = buildroot_installs(&source, &scratch, init, &[]);
            let all = expected.len();
            expected.retain(|path, _| !patterns.iter().any(|pattern| path.contains(pattern)));
            let of_this_init = option != "STRICT" || init == "systemd";
            assert_eq!(expected.len() < all, of_this_init, "{option}: leaves nothing out");
            let bare = buildroot_installs(&source, &scratch, init, &[option]);
            assert_eq!(bare, expected, "{init} without {option}");
        }
    }
    let mut overlay: BTreeSet<_> = tree(&source.join("rootfs-overlay")).into_keys().collect();
    // The rules' and policies' own tests stay on the build machine.
    overlay.retain(|path| ![".tests.yaml", ".tests.toml"].iter().any(|ending| path.ends_with(ending)));
    assert_eq!(installed, overlay, "files of rootfs-overlay/ that no image gets, or the other way round");
}

/// Directories of `/etc/defender` that a product fills.
fn made_directories(command: &str) -> BTreeSet<String> {
    command.split([';', '\n']).next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn both_installers_make_the_directories_a_product_fills() {
    let recipe = shell_function("defender", "do_install ()");
    let yocto = made_directories(recipe.split_once("for directory in ").expect("loop over directories").1);
    let package = read("buildroot-package/package/defender/defender.mk");
    let buildroot = made_directories(package.split_once("/etc/defender && mkdir -p ").expect("mkdir").1);
    assert_eq!(yocto, buildroot);
    // What the agent reads by default is there to be filled.
    let default = read("rootfs-overlay/etc/defender/defender.toml");
    for line in default.lines().filter(|line| line.starts_with("#directories = ")) {
        let name = line.rsplit("\"/etc/defender/").next().and_then(|rest| rest.split('"').next());
        assert!(name.is_some_and(|name| yocto.contains(name)), "{line}: no installer makes it");
    }
    assert!(yocto.contains("conf.d"));
}

#[test]
fn modes_are_what_the_device_needs() {
    for (path, mode) in tree(&top().join("rootfs-overlay")) {
        let program = read_bytes(&path).starts_with(b"#!");
        assert_eq!(
            mode & 0o111 != 0,
            program,
            "{path}: mode {mode:o}; programs are executable and nothing else is"
        );
    }
}

#[test]
fn the_recipe_takes_all_the_source_it_needs() {
    let listed = read("meta-defender/recipes-security/defender/defender-source-tree.inc");
    let entries: Vec<_> = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("file://")?.split(';').next().map(str::to_owned))
        .collect();
    assert!(entries.len() > 3, "SRC_URI was not understood: {entries:?}");
    let scratch = Scratch::new("source");
    for entry in &entries {
        let target = scratch.join(entry);
        fs::create_dir_all(target.parent().expect("below the scratch directory")).expect("directory");
        run(Command::new("cp").arg("-a").arg(top().join(entry)).arg(&target));
    }
    // Reads every manifest of the workspace and looks for the files of every target.
    run(Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(scratch.join("Cargo.toml")));
}
