//! Who may send from a zone: `zone.allow_clients`, kept by the kernel before any session.

use std::net::{IpAddr, Ipv6Addr};

use mailguard_tests::netns::{
    CLIENT4, CLIENT4_SECOND, CLIENT4_THIRD, CLIENT6, FIREWALL4_WAN, FIREWALL6_WAN, SERVER4, SERVER6,
};

use crate::firewall::{Answer, Callers, Firewall, Session, ZONES};

const CLIENT6_SECOND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 3);

/// [`ZONES`], the transparent one named `name` and with this list.
fn zones_named(name: &str, allowed: &str) -> String {
    let key = format!("mode = \"transparent\"\nallow_clients = [{allowed}]");
    ZONES.replace("name = \"green\"", &format!("name = \"{name}\"")).replace("mode = \"transparent\"", &key)
}

fn zones(allowed: &str) -> String {
    zones_named("green", allowed)
}

fn firewall(zones: &str, settings: &str) -> Firewall {
    let mut firewall = Firewall::idle(&format!("{zones}{settings}"));
    firewall.topology.client.ip(&format!("address add {CLIENT6_SECOND}/64 dev eth0 nodad")).unwrap();
    firewall.start();
    firewall
}

/// Who answers the client's two addresses of each family.
fn answers(firewall: &Firewall) -> [Answer; 4] {
    [
        firewall.dial_from(CLIENT4, SERVER4),
        firewall.dial_from(CLIENT4_SECOND, SERVER4),
        firewall.dial_from(CLIENT6, SERVER6),
        firewall.dial_from(CLIENT6_SECOND, SERVER6),
    ]
}

fn intercepted() -> [Answer; 4] {
    [
        Answer::intercepted(CLIENT4, SERVER4),
        Answer::intercepted(CLIENT4_SECOND, SERVER4),
        Answer::intercepted(CLIENT6, SERVER6),
        Answer::intercepted(CLIENT6_SECOND, SERVER6),
    ]
}

#[test]
fn only_named_clients_may_send_from_a_zone() {
    let named = zones("\"192.0.2.3\", \"10.0.0.0/8\", \"2001:db8:1::3\"");
    for (kernel, refused, reason) in [
        ("", Answer::Nobody, "not-allowed-dropped"),
        ("blacklist_action = \"reject\"", Answer::Nobody, "not-allowed-dropped"),
        ("blacklist_action = \"reset\"", Answer::Refused, "not-allowed-reset"),
        ("blacklist_action = \"reset\"\nxdp = \"generic\"", Answer::Refused, "not-allowed-reset"),
        ("on_proxy_down = \"bypass\"", Answer::Nobody, "not-allowed-dropped"),
    ] {
        let mut firewall = firewall(&named, &format!("[kernel]\n{kernel}\n"));
        let [_, second, _, second6] = intercepted();
        let expect = [refused.clone(), second, refused.clone(), second6];
        assert_eq!(answers(&firewall), expect, "{kernel}");
        assert!(firewall.packets(reason) >= 2, "{kernel}");
        for others in ["green: others, 0.0.0.0/0", "green: others, ::/0"] {
            assert!(firewall.rule_packets("allow_clients", others) >= 1, "{kernel}: {others}");
        }
        // Other ports, and other zones, are none of its business.
        let other_port = Session::open(&firewall.topology.client, None, (SERVER4, 2525).into());
        assert_eq!(other_port.map(|session| session.answer), Ok(Answer::server(CLIENT4)), "{kernel}");
        assert!(Session::connects(&firewall.topology.server, (FIREWALL4_WAN, 25).into()), "{kernel}");
        // The list stays in force when nobody is there.
        firewall.stop();
        assert_eq!(firewall.dial_from(CLIENT4, SERVER4), refused, "{kernel}");
        assert_eq!(firewall.dial_from(CLIENT6, SERVER6), refused, "{kernel}");
    }
}

#[test]
fn an_empty_list_names_nobody_and_one_of_one_family_nobody_of_the_other() {
    let mut firewall = firewall(&zones(""), "");
    assert_eq!(answers(&firewall), [const { Answer::Nobody }; 4]);
    firewall.reload_zones(&zones("\"0.0.0.0/0\""));
    let [first, second, ..] = intercepted();
    assert_eq!(answers(&firewall), [first.clone(), second.clone(), Answer::Nobody, Answer::Nobody]);
    firewall.reload_zones(&zones("\"192.0.2.0/24\", \"2001:db8:1::2\""));
    let [_, _, six, _] = intercepted();
    assert_eq!(answers(&firewall), [first, second, six, Answer::Nobody]);
}

#[test]
fn an_active_zone_keeps_its_list_too() {
    let active = ZONES.replace("mode = \"active\"", "mode = \"active\"\nallow_clients = [\"198.51.100.2\"]");
    let firewall = firewall(&active, "[kernel]\nblacklist_action = \"reset\"\n");
    let dial = |address: IpAddr| Session::connects(&firewall.topology.server, (address, 25).into());
    assert!(dial(FIREWALL4_WAN.into()));
    assert!(!dial(FIREWALL6_WAN.into()));
    assert!(firewall.packets("not-allowed-reset") >= 1);
    assert_eq!(answers(&firewall), intercepted(), "the other zone's clients");
}

#[test]
fn bypass_passes_and_no_whitelist_widens_the_list() {
    let settings = format!(
        "[bypass]\nfrom_ips = [\"{CLIENT4}\", \"{CLIENT6}\"]\n\
         [access]\nwhitelist_clients = [\"192.0.2.0/24\", \"2001:db8::/32\"]\nblacklist_clients = [\"{CLIENT4_THIRD}\"]\n"
    );
    let firewall = firewall(&zones(&format!("\"{CLIENT4_THIRD}\"")), &settings);
    let expect = [Answer::server(CLIENT4), Answer::Nobody, Answer::server(CLIENT6), Answer::Nobody];
    assert_eq!(answers(&firewall), expect);
    // Whitelisted, so not on the blacklist, and named.
    assert_eq!(firewall.dial_from(CLIENT4_THIRD, SERVER4), Answer::intercepted(CLIENT4_THIRD, SERVER4));
}

#[test]
fn the_list_changes_live_and_breaks_no_open_session() {
    let mut firewall = firewall(ZONES, "");
    let mut sessions = [firewall.session(SERVER4), firewall.session(SERVER6)];
    let [first, second, six, second6] = intercepted();
    for (zones, expect) in [
        (zones(""), [const { Answer::Nobody }; 4]),
        (
            zones("\"192.0.2.2\", \"2001:db8:1::/127\""),
            [first, Answer::Nobody, Answer::Nobody, Answer::Nobody],
        ),
        (zones("\"192.0.2.3\", \"2001:db8:1::2/127\""), [Answer::Nobody, second, six, second6]),
        (ZONES.to_owned(), intercepted()),
    ] {
        firewall.reload_zones(&zones);
        assert_eq!(answers(&firewall), expect, "{zones}");
        assert!(sessions.iter_mut().all(Session::alive), "{zones}");
    }
    let used = |name| firewall.status().maps.into_iter().find(|map| map.name == name).unwrap().entries;
    assert_eq!((used("ALLOW4"), used("ALLOW6")), (0, 0), "nothing is left");
}

/// Who answers the client, and how many of its connections the list refused, while zones and lists change in
/// all that doesn't concern it.
fn call_while_zones_change(allowed: &str) -> (Vec<Answer>, u64) {
    let reset = "[kernel]\nblacklist_action = \"reset\"\n";
    let mut firewall = firewall(&zones(allowed), reset);
    let callers = Callers::start(&firewall.topology.client, [SERVER4.into(), SERVER6.into()]);
    for round in 0..20 {
        firewall.beat();
        let more = if round % 3 == 0 { ", \"203.0.113.0/24\"" } else { "" };
        let name = if round % 2 == 0 { "lan" } else { "green" };
        firewall.reload_zones(&format!("{}{reset}", zones_named(name, &format!("{allowed}{more}"))));
    }
    (callers.finish(), firewall.packets("not-allowed-reset"))
}

#[test]
fn nobody_slips_in_while_zones_and_lists_change() {
    let (answers, _) = call_while_zones_change("\"192.0.2.3\"");
    let others: Vec<_> = answers.iter().filter(|answer| **answer != Answer::Refused).take(3).collect();
    assert!(others.is_empty(), "{others:?} and perhaps others of {}", answers.len());
}

#[test]
fn nobody_is_kept_out_while_zones_and_lists_change() {
    let (answers, refused) = call_while_zones_change("\"192.0.2.2\", \"2001:db8:1::2/127\"");
    assert!(answers.iter().any(|answer| matches!(answer, Answer::Proxy { .. })));
    assert_eq!(refused, 0);
}
