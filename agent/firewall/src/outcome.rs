//! What callers ask of the firewall and what they get back.

use std::time::Duration;

use crate::address::Target;
use crate::error::Error;
#[cfg(doc)]
use crate::saved::MAX_BLOCK;

/// One address to block.
#[derive(Clone, Debug)]
pub struct BlockRequest {
    /// The address.
    pub target: Target,
    /// For how long: whole seconds count, at least one, at most a year ([`MAX_BLOCK`]).
    pub duration: Duration,
    /// Why, for the list of blocks; cut to 128 bytes.
    pub reason: String,
}

/// What became of one requested block.
#[derive(Debug)]
pub struct Outcome {
    /// The address.
    pub target: Target,
    /// The time left as read back from the kernel (a second or so less than asked; longer if it was blocked for longer
    /// already), or why it is not blocked: [`Error::Allowed`], [`Error::Full`] or [`Error::NotInEffect`].
    pub result: Result<Duration, Error>,
}

/// What became of a batch of blocks.
#[derive(Debug, Default)]
pub struct BlockReport {
    /// One for each request, in order.
    pub outcomes: Vec<Outcome>,
    /// Blocks that ended early to make room.
    pub evicted: Vec<Target>,
    /// Whether the table had to be put right because another hand had deleted or changed it.
    pub repaired: bool,
}

/// What became of one requested unblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unblocked {
    /// The address.
    pub target: Target,
    /// Whether it had been blocked.
    pub was_blocked: bool,
}

/// One address blocked in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The address.
    pub target: Target,
    /// Time left, whole seconds; `None` when it never ends (an element added by hand).
    pub remaining: Option<Duration>,
    /// Why, when it is a block of ours.
    pub reason: Option<String>,
}

/// Packets and bytes dropped at one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}

/// What was dropped since the table was made; it outlives the agent, not a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// From blocked addresses to this device.
    pub input: Tally,
    /// From this device to blocked addresses.
    pub output: Tally,
    /// Through this device, from or to blocked addresses.
    pub forward: Tally,
}

/// What a start found and did.
#[derive(Debug, Default)]
pub struct Started {
    /// Blocks of the state file put back into the kernel.
    pub restored: usize,
    /// Blocks that were still in the kernel.
    pub kept: usize,
    /// Saved blocks that have ended meanwhile.
    pub expired: usize,
    /// Blocks given up because the allow-list now forbids them.
    pub forbidden: usize,
    /// Blocks over the bound, given up; those with the least time left.
    pub over: usize,
    /// Whether the state file was written since the last boot.
    pub same_boot: bool,
    /// Why the state file, or part of it, was ignored.
    pub state_problem: Option<Error>,
}
