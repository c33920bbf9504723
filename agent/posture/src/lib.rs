//! Policies and checks over a root directory: `/` of a running device, or an image that is not running.
//!
//! Nothing here opens a socket, reads a clock or starts a thread, and nothing follows a link out of the root.
//!
//! | Module | Holds |
//! |---|---|
//! | [`policy`] | [`Policy`], [`policy::Check`]: checks as data |
//! | `expression`, `comparison`, `pattern` | conditions in three-valued logic |
//! | `primitive` | the questions a check can ask, one module each |
//! | `facts` | what is found out about an image once: accounts, mounts, services, kernel configuration |
//! | [`root`] | access to a root directory that never leaves it |
//! | [`mod@scan`] | one scan: policies against a root |
//! | [`sbom`] | the software bill of materials |
//! | [`exception`] | faults a product accepts, until a day |
//! | [`result`] | what a scan concluded |
//! | [`report`] | reports for people and machines |
//! | [`error`] | [`PolicyError`]: what is wrong with a policy |

mod comparison;
pub mod error;
pub mod exception;
mod expression;
mod facts;
mod pattern;
pub mod policy;
mod primitive;
pub mod report;
pub mod result;
pub mod root;
pub mod sbom;
pub mod scan;

pub use error::PolicyError;
pub use exception::{Exception, Exceptions};
pub use policy::Policy;
pub use root::Root;
pub use scan::{scan, Inputs};
