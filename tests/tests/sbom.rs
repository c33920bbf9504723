//! Bills of materials, checked against the published CycloneDX schema, and their package URLs by the reference implementation, with
//! programs that are not ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use defender_posture::sbom::{cyclonedx, inventory};
use defender_posture::Root;
use defender_validation::python::environment;

const SCRIPT: &str = r#"
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
for name in sys.argv[1:]:
    text = open(name).read()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        sys.exit(f"{name}: {error}")
    components = json.loads(text)["components"]
    for component in components:
        purl = PackageURL.from_string(component["purl"])
        if (purl.to_string(), purl.name, purl.version or "") != (component["purl"], component["name"], component["version"]):
            sys.exit(f"{name}: {component}: {purl.to_string()}")
    print(name.rsplit("/", 1)[-1], len(components))
"#;

const DPKG: &str = "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:12.2.0-14+deb12u1\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n";
const OPKG: &str = "Package: dropbear\nVersion: 2024.85-r0\nStatus: install user installed\nArchitecture: cortexa7hf-neon\nLicense: MIT & BSD-2-Clause\n\n";
const APK: &str = "P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\n";

#[test]
fn every_kind_of_image_gives_a_valid_bill_of_materials() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let csv = "\"PACKAGE\",\"VERSION\",\"LICENSE\"\n\"busybox\",\"1.36.1\",\"GPL-2.0, bzip2-1.0.4\"\n\"skeleton\",\"\",\"\"\n";
    let hostile = "Package: a \"b\" <c>..é\\\nStatus: install ok installed\nVersion: 1 \x1b[2J\u{7f}\n\n";
    let images: [(&str, &str, &str, Option<&str>, usize); 6] = [
        ("dpkg", "var/lib/dpkg/status", DPKG, None, 1),
        ("opkg", "var/lib/opkg/status", OPKG, None, 1),
        ("apk", "lib/apk/db/installed", APK, None, 1),
        ("buildroot", "usr/lib/modules/6.12.9/modules.dep", "", Some(csv), 3),
        (
            "yocto",
            "usr/share/common-licenses/license.manifest",
            "PACKAGE NAME: zlib1\nPACKAGE VERSION: 1.3\nLICENSE: Zlib\n",
            None,
            1,
        ),
        ("hostile", "var/lib/dpkg/status", hostile, None, 1),
    ];
    let mut files = Vec::new();
    let mut expected = String::new();
    for (name, path, content, manifest, count) in images {
        let image = tempfile::tempdir().unwrap();
        for (path, content) in
            [(path, content), ("etc/os-release", "NAME=\"Camera OS\"\nID=camera\nVERSION_ID=4.2\n")]
        {
            let path = image.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = Root::open(image.path()).unwrap();
        let found = inventory(&root, manifest.map(|text| ("manifest.csv", text.as_bytes()))).unwrap();
        assert_eq!(found.components.len(), count, "{name}: {found:?}");
        assert_eq!(found.os, ("Camera OS".to_owned(), "4.2".to_owned()));
        let file = directory.join(format!("{name}.cdx.json"));
        fs::write(&file, cyclonedx::document(&found, "0.1.0").to_string()).unwrap();
        expected.push_str(&format!("{name}.cdx.json {count}\n"));
        files.push(file);
    }
    let Some(python) =
        environment(directory, "cyclonedx", &["cyclonedx-python-lib[json-validation]==11.12.0"])
    else {
        return;
    };
    let output = Command::new(python).args(["-c", SCRIPT]).args(files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, expected);
}
