//! Points of a spam score, as engines give them and traces keep them: in hundredths, so that sums and
//! comparisons are exact and what was stored is what was decided by. What a score means is left to whoever
//! decides.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Hundredths of a point: 450 is `4.50`. Stored as that number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Points(i32);

impl Points {
    /// So many hundredths of a point.
    pub const fn from_hundredths(hundredths: i32) -> Self {
        Self(hundredths)
    }

    /// How many hundredths of a point.
    pub const fn hundredths(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, hundredths) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_written_with_two_digits_and_compared_exactly() {
        for (hundredths, expect) in [
            (0, "0.00"),
            (7, "0.07"),
            (-7, "-0.07"),
            (300, "3.00"),
            (-1250, "-12.50"),
            (i32::MIN, "-21474836.48"),
        ] {
            assert_eq!(Points::from_hundredths(hundredths).to_string(), expect);
        }
        // As fractions of two these would differ: 0.1 + 0.2 isn't 0.3.
        let sum = Points::from_hundredths(10).hundredths() + Points::from_hundredths(20).hundredths();
        assert_eq!(Points::from_hundredths(sum), Points::from_hundredths(30));
        assert!(Points::from_hundredths(-1) < Points::default());
    }
}
