//! The programs on single frames, by BPF_PROG_TEST_RUN: verdicts, and the RST octet for octet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mailguard_common::maps::{
    ACTION_ALLOW, ACTION_BYPASS, ACTION_DROP, ACTION_RESET, HAS_BLACKLIST_HOSTS4, HAS_BLACKLIST4,
    HAS_BLACKLIST6, HAS_BYPASS_DST4, INTERFACE_CHECKS, Interface, Reason, RuleValue, Settings, map,
};
use mailguard_common::tags::MAX_PRIORITY_TAGS;
use mailguard_tests::frames::{
    ACK, PROVIDER_VLAN, RST, SYN, TCP, VLAN, checksum, ethernet, ipv4, ipv6, pseudo_header, segment, tagged,
};
use mailguard_tests::programs::{ALIVE, EARLY, EMPTY_TC, EMPTY_XDP, Programs, STEER};

const NEXT: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

const LISTED4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const LISTED6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x66);
const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const SERVER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);
/// The loopback device's address: the frames are for this host.
const HERE: [u8; 6] = [0; 6];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn frame(source: IpAddr, port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    let packet = match source {
        IpAddr::V4(v4) => ipv4(v4, SERVER4, 0, b"", &segment(source, SERVER4.into(), port, flags, data)),
        IpAddr::V6(v6) => ipv6(v6, SERVER6, TCP, &segment(source, SERVER6.into(), port, flags, data)),
    };
    ethernet(HERE, SENDER, None, &packet)
}

/// Programs that hold the listed addresses with this action, on an interface that is only checked.
fn programs(action: u32) -> Programs {
    let mut programs = Programs::load().expect("root, and cargo xtask build");
    let populated = HAS_BLACKLIST_HOSTS4 | HAS_BLACKLIST6;
    programs.settings(Settings { heartbeat_ns: ALIVE, armed: 1, populated, ..Settings::default() }).unwrap();
    programs.interface(Interface { duties: INTERFACE_CHECKS, ethernet: 1, ..Interface::default() }).unwrap();
    programs.blacklist_host(LISTED4.into(), RuleValue { rule: 1, action }).unwrap();
    programs.network(map::BLACKLIST6, LISTED6.into(), 64, RuleValue { rule: 2, action }).unwrap();
    programs
}

#[test]
fn a_listed_syn_is_dropped_and_nothing_else() {
    let mut programs = programs(ACTION_DROP);
    for listed in [IpAddr::from(LISTED4), LISTED6.into()] {
        for (port, flags, steer, early) in [
            (25, SYN, SHOT, XDP_DROP),
            (25, SYN | RST, SHOT, XDP_DROP),
            (25, ACK, NEXT, XDP_PASS),
            (25, SYN | ACK, NEXT, XDP_PASS),
            (25, RST, NEXT, XDP_PASS),
            (26, SYN, NEXT, XDP_PASS),
        ] {
            let frame = frame(listed, port, flags, b"");
            assert_eq!(programs.run(STEER, &frame).unwrap().verdict, steer, "{listed} {port} {flags:#x}");
            assert_eq!(programs.run(EARLY, &frame).unwrap().verdict, early, "{listed} {port} {flags:#x}");
        }
    }
    let unlisted = frame(OTHER4.into(), 25, SYN, b"");
    assert_eq!(programs.run(STEER, &unlisted).unwrap().verdict, NEXT);
    assert_eq!(programs.run(EARLY, &unlisted).unwrap().verdict, XDP_PASS);
    assert_eq!(programs.packets(Reason::BlacklistDropped).unwrap(), 4);
    assert_eq!(programs.packets(Reason::BlacklistDroppedEarly).unwrap(), 4);
}

#[test]
fn what_is_left_alone_is_left_as_it_was() {
    let programs = programs(ACTION_DROP);
    for frame in [frame(OTHER4.into(), 25, SYN, b"x"), frame(LISTED6.into(), 443, SYN, b"x")] {
        for program in [STEER, EARLY, EMPTY_TC, EMPTY_XDP] {
            assert_eq!(programs.run(program, &frame).unwrap().frame, frame, "{program}");
        }
    }
}

#[test]
fn nothing_is_done_while_not_armed_or_on_another_interface() {
    let listed = frame(LISTED4.into(), 25, SYN, b"");
    let mut disarmed = programs(ACTION_DROP);
    disarmed.settings(Settings { populated: HAS_BLACKLIST_HOSTS4, ..Settings::default() }).unwrap();
    assert_eq!(disarmed.run(STEER, &listed).unwrap().verdict, NEXT);
    assert_eq!(disarmed.run(EARLY, &listed).unwrap().verdict, XDP_PASS);
    let mut fresh = Programs::load().unwrap();
    fresh
        .settings(Settings {
            heartbeat_ns: ALIVE,
            armed: 1,
            populated: HAS_BLACKLIST_HOSTS4,
            ..Settings::default()
        })
        .unwrap();
    fresh.blacklist_host(LISTED4.into(), RuleValue { rule: 1, action: ACTION_DROP }).unwrap();
    assert_eq!(fresh.run(STEER, &listed).unwrap().verdict, NEXT, "an interface of no zone");
}

#[test]
fn nothing_is_done_without_a_proxy_where_the_socket_look_up_is_anothers() {
    let mut programs = programs(ACTION_DROP);
    let populated = HAS_BLACKLIST_HOSTS4 | HAS_BLACKLIST6;
    for (heartbeat_ns, steer, early) in [(ALIVE, SHOT, XDP_DROP), (0, NEXT, XDP_PASS), (1, NEXT, XDP_PASS)] {
        programs.settings(Settings { heartbeat_ns, armed: 1, populated, ..Settings::default() }).unwrap();
        for listed in [IpAddr::from(LISTED4), LISTED6.into()] {
            let listed = frame(listed, 25, SYN, b"");
            assert_eq!(programs.run(STEER, &listed).unwrap().verdict, steer, "{heartbeat_ns}");
            assert_eq!(programs.run(EARLY, &listed).unwrap().verdict, early, "{heartbeat_ns}");
        }
    }
}

#[test]
fn frames_for_other_hosts_and_of_other_vlans_are_left_alone() {
    let programs = programs(ACTION_DROP);
    let packet = ipv4(LISTED4, SERVER4, 0, b"", &segment(LISTED4.into(), SERVER4.into(), 25, SYN, b""));
    let verdict = |frame: &[u8]| programs.run(STEER, frame).unwrap().verdict;
    assert_eq!(verdict(&ethernet(HERE, SENDER, None, &packet)), SHOT);
    assert_eq!(verdict(&ethernet([2, 0, 0, 0, 0, 9], SENDER, None, &packet)), NEXT);
    assert_eq!(verdict(&ethernet(HERE, SENDER, Some(7), &packet)), NEXT);
}

#[test]
fn packets_are_judged_behind_tags_without_a_vlan() {
    let mut programs = programs(ACTION_DROP);
    let listed4 = frame(LISTED4.into(), 25, SYN, b"");
    let listed6 = frame(LISTED6.into(), 25, SYN, b"");
    let other_port = frame(LISTED4.into(), 26, SYN, b"");
    let (none, provider) = ((VLAN, 0), (PROVIDER_VLAN, 0xe000));
    for (tags, steer, early) in [
        (&[none][..], SHOT, XDP_DROP),
        (&[provider, none], SHOT, XDP_DROP),
        // In XDP two are followed, the others in TC.
        (&[none; 3], SHOT, XDP_PASS),
        (&[none; MAX_PRIORITY_TAGS], SHOT, XDP_PASS),
        (&[(VLAN, 7)], NEXT, XDP_PASS),
        (&[none, (VLAN, 7)], NEXT, XDP_PASS),
        (&[(VLAN, 7), none], NEXT, XDP_PASS),
        (&[none, (0x9100, 0)], NEXT, XDP_PASS),
    ] {
        for listed in [&listed4, &listed6] {
            let frame = tagged(HERE, SENDER, tags, &listed[14..]);
            assert_eq!(programs.run(STEER, &frame).unwrap().verdict, steer, "{tags:04x?}");
            assert_eq!(programs.run(EARLY, &frame).unwrap().verdict, early, "{tags:04x?}");
        }
        let frame = tagged(HERE, SENDER, tags, &other_port[14..]);
        assert_eq!(programs.run(STEER, &frame).unwrap().verdict, NEXT, "{tags:04x?}");
        assert_eq!(programs.run(EARLY, &frame).unwrap().verdict, XDP_PASS, "{tags:04x?}");
    }
    assert_eq!(programs.packets(Reason::TagStackDropped).unwrap(), 0);
    let too_deep = tagged(HERE, SENDER, &[none; MAX_PRIORITY_TAGS + 1], &other_port[14..]);
    assert_eq!(programs.run(STEER, &too_deep).unwrap().verdict, SHOT);
    assert_eq!(programs.packets(Reason::TagStackDropped).unwrap(), 1);
}

#[test]
fn nobody_is_answered_with_a_reset_behind_tags() {
    let programs = programs(ACTION_RESET);
    let syn = tagged(HERE, SENDER, &[(VLAN, 0)], &frame(LISTED4.into(), 25, SYN, b"")[14..]);
    let outcome = programs.run(STEER, &syn).unwrap();
    assert_eq!((outcome.verdict, outcome.frame), (SHOT, syn), "dropped as it was");
}

#[test]
fn bypass_and_exceptions_come_before_the_list() {
    let mut programs = programs(ACTION_DROP);
    let populated = HAS_BLACKLIST_HOSTS4 | HAS_BLACKLIST4 | HAS_BYPASS_DST4;
    programs.settings(Settings { heartbeat_ns: ALIVE, armed: 1, populated, ..Settings::default() }).unwrap();
    programs
        .network(
            map::BLACKLIST4,
            Ipv4Addr::new(192, 0, 2, 0).into(),
            24,
            RuleValue { rule: 3, action: ACTION_DROP },
        )
        .unwrap();
    programs.blacklist_host(OTHER4.into(), RuleValue { rule: 4, action: ACTION_ALLOW }).unwrap();
    let verdicts = |programs: &Programs, source: Ipv4Addr| {
        let frame = frame(source.into(), 25, SYN, b"");
        let [steer, early] = [STEER, EARLY].map(|program| programs.run(program, &frame).unwrap().verdict);
        (steer, early)
    };
    assert_eq!(verdicts(&programs, Ipv4Addr::new(192, 0, 2, 1)), (SHOT, XDP_DROP));
    assert_eq!(verdicts(&programs, OTHER4), (NEXT, XDP_PASS));
    programs
        .network(map::BYPASS_DST4, SERVER4.into(), 32, RuleValue { rule: 5, action: ACTION_BYPASS })
        .unwrap();
    assert_eq!(verdicts(&programs, LISTED4), (NEXT, XDP_PASS));
}

#[test]
fn a_reset_answers_the_syn_octet_for_octet() {
    let programs = programs(ACTION_RESET);
    for (listed, server) in [(IpAddr::from(LISTED4), IpAddr::from(SERVER4)), (LISTED6.into(), SERVER6.into())]
    {
        for data in [&b""[..], b"early", &[b'x'; 900]] {
            let syn = frame(listed, 25, SYN, data);
            assert_eq!(programs.run(EARLY, &syn).unwrap().verdict, XDP_PASS, "TC answers");
            let answer = programs.run(STEER, &syn).unwrap();
            assert_eq!(answer.verdict, REDIRECT);
            assert_eq!(
                answer.frame,
                reset(listed, server, 1 + data.len() as u32),
                "{listed}, {} octets",
                data.len()
            );
        }
    }
}

/// The RST that the server would send, built by other hands.
fn reset(client: IpAddr, server: IpAddr, span: u32) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(25u16.to_be_bytes());
    tcp.extend(40_002u16.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend((1_000_000 + span).to_be_bytes());
    tcp.extend([5 << 4, RST | ACK, 0, 0, 0, 0, 0, 0]);
    let sum = checksum(&[&pseudo_header(server, client, tcp.len()), &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let packet = match (server, client) {
        (IpAddr::V4(server), IpAddr::V4(client)) => {
            let mut packet = ipv4(server, client, 0x4000, b"", &tcp);
            packet[4..6].copy_from_slice(&[0, 0]);
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = checksum(&[&packet[..20]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        }
        (IpAddr::V6(server), IpAddr::V6(client)) => ipv6(server, client, TCP, &tcp),
        _ => unreachable!("of one family"),
    };
    ethernet(SENDER, HERE, None, &packet)
}
