//! The defender agent.
//!
//! | Module | Holds |
//! |---|---|
//! | `allocator` | how little memory the C library keeps |
//! | [`cli`] | the command line |
//! | [`clock`] | the wall clock |
//! | [`config`] | the configuration file and its documentation |
//! | [`confinement`] | what the agent gives up before it looks at anything hostile |
//! | [`control`] | the control socket, both ends |
//! | [`device`] | who the device is |
//! | `dbus` | the service org.defender.Agent1 |
//! | [`feeds`] | files of threat feeds, read again when they change |
//! | `inventory` | hardware, system, network interfaces and packages |
//! | [`logins`] | the login sensor with its remembered positions |
//! | [`network`] | the network sensor and the rules that feed it |
//! | [`peripherals`] | the peripheral sensor |
//! | [`onlooker`] | the second process, which tells whose a connection is |
//! | [`packet_filter`] | the watch on the packet filter |
//! | [`pam`] | `defender pam`: PAM tells of a session |
//! | [`pipeline`] | what happens to an observation: judge, act, report |
//! | [`posture`] | policies, exceptions and scans |
//! | [`profile`] | the file of the learned profile |
//! | [`request`] | what can be asked of a running agent |
//! | [`response`] | what is done about findings besides the firewall |
//! | [`rules`] | rule files, read and compiled |
//! | [`run`] | the daemon's start and end |
//! | [`services`] | the service sensor: units, processes, announcements on the bus |
//! | `small_file` | small files, read within a bound and replaced whole |
//! | `stop` | how the agent is told to stop |
//! | [`supply`] | which data sources of rules the sensors supply |
//! | `syslog` | log messages where no syslog daemon takes them |
//! | [`tally`] | how services are watched and what they submit, for the status |
//! | `wire` | requests, replies and shown events from JSON |

mod allocator;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confinement;
pub mod control;
#[cfg(feature = "dbus")]
pub mod dbus;
pub mod device;
pub mod feeds;
pub mod files;
mod inventory;
pub mod logins;
pub mod network;
pub mod onlooker;
pub mod packet_filter;
pub mod pam;
pub mod peripherals;
pub mod pipeline;
pub mod posture;
pub mod profile;
pub mod request;
pub mod response;
pub mod rules;
pub mod run;
pub mod services;
mod small_file;
mod stop;
pub mod supply;
mod syslog;
pub mod tally;
mod wire;
