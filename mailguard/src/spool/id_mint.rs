//! Makes queue ids: unique for ever, growing, readable as a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use mailguard_core::mail::{QueueId, UnixTime};

/// Mints ids. One for the whole process.
#[derive(Debug)]
pub struct IdMint {
    last: AtomicU64,
}

impl IdMint {
    /// Mints above `greatest`, the greatest number that the store knows.
    pub fn above(greatest: u64) -> Self {
        Self { last: AtomicU64::new(greatest) }
    }

    /// The time in microseconds, or one more than the last id where that is greater: after a burst, or when
    /// the clock was set back.
    pub fn mint(&self) -> QueueId {
        self.mint_at(SystemTime::now().into())
    }

    fn mint_at(&self, now: UnixTime) -> QueueId {
        let next = |last: u64| now.0.max(last.saturating_add(1));
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))) {
            Ok(last) | Err(last) => QueueId(next(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_whatever_the_clock_does() {
        let mint = IdMint::above(100);
        for (now, expect) in [(50, 101), (50, 102), (1000, 1000), (1000, 1001), (900, 1002)] {
            assert_eq!(mint.mint_at(UnixTime(now)), QueueId(expect), "at {now}");
        }
    }
}
