//! What is found out about an image once and asked by many checks.
//!
//! | Module | Holds |
//! |---|---|
//! | [`accounts`] | passwd, shadow, group, login.defs |
//! | [`bytes`] | looking for bytes among bytes |
//! | [`command_line`] | the kernel command line |
//! | [`crypt`], [`password`] | well-known passwords tried against hashes |
//! | [`elf`] | hardening of a program by its headers |
//! | [`image`] | what the image is and has |
//! | [`inflate`] | gzip, undone |
//! | [`kernel_config`] | the configuration the kernel was built with |
//! | [`modules`] | kernel modules and the rules of modprobe |
//! | [`mounts`] | file systems: mounted, or of fstab and mount units |
//! | [`nftables`] | the packet filter |
//! | [`packages`] | installed packages |
//! | [`pam`] | the effective stack of a service |
//! | [`services`] | what is started at boot, what runs |
//! | [`sockets`] | what a running device listens on |
//! | [`sshd`] | sshd_config, Match and Include |
//! | [`sysctl`] | what the image would set by sysctl |
//! | [`x509`] | certificates and keys |
//! | [`walk`] | the files that stand out, found by one walk of the tree |

pub(crate) mod accounts;
pub(crate) mod bytes;
pub(crate) mod command_line;
#[cfg(feature = "x509")]
pub(crate) mod crypt;
pub(crate) mod elf;
pub(crate) mod image;
pub(crate) mod inflate;
pub(crate) mod kernel_config;
pub(crate) mod modules;
pub(crate) mod mounts;
pub(crate) mod nftables;
pub(crate) mod packages;
pub(crate) mod pam;
pub(crate) mod password;
pub(crate) mod services;
pub(crate) mod sockets;
pub(crate) mod sshd;
pub(crate) mod sysctl;
pub(crate) mod walk;
pub(crate) mod x509;
