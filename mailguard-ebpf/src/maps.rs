//! The maps, as `mailguard_common::maps` describes them.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SockMap};
use mailguard_common::maps::{
    Ban, Count, EVENT_RING_OCTETS, HIT_BLOCKS, HOST_BUCKETS, HitBlock, HostBucket, Interface, MAX_ALLOW,
    MAX_BANS, MAX_BLACKLIST4, MAX_BLACKLIST6, MAX_BYPASS, MAX_INTERFACES, MAX_REASONS, MAX_RECONNECTING,
    MAX_RULES, MAX_ZONES, NEAR_INTERFACES, Reconnection, RuleValue, Settings, Tuple,
};
use mailguard_common::packet::Flow;

#[map]
pub(crate) static CONFIG: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static IFACES_NEAR: Array<Interface> = Array::with_max_entries(NEAR_INTERFACES, 0);
#[map]
pub(crate) static IFACES_FAR: HashMap<u32, Interface> = HashMap::with_max_entries(MAX_INTERFACES, 0);
#[map]
pub(crate) static LISTENERS: SockMap = SockMap::with_max_entries(MAX_ZONES * 2, 0);
#[map]
pub(crate) static BANS: HashMap<[u8; 16], Ban> = HashMap::with_max_entries(MAX_BANS, 0);
#[map]
pub(crate) static BLACKLIST_HOSTS4: Array<HostBucket> = Array::with_max_entries(HOST_BUCKETS, 0);
#[map]
pub(crate) static BLACKLIST_HOSTS6: HashMap<[u8; 16], RuleValue> =
    HashMap::with_max_entries(MAX_BLACKLIST6, 0);
#[map]
pub(crate) static BLACKLIST4: LpmTrie<[u8; 4], RuleValue> = LpmTrie::with_max_entries(MAX_BLACKLIST4, 0);
#[map]
pub(crate) static BLACKLIST6: LpmTrie<[u8; 16], RuleValue> = LpmTrie::with_max_entries(MAX_BLACKLIST6, 0);
#[map]
pub(crate) static BYPASS_SRC4: LpmTrie<[u8; 4], RuleValue> = LpmTrie::with_max_entries(MAX_BYPASS, 0);
#[map]
pub(crate) static BYPASS_SRC6: LpmTrie<[u8; 16], RuleValue> = LpmTrie::with_max_entries(MAX_BYPASS, 0);
#[map]
pub(crate) static BYPASS_DST4: LpmTrie<[u8; 4], RuleValue> = LpmTrie::with_max_entries(MAX_BYPASS, 0);
#[map]
pub(crate) static BYPASS_DST6: LpmTrie<[u8; 16], RuleValue> = LpmTrie::with_max_entries(MAX_BYPASS, 0);
#[map]
pub(crate) static ALLOW4: LpmTrie<[u8; 12], RuleValue> = LpmTrie::with_max_entries(MAX_ALLOW, 0);
#[map]
pub(crate) static ALLOW6: LpmTrie<[u8; 24], RuleValue> = LpmTrie::with_max_entries(MAX_ALLOW, 0);
#[map]
pub(crate) static BYPASS_MAC: HashMap<[u8; 6], RuleValue> = HashMap::with_max_entries(MAX_BYPASS, 0);
#[map]
pub(crate) static TWSYN: LruHashMap<Tuple, Reconnection> = LruHashMap::with_max_entries(MAX_RECONNECTING, 0);
#[map]
pub(crate) static RULE_HITS: PerCpuArray<HitBlock> = PerCpuArray::with_max_entries(HIT_BLOCKS, 0);
#[map]
pub(crate) static RULE_BASES: Array<u64> = Array::with_max_entries(MAX_RULES, 0);
#[map]
pub(crate) static STATS: PerCpuArray<Count> = PerCpuArray::with_max_entries(MAX_REASONS, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING_OCTETS, 0);
#[map]
pub(crate) static EVENT_PACE: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_REASONS, 0);
#[map]
pub(crate) static SCRATCH: PerCpuArray<Flow> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static HOME: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
