//! Reading the counters: by reason, and by rule.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use mailguard_common::layout::{Count, Reason, RuleValue, map};

use super::object::take_map;
use super::rule_maps::Entry;
use super::{DatapathError, ReasonCount, RuleCount};

/// The open counters.
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

/// The rules that decided about any packet.
pub(super) fn rules(
    hits: &PerCpuArray<MapData, Count>,
    installed: &BTreeMap<Entry, RuleValue>,
) -> Result<Vec<RuleCount>, DatapathError> {
    let mut rules = Vec::new();
    for (entry, value) in installed {
        let count = total(hits, value.rule).map_err(DatapathError::map(map::RULE_HITS))?;
        if count.packets > 0 {
            let (list, value) = entry.describe();
            rules.push(RuleCount { list, value, packets: count.packets, octets: count.octets });
        }
    }
    Ok(rules)
}

/// The sum over all CPUs.
fn total(counts: &PerCpuArray<MapData, Count>, index: u32) -> Result<Count, aya::maps::MapError> {
    let sum = |sum: Count, count: &Count| Count {
        packets: sum.packets + count.packets,
        octets: sum.octets + count.octets,
    };
    Ok(counts.get(&index, 0)?.iter().fold(Count::default(), sum))
}
