//! `pam`: a line in the effective stack of a service.

use std::collections::BTreeSet;

use super::Primitive;
use crate::expression::Outcome;
use crate::facts::image;
use crate::facts::pam::{stack, Line};
use crate::pattern::Pattern;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// Every service that is meant must have such a line, or none may.
#[derive(Debug)]
struct Pam {
    service: String,
    kind: Option<String>,
    control: Option<Pattern>,
    module: Option<Pattern>,
    argument: Option<Pattern>,
    present: bool,
    /// What is looked for, in words for the evidence.
    shown: Option<String>,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let kinds = [("auth", "auth"), ("account", "account"), ("password", "password"), ("session", "session")];
    let pam = Pam {
        service: keys.required_text("pam")?,
        kind: keys.word("type", &kinds)?.map(str::to_owned),
        control: keys.pattern("control")?,
        module: keys.pattern("module")?,
        argument: keys.pattern("argument")?,
        present: keys.flag("present")?.unwrap_or(true),
        shown: keys.text("shown")?,
    };
    if pam.service.is_empty() || pam.service.contains('/') {
        return Err(keys.fault("pam", "`pam` names a service, such as \"login\""));
    }
    if pam.control.is_none() && pam.module.is_none() && pam.argument.is_none() {
        return Err(Fault::new(keys.at, "`pam` needs one of control, module, argument"));
    }
    Ok(Box::new(pam))
}

impl Pam {
    fn is(&self, line: &Line) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == line.kind)
            && self.control.as_ref().is_none_or(|pattern| pattern.matches(&line.control))
            && self.module.as_ref().is_none_or(|pattern| pattern.matches(&line.module))
            && self
                .argument
                .as_ref()
                .is_none_or(|pattern| line.arguments.iter().any(|argument| pattern.matches(argument)))
    }

    fn wanted(&self) -> String {
        if let Some(shown) = &self.shown {
            return shown.clone();
        }
        let part = |name: &str, pattern: &Option<Pattern>| {
            pattern.as_ref().map(|pattern| format!(" {name} `{}`", pattern.as_str())).unwrap_or_default()
        };
        let kind = self.kind.as_deref().unwrap_or("any");
        format!(
            "{kind} line with{}{}{}",
            part("control", &self.control),
            part("module", &self.module),
            part("argument", &self.argument)
        )
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        if image::has(scan.root, "pam")?.is_none() {
            return Ok(Outcome::absent("no PAM in the image"));
        }
        let mut services = BTreeSet::new();
        if self.service.contains(['*', '?', '[', '{']) {
            for path in scan.root.glob(&format!("/{{etc,usr/lib,usr/share}}/pam.d/{}", self.service))? {
                services.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
            }
        } else {
            services.insert(self.service.clone());
        }
        let (mut good, mut faults) = (Vec::new(), Vec::new());
        for service in services {
            let found = stack(scan.root, &service)?.into_iter().find(|line| self.is(line));
            match (found, self.present) {
                (Some(line), wanted) => {
                    let words = format!("{}: {} {} {}", line.from, line.kind, line.control, line.module);
                    if wanted {
                        good.push(words);
                    } else {
                        faults.push(words);
                    }
                }
                (None, true) => faults.push(format!("PAM service {service}: no {}", self.wanted())),
                (None, false) => good.push(format!("PAM service {service}: no {}", self.wanted())),
            }
        }
        Ok(if faults.is_empty() { Outcome::yes(good) } else { Outcome::no(faults) })
    }
}

impl Primitive for Pam {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
