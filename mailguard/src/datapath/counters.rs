//! Reading the counters, which every CPU keeps for itself.

use aya::Ebpf;
use aya::maps::{MapData, MapError, PerCpuArray};
use mailguard_common::layout::{Count, Reason, map};

use super::object::take_map;
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

    /// All reasons, those that never occurred too.
    pub(super) fn reasons(&self) -> Result<Vec<ReasonCount>, DatapathError> {
        let count = |reason: &Reason| {
            let count = total(&self.reasons, *reason as u32).map_err(DatapathError::map(map::STATS))?;
            Ok(ReasonCount { reason: reason.name(), packets: count.packets, octets: count.octets })
        };
        Reason::ALL.iter().map(count).collect()
    }
}

/// The sum over all CPUs.
pub(super) fn total(counts: &PerCpuArray<MapData, Count>, index: u32) -> Result<Count, MapError> {
    let sum = |sum: Count, count: &Count| Count {
        packets: sum.packets + count.packets,
        octets: sum.octets + count.octets,
        last_ns: sum.last_ns.max(count.last_ns),
    };
    Ok(counts.get(&index, 0)?.iter().fold(Count::default(), sum))
}
