//! Packages: as a whole when the agent starts, and each that came, went or has another version since the last look, also since the last run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use defender_model::event::Event;
use defender_model::health::{Health, Kind};
use defender_model::inventory::{Inventory, Package, PackageChange};
use defender_posture::sbom::{cyclonedx, inventory, Component};
use defender_posture::Root;
use defender_sensors::file::digest;
use defender_sensors::Observation;

use crate::clock::wall_clock;
use crate::config::Config;
use crate::posture::idle;
use crate::small_file;

/// Name of the list in the state directory.
const LIST: &str = "software";
/// Longest list that is read, in bytes.
const LIMIT: u64 = 8 << 20;
/// Most changes of packages told one by one after one look.
const MOST: usize = 200;
/// What is written when packages come and go.
const DATABASES: [&str; 7] = [
    "/var/lib/dpkg/status",
    "/var/lib/opkg/status",
    "/usr/lib/opkg/status",
    "/lib/apk/db/installed",
    "/usr/share/defender/manifest.csv",
    "/usr/share/defender/image.manifest",
    "/etc/os-release",
];

/// The watch on packages.
pub(super) struct Software {
    file: PathBuf,
    manifest: PathBuf,
    stamp: Option<Vec<Option<(i64, i64, u64)>>>,
}

/// Packages by name: version, architecture and type of the package URL, between tabs.
type Packages = BTreeMap<String, String>;

impl Software {
    pub(super) fn new(config: &Config) -> Self {
        Self { file: config.agent.state_dir.join(LIST), manifest: config.sbom.manifest.clone(), stamp: None }
    }

    /// What there is to say; nothing as long as no database was written.
    pub(super) async fn look(&mut self) -> Vec<Observation> {
        let files = DATABASES.iter().map(Path::new).chain([self.manifest.as_path()]);
        let stamp = files.map(|file| {
            let meta = fs::metadata(file).ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.len()))
        });
        let stamp = Some(stamp.collect());
        if self.stamp == stamp {
            return Vec::new();
        }
        let first = std::mem::replace(&mut self.stamp, stamp).is_none();
        let (file, manifest) = (self.file.clone(), self.manifest.clone());
        // Some megabytes of text: in a thread that lets everybody else go first.
        let looked = tokio::task::spawn_blocking(move || {
            idle::yield_to_everybody();
            compare(&file, &manifest, first)
        });
        looked.await.unwrap_or_default()
    }
}

fn told(inventory: Inventory) -> Observation {
    Observation::Event(Event::new(wall_clock(), inventory.into()))
}

fn compare(file: &Path, manifest: &Path, first: bool) -> Vec<Observation> {
    let found = Root::open(Path::new("/")).map_err(|error| error.to_string()).and_then(|root| {
        let named =
            (!manifest.as_os_str().is_empty()).then(|| small_file::read(manifest, LIMIT).ok()).flatten();
        let from = manifest.display().to_string();
        inventory(&root, named.as_ref().map(|bytes| (from.as_str(), bytes.as_slice())))
            .map_err(|error| error.to_string())
    });
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let words = format!("what is installed cannot be told: {error}");
            return vec![Observation::Health(Health::new(Kind::Degraded, "inventory", words))];
        }
    };
    let mut now = BTreeMap::new();
    for Component { name, version, architecture, kind, .. } in found.components {
        now.insert(plain(&name), [version, architecture, kind].map(|part| plain(&part)).join("\t"));
    }
    let mut out = Vec::new();
    let list = text(&now);
    let before = small_file::read(file, LIMIT).ok();
    if first {
        let sha256 = digest(list.as_bytes());
        out.push(told(Inventory::Software { packages: now.len() as u64, sha256, os: found.os }));
    }
    if before.as_deref() == Some(list.as_bytes()) {
        return out;
    }
    if let Some(before) = before {
        changes(&parse(&String::from_utf8_lossy(&before)), &now, &mut out);
    }
    if let Err(error) = small_file::replace(file, list.as_bytes()) {
        let words = format!("what is installed is not kept: {}: {error}", file.display());
        out.push(Observation::Health(Health::new(Kind::Degraded, "inventory", words)));
    }
    out
}

fn changes(before: &Packages, now: &Packages, out: &mut Vec<Observation>) {
    let mut beyond = 0;
    let version = |known: &str| known.split('\t').next().unwrap_or_default().to_owned();
    let mut tell = |name: &str, known: &str, change: PackageChange, was: &str| {
        if out.len() >= MOST {
            beyond += 1;
            return;
        }
        let mut parts = known.split('\t').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let (version, architecture, kind) = (part(), part(), part());
        let component =
            Component { name: name.to_owned(), version, architecture, kind, ..Component::default() };
        let purl = cyclonedx::purl(&component);
        let Component { name, version, architecture, .. } = component;
        let package = Package { name, version, architecture, purl };
        out.push(told(Inventory::Package { package, change, before: was.to_owned() }));
    };
    for (name, known) in now {
        match before.get(name) {
            None => tell(name, known, PackageChange::Installed, ""),
            Some(old) if version(old) != version(known) => {
                tell(name, known, PackageChange::Updated, &version(old));
            }
            Some(_) => {}
        }
    }
    for (name, known) in before.iter().filter(|(name, _)| !now.contains_key(*name)) {
        tell(name, known, PackageChange::Removed, "");
    }
    if beyond > 0 {
        let words = "more packages changed at once than are told one by one; `defender sbom` has all";
        out.push(Observation::Health(
            Health::new(Kind::Changed, "inventory", words).with("packages", beyond),
        ));
    }
}

/// What would end a field or a line ends nothing.
fn plain(part: &str) -> String {
    part.replace(['\t', '\n'], " ")
}

/// A line for each: name, version, architecture and type, between tabs.
fn text(packages: &Packages) -> String {
    let mut out = String::new();
    for (name, known) in packages {
        for part in [name, "\t", known, "\n"] {
            out.push_str(part);
        }
    }
    out
}

fn parse(list: &str) -> Packages {
    let mut packages = Packages::new();
    for (name, known) in list.lines().filter_map(|line| line.split_once('\t')) {
        packages.insert(name.to_owned(), known.to_owned());
    }
    packages
}

#[cfg(test)]
mod tests {
    use defender_model::event::EventKind;

    use super::*;

    #[test]
    fn packages_that_are_others_are_told() {
        let map = |list: &[(&str, &str)]| {
            let mut map = BTreeMap::new();
            for (name, version) in list {
                map.insert((*name).to_owned(), format!("{version}\tarm64\tdeb/debian"));
            }
            map
        };
        let before = map(&[("busybox", "1"), ("dropbear", "1"), ("same", "1")]);
        assert_eq!(parse(&text(&before)), before);
        let mut out = Vec::new();
        changes(&before, &map(&[("busybox", "2"), ("curl", "8"), ("same", "1")]), &mut out);
        let words: Vec<String> = out
            .iter()
            .map(|observation| match observation {
                Observation::Event(event) => event.to_string(),
                Observation::Health(health) => health.message.clone(),
            })
            .collect();
        assert_eq!(
            words,
            ["package updated busybox 2 (was 1)", "package installed curl 8", "package removed dropbear 1"]
        );
        let Observation::Event(Event { kind: EventKind::Inventory(inventory), .. }) = &out[1] else {
            panic!()
        };
        let Inventory::Package { package, .. } = &**inventory else { panic!() };
        assert_eq!(package.purl, "pkg:deb/debian/curl@8?arch=arm64");
        let many: Vec<(String, String)> = (0..300).map(|n| (format!("p{n}"), "1".to_owned())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, version)| (&**name, &**version)).collect();
        let mut out = Vec::new();
        changes(&map(&[]), &map(&many), &mut out);
        assert_eq!(out.len(), MOST + 1);
    }
}
