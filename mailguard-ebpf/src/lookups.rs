//! What the rule maps say of a flow: the kernel's side of `decide::Lookups`.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::lpm_trie::Key;
use mailguard_common::decide::Lookups;
use mailguard_common::maps::{Interface, RuleValue, ZONE_BITS, ban_key, host_bucket, zone_key4, zone_key6};
use mailguard_common::packet::Flow;

use crate::maps::{
    ALLOW4, ALLOW6, BANS, BLACKLIST_HOSTS4, BLACKLIST_HOSTS6, BLACKLIST4, BLACKLIST6, BYPASS_DST4,
    BYPASS_DST6, BYPASS_MAC, BYPASS_SRC4, BYPASS_SRC6,
};

/// A frame that knows who sent it.
pub(crate) trait Sender {
    /// The source address of its Ethernet header, if it has one.
    fn mac(&self) -> Option<[u8; 6]>;
}

/// The maps, and the frame for its Ethernet addresses.
pub(crate) struct Maps<S> {
    /// The frame.
    pub(crate) frame: S,
}

#[inline(always)]
fn found(value: Option<&RuleValue>) -> RuleValue {
    match value {
        Some(value) => *value,
        None => RuleValue::NONE,
    }
}

#[inline(always)]
fn longest4(map: &LpmTrie<[u8; 4], RuleValue>, address: [u8; 4]) -> RuleValue {
    found(map.get(Key::new(32, address)))
}

#[inline(always)]
fn longest6(map: &LpmTrie<[u8; 16], RuleValue>, address: [u8; 16]) -> RuleValue {
    found(map.get(Key::new(128, address)))
}

impl<S: Sender> Lookups for Maps<S> {
    #[inline(always)]
    fn bypass_mac(&self) -> RuleValue {
        let Some(mac) = self.frame.mac() else { return RuleValue::NONE };
        // SAFETY: an entry that is replaced meanwhile yields another rule's value, never invalid memory.
        found(unsafe { BYPASS_MAC.get(mac) })
    }

    #[inline(always)]
    fn bypass_source(&self, flow: &Flow) -> RuleValue {
        if flow.is_ipv6() {
            longest6(&BYPASS_SRC6, flow.source)
        } else {
            longest4(&BYPASS_SRC4, flow.source_v4())
        }
    }

    #[inline(always)]
    fn bypass_destination(&self, flow: &Flow) -> RuleValue {
        if flow.is_ipv6() {
            longest6(&BYPASS_DST6, flow.destination)
        } else {
            longest4(&BYPASS_DST4, flow.destination_v4())
        }
    }

    #[inline(always)]
    fn ban(&self, flow: &Flow) -> RuleValue {
        let key = ban_key(flow.source, flow.is_ipv6());
        // SAFETY: as for BYPASS_MAC.
        match unsafe { BANS.get(&key) } {
            Some(ban) => ban.at(self.now_ns()),
            None => RuleValue::NONE,
        }
    }

    #[inline(always)]
    fn blacklist_host(&self, flow: &Flow) -> RuleValue {
        if !flow.is_ipv6() {
            let address = flow.source_v4();
            return match BLACKLIST_HOSTS4.get(host_bucket(address)) {
                Some(bucket) => bucket.get(address),
                None => RuleValue::NONE,
            };
        }
        // A copy, so that of the flow in XDP only what is looked at is ever written.
        let key = flow.source;
        // SAFETY: as for BYPASS_MAC.
        found(unsafe { BLACKLIST_HOSTS6.get(&key) })
    }

    #[inline(always)]
    fn blacklist_prefix(&self, flow: &Flow) -> RuleValue {
        if flow.is_ipv6() {
            longest6(&BLACKLIST6, flow.source)
        } else {
            longest4(&BLACKLIST4, flow.source_v4())
        }
    }

    #[inline(always)]
    fn allowed(&self, flow: &Flow, interface: Interface) -> RuleValue {
        if flow.is_ipv6() {
            found(ALLOW6.get(Key::new(ZONE_BITS + 128, zone_key6(interface.zone, flow.source))))
        } else {
            found(ALLOW4.get(Key::new(ZONE_BITS + 32, zone_key4(interface.zone, flow.source_v4()))))
        }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: no arguments, no effects.
        unsafe { bpf_ktime_get_ns() }
    }
}
