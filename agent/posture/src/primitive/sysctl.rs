//! `sysctl`: kernel parameters, as they are or as the image would set them.

use super::Primitive;
use crate::comparison::Comparison;
use crate::expression::Outcome;
use crate::facts::sysctl::normal;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

#[derive(Debug)]
struct Sysctl {
    keys: Vec<String>,
    /// The key stands for `all`, `default` and every interface.
    iface: bool,
    default: Option<String>,
    comparison: Comparison,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let names = keys.list("sysctl")?.unwrap_or_default();
    if names.is_empty() {
        return Err(keys.fault("sysctl", "`sysctl` names a parameter, such as \"kernel.kptr_restrict\""));
    }
    Ok(Box::new(Sysctl {
        keys: names.iter().map(|name| normal(name)).collect(),
        iface: keys.flag("iface")?.unwrap_or(false),
        default: keys.scalar("default")?,
        comparison: Comparison::required(keys)?,
    }))
}

/// What a parameter is, and where that is known from.
enum Value {
    Known(String, String),
    Missing(String),
    Unknown(String),
}

impl Sysctl {
    fn value(&self, scan: &Scan<'_>, key: &str) -> Result<Value, Unreadable> {
        if scan.inputs.live {
            let path = format!(
                "/proc/sys/{}",
                key.chars()
                    .map(|c| match c {
                        '.' => '/',
                        '/' => '.',
                        c => c,
                    })
                    .collect::<String>()
            );
            return Ok(match scan.root.text(&path)? {
                Some(text) => Value::Known(text.split_whitespace().collect::<Vec<_>>().join(" "), path),
                None => Value::Missing(path),
            });
        }
        let settings = scan.sysctl()?;
        let assigned = settings.get(key);
        match (assigned, settings.applied, &self.default) {
            (Some(assigned), true, _) => Ok(Value::Known(assigned.value.clone(), assigned.file.clone())),
            (_, _, Some(default)) => {
                let from = match assigned {
                    Some(assigned) => {
                        format!("the kernel's default; nothing at boot applies {}", assigned.file)
                    }
                    None => "the kernel's default".to_owned(),
                };
                Ok(Value::Known(default.clone(), from))
            }
            (Some(assigned), false, None) => {
                Ok(Value::Unknown(format!("nothing at boot applies {}", assigned.file)))
            }
            (None, _, None) => Ok(Value::Unknown(format!(
                "the image does not set {key}, and the kernel's default is not known"
            ))),
        }
    }

    fn names(&self, scan: &Scan<'_>) -> Result<Vec<String>, Unreadable> {
        let mut names = Vec::new();
        for key in &self.keys {
            let parts: Vec<&str> = key.split('.').collect();
            let [net, family, kind @ ("conf" | "neigh"), _, rest @ ..] = parts.as_slice() else {
                names.push(key.clone());
                continue;
            };
            if !self.iface {
                names.push(key.clone());
                continue;
            }
            let mut interfaces = vec!["all".to_owned(), "default".to_owned()];
            if scan.inputs.live {
                for name in scan.root.list(format!("/proc/sys/{net}/{family}/{kind}"))? {
                    let name = name.to_string_lossy().replace('.', "/");
                    if name != "all" && name != "default" && name != "lo" {
                        interfaces.push(name);
                    }
                }
            }
            names.extend(
                interfaces.iter().map(|name| format!("{net}.{family}.{kind}.{name}.{}", rest.join("."))),
            );
        }
        Ok(names)
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let (mut good, mut faults, mut unknown, mut missing) = (Vec::new(), Vec::new(), None, None);
        for name in self.names(scan)? {
            match self.value(scan, &name)? {
                Value::Known(value, from) => {
                    let holds = self.comparison.holds(Some(&value));
                    let line = self.comparison.evidence(&format!("{name} ({from})"), Some(&value), holds);
                    if holds {
                        good.push(line);
                    } else {
                        faults.push(line);
                    }
                }
                Value::Missing(path) => {
                    missing = missing.or(Some(format!("{path}: this kernel does not have it")));
                }
                Value::Unknown(reason) => unknown = unknown.or(Some(reason)),
            }
        }
        Ok(match (faults.is_empty(), unknown, missing) {
            (false, _, _) => Outcome::no(faults),
            (true, Some(reason), _) => Outcome::unknown(reason),
            (true, None, Some(missing)) if good.is_empty() => Outcome::absent(missing),
            (true, None, _) => Outcome::yes(good),
        })
    }
}

impl Primitive for Sysctl {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
