//! `sbom`.

use std::io::Write;
use std::path::{Path, PathBuf};

use defender_model::text::printable;
use defender_posture::sbom::{cyclonedx, inventory, Inventory};
use defender_posture::Root;
use serde_json::Value;

use super::arguments::Given;
use super::{complain, configuration, query, Failure, Outcome, Streams, CONFIGURATION};
use crate::config::load::{load, load_image};
use crate::small_file;

/// Longest manifest that is read, in bytes.
const LIMIT: u64 = 64 << 20;

/// Writes the bill of materials of a root directory.
pub(super) fn write(given: &Given, streams: &mut Streams<'_>) -> Result<Outcome, Failure> {
    let options = &given.posture;
    let place = options.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let root = Root::open(&place)
        .map_err(|error| Failure::failed(format!("cannot open the root {}: {error}", place.display())))?;
    let manifest = manifest(given, &root)?;
    let mut answer = Vec::new();
    let outcome = match &manifest {
        Some((from, bytes)) if bytes.trim_ascii_start().starts_with(b"{") => {
            // The image's own: whoever built it knows best.
            let _: Value = serde_json::from_slice(bytes)
                .map_err(|error| Failure::usage(format!("{from}: no bill of materials: {error}")))?;
            answer.extend_from_slice(bytes);
            Outcome::Fine
        }
        _ => {
            let named = manifest.as_ref().map(|(from, bytes)| (from.as_str(), bytes.as_slice()));
            let found = inventory(&root, named).map_err(|error| Failure::failed(error.to_string()))?;
            for words in &found.lacks {
                complain(streams, words);
            }
            if named.is_some_and(|(from, _)| !found.sources.iter().any(|source| source == from)) {
                return Err(Failure::usage("the manifest lists no packages"));
            }
            match given.json {
                true => query::print(&mut answer, &cyclonedx::document(&found, env!("CARGO_PKG_VERSION")))?,
                false => list(&mut answer, &found)?,
            }
            if found.components.is_empty() {
                Outcome::No
            } else {
                Outcome::Fine
            }
        }
    };
    match &options.output {
        None => streams.output.write_all(&answer)?,
        Some(file) => small_file::replace(file, &answer)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?,
    }
    Ok(outcome)
}

/// The manifest that was named, or that the configuration of the image names.
fn manifest(given: &Given, root: &Root) -> Result<Option<(String, Vec<u8>)>, Failure> {
    if let Some(file) = &given.posture.manifest {
        let bytes = small_file::read(file, LIMIT)
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
        return Ok(Some((file.display().to_string(), bytes)));
    }
    let config = match (&given.config, &given.posture.root) {
        (None, Some(_)) => load_image(root, Path::new(CONFIGURATION)).config,
        _ => load(&configuration(given)).config,
    };
    let file = config.sbom.manifest;
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    match root.read(&file) {
        Ok(Some(bytes)) => Ok(Some((file.display().to_string(), bytes))),
        Ok(None) => {
            Err(Failure::failed(format!("{}, which `sbom.manifest` names, is not there", file.display())))
        }
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}

fn list(out: &mut Vec<u8>, found: &Inventory) -> Result<(), Failure> {
    let (name, version) = &found.os;
    writeln!(out, "{}", printable(format!("{name} {version}").trim_end()))?;
    for part in &found.components {
        let line = format!("  {:<32} {:<24} {}", part.name, part.version, part.license);
        writeln!(out, "{}", printable(line.trim_end()))?;
    }
    writeln!(out, "{} components", found.components.len())?;
    for source in &found.sources {
        writeln!(out, "  from {}", printable(source))?;
    }
    Ok(())
}
