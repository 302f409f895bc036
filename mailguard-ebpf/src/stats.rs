//! Counting: a packet by its reason, and by its rule where there is one; and the events that are logged.
//!
//! Never while a socket is held: each counter is a branch that the verifier would follow with the socket in
//! hand.

use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use mailguard_common::maps::{EVENT_INTERVAL_NS, Event, HITS_A_BLOCK, Reason};
use mailguard_common::packet::Flow;

use crate::maps::{EVENT_PACE, EVENTS, RULE_HITS, STATS};

/// Counts one packet of `octets`.
#[inline(always)]
pub(crate) fn count(reason: Reason, rule: Option<u32>, octets: u32) {
    if let Some(count) = STATS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot is this CPU's own, and no other program interrupts this one on it.
        unsafe {
            (*count).packets += 1;
            (*count).octets += u64::from(octets);
        }
    }
    if let Some(rule) = rule {
        hit(rule);
    }
}

#[inline(always)]
fn hit(rule: u32) {
    if let Some(block) = RULE_HITS.get_ptr_mut(rule / HITS_A_BLOCK) {
        // SAFETY: as above; the index is within the block.
        unsafe {
            let hits = &raw mut (*block).hits[(rule % HITS_A_BLOCK) as usize];
            (*hits).packets += 1;
            (*hits).last_ns = coarse_now();
        }
    }
}

#[inline(always)]
fn coarse_now() -> u64 {
    // SAFETY: no arguments, no effects.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Puts an event into the ring if `reason` is one and the last of its kind is long enough ago. When the ring
/// is full the event is lost; the counters have it.
#[inline(never)]
pub(crate) fn report(reason: Reason, flow: &Flow, interface: u32) {
    if !reason.is_event() {
        return;
    }
    let Some(last) = EVENT_PACE.get_ptr_mut(reason as u32) else { return };
    // SAFETY: no arguments, no effects; the slot is this CPU's own.
    let now = unsafe {
        let now = bpf_ktime_get_ns();
        if now.saturating_sub(*last) < EVENT_INTERVAL_NS {
            return;
        }
        *last = now;
        now
    };
    // The counters have what the ring has no room for. Written in place: the stack is small.
    let Some(mut event) = EVENTS.reserve::<Event>(0) else { return };
    event.write(Event {
        at_ns: now,
        source: flow.source,
        destination: flow.destination,
        reason: reason as u32,
        interface,
        source_port: flow.source_port,
        padding: [0; 6],
    });
    event.submit(0);
}
