//! Ways around: odd flags, fragments, header chains, tags. Judged by what arrives at the server's interface;
//! a datagram sent after the frames says that everything before it has had its chance.

use std::net::IpAddr;

use mailguard_common::tags::MAX_PRIORITY_TAGS;
use mailguard_tests::frames::{
    ACK, DESTINATION, FIN, FRAGMENT, HOP_BY_HOP, PROVIDER_VLAN, PSH, RST, SYN, TCP, URG, VLAN, Wire,
    ethernet, extension, fragment_header, ipv4, ipv6, mac, segment, tagged,
};
use mailguard_tests::netns::{CLIENT4, CLIENT6, LAN, SERVER4, SERVER6, WAN};

use crate::firewall::{Firewall, ZONES};

/// A first fragment's flag that more follow.
const MORE4: u16 = 0x2000;
const MORE6: u16 = 1;
/// A port that isn't ours.
const OTHER_PORT: u16 = 9;
/// A port of the server's on which nobody listens: it answers with a RST.
const CLOSED: u16 = 7;
/// Type of a VLAN tag from before providers' tags had a standard.
const OLD_PROVIDER_VLAN: u16 = 0x9100;
/// What follows a packet in its frame, where it passes for the rest of a harmless TCP header.
const TRAILER: [u8; 12] = [0, 0, 0, 0, 5 << 4, ACK, 0xfa, 0xf0, 0, 0, 0, 0];

/// One attempt: its name, the packets, and the VLAN tags of the frames, each with its type.
struct Attempt {
    name: &'static str,
    packets: Vec<Vec<u8>>,
    tags: Vec<(u16, u16)>,
    /// What follows each packet in its frame.
    trailer: &'static [u8],
    /// Whether a plain firewall would have forwarded it.
    forwarded: bool,
}

fn attempt(name: &'static str, packets: Vec<Vec<u8>>) -> Attempt {
    Attempt { name, packets, tags: Vec::new(), trailer: b"", forwarded: true }
}

fn syn4(port: u16, flags: u8) -> Vec<u8> {
    segment(CLIENT4.into(), SERVER4.into(), port, flags, b"")
}

fn syn6(port: u16, flags: u8) -> Vec<u8> {
    segment(CLIENT6.into(), SERVER6.into(), port, flags, b"")
}

fn attempts() -> Vec<Attempt> {
    let v4 = |fragment, options: &[u8], payload: &[u8]| ipv4(CLIENT4, SERVER4, fragment, options, payload);
    let v6 = |next, payload: &[u8]| ipv6(CLIENT6, SERVER6, next, payload);
    let (syn, syn6) = (syn4(25, SYN), syn6(25, SYN));
    let fragment6 =
        |field, payload: &[u8]| v6(FRAGMENT, &[&fragment_header(TCP, field)[..], payload].concat());
    let chain = |length: usize| {
        let mut chain: Vec<u8> = (1..length).flat_map(|_| extension(DESTINATION)).collect();
        chain.extend(extension(TCP));
        v6(DESTINATION, &[&chain[..], &syn6].concat())
    };
    let mut zero_length = v6(HOP_BY_HOP, &[&extension(TCP)[..], &syn6].concat());
    zero_length[4..6].copy_from_slice(&[0, 0]);
    let cut_chain = [
        v6(FRAGMENT, &[&fragment_header(DESTINATION, MORE6)[..], &extension(TCP)].concat()),
        v6(FRAGMENT, &[&fragment_header(DESTINATION, 8)[..], &syn6].concat()),
    ];
    let tiny4 = vec![v4(MORE4, b"", &syn[..8]), v4(1, b"", &syn[8..])];
    let tiny6 = vec![fragment6(MORE6, &syn6[..8]), fragment6(8, &syn6[8..])];
    let reversed = |packets: &[Vec<u8>]| packets.iter().rev().cloned().collect::<Vec<_>>();
    // A whole header to another port, and over it one to ours.
    let padded = |segment: &[u8]| [segment, &[0; 4]].concat();
    let (other4, other6) = (padded(&syn4(OTHER_PORT, SYN)), padded(&self::syn6(OTHER_PORT, SYN)));
    let overlapping4 = vec![v4(MORE4, b"", &other4), v4(MORE4, b"", &padded(&syn)), v4(3, b"", &[0; 8])];
    let overlapping6 =
        vec![fragment6(MORE6, &other6), fragment6(MORE6, &padded(&syn6)), fragment6(24, &[0; 8])];
    let mixed = [&extension(DESTINATION)[..], &extension(FRAGMENT), &fragment_header(TCP, 0), &syn6].concat();
    vec![
        attempt("a SYN", vec![v4(0, b"", &syn), v6(TCP, &syn6)]),
        attempt("SYN and FIN", vec![v4(0, b"", &syn4(25, SYN | FIN)), v6(TCP, &self::syn6(25, SYN | FIN))]),
        attempt("SYN, FIN and RST", vec![v4(0, b"", &syn4(25, SYN | FIN | RST))]),
        attempt("SYN and RST", vec![v4(0, b"", &syn4(25, SYN | RST)), v6(TCP, &self::syn6(25, SYN | RST))]),
        attempt(
            "SYN, PSH and URG",
            vec![v4(0, b"", &syn4(25, SYN | PSH | URG)), v6(TCP, &self::syn6(25, SYN | PSH | URG))],
        ),
        attempt("all odd flags with SYN", vec![v4(0, b"", &syn4(25, 0xef)), v6(TCP, &self::syn6(25, 0xef))]),
        attempt("IPv4 options", vec![v4(0, &[1, 1, 1, 1, 1, 1, 1, 0], &syn)]),
        attempt("a tiny first fragment", tiny4.clone()),
        attempt("a tiny first fragment, sent last", reversed(&tiny4)),
        Attempt { trailer: &TRAILER, ..attempt("a tiny first fragment and a false rest", tiny4) },
        attempt(
            "a SYN in two fragments",
            vec![v4(MORE4, b"", &[&syn[..], &[0; 4]].concat()), v4(3, b"", &[0; 8])],
        ),
        attempt("a tiny first fragment, IPv6", tiny6.clone()),
        attempt("a tiny first fragment, sent last, IPv6", reversed(&tiny6)),
        Attempt { trailer: &TRAILER, ..attempt("a tiny first fragment and a false rest, IPv6", tiny6) },
        attempt("overlapping first fragments", overlapping4),
        attempt("overlapping first fragments, IPv6", overlapping6),
        Attempt { trailer: &TRAILER, ..attempt("a trailer", vec![v4(0, b"", &syn), v6(TCP, &syn6)]) },
        attempt("a SYN in two fragments, IPv6", vec![fragment6(MORE6, &[&syn6[..], &[0; 4]].concat())]),
        attempt("a fragment that is the whole", vec![fragment6(0, &syn6)]),
        attempt("a first fragment without TCP", cut_chain.into()),
        attempt("three kinds of extension headers", vec![v6(HOP_BY_HOP, &mixed)]),
        attempt("one extension header", vec![chain(1)]),
        attempt("eight extension headers", vec![chain(8)]),
        attempt("nine extension headers", vec![chain(9)]),
        attempt("twelve extension headers", vec![chain(12)]),
        attempt("no length and a hop-by-hop header", vec![zero_length]),
    ]
    .into_iter()
    .chain(tagged_attempts())
    .collect()
}

/// A SYN behind tags that give no VLAN, which the stack takes off, and behind others.
fn tagged_attempts() -> Vec<Attempt> {
    let packets =
        || vec![ipv4(CLIENT4, SERVER4, 0, b"", &syn4(25, SYN)), ipv6(CLIENT6, SERVER6, TCP, &syn6(25, SYN))];
    let behind = |name, tags: &[(u16, u16)]| Attempt { tags: tags.into(), ..attempt(name, packets()) };
    let elsewhere = |name, tags: &[(u16, u16)]| Attempt { forwarded: false, ..behind(name, tags) };
    let tiny = ipv4(CLIENT4, SERVER4, MORE4, b"", &syn4(25, SYN)[..8]);
    vec![
        behind("a tag that only gives a priority", &[(VLAN, 0x6000)]),
        behind("a provider's tag that only gives a priority", &[(PROVIDER_VLAN, 0)]),
        behind("two tags without a VLAN", &[(VLAN, 0); 2]),
        behind("two tags without a VLAN, of a high priority", &[(VLAN, 0xf000); 2]),
        behind("a provider's tag and a customer's, without a VLAN", &[(PROVIDER_VLAN, 0), (VLAN, 0x4000)]),
        behind("a customer's tag and a provider's, without a VLAN", &[(VLAN, 0), (PROVIDER_VLAN, 0)]),
        behind("three tags without a VLAN", &[(VLAN, 0); 3]),
        behind("as many tags as are followed", &[(VLAN, 0); MAX_PRIORITY_TAGS + 1]),
        behind("one tag more", &[(VLAN, 0); MAX_PRIORITY_TAGS + 2]),
        behind("thirty tags", &[(VLAN, 0); 30]),
        Attempt { tags: vec![(VLAN, 0); 2], ..attempt("a tiny first fragment behind tags", vec![tiny]) },
        Attempt { trailer: &TRAILER, ..behind("a trailer behind tags", &[(VLAN, 0); 2]) },
        elsewhere("another VLAN's tag", &[(VLAN, 7)]),
        elsewhere("another VLAN's tag, one without a VLAN before it", &[(VLAN, 0), (VLAN, 7)]),
        elsewhere("another VLAN's tag, one without a VLAN behind it", &[(VLAN, 7), (VLAN, 0)]),
        elsewhere("a tag of a type that no stack takes off", &[(OLD_PROVIDER_VLAN, 0)]),
        elsewhere("such a tag behind one without a VLAN", &[(VLAN, 0), (OLD_PROVIDER_VLAN, 0)]),
    ]
}

/// Whether a frame holds the beginning of a connection to port 25, or a part of it that others could be put
/// together with. A fragment from the middle is worth nothing without the first, and can't be told from
/// another port's.
fn concerns_us(frame: &[u8]) -> bool {
    let field = |at: usize| frame.get(at..at + 2).map(|field| u16::from_be_bytes([field[0], field[1]]));
    let (fragment, port) = match field(12) {
        Some(0x0800) if frame[23] == TCP => {
            (field(20).unwrap_or(0) & 0x1fff, 14 + usize::from(frame[14] & 15) * 4 + 2)
        }
        Some(0x86dd) if frame[20] == TCP => (0, 14 + 40 + 2),
        Some(0x86dd) if frame[20] == FRAGMENT && frame[54] == TCP => {
            (field(56).unwrap_or(0) >> 3, 14 + 40 + 8 + 2)
        }
        Some(0x86dd) if frame[20] == FRAGMENT => return field(56).unwrap_or(0) >> 3 == 0,
        Some(0x86dd) => return matches!(frame[20], DESTINATION | HOP_BY_HOP),
        _ => return false,
    };
    fragment == 1 || (fragment == 0 && field(port) != Some(OTHER_PORT))
}

/// Has the firewall track connections, for which it puts fragments together first.
fn track_connections(firewall: &Firewall) {
    for line in [
        "add table inet track",
        "add chain inet track forward { type filter hook forward priority 0; }",
        "add rule inet track forward ct state established,new,invalid counter",
    ] {
        let output = firewall.topology.firewall.command("nft").arg(line).output().expect("nftables");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Sends everything and says of each attempt whether anything of it came to the server.
fn run(firewall: &Firewall) -> Vec<(&'static str, bool)> {
    let topology = &firewall.topology;
    let sent = Wire::open(&topology.client, "eth0");
    let router = mac(&topology.firewall, LAN);
    // The firewall must know the server's MAC, or the first frame waits for it.
    let server = mac(&topology.server, "eth0").map(|octet| format!("{octet:02x}")).join(":");
    for address in [IpAddr::from(SERVER4), SERVER6.into()] {
        topology
            .firewall
            .ip(&format!("neighbour replace {address} lladdr {server} dev {WAN} nud permanent"))
            .unwrap();
    }
    let mut seen = Vec::new();
    for attempt in attempts() {
        let received = Wire::open(&topology.server, "eth0");
        for packet in &attempt.packets {
            let frame = tagged(router, sent.mac, &attempt.tags, packet);
            sent.send(&[&frame[..], attempt.trailer].concat());
        }
        // A segment to another port that belongs to nothing.
        let last = syn4(OTHER_PORT, ACK);
        sent.send(&ethernet(router, sent.mac, None, &ipv4(CLIENT4, SERVER4, 0, b"", &last)));
        let is_last = |frame: &[u8]| frame.ends_with(&last);
        let frames = received.receive_until(is_last);
        // To the server itself: the firewall's own multicast reports begin with a hop-by-hop header, too.
        let inwards = |frame: &&Vec<u8>| frame[..6] == received.mac && !is_last(frame);
        let passed: Vec<_> = frames.iter().filter(inwards).filter(|frame| concerns_us(frame)).collect();
        seen.push((attempt.name, !passed.is_empty()));
    }
    seen
}

#[test]
fn nothing_of_them_reaches_the_server() {
    for (settings, tracks) in [
        ("", false),
        ("", true),
        ("[kernel]\non_proxy_down = \"bypass\"\n", false),
        ("[kernel]\nxdp = \"generic\"\n", false),
        ("[kernel]\nxdp = \"native\"\n", false),
    ] {
        let firewall = Firewall::new(settings);
        if tracks {
            track_connections(&firewall);
        }
        let passed: Vec<_> = run(&firewall).into_iter().filter(|(_, passed)| *passed).collect();
        assert_eq!(passed, [], "{settings}, with connection tracking: {tracks}");
    }
}

#[test]
fn without_mailguard_all_of_them_do() {
    let firewall = Firewall::idle(ZONES);
    let passed = run(&firewall);
    let expect: Vec<_> = attempts().iter().map(|attempt| (attempt.name, attempt.forwarded)).collect();
    assert_eq!(passed, expect);
}

#[test]
fn a_firewall_that_tracks_connections_would_put_the_fragments_together() {
    let firewall = Firewall::idle(ZONES);
    track_connections(&firewall);
    let passed = run(&firewall);
    for name in ["a tiny first fragment", "a tiny first fragment, sent last", "a first fragment without TCP"]
    {
        assert!(passed.contains(&(name, true)), "{name}");
    }
}

#[test]
fn what_isnt_dropped_is_given_to_the_listener() {
    let firewall = Firewall::new("");
    run(&firewall);
    // Two SYNs, nine with odd flags, one with options, two with a trailer, one whole fragment, three chains,
    // one without a length, eighteen behind tags without a VLAN; what the client's own stack says to the
    // answers counts for the sessions too.
    assert!(firewall.packets("intercepted") + firewall.packets("session") >= 37);
    assert_eq!(firewall.packets("fragment-dropped"), 4);
    assert_eq!(firewall.packets("tiny-fragment-dropped"), 8);
    assert_eq!(firewall.packets("tag-stack-dropped"), 4);
    assert_eq!(firewall.packets("overlay-fragment-dropped"), 6);
    assert_eq!(firewall.packets("header-chain-dropped"), 2);
}

#[test]
fn bypassed_clients_get_no_fragments_through_either() {
    let firewall = Firewall::new("[bypass]\nfrom_subnets = [\"192.0.2.0/24\", \"2001:db8:1::/64\"]\n");
    let mut dropped: Vec<_> =
        run(&firewall).into_iter().filter(|(_, passed)| !passed).map(|(name, _)| name).collect();
    let elsewhere: Vec<_> =
        attempts().iter().filter(|attempt| !attempt.forwarded).map(|attempt| attempt.name).collect();
    dropped.retain(|name| !elsewhere.contains(name));
    let expect = [
        "a tiny first fragment",
        "a tiny first fragment, sent last",
        "a tiny first fragment and a false rest",
        "a SYN in two fragments",
        "a tiny first fragment, IPv6",
        "a tiny first fragment, sent last, IPv6",
        "a tiny first fragment and a false rest, IPv6",
        "overlapping first fragments",
        "overlapping first fragments, IPv6",
        "a SYN in two fragments, IPv6",
        "a first fragment without TCP",
        "nine extension headers",
        "twelve extension headers",
        "one tag more",
        "thirty tags",
        "a tiny first fragment behind tags",
    ];
    assert_eq!(dropped, expect);
}

/// Flags of a SYN that a RST contradicts, whatever comes with them, and of a RST by itself.
fn resetting_flags() -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(|flags| flags & RST != 0)
}

#[test]
fn what_carries_rst_is_never_answered() {
    const LISTED: &str = "[access]\nblacklist_clients = [\"192.0.2.2\", \"2001:db8:1::/64\"]\n";
    let reset = format!("[kernel]\nblacklist_action = \"reset\"\nxdp = \"generic\"\n{LISTED}");
    for settings in ["", LISTED, &reset] {
        let firewall = Firewall::new(settings);
        let wire = Wire::open(&firewall.topology.client, "eth0");
        let router = mac(&firewall.topology.firewall, LAN);
        let send = |packet: &[u8]| wire.send(&ethernet(router, wire.mac, None, packet));
        for flags in resetting_flags() {
            send(&ipv4(CLIENT4, SERVER4, 0, b"", &syn4(25, flags)));
            send(&ipv6(CLIENT6, SERVER6, TCP, &syn6(25, flags)));
        }
        // An echo goes by the same way, and behind them.
        let answered = |frame: &[u8]| frame[..6] == wire.mac && frame[6..12] == router;
        let port = |frame: &[u8], header: usize| frame.get(header..header + 2) == Some(&25u16.to_be_bytes());
        send(&ipv4(CLIENT4, SERVER4, 0, b"", &segment(CLIENT4.into(), SERVER4.into(), CLOSED, SYN, b"")));
        let is_last = |frame: &[u8]| answered(frame) && frame.get(34..36) == Some(&CLOSED.to_be_bytes());
        let frames = wire.receive_until(is_last);
        let from_port_25 = |frame: &&Vec<u8>| {
            answered(frame)
                && ((frame[23] == TCP && port(frame, 34)) || (frame[20] == TCP && port(frame, 54)))
        };
        assert_eq!(frames.iter().filter(from_port_25).count(), 0, "{settings}");
    }
}
