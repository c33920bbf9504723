//! The software bill of materials of a root directory: what is installed, in which version.
//!
//! Read from the databases of dpkg, opkg and apk, and from the lists that builds leave (see [`manifest`]) where an image has no database.
//! That of rpm is an SQLite file, which is not read.
//!
//! | Module | Holds |
//! |---|---|
//! | [`manifest`] | lists that Buildroot and Yocto write |
//! | [`cyclonedx`] | the document |

pub mod cyclonedx;
pub mod manifest;

use crate::facts::packages::{each, Ecosystem};
use crate::root::{Root, Unreadable};

/// Most components of one image.
const MOST: usize = 50_000;

/// Where Yocto leaves the list of an image with `COPY_LIC_MANIFEST`, and where a product may put one.
const MANIFESTS: [&str; 3] = [
    "/usr/share/common-licenses/license.manifest",
    "/usr/share/defender/manifest.csv",
    "/usr/share/defender/image.manifest",
];

/// Something that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it was built for; empty where that is not told.
    pub architecture: String,
    /// Its licence in the words of its packager; empty where that is not told.
    pub license: String,
    /// Type and namespace of its package URL: `deb/debian`, `generic`.
    pub kind: String,
}

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Name and version of the whole, of os-release.
    pub os: (String, String),
    /// Its parts.
    pub components: Vec<Component>,
    /// Where they were found.
    pub sources: Vec<String>,
    /// What was there and not read, and the next step.
    pub lacks: Vec<String>,
}

/// Takes stock of an image. A `manifest` of the build is read in addition to the databases.
///
/// # Errors
/// What is there and cannot be read.
pub fn inventory(root: &Root, manifest: Option<(&str, &[u8])>) -> Result<Inventory, Unreadable> {
    let release =
        ["/etc/os-release", "/usr/lib/os-release"].into_iter().find_map(|file| root.text(file).ok()?);
    let release = release.unwrap_or_default();
    let word = |key: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map(|value| value.trim().trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let name = [word("NAME"), "Linux".to_owned()].into_iter().find(|name| !name.is_empty());
    let version = [word("VERSION_ID"), word("BUILD_ID")].into_iter().find(|version| !version.is_empty());
    let mut found =
        Inventory { os: (name.unwrap_or_default(), version.unwrap_or_default()), ..Inventory::default() };
    let id = word("ID");
    let namespace = if id.is_empty() { "linux" } else { id.as_str() };
    each(root, &mut |from, ecosystem, record| {
        let kind = match ecosystem {
            Ecosystem::Deb => "deb",
            Ecosystem::Opkg => "opkg",
            Ecosystem::Apk => "apk",
        };
        found.source(from);
        let Some(record) = record else { return };
        found.add(Component {
            name: record.name,
            version: record.version,
            architecture: record.architecture,
            license: record.license,
            kind: format!("{kind}/{namespace}"),
        });
    })?;
    if let Some((from, bytes)) = manifest {
        found.take(from, bytes);
    } else if found.components.is_empty() {
        for from in MANIFESTS {
            if let Some(bytes) = root.read(from)? {
                found.take(from, &bytes);
            }
        }
    }
    if root.exists("/var/lib/rpm")? || root.exists("/usr/lib/sysimage/rpm")? {
        found
            .lacks
            .push("the database of rpm is not read: name the build's manifest with --manifest".to_owned());
    }
    kernels(root, &mut found)?;
    Ok(found)
}

/// The kernels there are modules for, where no package says so.
fn kernels(root: &Root, found: &mut Inventory) -> Result<(), Unreadable> {
    for directory in ["/usr/lib/modules/*", "/lib/modules/*"] {
        for path in root.glob(directory)? {
            let Some(version) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let packaged =
                |part: &Component| part.name.starts_with("linux-") || part.name.starts_with("kernel-");
            let told = |part: &Component| {
                packaged(part) && (part.name.ends_with(version) || part.version == version)
            };
            let ours = |part: &Component| part.name == "linux" && part.version == version;
            if !found.components.iter().any(|part| told(part) || ours(part)) {
                found.source(&path.display().to_string());
                let (name, version) = ("linux".to_owned(), version.to_owned());
                found.add(Component { name, version, kind: "generic".to_owned(), ..Component::default() });
            }
        }
    }
    Ok(())
}

impl Inventory {
    fn add(&mut self, component: Component) {
        if self.components.len() < MOST && !component.name.is_empty() {
            self.components.push(component);
        }
    }

    fn source(&mut self, from: &str) {
        if !self.sources.iter().any(|known| known == from) {
            self.sources.push(from.to_owned());
        }
    }

    fn take(&mut self, from: &str, bytes: &[u8]) {
        let before = self.components.len();
        manifest::read(bytes, &mut |component| self.add(component));
        match self.components.len() > before {
            true => self.source(from),
            false => self.lacks.push(format!(
                "{from}: no list of packages as Buildroot (manifest.csv) or Yocto (*.manifest, license.manifest) writes them"
            )),
        }
    }
}
