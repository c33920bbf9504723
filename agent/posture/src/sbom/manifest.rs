//! Lists of packages that builds write.
//!
//! | File | By | Looks like |
//! |---|---|---|
//! | `legal-info/manifest.csv` | Buildroot's `make legal-info` | `"busybox","1.36.1","GPL-2.0",...` below a line of headings |
//! | `IMAGE.manifest` | Yocto, beside the image | `busybox core2-64 1.36.1` |
//! | `license.manifest` | Yocto with `COPY_LIC_MANIFEST` | `PACKAGE NAME: busybox` and further lines, a blank line between packages |

use defender_model::text::from_bytes;

use super::Component;

/// Reads a list, whichever it is; what is not one yields nothing.
pub fn read(bytes: &[u8], told: &mut dyn FnMut(Component)) {
    let text = from_bytes(bytes);
    let part = |name: &str, version: &str| Component {
        name: name.to_owned(),
        version: version.to_owned(),
        kind: "generic".to_owned(),
        ..Component::default()
    };
    if text.starts_with("\"PACKAGE\"") || text.starts_with("PACKAGE,") {
        for line in text.lines().skip(1) {
            let mut fields = Fields { rest: Some(line) };
            if let (Some(name), Some(version)) = (fields.next(), fields.next()) {
                told(Component { license: fields.next().unwrap_or_default(), ..part(&name, &version) });
            }
        }
    } else if text.lines().any(|line| line.starts_with("PACKAGE NAME:")) {
        let mut component = Component::default();
        for line in text.lines().chain([""]) {
            let value = |key: &str| line.strip_prefix(key).map(str::trim);
            if let Some(name) = value("PACKAGE NAME:") {
                component = part(name, "");
            } else if let Some(version) = value("PACKAGE VERSION:") {
                version.clone_into(&mut component.version);
            } else if let Some(license) = value("LICENSE:") {
                license.clone_into(&mut component.license);
            } else if line.trim().is_empty() && !component.name.is_empty() {
                told(std::mem::take(&mut component));
            }
        }
    } else {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let three = (words.next(), words.next(), words.next(), words.next());
            // Anything else has other lines than these.
            let (Some(name), Some(architecture), Some(version), None) = three else { continue };
            let plain = |word: &str| {
                word.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'{}<>=;,".contains(&byte))
            };
            if plain(name)
                && plain(architecture)
                && plain(version)
                && version.contains(|c: char| c.is_ascii_digit())
            {
                told(Component { architecture: architecture.to_owned(), ..part(name, version) });
            }
        }
    }
}

/// The fields of one line of comma-separated values (RFC 4180); none of those that are wanted spans lines.
struct Fields<'a> {
    rest: Option<&'a str>,
}

impl Iterator for Fields<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let rest = self.rest.take()?;
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, rest) =
                rest.split_once(',').map_or((rest, None), |(field, rest)| (field, Some(rest)));
            self.rest = rest;
            return Some(field.to_owned());
        };
        let mut field = String::new();
        let mut characters = quoted.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            if character != '"' {
                field.push(character);
            } else if characters.next_if(|(_, next)| *next == '"').is_some() {
                field.push('"');
            } else {
                self.rest = quoted[at + 1..].strip_prefix(',');
                break;
            }
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Vec<[String; 4]> {
        let mut found = Vec::new();
        read(text.as_bytes(), &mut |c| found.push([c.name, c.version, c.architecture, c.license]));
        found
    }

    #[test]
    fn buildroots_list() {
        let csv = "\"PACKAGE\",\"VERSION\",\"LICENSE\",\"LICENSE FILES\",\"SOURCE ARCHIVE\"\n\
                   \"busybox\",\"1.36.1\",\"GPL-2.0, bzip2-1.0.4\",\"LICENSE archival/libarchive/bz/LICENSE\",\"busybox-1.36.1.tar.bz2\"\n\
                   \"odd \"\"name\"\"\",\"1\",\"\"\n";
        assert_eq!(
            all(csv),
            [["busybox", "1.36.1", "", "GPL-2.0, bzip2-1.0.4"], ["odd \"name\"", "1", "", ""]]
        );
    }

    #[test]
    fn yoctos_lists() {
        assert_eq!(
            all("base-files qemux86_64 3.0.14\nbusybox core2-64 1.36.1\n"),
            [["base-files", "3.0.14", "qemux86_64", ""], ["busybox", "1.36.1", "core2-64", ""]]
        );
        let licenses = "PACKAGE NAME: busybox\nPACKAGE VERSION: 1.36.1\nRECIPE NAME: busybox\nLICENSE: GPL-2.0-only & bzip2-1.0.4\n\n\
                        PACKAGE NAME: zlib1\nPACKAGE VERSION: 1.3\nLICENSE: Zlib";
        assert_eq!(
            all(licenses),
            [["busybox", "1.36.1", "", "GPL-2.0-only & bzip2-1.0.4"], ["zlib1", "1.3", "", "Zlib"]]
        );
    }

    #[test]
    fn other_files_are_no_lists() {
        for text in
            ["", "# Configuration\n[agent]\nuser = \"x\"\n", "{\"a\": 1}", "one two three\n", "\u{7f}ELF"]
        {
            assert_eq!(all(text).len(), 0, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(head in "(\"PACKAGE\"|PACKAGE NAME: |)", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut input = head.into_bytes();
            input.extend(bytes);
            let mut count = 0;
            read(&input, &mut |_| count += 1);
            prop_assert!(count <= input.len());
        }

        #[test]
        fn fields_come_back(fields in prop::collection::vec("[a-z\",;é ]{0,6}", 1..5)) {
            let line: Vec<_> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            let line = line.join(",");
            prop_assert_eq!(Fields { rest: Some(&line) }.collect::<Vec<_>>(), fields);
        }
    }
}
