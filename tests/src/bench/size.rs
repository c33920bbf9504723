//! Bytes of flash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::error::{Error, Result};
use crate::progress;

use super::table::{self, budget};
use super::Bench;

/// A release build of everything with link-time optimisation, on a slow machine.
const BUILD: Duration = Duration::from_secs(1800);

/// Prints the size of the stripped release binary; with `--features-matrix` also of builds without each cargo feature.
///
/// # Errors
/// When a build or `strip` fails.
pub fn run(bench: &Bench) -> Result<()> {
    let size = stripped(bench, &bench.options.agent)?;
    budget("stripped binary", size as f64 / 1_048_576.0, 4.0, "MiB");
    if !bench.options.features_matrix {
        return Ok(());
    }
    let features = features(bench)?.default;
    let mut rows = vec![vec!["build".to_owned(), "KiB".to_owned(), "difference".to_owned()]];
    let mut builds: Vec<(String, Vec<&str>)> =
        vec![("default".into(), features.iter().map(String::as_str).collect())];
    for without in &features {
        let rest = features.iter().map(String::as_str).filter(|other| other != without).collect();
        builds.push((format!("without {without}"), rest));
    }
    builds.push(("without all of them".into(), Vec::new()));
    let mut default = 0;
    for (name, chosen) in builds {
        let binary = progress::step(&format!("building {name}"), || build(bench, &chosen))?;
        let size = stripped(bench, &binary)?;
        if default == 0 {
            default = size;
        }
        let kib = |bytes: u64| bytes as i64 / 1024;
        rows.push(vec![name, kib(size).to_string(), format!("{:+}", kib(size) - kib(default))]);
    }
    table::print(&rows);
    Ok(())
}

fn stripped(bench: &Bench, binary: &Path) -> Result<u64> {
    let copy = bench.directory.join("stripped");
    command::run(Command::new("strip").arg("-o").arg(&copy).arg(binary), Duration::from_secs(60))?;
    let data = fs::metadata(&copy).map_err(Error::io(format!("cannot look at {}", copy.display())))?;
    progress::say(format_args!("size: {} stripped: {} bytes", binary.display(), data.len()));
    Ok(data.len())
}

/// Cargo features of the agent.
pub(super) struct Features {
    pub(super) default: Vec<String>,
    pub(super) all: Vec<String>,
}

/// From `cargo metadata`.
pub(super) fn features(bench: &Bench) -> Result<Features> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&bench.source).args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--locked",
        "--offline",
    ]);
    let text = command::run(&mut cargo, Duration::from_secs(60))?;
    let data: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| Error::Unexpected(format!("cargo metadata is not JSON: {error}")))?;
    let mut packages = data["packages"].as_array().into_iter().flatten();
    let agent = packages.find(|package| package["name"] == "defender");
    let features = agent.map(|package| &package["features"]);
    let default = features.and_then(|features| features["default"].as_array());
    let all = features.and_then(|features| features.as_object());
    Ok(Features {
        default: default.into_iter().flatten().filter_map(|name| name.as_str().map(String::from)).collect(),
        all: all.into_iter().flat_map(|all| all.keys().cloned()).filter(|name| name != "default").collect(),
    })
}

pub(super) fn build(bench: &Bench, features: &[&str]) -> Result<PathBuf> {
    let target =
        bench.options.agent.parent().and_then(Path::parent).unwrap_or(&bench.source).join("features");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&bench.source).args([
        "build",
        "--release",
        "--locked",
        "-p",
        "defender",
        "--no-default-features",
    ]);
    cargo.arg("--features").arg(features.join(",")).arg("--target-dir").arg(&target);
    command::run(&mut cargo, BUILD)?;
    Ok(target.join("release/defender"))
}
