//! The kernel command line: of the running kernel, given, or of the boot loader's files in the image.

use defender_model::text;

use crate::root::Root;
use crate::scan::Inputs;

/// A kernel command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CommandLine {
    parameters: Vec<(String, Option<String>)>,
    /// Where it was read.
    pub(crate) from: String,
}

impl CommandLine {
    pub(crate) fn find(root: &Root, inputs: &Inputs) -> Result<Self, String> {
        if let Some(given) = &inputs.cmdline {
            return Ok(Self::parse(given, "the given command line"));
        }
        if inputs.live {
            return match root.text("/proc/cmdline") {
                Ok(Some(text)) => Ok(Self::parse(&text, "/proc/cmdline")),
                Ok(None) => Err("/proc/cmdline is missing; is /proc mounted?".to_owned()),
                Err(unreadable) => Err(unreadable.to_string()),
            };
        }
        let places = [
            ("/boot/{,firmware/}cmdline.txt", in_plain as fn(&str) -> Option<String>),
            ("/{etc,usr/lib}/kernel/cmdline", in_plain),
            ("/boot/{,extlinux/,syslinux/}{extlinux,syslinux}.conf", in_extlinux),
            ("/boot/{,efi/}loader/entries/*.conf", in_loader_entry),
            ("/boot/{grub,grub2,efi/EFI/BOOT,EFI/BOOT}/grub.cfg", in_grub),
            ("/boot/{uEnv.txt,uboot.env,armbianEnv.txt}", in_environment),
        ];
        for (pattern, extract) in places {
            for path in root.glob(pattern).map_err(|unreadable| unreadable.to_string())? {
                let bytes = root.read(&path).map_err(|unreadable| unreadable.to_string())?;
                let text = text::from_vec(bytes.unwrap_or_default());
                if let Some(line) = extract(&text) {
                    return Ok(Self::parse(&line, &path.display().to_string()));
                }
            }
        }
        Err("the kernel command line is not in the image; give it with --cmdline".to_owned())
    }

    /// Splits a command line as the kernel does: at blanks outside double quotes; `-` and `_` in names are the same.
    pub(crate) fn parse(line: &str, from: &str) -> Self {
        let mut parameters = Vec::new();
        let (mut word, mut quoted) = (String::new(), false);
        for c in line.chars().chain([' ']) {
            match c {
                '"' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => {
                    if word == "--" {
                        break;
                    }
                    if !word.is_empty() {
                        let word = std::mem::take(&mut word);
                        parameters.push(match word.split_once('=') {
                            Some((name, value)) => (normal(name), Some(value.to_owned())),
                            None => (normal(&word), None),
                        });
                    }
                }
                c => word.push(c),
            }
        }
        Self { parameters, from: from.to_owned() }
    }

    /// Every value of a parameter that may be given more than once, such as `console`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.parameters.iter().filter(move |(parameter, _)| parameter == name);
        named.filter_map(|(_, value)| value.as_deref())
    }

    /// The last value of a parameter: outer `None` when it is not there, `Some("")` when it has no value.
    pub(crate) fn last(&self, name: &str) -> Option<&str> {
        let name = normal(name);
        let found = self.parameters.iter().rfind(|(parameter, _)| *parameter == name)?;
        Some(found.1.as_deref().unwrap_or_default())
    }
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn in_plain(text: &str) -> Option<String> {
    let line =
        text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
    (!line.trim().is_empty()).then_some(line)
}

/// `append` of the default label, of the first label without one.
fn in_extlinux(text: &str) -> Option<String> {
    let (mut default, mut label, mut first, mut chosen) = (None, None, None, None);
    for line in text.lines() {
        let mut words = line.trim().splitn(2, char::is_whitespace);
        let (keyword, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
        match keyword.to_ascii_lowercase().as_str() {
            "default" => default = Some(rest),
            "label" => label = Some(rest),
            "append" => {
                first = first.or(Some(rest));
                if label.is_some() && label == default {
                    chosen = Some(rest);
                }
            }
            _ => {}
        }
    }
    chosen.or(first).map(str::to_owned)
}

fn in_loader_entry(text: &str) -> Option<String> {
    let options = text.lines().filter_map(|line| line.trim().strip_prefix("options"));
    let joined = options.map(str::trim).collect::<Vec<_>>().join(" ");
    (!joined.is_empty()).then_some(joined)
}

/// The first `linux` command of a grub.cfg: the image after it, then the parameters.
fn in_grub(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("linux" | "linux16" | "linuxefi"))
            .then(|| words.skip(1).collect::<Vec<_>>().join(" "))
    })
}

/// `bootargs` of a U-Boot environment, as text or as the block of NUL-ended strings behind its checksum.
fn in_environment(text: &str) -> Option<String> {
    let settings = text.split(['\n', '\0']).filter_map(|line| line.split_once('='));
    let named = |name: &str| {
        settings
            .clone()
            .find(|(key, _)| key.trim().trim_start_matches(|c: char| !c.is_ascii_alphabetic()) == name)
    };
    ["bootargs", "optargs", "cmdline", "extraargs"]
        .iter()
        .find_map(|name| named(name))
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_the_kernel_does() {
        let line = CommandLine::parse(
            "quiet slab_nomerge init-on-alloc=1 init_on_alloc=0 dyndbg=\"file a +p\" -- init=x\n",
            "",
        );
        assert_eq!(line.last("quiet"), Some(""));
        assert_eq!(line.last("init_on_alloc"), Some("0"));
        assert_eq!(line.last("dyndbg"), Some("file a +p"));
        assert_eq!(line.last("init"), None);
    }

    #[test]
    fn finds_it_in_boot_loader_files() {
        assert_eq!(
            in_extlinux("DEFAULT b\nLABEL a\n APPEND one\nLABEL b\n APPEND two x=y\n").as_deref(),
            Some("two x=y")
        );
        assert_eq!(
            in_grub("menuentry x {\n linux /bzImage root=/dev/sda ro\n}").as_deref(),
            Some("root=/dev/sda ro")
        );
        assert_eq!(
            in_environment("crc\0bootargs=console=ttyS0 ro\0x=y\0").as_deref(),
            Some("console=ttyS0 ro")
        );
        assert_eq!(in_loader_entry("title x\noptions a b\n").as_deref(), Some("a b"));
        assert_eq!(in_plain("\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = (CommandLine::parse(&text, ""), in_plain(&text), in_extlinux(&text), in_grub(&text), in_environment(&text));
        }
    }
}
