//! The capability sets of the agent and of the programs it starts (capabilities(7)).

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

use super::report::{Entry, Measure, State};
use super::sys;

// linux/securebits.h. A root that stays root gets no capabilities from exec, and none of this can be taken back.
const SECBIT_NOROOT: i32 = 1 << 0;
const SECBIT_NOROOT_LOCKED: i32 = 1 << 1;
const SECBIT_KEEP_CAPS_LOCKED: i32 = 1 << 5;

/// What is left after [`restrict`], as bit masks.
pub(super) struct Kept {
    /// Permitted and effective.
    pub(super) own: u64,
    /// Inheritable and ambient.
    pub(super) children: u64,
    errors: Vec<String>,
    bounding: Bounding,
}

enum Bounding {
    /// It holds at most these.
    Holds(u64),
    /// It holds these too many, and we may not change it.
    Exceeds(u64),
    Failed(String),
}

/// Reduces every set to what is wanted and was there before. Needs no capability for that, but for the bounding set and the
/// secure bits, which it leaves alone without `CAP_SETPCAP`.
pub(super) fn restrict(own: &[Capability], children: &[Capability]) -> Kept {
    let mut errors = Vec::new();
    let mut attempt = |what: &str, result: Result<(), String>| {
        if let Err(error) = result {
            errors.push(format!("{what}: {error}"));
        }
    };
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept: CapsHashSet = own.iter().copied().filter(|capability| permitted.contains(capability)).collect();
    let inherited: CapsHashSet =
        children.iter().copied().filter(|capability| kept.contains(capability)).collect();
    let wanted_mask = mask(own);

    // After a change of user the effective set is empty.
    let mut working = kept.clone();
    let may_bound = permitted.contains(&Capability::CAP_SETPCAP);
    if may_bound {
        working.insert(Capability::CAP_SETPCAP);
    }
    attempt("effective set", set(CapSet::Effective, &working));
    let bounding = if may_bound {
        let bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED;
        attempt("secure bits", sys::set_securebits(bits).map_err(|error| error.to_string()));
        // A child can acquire no more than it is given; the agent itself never execs itself again.
        match drop_bounding_set(mask(&inherited)) {
            Ok(()) => Bounding::Holds(mask(&inherited)),
            Err(error) => Bounding::Failed(error.to_string()),
        }
    } else {
        let found = caps::read(None, CapSet::Bounding).map_or(0, |set| mask(&set));
        if found & !wanted_mask == 0 {
            Bounding::Holds(found)
        } else {
            Bounding::Exceeds(found & !wanted_mask)
        }
    };

    // The ambient set first, as it shrinks with the others; the effective set may never exceed the permitted one.
    // Linux before 4.3 has no ambient set, which shows below only if a child needs it.
    let ambient = caps::clear(None, CapSet::Ambient).map_err(|error| error.to_string());
    attempt("effective set", set(CapSet::Effective, &kept));
    attempt("permitted set", set(CapSet::Permitted, &kept));
    attempt("inheritable set", set(CapSet::Inheritable, &inherited));
    if !inherited.is_empty() {
        attempt("ambient set", ambient);
        for capability in &inherited {
            let raised = caps::raise(None, CapSet::Ambient, *capability).map_err(|error| error.to_string());
            attempt("ambient set", raised);
        }
    }
    Kept { own: mask(&kept), children: mask(&inherited), errors, bounding }
}

impl Kept {
    pub(super) fn entry(&self, wanted: &[Capability]) -> Entry {
        let missing = mask(wanted) & !self.own;
        let mut reason = format!("{}; children {}", names(self.own), names(self.children));
        if missing != 0 {
            reason = format!("{reason}; not given to the agent: {}", names(missing));
        }
        for error in &self.errors {
            reason = format!("{reason}; {error}");
        }
        let state = if missing == 0 && self.errors.is_empty() { State::InForce } else { State::Partial };
        Entry::new(Measure::Capabilities, state, reason)
    }

    pub(super) fn bounding_entry(&self) -> Entry {
        let (state, reason) = match &self.bounding {
            Bounding::Holds(set) => (State::InForce, names(*set)),
            Bounding::Exceeds(excess) => (
                State::Partial,
                format!(
                    "not reduced without CAP_SETPCAP, still holds {}; set CapabilityBoundingSet=",
                    names(*excess)
                ),
            ),
            Bounding::Failed(error) => (State::Missing, error.clone()),
        };
        Entry::new(Measure::BoundingSet, state, reason)
    }
}

fn set(which: CapSet, capabilities: &CapsHashSet) -> Result<(), String> {
    caps::set(None, which, capabilities).map_err(|error| error.to_string())
}

/// By number up to the kernel's last, so that a capability newer than the `caps` crate goes as well.
fn drop_bounding_set(keep: u64) -> io::Result<()> {
    for number in (0..64u8).filter(|number| keep & (1 << number) == 0) {
        match sys::drop_from_bounding_set(number) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

fn mask<'a>(capabilities: impl IntoIterator<Item = &'a Capability>) -> u64 {
    capabilities.into_iter().fold(0, |mask, capability| mask | capability.bitmask())
}

/// The names of a set, in the order of their numbers.
pub(super) fn names(mask: u64) -> String {
    if mask == 0 {
        return "none".into();
    }
    let known = caps::all();
    let name = |number: u8| {
        known
            .iter()
            .find(|capability| capability.index() == number)
            .map_or_else(|| format!("capability {number}"), ToString::to_string)
    };
    (0..64u8).filter(|number| mask & (1 << number) != 0).map(name).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_numbers() {
        let set = [Capability::CAP_AUDIT_READ, Capability::CAP_NET_ADMIN];
        assert_eq!(names(mask(&set)), "CAP_NET_ADMIN CAP_AUDIT_READ");
        assert_eq!(names(0), "none");
        assert_eq!(names(1 << 63), "capability 63");
    }

    #[test]
    fn what_is_missing_is_named() {
        let wanted = [Capability::CAP_AUDIT_READ, Capability::CAP_NET_ADMIN];
        let kept =
            Kept { own: 1 << 12, children: 1 << 12, errors: Vec::new(), bounding: Bounding::Exceeds(1) };
        let entry = kept.entry(&wanted);
        assert_eq!(entry.state, State::Partial);
        assert_eq!(
            entry.reason,
            "CAP_NET_ADMIN; children CAP_NET_ADMIN; not given to the agent: CAP_AUDIT_READ"
        );
        assert_eq!(kept.bounding_entry().state, State::Partial);
        assert_eq!(kept.entry(&wanted[1..]).state, State::InForce);
    }
}
