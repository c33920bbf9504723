//! `certificate`, `private_key`: X.509 certificates and keys.

use super::{expand, paths, Primitive};
use crate::expression::Outcome;
use crate::facts::walk::key_kind;
use crate::facts::x509;
use crate::policy::keys::{Fault, Keys};
use crate::root::Unreadable;
use crate::scan::Scan;

/// Every certificate must be so.
#[derive(Debug)]
struct Certificate {
    patterns: Vec<String>,
    days: Option<i64>,
    /// Of RSA and DSA.
    bits: Option<u32>,
    /// Of elliptic curves, where `bits` is asked for.
    curve_bits: u32,
    signature_not: Vec<String>,
    self_signed: Option<bool>,
    required: bool,
}

pub(super) fn certificate(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let number = |value: Option<usize>| value.and_then(|value| u32::try_from(value).ok());
    let certificate = Certificate {
        patterns: paths(keys, "certificate")?,
        days: keys.number("expires_in_days_at_least")?,
        bits: number(keys.count("key_bits_at_least")?),
        curve_bits: number(keys.count("curve_bits_at_least")?).unwrap_or(224),
        signature_not: keys.list("signature_not")?.unwrap_or_default(),
        self_signed: keys.flag("self_signed")?,
        required: keys.flag("required")?.unwrap_or(false),
    };
    if certificate.days.is_none()
        && certificate.bits.is_none()
        && certificate.signature_not.is_empty()
        && certificate.self_signed.is_none()
    {
        return Err(Fault::new(keys.at, "nothing is asked; one of expires_in_days_at_least, key_bits_at_least, signature_not, self_signed"));
    }
    Ok(Box::new(certificate))
}

impl Certificate {
    fn faults(&self, certificate: &x509::Certificate, scan: &Scan<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(days) = self.days {
            let wanted = (scan.inputs.time.millis() / 1000).saturating_add(days.saturating_mul(86_400));
            if certificate.not_after < wanted {
                faults.push(format!("valid until {}, wanted {days} days from now", certificate.shown_until));
            }
        }
        if let Some(least) = self.bits {
            let least = if certificate.curve { self.curve_bits } else { least };
            if certificate.key_bits < least {
                faults.push(format!("a key of {} bits, wanted at least {least}", certificate.key_bits));
            }
        }
        // What a root signs itself with is never checked.
        let bad = |unwanted: &String| certificate.signature.contains(&unwanted.to_ascii_lowercase());
        if !certificate.self_signed && self.signature_not.iter().any(bad) {
            faults.push(format!("signed with {}", certificate.signature));
        }
        if self.self_signed.is_some_and(|wanted| wanted != certificate.self_signed) {
            let is = if certificate.self_signed { "signed by itself" } else { "not signed by itself" };
            faults.push(is.to_owned());
        }
        faults
    }

    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let (mut judged, mut faults, mut unknown) = (0_usize, Vec::new(), None);
        for path in expand(scan, &self.patterns)? {
            let bytes = match scan.root.read(&path) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(unreadable) if unreadable.reason.contains("not a file") => continue,
                Err(unreadable) => {
                    unknown = unknown.or(Some(unreadable.to_string()));
                    continue;
                }
            };
            match x509::certificates(&bytes) {
                Ok(certificates) => {
                    judged += certificates.len();
                    for certificate in certificates {
                        let found = self.faults(&certificate, scan);
                        if !found.is_empty() {
                            faults.push(format!(
                                "{} ({}): {}",
                                path.display(),
                                certificate.subject,
                                found.join(", ")
                            ));
                        }
                    }
                }
                Err(reason) => unknown = unknown.or(Some(format!("{}: {reason}", path.display()))),
            }
        }
        Ok(match (faults.is_empty(), unknown, judged) {
            (false, _, _) => Outcome::no(faults),
            (true, Some(reason), _) => Outcome::unknown(reason),
            (true, None, 0) if self.required => {
                Outcome::no(vec![format!("{}: no certificate", self.patterns.join(", "))])
            }
            (true, None, 0) => Outcome::absent("no such certificate in the image"),
            (true, None, _) => Outcome::yes(vec![format!("{judged} certificates are so")]),
        })
    }
}

impl Primitive for Certificate {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}

/// Every private key must be so.
#[derive(Debug)]
struct PrivateKey {
    patterns: Vec<String>,
    /// Anyone but owner and group may read it.
    readable_by_others: Option<bool>,
    mode_max: Option<u32>,
    /// It lies in the image, so every device has the same.
    shared: Option<bool>,
    bits: Option<u32>,
}

pub(super) fn private_key(keys: &mut Keys<'_>) -> Result<Box<dyn Primitive>, Fault> {
    let key = PrivateKey {
        patterns: paths(keys, "private_key")?,
        readable_by_others: keys.flag("readable_by_others")?,
        mode_max: keys.mode("mode_max")?,
        shared: keys.flag("shared")?,
        bits: keys.count("key_bits_at_least")?.and_then(|bits| u32::try_from(bits).ok()),
    };
    if key.readable_by_others.is_none()
        && key.mode_max.is_none()
        && key.shared.is_none()
        && key.bits.is_none()
    {
        return Err(Fault::new(
            keys.at,
            "nothing is asked; one of readable_by_others, mode_max, shared, key_bits_at_least",
        ));
    }
    Ok(Box::new(key))
}

impl PrivateKey {
    fn try_judge(&self, scan: &Scan<'_>) -> Result<Outcome, Unreadable> {
        let (mut judged, mut faults, mut unknown) = (0_usize, Vec::new(), None);
        for path in expand(scan, &self.patterns)? {
            let Some(found) = scan.root.metadata(&path)? else { continue };
            let bytes = match scan.root.read(&path) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(unreadable) if unreadable.reason.contains("not a file") => continue,
                Err(unreadable) => {
                    unknown = unknown.or(Some(unreadable.to_string()));
                    continue;
                }
            };
            let Some(kind) = key_kind(&bytes) else { continue };
            judged += 1;
            let name = path.display();
            if self.readable_by_others.is_some_and(|wanted| (found.mode & 0o004 != 0) != wanted) {
                faults.push(format!("{name}: {kind}, mode {:04o}", found.mode));
            }
            if let Some(most) = self.mode_max.filter(|most| found.mode & !most != 0) {
                faults.push(format!("{name}: {kind}, mode {:04o}, wanted at most {most:04o}", found.mode));
            }
            if let (Some(least), Some(bits)) = (self.bits, x509::rsa_bits(&bytes)) {
                if bits < least {
                    faults.push(format!("{name}: {kind} of {bits} bits, wanted at least {least}"));
                }
            }
            if let Some(wanted) = self.shared {
                // In an image it is there before the first boot, so every device gets it. A running device shows only whether it lies
                // where nothing can have been made on the device.
                let fixed = !scan.inputs.live || scan.mounts()?.read_only_at(&path.to_string_lossy());
                match (fixed, wanted) {
                    (true, false) => {
                        faults.push(format!("{name}: {kind} in the image, the same on every device"));
                    }
                    (false, _) => {
                        unknown = unknown.or(Some(format!(
                            "{name}: one device does not show whether others have the same {kind}"
                        )));
                    }
                    (true, true) => {}
                }
            }
        }
        Ok(match (faults.is_empty(), unknown, judged) {
            (false, _, _) => Outcome::no(faults),
            (true, Some(reason), _) => Outcome::unknown(reason),
            (true, None, 0) if self.shared == Some(false) => {
                Outcome::yes(vec![format!("{}: no private key in the image", self.patterns.join(", "))])
            }
            (true, None, 0) => Outcome::absent("no such private key in the image"),
            (true, None, _) => Outcome::yes(vec![format!("{judged} private keys are so")]),
        })
    }
}

impl Primitive for PrivateKey {
    fn judge(&self, scan: &Scan<'_>) -> Outcome {
        self.try_judge(scan).unwrap_or_else(Outcome::from)
    }
}
