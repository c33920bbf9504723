//! Lists that are written down twice: locked crates, reasons for dependencies, kernel options.

use std::collections::BTreeSet;

use crate::read;

/// Name, version and checksum of every locked package that comes from a registry.
fn locked_crates() -> BTreeSet<(String, String, String)> {
    let lock = read("Cargo.lock");
    let mut crates = BTreeSet::new();
    for block in lock.split("[[package]]").skip(1) {
        let field = |key: &str| {
            let start = format!("{key} = \"");
            let line = block.lines().find_map(|line| line.strip_prefix(&start))?;
            Some(line.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            crates.insert((name, version, checksum));
        }
    }
    crates
}

#[test]
fn yocto_crates_are_those_of_the_lock_file() {
    let inc = read("meta-defender/recipes-security/defender/defender-crates.inc");
    let mut uris = BTreeSet::new();
    let mut sums = BTreeSet::new();
    for line in inc.lines().map(str::trim) {
        if let Some(uri) = line.strip_prefix("crate://crates.io/") {
            uris.insert(uri.trim_end_matches(" \\").replace('/', "-"));
        } else if let Some(sum) = line.strip_prefix("SRC_URI[") {
            sums.insert(sum.replace(".sha256sum] = \"", " ").trim_end_matches('"').to_owned());
        }
    }
    let crates = locked_crates();
    assert!(crates.len() > 50, "Cargo.lock was not understood: {} crates", crates.len());
    let wanted_uris: BTreeSet<_> =
        crates.iter().map(|(name, version, _)| format!("{name}-{version}")).collect();
    let wanted_sums: BTreeSet<_> =
        crates.iter().map(|(name, version, sum)| format!("{name}-{version} {sum}")).collect();
    let differ: Vec<_> =
        uris.symmetric_difference(&wanted_uris).chain(sums.symmetric_difference(&wanted_sums)).collect();
    assert!(
        differ.is_empty(),
        "run meta-defender/scripts/update-crates; in only one of the two: {differ:#?}"
    );
}

#[test]
fn buildroot_knows_the_licence_file() {
    let output = crate::run(std::process::Command::new("sha256sum").arg(crate::top().join("LICENSE")));
    let sum = String::from_utf8_lossy(&output.stdout).split(' ').next().expect("sum").to_owned();
    let hashes = read("buildroot-package/package/defender/defender.hash");
    assert!(hashes.contains(&format!("sha256  {sum}  LICENSE\n")), "defender.hash is not of this LICENSE");
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .expect("section")
        .split("\n[")
        .next()
        .expect("section");
    let names: Vec<_> = section
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("path ="))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name.trim()))
        .collect();
    assert!(names.len() > 10, "section was not understood: {names:?}");
    let documented = read("docs/dependencies.md");
    for name in names {
        let line = documented.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        assert!(
            line.is_some_and(|line| line.len() > name.len() + 30),
            "docs/dependencies.md: no reason for {name}"
        );
    }
}

#[test]
fn kernel_options_are_one_set() {
    let yocto: BTreeSet<String> = read("meta-defender/recipes-kernel/linux/files/defender.cfg")
        .lines()
        .filter_map(|line| line.strip_suffix("=y").map(str::to_owned))
        .collect();
    let buildroot: BTreeSet<String> = read("buildroot-package/package/defender/defender.mk")
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("$(call KCONFIG_ENABLE_OPT,")?.strip_suffix(')').map(str::to_owned)
        })
        .collect();
    let documented: BTreeSet<String> = read("docs/yocto.md")
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `CONFIG_")?.split_once('`').map(|(name, _)| format!("CONFIG_{name}"))
        })
        .collect();
    assert!(yocto.len() > 10, "defender.cfg was not understood: {yocto:?}");
    assert_eq!(yocto, buildroot, "defender.cfg and defender.mk differ");
    assert_eq!(yocto, documented, "defender.cfg and the table of docs/yocto.md differ");
}

#[test]
fn kernel_options_have_the_same_reasons_everywhere() {
    let plain = |cell: &str| cell.trim().replace('`', "");
    let documented: Vec<[String; 3]> = read("docs/yocto.md")
        .lines()
        .filter(|line| line.starts_with("| `CONFIG_"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(plain).collect();
            cells.try_into().unwrap_or_else(|_| panic!("docs/yocto.md: not three cells: {line}"))
        })
        .collect();
    let (mut fragment, mut reasons) = (Vec::new(), Vec::new());
    for line in read("meta-defender/recipes-kernel/linux/files/defender.cfg").lines() {
        if let Some(reason) = line.strip_prefix("# For: ").or_else(|| line.strip_prefix("# Without it: ")) {
            reasons.push(reason.to_owned());
        } else if let Some(option) = line.strip_suffix("=y") {
            let [purpose, price] = std::mem::take(&mut reasons)
                .try_into()
                .unwrap_or_else(|_| panic!("defender.cfg: not two comments before {option}"));
            fragment.push([option.to_owned(), purpose, price]);
        }
    }
    assert_eq!(fragment, documented, "defender.cfg (left) and the table of docs/yocto.md differ");
}
