//! The audit source: every exec from inside its system call, with the arguments as the kernel took them.
//!
//! | Module | Holds |
//! |---|---|
//! | [`record`] | one record's text |
//! | [`assembly`] | records to events |
//! | [`serial`] | what was lost on the way |
//! | [`arch`] | system call numbers |
//! | [`control`] | status, settings, rules |
//! | [`watch`] | rules about paths, for who writes there |
//! | [`stream`] | the socket, as audit daemon or beside one |

pub(crate) mod arch;
pub(crate) mod assembly;
pub(crate) mod control;
pub(crate) mod record;
pub(crate) mod serial;
pub(crate) mod stream;
pub(crate) mod watch;
