//! Interfaces that aren't Ethernet cards, and what a path says of its size.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use mailguard_tests::appliance::Appliance;
use mailguard_tests::frames::{ACK, RST, SYN, TCP, VLAN, Wire, checksum, ethernet, ipv4, ipv6, mac, segment};
use mailguard_tests::netns::{
    BRIDGE, CLIENT4, CLIENT4_SECOND, CLIENT6, FIREWALL4, FIREWALL6, LAN, Namespace, SERVER4, SERVER6,
    Topology,
};
use mailguard_tests::peers::wait_until;

use crate::firewall::{Answer, Firewall, Session, ZONES, hooks};
use crate::servers::Server;

#[test]
fn a_bridge_is_an_interface_like_any_other() {
    let mut firewall = Firewall::idle(&ZONES.replace(LAN, BRIDGE));
    firewall.topology.bridge_client().unwrap();
    firewall.start();
    // A port forwards once it has learned, a moment after it came up.
    wait_until("the bridge forwards", || firewall.dial(SERVER4) != Answer::Nobody).unwrap();
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
}

/// A network namespace that has the firewall's interface towards the client now, and the addresses that the
/// client dials.
struct Elsewhere {
    // Before the namespace, whose they are.
    _servers: Vec<Server>,
    _namespace: Namespace,
}

impl Elsewhere {
    fn take_from(topology: &Topology) -> Self {
        let elsewhere = Namespace::new("elsewhere").unwrap();
        topology.firewall.ip(&format!("link set {LAN} netns {}", elsewhere.name())).unwrap();
        for (interface, address) in [
            (LAN, format!("{FIREWALL4}/24")),
            (LAN, format!("{FIREWALL6}/64 nodad")),
            ("lo", format!("{SERVER4}/32")),
            ("lo", format!("{SERVER6}/128")),
        ] {
            elsewhere.ip(&format!("link set {interface} up")).unwrap();
            elsewhere.ip(&format!("address add {address} dev {interface}")).unwrap();
        }
        Self { _servers: Server::start(&elsewhere, 25), _namespace: elsewhere }
    }
}

/// Clients, and whom each dials: the second one is blacklisted.
const DIALS: [(IpAddr, IpAddr); 3] = [
    (IpAddr::V4(CLIENT4), IpAddr::V4(SERVER4)),
    (IpAddr::V4(CLIENT4_SECOND), IpAddr::V4(SERVER4)),
    (IpAddr::V6(CLIENT6), IpAddr::V6(SERVER6)),
];

/// Who answers each of [`DIALS`]; all at one time, for whoever isn't answered waits.
fn answers(topology: &Topology) -> [Answer; 3] {
    std::thread::scope(|scope| {
        let dial = |(client, server): (IpAddr, IpAddr)| {
            scope.spawn(move || {
                let session = Session::open(&topology.client, Some((client, 0).into()), (server, 25).into());
                session.map_or_else(|answer| answer, |session| session.answer)
            })
        };
        DIALS.map(dial).map(|thread| thread.join().expect("a dialler"))
    })
}

/// `at_home` answers before the interface is moved, nobody running; the others everybody afterwards.
#[track_caller]
fn check_moved_while_nobody_runs(topology: &Topology, at_home: &[Answer; 3], what: &str) {
    wait_until("on_proxy_down is in force", || answers(topology) == *at_home)
        .unwrap_or_else(|error| panic!("{what}: {error}: {:?}", answers(topology)));
    let _elsewhere = Elsewhere::take_from(topology);
    let let_alone = DIALS.map(|(client, _)| Answer::server(client));
    wait_until("the clients see who has the interface now", || answers(topology) == let_alone)
        .unwrap_or_else(|error| panic!("{what}: {error}: {:?}", answers(topology)));
}

#[test]
fn an_interface_that_is_moved_away_from_a_killed_program_is_let_alone() {
    let [first, _, third] = DIALS.map(|(client, _)| Answer::server(client));
    let nobody = || Answer::Nobody;
    // In XDP, too, with the one, and without it with the other.
    for (mode, xdp, at_home) in [
        ("block", "generic", [nobody(), nobody(), nobody()]),
        ("bypass", "generic", [first.clone(), nobody(), third.clone()]),
        ("bypass", "off", [first, nobody(), third]),
    ] {
        let settings = format!(
            "[kernel]\non_proxy_down = \"{mode}\"\nxdp = \"{xdp}\"\n\
             [access]\nblacklist_clients = [\"{CLIENT4_SECOND}\"]\n"
        );
        let topology = Topology::new().expect("namespaces");
        let _servers = Server::start(&topology.server, 25);
        let place = |program: &str| topology.firewall.command(program);
        let config = format!("hostname = \"mailguard.example.org\"\n{ZONES}{settings}");
        let mut appliance = Appliance::start(&place, &config).expect("mailguard runs");
        appliance.kill().expect("killed");
        check_moved_while_nobody_runs(&topology, &at_home, &format!("{mode}, xdp {xdp}"));
    }
}

/// The program itself takes the best hook that there is; here, each.
#[test]
fn an_interface_that_is_moved_away_while_nobody_runs_is_let_alone() {
    let nobody = || Answer::Nobody;
    for hook in hooks() {
        let settings = format!("[access]\nblacklist_clients = [\"{CLIENT4_SECOND}\"]\n");
        let mut firewall = Firewall::idle(&format!("{ZONES}{settings}"));
        firewall.start_on(hook);
        firewall.stop();
        firewall.kill_proxy();
        check_moved_while_nobody_runs(
            &firewall.topology,
            &[nobody(), nobody(), nobody()],
            &format!("{hook:?}"),
        );
    }
}

#[test]
fn an_interface_that_was_moved_away_is_let_alone() {
    for hook in hooks() {
        let mut firewall = Firewall::idle(ZONES);
        firewall.start_on(hook);
        let _elsewhere = Elsewhere::take_from(&firewall.topology);
        assert!(firewall.follow_interfaces());
        for (client, server) in
            [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
        {
            wait_until("the client sees who has the interface now", || {
                firewall.dial(server) == Answer::server(client)
            })
            .unwrap_or_else(|error| panic!("{hook:?}, {server}: {error}, {:?}", firewall.dial(server)));
        }
    }
}

/// The other end of a tun interface: packets without any link-layer header, their types told beside.
struct Tun(File);

impl Tun {
    /// `interface` in the firewall, which routes 10.9.0.0/24 to it.
    fn open(host: &Namespace, interface: &str) -> Self {
        let open = || {
            let mut options = File::options();
            options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
            let file = options.open("/dev/net/tun")?;
            let mut request = [0u8; 40];
            request[..interface.len()].copy_from_slice(interface.as_bytes());
            let flags = nix::libc::IFF_TUN as i16;
            request[16..18].copy_from_slice(&flags.to_ne_bytes());
            // SAFETY: the request is an ifreq, which is as long, and outlives the call.
            let result =
                unsafe { nix::libc::ioctl(file.as_raw_fd(), nix::libc::TUNSETIFF, request.as_mut_ptr()) };
            nix::errno::Errno::result(result)?;
            Ok(file)
        };
        let tun = Self(host.within(open).unwrap());
        host.ip(&format!("link set {interface} up")).unwrap();
        host.ip(&format!("address add 10.9.0.1/24 dev {interface}")).unwrap();
        tun
    }

    /// Sends an IPv4 packet.
    fn send(&mut self, packet: &[u8]) {
        self.send_as(0x0800, packet);
    }

    /// Sends what the firewall is told is of this type.
    fn send_as(&mut self, ethertype: u16, octets: &[u8]) {
        let told = [&[0, 0], &ethertype.to_be_bytes()[..]].concat();
        self.0.write_all(&[&told[..], octets].concat()).unwrap();
    }

    /// The flags of the next TCP segment from `source`, port 25.
    fn answer_from(&mut self, source: Ipv4Addr) -> Option<u8> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut packet = [0; 2048];
        while Instant::now() < deadline {
            match self.0.read(&mut packet) {
                Ok(length)
                    if length >= 44
                        && packet[13] == TCP
                        && packet[16..20] == source.octets()
                        && packet[24..26] == [0, 25] =>
                {
                    return Some(packet[37]);
                }
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        None
    }
}

#[test]
fn packets_without_an_ethernet_header_are_understood() {
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
    const LISTED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 66);
    let syn = |client: Ipv4Addr| {
        ipv4(client, SERVER4, 0, b"", &segment(client.into(), SERVER4.into(), 25, SYN, b""))
    };
    // What would be the sender's MAC if there were an Ethernet header.
    let lookalike = syn(PEER)[6..12].iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":");
    let settings = format!(
        "[kernel]\nblacklist_action = \"reset\"\n[access]\nblacklist_clients = [\"{LISTED}\"]\n\
         [bypass]\nfrom_macs = [\"{lookalike}\"]\nfrom_ips = [\"10.9.0.3\"]\n"
    );
    let mut firewall = Firewall::idle(&format!("{}{settings}", ZONES.replace("lan0", "tun0")));
    let mut tun = Tun::open(&firewall.topology.firewall, "tun0");
    firewall.start();

    tun.send(&syn(PEER));
    assert_eq!(tun.answer_from(SERVER4), Some(SYN | ACK));
    assert_eq!(firewall.packets("intercepted"), 1, "by the proxy");
    tun.send(&syn(LISTED));
    assert_eq!(tun.answer_from(SERVER4), Some(RST | ACK));
    assert_eq!(firewall.packets("blacklist-reset"), 1);
    tun.send(&syn(Ipv4Addr::new(10, 9, 0, 3)));
    wait_until("the bypass counts", || firewall.packets("bypassed") == 1).unwrap();
    assert_eq!(firewall.rule_packets("bypass from", "10.9.0.3"), 1);

    // The stack takes tags off here, too, as a tunnel's far end may put them in.
    let tags = [&[0x60, 0, 0x81, 0, 0x40, 0, 0x08, 0][..], &syn(Ipv4Addr::new(10, 9, 0, 4))].concat();
    tun.send_as(VLAN, &tags);
    assert_eq!(tun.answer_from(SERVER4), Some(SYN | ACK));
    assert_eq!(firewall.packets("intercepted"), 2, "by the proxy, behind tags");
}

/// The next sequence number of the server's end of the session, seen on the client's wire.
fn next_sequence(frames: &[Vec<u8>], ipv6: bool) -> [u8; 4] {
    let tcp = if ipv6 { 54 } else { 34 };
    let ends = frames.iter().filter_map(|frame| {
        if frame.len() < tcp + 20 || frame[tcp..tcp + 2] != [0, 25] {
            return None;
        }
        let header = usize::from(frame[tcp + 12] >> 4) * 4;
        let length = match ipv6 {
            true => usize::from(u16::from_be_bytes([frame[18], frame[19]])),
            false => usize::from(u16::from_be_bytes([frame[16], frame[17]])) - 20,
        };
        let sequence = u32::from_be_bytes([frame[tcp + 4], frame[tcp + 5], frame[tcp + 6], frame[tcp + 7]]);
        Some(
            sequence
                .wrapping_add((length - header) as u32)
                .wrapping_add(u32::from(frame[tcp + 13] & SYN != 0)),
        )
    });
    ends.reduce(|_, later| later).expect("the server sent something").to_be_bytes()
}

/// A message that a packet of ours, from the destination address, was too big for a link of 1,300 octets.
fn too_big(client: IpAddr, server: IpAddr, client_port: u16, sequence: [u8; 4]) -> Vec<u8> {
    let ports = [&[0, 25], &client_port.to_be_bytes()[..], &sequence, &[0; 12]].concat();
    let mut message = match client {
        IpAddr::V4(_) => vec![3, 4, 0, 0, 0, 0, 0x05, 0x14],
        IpAddr::V6(_) => vec![2, 0, 0, 0, 0, 0, 0x05, 0x14],
    };
    match (client, server) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            message.extend(ipv4(server, client, 0x4000, b"", &ports));
            let sum = checksum(&[&message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = ipv4(client, server, 0, b"", &message);
            packet[9] = 1;
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = checksum(&[&packet[..20]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        }
        (IpAddr::V6(client), IpAddr::V6(server)) => {
            message.extend(ipv6(server, client, TCP, &ports));
            let length = (message.len() as u32).to_be_bytes();
            let sum = checksum(&[&client.octets(), &server.octets(), &length, &[0, 0, 0, 58], &message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ipv6(client, server, 58, &message)
        }
        _ => unreachable!("of one family"),
    }
}

#[test]
fn the_proxy_learns_the_size_of_the_path() {
    let firewall = Firewall::new("");
    let topology = &firewall.topology;
    for (client, server) in [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
    {
        let wire = Wire::open(&topology.client, "eth0");
        let mut session = firewall.session(server);
        assert!(session.alive());
        let frames = wire.receive_until(|frame| frame.ends_with(b"hello\n"));
        let rest = wire.receive_until(|frame| frame.ends_with(b"hello\n"));
        let sequence = next_sequence(&[frames, rest].concat(), server.is_ipv6());
        let message = too_big(client, server, session.local().port(), sequence);
        wire.send(&ethernet(mac(&topology.firewall, LAN), wire.mac, None, &message));
        wait_until("the session's path is known to be small", || {
            let output =
                topology.firewall.command("ss").args(["-tinH", "sport", "=", ":25"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("pmtu:1300")
        })
        .unwrap();
        assert!(session.alive());
    }
    assert_eq!(firewall.packets("path-mtu"), 2);
}
