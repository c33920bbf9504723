//! What confinement does to a process and to the programs it starts, seen from inside. It cannot be undone, so every case
//! runs in a forked child; most need root.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests; the functions they share are tests too.

mod child;
mod device;
mod files;
mod pid_lock;
mod privileges;
mod system_calls;
