//! Lists as long as the maps, changed while a client connects, and longer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use mailguard_common::maps::HEARTBEAT_STALE_NS;
use mailguard_common::maps::{HOSTS_A_BUCKET, host_bucket};
use mailguard_core::rules::{BypassRule, ClientRule, Rules, compile};
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT6, SERVER4, SERVER6};

use crate::firewall::{Answer, Callers, Firewall, Session};

/// Entries of a long list.
const MANY: u32 = 64_000;
/// Half the time for which a heartbeat counts.
const HALF_STALE: Duration = Duration::from_nanos(HEARTBEAT_STALE_NS / 2);
/// The configuration that stays in force beside the long lists.
const LISTED: &str = "[access]\nblacklist_clients = [\"192.0.2.3\"]\n";

/// The `number`th of many addresses that no client has.
fn stranger(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number)
}

/// `rules` and these entries more of the blacklist: single addresses, or networks of two.
fn with_many(rules: &Rules, entries: Range<u32>, prefix: u8) -> Rules {
    let mut rules = rules.clone();
    let size = 1 << (32 - prefix);
    let nets = entries.map(|number| Ipv4Net::new(stranger(number * size), prefix).expect("a prefix"));
    rules.clients.extend(nets.map(|net| (IpNet::V4(net), ClientRule::Drop)));
    rules
}

#[test]
fn long_lists_change_while_clients_connect() {
    let mut firewall = Firewall::new(LISTED);
    let short = compile(&firewall.config);
    // Many addresses, then networks in their place, then none of them.
    let changes = [with_many(&short, 0..MANY, 32), with_many(&short, 0..MANY, 31), short.clone()];
    let mut sessions = [firewall.session(SERVER4), firewall.session(SERVER6)];
    let callers = Callers::start(&firewall.topology.client, [SERVER4.into(), SERVER6.into()]);
    // Whoever changes them is too busy to say that the proxy lives.
    let (pulse, (stop, stopped)) = (firewall.datapath().pulse(), channel::<()>());
    let beats = thread::spawn(move || {
        while stopped.recv_timeout(HALF_STALE) == Err(RecvTimeoutError::Timeout) {
            pulse.beat().unwrap();
        }
    });
    for rules in &changes {
        firewall.datapath().apply_rules(rules).unwrap();
        thread::sleep(HALF_STALE);
        assert!(sessions.iter_mut().all(Session::alive), "open sessions");
    }
    drop(stop);
    beats.join().unwrap();
    let answers = callers.finish();
    assert!(answers.len() > 20, "clients connected all the while: {}", answers.len());
    let expect = [Answer::intercepted(CLIENT4, SERVER4), Answer::intercepted(CLIENT6, SERVER6)];
    let odd: Vec<_> = answers.iter().filter(|answer| !expect.contains(answer)).collect();
    assert!(odd.is_empty(), "{} of {}: {:?}", odd.len(), answers.len(), odd.first());
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::Nobody, "its entry never went away");
}

#[test]
fn lists_longer_than_the_maps_are_refused_and_change_nothing() {
    let mut firewall = Firewall::new(LISTED);
    let short = compile(&firewall.config);
    let bypass = |networks: u32| {
        let mut rules = short.clone();
        let hosts =
            (0..networks).map(|number| (IpNet::from(IpAddr::from(stranger(number))), BypassRule::Bypass));
        rules.bypass_to.extend(hosts);
        rules
    };
    let hosts6 = (0..131_073u32).map(|number| Ipv6Addr::from((0xfd00 << 112) + u128::from(number)));
    let mut over6 = short.clone();
    over6.clients.extend(hosts6.map(|host| (IpNet::from(IpAddr::from(host)), ClientRule::Drop)));
    let over = [
        // One of the entries is the configuration's own.
        (
            with_many(&short, 0..65_536, 32),
            "access.blacklist_clients (IPv4 addresses): 65537 entries, the kernel holds 65536",
        ),
        (over6, "access.blacklist_clients (IPv6 addresses): 131073 entries, the kernel holds 131072"),
        (
            with_many(&short, 0..65_537, 31),
            "access.blacklist_clients (IPv4 networks): 65537 entries, the kernel holds 65536",
        ),
        (bypass(16_385), "bypass.to_ips and bypass.to_subnets (IPv4): 16385 entries, the kernel holds 16384"),
    ];
    for (rules, expect) in over {
        let before = firewall.status().maps;
        let error = firewall.datapath().apply_rules(&rules).expect_err(expect).to_string();
        assert_eq!(error, expect);
        assert_eq!(firewall.status().maps, before);
        assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4), "{expect}");
        assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::Nobody, "{expect}");
    }
    // Exactly as many as there is room for.
    firewall.datapath().apply_rules(&bypass(16_384)).unwrap();
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
}

#[test]
fn an_address_whose_bucket_is_full_is_kept_out_all_the_same() {
    let mut firewall = Firewall::new("");
    let bucket = host_bucket(CLIENT4_SECOND.octets());
    let others = (u32::from(Ipv4Addr::new(10, 0, 0, 0))..).map(Ipv4Addr::from);
    let mut neighbours = others.filter(|other| host_bucket(other.octets()) == bucket);
    // They come first in the order of addresses.
    let full: Vec<Ipv4Addr> = neighbours.by_ref().take(HOSTS_A_BUCKET).collect();
    let list = |clients: &[Ipv4Addr]| {
        let clients: Vec<String> = clients.iter().map(Ipv4Addr::to_string).collect();
        format!("[access]\nblacklist_clients = [\"{}\"]\n", clients.join("\", \""))
    };
    let dial = |firewall: &Firewall| firewall.dial_from(CLIENT4_SECOND, SERVER4);
    let listed = [full.clone(), vec![CLIENT4_SECOND, neighbours.next().unwrap()]].concat();
    firewall.reload(&list(&listed));
    assert_eq!(dial(&firewall), Answer::Nobody);
    firewall.stop();
    firewall.start();
    assert_eq!(dial(&firewall), Answer::Nobody, "taken over by the next start");
    assert!(firewall.rule_packets("blacklist client", &CLIENT4_SECOND.to_string()) >= 2);
    // There is room now, but it has a place already.
    firewall.reload(&list(&listed[1..]));
    assert_eq!(dial(&firewall), Answer::Nobody);
    firewall.reload(&list(&full));
    assert_eq!(dial(&firewall), Answer::intercepted(CLIENT4_SECOND, SERVER4), "forgotten");
    firewall.reload(&list(&listed[1..]));
    assert_eq!(dial(&firewall), Answer::Nobody, "and listed again");
}
