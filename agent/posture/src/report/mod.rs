//! Reports for people and machines, written from [`crate::result`].
//!
//! | Module | Writes |
//! |---|---|
//! | [`text`] | lines for a terminal |
//! | [`ocsf`] | JSON lines, OCSF Compliance Findings |
//! | [`diff`] | what changed between two scans |
//! | [`html`] | one page that needs nothing else |
//! | [`junit`] | JUnit XML for build systems |
//! | [`sarif`] | SARIF 2.1.0 for code hosting sites |

pub mod diff;
pub mod html;
pub mod junit;
pub mod ocsf;
pub mod sarif;
pub mod text;

#[cfg(test)]
mod tests;

use crate::result::{CheckResult, PolicyResult};

/// The results of a policy by section, sections in the order in which they first appear.
fn by_section(policy: &PolicyResult) -> Vec<(&str, Vec<&CheckResult>)> {
    let mut sections: Vec<(&str, Vec<&CheckResult>)> = Vec::new();
    for result in &policy.checks {
        let name = result.check.section.as_str();
        match sections.iter_mut().find(|(section, _)| *section == name) {
            Some((_, checks)) => checks.push(result),
            None => sections.push((name, vec![result])),
        }
    }
    sections
}
