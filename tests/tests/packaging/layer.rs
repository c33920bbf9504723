//! The Yocto layer as its reviewers' tools see it, without an upstream tree: what `yocto-check-layer` looks for in the files, oelint-adv,
//! kas.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use defender_validation::python::environment;

use crate::{read, top};

/// Files of the layer with one of these endings, in order.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![top().join("meta-defender")]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("directory of the layer") {
            let path = entry.expect("directory entry").path();
            if path.is_dir() {
                left.push(path);
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_layer_says_what_check_layer_asks_for() {
    let readme = read("meta-defender/README.md").to_lowercase();
    for word in ["maintainer", "patch", "@"] {
        assert!(readme.contains(word), "meta-defender/README.md: no {word:?}");
    }
    assert!(!read("meta-defender/SECURITY.md").is_empty());
    let layer = read("meta-defender/conf/layer.conf");
    assert!(layer.contains("LAYERSERIES_COMPAT_defender = \"wrynose"), "{layer}");
    assert!(layer.contains("LAYERDEPENDS_defender = \"core\""), "{layer}");
    // What would change another layer's recipes without being asked. Our own may be appended to where another layer is there.
    let ours = |append: &PathBuf| append.ends_with("recipes-security/defender/defender_%.bbappend");
    for append in files(&[".bbappend"]).iter().filter(|append| !ours(append)) {
        let text = fs::read_to_string(append).expect("bbappend");
        let lines: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
        assert!(
            matches!(lines[..], [line] if line.starts_with("include ${@bb.utils.contains('DISTRO_FEATURES', 'defender',")),
            "{}: more than one include behind the feature",
            append.display()
        );
    }
    let patches = files(&[".patch"]);
    for patch in patches {
        let text = fs::read_to_string(&patch).expect("patch");
        assert!(text.contains("Upstream-Status:"), "{}: no Upstream-Status", patch.display());
    }
}

#[test]
fn dynamic_layers_name_their_layer() {
    let layer = read("meta-defender/conf/layer.conf");
    let directory = top().join("meta-defender/dynamic-layers");
    for entry in fs::read_dir(directory).expect("dynamic layers") {
        let name = entry.expect("directory entry").file_name().to_string_lossy().into_owned();
        let line = format!("{name}:${{LAYERDIR}}/dynamic-layers/{name}/");
        assert!(layer.contains(&line), "conf/layer.conf: no {line} in BBFILES_DYNAMIC");
        let recommended =
            layer.lines().find(|line| line.starts_with("LAYERRECOMMENDS_defender")).expect("LAYERRECOMMENDS");
        assert!(recommended.contains(&name), "LAYERRECOMMENDS lacks {name}");
    }
}

#[test]
fn oelint_finds_nothing() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(python) = environment(directory, "oelint", &["oelint-adv==9.11.2"]) else { return };
    let output = Command::new(python.with_file_name("oelint-adv"))
        // The home page is not there yet; oe-core's own classes have dashes in their names, too; image features are not known to it.
        .args([
            "--quiet",
            "--suppress",
            "oelint.vars.homepageping",
            "--suppress",
            "oelint.bbclass.underscores",
        ])
        .args(["--suppress", "oelint.vars.mispell", "--suppress", "oelint.vars.mispell.unknown"])
        .args(files(&[".bb", ".bbappend", ".inc", ".bbclass"]))
        .stdin(Stdio::null())
        .output()
        .expect("oelint-adv");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let found: Vec<_> =
        said.lines().filter(|line| line.contains(":error:") || line.contains(":warning:")).collect();
    assert!(found.is_empty(), "{found:#?}");
    // It has looked: of hints there are always some.
    assert!(said.contains(":info:"), "oelint-adv said nothing: {said}");
}

#[test]
fn kas_files_are_valid() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if !top().join(".git").exists() {
        println!("skipped: kas resolves includes in a git checkout only");
        return;
    }
    let Some(python) = environment(directory, "kas", &["kas==5.5"]) else { return };
    let boards = ["qemux86-64", "qemuarm64", "qemuarm"];
    let output = Command::new(python)
        .arg(top().join("tests/lib/kas_valid.py"))
        .arg(top())
        .args(boards.map(|board| top().join(format!("meta-defender/kas/{board}.yml"))))
        .stdin(Stdio::null())
        .output()
        .expect("kas");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for (board, line) in boards.iter().zip(said.lines()) {
        assert_eq!(
            line,
            format!("{board} nodistro defender-image defender bitbake openembedded-core meta-openembedded")
        );
    }
    assert_eq!(said.lines().count(), boards.len());
}
