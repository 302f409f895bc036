//! Counting: a packet by its reason, and by its rule where there is one. Never while a socket is held: each counter
//! is a branch that the verifier would follow with the socket in hand.

use aya_ebpf::maps::PerCpuArray;
use mailguard_common::layout::{Count, Reason};

use crate::maps::{RULE_HITS, STATS};

/// Counts one packet of `octets`.
#[inline(always)]
pub(crate) fn count(reason: Reason, rule: Option<u32>, octets: u32) {
    add(&STATS, reason as u32, octets);
    if let Some(rule) = rule {
        add(&RULE_HITS, rule, octets);
    }
}

#[inline(always)]
fn add(map: &PerCpuArray<Count>, index: u32, octets: u32) {
    if let Some(count) = map.get_ptr_mut(index) {
        // SAFETY: the slot is this CPU's own, and no other program interrupts this one on it.
        unsafe {
            (*count).packets += 1;
            (*count).octets += u64::from(octets);
        }
    }
}
