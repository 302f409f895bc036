//! The blacklist in the kernel: dropped or reset, in XDP and in TC, and never an open session's packet.

use std::net::IpAddr;

use mailguard::datapath::{Hook, TcAttachment, XdpAttachment};
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT6, FIREWALL4_WAN, SERVER4, SERVER6};

use crate::firewall::{Answer, Firewall, Session};

/// One address and one network, with an exception.
const LISTS: &str = r#"[access]
blacklist_clients = ["192.0.2.2", "2001:db8:1::/64", "203.0.113.0/24"]
whitelist_clients = ["203.0.113.1"]
"#;

#[track_caller]
fn check(settings: &str, expect: Answer, reason: &str) -> Firewall {
    let firewall = Firewall::new(&format!("[kernel]\n{settings}\n{LISTS}"));
    assert_eq!(firewall.dial(SERVER4), expect, "{settings}");
    assert_eq!(firewall.dial(SERVER6), expect, "{settings}");
    assert!(firewall.packets(reason) >= 2, "{settings}");
    assert!(firewall.rule_packets("blacklist client", "192.0.2.2") >= 1, "{settings}");
    assert!(firewall.rule_packets("blacklist client", "2001:db8:1::/64") >= 1, "{settings}");
    let other = Answer::intercepted(CLIENT4_SECOND, SERVER4);
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), other, "{settings}");
    firewall
}

#[test]
fn blacklisted_clients_are_dropped_in_tc() {
    let firewall = check("xdp = \"off\"", Answer::Nobody, "blacklist-dropped");
    assert_eq!(firewall.packets("blacklist-dropped-xdp"), 0);
}

#[test]
fn blacklisted_clients_are_dropped_in_xdp() {
    for xdp in [XdpAttachment::Native, XdpAttachment::Generic] {
        let firewall = check(&format!("xdp = \"{xdp}\""), Answer::Nobody, "blacklist-dropped-xdp");
        assert_eq!(firewall.packets("blacklist-dropped"), 0, "{xdp}");
        let status = firewall.status();
        assert!(status.interfaces.iter().all(|interface| interface.xdp == xdp), "{status:?}");
    }
}

#[test]
fn on_virtual_interfaces_xdp_is_off_unless_it_is_asked_for() {
    let firewall = Firewall::new("");
    let status = firewall.status();
    let facts: Vec<_> = status
        .interfaces
        .iter()
        .map(|i| (i.name.as_str(), i.xdp.clone(), i.tc.clone(), i.intercepts))
        .collect();
    let tc = if Hook::of_this_kernel() == Hook::Tcx { TcAttachment::Tcx } else { TcAttachment::Clsact };
    let fact = |name, intercepts| (name, XdpAttachment::Off.into(), tc.into(), intercepts);
    assert_eq!(facts, [fact("lan0", true), fact("wan0", false)]);
}

#[test]
fn blacklisted_clients_are_reset() {
    for xdp in ["native", "generic", "off"] {
        check(&format!("xdp = \"{xdp}\"\nblacklist_action = \"reset\""), Answer::Refused, "blacklist-reset");
    }
}

#[test]
fn rejecting_in_the_session_puts_nothing_into_the_kernel() {
    let firewall = Firewall::new(&format!("[kernel]\nblacklist_action = \"reject\"\n{LISTS}"));
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
    let status = firewall.status();
    assert!(status.maps.iter().all(|map| map.entries == 0), "{status:?}");
}

#[test]
fn an_active_zone_is_protected_too() {
    let firewall = Firewall::new("[access]\nblacklist_clients = [\"198.51.100.2\"]\n");
    let dial = |port| {
        let session = Session::open(&firewall.topology.server, None, (FIREWALL4_WAN, port).into());
        session.map_or_else(|answer| answer, |session| session.answer)
    };
    assert_eq!(dial(25), Answer::Nobody);
    assert_eq!(dial(26), Answer::Refused, "another port");
    // The server is blacklisted as a client; its replies to the firewall's own connection aren't.
    let own = Session::open(&firewall.topology.firewall, None, (SERVER4, 25).into());
    assert_eq!(own.map(|session| session.answer).unwrap(), Answer::server(FIREWALL4_WAN));
}

#[test]
fn an_open_session_outlives_the_listing_of_its_client() {
    for xdp in ["native", "generic", "off"] {
        let kernel = format!("[kernel]\nxdp = \"{xdp}\"\n");
        let mut firewall = Firewall::new(&kernel);
        let mut sessions = [firewall.session(SERVER4), firewall.session(SERVER6)];
        let applied = firewall.reload(&format!("{kernel}{LISTS}"));
        assert_eq!((applied.added, applied.removed), (4, 0));
        assert!(sessions.iter_mut().all(Session::alive), "{xdp}");
        assert_eq!(firewall.dial(SERVER4), Answer::Nobody, "{xdp}");
        let applied = firewall.reload(&kernel);
        assert_eq!((applied.added, applied.removed), (0, 4));
        assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4), "{xdp}");
    }
}

#[test]
fn whitelisted_clients_are_let_through_a_listed_network() {
    let lists = "[access]\nblacklist_clients = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n\
                 whitelist_clients = [\"192.0.2.3\", \"2001:db8:1::/48\"]\n";
    let firewall = Firewall::new(lists);
    let expect = [
        (IpAddr::from(CLIENT4), IpAddr::from(SERVER4), Answer::Nobody),
        (CLIENT4_SECOND.into(), SERVER4.into(), Answer::intercepted(CLIENT4_SECOND, SERVER4)),
        (CLIENT6.into(), SERVER6.into(), Answer::intercepted(CLIENT6, SERVER6)),
    ];
    for (client, server, answer) in expect {
        assert_eq!(firewall.dial_from(client, server), answer, "{client}");
    }
}
