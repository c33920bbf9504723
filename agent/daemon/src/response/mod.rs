//! Responses to findings other than the firewall's.
//!
//! | Module | Holds |
//! |---|---|
//! | [`kill`] | ends the process a finding rests on |
//! | [`hook`] | starts the product's own program with the finding |

pub mod hook;
pub mod kill;

use defender_model::finding::{Finding, Response, Responses};
use defender_model::severity::Severity;

use crate::config;

/// What is to be done about a finding: what its rule says, and what the configuration asks for its level.
#[must_use]
pub fn wanted(finding: &Finding, config: &config::Response) -> Vec<Response> {
    let by_level = match finding.severity {
        Severity::Critical => config.on_critical.0,
        Severity::High => config.on_high.0,
        Severity::Medium => config.on_medium.0,
        Severity::Low | Severity::Informational => Responses::NONE,
    };
    Response::ALL.into_iter().filter(|r| finding.response.contains(*r) || by_level.contains(*r)).collect()
}
