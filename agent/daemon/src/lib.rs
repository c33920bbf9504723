//! The defender agent.
//!
//! | Module | Holds |
//! |---|---|
//! | [`request`] | what can be asked of a running agent |

pub mod request;
