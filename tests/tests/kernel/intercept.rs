//! What is intercepted, and what isn't.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use mailguard_tests::netns::{
    CLIENT4, CLIENT6, FIREWALL4, FIREWALL4_WAN, FIREWALL6, LAN, Namespace, SERVER4, SERVER6,
};

use crate::firewall::{Answer, Firewall, Session, ZONES};

/// Addresses that nobody has and nothing leads to.
const NOBODY4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const NOBODY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1);

#[track_caller]
fn check_intercepts(firewall: &Firewall) {
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
    assert_eq!(firewall.dial(NOBODY4), Answer::intercepted(CLIENT4, NOBODY4));
    assert_eq!(firewall.dial(NOBODY6), Answer::intercepted(CLIENT6, NOBODY6));
}

#[test]
fn every_destination_is_intercepted_and_known() {
    let firewall = Firewall::new("");
    check_intercepts(&firewall);
    let own = |client: IpAddr, address: IpAddr| Answer::Proxy {
        zone: 0,
        client,
        destination: (address, 25).into(),
        ours: true,
    };
    assert_eq!(firewall.dial(FIREWALL4), own(CLIENT4.into(), FIREWALL4.into()));
    assert_eq!(firewall.dial(FIREWALL6), own(CLIENT6.into(), FIREWALL6.into()));
    assert_eq!(firewall.packets("intercepted"), 6);
    assert!(firewall.packets("session") > 0);
}

/// The link-local address of an interface, and the interface's index.
fn link_local(namespace: &Namespace, interface: &str) -> (Ipv6Addr, u32) {
    let found = namespace.within(|| {
        let addresses = nix::ifaddrs::getifaddrs()?.filter(|entry| entry.interface_name == interface);
        let mut v6 = addresses.filter_map(|entry| Some((*entry.address?.as_sockaddr_in6()?).into()));
        Ok(v6.find(|v6: &SocketAddrV6| v6.ip().is_unicast_link_local()))
    });
    let found = found.unwrap().expect("every interface has one");
    (*found.ip(), found.scope_id())
}

#[test]
fn a_link_local_destination_is_ours_and_keeps_its_scope() {
    for mode in ["transparent", "active"] {
        let mut firewall = Firewall::idle(&ZONES.replace("transparent", mode));
        firewall.start();
        let ((ours, scope), (theirs, link)) =
            (link_local(&firewall.topology.firewall, LAN), link_local(&firewall.topology.client, "eth0"));
        let dialled = SocketAddrV6::new(ours, 25, 0, link);
        for source in [theirs, CLIENT6] {
            firewall.beat();
            let from = SocketAddrV6::new(source, 0, 0, if source == theirs { link } else { 0 });
            let session = Session::open(&firewall.topology.client, Some(from.into()), dialled.into());
            let mut session = session.unwrap_or_else(|answer| panic!("{mode}, from {source}: {answer:?}"));
            let Answer::Proxy { client, destination: SocketAddr::V6(destination), ours: true, .. } =
                session.answer
            else {
                panic!("{mode}, from {source}: {:?}", session.answer)
            };
            assert_eq!((client, *destination.ip()), (source.into(), ours), "{mode}");
            if source == theirs {
                assert_eq!(destination.scope_id(), scope, "{mode}: the client's side");
            }
            assert!(
                session.echo_patiently(&[vec![b'x'; 100_000], vec![b'\n']].concat()),
                "{mode}, from {source}"
            );
        }
    }
}

#[test]
fn without_mailguard_the_same_connections_go_to_the_server() {
    let firewall = Firewall::idle(ZONES);
    assert_eq!(firewall.dial(SERVER4), Answer::server(CLIENT4));
    assert_eq!(firewall.dial(SERVER6), Answer::server(CLIENT6));
    assert_eq!(firewall.dial(NOBODY4), Answer::Nobody);
    assert_eq!(firewall.dial(FIREWALL4), Answer::Refused);
}

#[test]
fn other_ports_and_outgoing_connections_are_left_alone() {
    let firewall = Firewall::new("");
    let client = &firewall.topology.client;
    for (server, seen) in [(IpAddr::from(SERVER4), IpAddr::from(CLIENT4)), (SERVER6.into(), CLIENT6.into())] {
        let session = Session::open(client, None, (server, 2525).into());
        assert_eq!(session.map(|session| session.answer).unwrap(), Answer::Server(seen));
    }
    // The firewall's own connection to the real server, as delivery makes it.
    let session = Session::open(&firewall.topology.firewall, None, (SERVER4, 25).into());
    assert_eq!(session.map(|session| session.answer).unwrap(), Answer::server(FIREWALL4_WAN));
}

#[test]
fn the_transparent_listeners_answer_nobody_who_dials_them() {
    let firewall = Firewall::new("");
    let topology = &firewall.topology;
    let direct =
        |address: IpAddr| Session::open(&topology.firewall, None, (address, 10025).into()).map(|s| s.answer);
    assert_eq!(direct(Ipv4Addr::LOCALHOST.into()), Err(Answer::Nobody));
    assert_eq!(direct(Ipv6Addr::LOCALHOST.into()), Err(Answer::Nobody));
    let from_outside = Session::open(&topology.client, None, (FIREWALL4, 10025).into()).map(|s| s.answer);
    assert_eq!(from_outside, Err(Answer::Refused));
}

#[test]
fn an_active_zone_accepts_on_its_own_interface_only() {
    let inactive = ZONES.replace("mode = \"transparent\"", "mode = \"inactive\"");
    let mut firewall = Firewall::idle(&inactive);
    firewall.start();
    let topology = &firewall.topology;
    let by_wan = Session::open(&topology.server, None, (FIREWALL4_WAN, 25).into()).map(|s| s.answer);
    let destination = (FIREWALL4_WAN, 25).into();
    assert_eq!(by_wan, Ok(Answer::Proxy { zone: 1, client: SERVER4.into(), destination, ours: true }));
    // The same address by way of the inactive zone; and that zone's connections aren't touched.
    assert_eq!(firewall.dial(FIREWALL4_WAN), Answer::Refused);
    assert_eq!(firewall.dial(SERVER4), Answer::server(CLIENT4));
}

#[test]
fn a_flow_that_was_open_before_stays_direct() {
    let mut firewall = Firewall::idle(ZONES);
    let mut older = [firewall.session(SERVER4), firewall.session(SERVER6)];
    firewall.start();
    for session in &mut older {
        assert!(session.alive(), "after the start");
        assert!(matches!(session.answer, Answer::Server(_)));
    }
    assert!(firewall.packets("older-flow") > 0);
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
}
