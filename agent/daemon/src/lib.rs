//! The defender agent.
//!
//! | Module | Holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`config`] | the configuration file and its documentation |
//! | [`confinement`] | what the agent gives up before it looks at anything hostile |
//! | [`control`] | the control socket, both ends |
//! | `dbus` | the service org.defender.Agent1 |
//! | [`pipeline`] | what happens to an observation: judge, act, report |
//! | [`request`] | what can be asked of a running agent |
//! | [`run`] | the daemon's start and end |

pub mod cli;
pub mod config;
pub mod confinement;
pub mod control;
pub mod device;
pub mod pipeline;
pub mod request;
pub mod rules;
pub mod run;
