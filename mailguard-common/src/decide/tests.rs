//! The decision as tables: what is known of a packet, and what becomes of it.

use super::*;
use crate::layout::{ACTION_ALLOW, ACTION_INTERCEPT, FAIL_BLOCK};
use crate::packet::mapped;

const NOW: u64 = 100_000_000_000;
const SYN: u8 = 2;
const ACK: u8 = 16;
const STEERS: Interface = Interface { zone: 0, steer: 1, ethernet: 1 };
const CHECKS: Interface = Interface { zone: 1, steer: 0, ethernet: 1 };

/// What the maps say; a map without anything to say is empty.
#[derive(Clone, Copy)]
struct Facts {
    mac: RuleValue,
    source: RuleValue,
    destination: RuleValue,
    host: RuleValue,
    prefix: RuleValue,
}

const NOTHING: Facts = Facts {
    mac: RuleValue::NONE,
    source: RuleValue::NONE,
    destination: RuleValue::NONE,
    host: RuleValue::NONE,
    prefix: RuleValue::NONE,
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
    fn blacklist_host(&self, _: &Flow) -> RuleValue {
        self.host
    }
    fn blacklist_prefix(&self, _: &Flow) -> RuleValue {
        self.prefix
    }
    fn now_ns(&self) -> u64 {
        NOW
    }
}

fn flow(flags: u8) -> Flow {
    Flow { source: mapped([192, 0, 2, 2]), destination: mapped([198, 51, 100, 2]), flags, ..Flow::default() }
}

fn settings() -> Settings {
    Settings { heartbeat_ns: NOW, armed: 1, fail_mode: FAIL_BLOCK, populated: u32::MAX, padding: 0 }
}

fn rule(rule: u32, action: u32) -> RuleValue {
    RuleValue { rule, action }
}

fn next(reason: Reason) -> PacketVerdict {
    PacketVerdict::Next(Some(reason), None)
}

#[track_caller]
fn check(flags: u8, socket: Socket, interface: Interface, facts: Facts, expect: PacketVerdict) {
    assert_eq!(decide(&flow(flags), socket, &settings(), interface, &facts), expect);
}

#[test]
fn a_session_of_ours_comes_before_every_rule() {
    let hostile = Facts { host: rule(1, ACTION_DROP), source: rule(2, ACTION_BYPASS), ..NOTHING };
    for flags in [SYN, ACK, SYN | ACK, 0] {
        check(flags, Socket::Ours, STEERS, hostile, PacketVerdict::Assign);
        check(flags, Socket::Foreign, STEERS, hostile, next(Reason::OtherSocket));
        let fragment = Flow { fragment: 1, ..flow(flags) };
        let verdict = decide(&fragment, Socket::Ours, &settings(), STEERS, &hostile);
        assert_eq!(verdict, PacketVerdict::Assign, "fragments of a session are the session's");
    }
}

#[test]
fn new_connections_go_by_the_rules() {
    use PacketVerdict::{Drop, Intercept, Next, Reset};
    let bypassed = |rule| Next(Some(Reason::Bypassed), Some(rule));
    let dropped = |rule| Drop(Reason::BlacklistDropped, Some(rule));
    let listed = Facts { host: rule(4, ACTION_DROP), prefix: rule(5, ACTION_RESET), ..NOTHING };
    for (facts, expect, expect_checked) in [
        (NOTHING, Intercept, next(Reason::Checked)),
        (Facts { mac: rule(1, ACTION_BYPASS), ..listed }, bypassed(1), bypassed(1)),
        (Facts { source: rule(2, ACTION_BYPASS), ..listed }, bypassed(2), bypassed(2)),
        (Facts { destination: rule(3, ACTION_BYPASS), ..listed }, bypassed(3), bypassed(3)),
        (Facts { source: rule(2, ACTION_INTERCEPT), ..NOTHING }, Intercept, next(Reason::Checked)),
        (
            Facts { source: rule(2, ACTION_INTERCEPT), destination: rule(3, ACTION_BYPASS), ..NOTHING },
            bypassed(3),
            bypassed(3),
        ),
        (listed, dropped(4), dropped(4)),
        (Facts { prefix: rule(5, ACTION_DROP), ..NOTHING }, dropped(5), dropped(5)),
        (Facts { prefix: rule(5, ACTION_RESET), ..NOTHING }, Reset(5), Reset(5)),
        (
            Facts { host: rule(4, ACTION_ALLOW), prefix: rule(5, ACTION_DROP), ..NOTHING },
            Intercept,
            next(Reason::Checked),
        ),
        (Facts { prefix: rule(5, ACTION_ALLOW), ..NOTHING }, Intercept, next(Reason::Checked)),
    ] {
        check(SYN, Socket::None, STEERS, facts, expect);
        check(SYN | 0x0d, Socket::None, STEERS, facts, expect);
        check(SYN, Socket::TimeWait, STEERS, facts, expect);
        check(SYN, Socket::None, CHECKS, facts, expect_checked);
    }
}

#[test]
fn empty_maps_are_not_asked() {
    let everything = Facts {
        mac: rule(1, ACTION_BYPASS),
        source: rule(2, ACTION_BYPASS),
        destination: rule(3, ACTION_BYPASS),
        host: rule(4, ACTION_DROP),
        prefix: rule(5, ACTION_DROP),
    };
    let verdict = |populated, ipv6| {
        let settings = Settings { populated, ..settings() };
        decide(&Flow { ipv6, ..flow(SYN) }, Socket::None, &settings, STEERS, &everything)
    };
    assert_eq!(verdict(0, 0), PacketVerdict::Intercept);
    assert_eq!(verdict(HAS_BLACKLIST4 | HAS_BYPASS_SRC4 | HAS_BYPASS_DST4, 1), PacketVerdict::Intercept);
    assert_eq!(verdict(HAS_BLACKLIST6 | HAS_BYPASS_SRC6 | HAS_BYPASS_DST6, 0), PacketVerdict::Intercept);
    assert_eq!(verdict(HAS_BLACKLIST4, 0), PacketVerdict::Drop(Reason::BlacklistDropped, Some(5)));
    assert_eq!(verdict(HAS_BYPASS_DST6, 1), PacketVerdict::Next(Some(Reason::Bypassed), Some(3)));
}

#[test]
fn packets_of_no_connection_are_the_listeners_or_pass() {
    for flags in [0, ACK, SYN | ACK, 4, 1] {
        let listed = Facts { host: rule(1, ACTION_DROP), ..NOTHING };
        check(flags, Socket::None, STEERS, listed, PacketVerdict::AskListener);
        check(flags, Socket::None, CHECKS, listed, PacketVerdict::Next(None, None));
    }
}

#[test]
fn fragments_without_a_session_are_dropped() {
    let dropped = PacketVerdict::Drop(Reason::FragmentDropped, None);
    let bypassed = Facts { source: rule(1, ACTION_BYPASS), ..NOTHING };
    for (flags, interface, expect) in [
        (SYN, STEERS, dropped),
        (ACK, STEERS, dropped),
        (SYN, CHECKS, dropped),
        (ACK, CHECKS, PacketVerdict::Next(None, None)),
    ] {
        let fragment = Flow { fragment: 1, ..flow(flags) };
        assert_eq!(decide(&fragment, Socket::None, &settings(), interface, &bypassed), expect);
    }
}

#[test]
fn a_silent_proxy_brings_on_proxy_down() {
    let verdict = |heartbeat_ns, fail_mode, interface, facts| {
        let settings = Settings { heartbeat_ns, fail_mode, ..settings() };
        decide(&flow(SYN), Socket::None, &settings, interface, &facts)
    };
    let blocked = PacketVerdict::Drop(Reason::ProxyDownBlocked, None);
    for stale in [0, NOW - 3_000_000_001] {
        assert_eq!(verdict(stale, FAIL_BLOCK, STEERS, NOTHING), blocked);
        assert_eq!(verdict(stale, FAIL_BYPASS, STEERS, NOTHING), next(Reason::ProxyDownPassed));
        assert_eq!(verdict(stale, FAIL_BLOCK, CHECKS, NOTHING), next(Reason::Checked));
        let listed = Facts { host: rule(1, ACTION_DROP), ..NOTHING };
        let dropped = PacketVerdict::Drop(Reason::BlacklistDropped, Some(1));
        assert_eq!(verdict(stale, FAIL_BYPASS, STEERS, listed), dropped, "the blacklist outlives the proxy");
    }
    assert_eq!(verdict(NOW - 2_000_000_000, FAIL_BLOCK, STEERS, NOTHING), PacketVerdict::Intercept);
}

#[test]
fn not_armed_everything_passes() {
    let settings = Settings { armed: 0, ..settings() };
    let listed = Facts { host: rule(1, ACTION_DROP), ..NOTHING };
    for socket in [Socket::None, Socket::Ours, Socket::Foreign, Socket::TimeWait] {
        assert_eq!(decide(&flow(SYN), socket, &settings, STEERS, &listed), PacketVerdict::Next(None, None));
    }
    assert_eq!(decide_early(&flow(SYN), &settings, &listed), None);
}

#[test]
fn xdp_drops_the_new_connections_that_tc_would_drop_and_no_other() {
    let facts = [RuleValue::NONE, rule(7, ACTION_DROP), rule(7, ACTION_RESET), rule(7, ACTION_ALLOW)];
    let bypasses = [RuleValue::NONE, rule(8, ACTION_BYPASS), rule(8, ACTION_INTERCEPT)];
    for (host, prefix, source) in facts
        .iter()
        .flat_map(|host| facts.iter().map(move |prefix| (*host, *prefix)))
        .flat_map(|(host, prefix)| bypasses.iter().map(move |source| (host, prefix, *source)))
    {
        let facts = Facts { host, prefix, source, ..NOTHING };
        for flags in [SYN, SYN | 1, ACK, SYN | ACK] {
            let early = decide_early(&flow(flags), &settings(), &facts);
            let late = decide(&flow(flags), Socket::None, &settings(), STEERS, &facts);
            let expect = match late {
                PacketVerdict::Drop(Reason::BlacklistDropped, rule) => rule,
                _ => None,
            };
            assert_eq!(early, expect, "{host:?} {prefix:?} {source:?} {flags:#x}");
        }
    }
    let listed = Facts { host: rule(1, ACTION_DROP), ..NOTHING };
    assert_eq!(decide_early(&Flow { fragment: 1, ..flow(SYN) }, &settings(), &listed), None);
}
