//! Devices plugged in and pulled out, as the kernel tells (`NETLINK_KOBJECT_UEVENT`) and `/sys` describes them.
//!
//! | Module | Holds |
//! |---|---|
//! | [`uevent`] | the kernel's messages |
//! | `sysfs` | devices as `/sys` shows them; what their paths say |
//! | `function` | what a device is for: USB classes, keys and axes |
//! | [`allow`] | the product's list of peripherals |
//! | `registry` | the devices there are; what is told of those that come and go |
//! | [`sensor`] | settings, status, the task |

pub mod allow;
mod function;
mod registry;
pub mod sensor;
mod sysfs;
pub mod uevent;

#[cfg(test)]
mod registry_tests;

pub use sensor::{PeripheralSensor, Settings};
