//! Large data over paths of every size: segments merged by the receive path, jumbo frames, and a small link
//! beyond a router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mailguard::datapath::XdpAttachment;
use mailguard_common::maps::Reason;
use mailguard_tests::netns::{
    CLIENT4, CLIENT4_SECOND, CLIENT6, FIREWALL4, FIREWALL6, LAN, Namespace, SERVER4, SERVER6, join,
};

use crate::firewall::{Answer, Firewall, Session, ZONES};

/// A line of this many octets, the last of them its end.
fn line(octets: usize) -> Vec<u8> {
    [vec![b'x'; octets - 1], vec![b'\n']].concat()
}

/// Sends 10 MB there and back, over each family.
#[track_caller]
fn check_bulk(firewall: &Firewall, what: &str) {
    let bulk = line(10_000_000);
    for (client, server) in [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
    {
        firewall.beat();
        let mut session = firewall.session(server);
        assert_eq!(session.answer, Answer::intercepted(client, server), "{what}");
        assert!(session.echo_patiently(&bulk), "{what}: {server}");
    }
}

#[test]
fn merged_segments_reach_the_session() {
    for xdp in ["off", "native", "generic"] {
        let firewall = Firewall::new(&format!("[kernel]\nxdp = \"{xdp}\"\n"));
        check_bulk(&firewall, xdp);
        let status = firewall.status();
        let session =
            status.reasons.iter().find(|count| count.reason == Reason::Session).expect("the reason");
        // Unless the driver's XDP takes them apart.
        if xdp != "native" {
            assert!(session.octets > session.packets * 1_514, "{xdp}: some were merged: {session:?}");
        }
    }
}

#[test]
fn jumbo_frames_fit_native_xdp() {
    let mut firewall = Firewall::idle(&format!(
        "{ZONES}[kernel]\nxdp = \"native\"\n[access]\nblacklist_clients = [\"{CLIENT4_SECOND}\"]\n"
    ));
    firewall.topology.client.ip("link set eth0 mtu 9000").unwrap();
    firewall.topology.firewall.ip(&format!("link set {LAN} mtu 9000")).unwrap();
    firewall.start();
    assert!(firewall.status().interfaces.iter().all(|interface| interface.xdp == XdpAttachment::Native));
    check_bulk(&firewall, "jumbo frames");
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::Nobody);
    assert!(firewall.packets("blacklist-dropped-xdp") > 0);
}

/// The client beyond two routers, the middle link smaller than both ends.
const FAR4: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 2);
const FAR6: Ipv6Addr = Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 2);

/// Puts a far client and a router behind the topology's client, which forwards.
fn far_client(firewall: &Firewall) -> [Namespace; 2] {
    let (near, router) = (&firewall.topology.client, &firewall.topology.firewall);
    let [far, middle] = ["far", "router"].map(|label| Namespace::new(label).unwrap());
    join(&far, "eth0", &middle, "far0").unwrap();
    join(&middle, "near0", near, "eth1").unwrap();
    for (namespace, device, v4, v6) in [
        (&far, "eth0", "10.50.0.2/24", "fd50::2/64"),
        (&middle, "far0", "10.50.0.1/24", "fd50::1/64"),
        (&middle, "near0", "10.51.0.2/24", "fd51::2/64"),
        (near, "eth1", "10.51.0.1/24", "fd51::1/64"),
    ] {
        namespace.ip(&format!("address add {v4} dev {device}")).unwrap();
        namespace.ip(&format!("address add {v6} dev {device} nodad")).unwrap();
    }
    for namespace in [&middle, near] {
        namespace.sysctl("net.ipv4.ip_forward", "1").unwrap();
        namespace.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    }
    for (namespace, v4, v6) in [(&far, "10.50.0.1", "fd50::1"), (&middle, "10.51.0.1", "fd51::1")] {
        namespace.ip(&format!("route add default via {v4}")).unwrap();
        namespace.ip(&format!("-6 route add default via {v6}")).unwrap();
    }
    near.ip("route add 10.50.0.0/24 via 10.51.0.2").unwrap();
    near.ip("-6 route add fd50::/64 via fd51::2").unwrap();
    for network in ["10.50.0.0/24", "10.51.0.0/24"] {
        router.ip(&format!("route add {network} via {CLIENT4}")).unwrap();
    }
    for network in ["fd50::/64", "fd51::/64"] {
        router.ip(&format!("-6 route add {network} via {CLIENT6}")).unwrap();
    }
    near.ip(&format!("route replace default via {FIREWALL4}")).unwrap();
    near.ip(&format!("-6 route replace default via {FIREWALL6}")).unwrap();
    [far, middle]
}

#[test]
fn a_small_link_beyond_a_router_is_no_black_hole() {
    let firewall = Firewall::new("");
    let [far, middle] = far_client(&firewall);
    let mut learned = 0;
    for mtu in [1_400, 1_280] {
        middle.ip(&format!("link set near0 mtu {mtu}")).unwrap();
        firewall.topology.client.ip(&format!("link set eth1 mtu {mtu}")).unwrap();
        for (client, server) in [(IpAddr::from(FAR4), IpAddr::from(SERVER4)), (FAR6.into(), SERVER6.into())] {
            firewall.beat();
            let session = Session::open(&far, None, (server, 25).into());
            let mut session = session.unwrap_or_else(|answer| panic!("{mtu}: {answer:?}"));
            assert_eq!(session.answer, Answer::intercepted(client, server));
            assert!(session.echo_patiently(&line(200_000)), "{mtu}: {client}");
            let output =
                firewall.topology.firewall.command("ss").args(["-tinH", "sport", "=", ":25"]).output();
            let sockets = String::from_utf8(output.unwrap().stdout).unwrap();
            assert!(sockets.contains(&format!("pmtu:{mtu}")), "{sockets}");
            let now = firewall.packets("path-mtu");
            assert!(now > learned, "{mtu}: {client}: the router had to say it");
            learned = now;
        }
    }
}
