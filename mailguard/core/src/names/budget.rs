//! How many lines a log is given, so that who changes a name each minute doesn't fill it. Pure: the clock is
//! the caller's.

use std::time::Duration;

use super::Moment;

/// Lines that may be written at once.
const BURST: u32 = 64;
/// Time in which one more may be.
const REFILL: Duration = Duration::from_secs(10);

/// What is left, and what couldn't be written.
#[derive(Debug, Clone)]
pub struct Budget {
    left: u32,
    /// Up to when refills are counted.
    counted: Moment,
    unwritten: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: BURST, counted: Moment::ZERO, unwritten: 0 }
    }
}

impl Budget {
    /// Whether a line may be written at `now`, and how many could not since the last one.
    pub fn take(&mut self, now: Moment) -> Option<u64> {
        let refills = now.saturating_sub(self.counted).as_secs() / REFILL.as_secs();
        self.counted += REFILL.saturating_mul(u32::try_from(refills).unwrap_or(u32::MAX));
        self.left = self.left.saturating_add(u32::try_from(refills).unwrap_or(u32::MAX)).min(BURST);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.unwritten))
            }
            None => {
                self.unwritten += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_counted() {
        let mut budget = Budget::default();
        let now = Duration::from_secs(1_000);
        assert!((0..BURST).all(|_| budget.take(now) == Some(0)));
        assert_eq!((budget.take(now), budget.take(now)), (None, None));
        assert_eq!(budget.take(now + REFILL), Some(2));
        assert_eq!(budget.take(now + REFILL), None);
        // A long silence gives no more than a burst.
        let later = Duration::from_secs(100_000);
        assert_eq!(budget.take(later), Some(1));
        assert_eq!((0..BURST).filter(|_| budget.take(later) == Some(0)).count(), BURST as usize - 1);
    }
}
