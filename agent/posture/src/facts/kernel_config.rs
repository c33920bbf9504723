//! The configuration the kernel was built with.

use std::collections::HashMap;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};

use super::{bytes, image, inflate};
use crate::root::Root;
use crate::scan::Inputs;

/// Marks the configuration inside a kernel built with CONFIG_IKCONFIG (kernel/configs.c): a gzip stream follows.
const MARK: &[u8] = b"IKCFG_ST";
/// Longest configuration.
const MAX_CONFIG: usize = 4 << 20;
/// Most of a kernel image that is looked through.
const MAX_IMAGE: u64 = 128 << 20;

/// A kernel configuration. What it does not name is not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KernelConfig {
    options: HashMap<String, String>,
    /// Where it was read.
    pub(crate) from: String,
}

impl KernelConfig {
    pub(crate) fn find(root: &Root, inputs: &Inputs) -> Result<Self, String> {
        if let Some(given) = &inputs.kernel_config {
            let unpacked = if given.starts_with(&[0x1f, 0x8b]) { unpack(&given[..]) } else { None };
            return Self::parse(unpacked.as_ref().unwrap_or(given), "the given kernel configuration");
        }
        if inputs.live {
            if let Ok(Some((file, _))) = root.open_regular("/proc/config.gz") {
                if let Some(config) = unpack(BufReader::new(file)) {
                    return Self::parse(&config, "/proc/config.gz");
                }
            }
        }
        let patterns = [
            "/boot/config-*",
            "/boot/config",
            "/{usr/,}lib/modules/*/config",
            "/{usr/,}lib/modules/*/build/.config",
        ];
        for pattern in patterns {
            let path = image::any(root, &[pattern]).map_err(|unreadable| unreadable.to_string())?;
            if let Some(path) = path {
                let bytes = root.read(&path).map_err(|unreadable| unreadable.to_string())?;
                return Self::parse(&bytes.unwrap_or_default(), &path);
            }
        }
        let images = "/boot/{vmlinuz,vmlinux,bzImage,zImage,Image,uImage,fitImage,kernel}*";
        for path in root.glob(images).map_err(|unreadable| unreadable.to_string())? {
            let Ok(Some((mut file, _))) = root.open_regular(&path) else { continue };
            if let Some(config) = inside(&mut file) {
                return Self::parse(&config, &format!("{} (IKCONFIG)", path.display()));
            }
        }
        Err("no kernel configuration in the image; give it with --kernel-config".to_owned())
    }

    /// Reads a `.config`.
    ///
    /// # Errors
    /// It holds no option.
    pub(crate) fn parse(bytes: &[u8], from: &str) -> Result<Self, String> {
        let mut options = HashMap::new();
        for line in defender_model::text::from_bytes(bytes).lines() {
            let line = line.trim();
            let Some(setting) = line.strip_prefix("CONFIG_") else { continue };
            let Some((name, value)) = setting.split_once('=') else { continue };
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            options.insert(name.to_owned(), unquoted.unwrap_or(value).to_owned());
        }
        if options.is_empty() {
            return Err(format!("{from} holds no kernel option"));
        }
        Ok(Self { options, from: from.to_owned() })
    }

    /// Value of an option, named without `CONFIG_`; `None` when it is not set.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.options
            .get(name.strip_prefix("CONFIG_").unwrap_or(name))
            .map(String::as_str)
            .filter(|value| *value != "n")
    }
}

/// A gzip stream undone; `None` when it is damaged or too long to be a configuration.
fn unpack(input: impl std::io::BufRead) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut take = |piece: &[u8]| {
        out.extend_from_slice(piece);
        out.len() <= MAX_CONFIG
    };
    inflate::gunzip(input, &mut take).ok()?;
    (out.len() <= MAX_CONFIG).then_some(out)
}

/// The configuration inside a kernel image, as it is or compressed by gzip as a whole.
fn inside(image: &mut std::fs::File) -> Option<Vec<u8>> {
    if let Some(at) = find(image, MARK, 0) {
        image.seek(SeekFrom::Start(at + MARK.len() as u64)).ok()?;
        return unpack(BufReader::new(&*image));
    }
    // The first gzip stream that holds the mark.
    let (mut from, mut tries) = (0, 0);
    while let Some(at) = find(image, &[0x1f, 0x8b, 8, 0], from).filter(|_| tries < 16) {
        image.seek(SeekFrom::Start(at)).ok()?;
        // What follows the mark, and the last bytes before it was found.
        let (mut config, mut tail): (Option<Vec<u8>>, Vec<u8>) = (None, Vec::new());
        let mut take = |piece: &[u8]| match &mut config {
            Some(config) => {
                config.extend_from_slice(piece);
                // Packed, it is much shorter than it may be.
                config.len() < MAX_CONFIG / 4
            }
            None => {
                tail.extend_from_slice(piece);
                match bytes::find(&tail, MARK) {
                    Some(at) => config = Some(tail.split_off(at + MARK.len())),
                    None => drop(tail.drain(..tail.len().saturating_sub(MARK.len() - 1))),
                }
                true
            }
        };
        // A stream that ends in something else is still good for what it held.
        let _ = inflate::gunzip(BufReader::new(&*image), &mut take);
        if let Some(config) = config {
            return unpack(&config[..]);
        }
        (from, tries) = (at + 1, tries + 1);
    }
    None
}

/// Where some bytes are in a file, from an offset on, read piece by piece.
fn find(file: &mut std::fs::File, wanted: &[u8], from: u64) -> Option<u64> {
    const PIECE: usize = 64 * 1024;
    file.seek(SeekFrom::Start(from)).ok()?;
    let (mut buffer, mut kept, mut start) = (vec![0; PIECE + wanted.len()], 0, from);
    loop {
        let read = file.read(&mut buffer[kept..]).ok().filter(|read| *read > 0)?;
        let end = kept + read;
        if let Some(at) = bytes::find(&buffer[..end], wanted) {
            return Some(start + at as u64);
        }
        let keep = (wanted.len() - 1).min(end);
        buffer.copy_within(end - keep..end, 0);
        start += (end - keep) as u64;
        kept = keep;
        if start > MAX_IMAGE {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_configuration() {
        let config = KernelConfig::parse(
            b"# comment\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=n\nCONFIG_D=\"x y\"\nCONFIG_E=65536\n",
            "f",
        )
        .unwrap();
        assert_eq!(
            ["A", "B", "C", "D", "CONFIG_E"].map(|name| config.get(name)),
            [Some("y"), None, None, Some("x y"), Some("65536")]
        );
        assert!(KernelConfig::parse(b"\x1f\x8b", "f").unwrap_err().contains("no kernel option"));
    }

    #[test]
    fn finds_the_configuration_inside_a_kernel() {
        use std::io::Write as _;
        let gzip = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            std::process::Command::new("gzip")
                .args(["-nc", &file.path().display().to_string()])
                .output()
                .unwrap()
                .stdout
        };
        let config = "CONFIG_FOUND=y\n".repeat(3000);
        let mut kernel = vec![7_u8; 200_000];
        kernel.extend(MARK);
        kernel.extend(gzip(config.as_bytes()));
        kernel.extend(b"IKCFG_ED");
        kernel.extend(vec![9_u8; 100_000]);
        let mut packed = b"decompressor \x1f\x8b\x08\0 false start".repeat(3);
        packed.extend(gzip(&kernel));
        packed.extend(b"more");
        for image in [&kernel, &packed] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(image).unwrap();
            assert!(inside(&mut file).unwrap() == config.as_bytes());
        }
        let mut nothing = tempfile::tempfile().unwrap();
        nothing.write_all(&gzip(&vec![7_u8; 100_000])).unwrap();
        assert_eq!(inside(&mut nothing), None);
    }
}
