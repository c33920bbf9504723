//! The processors that images are assembled for.

use crate::error::{Error, Result};

/// Of an image. The build machine is x86_64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// The build machine's own.
    X86_64,
    /// 64-bit ARM, always emulated.
    Aarch64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// As `uname -m` has it, and QEMU, and the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The reverse of [`Architecture::name`].
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name).ok_or_else(|| {
            Error::Usage(format!(
                "no architecture `{name}`: there are {}",
                Self::ALL.map(Self::name).join(" and ")
            ))
        })
    }

    /// As Debian's packages have it.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Debian's directory of libraries, and the prefix of its cross compilers.
    #[must_use]
    pub fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// Rust's target.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The build machine can run its programs.
    #[must_use]
    pub fn is_native(self) -> bool {
        self == Self::X86_64
    }

    /// What distinguishes its files from those of the build machine: nothing for that one.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::X86_64 => "",
            Self::Aarch64 => "-aarch64",
        }
    }

    /// Ports that devices can be plugged into while it runs, by QEMU's name; none where its only bus takes them, as a PC's does.
    #[must_use]
    pub fn ports(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &[],
            Self::Aarch64 => &["port0", "port1", "port2"],
        }
    }

    /// The kernel's first serial port in QEMU's machine.
    #[must_use]
    pub fn console(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Aarch64 => "ttyAMA0",
        }
    }
}
