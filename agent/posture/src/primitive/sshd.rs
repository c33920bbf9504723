//! `sshd`: effective options of OpenSSH's server.

use super::Primitive;
use crate::comparison::Comparison;
use crate::expression::Outcome;
use crate::facts::image;
use crate::facts::sshd::{default_of, resolved, Config, Connection};
use crate::policy::keys::{unknown, Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

#[derive(Debug)]
struct Sshd {
    option: String,
    /// A connection to judge; without one, the option must be so for every connection.
    connection: Option<Connection>,
    comparison: Comparison,
}

pub(super) fn parse(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let option = keys.required_text("sshd")?.to_ascii_lowercase();
    if default_of(&option).is_none() {
        let known = crate::facts::sshd::OPTIONS.iter().map(|(name, _)| *name);
        return Err(keys.fault("sshd", unknown("option of sshd", &option, known)));
    }
    let (user, host, address) = (keys.text("user")?, keys.text("host")?, keys.text("address")?);
    let named = user.is_some() || host.is_some() || address.is_some();
    let connection = Connection { user, group: None, host, address };
    Ok(Box::new(Sshd {
        option,
        connection: named.then_some(connection),
        comparison: Comparison::required(keys)?,
    }))
}

impl Sshd {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let file = image::any(
            scan.root,
            &["/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config", "/etc/openssh/sshd_config"],
        )?;
        if file.is_none() && image::has(scan.root, "sshd")?.is_none() {
            return Ok(Outcome::absent("no OpenSSH server in the image"));
        }
        let config = Config::read(scan.root, file.as_deref().unwrap_or("/etc/ssh/sshd_config"))?;
        let values = match &self.connection {
            Some(connection) => vec![config.value(&self.option, connection)],
            None => config.every_value(&self.option),
        };
        let (mut good, mut faults) = (Vec::new(), Vec::new());
        for found in values {
            let value = resolved(&self.option, found.value.as_deref());
            let holds = self.comparison.holds(value.as_deref());
            let line = self.comparison.evidence(
                &format!("{} ({})", self.option, found.from),
                value.as_deref(),
                holds,
            );
            if holds {
                good.push(line);
            } else {
                faults.push(line);
            }
        }
        Ok(if faults.is_empty() { Outcome::yes(good) } else { Outcome::no(faults) })
    }
}

impl Primitive for Sshd {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
