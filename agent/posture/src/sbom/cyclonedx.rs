//! An inventory as a CycloneDX 1.6 document in JSON (ECMA-424; cyclonedx.org/docs/1.6/json).
//!
//! The same image gives the same bytes: there is no serial number and no time in it, and components stand in the order of their package
//! URLs (github.com/package-url/purl-spec).

use serde_json::{json, Map, Value};

use super::{Component, Inventory};

/// The document. `version` is that of the agent, which is the tool that made it.
#[must_use]
pub fn document(inventory: &Inventory, version: &str) -> Value {
    let mut components = Map::new();
    for component in &inventory.components {
        let purl = purl(component);
        let mut described = json!({
            "type": if component.name == "linux" { "operating-system" } else { "library" },
            "bom-ref": purl,
            "name": component.name,
            "version": component.version,
            "purl": purl,
        });
        if !component.license.is_empty() {
            // The packager's words: not always an expression of SPDX.
            described["licenses"] = json!([{ "license": { "name": component.license } }]);
        }
        components.insert(purl, described);
    }
    let components: Vec<Value> = components.into_iter().map(|(_, component)| component).collect();
    let (name, os_version) = &inventory.os;
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "defender", "version": version }] },
            "component": { "type": "firmware", "bom-ref": "image", "name": name, "version": os_version },
        },
        "components": components,
    })
}

/// The package URL of a component.
#[must_use]
pub fn purl(component: &Component) -> String {
    let mut purl = format!("pkg:{}/", component.kind);
    encode(&component.name, &mut purl);
    if !component.version.is_empty() {
        purl.push('@');
        encode(&component.version, &mut purl);
    }
    if !component.architecture.is_empty() {
        purl.push_str("?arch=");
        encode(&component.architecture, &mut purl);
    }
    purl
}

/// Percent-encoding: all but letters, digits and `.-_~` and the colon.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            byte => {
                out.push('%');
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls() {
        let mut component = Component {
            name: "libstdc++6".into(),
            version: "1:12.2.0-14".into(),
            architecture: "amd64".into(),
            kind: "deb/debian".into(),
            ..Component::default()
        };
        assert_eq!(purl(&component), "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14?arch=amd64");
        component.architecture.clear();
        component.version = "1.0 ü/@".into();
        component.kind = "generic".into();
        assert_eq!(purl(&component), "pkg:generic/libstdc%2B%2B6@1.0%20%C3%BC%2F%40");
    }

    #[test]
    fn each_component_once_and_in_order() {
        let part =
            |name: &str| Component { name: name.into(), kind: "generic".into(), ..Component::default() };
        let inventory =
            Inventory { components: vec![part("b"), part("a"), part("b")], ..Inventory::default() };
        let document = document(&inventory, "1");
        let names: Vec<_> = document["components"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
