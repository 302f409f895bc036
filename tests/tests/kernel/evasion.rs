//! Ways around: odd flags, fragments, header chains, tags. Judged by what arrives at the server's interface; a
//! datagram sent after the frames says that everything before it has had its chance.

use std::net::IpAddr;

use mailguard_tests::frames::{
    ACK, DESTINATION, FIN, FRAGMENT, HOP_BY_HOP, RST, SYN, TCP, Wire, ethernet, extension, fragment_header,
    ipv4, ipv6, mac, segment,
};
use mailguard_tests::netns::{CLIENT4, CLIENT6, LAN, SERVER4, SERVER6, WAN};

use crate::firewall::{Firewall, ZONES};

/// Two fragments follow each other: the first's "more" flag, and an offset of `octets`.
const MORE4: u16 = 0x2000;
const MORE6: u16 = 1;

/// One attempt: its name, the packets, and the VLAN tag of the frames.
struct Attempt {
    name: &'static str,
    packets: Vec<Vec<u8>>,
    tag: Option<u16>,
    /// Whether a plain firewall would have forwarded it.
    forwarded: bool,
}

fn attempt(name: &'static str, packets: Vec<Vec<u8>>) -> Attempt {
    Attempt { name, packets, tag: None, forwarded: true }
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
    let cut_chain = [&fragment_header(DESTINATION, MORE6)[..], &extension(TCP)].concat();
    vec![
        attempt("a SYN", vec![v4(0, b"", &syn), v6(TCP, &syn6)]),
        attempt("SYN and FIN", vec![v4(0, b"", &syn4(25, SYN | FIN)), v6(TCP, &self::syn6(25, SYN | FIN))]),
        attempt("SYN, FIN and RST", vec![v4(0, b"", &syn4(25, SYN | FIN | RST))]),
        attempt("all odd flags with SYN", vec![v4(0, b"", &syn4(25, 0xef)), v6(TCP, &self::syn6(25, 0xef))]),
        attempt("IPv4 options", vec![v4(0, &[1, 1, 1, 1, 1, 1, 1, 0], &syn)]),
        attempt("a tiny first fragment", vec![v4(MORE4, b"", &syn[..8]), v4(1, b"", &syn[8..])]),
        attempt(
            "a SYN in two fragments",
            vec![v4(MORE4, b"", &[&syn[..], &[0; 4]].concat()), v4(3, b"", &[0; 8])],
        ),
        attempt("a tiny first fragment, IPv6", vec![fragment6(MORE6, &syn6[..8]), fragment6(8, &syn6[8..])]),
        attempt("a SYN in two fragments, IPv6", vec![fragment6(MORE6, &[&syn6[..], &[0; 4]].concat())]),
        attempt("a fragment that is the whole", vec![fragment6(0, &syn6)]),
        attempt("a first fragment without TCP", vec![v6(FRAGMENT, &cut_chain)]),
        attempt("one extension header", vec![chain(1)]),
        attempt("eight extension headers", vec![chain(8)]),
        attempt("nine extension headers", vec![chain(9)]),
        attempt("no length and a hop-by-hop header", vec![zero_length]),
        Attempt { tag: Some(0x6000), ..attempt("a tag that only gives a priority", vec![v4(0, b"", &syn)]) },
        Attempt { tag: Some(7), forwarded: false, ..attempt("another VLAN's tag", vec![v4(0, b"", &syn)]) },
    ]
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
            sent.send(&ethernet(router, sent.mac, attempt.tag, packet));
        }
        // A segment to another port that belongs to nothing.
        let last = syn4(9, ACK);
        sent.send(&ethernet(router, sent.mac, None, &ipv4(CLIENT4, SERVER4, 0, b"", &last)));
        let is_last = |frame: &[u8]| frame.ends_with(&last);
        let frames = received.receive_until(is_last);
        let inwards = |frame: &&Vec<u8>| frame[6..12] != received.mac && !is_last(frame);
        // A fragment from the middle is worth nothing without the first, and can't be told from another port's.
        let of_ours = |frame: &&Vec<u8>| match frame[12..14] {
            [0x08, 0x00] => frame[23] == TCP && frame[20] & 0x1f == 0 && frame[21] <= 1,
            [0x86, 0xdd] => matches!(frame[20], TCP | FRAGMENT | DESTINATION | HOP_BY_HOP),
            _ => false,
        };
        let passed: Vec<_> = frames.iter().filter(inwards).filter(of_ours).collect();
        seen.push((attempt.name, !passed.is_empty()));
    }
    seen
}

#[test]
fn nothing_of_them_reaches_the_server() {
    for settings in ["", "[kernel]\non_proxy_down = \"bypass\"\n"] {
        let firewall = Firewall::new(settings);
        let passed: Vec<_> = run(&firewall).into_iter().filter(|(_, passed)| *passed).collect();
        assert_eq!(passed, [], "{settings}");
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
fn what_isnt_dropped_is_given_to_the_listener() {
    let firewall = Firewall::new("");
    run(&firewall);
    // Two SYNs, five with odd flags, one with options, one whole fragment, two chains, one without a length, one
    // with a priority; what the client's own stack says to the answers counts for the sessions too.
    assert!(firewall.packets("intercepted") + firewall.packets("session") >= 13);
    assert_eq!(firewall.packets("tiny-fragment-dropped"), 3);
    assert_eq!(firewall.packets("overlay-fragment-dropped"), 2);
    assert_eq!(firewall.packets("header-chain-dropped"), 1);
}

#[test]
fn bypassed_clients_get_no_fragments_through_either() {
    let firewall = Firewall::new("[bypass]\nfrom_subnets = [\"192.0.2.0/24\", \"2001:db8:1::/64\"]\n");
    let mut dropped: Vec<_> =
        run(&firewall).into_iter().filter(|(_, passed)| !passed).map(|(name, _)| name).collect();
    dropped.retain(|name| *name != "another VLAN's tag");
    let expect = [
        "a tiny first fragment",
        "a SYN in two fragments",
        "a tiny first fragment, IPv6",
        "a SYN in two fragments, IPv6",
        "a first fragment without TCP",
        "nine extension headers",
    ];
    assert_eq!(dropped, expect);
}
