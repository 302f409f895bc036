//! A flow and what the maps say of it in, a verdict out. The one place where a packet's fate is decided.
//!
//! The order is the promise: a session of ours before every rule, so that editing rules never breaks one; bypass
//! before the blacklist; the blacklist before the question whether the proxy lives. The eBPF programs look up
//! sockets and carry verdicts out; [`decide`] is what they do, in one piece, for the tests.

use crate::layout::{
    ACTION_BYPASS, ACTION_DROP, ACTION_NONE, ACTION_RESET, FAIL_BYPASS, HAS_BLACKLIST_HOSTS, HAS_BLACKLIST4,
    HAS_BLACKLIST6, HAS_BYPASS_DST4, HAS_BYPASS_DST6, HAS_BYPASS_MAC, HAS_BYPASS_SRC4, HAS_BYPASS_SRC6,
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
    /// The rule of the longest prefix that holds the dialled address.
    fn bypass_destination(&self, flow: &Flow) -> RuleValue;
    /// The rule for exactly this client.
    fn blacklist_host(&self, flow: &Flow) -> RuleValue;
    /// The rule of the longest prefix that holds the client.
    fn blacklist_prefix(&self, flow: &Flow) -> RuleValue;
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
    /// It is answered with a RST, by this rule.
    Reset(u32),
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
    match by_socket(socket) {
        Some(verdict) => verdict,
        None => by_rules(flow, settings, interface, lookups),
    }
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

/// The decision on a packet that belongs to no session.
#[inline(always)]
pub fn by_rules(
    flow: &Flow,
    settings: &Settings,
    interface: Interface,
    lookups: &impl Lookups,
) -> PacketVerdict {
    let steers = interface.steer != 0;
    // The other fragments can't be told from those of other flows: they would go around us.
    if flow.fragment != 0 && (steers || flow.is_syn()) {
        return PacketVerdict::Drop(Reason::FragmentDropped, None);
    }
    if !flow.is_syn() {
        return if steers { PacketVerdict::AskListener } else { PacketVerdict::Next(None, None) };
    }
    let bypass = bypass(flow, settings, lookups);
    if bypass.action == ACTION_BYPASS {
        return PacketVerdict::Next(Some(Reason::Bypassed), Some(bypass.rule));
    }
    let listed = blacklist(flow, settings, lookups);
    if listed.action == ACTION_DROP {
        return PacketVerdict::Drop(Reason::BlacklistDropped, Some(listed.rule));
    }
    if listed.action == ACTION_RESET {
        return PacketVerdict::Reset(listed.rule);
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

/// The decision before the stack sees the packet, in XDP: the rule that drops it, or none. Everything else, resets
/// too, is left to TC.
#[inline(always)]
pub fn decide_early(flow: &Flow, settings: &Settings, lookups: &impl Lookups) -> Option<u32> {
    if settings.armed == 0 || !flow.is_syn() || flow.fragment != 0 {
        return None;
    }
    let listed = blacklist(flow, settings, lookups);
    let dropped = listed.action == ACTION_DROP && bypass(flow, settings, lookups).action != ACTION_BYPASS;
    dropped.then_some(listed.rule)
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

/// What the blacklist says: the address itself before any prefix.
#[inline(always)]
fn blacklist(flow: &Flow, settings: &Settings, lookups: &impl Lookups) -> RuleValue {
    if settings.has(HAS_BLACKLIST_HOSTS) {
        let value = lookups.blacklist_host(flow);
        if value.action != ACTION_NONE {
            return value;
        }
    }
    let prefixes = if flow.is_ipv6() { HAS_BLACKLIST6 } else { HAS_BLACKLIST4 };
    if settings.has(prefixes) { lookups.blacklist_prefix(flow) } else { RuleValue::NONE }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;
    use crate::layout::HEARTBEAT_STALE_NS;
    use crate::packet::mapped;

    const SYN: u8 = 2;
    const NOW: u64 = 1 << 40;

    /// What the maps hold, in words: `mac`, `src`, `dst` bypass; `host-drop`, `net-drop`, `net-reset`, `host-allow`.
    struct Maps<'a>(Vec<&'a str>);

    impl Maps<'_> {
        fn rule(&self, word: &str, rule: u32, action: u32) -> RuleValue {
            if self.0.contains(&word) { RuleValue { rule, action } } else { RuleValue::NONE }
        }
    }

    impl Lookups for Maps<'_> {
        fn bypass_mac(&self) -> RuleValue {
            self.rule("mac", 1, ACTION_BYPASS)
        }
        fn bypass_source(&self, _: &Flow) -> RuleValue {
            self.rule("src", 2, ACTION_BYPASS)
        }
        fn bypass_destination(&self, _: &Flow) -> RuleValue {
            self.rule("dst", 3, ACTION_BYPASS)
        }
        fn blacklist_host(&self, _: &Flow) -> RuleValue {
            match self.rule("host-allow", 4, crate::layout::ACTION_ALLOW) {
                RuleValue::NONE => self.rule("host-drop", 5, ACTION_DROP),
                allowed => allowed,
            }
        }
        fn blacklist_prefix(&self, _: &Flow) -> RuleValue {
            match self.rule("net-drop", 6, ACTION_DROP) {
                RuleValue::NONE => self.rule("net-reset", 7, ACTION_RESET),
                dropped => dropped,
            }
        }
        fn now_ns(&self) -> u64 {
            NOW
        }
    }

    /// A row: the packet (`syn`, `ack`, `fragment`), what socket it meets, the interface, the proxy, the maps, the verdict.
    fn check(packet: &str, socket: Socket, interface: &str, proxy: &str, maps: &str, expect: &str) {
        let flow = Flow {
            source: mapped([192, 0, 2, 2]),
            destination: mapped([198, 51, 100, 2]),
            flags: if packet.contains("syn") { SYN } else { 16 },
            fragment: packet.contains("fragment").into(),
            ..Flow::default()
        };
        let settings = Settings {
            heartbeat_ns: if proxy.contains("dead") { NOW - HEARTBEAT_STALE_NS - 1 } else { NOW },
            armed: u32::from(!proxy.contains("disarmed")),
            fail_mode: if proxy.contains("bypass") { FAIL_BYPASS } else { 0 },
            populated: u32::MAX,
            padding: 0,
        };
        let interface = Interface { zone: 0, steer: u32::from(interface == "steers"), ethernet: 1 };
        let verdict = decide(&flow, socket, &settings, interface, &Maps(maps.split(' ').collect()));
        let said: String = match verdict {
            PacketVerdict::Next(_, Some(rule)) => std::format!("next by {rule}"),
            PacketVerdict::Next(..) => "next".to_string(),
            PacketVerdict::Drop(_, Some(rule)) => std::format!("drop by {rule}"),
            PacketVerdict::Drop(..) => "drop".to_string(),
            PacketVerdict::Reset(rule) => std::format!("reset by {rule}"),
            PacketVerdict::Assign => "assign".to_string(),
            PacketVerdict::Intercept => "intercept".to_string(),
            PacketVerdict::AskListener => "ask listener".to_string(),
        };
        assert_eq!(said, expect, "{packet} {socket:?} {proxy} {maps}");
    }

    #[test]
    fn bypass_beats_blacklist_and_blacklist_beats_interception() {
        let steers = |maps, expect| check("syn", Socket::None, "steers", "", maps, expect);
        steers("", "intercept");
        steers("host-drop", "drop by 5");
        steers("net-drop", "drop by 6");
        steers("net-reset", "reset by 7");
        steers("host-allow net-drop", "intercept");
        steers("src net-drop host-drop", "next by 2");
        steers("dst net-drop", "next by 3");
        steers("mac src dst net-reset", "next by 1");
        check("syn", Socket::None, "only checks", "", "net-drop", "drop by 6");
        check("syn", Socket::None, "only checks", "", "", "next");
    }

    #[test]
    fn a_session_comes_before_every_rule() {
        for maps in ["", "src", "host-drop net-drop", "net-reset"] {
            for packet in ["ack", "syn"] {
                check(packet, Socket::Ours, "steers", "", maps, "assign");
                check(packet, Socket::Ours, "steers", "dead", maps, "assign");
                check(packet, Socket::Foreign, "steers", "", maps, "next");
            }
        }
    }

    #[test]
    fn without_a_proxy_new_connections_follow_the_fail_mode() {
        check("syn", Socket::None, "steers", "dead", "", "drop");
        check("syn", Socket::None, "steers", "dead bypass", "", "next");
        check("syn", Socket::None, "steers", "dead", "src", "next by 2");
        check("syn", Socket::None, "steers", "dead bypass", "net-drop", "drop by 6");
        check("syn", Socket::None, "steers", "disarmed", "net-drop", "next");
    }

    #[test]
    fn what_is_no_connection_request_goes_to_the_listener_only_if_that_knows_it() {
        check("ack", Socket::None, "steers", "", "net-drop src", "ask listener");
        check("ack", Socket::None, "only checks", "", "net-drop", "next");
        check("syn", Socket::TimeWait, "steers", "", "", "intercept");
        check("syn fragment", Socket::None, "steers", "", "src", "drop");
        check("ack fragment", Socket::None, "only checks", "", "", "next");
    }

    #[test]
    fn before_the_stack_only_connection_requests_are_dropped() {
        let settings = Settings { heartbeat_ns: 0, armed: 1, fail_mode: 0, populated: u32::MAX, padding: 0 };
        for (flags, maps, expect) in [
            (SYN, "host-drop", Some(5)),
            (SYN, "net-drop", Some(6)),
            (SYN, "net-reset", None),
            (SYN, "src net-drop", None),
            (SYN | 16, "host-drop", None),
            (16, "host-drop net-drop", None),
        ] {
            let flow = Flow { flags, ..Flow::default() };
            let dropped = decide_early(&flow, &settings, &Maps(maps.split(' ').collect()));
            assert_eq!(dropped, expect, "{flags} {maps}");
        }
    }
}
