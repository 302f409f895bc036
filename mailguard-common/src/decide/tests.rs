//! The decision as tables: what is known of a packet, and what becomes of it.

use super::*;
use crate::maps::HEARTBEAT_STALE_NS;
use crate::maps::{ACTION_ALLOW, ACTION_INTERCEPT, INTERFACE_SERVES};
use crate::packet::mapped;

const SYN: u8 = 2;
const ACK: u8 = 16;
const NOW: u64 = 1 << 40;

/// What the maps hold, in words: `mac`, `src`, `dst` bypass; `ban-drop`, `ban-reset`, `host-drop`,
/// `net-drop`, `net-reset`, `host-allow`; `may`, `may-not` and `may-not-reset` send from the zone.
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
    fn ban(&self, _: &Flow) -> RuleValue {
        match self.rule("ban-drop", 8, ACTION_DROP) {
            RuleValue::NONE => self.rule("ban-reset", 9, ACTION_RESET),
            dropped => dropped,
        }
    }
    fn blacklist_host(&self, _: &Flow) -> RuleValue {
        match self.rule("host-allow", 4, ACTION_ALLOW) {
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
    fn allowed(&self, _: &Flow, interface: Interface) -> RuleValue {
        assert_eq!(interface.zone, STEERS.zone);
        let said = [("may", ACTION_ALLOW), ("may-not", ACTION_DROP), ("may-not-reset", ACTION_RESET)];
        said.map(|(word, action)| self.rule(word, 10, action)).into_iter().max().unwrap_or(RuleValue::NONE)
    }
    fn now_ns(&self) -> u64 {
        NOW
    }
}

/// A row: the packet (`syn`, `ack`, `fragment`), what socket it meets, the interface, the proxy, the maps,
/// the verdict.
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
        ..Settings::default()
    };
    let interface = match interface {
        "steers" => STEERS,
        "only checks" => Interface { duties: INTERFACE_CHECKS, ..STEERS },
        "only serves" => Interface { duties: INTERFACE_SERVES, ..STEERS },
        other => panic!("{other}"),
    };
    let verdict = decide(&flow, socket, &settings, interface, &Maps(maps.split(' ').collect()));
    let said: String = match verdict {
        PacketVerdict::Next(_, Some(rule)) => format!("next by {rule}"),
        PacketVerdict::Next(..) => "next".to_string(),
        PacketVerdict::Drop(_, Some(rule)) => format!("drop by {rule}"),
        PacketVerdict::Drop(..) => "drop".to_string(),
        PacketVerdict::Reset(_, rule) => format!("reset by {rule}"),
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
    steers("ban-drop net-reset host-allow", "drop by 8");
    steers("ban-reset host-drop", "reset by 9");
    steers("dst ban-drop", "next by 3");
    check("syn", Socket::None, "only checks", "", "ban-drop", "drop by 8");
    check("syn", Socket::None, "only checks", "", "net-drop", "drop by 6");
    check("syn", Socket::None, "only checks", "", "", "next");
}

#[test]
fn who_may_not_send_from_a_zone_is_refused_unless_bypassed() {
    for (interface, otherwise) in [("steers", "intercept"), ("only checks", "next")] {
        let check = |packet, proxy, maps, expect| check(packet, Socket::None, interface, proxy, maps, expect);
        check("syn", "", "may-not", "drop by 10");
        check("syn", "", "may-not-reset", "reset by 10");
        check("syn", "", "may", otherwise);
        // No whitelist widens it, and being allowed lifts no other refusal.
        check("syn", "", "may-not host-allow", "drop by 10");
        check("syn", "", "may net-drop", "drop by 6");
        check("syn", "", "may ban-drop", "drop by 8");
        check("syn", "", "may-not ban-reset", "reset by 9");
        for (maps, verdict) in
            [("mac may-not", "next by 1"), ("src may-not", "next by 2"), ("dst may-not", "next by 3")]
        {
            check("syn", "", maps, verdict);
        }
        // The door is as shut while nobody is at home.
        check("syn", "dead bypass", "may-not", "drop by 10");
    }
    check("ack", Socket::Ours, "steers", "", "may-not", "assign");
    check("syn", Socket::Ours, "steers", "", "may-not", "drop by 10");
    check("syn", Socket::TimeWait, "steers", "", "may-not", "drop by 10");
    check("syn", Socket::None, "only serves", "", "may-not", "next");
}

#[test]
fn a_session_comes_before_every_rule_but_those_against_a_new_connection() {
    for maps in ["", "src", "ban-drop", "host-drop net-drop", "net-reset"] {
        check("ack", Socket::Ours, "steers", "", maps, "assign");
        check("ack", Socket::Ours, "steers", "dead", maps, "assign");
        check("ack", Socket::Foreign, "steers", "", maps, "next");
    }
    for maps in ["", "src", "src net-drop"] {
        check("syn", Socket::Ours, "steers", "", maps, "assign");
        check("syn", Socket::Foreign, "steers", "", maps, "next");
    }
    check("syn", Socket::Ours, "steers", "", "net-drop", "drop by 6");
    check("syn", Socket::Foreign, "steers", "", "ban-reset", "reset by 9");
}

#[test]
fn an_interface_that_left_its_zone_serves_what_is_open_and_nothing_else() {
    for maps in ["", "ban-drop", "net-drop", "src"] {
        check("ack", Socket::Ours, "only serves", "", maps, "assign");
        check("syn", Socket::None, "only serves", "dead", maps, "next");
        check("ack", Socket::None, "only serves", "", maps, "next");
        check("syn fragment", Socket::None, "only serves", "", maps, "next");
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
    let settings = Settings { heartbeat_ns: 0, ..settings() };
    for (flags, maps, expect) in [
        (SYN, "host-drop", Some((Reason::BlacklistDroppedEarly, 5))),
        (SYN, "net-drop", Some((Reason::BlacklistDroppedEarly, 6))),
        (SYN, "ban-drop net-reset", Some((Reason::BanDroppedEarly, 8))),
        (SYN, "ban-reset host-drop", None),
        (SYN, "ban-drop src", None),
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

/// Rules given one by one, where the table's words don't reach.
#[derive(Clone, Copy)]
struct Facts {
    mac: RuleValue,
    source: RuleValue,
    destination: RuleValue,
    ban: RuleValue,
    host: RuleValue,
    prefix: RuleValue,
    allowed: RuleValue,
}

const NOTHING: Facts = Facts {
    mac: RuleValue::NONE,
    source: RuleValue::NONE,
    destination: RuleValue::NONE,
    ban: RuleValue::NONE,
    host: RuleValue::NONE,
    prefix: RuleValue::NONE,
    allowed: RuleValue::NONE,
};

impl Lookups for Facts {
    fn bypass_mac(&self) -> RuleValue {
        self.mac
    }
    fn bypass_source(&self, _: &Flow) -> RuleValue {
        self.source
    }
    fn bypass_destination(&self, _: &Flow) -> RuleValue {
        self.destination
    }
    fn ban(&self, _: &Flow) -> RuleValue {
        self.ban
    }
    fn blacklist_host(&self, _: &Flow) -> RuleValue {
        self.host
    }
    fn blacklist_prefix(&self, _: &Flow) -> RuleValue {
        self.prefix
    }
    fn allowed(&self, _: &Flow, _: Interface) -> RuleValue {
        self.allowed
    }
    fn now_ns(&self) -> u64 {
        NOW
    }
}

fn new_connection(ipv6: u8, flags: u8) -> Flow {
    Flow {
        source: mapped([192, 0, 2, 2]),
        destination: mapped([198, 51, 100, 2]),
        flags,
        ipv6,
        ..Flow::default()
    }
}

fn settings() -> Settings {
    Settings { heartbeat_ns: NOW, armed: 1, populated: u32::MAX, ..Settings::default() }
}

fn rule(rule: u32, action: u32) -> RuleValue {
    RuleValue { rule, action }
}

const STEERS: Interface = Interface {
    zone: 4711,
    slot: 0,
    duties: INTERFACE_CHECKS | INTERFACE_STEERS | INTERFACE_SERVES,
    ethernet: 1,
    padding: 0,
};

#[test]
fn an_exception_from_a_bypass_only_ends_the_search_in_its_own_list() {
    let facts = Facts { source: rule(2, ACTION_INTERCEPT), ..NOTHING };
    let verdict = |facts: Facts| decide(&new_connection(0, SYN), Socket::None, &settings(), STEERS, &facts);
    assert_eq!(verdict(facts), PacketVerdict::Intercept);
    let facts = Facts { destination: rule(3, ACTION_BYPASS), ..facts };
    assert_eq!(verdict(facts), PacketVerdict::Next(Some(Reason::Bypassed), Some(3)));
}

#[test]
fn a_whitelisted_host_of_a_banned_network_is_let_in() {
    let banned = Facts { ban: rule(9, ACTION_DROP), ..NOTHING };
    let white = Facts { prefix: rule(5, ACTION_ALLOW), ..banned };
    let verdict = |ipv6, facts: Facts| {
        let flow = new_connection(ipv6, SYN);
        let early = decide_early(&flow, &settings(), &facts);
        (decide(&flow, Socket::None, &settings(), STEERS, &facts), early)
    };
    let dropped = (PacketVerdict::Drop(Reason::BanDropped, Some(9)), Some((Reason::BanDroppedEarly, 9)));
    assert_eq!(verdict(1, banned), dropped);
    assert_eq!(verdict(1, white), (PacketVerdict::Intercept, None));
    assert_eq!(verdict(1, Facts { host: rule(4, ACTION_ALLOW), ..banned }), (PacketVerdict::Intercept, None));
    assert_eq!(verdict(1, Facts { prefix: rule(5, ACTION_RESET), ..banned }), dropped);
    // An IPv4 client is banned for what it did itself.
    assert_eq!(verdict(0, white), dropped);
    let bypassed = Facts { source: rule(2, ACTION_BYPASS), ..banned };
    assert_eq!(verdict(1, bypassed), (PacketVerdict::Next(Some(Reason::Bypassed), Some(2)), None));
}

#[test]
fn empty_maps_are_not_asked() {
    let everything = Facts {
        mac: rule(1, ACTION_BYPASS),
        source: rule(2, ACTION_BYPASS),
        destination: rule(3, ACTION_BYPASS),
        ban: rule(6, ACTION_DROP),
        host: rule(4, ACTION_DROP),
        prefix: rule(5, ACTION_DROP),
        allowed: rule(7, ACTION_DROP),
    };
    let verdict = |populated, ipv6| {
        let settings = Settings { populated, ..settings() };
        decide(&new_connection(ipv6, SYN), Socket::None, &settings, STEERS, &everything)
    };
    assert_eq!(verdict(0, 0), PacketVerdict::Intercept);
    assert_eq!(verdict(HAS_BLACKLIST4 | HAS_BYPASS_SRC4 | HAS_BYPASS_DST4, 1), PacketVerdict::Intercept);
    assert_eq!(verdict(HAS_BLACKLIST6 | HAS_BYPASS_SRC6 | HAS_BYPASS_DST6, 0), PacketVerdict::Intercept);
    assert_eq!(verdict(HAS_BLACKLIST4, 0), PacketVerdict::Drop(Reason::BlacklistDropped, Some(5)));
    assert_eq!(verdict(HAS_BANS, 1), PacketVerdict::Drop(Reason::BanDropped, Some(6)));
    assert_eq!(verdict(HAS_ALLOW4, 0), PacketVerdict::Drop(Reason::NotAllowedDropped, Some(7)));
    assert_eq!(verdict(HAS_ALLOW4, 1), PacketVerdict::Intercept);
    assert_eq!(verdict(HAS_ALLOW6, 1), PacketVerdict::Drop(Reason::NotAllowedDropped, Some(7)));
    assert_eq!(verdict(HAS_BYPASS_DST6, 1), PacketVerdict::Next(Some(Reason::Bypassed), Some(3)));
}

#[test]
fn xdp_drops_the_new_connections_that_tc_would_drop_and_no_other() {
    let facts = [RuleValue::NONE, rule(7, ACTION_DROP), rule(7, ACTION_RESET), rule(7, ACTION_ALLOW)];
    let bypasses = [RuleValue::NONE, rule(8, ACTION_BYPASS), rule(8, ACTION_INTERCEPT)];
    let bans = [RuleValue::NONE, rule(9, ACTION_DROP), rule(9, ACTION_RESET)];
    for (host, prefix, source, ban) in facts
        .iter()
        .flat_map(|host| facts.iter().map(move |prefix| (*host, *prefix)))
        .flat_map(|(host, prefix)| bypasses.iter().map(move |source| (host, prefix, *source)))
        .flat_map(|(host, prefix, source)| bans.map(|ban| (host, prefix, source, ban)))
    {
        let facts = Facts { host, prefix, source, ban, ..NOTHING };
        for flags in [SYN, SYN | 1, ACK, SYN | ACK] {
            let early = decide_early(&new_connection(0, flags), &settings(), &facts);
            let late = decide(&new_connection(0, flags), Socket::None, &settings(), STEERS, &facts);
            let expect = match late {
                PacketVerdict::Drop(Reason::BlacklistDropped, Some(rule)) => {
                    Some((Reason::BlacklistDroppedEarly, rule))
                }
                PacketVerdict::Drop(Reason::BanDropped, Some(rule)) => Some((Reason::BanDroppedEarly, rule)),
                _ => None,
            };
            assert_eq!(early, expect, "{host:?} {prefix:?} {source:?} {flags:#x}");
        }
    }
    let listed = Facts { host: rule(1, ACTION_DROP), ..NOTHING };
    assert_eq!(decide_early(&Flow { fragment: 1, ..new_connection(0, SYN) }, &settings(), &listed), None);
}

#[test]
fn a_syn_that_carries_rst_is_dropped_where_another_would_be_reset() {
    let [ban, host, prefix, allowed] = [rule(9, ACTION_RESET); 4];
    for facts in [
        Facts { ban, ..NOTHING },
        Facts { host, ..NOTHING },
        Facts { prefix, ..NOTHING },
        Facts { allowed, ..NOTHING },
    ] {
        for flags in 0..=u8::MAX {
            let verdict = decide(&new_connection(0, flags), Socket::None, &settings(), STEERS, &facts);
            let (resets, syn) = (flags & 4 != 0, flags & (SYN | ACK) == SYN);
            match verdict {
                PacketVerdict::Reset(_, 9) => assert!(syn && !resets, "{flags:#x}"),
                PacketVerdict::Drop(_, Some(9)) => assert!(syn && resets, "{flags:#x}"),
                other => assert_eq!((other, syn), (PacketVerdict::AskListener, false), "{flags:#x}"),
            }
        }
    }
}
