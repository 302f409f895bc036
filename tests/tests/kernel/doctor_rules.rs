//! What the doctor says of single rules, against what they do to real packets: a client dials through a
//! firewall with each of them, and the doctor complains where nobody answers, and only there.

use std::net::IpAddr;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{CLIENT4, LAN, SERVER4, SERVER6, Topology};
use mailguard_tests::peers::wait_until;
use serde_json::Value;

use crate::doctor::{complaints, intercepted, mend, shell, transparent};

/// A rule in a chain of its own.
enum Rule {
    /// The hook with its type and priority, and the rule, of a table `inet t` with the set `own`.
    Nft(&'static str, &'static str),
    /// After the program's name.
    Iptables(&'static str),
}

use Rule::{Iptables, Nft};

const IN: &str = "type filter hook input priority 0";
const PRE: &str = "type filter hook prerouting priority raw";
const OUT: &str = "type filter hook output priority 0";
const POST: &str = "type filter hook postrouting priority 0";

/// Mail is dead with each, and the printed command mends it.
const DEADLY: &[(Rule, &str)] = &[
    (Nft(PRE, "fib daddr . iif type != { local, broadcast, multicast } drop"), "input-firewall"),
    (Nft(IN, "fib daddr type != local drop"), "input-firewall"),
    (Nft(IN, "ip daddr != 192.0.2.1 drop"), "input-firewall"),
    (Nft(IN, "ip daddr != @own drop"), "input-firewall"),
    (Nft(IN, "ip daddr != { 192.0.2.0/24, 224.0.0.0/4, 10.0.0.0/8 } drop"), "input-firewall"),
    (Nft(IN, "ct original ip daddr != 192.0.2.1 drop"), "input-firewall"),
    (Nft(IN, "iifname . tcp dport { \"lan0\" . 25 } drop"), "input-firewall"),
    (Nft(IN, "iifname != \"lo\" meta mark != 0 drop"), "input-firewall"),
    (Nft(IN, "socket transparent 1 drop"), "input-firewall"),
    (Nft(IN, "iifname vmap { \"lan0\" : jump user }"), "input-firewall"),
    (Nft(IN, "tcp dport > 24 tcp sport 1024-65535 drop"), "input-firewall"),
    (Nft(IN, "ct state established drop"), "input-firewall"),
    (Nft(OUT, "ip saddr != 192.0.2.1 drop"), "output-firewall"),
    (Nft(OUT, "ip saddr != @own drop"), "output-firewall"),
    (Nft(OUT, "fib saddr type != local drop"), "output-firewall"),
    (Nft(OUT, "tcp sport 25 drop"), "output-firewall"),
    (Nft(OUT, "meta skuid != 0 drop"), "output-firewall"),
    (Nft("type route hook output priority mangle", "oifname \"lan0\" drop"), "output-firewall"),
    (Nft("type filter hook output priority 0; policy drop", "oifname \"lo\" accept"), "output-firewall"),
    (Nft(POST, "ip saddr != @own drop"), "output-firewall"),
    (Iptables("iptables-legacy -A INPUT -m addrtype ! --dst-type LOCAL -j DROP"), "input-firewall"),
    (Iptables("iptables-nft -A INPUT -m addrtype ! --dst-type LOCAL -j DROP"), "input-firewall"),
    (Iptables("iptables-nft -A INPUT ! -d 192.0.2.1 -j DROP"), "input-firewall"),
    (Iptables("iptables-legacy -t security -A INPUT -i lan+ -j DROP"), "input-firewall"),
    (
        Iptables("iptables-legacy -t mangle -A INPUT -p tcp -m multiport ! --dports 22,80:90 -j DROP"),
        "input-firewall",
    ),
    (
        Iptables("iptables-nft -t mangle -A PREROUTING -p tcp -m socket --transparent -j DROP"),
        "input-firewall",
    ),
    (Iptables("iptables-legacy -A OUTPUT ! -s 192.0.2.1 -j DROP"), "output-firewall"),
    (Iptables("iptables-nft -A OUTPUT -m owner ! --uid-owner 0 -j REJECT"), "output-firewall"),
    (Iptables("iptables-legacy -t raw -A OUTPUT -p tcp --sport 25 -j DROP"), "output-firewall"),
    (
        Iptables("iptables-legacy -t mangle -A POSTROUTING -m addrtype ! --src-type LOCAL -j DROP"),
        "output-firewall",
    ),
];

/// The same of IPv6.
const DEADLY6: &[(Rule, &str)] = &[
    (Nft(PRE, "meta nfproto ipv6 fib daddr . iif type != { local, multicast } drop"), "input-firewall"),
    (Nft(IN, "ip6 daddr != 2001:db8:1::1 tcp dport 25 drop"), "input-firewall"),
    (Nft(OUT, "ip6 saddr != 2001:db8:1::1 tcp sport 25 drop"), "output-firewall"),
    (Iptables("ip6tables-legacy -A INPUT -p tcp -m addrtype ! --dst-type LOCAL -j DROP"), "input-firewall"),
    (Iptables("ip6tables-nft -A OUTPUT -p tcp ! -s 2001:db8:1::1 -j DROP"), "output-firewall"),
];

/// Mail passes each, and nothing is said.
const HARMLESS: &[Rule] = &[
    Nft(PRE, "fib saddr . iif oif missing drop"),
    Nft(PRE, "meta nfproto ipv6 fib saddr . mark . iif oif missing drop"),
    Nft(PRE, "fib daddr type { broadcast, multicast, blackhole } drop"),
    Nft(IN, "ct state { invalid, untracked } drop"),
    Nft(IN, "ip saddr 203.0.113.0/24 drop"),
    Nft(IN, "ip saddr != 192.0.2.0/24 meta nfproto ipv4 drop"),
    Nft(IN, "iifname != \"lo\" ip daddr 127.0.0.0/8 drop"),
    Nft(IN, "iifname != \"lo\" ip saddr 127.0.0.0/8 drop"),
    Nft(IN, "meta mark & 0xff != 0 drop"),
    Nft(IN, "ct state new tcp flags & (fin|syn|rst|ack) != syn drop"),
    Nft(IN, "ct status dnat drop"),
    Nft(IN, "meta pkttype != host drop"),
    Nft(IN, "tcp dport { 80, 443, 8000-8100 } drop"),
    Nft(OUT, "ct state invalid drop"),
    Nft(OUT, "ct state new tcp sport 25 drop"),
    Nft(OUT, "oifname \"wan0\" tcp sport 25 drop"),
    Nft("type filter hook output priority raw", "udp dport 53 notrack"),
    Iptables("iptables-legacy -t raw -A PREROUTING -m rpfilter --invert -j DROP"),
    Iptables("iptables-nft -t raw -A PREROUTING -m rpfilter --validmark --invert -j DROP"),
    Iptables("iptables-nft -A INPUT -m conntrack --ctstate INVALID,UNTRACKED -j DROP"),
    Iptables("iptables-legacy -A INPUT ! -i lo -s 127.0.0.0/8 -j DROP"),
    Iptables("iptables-legacy -A INPUT -m addrtype --dst-type BROADCAST,MULTICAST -j DROP"),
    Iptables("iptables-nft -A OUTPUT -m owner --uid-owner 31337 -j DROP"),
    Iptables("iptables-legacy -A OUTPUT -m mark --mark 0x1/0xff -j DROP"),
];

/// Mail is dead, or not, by what can't be known: here it is.
const UNDECIDED: &[Rule] = &[
    Nft(IN, "tcp dport 25 limit rate over 1/day burst 1 packets drop"),
    Nft(IN, "ip daddr 198.51.100.0/24 drop"),
    Nft(IN, "ip saddr != @changing tcp dport 25 ip version 4 drop"),
    Nft(IN, "meta length > 10 tcp dport 25 drop"),
    Iptables("iptables-legacy -A INPUT -p tcp -m length --length 10: -j DROP"),
];

impl Rule {
    fn set_up(&self) -> String {
        match self {
            Nft(hook, rule) => format!(
                "nft 'table inet t {{ set own {{ type ipv4_addr; elements = {{ 192.0.2.1, 198.51.100.1 }}; }}; \
                 set changing {{ type ipv4_addr; timeout 1h; }}; chain user {{ tcp dport 25 drop; }}; \
                 chain c {{ {hook}; {rule}; }}; }}'"
            ),
            Iptables(command) => (*command).to_owned(),
        }
    }
}

/// The complaints about the way between client and proxy: what postrouting drops is forwarded mail's, too.
fn about_sessions(appliance: &Appliance<'_>) -> Vec<Value> {
    complaints(appliance).into_iter().filter(|finding| finding["check"] != "forward-clients").collect()
}

/// What removes all of it.
const REMOVAL: &str = "nft flush ruleset; for program in iptables-legacy ip6tables-legacy; do \
     for table in filter mangle raw security; do $program -t $table -F 2>/dev/null; done; done; true";

fn deadly(rules: &[(Rule, &str)], destination: impl Into<IpAddr>) {
    let destination = destination.into();
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    assert!(intercepted(&topology, destination), "without rules");
    for (rule, check) in rules {
        let setup = rule.set_up();
        shell(place, &setup);
        assert!(!intercepted(&topology, destination), "{setup}: breaks it");
        let found = about_sessions(&appliance);
        assert!(
            found.iter().all(|finding| finding["severity"] == "error" && finding["check"] == *check)
                && !found.is_empty(),
            "{setup}: {found:#?}"
        );
        found.iter().for_each(|finding| mend(place, finding));
        assert!(intercepted(&topology, destination), "{setup}: mended by {found:#?}");
        let left = about_sessions(&appliance);
        assert!(left.is_empty(), "{setup}: {left:#?}");
        shell(place, REMOVAL);
    }
}

#[test]
fn rules_that_stop_mail_are_errors_and_mended_by_the_printed_command() {
    deadly(DEADLY, SERVER4);
}

#[test]
fn rules_that_stop_mail_over_ipv6_are_errors_and_mended_by_the_printed_command() {
    deadly(DEADLY6, SERVER6);
}

#[test]
fn of_rules_that_let_mail_pass_nothing_is_said() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    for rule in HARMLESS {
        let setup = rule.set_up();
        shell(place, &setup);
        assert!(intercepted(&topology, SERVER4), "{setup}");
        assert!(intercepted(&topology, SERVER6), "{setup}");
        let complaints = complaints(&appliance);
        assert!(complaints.is_empty(), "{setup}: {complaints:#?}");
        shell(place, REMOVAL);
    }
}

#[test]
fn a_rule_that_may_stop_mail_is_a_warning() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    for rule in UNDECIDED {
        let setup = rule.set_up();
        shell(place, &setup);
        assert!(!intercepted(&topology, SERVER4), "{setup}: breaks it");
        let found = complaints(&appliance);
        assert!(
            found
                .iter()
                .all(|finding| finding["severity"] == "warning" && finding["check"] == "input-firewall")
                && !found.is_empty(),
            "{setup}: {found:#?}"
        );
        assert!(found[0]["what"].as_str().unwrap().contains(" may drop "), "{setup}: {found:#?}");
        mend(place, &found[0]);
        assert!(intercepted(&topology, SERVER4), "{setup}: mended by {found:#?}");
        shell(place, REMOVAL);
    }
}

#[test]
fn a_forward_rule_about_port_25_is_an_error_until_allow_clients_answers_it() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let mut appliance = Appliance::prepare(&firewall, &transparent(LAN)).unwrap();
    let clients = |appliance: &Appliance<'_>| {
        let found = complaints(appliance);
        found.into_iter().filter(|finding| finding["check"] == "forward-clients").collect::<Vec<_>>()
    };
    for setup in [
        "nft 'table inet f { chain fw { type filter hook forward priority 0; \
         ip saddr != 192.0.2.2 tcp dport 25 reject; }; }'",
        "iptables-legacy -A FORWARD -i lan0 ! -s 192.0.2.2 -p tcp --dport 25 -j REJECT",
    ] {
        appliance.write_config(&transparent(LAN)).unwrap();
        assert!(clients(&appliance).is_empty(), "no rule");
        shell(place, setup);
        let found = clients(&appliance);
        assert_eq!((found.len(), found[0]["severity"].as_str()), (1, Some("error")), "{setup}: {found:#?}");
        let command = found[0]["commands"][0].as_str().unwrap().to_owned();
        assert!(command.contains(&format!("allow_clients = [\"{CLIENT4}\"")), "{command}");
        mend(place, &found[0]);
        assert!(clients(&appliance).is_empty(), "{setup}: answered by {command}");
        let config = std::fs::read_to_string(appliance.config()).unwrap();
        std::fs::write(appliance.config(), config.replace("\"192.0.2.2\"", "\"192.0.2.0/24\"")).unwrap();
        let found = clients(&appliance);
        assert_eq!(found[0]["severity"], "warning", "{setup}: allows more than the firewall: {found:#?}");
        shell(place, "nft flush ruleset; iptables-legacy -F");
    }
    appliance.write_config(&transparent(LAN)).unwrap();
    shell(
        place,
        "nft 'table inet f { chain fw { type filter hook forward priority 0; policy drop; \
         ct state established accept; iifname \"lan0\" tcp dport { 25, 80 } accept; }; }'",
    );
    assert!(clients(&appliance).is_empty(), "everybody may");
    appliance.run().unwrap();
    assert!(intercepted(&topology, SERVER4));
}

#[test]
fn a_rule_that_stops_mail_is_logged_at_start_and_reload() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let deadly = |chain: &str| {
        format!(
            "nft 'table inet f {{ chain {chain} {{ type filter hook input priority 0; ip daddr != 192.0.2.1 drop; }}; }}'"
        )
    };
    shell(place, &deadly("first"));
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    let said = |words: &str| appliance.log().contains(words);
    let of = |chain: &str| {
        format!("firewall: the chain {chain} of nftables' table inet f drops intercepted packets")
    };
    wait_until("the rule is logged at the start", || said(&of("first"))).unwrap();
    assert!(appliance.log().contains("nft 'insert rule inet f first meta mark"), "and its remedy");
    wait_until("it is a problem in status", || {
        appliance.json(&["status"]).is_ok_and(|status| status["problems"].to_string().contains("chain first"))
    })
    .unwrap();
    shell(place, "nft flush ruleset");
    shell(place, &deadly("second"));
    assert!(!said(&of("second")));
    appliance.ok(&["reload"]).unwrap();
    wait_until("another one is logged at the reload", || said(&of("second"))).unwrap();
    shell(place, "nft flush ruleset");
    appliance.ok(&["reload"]).unwrap();
    wait_until("so is that there is none", || said("no rule of the firewall is known to stop mail")).unwrap();
    assert!(intercepted(&topology, SERVER4));
}
