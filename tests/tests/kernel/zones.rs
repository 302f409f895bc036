//! Several zones and interfaces: each connection belongs to the zone by whose interface it came in, whatever
//! the way back, and addresses may change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mailguard_tests::netns::{
    CLIENT4, CLIENT6, FIREWALL4, FIREWALL4_WAN, FIREWALL6, FIREWALL6_WAN, LAN, Namespace, SERVER4, SERVER6,
    WAN, join,
};
use mailguard_tests::peers::wait_until;

use crate::firewall::{Answer, Firewall, Session, ZONES, hooks};
use crate::lifecycle::{filters, programs};

/// The firewall's address in the network `number`; the host there has the next one.
fn gateway(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, number, 0, 1), Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, 1))
}

fn host(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, number, 0, 2), Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, 2))
}

/// Connects `namespace` to the firewall's new interface `lan{number}`.
fn connect(firewall: &Firewall, namespace: &Namespace, interface: &str, number: u8) {
    let router = &firewall.topology.firewall;
    let port = format!("lan{number}");
    join(namespace, interface, router, &port).unwrap();
    for (place, device, (v4, v6)) in [(namespace, interface, host(number)), (router, &port, gateway(number))]
    {
        place.ip(&format!("address add {v4}/24 dev {device}")).unwrap();
        place.ip(&format!("address add {v6}/64 dev {device} nodad")).unwrap();
    }
}

/// A host behind the firewall's new interface `lan{number}`.
fn add_host(firewall: &Firewall, number: u8) -> Namespace {
    let namespace = Namespace::new(&format!("host{number}")).unwrap();
    connect(firewall, &namespace, "eth0", number);
    let (v4, v6) = gateway(number);
    namespace.ip(&format!("route add default via {v4}")).unwrap();
    namespace.ip(&format!("-6 route add default via {v6}")).unwrap();
    namespace
}

/// Who answers `from` at port 25 of `address`.
fn answer(from: &Namespace, address: impl Into<IpAddr>) -> Answer {
    let session = Session::open(from, None, (address.into(), 25).into());
    session.map_or_else(|answer| answer, |session| session.answer)
}

/// The proxy of `zone`, to which `client` connects at `address`.
fn proxy(zone: usize, client: impl Into<IpAddr>, address: impl Into<IpAddr>, ours: bool) -> Answer {
    Answer::Proxy { zone, client: client.into(), destination: (address.into(), 25).into(), ours }
}

/// Four zones, one of them with two interfaces.
const FOUR_ZONES: &str = r#"
[[zone]]
name = "red"
kind = "red"
interfaces = ["wan0"]
mode = "active"
[[zone]]
name = "green"
kind = "green"
interfaces = ["lan0"]
mode = "transparent"
[[zone]]
name = "orange"
kind = "orange"
interfaces = ["lan1"]
mode = "transparent"
[[zone]]
name = "blue"
kind = "blue"
interfaces = ["lan2", "lan3"]
mode = "transparent"
"#;

#[test]
fn each_zone_has_its_own_listener() {
    let mut firewall = Firewall::idle(FOUR_ZONES);
    let hosts: Vec<_> = (1..=3).map(|number| (number, add_host(&firewall, number))).collect();
    firewall.start();
    for (number, namespace) in &hosts {
        let zone = if *number == 1 { 2 } else { 3 };
        let (v4, v6) = host(*number);
        assert_eq!(answer(namespace, SERVER4), proxy(zone, v4, SERVER4, false));
        assert_eq!(answer(namespace, SERVER6), proxy(zone, v6, SERVER6, false));
        // From one zone to another one's host, and to another interface of the same zone.
        let (other4, other6) = host(2);
        if *number != 2 {
            assert_eq!(answer(namespace, other4), proxy(zone, v4, other4, false));
            assert_eq!(answer(namespace, other6), proxy(zone, v6, other6, false));
        }
    }
    assert_eq!(firewall.dial(SERVER4), proxy(1, CLIENT4, SERVER4, false));
    assert_eq!(firewall.dial(SERVER6), proxy(1, CLIENT6, SERVER6, false));
    let server = &firewall.topology.server;
    assert_eq!(answer(server, FIREWALL4_WAN), proxy(0, SERVER4, FIREWALL4_WAN, true));
    assert_eq!(answer(server, FIREWALL6_WAN), proxy(0, SERVER6, FIREWALL6_WAN, true));
    // An active zone takes what is meant for the firewall, nothing that goes through it.
    assert_eq!(answer(server, CLIENT4), Answer::Refused);
    assert_eq!(answer(server, CLIENT6), Answer::Refused);
}

#[test]
fn the_way_back_may_lead_through_another_interface() {
    for zones in [
        ZONES.replace("[\"lan0\"]", "[\"lan0\", \"lan1\"]"),
        format!(
            "{ZONES}[[zone]]\nname = \"orange\"\nkind = \"orange\"\ninterfaces = [\"lan1\"]\nmode = \"transparent\"\n"
        ),
    ] {
        let mut firewall = Firewall::idle(&zones);
        let (client, router) = (&firewall.topology.client, &firewall.topology.firewall);
        connect(&firewall, client, "eth1", 1);
        // The client sends by eth0 and hears by eth1.
        let (v4, v6) = host(1);
        router.ip(&format!("route add {CLIENT4} via {v4} dev lan1")).unwrap();
        router.ip(&format!("-6 route add {CLIENT6} via {v6} dev lan1")).unwrap();
        for (namespace, device) in [(client, "eth1"), (router, LAN)] {
            namespace.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
            namespace.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "0").unwrap();
        }
        firewall.start();
        let heard = || firewall.topology.client.ip_output("-s -o link show eth1").unwrap();
        let before = heard();
        for rp_filter in ["0", "2"] {
            firewall.topology.firewall.sysctl("net.ipv4.conf.all.rp_filter", rp_filter).unwrap();
            for (client, server) in
                [(IpAddr::from(CLIENT4), IpAddr::from(SERVER4)), (CLIENT6.into(), SERVER6.into())]
            {
                let source = Some((client, 0).into());
                let session = Session::open(&firewall.topology.client, source, (server, 25).into());
                let mut session = session.unwrap_or_else(|answer| panic!("{client}: {answer:?}"));
                assert_eq!(session.answer, Answer::intercepted(client, server));
                assert!(session.echo_patiently(&[vec![b'x'; 100_000], vec![b'\n']].concat()));
            }
        }
        assert_ne!(before, heard(), "the answers came by the other interface");
    }
}

#[test]
fn the_firewalls_addresses_may_change() {
    const NEW4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
    const NEW6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe);
    const NEW4_WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
    const NEW6_WAN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xfe);
    let firewall = Firewall::new("");
    let (client, router, server) =
        (&firewall.topology.client, &firewall.topology.firewall, &firewall.topology.server);
    let mut sessions = [firewall.session(SERVER4), firewall.session(SERVER6)];
    for (device, old4, old6, new4, new6) in
        [(LAN, FIREWALL4, FIREWALL6, NEW4, NEW6), (WAN, FIREWALL4_WAN, FIREWALL6_WAN, NEW4_WAN, NEW6_WAN)]
    {
        router.ip(&format!("address del {old4}/24 dev {device}")).unwrap();
        router.ip(&format!("address del {old6}/64 dev {device}")).unwrap();
        router.ip(&format!("address add {new4}/24 dev {device}")).unwrap();
        router.ip(&format!("address add {new6}/64 dev {device} nodad")).unwrap();
    }
    for (namespace, v4, v6) in [(client, NEW4, NEW6), (server, NEW4_WAN, NEW6_WAN)] {
        namespace.ip(&format!("route replace default via {v4}")).unwrap();
        namespace.ip(&format!("-6 route replace default via {v6}")).unwrap();
    }
    assert!(sessions.iter_mut().all(Session::alive), "open sessions have other addresses");
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
    // The kernel tells of them a moment after they are there.
    let ours = |dial: &dyn Fn() -> Answer, expect: Answer| {
        wait_until("the new address is known to be ours", || dial() == expect).unwrap();
    };
    ours(&|| firewall.dial(NEW4), proxy(0, CLIENT4, NEW4, true));
    ours(&|| firewall.dial(NEW6), proxy(0, CLIENT6, NEW6, true));
    ours(&|| answer(server, NEW4_WAN), proxy(1, SERVER4, NEW4_WAN, true));
    ours(&|| answer(server, NEW6_WAN), proxy(1, SERVER6, NEW6_WAN, true));
    assert_eq!(answer(server, FIREWALL4_WAN), Answer::Nobody, "nobody has the old one");
}

/// [`ZONES`] with another beginning: a zone of `name` and `mode` with lan0.
fn lan_is(name: &str, mode: &str) -> String {
    ZONES.replacen("name = \"green\"", &format!("name = \"{name}\""), 1).replacen(
        "\"transparent\"",
        &format!("\"{mode}\""),
        1,
    )
}

/// What two sessions of `from`, which are open, have to do with a change of the zones: nothing.
fn survive(sessions: &mut [Session], what: &str) {
    for session in sessions {
        let large = [vec![b'x'; 200_000], vec![b'\n']].concat();
        assert!(session.alive() && session.echo_patiently(&large), "{what}: {:?}", session.answer);
    }
}

#[test]
fn zones_change_under_open_sessions() {
    for hook in hooks() {
        let mut firewall = Firewall::idle(ZONES);
        firewall.start_on(hook);
        let mut sessions = vec![firewall.session(SERVER4), firewall.session(SERVER6)];
        let through = |firewall: &Firewall| [firewall.dial(SERVER4), firewall.dial(SERVER6)];
        let to = |firewall: &Firewall| [firewall.dial(FIREWALL4), firewall.dial(FIREWALL6)];
        let direct = [Answer::server(CLIENT4), Answer::server(CLIENT6)];
        let intercepted = |zone| [proxy(zone, CLIENT4, SERVER4, false), proxy(zone, CLIENT6, SERVER6, false)];
        let taken = [proxy(0, CLIENT4, FIREWALL4, true), proxy(0, CLIENT6, FIREWALL6, true)];
        assert_eq!(through(&firewall), intercepted(0));

        firewall.reload_zones(&lan_is("green", "inactive"));
        survive(&mut sessions, "transparent to inactive");
        assert_eq!(through(&firewall), direct, "{hook:?}");

        firewall.reload_zones(&lan_is("green", "active"));
        survive(&mut sessions, "to active");
        assert_eq!(through(&firewall), direct, "{hook:?}");
        assert_eq!(to(&firewall), taken, "{hook:?}: what is meant for the firewall is taken");
        sessions.extend([firewall.session(FIREWALL4), firewall.session(FIREWALL6)]);

        firewall.reload_zones(&lan_is("lan", "transparent"));
        survive(&mut sessions, "active to transparent");
        assert_eq!(through(&firewall), intercepted(0), "{hook:?}");
        assert_eq!(to(&firewall), taken, "{hook:?}");
        sessions.extend([firewall.session(SERVER4), firewall.session(SERVER6)]);

        let red_first = lan_is("office", "transparent");
        let (green, red) = red_first.split_at(red_first.rfind("[[zone]]").unwrap());
        firewall.reload_zones(&format!("{red}{green}"));
        survive(&mut sessions, "the zone has another name, and another place");
        assert_eq!(through(&firewall), intercepted(1), "{hook:?}");

        firewall.reload_zones(&ZONES.replace("lan0", "lan7"));
        survive(&mut sessions, "the interface is in no zone");
        assert_eq!(through(&firewall), direct, "{hook:?}");
        let names = |firewall: &Firewall| {
            let interfaces = firewall.status().interfaces;
            interfaces.into_iter().map(|i| (i.name, i.leaving)).collect::<Vec<_>>()
        };
        let absent = ("lan7".to_owned(), false);
        let wan = (WAN.to_owned(), false);
        assert_eq!(names(&firewall), [wan.clone(), (LAN.to_owned(), true), absent.clone()], "{hook:?}");

        firewall.end_all_sessions(Duration::from_secs(21));
        survive(&mut sessions, "sessions have ended, packets may be on their way");
        firewall.end_all_sessions(Duration::from_secs(82));
        assert_eq!(names(&firewall), [wan, absent], "{hook:?}: the interface is left alone");
        assert!(programs(&firewall, LAN).is_empty(), "{hook:?}");
        assert!(!filters(&firewall, LAN).contains("mg_steer"), "{hook:?}");
        let rules = firewall.topology.firewall.ip_output("rule list").unwrap();
        assert!(!rules.contains(LAN), "{rules}");
    }
}

#[test]
fn an_interface_changes_zones_under_open_sessions() {
    let mut firewall = Firewall::idle(FOUR_ZONES);
    let host1 = add_host(&firewall, 1);
    let _others: Vec<_> = [2, 3].map(|number| add_host(&firewall, number)).into();
    firewall.start();
    let (v4, v6) = host(1);
    let answers = |zone| [proxy(zone, v4, SERVER4, false), proxy(zone, v6, SERVER6, false)];
    let dial = || [answer(&host1, SERVER4), answer(&host1, SERVER6)];
    let session = |server: IpAddr| Session::open(&host1, None, (server, 25).into()).unwrap();
    let mut sessions = [session(SERVER4.into()), session(SERVER6.into())];
    assert_eq!(dial(), answers(2));
    firewall
        .reload_zones(&FOUR_ZONES.replace("\"lan1\"", "\"lan9\"").replace("\"lan3\"", "\"lan1\", \"lan3\""));
    survive(&mut sessions, "from orange to blue");
    assert_eq!(dial(), answers(3));
    firewall.reload_zones(FOUR_ZONES);
    survive(&mut sessions, "and back");
    assert_eq!(dial(), answers(2));
}
