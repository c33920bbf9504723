//! Policies and checks over a root directory: `/` of a running device, or an image that is not running.
//!
//! Nothing here opens a socket, reads a clock or starts a thread, and nothing follows a link out of the root.
//!
//! | Module | Holds |
//! |---|---|
//! | [`policy`] | [`policy::Check`]: checks as data |
//! | [`result`] | what a scan concluded |
//! | [`report`] | reports for people and machines |
//! | [`root`] | access to a root directory that never leaves it |

pub mod policy;
pub mod report;
pub mod result;
pub mod root;
