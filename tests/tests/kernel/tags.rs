//! A whole connection behind VLAN tags that name no VLAN, by hand, for no stack that behaves sends two of
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mailguard_tests::frames::{
    ACK, PSH, SYN, TCP, VLAN, Wire, checksum, ipv4, ipv6, mac, pseudo_header, tagged,
};
use mailguard_tests::netns::{CLIENT4, LAN, SERVER4, SERVER6};

use crate::firewall::{Firewall, ZONES};

/// Addresses on the client's network that its own stack doesn't have: it would break off what it hasn't
/// begun.
const STRANGER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x99);
const PORT: u16 = 40_002;
/// Sequence number of the stranger's SYN.
const FIRST: u32 = 1_000_000;
/// One that the stack takes off before TC, and one behind it.
const TAGS: [(u16, u16); 2] = [(VLAN, 0), (VLAN, 0)];

/// A TCP segment that came.
struct Segment {
    flags: u8,
    sequence: u32,
    data: Vec<u8>,
}

/// The stranger's end of a connection.
struct Stranger {
    wire: Wire,
    router: [u8; 6],
    addresses: (IpAddr, IpAddr),
}

impl Stranger {
    fn new(firewall: &Firewall, client: IpAddr, server: IpAddr) -> Self {
        let wire = Wire::open(&firewall.topology.client, "eth0");
        let own = wire.mac.map(|octet| format!("{octet:02x}")).join(":");
        let neighbour = format!("neighbour replace {client} lladdr {own} dev {LAN} nud permanent");
        firewall.topology.firewall.ip(&neighbour).unwrap();
        Self { wire, router: mac(&firewall.topology.firewall, LAN), addresses: (client, server) }
    }

    fn send(&self, flags: u8, sequence: u32, acknowledged: u32, data: &[u8]) {
        let (client, server) = self.addresses;
        let mut segment = [PORT.to_be_bytes(), 25u16.to_be_bytes()].concat();
        segment.extend(sequence.to_be_bytes());
        segment.extend(acknowledged.to_be_bytes());
        segment.extend([5 << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        segment.extend(data);
        let sum = checksum(&[&pseudo_header(client, server, segment.len()), &segment]);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let packet = match (client, server) {
            (IpAddr::V4(client), IpAddr::V4(server)) => ipv4(client, server, 0, b"", &segment),
            (IpAddr::V6(client), IpAddr::V6(server)) => ipv6(client, server, TCP, &segment),
            _ => unreachable!("of one family"),
        };
        self.wire.send(&tagged(self.router, self.wire.mac, &TAGS, &packet));
    }

    /// The server's next segment of which `wanted` says so.
    fn receive(&self, wanted: impl Fn(&Segment) -> bool) -> Segment {
        let header = if self.addresses.0.is_ipv6() { 40 } else { 20 };
        let read = |frame: &[u8]| {
            let tcp = frame.get(14 + header..).filter(|tcp| tcp.len() >= 20)?;
            if tcp[..2] != 25u16.to_be_bytes() || tcp[2..4] != PORT.to_be_bytes() {
                return None;
            }
            let data = tcp[usize::from(tcp[12] >> 4) * 4..].to_vec();
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            Some(Segment { flags: tcp[13], sequence, data })
        };
        let frames = self.wire.receive_until(|frame| read(frame).is_some_and(|segment| wanted(&segment)));
        frames.last().and_then(|frame| read(frame)).expect("the wanted one is the last")
    }

    /// Connects and says a line; what greets it, and what is answered to the line.
    fn converse(&self, line: &str) -> (String, String) {
        self.send(SYN, FIRST, 0, b"");
        let accepted = self.receive(|segment| segment.flags & (SYN | ACK) == SYN | ACK);
        let expected = accepted.sequence.wrapping_add(1);
        self.send(ACK, FIRST + 1, expected, b"");
        let greeting = self.receive(|segment| segment.sequence == expected && !segment.data.is_empty());
        let expected = expected.wrapping_add(greeting.data.len() as u32);
        self.send(ACK | PSH, FIRST + 1, expected, line.as_bytes());
        let echo = self.receive(|segment| segment.sequence == expected && !segment.data.is_empty());
        let text = |data| String::from_utf8(data).expect("text");
        (text(greeting.data), text(echo.data))
    }
}

#[track_caller]
fn check(firewall: &Firewall, expect: impl Fn(IpAddr, IpAddr) -> String) {
    for (client, server) in
        [(IpAddr::from(STRANGER4), IpAddr::from(SERVER4)), (STRANGER6.into(), SERVER6.into())]
    {
        firewall.beat();
        let said = Stranger::new(firewall, client, server).converse("hello\n");
        assert_eq!(said, (expect(client, server), "hello\n".to_owned()));
    }
}

#[test]
fn a_connection_behind_two_tags_without_a_vlan_is_intercepted() {
    for xdp in ["off", "generic", "native"] {
        let firewall = Firewall::new(&format!("[kernel]\nxdp = \"{xdp}\"\n"));
        check(&firewall, |client, server| {
            let server = std::net::SocketAddr::new(server, 25);
            format!("proxy 0 {client} {server} false\n")
        });
        assert_eq!(firewall.packets("intercepted"), 2, "{xdp}");
    }
}

#[test]
fn without_mailguard_it_reaches_the_server() {
    let firewall = Firewall::idle(ZONES);
    check(&firewall, |client, _| format!("server {client}\n"));
}

#[test]
fn a_listed_client_is_kept_out_behind_any_number_of_tags() {
    for (settings, early) in [("xdp = \"off\"", 0), ("xdp = \"native\"", 3), ("xdp = \"generic\"", 3)] {
        let firewall =
            Firewall::new(&format!("[kernel]\n{settings}\n[access]\nblacklist_clients = [\"{CLIENT4}\"]\n"));
        let wire = Wire::open(&firewall.topology.client, "eth0");
        let router = mac(&firewall.topology.firewall, LAN);
        let syn = mailguard_tests::frames::syn(CLIENT4.into(), PORT, SERVER4.into());
        for count in 0..=5 {
            wire.send(&tagged(router, wire.mac, &vec![(VLAN, 0); count], &syn));
        }
        let dropped = || (firewall.packets("blacklist-dropped-xdp"), firewall.packets("blacklist-dropped"));
        let all = || dropped().0 + dropped().1 == 6;
        mailguard_tests::peers::wait_until("all are counted", all).unwrap();
        assert_eq!(dropped(), (early, 6 - early), "{settings}");
    }
}
