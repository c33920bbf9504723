//! Reports for people and machines, written from [`crate::result`].
//!
//! | Module | Writes |
//! |---|---|
//! | [`text`] | lines for a terminal |

pub mod text;
