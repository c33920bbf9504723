//! The configuration the kernel was built with.

use std::collections::HashMap;

use super::image;
use crate::root::Root;
use crate::scan::Inputs;

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
            return Self::parse(given, "the given kernel configuration");
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
}
