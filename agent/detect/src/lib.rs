//! Sigma rules, correlation, threat feeds and the learned profile over the agent's events.
//!
//! Rules come in as bytes, time comes from the events: nothing here opens a file, reads a clock or starts a thread, so whatever
//! happened on a device can be judged again on any machine, with the same result.
//!
//! | Module | Holds |
//! |---|---|
//! | [`ruleset`] | [`RuleSet`]: from rule files to compiled rules, overrides, what is wrong with which rule |
//! | [`detector`] | [`Detector`]: events in, findings out; the state of correlations |
//! | `sigma` | the rule format |
//! | [`source`] | [`DataSource`]: what rules need and sensors supply |
//! | `yaml` | a bounded tree of a YAML document |
//! | `field` | the field map: from our events to Sigma's names |
//! | `pattern`, `encoding`, `regular` | strings with wildcards, encodings, regular expressions |
//! | `predicate`, `expression` | questions about a field, and their combination |
//! | `automaton` | many literals in one pass over a text |
//! | `matcher` | all rules of a class compiled together: one pass per field, then the rules it points to |
//! | `rows` | many short lists in one block |
//! | `window` | sliding windows over event time |
//! | `describe` | the words and evidence of a finding |
//! | [`feed`] | threat feeds: lists of addresses, domains and file digests |
//! | [`profile`] | the learned profile: what a product does, and what it does not |
//! | [`alert`] | custom alerts of the configuration: allow-lists and ranges, as rules |
//! | [`exception`] | events that rules are not to be held against |
//! | [`suppression`] | repeats and rates of findings |
//! | [`scenario`] | tests of rules: events that must fire and events that must not |
//! | [`error`] | [`RuleError`]: what is wrong and what to do about it |

pub mod alert;
mod automaton;
mod describe;
pub mod detector;
mod encoding;
pub mod error;
pub mod exception;
mod expression;
pub mod feed;
mod field;
mod matcher;
mod pattern;
mod predicate;
pub mod profile;
mod regular;
mod rows;
pub mod ruleset;
pub mod scenario;
mod sigma;
pub mod source;
pub mod suppression;
mod window;
mod yaml;

pub use alert::{AlertError, AlertSpec, Watch};
pub use detector::{Detector, Limits, Stats};
pub use error::{Cause, RuleError};
pub use exception::{Exception, ExceptionSpec};
pub use predicate::Comparison;
pub use ruleset::{Rule, RuleKind, RuleOverride, RuleSet, RuleSetBuilder};
pub use sigma::correlation::CorrelationKind;
pub use sigma::detection::Placeholders;
pub use source::{DataSource, DataSources};
