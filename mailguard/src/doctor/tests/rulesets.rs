//! Whole rules as nft and iptables print them, and what becomes of mail under each: asked of both directions,
//! tables and hooks. What is claimed here was tried on real packets by the end-to-end tests.

use serde_json::{Value, json};

use super::filters::{firewall_of, judge};
use super::*;
use crate::doctor::facts::Firewall;
use crate::intercept::Family;

const DROPS: Option<Severity> = Some(Severity::Error);
const MAY_DROP: Option<Severity> = Some(Severity::Warning);

/// The worst that is said about packets on their way in or answers on their way out: of intercepted ones, and
/// of an active zone's.
fn said(firewall: &Firewall) -> (Option<Severity>, Option<Severity>) {
    let found = judge(firewall);
    let of = |intercepted: bool| {
        let about = |finding: &&Finding| {
            ["input-firewall", "output-firewall"].contains(&finding.check.as_str())
                && finding.what.contains("active zone") != intercepted
        };
        found.iter().filter(about).map(|finding| finding.severity).min()
    };
    (of(true), of(false))
}

/// A table `inet t` with this chain; other objects come before.
fn chain(hook: &str, priority: i64, policy: &str, rules: &[Value], objects: &[Value]) -> Vec<Value> {
    let base = json!({"chain": {"family": "inet", "table": "t", "name": hook, "hook": hook, "prio": priority,
        "type": "filter", "policy": policy}});
    let user = json!({"chain": {"family": "inet", "table": "t", "name": "user"}});
    let rule = |expr: &Value| {
        let chain = if expr[0] == "in user" { "user" } else { hook };
        json!({"rule": {"family": "inet", "table": "t", "chain": chain, "expr": expr}})
    };
    let rules = rules.iter().map(rule).collect::<Vec<_>>();
    [objects.to_vec(), vec![base, user], rules].concat()
}

fn nft(objects: &[Value]) -> Firewall {
    firewall_of(json!({ "nftables": objects }).to_string())
}

fn test(left: Value, op: &str, right: Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn address(field: &str, op: &str, right: Value) -> Value {
    test(json!({"payload": {"protocol": "ip", "field": field}}), op, right)
}

fn fib(result: &str, flags: &[&str], op: &str, right: Value) -> Value {
    test(json!({"fib": {"result": result, "flags": flags}}), op, right)
}

fn meta(key: &str, op: &str, right: Value) -> Value {
    test(json!({"meta": {"key": key}}), op, right)
}

fn drop() -> Value {
    json!({"drop": null})
}

#[test]
fn what_rules_of_nftables_do_to_mail() {
    let local = || json!({"set": ["local", "broadcast", "multicast"]});
    let net = |text: &str, len: u8| json!({"prefix": {"addr": text, "len": len}});
    let own = || json!({"set": ["192.0.2.1", "198.51.100.1"]});
    let set = |name: &str, flags: &[&str], elements: Value| json!({"set": {"family": "inet", "table": "t", "name": name, "type": "ipv4_addr", "flags": flags, "elem": elements}});
    let sets = [
        set("own", &[], json!(["192.0.2.1", "198.51.100.1"])),
        set("lan", &["interval"], json!([net("192.0.2.0", 24), net("10.0.0.0", 8)])),
        set("bad", &["dynamic", "timeout"], json!([])),
    ];
    let flags =
        || json!({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["fin", "syn", "rst", "ack"]]});
    let ct = |key: &str| json!({"ct": {"key": key}});
    let pair = || json!({"concat": [{"meta": {"key": "iifname"}}, {"payload": {"protocol": "tcp", "field": "dport"}}]});
    for (hook, test, expect) in [
        // What the packet is sent to isn't ours.
        ("prerouting", fib("type", &["daddr", "iif"], "!=", local()), (DROPS, None)),
        ("input", fib("type", &["daddr"], "!=", json!("local")), (DROPS, None)),
        ("input", fib("type", &["daddr"], "==", json!("local")), (None, DROPS)),
        ("input", fib("type", &["saddr"], "==", json!("local")), (None, None)),
        ("output", fib("type", &["saddr"], "!=", json!("local")), (DROPS, None)),
        ("input", address("daddr", "!=", json!("192.0.2.1")), (DROPS, DROPS)),
        ("input", address("daddr", "!=", own()), (DROPS, None)),
        ("input", address("daddr", "!=", json!("@own")), (DROPS, None)),
        (
            "input",
            address(
                "daddr",
                "!=",
                json!({"set": [net("192.0.2.0", 24), net("224.0.0.0", 4), "198.51.100.1"]}),
            ),
            (DROPS, None),
        ),
        (
            "input",
            address("daddr", "!=", json!({"set": [net("10.0.0.0", 8), "198.51.100.1"]})),
            (DROPS, None),
        ),
        ("input", address("daddr", "==", net("10.0.0.0", 8)), (MAY_DROP, None)),
        ("input", address("daddr", "==", net("203.0.113.0", 24)), (MAY_DROP, None)),
        ("prerouting", address("daddr", "==", net("203.0.113.0", 24)), (None, None)),
        ("input", address("daddr", "==", net("127.0.0.0", 8)), (None, None)),
        ("input", address("daddr", "!=", json!("@bad")), (MAY_DROP, MAY_DROP)),
        ("output", address("saddr", "!=", own()), (DROPS, None)),
        ("output", address("saddr", "!=", json!("@own")), (DROPS, None)),
        ("postrouting", address("saddr", "!=", own()), (DROPS, None)),
        ("output", address("daddr", "==", net("192.0.2.0", 24)), (DROPS, None)),
        // Who it comes from.
        ("input", address("saddr", "==", json!("@bad")), (None, None)),
        ("input", address("saddr", "==", net("203.0.113.0", 24)), (None, None)),
        ("input", address("saddr", "!=", net("203.0.113.0", 24)), (DROPS, MAY_DROP)),
        ("input", address("saddr", "!=", json!("@lan")), (None, MAY_DROP)),
        ("input", address("saddr", "!=", json!("@bad")), (MAY_DROP, MAY_DROP)),
        ("input", address("saddr", "==", net("0.0.0.0", 0)), (DROPS, DROPS)),
        // The way back is there.
        ("prerouting", fib("oif", &["saddr", "iif"], "==", json!(false)), (None, None)),
        ("prerouting", fib("oif", &["saddr", "mark", "iif"], "==", json!("0")), (None, None)),
        ("prerouting", fib("oif", &["saddr", "iif"], "==", json!(true)), (DROPS, DROPS)),
        // Connections.
        ("input", test(ct("state"), "==", json!({"set": ["invalid", "untracked"]})), (None, None)),
        ("input", test(ct("state"), "in", json!("new")), (DROPS, DROPS)),
        ("output", test(ct("state"), "in", json!("new")), (None, None)),
        ("output", test(ct("state"), "in", json!(["established", "related"])), (DROPS, DROPS)),
        ("input", test(ct("direction"), "==", json!("reply")), (None, None)),
        ("output", test(ct("direction"), "==", json!("reply")), (DROPS, DROPS)),
        ("input", test(ct("status"), "in", json!("dnat")), (None, None)),
        ("input", test(json!({"ct": {"key": "ip daddr", "dir": "original"}}), "!=", own()), (DROPS, None)),
        ("input", test(flags(), "!=", json!("syn")), (DROPS, DROPS)),
        ("input", test(flags(), "==", json!("fin")), (None, None)),
        (
            "input",
            test(
                json!({"payload": {"protocol": "tcp", "field": "sport"}}),
                "==",
                json!({"range": [1024, 65535]}),
            ),
            (DROPS, DROPS),
        ),
        (
            "input",
            test(json!({"payload": {"protocol": "tcp", "field": "dport"}}), ">", json!(24)),
            (DROPS, DROPS),
        ),
        (
            "output",
            test(json!({"payload": {"protocol": "tcp", "field": "sport"}}), "==", json!(25)),
            (DROPS, DROPS),
        ),
        (
            "output",
            test(json!({"payload": {"protocol": "tcp", "field": "dport"}}), "==", json!(25)),
            (None, None),
        ),
        // Marks: ours on the way in, the socket's on the way out.
        ("input", meta("mark", "!=", json!(0)), (DROPS, None)),
        ("input", test(json!({"&": [{"meta": {"key": "mark"}}, 255]}), "!=", json!(1)), (DROPS, DROPS)),
        ("output", meta("mark", "!=", json!(0)), (DROPS, None)),
        ("output", meta("mark", "==", json!(0x2000_0000)), (DROPS, None)),
        // Interfaces.
        ("input", meta("iifname", "!=", json!("lo")), (DROPS, DROPS)),
        ("input", meta("iif", "==", json!("lo")), (None, None)),
        ("output", meta("oifname", "==", json!("lan0")), (DROPS, None)),
        ("output", meta("oifname", "!=", json!("lo")), (DROPS, DROPS)),
        (
            "input",
            test(pair(), "==", json!({"set": [{"concat": ["lan0", 25]}, {"concat": ["dmz0", 22]}]})),
            (DROPS, None),
        ),
        ("input", test(pair(), "==", json!({"set": [{"concat": ["lan0", 22]}]})), (None, None)),
        ("input", meta("pkttype", "!=", json!("host")), (None, None)),
        // Owners: root's listeners shake hands, the mail user's sockets talk.
        ("output", meta("skuid", "!=", json!(0)), (DROPS, DROPS)),
        ("output", meta("skuid", "==", json!(33)), (None, None)),
        ("output", meta("skuid", "==", json!({"set": [990]})), (DROPS, DROPS)),
        // Our own sockets.
        ("input", test(json!({"socket": {"key": "transparent"}}), "==", json!(1)), (DROPS, MAY_DROP)),
        // Nothing to do with mail, or not to be told.
        ("input", test(json!({"exthdr": {"name": "rt", "field": "type"}}), "==", json!(0)), (None, None)),
        ("input", meta("length", ">", json!(1000)), (MAY_DROP, MAY_DROP)),
        ("input", json!({"limit": {"rate": 10, "per": "second", "inv": true}}), (MAY_DROP, MAY_DROP)),
        ("input", json!({"limit": "named"}), (MAY_DROP, MAY_DROP)),
        ("input", json!({"counter": "named"}), (DROPS, DROPS)),
        (
            "input",
            json!({"set": {"op": "update", "set": "@bad", "stmt": [{"limit": {"rate": 10}}]}}),
            (MAY_DROP, MAY_DROP),
        ),
    ] {
        let objects = chain(hook, 0, "accept", &[json!([test, drop()])], &sets);
        assert_eq!(said(&nft(&objects)), expect, "{hook}: {test}");
    }
}

#[test]
fn verdict_maps_jumps_and_queues() {
    let vmap = |key: Value, data: Value| json!([{"vmap": {"key": key, "data": data}}]);
    let daddr = || json!({"payload": {"protocol": "ip", "field": "daddr"}});
    let iifname = || json!({"meta": {"key": "iifname"}});
    let map =
        json!({"map": {"family": "inet", "table": "t", "name": "m", "elem": [["lan0", {"drop": null}]]}});
    let to_user = json!({"jump": {"target": "user"}});
    for (policy, rules, expect) in [
        ("accept", vec![vmap(iifname(), json!("@m"))], (DROPS, None)),
        ("accept", vec![vmap(iifname(), json!("@changing"))], (MAY_DROP, MAY_DROP)),
        ("accept", vec![vmap(iifname(), json!({"set": [["wan0", {"drop": null}]]}))], (None, DROPS)),
        ("drop", vec![vmap(daddr(), json!({"set": [["198.51.100.1", {"accept": null}]]}))], (DROPS, None)),
        ("accept", vec![json!([to_user]), json!(["in user", drop()])], (DROPS, DROPS)),
        // A limit on new connections, as OpenWrt sets one.
        (
            "accept",
            vec![
                json!([to_user]),
                json!(["in user", {"limit": {"rate": 25}}, {"return": null}]),
                json!(["in user", drop()]),
            ],
            (MAY_DROP, MAY_DROP),
        ),
        (
            "drop",
            vec![
                json!([{"goto": {"target": "user"}}]),
                json!(["in user", address("saddr", "==", json!("192.0.2.7")), {"accept": null}]),
            ],
            (DROPS, MAY_DROP),
        ),
        ("accept", vec![json!([{"queue": {"num": 0}}])], (MAY_DROP, MAY_DROP)),
        ("accept", vec![json!([{"queue": {"num": 0, "flags": "bypass"}}])], (None, None)),
    ] {
        let objects = chain("input", 0, policy, &rules, std::slice::from_ref(&map));
        assert_eq!(said(&nft(&objects)), expect, "{policy} {rules:?}");
    }
}

#[test]
fn what_an_earlier_chain_did_counts_in_a_later_one() {
    let state = |states: Value| test(json!({"ct": {"key": "state"}}), "in", states);
    let invalid = || chain("input", 0, "accept", &[json!([state(json!("invalid")), drop()])], &[]);
    let notrack = |hook, expr: Value| chain(hook, -300, "accept", &[expr], &[]);
    let both = |first: Vec<Value>, then: Vec<Value>| said(&nft(&[first, then].concat()));
    // Half a connection is invalid, a whole one left out is not.
    assert_eq!(both(notrack("output", json!([{"notrack": null}])), invalid()), (DROPS, DROPS));
    assert_eq!(both(notrack("prerouting", json!([{"notrack": null}])), invalid()), (None, None));
    let untracked = chain("input", 0, "accept", &[json!([state(json!("untracked")), drop()])], &[]);
    assert_eq!(both(notrack("prerouting", json!([{"notrack": null}])), untracked), (DROPS, DROPS));
    let early = chain("prerouting", -300, "accept", &[json!([state(json!("invalid")), drop()])], &[]);
    assert_eq!(said(&nft(&early)), (DROPS, DROPS), "before connection tracking nothing is valid");

    let mark = |value: Value| json!([{"mangle": {"key": {"meta": {"key": "mark"}}, "value": value}}]);
    let kept = json!({"|": [{"meta": {"key": "mark"}}, 1]});
    let bits = test(json!({"&": [{"meta": {"key": "mark"}}, 1]}), "==", json!(1));
    let marked = chain("input", 0, "accept", &[json!([bits, drop()])], &[]);
    assert_eq!(both(chain("prerouting", -150, "accept", &[mark(kept)], &[]), marked.clone()), (DROPS, DROPS));
    assert_eq!(said(&nft(&marked)), (None, None), "without that chain");
    let unknown = json!({"|": [{"&": [{"ct": {"key": "mark"}}, 1]}, 0x1000_0000]});
    assert_eq!(
        both(chain("prerouting", -150, "accept", &[mark(unknown)], &[]), marked),
        (MAY_DROP, MAY_DROP)
    );
}

#[test]
fn chains_at_an_interface() {
    let ingress = |device: Value| {
        let chain = json!({"chain": {"family": "netdev", "table": "n", "name": "in", "hook": "ingress", "prio": 0,
            "type": "filter", "policy": "accept", "dev": device}});
        let rule = json!({"rule": {"family": "netdev", "table": "n", "chain": "in", "expr":
            [address("daddr", "!=", json!("192.0.2.1")), drop()]}});
        said(&nft(&[chain, rule]))
    };
    assert_eq!(ingress(json!("lan0")), (DROPS, None));
    assert_eq!(ingress(json!(["wan0", "dmz0"])), (None, DROPS));
    assert_eq!(ingress(Value::Null), (MAY_DROP, MAY_DROP), "it isn't said which");
}

#[test]
fn what_rules_of_iptables_do_to_mail() {
    for (table, chain, rule, expect) in [
        ("filter", "INPUT", "-m addrtype ! --dst-type LOCAL -j DROP", (DROPS, None)),
        ("filter", "INPUT", "-m addrtype --dst-type LOCAL --limit-iface-in -j DROP", (None, DROPS)),
        ("filter", "INPUT", "-m addrtype --src-type LOCAL -j DROP", (None, None)),
        ("filter", "INPUT", "! -d 192.0.2.1/32 -j DROP", (DROPS, DROPS)),
        ("filter", "INPUT", "-m iprange ! --dst-range 198.51.100.1-198.51.100.9 -j DROP", (MAY_DROP, None)),
        ("filter", "INPUT", "-m set ! --match-set own dst -j DROP", (MAY_DROP, MAY_DROP)),
        ("filter", "INPUT", "-m set --match-set bad src -j DROP", (None, None)),
        ("filter", "INPUT", "-s 192.0.2.0/255.255.255.0 -j DROP", (DROPS, None)),
        ("raw", "PREROUTING", "-m rpfilter --invert -j DROP", (None, None)),
        ("raw", "PREROUTING", "-m rpfilter --loose --validmark --invert -j DROP", (None, None)),
        ("raw", "PREROUTING", "-m rpfilter -j DROP", (DROPS, DROPS)),
        ("mangle", "PREROUTING", "-m socket --transparent -j DROP", (DROPS, MAY_DROP)),
        ("filter", "INPUT", "! -i lo -s 127.0.0.0/8 -j DROP", (None, None)),
        ("filter", "INPUT", "-d 127.0.0.0/8 ! -i lo -j DROP", (None, None)),
        ("filter", "INPUT", "-m conntrack ! --ctstate NEW,RELATED,ESTABLISHED -j DROP", (None, None)),
        ("filter", "INPUT", "-m conntrack --ctstate INVALID,UNTRACKED -j DROP", (None, None)),
        ("filter", "INPUT", "-m conntrack --ctdir REPLY -j DROP", (None, None)),
        ("filter", "INPUT", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", (DROPS, DROPS)),
        (
            "filter",
            "INPUT",
            "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP",
            (None, None),
        ),
        ("filter", "INPUT", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP", (None, None)),
        ("filter", "INPUT", "-f -j DROP", (None, None)),
        ("filter", "INPUT", "-m mark ! --mark 0x1/0xff -j DROP", (DROPS, DROPS)),
        ("filter", "INPUT", "-m connmark --mark 0x1 -j DROP", (MAY_DROP, MAY_DROP)),
        ("filter", "INPUT", "-m mac ! --mac-source 02:00:00:00:00:01 -j DROP", (MAY_DROP, MAY_DROP)),
        ("filter", "INPUT", "-p tcp -m connlimit --connlimit-above 20 -j REJECT", (MAY_DROP, MAY_DROP)),
        ("filter", "INPUT", "-p tcp -m multiport ! --dports 22,80:90 -j DROP", (DROPS, DROPS)),
        ("filter", "INPUT", "-p icmp -m icmp --icmp-type 8 -j DROP", (None, None)),
        ("filter", "INPUT", "-m comment --comment \"-j ACCEPT\" -j DROP", (DROPS, DROPS)),
        ("security", "INPUT", "-p tcp -j DROP", (DROPS, DROPS)),
        ("filter", "INPUT", "-j NFQUEUE --queue-num 0", (MAY_DROP, MAY_DROP)),
        ("filter", "INPUT", "-j NFQUEUE --queue-num 0 --queue-bypass", (None, None)),
        ("filter", "INPUT", "-j STRANGE", (MAY_DROP, MAY_DROP)),
        ("filter", "INPUT", "-j LOG --log-prefix \"-j DROP \"", (None, None)),
        ("filter", "OUTPUT", "! -s 192.0.2.1/32 -j DROP", (DROPS, DROPS)),
        ("filter", "OUTPUT", "! -s 198.51.100.1/32 -j DROP", (DROPS, None)),
        ("filter", "OUTPUT", "-m owner --uid-owner 990 -j DROP", (DROPS, DROPS)),
        ("filter", "OUTPUT", "-m owner ! --uid-owner 0-999 -j DROP", (None, None)),
        ("filter", "OUTPUT", "-p tcp -m tcp --sport 25 -j DROP", (DROPS, DROPS)),
        ("filter", "OUTPUT", "-p tcp -m tcp --dport 25 -j DROP", (None, None)),
        ("filter", "OUTPUT", "-m mark --mark 0x20000000/0x20000000 -j DROP", (DROPS, None)),
        ("raw", "OUTPUT", "-o lan0 -j DROP", (DROPS, None)),
        ("mangle", "POSTROUTING", "-m addrtype ! --src-type LOCAL -j DROP", (DROPS, None)),
        ("nat", "POSTROUTING", "-o wan0 -j MASQUERADE", (None, None)),
    ] {
        let text = format!("*{table}\n:{chain} ACCEPT [0:0]\n-A {chain} {rule}\nCOMMIT\n");
        let iptables = vec![("legacy", Family::V4, Ok(text))];
        assert_eq!(
            said(&Firewall { iptables, ..firewall_of(String::new()) }),
            expect,
            "{table} {chain} {rule}"
        );
    }
}

#[test]
fn both_directions_are_mended_by_a_command() {
    let output = chain("output", 0, "drop", &[], &[]);
    let commands = judge(&nft(&output)).into_iter().flat_map(|finding| finding.commands).collect::<Vec<_>>();
    assert_eq!(
        commands,
        [
            "nft 'insert rule inet t output meta mark & 0x20000000 == 0x20000000 accept'",
            "nft 'insert rule inet t output oifname \"wan0\" tcp sport 25 accept'",
        ]
    );
    let text = "*filter\n:OUTPUT DROP [0:0]\nCOMMIT\n".to_owned();
    let iptables = vec![("legacy", Family::V4, Ok(text))];
    let found = judge(&Firewall { iptables, ..firewall_of(String::new()) });
    let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
    assert_eq!(
        commands,
        [
            "iptables-legacy -t filter -I OUTPUT -m mark --mark 0x20000000/0x20000000 -j ACCEPT",
            "iptables-legacy -t filter -I OUTPUT -o wan0 -p tcp --sport 25 -j ACCEPT",
        ]
    );
}

#[test]
fn a_list_without_the_elements_of_sets_decides_nothing_by_them() {
    let own = json!({"set": {"family": "inet", "table": "t", "name": "own", "type": "ipv4_addr"}});
    let rule = json!([address("saddr", "!=", json!("@own")), drop()]);
    let objects = chain("input", 0, "accept", &[rule], &[own]);
    assert_eq!(said(&nft(&objects)), (DROPS, DROPS), "an empty set");
    assert_eq!(said(&Firewall { terse: true, ..nft(&objects) }), (MAY_DROP, MAY_DROP), "an unknown one");
}
