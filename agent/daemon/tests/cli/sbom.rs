//! `sbom`: of an image, by a manifest, and the image's own.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::defender;

fn image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    put(image.path(), "etc/os-release", "NAME=\"Camera\"\nID=camera\nVERSION_ID=4.2\n");
    image
}

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn an_image_is_listed_for_people_and_as_cyclonedx() {
    let image = image();
    let root = image.path().to_str().unwrap();
    let nothing = defender(&["sbom", "--root", root]);
    assert_eq!((nothing.status, nothing.errors.as_str()), (1, ""), "{nothing:?}");
    put(
        image.path(),
        "var/lib/dpkg/status",
        "Package: busybox\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1:1.36.1-9 \x1b[2J\n",
    );
    let ended = defender(&["sbom", "--root", root]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.output.starts_with("Camera 4.2\n") && ended.output.contains("1 components"), "{ended:?}");
    assert!(!ended.output.contains('\x1b'), "{ended:?}");
    let file = image.path().join("bom.json");
    for _ in 0..2 {
        let ended = defender(&["sbom", "--root", root, "--json", "--output", file.to_str().unwrap()]);
        assert_eq!((ended.status, ended.output.as_str()), (0, ""), "{ended:?}");
    }
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(
        written,
        defender(&["sbom", "--root", root, "--json"]).output,
        "the same image, the same bytes"
    );
    let bom: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(bom["bomFormat"], "CycloneDX");
    assert_eq!(bom["components"][0]["name"], "busybox");
    assert_eq!(bom["metadata"]["component"]["name"], "Camera");
}

#[test]
fn a_manifest_of_the_build_is_named_or_configured() {
    let image = image();
    let root = image.path().to_str().unwrap();
    let manifest = image.path().join("image.manifest");
    fs::write(&manifest, "busybox core2-64 1.36.1\nzlib1 core2-64 1.3\n").unwrap();
    let named = defender(&["sbom", "--root", root, "--json", "--manifest", manifest.to_str().unwrap()]);
    assert_eq!(named.status, 0, "{named:?}");
    let bom: Value = serde_json::from_str(&named.output).unwrap();
    assert_eq!(bom["components"][1]["purl"], "pkg:generic/zlib1@1.3?arch=core2-64");
    // The configuration of the image names a file of the image.
    put(image.path(), "etc/defender/defender.toml", "[sbom]\nmanifest = \"/usr/share/own.json\"\n");
    let missing = defender(&["sbom", "--root", root]);
    assert!(missing.status == 3 && missing.errors.contains("/usr/share/own.json"), "{missing:?}");
    // The image's own is printed as it is.
    put(image.path(), "usr/share/own.json", "{\"bomFormat\": \"CycloneDX\",\n \"x\": 1}\n");
    let own = defender(&["sbom", "--root", root, "--json"]);
    assert_eq!(
        (own.status, own.output.as_str()),
        (0, "{\"bomFormat\": \"CycloneDX\",\n \"x\": 1}\n"),
        "{own:?}"
    );
    put(image.path(), "usr/share/own.json", "{\"bomFormat\": ");
    assert_eq!(defender(&["sbom", "--root", root]).status, 2);
    // No manifest at all.
    fs::write(&manifest, "some text\n").unwrap();
    let none = defender(&["sbom", "--root", root, "--manifest", manifest.to_str().unwrap()]);
    assert!(none.status == 2 && none.errors.contains("image.manifest"), "{none:?}");
    // rpm is not read, and that is said.
    fs::create_dir_all(image.path().join("var/lib/rpm")).unwrap();
    fs::remove_file(image.path().join("etc/defender/defender.toml")).unwrap();
    let rpm = defender(&["sbom", "--root", root]);
    assert!(rpm.status == 1 && rpm.errors.contains("rpm"), "{rpm:?}");
}
