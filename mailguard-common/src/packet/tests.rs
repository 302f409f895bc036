//! Packets as octets, and what the parser says of them.

use proptest::prelude::*;

use super::*;

const CLIENT4: [u8; 4] = [192, 0, 2, 2];
const SERVER4: [u8; 4] = [198, 51, 100, 2];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const CLIENT_PORT: [u8; 2] = [0x9c, 0x42];
const SEQUENCE: [u8; 4] = [1, 2, 3, 4];
/// The frames of the tests begin with an Ethernet header.
const START: usize = 14;

fn tcp(port: u16, flags: u8, data: usize) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut segment = vec![CLIENT_PORT[0], CLIENT_PORT[1], high, low];
    segment.extend(SEQUENCE);
    segment.extend([0, 0, 0, 0, 5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    segment.resize(TCP_HEADER + data, b'x');
    segment
}

/// `fragment` is the field of flags and offset.
fn v4(protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = IPV4_HEADER + options.len();
    let [high, low] = ((header + payload.len()) as u16).to_be_bytes();
    let mut packet = vec![0x40 | (header / 4) as u8, 0, high, low, 0, 7];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT4);
    packet.extend(SERVER4);
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
    packet.extend(CLIENT6);
    packet.extend(SERVER6);
    packet.extend(payload);
    packet
}

/// An extension header of `units` times eight octets beyond the first eight.
fn extension(next: u8, units: u8) -> Vec<u8> {
    let mut header = vec![next, units];
    header.resize((usize::from(units) + 1) * 8, 0);
    header
}

fn fragment_header(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![next, 0, high, low, 0, 0, 0, 7]
}

fn read(packet: &[u8]) -> (Parsed, Option<Flow>) {
    let frame = [&[0; START], packet].concat();
    let version = if packet.first().is_some_and(|first| first >> 4 == 6) { Version::V6 } else { Version::V4 };
    let mut flow = MaybeUninit::uninit();
    let parsed = parse(&&frame[..], START, version, &mut flow);
    // SAFETY: written in these two cases, as `parse` promises.
    let flow = matches!(parsed, Parsed::Smtp | Parsed::PathMtu).then(|| unsafe { flow.assume_init() });
    (parsed, flow)
}

#[track_caller]
fn check(what: &str, packet: &[u8], expect: Parsed) {
    assert_eq!(read(packet).0, expect, "{what}");
}

#[test]
fn a_syn_to_port_25_becomes_a_flow() {
    let expect = Flow {
        source: mapped(CLIENT4),
        destination: mapped(SERVER4),
        source_port: CLIENT_PORT,
        transport: 34,
        span: 1,
        flags: SYN,
        ipv6: 0,
        fragment: 0,
        plain: 1,
        network: 14,
        sequence: SEQUENCE,
    };
    assert_eq!(read(&v4(TCP, 0, &[], &tcp(25, SYN, 0))), (Parsed::Smtp, Some(expect)));
    let expect = Flow { source: CLIENT6, destination: SERVER6, transport: 54, ipv6: 1, ..expect };
    assert_eq!(read(&v6(TCP, &tcp(25, SYN, 0))), (Parsed::Smtp, Some(expect)));
    // Options move the TCP header; data and FIN count in sequence space.
    let expect = Flow {
        source: mapped(CLIENT4),
        destination: mapped(SERVER4),
        transport: 42,
        span: 7,
        flags: SYN | FIN,
        ipv6: 0,
        plain: 0,
        ..expect
    };
    assert_eq!(read(&v4(TCP, 0, &[1; 8], &tcp(25, SYN | FIN, 5))), (Parsed::Smtp, Some(expect)));
}

#[test]
fn lengths_at_their_limit_overflow_nothing() {
    // The most that an IPv6 header claims, and a TCP header that says it has no length.
    let mut segment = tcp(25, SYN | FIN, 0);
    segment[12] = 0;
    let mut packet = v6(TCP, &segment);
    packet[4..6].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(read(&packet).1.map(|flow| flow.span), Some(1));
}

#[test]
fn everything_else_is_left_alone() {
    let syn = tcp(25, SYN, 0);
    for (what, packet) in [
        ("another port", v4(TCP, 0, &[], &tcp(26, SYN, 0))),
        ("from port 25", v4(TCP, 0, &[], &[&[0, 25], &tcp(7, SYN, 0)[2..]].concat())),
        ("another protocol", v4(17, 0, &[], &syn)),
        ("an ICMP echo", v4(ICMP, 0, &[], &[8, 0, 0, 0, 0, 0, 0, 0])),
        ("a later fragment", v4(TCP, 2, &[], &syn)),
        ("a tiny first fragment to another port", v4(TCP, 0x2000, &[], &tcp(80, SYN, 0)[..8])),
        ("too short an IPv4 header", [&[0x44], &v4(TCP, 0, &[], &syn)[1..]].concat()),
        ("version 5", [&[0x55], &v4(TCP, 0, &[], &syn)[1..]].concat()),
        ("no TCP header within the IP length", v4(TCP, 0, &[], &syn[..19])),
        ("another port, IPv6", v6(TCP, &tcp(26, SYN, 0))),
        ("no next header", v6(59, &syn)),
        ("ESP", v6(50, &syn)),
        ("a later fragment, IPv6", v6(FRAGMENT, &[fragment_header(TCP, 2, false), syn.clone()].concat())),
        (
            "UDP in a fragment at offset 1",
            v6(FRAGMENT, &[fragment_header(17, 1, false), syn.clone()].concat()),
        ),
        ("an extension header that ends the packet", v6(DESTINATION, &extension(TCP, 0))),
        ("no TCP header within the IP length, IPv6", v6(TCP, &syn[..19])),
    ] {
        check(what, &packet, Parsed::Other);
    }
}

#[test]
fn what_lies_beyond_the_ip_length_does_not_count() {
    let syn = tcp(25, SYN, 0);
    let mut packet = v4(TCP, 0, &[], &syn[..12]);
    packet.extend(&syn[12..]);
    check("the stack cuts the flags off", &packet, Parsed::Other);
    let mut first = v4(TCP, 0x2000, &[], &syn[..16]);
    first.extend(&syn[16..]);
    check("and a first fragment is as tiny as its IP length says", &first, Parsed::TinyFragment);
    // Where the stack goes by the frame, so do we.
    let mut merged = v4(TCP, 0, &[], &syn);
    merged[2..4].copy_from_slice(&[0, 0]);
    check("no total length", &merged, Parsed::Smtp);
    let mut jumbo = v6(HOP_BY_HOP, &[extension(TCP, 0), syn.clone()].concat());
    jumbo[4..6].copy_from_slice(&[0, 0]);
    check("no payload length, hop-by-hop header", &jumbo, Parsed::Smtp);
    let mut empty = v6(TCP, &syn);
    empty[4..6].copy_from_slice(&[0, 0]);
    check("no payload length, no hop-by-hop header", &empty, Parsed::Other);
}

#[test]
fn fragments_that_hide_headers_are_found() {
    let syn = tcp(25, SYN, 0);
    let v6_fragment = |offset, more, payload: &[u8]| {
        v6(FRAGMENT, &[&fragment_header(TCP, offset, more)[..], payload].concat())
    };
    check("tiny", &v4(TCP, 0x2000, &[], &syn[..8]), Parsed::TinyFragment);
    check("without ports", &v4(TCP, 0x2000, &[], &[]), Parsed::TinyFragment);
    check("overlay", &v4(TCP, 1, &[], &syn), Parsed::OverlayFragment);
    check("overlay, more follow", &v4(TCP, 0x2001, &[], &syn), Parsed::OverlayFragment);
    check("tiny, IPv6", &v6_fragment(0, true, &syn[..8]), Parsed::TinyFragment);
    check("overlay, IPv6", &v6_fragment(1, false, &syn), Parsed::OverlayFragment);
    let cut = [fragment_header(DESTINATION, 0, true), extension(TCP, 9)[..16].to_vec()].concat();
    check("the chain goes on in the next fragment", &v6(FRAGMENT, &cut), Parsed::TinyFragment);

    assert_eq!(read(&v4(TCP, 0x2000, &[], &syn)).1.map(|flow| flow.fragment), Some(1));
    assert_eq!(read(&v4(TCP, 0x4000, &[], &syn)).1.map(|flow| flow.fragment), Some(0), "don't fragment");
    assert_eq!(read(&v6_fragment(0, true, &syn)).1.map(|flow| flow.fragment), Some(1));
    assert_eq!(read(&v6_fragment(0, false, &syn)).1.map(|flow| flow.fragment), Some(0), "the whole in one");
    // A fragment within a fragment.
    let nested = [fragment_header(FRAGMENT, 0, true), fragment_header(TCP, 0, false), syn.clone()].concat();
    assert_eq!(read(&v6(FRAGMENT, &nested)).1.map(|flow| flow.fragment), Some(1));
}

#[test]
fn chains_of_extension_headers_are_walked_to_the_eighth() {
    let syn = tcp(25, SYN, 0);
    let chain = |kinds: &[u8]| {
        let mut payload = Vec::new();
        for (index, kind) in kinds.iter().enumerate() {
            let next = *kinds.get(index + 1).unwrap_or(&TCP);
            payload.extend(match *kind {
                FRAGMENT => fragment_header(next, 0, false),
                // Counted in units of four, less two.
                AUTHENTICATION => [&[next, 4], &[0; 22][..]].concat(),
                _ => extension(next, (index % 3) as u8),
            });
        }
        payload.extend(&syn);
        v6(kinds[0], &payload)
    };
    check("each kind", &chain(&[HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION]), Parsed::Smtp);
    check("the rare kinds", &chain(&[MOBILITY, HOST_IDENTITY, SHIM6]), Parsed::Smtp);
    check("eight", &chain(&[DESTINATION; 8]), Parsed::Smtp);
    check("nine", &chain(&[DESTINATION; 9]), Parsed::LongChain);
    let flow = read(&chain(&[HOP_BY_HOP, DESTINATION])).1.unwrap();
    assert_eq!((flow.network, flow.transport, flow.plain), (14, 14 + 40 + 8 + 16, 0));
}

#[test]
fn messages_about_the_path_mtu_name_the_clients_flow() {
    // What we sent: from the destination address and port 25 to the client.
    let ours = |mut packet: Vec<u8>, addresses: usize, length: usize| {
        let (from, to) = packet[addresses..addresses + 2 * length].split_at_mut(length);
        from.swap_with_slice(to);
        packet
    };
    let ports = [&[0, 25], &CLIENT_PORT[..], &SEQUENCE].concat();
    let quoted4 = ours(v4(TCP, 0x4000, &[], &ports), 12, 4);
    let quoted6 = ours(v6(TCP, &ports), 8, 16);
    let about = |kind, code, quoted: &[u8]| [&[kind, code, 0, 0, 0, 0, 5, 0], quoted].concat();
    let expect = Flow {
        source: mapped(CLIENT4),
        destination: mapped(SERVER4),
        source_port: CLIENT_PORT,
        flags: ACK,
        ..Flow::default()
    };
    assert_eq!(read(&v4(ICMP, 0, &[], &about(3, 4, &quoted4))), (Parsed::PathMtu, Some(expect)));
    let expect = Flow { source: CLIENT6, destination: SERVER6, ipv6: 1, ..expect };
    assert_eq!(read(&v6(ICMPV6, &about(2, 0, &quoted6))), (Parsed::PathMtu, Some(expect)));

    check("host unreachable", &v4(ICMP, 0, &[], &about(3, 1, &quoted4)), Parsed::Other);
    check("time exceeded", &v6(ICMPV6, &about(3, 0, &quoted6)), Parsed::Other);
    let mut other = quoted4.clone();
    other[21] = 80;
    check("about another port", &v4(ICMP, 0, &[], &about(3, 4, &other)), Parsed::Other);
    check("ports cut off", &v4(ICMP, 0, &[], &about(3, 4, &quoted4[..22])), Parsed::Other);
    check("in fragments", &v4(ICMP, 0x2000, &[], &about(3, 4, &quoted4)), Parsed::Other);
}

/// A view that sees the first octets only, as direct access does.
struct Linear<'a>(&'a [u8], usize);

impl Octets for Linear<'_> {
    const WALKS: bool = false;
    fn octets<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0[..self.0.len().min(self.1)].get(offset..offset + N)?.try_into().ok()
    }
    fn frame_length(&self) -> usize {
        self.0.len()
    }
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let segment = (0usize..30, prop::sample::select(vec![25u16, 80]), any::<u8>(), 0usize..4).prop_map(
        |(cut, port, flags, data)| tcp(port, flags, data).into_iter().take(40 - cut).collect::<Vec<_>>(),
    );
    let kinds =
        prop::sample::select(vec![HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, TCP, ICMPV6]);
    let headers = prop::collection::vec((kinds, 0u8..3, any::<u16>()), 0..11);
    let options = prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut options| {
        options.truncate(options.len() / 4 * 4);
        options
    });
    let v4_packet = (prop::sample::select(vec![TCP, ICMP, 17]), any::<u16>(), options, segment.clone())
        .prop_map(|(protocol, fragment, options, payload)| v4(protocol, fragment, &options, &payload));
    let v6_packet = (headers, segment).prop_map(|(headers, segment)| {
        let mut payload = Vec::new();
        let first = headers.first().map_or(TCP, |header| header.0);
        for (index, (kind, units, field)) in headers.iter().enumerate() {
            let next = headers.get(index + 1).map_or(TCP, |header| header.0);
            payload.extend(match *kind {
                FRAGMENT => fragment_header(next, field >> 13, field & 1 != 0),
                _ => extension(next, *units),
            });
        }
        payload.extend(segment);
        v6(first, &payload)
    });
    prop_oneof![v4_packet, v6_packet, prop::collection::vec(any::<u8>(), 1..120)]
}

proptest! {
    /// Whatever the octets: no panic; a flow lies within the packet; cut short, it is never taken for another
    /// flow.
    #[test]
    fn any_octets(packet in any_packet(), cut in 0usize..140) {
        let (parsed, flow) = read(&packet);
        if let (Parsed::Smtp, Some(flow)) = (parsed, flow) {
            let at = usize::from(flow.transport);
            prop_assert!(at + TCP_HEADER <= START + packet.len());
            prop_assert_eq!(&packet[at - START + 2..at - START + 4], &25u16.to_be_bytes());
        }
        let shorter = &packet[..packet.len().min(cut)];
        if let (Parsed::Smtp, Some(short)) = read(shorter) {
            // The same flow, but for what the frame's length decides.
            if let Some(flow) = flow {
                prop_assert_eq!((short.source, short.source_port, short.flags), (flow.source, flow.source_port, flow.flags));
            }
        }
    }

    /// The quick view says the same as the thorough one, or that it can't tell.
    #[test]
    fn the_quick_view_agrees(packet in any_packet(), linear in 14usize..140) {
        let frame = [&[0; START], &packet[..]].concat();
        let version = if packet[0] >> 4 == 6 { Version::V6 } else { Version::V4 };
        let mut flow = MaybeUninit::uninit();
        let quick = parse(&Linear(&frame, linear), START, version, &mut flow);
        let (thorough, expect) = read(&packet);
        if quick != Parsed::Short {
            prop_assert_eq!(quick, thorough);
            if quick == Parsed::Smtp {
                // SAFETY: written, as `parse` promises.
                prop_assert_eq!(Some(unsafe { flow.assume_init() }), expect);
            }
        }
    }
}
