//! The maps: their names, limits, keys and values, one layout for both sides.
//!
//! A change of anything in this file that alters a key, a value, a limit or a meaning raises [`ABI`]: maps of
//! another ABI are never read, they are built anew beside the old ones.

/// Version of the layouts below; the maps are pinned in a folder of this number.
pub const ABI: u32 = 4;

pub use crate::reason::Reason;

/// TCP port of SMTP (RFC 5321 §4.5.4.2).
pub const SMTP_PORT: u16 = 25;

/// Mark of a packet that goes to one of our sockets: the policy rule delivers it locally.
pub const PACKET_MARK: u32 = 0x1000_0000;
/// Mark (SO_MARK) of our transparent listeners, inherited by the sessions that they accept.
pub const SOCKET_MARK: u32 = 0x2000_0000;

/// The proxy is taken for dead when its last heartbeat is older than this, nanoseconds.
pub const HEARTBEAT_STALE_NS: u64 = 3_000_000_000;

/// Zones that can have listeners.
pub const MAX_ZONES: u32 = 64;
/// Interfaces of all zones together.
pub const MAX_INTERFACES: u32 = 256;
/// Indexes of interfaces that are found without a search: a host's first ones, which its ports have.
pub const NEAR_INTERFACES: u32 = 4_096;
/// Clients that can be banned at one time.
pub const MAX_BANS: u32 = 65_536;
/// Entries in each blacklist map.
pub const MAX_BLACKLIST: u32 = 65_536;
/// Entries in the map of IPv4 prefixes: networks, and addresses whose [`HostBucket`] is full.
pub const MAX_BLACKLIST4: u32 = 2 * MAX_BLACKLIST;
/// Entries in each map of IPv6: blacklisted ones, and whitelisted parts of networks that can be banned.
pub const MAX_BLACKLIST6: u32 = 2 * MAX_BLACKLIST;
/// Buckets of [`map::BLACKLIST_HOSTS4`]: a quarter full when there are [`MAX_BLACKLIST`] addresses, so that
/// some ten of these find no place.
pub const HOST_BUCKETS: u32 = 1 << 15;
/// Addresses in a bucket: one line of the processor's cache.
pub const HOSTS_A_BUCKET: usize = 8;
/// Entries in each bypass map.
pub const MAX_BYPASS: u32 = 16_384;
/// Entries in each map of those who may send: 16,384 networks, and one for all others of each zone.
pub const MAX_ALLOW: u32 = 16_384 + MAX_ZONES;
/// Bits of [`zone_number`] before the address in a key of these maps.
pub const ZONE_BITS: u32 = u64::BITS;
/// Rules and bans of all maps together: each has a counter.
pub const MAX_RULES: u32 = 196_608;
/// Reconnections noted at one time; the oldest is forgotten.
pub const MAX_RECONNECTING: u32 = 4_096;
/// How long a note that a bypassed client has reconnected counts, nanoseconds: as long as TIME_WAIT lasts.
pub const RECONNECTION_NS: u64 = 60_000_000_000;

/// Octets of the ring of events: some thousand events that wait to be read.
pub const EVENT_RING_OCTETS: u32 = 1 << 18;
/// Shortest time between two events of one reason and CPU, nanoseconds; those between are only counted.
pub const EVENT_INTERVAL_NS: u64 = 100_000_000;

/// Names of the maps, as the object and the pins have them.
pub mod map {
    /// 0 ▶ [`super::Settings`]
    pub const CONFIG: &str = "CONFIG";
    /// Interface index below [`super::NEAR_INTERFACES`] ▶ [`super::Interface`]; one without duties is
    /// nobody's
    pub const IFACES_NEAR: &str = "IFACES_NEAR";
    /// Any other interface index ▶ [`super::Interface`]
    pub const IFACES_FAR: &str = "IFACES_FAR";
    /// [`super::listener_index`] ▶ listening socket
    pub const LISTENERS: &str = "LISTENERS";
    /// [`super::ban_key`] ▶ [`super::Ban`]
    pub const BANS: &str = "BANS";
    /// [`super::host_bucket`] of an IPv4 address ▶ [`super::HostBucket`]
    pub const BLACKLIST_HOSTS4: &str = "BLACKLIST_HOSTS4";
    /// IPv6 address ▶ [`super::RuleValue`]
    pub const BLACKLIST_HOSTS6: &str = "BLACKLIST_HOSTS6";
    /// IPv4 prefix ▶ [`super::RuleValue`]
    pub const BLACKLIST4: &str = "BLACKLIST4";
    /// IPv6 prefix ▶ [`super::RuleValue`]
    pub const BLACKLIST6: &str = "BLACKLIST6";
    /// IPv4 prefix ▶ [`super::RuleValue`]
    pub const BYPASS_SRC4: &str = "BYPASS_SRC4";
    /// IPv6 prefix ▶ [`super::RuleValue`]
    pub const BYPASS_SRC6: &str = "BYPASS_SRC6";
    /// IPv4 prefix ▶ [`super::RuleValue`]
    pub const BYPASS_DST4: &str = "BYPASS_DST4";
    /// IPv6 prefix ▶ [`super::RuleValue`]
    pub const BYPASS_DST6: &str = "BYPASS_DST6";
    /// [`super::zone_key4`] ▶ [`super::RuleValue`]: all networks of a zone's `allow_clients`, and 0.0.0.0/0
    /// for the others; nothing of a zone that everybody may send from
    pub const ALLOW4: &str = "ALLOW4";
    /// The same with [`super::zone_key6`]
    pub const ALLOW6: &str = "ALLOW6";
    /// MAC ▶ [`super::RuleValue`]
    pub const BYPASS_MAC: &str = "BYPASS_MAC";
    /// [`super::Tuple`] ▶ [`super::Reconnection`]
    pub const TWSYN: &str = "TWSYN";
    /// Rule number / [`super::HITS_A_BLOCK`] ▶ [`super::HitBlock`], a CPU
    pub const RULE_HITS: &str = "RULE_HITS";
    /// Rule number ▶ hits that its number had before it; the programs don't look at it
    pub const RULE_BASES: &str = "RULE_BASES";
    /// [`super::Reason`] ▶ [`super::Count`], a CPU
    pub const STATS: &str = "STATS";
    /// [`super::Event`]s for the log.
    pub const EVENTS: &str = "EVENTS";
    /// [`super::Reason`] ▶ time of its last event, a CPU
    pub const EVENT_PACE: &str = "EVENT_PACE";
    /// 0 ▶ [`crate::packet::Flow`], a CPU: the parsed packet, only while a program runs
    pub const SCRATCH: &str = "SCRATCH";
    /// 0 ▶ 1 where the socket look-up program has answered, a CPU: only while a program asks it
    pub const HOME: &str = "HOME";
}

/// What every program reads first.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Time of the proxy's last sign of life, nanoseconds of CLOCK_MONOTONIC; 0: it is down.
    pub heartbeat_ns: u64,
    /// The network namespace that the maps are for (SO_NETNS_COOKIE); the programs can't compare it.
    pub netns_cookie: u64,
    /// 0: every packet passes.
    pub armed: u32,
    /// What becomes of new connections without a proxy: [`FAIL_BLOCK`] or [`FAIL_BYPASS`].
    pub fail_mode: u32,
    /// Which rule maps hold anything: the `HAS_` bits. The others need no look-up.
    pub populated: u32,
    /// Always 0.
    pub padding: u32,
}

/// New connections are dropped while the proxy is down.
pub const FAIL_BLOCK: u32 = 0;
/// New connections pass while the proxy is down.
pub const FAIL_BYPASS: u32 = 1;

/// [`map::BLACKLIST_HOSTS4`] isn't empty.
pub const HAS_BLACKLIST_HOSTS4: u32 = 1;
/// [`map::BLACKLIST4`] isn't empty.
pub const HAS_BLACKLIST4: u32 = 1 << 1;
/// [`map::BLACKLIST6`] isn't empty.
pub const HAS_BLACKLIST6: u32 = 1 << 2;
/// [`map::BYPASS_SRC4`] isn't empty.
pub const HAS_BYPASS_SRC4: u32 = 1 << 3;
/// [`map::BYPASS_SRC6`] isn't empty.
pub const HAS_BYPASS_SRC6: u32 = 1 << 4;
/// [`map::BYPASS_DST4`] isn't empty.
pub const HAS_BYPASS_DST4: u32 = 1 << 5;
/// [`map::BYPASS_DST6`] isn't empty.
pub const HAS_BYPASS_DST6: u32 = 1 << 6;
/// [`map::BYPASS_MAC`] isn't empty.
pub const HAS_BYPASS_MAC: u32 = 1 << 7;
/// [`map::BANS`] isn't empty.
pub const HAS_BANS: u32 = 1 << 8;
/// [`map::BLACKLIST_HOSTS6`] isn't empty.
pub const HAS_BLACKLIST_HOSTS6: u32 = 1 << 9;
/// [`map::ALLOW4`] isn't empty.
pub const HAS_ALLOW4: u32 = 1 << 10;
/// [`map::ALLOW6`] isn't empty.
pub const HAS_ALLOW6: u32 = 1 << 11;

impl Settings {
    /// Whether the proxy showed a sign of life lately. `now_ns` is CLOCK_MONOTONIC.
    #[inline(always)]
    pub fn proxy_alive(&self, now_ns: u64) -> bool {
        self.heartbeat_ns != 0 && now_ns.saturating_sub(self.heartbeat_ns) <= HEARTBEAT_STALE_NS
    }

    /// Whether the rule map of this `HAS_` bit holds anything.
    #[inline(always)]
    pub fn has(&self, bit: u32) -> bool {
        self.populated & bit != 0
    }
}

/// An interface of a zone.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interface {
    /// [`zone_number`] of its zone.
    pub zone: u64,
    /// Where its zone's listeners stand: [`listener_index`].
    pub slot: u32,
    /// What is done here: the `INTERFACE_` bits.
    pub duties: u32,
    /// 1: its frames have an Ethernet header.
    pub ethernet: u32,
    /// Always 0.
    pub padding: u32,
}

/// What the kernel knows a zone by: made of its name alone (FNV-1a), for a zone may change its place in the
/// file while its interfaces and its rules are changed one after another.
pub const fn zone_number(name: &str) -> u64 {
    let (octets, mut hash, mut at) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325u64, 0);
    while at < octets.len() {
        hash = (hash ^ octets[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

/// An IPv4 client of a zone, as the maps of those who may send have it.
#[inline(always)]
pub const fn zone_key4(zone: u64, address: [u8; 4]) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = zone.to_be_bytes();
    let [i, j, k, l] = address;
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// An IPv6 client of a zone.
#[inline(always)]
pub const fn zone_key6(zone: u64, address: [u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    let (zone, mut at) = (zone.to_be_bytes(), 0);
    while at < 8 {
        key[at] = zone[at];
        at += 1;
    }
    while at < 24 {
        key[at] = address[at - 8];
        at += 1;
    }
    key
}

/// New connections are checked: bypass, bans, blacklist, who may send.
pub const INTERFACE_CHECKS: u32 = 1;
/// New connections to port 25 go to the zone's listener.
pub const INTERFACE_STEERS: u32 = 1 << 1;
/// Packets of our sessions are given to them. Outlives [`INTERFACE_STEERS`] when the zone's mode changes, so
/// that open sessions end in their own time.
pub const INTERFACE_SERVES: u32 = 1 << 2;

impl Interface {
    /// Whether all these `INTERFACE_` bits are set.
    #[inline(always)]
    pub fn has(&self, duty: u32) -> bool {
        self.duties & duty == duty
    }
}

/// What a rule map says of an address.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleValue {
    /// Number of the rule: index of its counter.
    pub rule: u32,
    /// One of the `ACTION_` numbers.
    pub action: u32,
}

impl RuleValue {
    /// No entry. Not an `Option`: the programs would carry its empty half about, which the verifier takes for
    /// a read of nothing.
    pub const NONE: Self = Self { rule: 0, action: ACTION_NONE };
}

/// Nothing is said.
pub const ACTION_NONE: u32 = 0;
/// Blacklist, and who may send: the packet is dropped.
pub const ACTION_DROP: u32 = 1;
/// The same: the packet is answered with a RST.
pub const ACTION_RESET: u32 = 2;
/// The same: nothing is done.
pub const ACTION_ALLOW: u32 = 3;
/// Bypass: the connection passes.
pub const ACTION_BYPASS: u32 = 4;
/// Bypass: an exception, the connection is intercepted.
pub const ACTION_INTERCEPT: u32 = 5;

/// A banned client.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ban {
    /// When it ends, nanoseconds of CLOCK_MONOTONIC.
    pub until_ns: u64,
    /// What is done to the client until then: [`ACTION_DROP`] or [`ACTION_RESET`].
    pub value: RuleValue,
}

/// Whom a ban is about: an IPv4-mapped address, or the first 64 bits of an IPv6 one, for whoever has one
/// address there has them all.
#[inline(always)]
pub const fn ban_key(client: [u8; 16], ipv6: bool) -> [u8; 16] {
    // As a number, as in `mapped`.
    if ipv6 { (u128::from_be_bytes(client) & (u128::MAX << 64)).to_be_bytes() } else { client }
}

impl Ban {
    /// What is said of the client now: nothing once the ban has ended.
    #[inline(always)]
    pub fn at(&self, now_ns: u64) -> RuleValue {
        if now_ns < self.until_ns { self.value } else { RuleValue::NONE }
    }
}

/// Some IPv4 addresses and what is said of each. A kernel's hash map takes two or three lines of the cache
/// for what is one here, and a call.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostBucket {
    /// The places; an empty one is all 0.
    pub hosts: [Host; HOSTS_A_BUCKET],
}

/// One of them.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Host {
    /// The address, the first octet the most significant.
    pub address: u32,
    /// [`Host::value`], packed.
    packed: u32,
}

/// Bits of a rule's number in [`Host`]; its action is in those above.
const HOST_RULE_BITS: u32 = 24;

impl Host {
    /// Says this of the address.
    pub const fn new(address: [u8; 4], value: RuleValue) -> Self {
        Self {
            address: u32::from_be_bytes(address),
            packed: value.action << HOST_RULE_BITS | value.rule & ((1 << HOST_RULE_BITS) - 1),
        }
    }

    /// What is said of the address.
    #[inline(always)]
    pub const fn value(self) -> RuleValue {
        RuleValue { rule: self.packed & ((1 << HOST_RULE_BITS) - 1), action: self.packed >> HOST_RULE_BITS }
    }
}

impl HostBucket {
    /// What is said of the address, if this is its bucket.
    #[inline(always)]
    pub fn get(&self, address: [u8; 4]) -> RuleValue {
        let address = u32::from_be_bytes(address);
        let mut found = 0;
        // All of them, without a way out: fewer ways for the verifier to follow.
        for host in &self.hosts {
            if host.address == address {
                found |= host.packed;
            }
        }
        Host { address, packed: found }.value()
    }
}

/// The bucket of an IPv4 address: bits well mixed, whatever the addresses have in common (the finalizer of
/// MurmurHash3).
#[inline(always)]
pub const fn host_bucket(address: [u8; 4]) -> u32 {
    let mut bits = u32::from_be_bytes(address);
    bits = (bits ^ bits >> 16).wrapping_mul(0x85eb_ca6b);
    bits = (bits ^ bits >> 13).wrapping_mul(0xc2b2_ae35);
    (bits ^ bits >> 16) % HOST_BUCKETS
}

/// Packets and octets counted by one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Octets of the frames.
    pub octets: u64,
}

/// New connections that a rule decided about, counted by one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// Packets.
    pub packets: u64,
    /// When the last of them was counted, nanoseconds of CLOCK_MONOTONIC, a few milliseconds coarse; 0:
    /// never.
    pub last_ns: u64,
}

/// Rules that are counted in one [`HitBlock`].
pub const HITS_A_BLOCK: u32 = 64;
/// [`HitBlock`]s: room for [`MAX_RULES`].
pub const HIT_BLOCKS: u32 = MAX_RULES / HITS_A_BLOCK;

/// The hits of rules with neighbouring numbers. The kernel keeps a pointer for each value of a map that every
/// CPU has for itself: in blocks there are few enough of them to stay in the cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HitBlock {
    /// Of each rule, by its number modulo [`HITS_A_BLOCK`].
    pub hits: [Hits; HITS_A_BLOCK as usize],
}

/// A reconnection that met our TIME_WAIT socket. Addresses are IPv6 or IPv4-mapped, ports in network order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// The client.
    pub source: [u8; 16],
    /// Its destination.
    pub destination: [u8; 16],
    /// The client's port.
    pub source_port: [u8; 2],
    /// Always 0.
    pub padding: [u8; 2],
}

/// What a reconnection meets.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnection {
    /// When it was noted, nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Index of the listener that is to have it, or [`BYPASSED`].
    pub listener: u32,
    /// Always 0.
    pub padding: u32,
}

/// The new connection passes us by: its packets aren't for the closed session, though it has the same tuple.
pub const BYPASSED: u32 = u32::MAX;

impl Reconnection {
    /// Whether it says that the tuple is no longer ours.
    #[inline(always)]
    pub fn bypassed_at(&self, now_ns: u64) -> bool {
        self.listener == BYPASSED && now_ns.saturating_sub(self.at_ns) < RECONNECTION_NS
    }
}

/// Something that an administrator should see.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event {
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// The client: an IPv6 address or an IPv4-mapped one.
    pub source: [u8; 16],
    /// Its destination.
    pub destination: [u8; 16],
    /// The [`Reason`]'s number.
    pub reason: u32,
    /// Index of the interface that the packet came in by.
    pub interface: u32,
    /// The client's port, network order.
    pub source_port: [u8; 2],
    /// Always 0.
    pub padding: [u8; 6],
}

/// Where the listener of the zone in `slot` stands in [`map::LISTENERS`].
#[inline(always)]
pub const fn listener_index(slot: u32, ipv6: bool) -> u32 {
    slot * 2 + ipv6 as u32
}

/// Entries of [`map::STATS`]: as many as [`Reason`] has, rounded up for reasons to come.
pub const MAX_REASONS: u32 = 32;

const _: () = {
    assert!(size_of::<Settings>() == 32);
    assert!(size_of::<Interface>() == 24);
    assert!(size_of::<RuleValue>() == 8);
    assert!(size_of::<Ban>() == 16);
    assert!(size_of::<HostBucket>() == 64);
    assert!(MAX_RULES <= 1 << HOST_RULE_BITS);
    assert!(size_of::<Count>() == 16);
    assert!(size_of::<HitBlock>() == 1_024);
    assert!(HIT_BLOCKS * HITS_A_BLOCK == MAX_RULES);
    assert!(size_of::<Tuple>() == 36);
    assert!(size_of::<Reconnection>() == 16);
    assert!(size_of::<Event>() == 56);
    assert!(size_of::<crate::packet::Flow>() == 48);
    assert!(Reason::ALL.len() <= MAX_REASONS as usize);
};

#[cfg(feature = "user")]
mod user {
    // SAFETY: #[repr(C)], made of integers only, without padding bytes (the sizes are asserted above).
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Interface {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RuleValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::HostBucket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::HitBlock {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Count {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Tuple {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Ban {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Reconnection {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Event {}
}

#[cfg(test)]
mod tests;
