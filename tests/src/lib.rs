//! The validation harness: builds an image, boots it in QEMU, attacks it over a network, checks what was reported.
//!
//! From the bottom up:
//!
//! | Room | Holds |
//! |---|---|
//! | [`workspace`], [`command`], [`progress`], [`error`] | the build machine: paths, programs with a time limit, what is printed |
//! | [`python`] | other people's Python programs to check ours against |
//! | [`architecture`] | the processors that images are assembled for |
//! | [`packages`] | distribution packages, downloaded and unpacked, never installed |
//! | [`image`] | kernel, initramfs and root file system of a product; or those of a Buildroot or Yocto build |
//! | [`netns`], [`lab`], [`attack`] | the network: a switch, hosts with addresses of their own, what an attacker does |
//! | [`control`], [`qemu`] | the machine under test and the channel by which it is told what to do |
//! | [`device`], [`scenario`] | the product as an operator sees it, and what has to happen on it |
//! | [`samples`] | a page with one event of every kind, from a run |
//! | [`storm`] | everything at once, and the agent's balance sheet after it |
//! | [`demo`] | the same as a narrated show |
//! | [`bench`] | what watching costs, beside peers on the same machine |
//! | [`servers`], [`faults`] | servers a device reports to; what arrives there when everything is taken away in turn |
//! | [`fleet`] | many devices into a database |
//!
//! `main.rs` is the command line; `src/bin/` holds the programs that run inside a guest.

pub mod architecture;
pub mod attack;
pub mod bench;
pub mod command;
pub mod control;
pub mod demo;
pub mod device;
pub mod error;
pub mod faults;
pub mod fleet;
pub mod image;
pub mod lab;
pub mod netns;
pub mod packages;
pub mod progress;
pub mod python;
pub mod qemu;
pub mod samples;
pub mod scenario;
pub mod servers;
pub mod storm;
pub mod workspace;
