//! Reading the counters, which every CPU keeps for itself.

use std::time::Instant;

use aya::Ebpf;
use aya::maps::{MapData, MapError, PerCpuArray};
use mailguard_common::maps::{Count, Reason, map};

use super::object::take_map;
use super::rates::Rates;
use super::{DatapathError, ReasonCount};

/// The open counters of reasons.
pub(super) struct Counters {
    reasons: PerCpuArray<MapData, Count>,
}

impl Counters {
    /// Opens the counters of the loaded object.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self { reasons: take_map(ebpf, map::STATS)? })
    }

    /// All reasons, those that never occurred too, with their rates since the samples in `rates`.
    pub(super) fn reasons(&self, rates: &Rates) -> Result<Vec<ReasonCount>, DatapathError> {
        let counts = self.counts()?;
        let packets: Vec<u64> = counts.iter().map(|count| count.packets).collect();
        let rates = rates.per_second(Instant::now(), &packets);
        let reasons = Reason::ALL.iter().zip(counts).zip(rates);
        let row = |((reason, count), per_second): ((&Reason, Count), f64)| ReasonCount {
            reason: (*reason).into(),
            packets: count.packets,
            octets: count.octets,
            per_second,
        };
        Ok(reasons.map(row).collect())
    }

    /// Packets of each reason, in the order of [`Reason::ALL`].
    pub(super) fn packets(&self) -> Result<Vec<u64>, DatapathError> {
        Ok(self.counts()?.iter().map(|count| count.packets).collect())
    }

    fn counts(&self) -> Result<Vec<Count>, DatapathError> {
        let count = |reason: &Reason| total(&self.reasons, *reason as u32);
        Reason::ALL.iter().map(count).collect::<Result<_, _>>().map_err(DatapathError::map(map::STATS))
    }
}

/// The sum over all CPUs.
fn total(counts: &PerCpuArray<MapData, Count>, index: u32) -> Result<Count, MapError> {
    let sum = |sum: Count, count: &Count| Count {
        packets: sum.packets + count.packets,
        octets: sum.octets + count.octets,
    };
    Ok(counts.get(&index, 0)?.iter().fold(Count::default(), sum))
}
