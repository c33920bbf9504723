//! The workspace is what docs/architecture.md says: crates, the direction of their dependencies, the minimum Rust version.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn metadata() -> Value {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo runs: it built this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn crates_depend_in_the_direction_of_the_design() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = [
        ("defender-model", vec![]),
        ("defender-detect", vec!["defender-model"]),
        ("defender-posture", vec!["defender-model"]),
        ("defender-sensors", vec!["defender-model"]),
        ("defender-firewall", vec!["defender-model"]),
        ("defender-report", vec!["defender-model"]),
        (
            "defender",
            vec![
                "defender-model",
                "defender-detect",
                "defender-posture",
                "defender-sensors",
                "defender-firewall",
                "defender-report",
            ],
        ),
        // The harness drives the agent from outside; for its tests it may speak the agent's vocabulary.
        (
            "defender-validation",
            vec!["defender-model", "defender-detect", "defender-posture", "defender-report"],
        ),
    ]
    .into_iter()
    .map(|(name, dependencies)| (name, dependencies.into_iter().collect()))
    .collect();
    let metadata = metadata();
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut found = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        if !members.contains(text(package, "id")) {
            continue;
        }
        let name = text(package, "name");
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("crate {name} is not in the design: docs/architecture.md"));
        found.insert(name);
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = text(dependency, "name");
            let ours = allowed.contains_key(on);
            assert!(!ours || may.contains(on), "{name} depends on {on}, against the direction of the design");
        }
    }
    assert_eq!(found, allowed.keys().copied().collect(), "crates missing from the workspace");
}

#[test]
fn model_detection_and_posture_touch_neither_sockets_nor_clocks_nor_threads() {
    let forbidden = [
        "std::net::Tcp",
        "std::net::Udp",
        "std::os::unix::net",
        "std::fs",
        "std::thread",
        "SystemTime",
        "Instant::now",
        "tokio",
    ];
    // The posture reads the directory it judges, and is like the others in all else.
    for crate_name in ["model", "detect", "posture"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent").join(crate_name).join("src");
        let mut stack = vec![source];
        let mut files = 0;
        while let Some(directory) = stack.pop() {
            for entry in std::fs::read_dir(&directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    stack.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs")
                    && path.file_name().is_some_and(|name| name != "tests.rs")
                {
                    files += 1;
                    let code = std::fs::read_to_string(&path).unwrap();
                    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
                    for word in forbidden.iter().filter(|word| crate_name != "posture" || **word != "std::fs")
                    {
                        assert!(!code.contains(word), "{} uses {word}", path.display());
                    }
                }
            }
        }
        assert!(files > 3, "no source found for {crate_name}");
    }
}

#[test]
fn no_locked_package_asks_for_a_newer_rust() {
    let metadata = metadata();
    let version = |text: &str| -> (u32, u32) {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or_default());
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    };
    let ours = metadata["packages"].as_array().unwrap();
    let minimum = ours
        .iter()
        .find(|package| text(package, "name") == "defender")
        .map(|p| version(text(p, "rust_version")));
    let minimum = minimum.expect("the agent states its rust-version");
    let newer: Vec<String> = ours
        .iter()
        .filter(|package| version(text(package, "rust_version")) > minimum)
        .map(|p| format!("{} {} wants Rust {}", text(p, "name"), text(p, "version"), text(p, "rust_version")))
        .collect();
    assert!(newer.is_empty(), "{newer:?}");
    let clippy =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../clippy.toml")).unwrap();
    assert!(
        clippy.contains(&format!("msrv = \"{}.{}\"", minimum.0, minimum.1)),
        "clippy.toml states another msrv"
    );
}

#[test]
fn the_top_level_is_what_the_design_lists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new("git").args(["ls-files", "--cached"]).current_dir(&root).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        println!("skipped: not a git checkout");
        return;
    };
    let listed = String::from_utf8(output.stdout).unwrap();
    let top: BTreeSet<&str> = listed.lines().filter_map(|path| path.split('/').next()).collect();
    let expected: BTreeSet<&str> = [
        "agent",
        "meta-defender",
        "buildroot-package",
        "rootfs-overlay",
        "tests",
        "docs",
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        ".ci",
        ".cargo",
        ".gitignore",
        "clippy.toml",
        "rustfmt.toml",
        "deny.toml",
    ]
    .into();
    assert_eq!(top.difference(&expected).collect::<Vec<_>>(), Vec::<&&str>::new(), "not in the design");
    assert_eq!(expected.difference(&top).collect::<Vec<_>>(), Vec::<&&str>::new(), "missing");
}
