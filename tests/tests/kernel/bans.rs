//! Bans in the kernel: a client is kept out until a time, whatever becomes of the datapath process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mailguard::datapath::{BanStatus, DatapathError};
use mailguard_common::maps::MAX_BANS;
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT6, SERVER4, SERVER6};
use mailguard_tests::peers::wait_until;

use crate::firewall::{Answer, Firewall};

const HOUR: Duration = Duration::from_secs(3_600);

fn ban(firewall: &mut Firewall, time: Duration) {
    firewall.datapath().ban(&[(CLIENT4.into(), time), (CLIENT6.into(), time)]).unwrap();
}

fn bans(firewall: &mut Firewall) -> Vec<BanStatus> {
    firewall.datapath().bans().unwrap()
}

#[track_caller]
fn check(firewall: &Firewall, four: Answer, six: Answer) {
    assert_eq!((firewall.dial(SERVER4), firewall.dial(SERVER6)), (four, six));
}

#[track_caller]
fn check_open(firewall: &Firewall) {
    check(firewall, Answer::intercepted(CLIENT4, SERVER4), Answer::intercepted(CLIENT6, SERVER6));
}

#[test]
fn banned_clients_are_dropped_or_reset_and_others_are_not() {
    for (settings, expect, reason) in [
        ("xdp = \"off\"", Answer::Nobody, "ban-dropped"),
        ("xdp = \"generic\"", Answer::Nobody, "ban-dropped-xdp"),
        ("blacklist_action = \"reject\"", Answer::Nobody, "ban-dropped"),
        ("blacklist_action = \"reset\"", Answer::Refused, "ban-reset"),
        ("xdp = \"generic\"\nblacklist_action = \"reset\"", Answer::Refused, "ban-reset"),
    ] {
        let mut firewall = Firewall::new(&format!("[kernel]\n{settings}\n"));
        ban(&mut firewall, HOUR);
        check(&firewall, expect.clone(), expect);
        assert!(firewall.packets(reason) >= 2, "{settings}");
        let other = Answer::intercepted(CLIENT4_SECOND, SERVER4);
        assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), other, "{settings}");
        for ban in bans(&mut firewall) {
            assert!(ban.packets >= 1 && ban.last.is_some(), "{settings}: {ban:?}");
            assert!(ban.left <= HOUR && ban.left > HOUR / 2, "{settings}: {ban:?}");
        }
    }
}

#[test]
fn a_bypassed_client_passes_whatever_it_did() {
    let mut firewall = Firewall::new("[bypass]\nfrom_ips = [\"192.0.2.2\", \"2001:db8:1::2\"]\n");
    ban(&mut firewall, HOUR);
    check(&firewall, Answer::server(CLIENT4), Answer::server(CLIENT6));
}

#[test]
fn an_open_session_outlives_the_ban_of_its_client() {
    let mut firewall = Firewall::new("");
    let mut sessions = [firewall.session(SERVER4), firewall.session(SERVER6)];
    ban(&mut firewall, HOUR);
    check(&firewall, Answer::Nobody, Answer::Nobody);
    assert!(sessions.iter_mut().all(|session| session.alive()));
}

#[test]
fn a_ban_ends_by_itself_even_without_a_datapath_process() {
    let mut firewall = Firewall::new("[kernel]\non_proxy_down = \"bypass\"\nblacklist_action = \"reset\"\n");
    ban(&mut firewall, Duration::from_secs(2));
    assert_eq!(firewall.dial(SERVER4), Answer::Refused);
    firewall.stop();
    wait_until("the ban ends", || firewall.dial(SERVER4) != Answer::Refused).unwrap();
    wait_until("the other ban ends", || firewall.dial(SERVER6) != Answer::Refused).unwrap();
    firewall.start();
    assert_eq!(bans(&mut firewall), []);
    let used = firewall.status().maps.into_iter().find(|map| map.name == "BANS").unwrap();
    assert_eq!((used.entries, used.limit), (0, MAX_BANS as usize), "the ended ones are removed");
    check_open(&firewall);
}

#[test]
fn bans_outlive_the_datapath_process_and_a_change_of_rules_with_their_counts() {
    let mut firewall = Firewall::new("");
    ban(&mut firewall, HOUR);
    check(&firewall, Answer::Nobody, Answer::Nobody);
    let before: u64 = bans(&mut firewall).iter().map(|ban| ban.packets).sum();
    firewall.stop();
    firewall.start();
    check(&firewall, Answer::Nobody, Answer::Nobody);
    // New rules get numbers of their own, and removing them leaves the bans in force.
    firewall.reload("[access]\nblacklist_clients = [\"192.0.2.3\"]\n");
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::Nobody);
    assert!(firewall.rule_packets("blacklist client", "192.0.2.3") <= 3, "its own count");
    firewall.reload("");
    check(&firewall, Answer::Nobody, Answer::Nobody);
    // Banned again: the time is the new one, the count goes on.
    ban(&mut firewall, 2 * HOUR);
    let after = bans(&mut firewall);
    assert!(after.iter().map(|ban| ban.packets).sum::<u64>() > before + 2, "{before}, {after:?}");
    assert!(after.iter().all(|ban| ban.left > HOUR), "{after:?}");
    // The action follows the configuration.
    firewall.reload("[kernel]\nblacklist_action = \"reset\"\n");
    check(&firewall, Answer::Refused, Answer::Refused);
}

#[test]
fn a_lifted_ban_lets_the_client_in_at_once() {
    let mut firewall = Firewall::new("");
    ban(&mut firewall, HOUR);
    check(&firewall, Answer::Nobody, Answer::Nobody);
    let in_ipv6_clothes = CLIENT4.to_ipv6_mapped().into();
    assert_eq!(firewall.datapath().lift(&[in_ipv6_clothes, SERVER4.into()]).unwrap(), 1);
    check(&firewall, Answer::intercepted(CLIENT4, SERVER4), Answer::Nobody);
    assert_eq!(firewall.datapath().lift(&[CLIENT6.into()]).unwrap(), 1);
    check_open(&firewall);
}

#[test]
fn too_many_bans_are_refused_whole() {
    let mut firewall = Firewall::new("[kernel]\nxdp = \"off\"\n");
    let address = |number: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
    let many: Vec<_> = (1..MAX_BANS).map(|number| (address(number), HOUR)).collect();
    firewall.datapath().ban(&many).unwrap();
    let two = [(CLIENT4.into(), HOUR), (CLIENT6.into(), HOUR)];
    let error = firewall.datapath().ban(&two).unwrap_err();
    assert!(matches!(error, DatapathError::TooMany { list: "bans", .. }), "{error}");
    check_open(&firewall);
    assert_eq!(bans(&mut firewall).len(), MAX_BANS as usize - 1);
    // One fits, and so does a longer time for one that is there.
    firewall.datapath().ban(&[two[0], (address(1), 2 * HOUR)]).unwrap();
    check(&firewall, Answer::Nobody, Answer::intercepted(CLIENT6, SERVER6));
}

#[test]
fn an_ipv6_client_is_kept_out_with_its_whole_network_but_for_whitelisted_and_bypassed_hosts() {
    let host = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last);
    let (neighbour, white, passing) = (host(0x77), host(0x88), host(0x99));
    for (xdp, action, kept_out) in [
        ("off", "drop", Answer::Nobody),
        ("generic", "drop", Answer::Nobody),
        ("off", "reset", Answer::Refused),
        ("off", "reject", Answer::Nobody),
    ] {
        let mut firewall = Firewall::new(&format!(
            "[kernel]\nxdp = \"{xdp}\"\nblacklist_action = \"{action}\"\n\
             [access]\nwhitelist_clients = [\"{white}/127\"]\n[bypass]\nfrom_ips = [\"{passing}\"]\n"
        ));
        for address in [neighbour, white, passing] {
            firewall.topology.client.ip(&format!("address add {address}/64 dev eth0 nodad")).unwrap();
        }
        // Another network, by way of the client.
        let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 2);
        firewall.topology.client.ip(&format!("address add {elsewhere}/64 dev eth0 nodad")).unwrap();
        firewall.topology.firewall.ip(&format!("-6 route add 2001:db8:1:1::/64 via {CLIENT6}")).unwrap();
        firewall.datapath().ban(&[(host(0x1234).into(), HOUR), (host(0x1235).into(), HOUR / 2)]).unwrap();
        let listed = bans(&mut firewall);
        assert_eq!(listed.iter().map(|ban| ban.client.to_string()).collect::<Vec<_>>(), ["2001:db8:1::/64"]);
        assert!(listed[0].left > HOUR / 2, "the longer one: {listed:?}");
        for (client, expect) in [
            (CLIENT6, kept_out.clone()),
            (neighbour, kept_out.clone()),
            (white, Answer::intercepted(white, SERVER6)),
            (passing, Answer::server(passing)),
            (elsewhere, Answer::intercepted(elsewhere, SERVER6)),
        ] {
            assert_eq!(firewall.dial_from(client, SERVER6), expect, "{xdp} {action} {client}");
        }
        assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
        assert_eq!(firewall.datapath().lift(&[neighbour.into(), CLIENT6.into()]).unwrap(), 1);
        assert_eq!(firewall.dial_from(CLIENT6, SERVER6), Answer::intercepted(CLIENT6, SERVER6));
    }
}
