//! What taking one message apart may cost: entries, octets, depth, ratio and time, in one budget. Everything
//! spends from it that takes the message apart: the walk over its parts, and what opens those that hold
//! others.
//!
//! Nothing here reads a clock: whoever makes a budget says by a function whether its time is up.

use std::cell::Cell;
use std::fmt;

/// Octets that a stream may give whatever its ratio: much that is honest packs well, a white picture to a
/// thousandth.
pub const RATIO_FREE_OCTETS: u64 = 16 * 1024 * 1024;

/// The bounds of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages, and files that hold others, within each other.
    pub max_depth: usize,
    /// Parts and what lies in them, all readings together.
    pub max_entries: usize,
    /// Octets of all decoded parts together.
    pub max_unpacked: u64,
    /// Octets that an octet of a stream may become, once that has given more than [`RATIO_FREE_OCTETS`].
    pub max_ratio: u64,
}

/// A bound that a message went beyond. What lies behind it was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Deeper than `max_depth`, or multiparts deeper than
    /// [`MAX_MULTIPART_NESTING`](super::MAX_MULTIPART_NESTING).
    Depth,
    /// More entries than `max_entries`.
    Entries,
    /// More decoded octets than `max_unpacked`.
    Unpacked,
    /// A stream that becomes more than `max_ratio` times as long.
    Ratio,
    /// The time was up. A machine that is busy is no fault of the message's: this is told apart from the
    /// others.
    Time,
    /// A header with more fields, parameters or boundaries than any real one.
    Header,
    /// So ambiguous that reading it all ways takes too long ([`MAX_READINGS`](super::MAX_READINGS)).
    Readings,
}

/// The reason of a finding, naming the option where there is one.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Depth => "nested deeper than files.limits.max_depth",
            Limit::Entries => "more parts than files.limits.max_entries",
            Limit::Unpacked => "more decoded octets than files.limits.max_unpacked",
            Limit::Ratio => "packed more tightly than files.limits.max_ratio",
            Limit::Time => "the time was up",
            Limit::Header => "more header fields, parameters or boundaries in one part than can be meant",
            Limit::Readings => "too ambiguous to be read in every way",
        })
    }
}

/// What is left to spend on one message, by everything that takes it apart: whoever is shown a part by a walk
/// may spend from the walk's own. Each spending looks at the time first.
pub struct Budget<'t> {
    limits: Limits,
    time_is_up: &'t dyn Fn() -> bool,
    entries: Cell<usize>,
    unpacked: Cell<u64>,
}

impl<'t> Budget<'t> {
    /// Nothing spent yet.
    pub fn new(limits: Limits, time_is_up: &'t dyn Fn() -> bool) -> Self {
        Self { limits, time_is_up, entries: Cell::new(0), unpacked: Cell::new(0) }
    }

    /// Most entries that there may be: whoever lists what isn't spent yet needn't list more.
    pub fn max_entries(&self) -> usize {
        self.limits.max_entries
    }

    /// Spends an entry: a part, or a file that lies in one.
    pub fn spend_entry(&self) -> Result<(), Limit> {
        self.look_at_the_time()?;
        let entries = self.entries.get();
        if entries >= self.limits.max_entries {
            return Err(Limit::Entries);
        }
        self.entries.set(entries + 1);
        Ok(())
    }

    /// Spends what `packed` octets have become.
    pub fn spend_octets(&self, packed: usize, unpacked: usize) -> Result<(), Limit> {
        self.look_at_the_time()?;
        let (packed, unpacked) = (packed as u64, unpacked as u64);
        self.unpacked.set(self.unpacked.get().saturating_add(unpacked));
        if self.unpacked.get() > self.limits.max_unpacked {
            return Err(Limit::Unpacked);
        }
        let honest = packed.saturating_mul(self.limits.max_ratio).max(RATIO_FREE_OCTETS);
        if unpacked > honest { Err(Limit::Ratio) } else { Ok(()) }
    }

    /// Whether something may lie within so many others.
    pub fn allow_depth(&self, depth: usize) -> Result<(), Limit> {
        if depth > self.limits.max_depth { Err(Limit::Depth) } else { Ok(()) }
    }

    /// Whether there is time left. Who works long without spending asks now and then.
    pub fn look_at_the_time(&self) -> Result<(), Limit> {
        if (self.time_is_up)() { Err(Limit::Time) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_depth: 2, max_entries: 3, max_unpacked: 1 << 30, max_ratio: 250 };

    #[test]
    fn one_budget_bounds_entries_octets_and_depth() {
        let budget = Budget::new(Limits { max_unpacked: 10, ..LIMITS }, &|| false);
        assert_eq!([(); 4].map(|()| budget.spend_entry()), [Ok(()), Ok(()), Ok(()), Err(Limit::Entries)]);
        assert_eq!(
            [4, 6, 1].map(|octets| budget.spend_octets(octets, octets)),
            [Ok(()), Ok(()), Err(Limit::Unpacked)]
        );
        assert_eq!([2, 3].map(|depth| budget.allow_depth(depth)), [Ok(()), Err(Limit::Depth)]);
    }

    #[test]
    fn a_ratio_counts_once_a_stream_has_given_much() {
        let budget = Budget::new(LIMITS, &|| false);
        let free = RATIO_FREE_OCTETS as usize;
        for (packed, unpacked, expect) in [
            (1, free, Ok(())),
            (1, free + 1, Err(Limit::Ratio)),
            (0, free + 1, Err(Limit::Ratio)),
            (free / 100, free * 2, Ok(())),
            (free / 100, free * 3, Err(Limit::Ratio)),
        ] {
            assert_eq!(budget.spend_octets(packed, unpacked), expect, "{packed} to {unpacked}");
        }
    }

    #[test]
    fn nothing_is_spent_when_the_time_is_up() {
        let budget = Budget::new(LIMITS, &|| true);
        let spent = [budget.look_at_the_time(), budget.spend_entry(), budget.spend_octets(0, 0)];
        assert_eq!(spent, [Err(Limit::Time); 3]);
        assert_eq!((budget.entries.get(), budget.unpacked.get()), (0, 0));
    }
}
