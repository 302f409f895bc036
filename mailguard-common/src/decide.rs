//! A flow and what the maps say of it in, a verdict out. The one place where a packet's fate is decided.
//!
//! The order is the promise: bypass before bans, the blacklist and who may send; these before everything else
//! about a new connection, and only there; a session of ours before every other rule, so that editing rules
//! never breaks one; the question whether the proxy lives last. The eBPF programs look up sockets and carry
//! verdicts out; [`decide`] is what they do, in one piece, for the tests.

use crate::maps::{
    ACTION_ALLOW, ACTION_BYPASS, ACTION_DROP, ACTION_NONE, ACTION_RESET, FAIL_BYPASS, HAS_ALLOW4, HAS_ALLOW6,
    HAS_BANS, HAS_BLACKLIST_HOSTS4, HAS_BLACKLIST_HOSTS6, HAS_BLACKLIST4, HAS_BLACKLIST6, HAS_BYPASS_DST4,
    HAS_BYPASS_DST6, HAS_BYPASS_MAC, HAS_BYPASS_SRC4, HAS_BYPASS_SRC6, INTERFACE_CHECKS, INTERFACE_STEERS,
    Interface, Reason, RuleValue, Settings,
};
use crate::packet::Flow;

/// Which local socket the packet's addresses and ports belong to. A listening one doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// None.
    None,
    /// One that isn't ours.
    Foreign,
    /// A session of ours.
    Ours,
    /// A closed session that the kernel still remembers, while the packet asks for a new connection.
    TimeWait,
}

/// What the maps know: [`RuleValue::NONE`] if nothing. Each is asked only when the map holds anything.
pub trait Lookups {
    /// The rule for the frame's source address, where there are Ethernet addresses.
    fn bypass_mac(&self) -> RuleValue;
    /// The rule of the longest prefix that holds the client.
    fn bypass_source(&self, flow: &Flow) -> RuleValue;
    /// The rule of the longest prefix that holds the destination address.
    fn bypass_destination(&self, flow: &Flow) -> RuleValue;
    /// What the ban of the client, or of its IPv6 network, says now.
    fn ban(&self, flow: &Flow) -> RuleValue;
    /// The rule for exactly this client.
    fn blacklist_host(&self, flow: &Flow) -> RuleValue;
    /// The rule of the longest prefix that holds the client.
    fn blacklist_prefix(&self, flow: &Flow) -> RuleValue;
    /// Whether the client may send from the interface's zone.
    fn allowed(&self, flow: &Flow, interface: Interface) -> RuleValue;
    /// CLOCK_MONOTONIC, nanoseconds.
    fn now_ns(&self) -> u64;
}

/// What becomes of a packet. A rule is there when a rule was the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketVerdict {
    /// It goes on as if mailguard weren't there.
    Next(Option<Reason>, Option<u32>),
    /// It is dropped.
    Drop(Reason, Option<u32>),
    /// It is answered with a RST, by this rule: never one that carries RST itself.
    Reset(Reason, u32),
    /// It is given to the socket that was found.
    Assign,
    /// It is given to the zone's listener.
    Intercept,
    /// It is the listener's if that says it answers a SYN cookie, else it goes on.
    AskListener,
}

/// The whole decision.
#[inline(always)]
pub fn decide(
    flow: &Flow,
    socket: Socket,
    settings: &Settings,
    interface: Interface,
    lookups: &impl Lookups,
) -> PacketVerdict {
    if settings.armed == 0 {
        return PacketVerdict::Next(None, None);
    }
    if let Some(verdict) = by_lists(flow, settings, interface, lookups) {
        return verdict;
    }
    match by_socket(socket) {
        Some(verdict) => verdict,
        None => by_rules(flow, settings, interface, lookups),
    }
}

/// The decision on a new connection of a client that is banned, blacklisted or may not send, unless a bypass
/// lets it pass. It comes before the look-up of a socket, which costs more: a SYN is no part of an open
/// session, whatever socket it meets.
#[inline(always)]
pub fn by_lists(
    flow: &Flow,
    settings: &Settings,
    interface: Interface,
    lookups: &impl Lookups,
) -> Option<PacketVerdict> {
    if !interface.has(INTERFACE_CHECKS) || !flow.is_syn() || flow.fragment != 0 {
        return None;
    }
    let (mut cause, mut value) = listed(flow, settings, lookups);
    if !refuses(value) {
        (cause, value) = (Cause::Zone, allowed(flow, settings, interface, lookups));
    }
    if !refuses(value) || bypass(flow, settings, lookups).action == ACTION_BYPASS {
        return None;
    }
    let (dropped, reset) = match cause {
        Cause::Ban => (Reason::BanDropped, Reason::BanReset),
        Cause::Blacklist => (Reason::BlacklistDropped, Reason::BlacklistReset),
        Cause::Zone => (Reason::NotAllowedDropped, Reason::NotAllowedReset),
    };
    Some(match value.action {
        ACTION_RESET if !flow.is_reset() => PacketVerdict::Reset(reset, value.rule),
        _ => PacketVerdict::Drop(dropped, Some(value.rule)),
    })
}

/// The decision where a socket settles it.
#[inline(always)]
pub fn by_socket(socket: Socket) -> Option<PacketVerdict> {
    match socket {
        Socket::Ours => Some(PacketVerdict::Assign),
        Socket::Foreign => Some(PacketVerdict::Next(Some(Reason::OtherSocket), None)),
        Socket::None | Socket::TimeWait => None,
    }
}

/// The decision on a packet that belongs to no session and that no list refuses.
#[inline(always)]
pub fn by_rules(
    flow: &Flow,
    settings: &Settings,
    interface: Interface,
    lookups: &impl Lookups,
) -> PacketVerdict {
    let (checks, steers) = (interface.has(INTERFACE_CHECKS), interface.has(INTERFACE_STEERS));
    // The other fragments can't be told from those of other flows: they would go around us.
    if flow.fragment != 0 && (steers || (checks && flow.is_syn())) {
        return PacketVerdict::Drop(Reason::FragmentDropped, None);
    }
    if !flow.is_syn() {
        return if steers { PacketVerdict::AskListener } else { PacketVerdict::Next(None, None) };
    }
    if !checks {
        return PacketVerdict::Next(None, None);
    }
    let bypass = bypass(flow, settings, lookups);
    if bypass.action == ACTION_BYPASS {
        return PacketVerdict::Next(Some(Reason::Bypassed), Some(bypass.rule));
    }
    if !steers {
        return PacketVerdict::Next(Some(Reason::Checked), None);
    }
    if !settings.proxy_alive(lookups.now_ns()) {
        return without_proxy(settings);
    }
    PacketVerdict::Intercept
}

/// The decision on a new connection when nobody would take it.
#[inline(always)]
pub fn without_proxy(settings: &Settings) -> PacketVerdict {
    if settings.fail_mode == FAIL_BYPASS {
        PacketVerdict::Next(Some(Reason::ProxyDownPassed), None)
    } else {
        PacketVerdict::Drop(Reason::ProxyDownBlocked, None)
    }
}

/// The decision before the stack sees the packet, in XDP: why it is dropped and by which rule, or nothing.
/// Everything else, resets too, is left to TC.
#[inline(always)]
pub fn decide_early(flow: &Flow, settings: &Settings, lookups: &impl Lookups) -> Option<(Reason, u32)> {
    if settings.armed == 0 || !flow.is_syn() || flow.fragment != 0 {
        return None;
    }
    let (cause, value) = listed(flow, settings, lookups);
    if value.action != ACTION_DROP || bypass(flow, settings, lookups).action == ACTION_BYPASS {
        return None;
    }
    let banned = cause == Cause::Ban;
    Some((if banned { Reason::BanDroppedEarly } else { Reason::BlacklistDroppedEarly }, value.rule))
}

/// Which list refuses a client.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Ban,
    Blacklist,
    Zone,
}

/// Whether the client is kept out by what a list says. Bypass comes first by what it means, and is asked
/// last: only when there is something to bypass.
#[inline(always)]
fn refuses(value: RuleValue) -> bool {
    value.action == ACTION_DROP || value.action == ACTION_RESET
}

/// What is said of the client, wherever it comes in.
#[inline(always)]
fn listed(flow: &Flow, settings: &Settings, lookups: &impl Lookups) -> (Cause, RuleValue) {
    let ban = ban(flow, settings, lookups);
    let banned = ban.action != ACTION_NONE;
    if banned && !flow.is_ipv6() {
        return (Cause::Ban, ban);
    }
    let listed = blacklist(flow, settings, lookups);
    // A network is banned for what one of its addresses did; those that are whitelisted never are.
    if banned && listed.action != ACTION_ALLOW { (Cause::Ban, ban) } else { (Cause::Blacklist, listed) }
}

/// What the zone that it comes in by says.
#[inline(always)]
fn allowed(flow: &Flow, settings: &Settings, interface: Interface, lookups: &impl Lookups) -> RuleValue {
    let populated = if flow.is_ipv6() { HAS_ALLOW6 } else { HAS_ALLOW4 };
    if settings.has(populated) { lookups.allowed(flow, interface) } else { RuleValue::NONE }
}

/// What the bypass lists say: an entry that lets the flow pass, if there is one.
#[inline(always)]
fn bypass(flow: &Flow, settings: &Settings, lookups: &impl Lookups) -> RuleValue {
    let (source, destination) =
        if flow.is_ipv6() { (HAS_BYPASS_SRC6, HAS_BYPASS_DST6) } else { (HAS_BYPASS_SRC4, HAS_BYPASS_DST4) };
    if settings.has(HAS_BYPASS_MAC) {
        let value = lookups.bypass_mac();
        if value.action == ACTION_BYPASS {
            return value;
        }
    }
    if settings.has(source) {
        let value = lookups.bypass_source(flow);
        if value.action == ACTION_BYPASS {
            return value;
        }
    }
    if settings.has(destination) { lookups.bypass_destination(flow) } else { RuleValue::NONE }
}

/// What the client's ban says.
#[inline(always)]
fn ban(flow: &Flow, settings: &Settings, lookups: &impl Lookups) -> RuleValue {
    if settings.has(HAS_BANS) { lookups.ban(flow) } else { RuleValue::NONE }
}

/// What the blacklist says: the address itself before any prefix.
#[inline(always)]
fn blacklist(flow: &Flow, settings: &Settings, lookups: &impl Lookups) -> RuleValue {
    let (hosts, prefixes) = if flow.is_ipv6() {
        (HAS_BLACKLIST_HOSTS6, HAS_BLACKLIST6)
    } else {
        (HAS_BLACKLIST_HOSTS4, HAS_BLACKLIST4)
    };
    if settings.has(hosts) {
        let value = lookups.blacklist_host(flow);
        if value.action != ACTION_NONE {
            return value;
        }
    }
    if settings.has(prefixes) { lookups.blacklist_prefix(flow) } else { RuleValue::NONE }
}

#[cfg(test)]
mod tests;
