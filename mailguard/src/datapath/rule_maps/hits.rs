//! How often each rule decided. The programs only ever add to a number's counter; a rule that takes a number
//! over begins at what it finds there.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use mailguard_common::maps::{HITS_A_BLOCK, HitBlock, Hits, map};

use super::super::DatapathError;
use super::super::object::take_map;

type Block = [Hits; HITS_A_BLOCK as usize];

/// The open counters.
pub(super) struct RuleHits {
    blocks: PerCpuArray<MapData, HitBlock>,
    bases: Array<MapData, u64>,
    /// Blocks as they were read last, for numbers that nobody has: nothing is added to those, but by a
    /// program that was running when the number was given up.
    unused: BTreeMap<u32, Box<Block>>,
}

impl RuleHits {
    /// Opens the counters of the loaded object.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            blocks: take_map(ebpf, map::RULE_HITS)?,
            bases: take_map(ebpf, map::RULE_BASES)?,
            unused: BTreeMap::new(),
        })
    }

    /// A new rule gets this number: its hits count from now on.
    pub(super) fn begin(&mut self, rule: u32) -> Result<(), DatapathError> {
        let number = rule / HITS_A_BLOCK;
        if !self.unused.contains_key(&number) {
            self.unused.insert(number, self.block(number)?);
        }
        let before = self.unused.get(&number).map_or(0, |block| at(block, rule).packets);
        self.bases.set(rule, before, 0).map_err(DatapathError::map(map::RULE_BASES))
    }

    /// Nobody has the number any more.
    pub(super) fn end(&mut self, rule: u32) {
        self.unused.remove(&(rule / HITS_A_BLOCK));
    }

    /// Looks at all of them, as they are when each is asked for first.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { hits: self, blocks: BTreeMap::new() }
    }

    /// The sums over all CPUs.
    fn block(&self, number: u32) -> Result<Box<Block>, DatapathError> {
        let cpus = self.blocks.get(&number, 0).map_err(DatapathError::map(map::RULE_HITS))?;
        let mut sums = Box::new([Hits::default(); HITS_A_BLOCK as usize]);
        for cpu in cpus.iter() {
            for (sum, hits) in sums.iter_mut().zip(cpu.hits) {
                sum.packets += hits.packets;
                sum.last_ns = sum.last_ns.max(hits.last_ns);
            }
        }
        Ok(sums)
    }
}

fn at(block: &Block, rule: u32) -> Hits {
    block[(rule % HITS_A_BLOCK) as usize]
}

/// Reads each block once.
pub(super) struct Reader<'a> {
    hits: &'a RuleHits,
    blocks: BTreeMap<u32, Box<Block>>,
}

impl Reader<'_> {
    /// Packets that the rule decided about, and how long before `now_ns` it did so last; nothing if it never
    /// did.
    pub(super) fn of(&mut self, rule: u32, now_ns: u64) -> Result<Option<(u64, Duration)>, DatapathError> {
        let number = rule / HITS_A_BLOCK;
        if !self.blocks.contains_key(&number) {
            self.blocks.insert(number, self.hits.block(number)?);
        }
        let hits = self.blocks.get(&number).map_or(Hits::default(), |block| at(block, rule));
        if hits.packets == 0 {
            return Ok(None);
        }
        let base = self.hits.bases.get(&rule, 0).map_err(DatapathError::map(map::RULE_BASES))?;
        let ago = Duration::from_nanos(now_ns.saturating_sub(hits.last_ns));
        let packets = hits.packets.saturating_sub(base);
        Ok((packets > 0).then_some((packets, ago)))
    }
}
