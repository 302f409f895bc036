//! Packets per second, from the counters as they stood at the last heartbeats.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time over which rates are averaged; a heartbeat comes each second.
const SPAN: Duration = Duration::from_secs(10);
/// Samples that are kept, should heartbeats come faster than that.
const MAX_SAMPLES: usize = 32;

/// The last samples of the counters.
#[derive(Default)]
pub(super) struct Rates {
    samples: VecDeque<(Instant, Vec<u64>)>,
}

impl Rates {
    /// Notes the counters as they stand `now`.
    pub(super) fn note(&mut self, now: Instant, counters: Vec<u64>) {
        self.samples.push_back((now, counters));
        while self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
        }
        // One that is older than the span stays, for the span to have a beginning.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= SPAN) {
            self.samples.pop_front();
        }
    }

    /// How fast each of the counters grew up to `now`, when they stand at `counters`, in units per second
    /// with one decimal; 0 before there is a sample. They can start anew at 0.
    pub(super) fn per_second(&self, now: Instant, counters: &[u64]) -> Vec<f64> {
        let since = self.samples.iter().rev().find(|(at, _)| now.saturating_duration_since(*at) >= SPAN);
        let Some((at, before)) = since.or(self.samples.front()) else { return vec![0.0; counters.len()] };
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        let rate = |(counter, before): (&u64, &u64)| match seconds > 0.0 {
            true => (counter.saturating_sub(*before) as f64 / seconds * 10.0).round() / 10.0,
            false => 0.0,
        };
        counters.iter().zip(before).map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn rates_are_those_of_the_last_ten_seconds() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        assert_eq!(rates.per_second(start, &[7, 7]), [0.0, 0.0], "nothing is known yet");
        rates.note(start, vec![100, 0]);
        assert_eq!(rates.per_second(start, &[100, 0]), [0.0, 0.0], "no time has passed");
        assert_eq!(rates.per_second(start + 2 * SECOND, &[400, 1]), [150.0, 0.5]);
        for second in 1..=100 {
            // A flood that ends after a minute.
            rates.note(start + second * SECOND, vec![100 + 30 * u64::from(second.min(60)), 0]);
            assert!(rates.samples.len() <= 11, "{}", rates.samples.len());
            let now = rates.samples.back().unwrap().clone();
            let expect = f64::from(3 * (10 - second.saturating_sub(60).min(10)));
            assert_eq!(rates.per_second(now.0, &now.1)[0], expect, "second {second}");
        }
    }

    #[test]
    fn the_samples_are_few_however_fast_they_come() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for number in 0..1_000u32 {
            rates.note(start + number * Duration::from_millis(1), vec![u64::from(number)]);
        }
        assert_eq!(rates.samples.len(), MAX_SAMPLES);
        assert_eq!(rates.per_second(start + Duration::from_millis(999), &[999]), [1_000.0]);
        assert_eq!(rates.per_second(start + SECOND, &[0]), [0.0], "counters that began anew");
    }
}
