//! The Sigma rule format, version 2: from a YAML document to a rule.
//!
//! | Module | Holds |
//! |---|---|
//! | [`document`] | a document's keys: metadata, `detection` or `correlation`, our `defender` key |
//! | [`logsource`] | which class of our events a log source is |
//! | [`detection`] | searches: mappings, lists, keywords |
//! | [`modifier`] | what stands after the bar in `field|modifier` |
//! | [`condition`] | the condition language |
//! | [`correlation`] | correlation rules |

pub(crate) mod condition;
pub(crate) mod correlation;
pub(crate) mod detection;
pub(crate) mod document;
pub(crate) mod logsource;
pub(crate) mod modifier;
