//! What is counted, and bounds that may be reached.

/// What has been counted since start. What was seen was sent, joined to another event, found unchanged, or went over the bound.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) seen: u64,
    pub(super) sent: u64,
    pub(super) joined: u64,
    pub(super) unchanged: u64,
    pub(super) over_bound: u64,
    pub(super) overflows: u64,
    pub(super) unrecorded: u64,
}

/// A bound of the configuration or the kernel, and what was said of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bound {
    pub(super) reached: bool,
    said: bool,
}

impl Bound {
    /// It is reached; true if that has to be said.
    pub(super) fn reach(&mut self) -> bool {
        self.reached = true;
        !std::mem::replace(&mut self.said, true)
    }

    /// It was said to be reached and is not any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.said && !self.reached && std::mem::take(&mut self.said)
    }
}
