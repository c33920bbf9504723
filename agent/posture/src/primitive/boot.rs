//! `kconfig`, `cmdline`: how the kernel was built and started.

use super::Primitive;
use crate::comparison::Comparison;
use crate::expression::Outcome;
use crate::policy::keys::{Fault, Keys};
use crate::scan::Scan;

#[derive(Debug)]
struct Kconfig {
    options: Vec<String>,
    /// `y`, `m`, `n`, `set` or a value.
    is: Option<String>,
    comparison: Comparison,
}

pub(super) fn kconfig(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let options = keys.list("kconfig")?.unwrap_or_default();
    let is = keys.scalar("is")?;
    let comparison = Comparison::parse(keys)?;
    if options.is_empty() {
        return Err(keys.fault("kconfig", "`kconfig` names an option, such as \"STRICT_KERNEL_RWX\""));
    }
    if is.is_some() != comparison.is_empty() {
        return Err(Fault::new(keys.at, "`kconfig` needs either `is` or a comparison"));
    }
    Ok(Box::new(Kconfig { options, is, comparison }))
}

impl Primitive for Kconfig {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        let config = match scan.kernel_config() {
            Ok(config) => config,
            Err(reason) => return Outcome::unknown(reason),
        };
        let (mut good, mut faults) = (Vec::new(), Vec::new());
        for option in &self.options {
            let name = option.strip_prefix("CONFIG_").unwrap_or(option);
            let value = config.get(name);
            let what = format!("{}: CONFIG_{name}", config.from);
            match self.is.as_deref() {
                None => {
                    // `one_of` may name `n` for what is not set.
                    let holds =
                        self.comparison.holds(value) || (value.is_none() && self.comparison.holds(Some("n")));
                    let line = self.comparison.evidence(&what, value, holds);
                    if holds {
                        good.push(line);
                    } else {
                        faults.push(line);
                    }
                }
                Some(wanted) => {
                    let holds = match wanted {
                        "n" => value.is_none(),
                        "set" => value.is_some(),
                        wanted => value == Some(wanted),
                    };
                    let shown = value.unwrap_or("not set");
                    match holds {
                        true => good.push(format!("{what}: {shown}")),
                        false => faults.push(format!("{what}: {shown}, wanted {wanted}")),
                    }
                }
            }
        }
        if faults.is_empty() {
            Outcome::yes(good)
        } else {
            Outcome::no(faults)
        }
    }
}

#[derive(Debug)]
struct Cmdline {
    parameter: String,
    present: Option<bool>,
    comparison: Comparison,
}

pub(super) fn cmdline(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let parameter = keys.required_text("cmdline")?;
    // `slab_nomerge` is there or not; `init_on_alloc=1` may be written in one.
    let (parameter, value) = match parameter.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (parameter, None),
    };
    let present = keys.flag("present")?;
    let comparison = Comparison::parse(keys)?;
    if let Some(value) = value {
        return Err(keys.fault("cmdline", format!("write cmdline = \"{parameter}\", equals = \"{value}\"")));
    }
    let present = present.or(comparison.is_empty().then_some(true));
    Ok(Box::new(Cmdline { parameter, present, comparison }))
}

impl Primitive for Cmdline {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        let line = match scan.command_line() {
            Ok(line) => line,
            Err(reason) => return Outcome::unknown(reason),
        };
        let value = line.last(&self.parameter);
        let what = format!("{}: {}", line.from, self.parameter);
        if self.present.is_some_and(|wanted| wanted != value.is_some()) {
            let is = if value.is_some() { "is there" } else { "is not there" };
            return Outcome::no(vec![format!("{what} {is}")]);
        }
        let holds = self.comparison.holds(value);
        let evidence = match self.comparison.is_empty() {
            true => format!("{what} {}", if value.is_some() { "is there" } else { "is not there" }),
            false => self.comparison.evidence(&what, value, holds),
        };
        Outcome::of(holds, vec![evidence])
    }
}

/// All of the modules must be so.
#[derive(Debug)]
struct Module {
    names: Vec<String>,
    loadable: Option<bool>,
    loaded: Option<bool>,
    present: Option<bool>,
}

pub(super) fn module(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let module = Module {
        names: keys.list("module")?.unwrap_or_default(),
        loadable: keys.flag("loadable")?,
        loaded: keys.flag("loaded")?,
        present: keys.flag("present")?,
    };
    if module.names.is_empty() {
        return Err(keys.fault("module", "`module` names a kernel module, such as \"cramfs\""));
    }
    if module.loadable.is_none() && module.loaded.is_none() && module.present.is_none() {
        return Err(Fault::new(keys.at, "nothing is asked of the module; one of loadable, loaded, present"));
    }
    Ok(Box::new(module))
}

impl Primitive for Module {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        let modules = match scan.modules() {
            Ok(modules) => modules,
            Err(unreadable) => return unreadable.into(),
        };
        let (mut good, mut faults, mut unknown) = (Vec::new(), Vec::new(), None);
        for name in &self.names {
            let loaded = |_: &str| match modules.loaded(name) {
                Some(true) => Ok((true, format!("{name}: loaded"))),
                Some(false) => Ok((false, format!("{name}: not loaded"))),
                None => Err("only a running device shows what is loaded".to_owned()),
            };
            let answers = [
                self.loadable.map(|wanted| (wanted, modules.loadable(name))),
                self.present.map(|wanted| (wanted, modules.present(name))),
                self.loaded.map(|wanted| (wanted, loaded(name))),
            ];
            for (wanted, answer) in answers.into_iter().flatten() {
                match answer {
                    Ok((is, words)) if is == wanted => good.push(words),
                    Ok((_, words)) => faults.push(words),
                    Err(reason) => unknown = unknown.or(Some(reason)),
                }
            }
        }
        match (faults.is_empty(), unknown) {
            (false, _) => Outcome::no(faults),
            (true, Some(reason)) => Outcome::unknown(reason),
            (true, None) => Outcome::yes(good),
        }
    }
}
