//! What the rule maps say of a flow: the kernel's side of `decide::Lookups`.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::lpm_trie::Key;
use mailguard_common::decide::Lookups;
use mailguard_common::layout::RuleValue;
use mailguard_common::packet::{Flow, Octets};

use crate::maps::{
    BLACKLIST_HOSTS, BLACKLIST4, BLACKLIST6, BYPASS_DST4, BYPASS_DST6, BYPASS_MAC, BYPASS_SRC4, BYPASS_SRC6,
};

/// Offset of the source address in an Ethernet header.
const ETHERNET_SOURCE: usize = 6;

/// The maps, and the frame for its Ethernet addresses.
pub(crate) struct Maps<P> {
    /// The frame.
    pub(crate) frame: P,
    /// Whether it has an Ethernet header.
    pub(crate) ethernet: bool,
}

#[inline(always)]
fn longest4(map: &LpmTrie<[u8; 4], RuleValue>, address: [u8; 4]) -> Option<RuleValue> {
    map.get(Key::new(32, address)).copied()
}

#[inline(always)]
fn longest6(map: &LpmTrie<[u8; 16], RuleValue>, address: [u8; 16]) -> Option<RuleValue> {
    map.get(Key::new(128, address)).copied()
}

impl<P: Octets> Lookups for Maps<P> {
    #[inline(always)]
    fn bypass_mac(&self) -> Option<RuleValue> {
        if !self.ethernet {
            return None;
        }
        let mac = self.frame.octets::<6>(ETHERNET_SOURCE)?;
        // SAFETY: an entry that is replaced meanwhile yields another rule's value, never invalid memory.
        unsafe { BYPASS_MAC.get(mac) }.copied()
    }

    #[inline(always)]
    fn bypass_source(&self, flow: &Flow) -> Option<RuleValue> {
        if flow.is_ipv6() {
            longest6(&BYPASS_SRC6, flow.source)
        } else {
            longest4(&BYPASS_SRC4, flow.source_v4())
        }
    }

    #[inline(always)]
    fn bypass_destination(&self, flow: &Flow) -> Option<RuleValue> {
        if flow.is_ipv6() {
            longest6(&BYPASS_DST6, flow.destination)
        } else {
            longest4(&BYPASS_DST4, flow.destination_v4())
        }
    }

    #[inline(always)]
    fn blacklist_host(&self, flow: &Flow) -> Option<RuleValue> {
        // SAFETY: as for BYPASS_MAC.
        unsafe { BLACKLIST_HOSTS.get(&flow.source) }.copied()
    }

    #[inline(always)]
    fn blacklist_prefix(&self, flow: &Flow) -> Option<RuleValue> {
        if flow.is_ipv6() {
            longest6(&BLACKLIST6, flow.source)
        } else {
            longest4(&BLACKLIST4, flow.source_v4())
        }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_ktime_get_ns() }
    }
}
