//! Events, alerts and identities of the defender agent, and their encodings.
//!
//! Nothing here opens a file, reads a clock or starts a thread: the crate is the vocabulary the other rooms share.
//!
//! | Module | Holds |
//! |---|---|
//! | [`event`] | [`event::Event`] and the list of what can happen |
//! | [`process`] | programs started and ended |
//! | [`authentication`] | logins, failed or not, and logouts |
//! | [`network`], [`dns`] | connections, listening sockets, names looked up |
//! | [`file`] | files created, changed, removed |
//! | [`peripheral`] | hardware plugged in and pulled out |
//! | [`account`] | local users and groups |
//! | [`inventory`] | what the device consists of |
//! | [`kernel`] | kernel modules, changes to the packet filter |
//! | [`service`] | the device's services: what becomes of them, what they report themselves |
//! | [`compliance`] | what posture checks concluded |
//! | [`finding`] | what detection concluded |
//! | [`remediation`] | what the agent did about it |
//! | [`health`] | what the agent says of itself |
//! | [`identity`] | which device, which boot |
//! | [`severity`], [`time`] | the scales everything is measured on |
//! | [`order`] | sorting and collecting at little cost in flash |
//! | [`text`] | bytes from outside to text, and text to a terminal |
//! | [`ocsf`] | the JSON encoding, both ways |

pub mod account;
pub mod authentication;
pub mod compliance;
pub mod dns;
pub mod event;
pub mod file;
pub mod finding;
pub mod health;
pub mod identity;
pub mod inventory;
pub mod kernel;
pub mod network;
pub mod ocsf;
pub mod order;
pub mod peripheral;
pub mod process;
pub mod remediation;
pub mod service;
pub mod severity;
pub mod text;
pub mod time;
