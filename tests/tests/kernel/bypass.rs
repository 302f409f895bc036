//! Bypass rules: the connection passes as if mailguard weren't there.

use ipnet::IpNet;
use mailguard_core::rules::{BypassRule, compile};
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT4_THIRD, CLIENT6, SERVER4, SERVER6};

use crate::firewall::{Answer, Firewall};

/// The client's MAC, as the configuration has it.
fn client_mac(firewall: &Firewall) -> String {
    let link = firewall.topology.client.ip_output("-o link show eth0").unwrap();
    link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
}

#[test]
fn each_kind_lets_its_connections_pass_and_no_others() {
    let mut firewall = Firewall::new("");
    let intercepted4 = Answer::intercepted(CLIENT4, SERVER4);
    let intercepted6 = Answer::intercepted(CLIENT6, SERVER6);
    let (direct4, direct6) = (Answer::server(CLIENT4), Answer::server(CLIENT6));
    let mac = client_mac(&firewall);
    let cases = [
        ("from_subnets = [\"192.0.2.0/24\"]", "bypass from", "192.0.2.0/24", &direct4, &intercepted6),
        ("from_subnets = [\"2001:db8:1::/64\"]", "bypass from", "2001:db8:1::/64", &intercepted4, &direct6),
        ("from_ips = [\"192.0.2.2\"]", "bypass from", "192.0.2.2", &direct4, &intercepted6),
        ("from_ips = [\"2001:db8:1::2\"]", "bypass from", "2001:db8:1::2", &intercepted4, &direct6),
        ("to_subnets = [\"198.51.0.0/16\"]", "bypass to", "198.51.0.0/16", &direct4, &intercepted6),
        ("to_subnets = [\"2001:db8:2::/64\"]", "bypass to", "2001:db8:2::/64", &intercepted4, &direct6),
        ("to_ips = [\"198.51.100.2\"]", "bypass to", "198.51.100.2", &direct4, &intercepted6),
        ("to_ips = [\"2001:db8:2::2\"]", "bypass to", "2001:db8:2::2", &intercepted4, &direct6),
        ("from_ips = [\"192.0.2.99\"]", "bypass from", "192.0.2.99", &intercepted4, &intercepted6),
    ];
    for (setting, list, value, expect4, expect6) in cases {
        firewall.reload(&format!("[bypass]\n{setting}\n"));
        assert_eq!(firewall.dial(SERVER4), *expect4, "{setting}");
        assert_eq!(firewall.dial(SERVER6), *expect6, "{setting}");
        let hit = u64::from(*expect4 == direct4) + u64::from(*expect6 == direct6);
        assert_eq!(firewall.rule_packets(list, value), hit, "{setting}");
    }
    firewall.reload(&format!("[bypass]\nfrom_macs = [\"{mac}\"]\n"));
    assert_eq!(firewall.dial(SERVER4), direct4);
    assert_eq!(firewall.dial(SERVER6), direct6);
    assert_eq!(firewall.rule_packets("bypass from-mac", &mac), 2);
    firewall.reload("[bypass]\nfrom_macs = [\"02:00:5e:10:00:01\"]\n");
    assert_eq!(firewall.dial(SERVER4), intercepted4);
}

#[test]
fn the_longest_prefix_decides() {
    let mut firewall = Firewall::new("[bypass]\nfrom_subnets = [\"192.0.2.0/24\"]\n");
    let mut rules = compile(&firewall.config);
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    rules.bypass_from.insert(net("192.0.2.2/31"), BypassRule::Intercept);
    rules.bypass_from.insert(net("192.0.2.3/32"), BypassRule::Bypass);
    firewall.datapath().apply_rules(&rules).unwrap();
    assert_eq!(firewall.dial_from(CLIENT4, SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::server(CLIENT4_SECOND));
    assert_eq!(firewall.dial_from(CLIENT4_THIRD, SERVER4), Answer::server(CLIENT4_THIRD));
}

#[test]
fn bypass_beats_the_blacklist() {
    for xdp in ["native", "off"] {
        let firewall = Firewall::new(&format!(
            "[kernel]\nxdp = \"{xdp}\"\n[access]\nblacklist_clients = [\"192.0.2.0/24\"]\n[bypass]\nto_ips = [\"198.51.100.2\"]\n"
        ));
        assert_eq!(firewall.dial(SERVER4), Answer::server(CLIENT4), "{xdp}");
    }
}

#[test]
fn a_change_of_rules_leaves_open_sessions_alone() {
    let mut firewall = Firewall::new("");
    let mut sessions = [firewall.session(SERVER4), firewall.session(SERVER6)];
    let bulk = [vec![b'x'; 200_000], vec![b'\n']].concat();
    for settings in [
        "[bypass]\nfrom_subnets = [\"192.0.2.0/24\", \"2001:db8:1::/64\"]\n",
        "[access]\nblacklist_clients = [\"192.0.2.0/24\", \"2001:db8:1::/64\"]\n",
        "",
    ] {
        firewall.reload(settings);
        for session in &mut sessions {
            assert!(session.echo(&bulk), "{settings}");
        }
    }
    // A connection that a bypass let pass stays with the server when the rule is gone.
    firewall.reload("[bypass]\nfrom_ips = [\"192.0.2.2\"]\n");
    let mut direct = firewall.session(SERVER4);
    firewall.reload("");
    assert!(direct.alive());
    assert_eq!(direct.answer, Answer::server(CLIENT4));
}
