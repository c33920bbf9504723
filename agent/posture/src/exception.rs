//! Exceptions: faults a product accepts, each with a reason, an owner and a last day.

use defender_model::time::Timestamp;

use crate::result::AppliedException;

/// One accepted fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Id of the check.
    pub check: String,
    /// Why the fault is accepted.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// Last day it is in force, `YYYY-MM-DD`.
    pub expires: String,
}

/// The exceptions of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Exception>);

impl Exceptions {
    /// Takes exceptions that are complete.
    ///
    /// # Errors
    /// The first that is not, and what it lacks.
    pub fn new(exceptions: Vec<Exception>) -> Result<Self, String> {
        for exception in &exceptions {
            let Exception { check, reason, owner, expires } = exception;
            for (key, value) in [("check", check), ("reason", reason), ("owner", owner)] {
                if value.trim().is_empty() {
                    return Err(format!("a posture exception (check `{check}`) has no `{key}`"));
                }
            }
            if Timestamp::from_day(expires).is_none() {
                return Err(format!(
                    "the posture exception for `{check}` expires on `{expires}`; write a day as YYYY-MM-DD"
                ));
            }
        }
        Ok(Self(exceptions))
    }

    /// Every exception.
    #[must_use]
    pub fn all(&self) -> &[Exception] {
        &self.0
    }

    /// The exception for a check: one in force before one that is over.
    pub(crate) fn of(&self, check: &str, now: Timestamp) -> Option<AppliedException> {
        // Days are written so that they compare as text.
        let today = now.to_string();
        let today = today.get(..10).unwrap_or_default();
        let found = self.0.iter().filter(|exception| exception.check == check);
        let Exception { reason, owner, expires, .. } = found.max_by_key(|exception| &exception.expires)?;
        Some(AppliedException {
            reason: reason.clone(),
            owner: owner.clone(),
            expires: expires.clone(),
            expired: expires.as_str() < today,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(expires: &str) -> Exception {
        Exception {
            check: "a".into(),
            reason: "test bench".into(),
            owner: "jane".into(),
            expires: expires.into(),
        }
    }

    #[test]
    fn the_last_day_counts() {
        let day = |day: i64| Timestamp::from_secs(1_764_201_600 + day * 86_400); // from 2025-11-27
        let exceptions = Exceptions::new(vec![exception("2025-11-20"), exception("2025-11-28")]).unwrap();
        assert!(!exceptions.of("a", day(0)).unwrap().expired);
        assert!(!exceptions.of("a", day(1)).unwrap().expired);
        assert!(exceptions.of("a", day(2)).unwrap().expired);
        assert_eq!(exceptions.of("b", day(0)), None);
    }

    #[test]
    fn incomplete_ones_are_refused() {
        for expires in ["", "soon", "2025-13-01", "2025-1-01", "28.11.2025", "2025-11-32", "2025-11-2é"] {
            assert!(
                Exceptions::new(vec![exception(expires)]).unwrap_err().contains("YYYY-MM-DD"),
                "{expires}"
            );
        }
        let nobody = Exception { owner: " ".into(), ..exception("2025-11-28") };
        assert!(Exceptions::new(vec![nobody]).unwrap_err().contains("`owner`"));
    }
}
