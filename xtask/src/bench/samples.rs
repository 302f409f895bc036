//! Samples of one figure, kept whole.

use std::fmt::Write;

/// What was measured, in the order of measurement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle one, or the mean of the two in the middle; 0 without samples.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match (sorted.len(), sorted.len() / 2) {
            (0, _) => 0.0,
            (length, middle) if length % 2 == 1 => sorted[middle],
            (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
        }
    }

    /// How these compare with `others`, which were measured in turn with them: the median of the ratios
    /// within each round. What the machine does beside them slows both of a round down.
    pub(crate) fn ratio_to(&self, others: &Self) -> f64 {
        Self(self.0.iter().zip(&others.0).map(|(one, other)| one / other).collect()).median()
    }

    /// Minimum, median, maximum, then every sample, with so many decimals.
    pub(crate) fn row(&self, decimals: usize) -> String {
        let sorted = self.sorted();
        let (low, high) = (sorted.first().unwrap_or(&0.0), sorted.last().unwrap_or(&0.0));
        let mut text = format!("{low:>8.decimals$} {:>8.decimals$} {high:>8.decimals$} ", self.median());
        for sample in &self.0 {
            // Writing to a String can't fail.
            let _ = write!(text, " {sample:.decimals$}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (samples, expect) in [(vec![], 0.0), (vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5)]
        {
            assert_eq!(Samples(samples).median(), expect);
        }
    }

    #[test]
    fn samples_are_compared_round_by_round() {
        let (one, other) = (Samples(vec![2.0, 20.0, 3.0]), Samples(vec![1.0, 10.0, 3.0]));
        assert_eq!(one.ratio_to(&other), 2.0);
    }
}
