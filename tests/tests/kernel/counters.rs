//! The counters against packets that were counted when they were sent: by reason, by rule, in packets and
//! octets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mailguard_tests::frames::{Wire, ethernet, mac, syn};
use mailguard_tests::netns::{LAN, SERVER4, SERVER6};
use mailguard_tests::peers::wait_until;

use crate::firewall::Firewall;

/// SYNs from each address.
const SYNS: u16 = 1_000;
/// Octets of their frames.
const FRAME4: u64 = 14 + 20 + 20;
const FRAME6: u64 = 14 + 40 + 20;

/// An address that nobody has, so that nobody answers what it is answered.
fn nobody4(host: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, host).into()
}

fn nobody6(host: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host).into()
}

/// A list entry, the address that it is about, and what `status` shows it as.
struct Rule {
    list: &'static str,
    value: &'static str,
    source: IpAddr,
}

fn rule(list: &'static str, value: &'static str, source: IpAddr) -> Rule {
    Rule { list, value, source }
}

fn server_for(client: IpAddr) -> (IpAddr, u64) {
    if client.is_ipv4() { (SERVER4.into(), FRAME4) } else { (SERVER6.into(), FRAME6) }
}

/// Sends [`SYNS`] SYNs from each of the addresses and checks that exactly these were counted for `reason`.
#[track_caller]
fn check(firewall: &Firewall, sources: &[IpAddr], reason: &str) {
    let wire = Wire::open(&firewall.topology.client, "eth0");
    let router = mac(&firewall.topology.firewall, LAN);
    let count = || {
        let status = firewall.status();
        let count =
            status.reasons.into_iter().find(|count| count.reason.name() == reason).expect("the reason");
        (count.packets, count.octets)
    };
    assert_eq!(count(), (0, 0), "{reason}");
    firewall.beat();
    for source in sources {
        let (server, _) = server_for(*source);
        let frame = |number| ethernet(router, wire.mac, None, &syn(*source, 2_000 + number, server));
        wire.send_all((0..SYNS).map(frame));
    }
    let octets = sources.iter().map(|source| u64::from(SYNS) * server_for(*source).1).sum();
    let expect = (u64::from(SYNS) * sources.len() as u64, octets);
    let arrived = wait_until("every SYN is counted", || count().0 >= expect.0);
    assert_eq!(count(), expect, "{reason}: {arrived:?}");
    let rates: Vec<_> =
        firewall.status().reasons.into_iter().filter(|count| count.per_second > 0.0).collect();
    assert!(rates.iter().any(|count| count.reason.name() == reason), "{reason}: {rates:?}");
    assert!(rates.iter().all(|count| count.packets > 0), "{rates:?}");
}

/// [`check`], and each rule has its own share.
#[track_caller]
fn check_rules(firewall: &Firewall, rules: &[Rule], reason: &str) {
    check(firewall, &rules.iter().map(|rule| rule.source).collect::<Vec<_>>(), reason);
    let status = firewall.status();
    assert_eq!(status.rules.len(), rules.len(), "{:?}", status.rules);
    for Rule { list, value, .. } in rules {
        let count =
            status.rules.iter().find(|count| count.key.list().name() == *list && count.key.value() == *value);
        let count = count.unwrap_or_else(|| panic!("{list} {value} in {:?}", status.rules));
        assert_eq!(count.packets, u64::from(SYNS), "{reason}: {list} {value}");
    }
}

#[test]
fn every_blacklisted_syn_is_counted_once() {
    let lists = "[access]\nblacklist_clients = [\"192.0.2.60\", \"192.0.2.64/26\", \"2001:db8:1::60\", \"2001:db8:1::100/120\"]\n";
    let rules = [
        rule("blacklist client", "192.0.2.60", nobody4(60)),
        rule("blacklist client", "192.0.2.64/26", nobody4(99)),
        rule("blacklist client", "2001:db8:1::60", nobody6(0x60)),
        rule("blacklist client", "2001:db8:1::100/120", nobody6(0x177)),
    ];
    for (kernel, reason) in [
        ("xdp = \"off\"", "blacklist-dropped"),
        ("xdp = \"native\"", "blacklist-dropped-xdp"),
        ("blacklist_action = \"reset\"", "blacklist-reset"),
    ] {
        let firewall = Firewall::new(&format!("[kernel]\n{kernel}\n{lists}"));
        check_rules(&firewall, &rules, reason);
        assert_eq!(firewall.packets("intercepted"), 0, "{reason}");
    }
}

#[test]
fn every_bypassed_syn_is_counted_once() {
    let firewall = Firewall::new(
        "[bypass]\nfrom_ips = [\"192.0.2.70\", \"2001:db8:1::70\"]\nfrom_subnets = [\"192.0.2.80/29\"]\n",
    );
    let rules = [
        rule("bypass from", "192.0.2.70", nobody4(70)),
        rule("bypass from", "192.0.2.80/29", nobody4(81)),
        rule("bypass from", "2001:db8:1::70", nobody6(0x70)),
    ];
    check_rules(&firewall, &rules, "bypassed");
}

#[test]
fn every_intercepted_syn_is_counted_once() {
    let firewall = Firewall::new("");
    check(&firewall, &[nobody4(90), nobody6(0x90)], "intercepted");
}
