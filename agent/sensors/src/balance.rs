//! The balance sheet of a sensor: what its source produced was delivered, aggregated, no news, is held, or was dropped for a cause that
//! is counted.
//!
//! Each figure is counted where it happens, and none is worked out from the others: where the two sides differ, something was lost in
//! silence, and that is a defect.

/// What begins the names of drops among a sensor's counters; the cause follows.
pub const DROPPED: &str = "dropped_";
/// What its source produced: one side of the sheet.
pub const PRODUCED: &str = "produced";
/// The names of the entries but for drops: what was produced, and what may have become of it.
const ENTRIES: [&str; 5] = [PRODUCED, "delivered", "aggregated", "unchanged", "held"];

/// The sheet. What one of it is depends on the sensor: a start of a process, an announcement of the kernel, an attempt to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// What the source told of, with what is known to be lost on the way here.
    pub produced: u64,
    /// Handed to the pipeline, each as an event of its own.
    pub delivered: u64,
    /// Told with another event.
    pub aggregated: u64,
    /// Looked into, and nothing that is to be told.
    pub unchanged: u64,
    /// Not told yet: it waits for more of the same, or for word of a process.
    pub held: u64,
    /// Beyond the bound of a second.
    pub over_bound: u64,
    /// The kernel had no room, and says how often.
    pub kernel: u64,
    /// No sense could be made of it.
    pub unreadable: u64,
    /// A table or a queue of the agent was full.
    pub no_room: u64,
}

impl Balance {
    /// The entries with the names they have in statistics. Causes for which nothing was dropped are left out.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let entries = [self.produced, self.delivered, self.aggregated, self.unchanged, self.held];
        let drops = [
            ("dropped_over_bound", self.over_bound),
            ("dropped_kernel", self.kernel),
            ("dropped_unreadable", self.unreadable),
            ("dropped_no_room", self.no_room),
        ];
        ENTRIES.into_iter().zip(entries).chain(drops.into_iter().filter(|(_, count)| *count > 0))
    }
}

/// Whether a counter of this name belongs to the sheet.
#[must_use]
pub fn is_entry(name: &str) -> bool {
    ENTRIES.contains(&name) || name.starts_with(DROPPED)
}

/// Both sides of a sheet among counters: what was produced, and what became of it. `None` where there is none.
#[must_use]
pub fn sides<'a>(counters: impl IntoIterator<Item = (&'a str, u64)>) -> Option<(u64, u64)> {
    let (mut produced, mut rest) = (None, 0);
    for (name, count) in counters {
        if name == PRODUCED {
            produced = Some(count);
        } else if is_entry(name) {
            rest += count;
        }
    }
    produced.map(|produced| (produced, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_is_found_among_other_figures_and_both_its_sides_are_summed() {
        let balance = Balance {
            produced: 100,
            delivered: 1,
            aggregated: 2,
            unchanged: 4,
            held: 8,
            over_bound: 16,
            kernel: 32,
            unreadable: 64,
            no_room: 128,
        };
        let others = [("watches", 1000), ("drops", 1000)];
        assert_eq!(sides(balance.counters().chain(others)), Some((100, 255)));
        assert_eq!(sides(others), None);
        assert_eq!(Balance::default().counters().count(), ENTRIES.len());
    }
}
