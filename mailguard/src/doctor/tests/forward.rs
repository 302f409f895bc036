//! The administrator's forward rules about port 25, and the line that answers them.

use serde_json::{Value, json};

use super::super::facts::Firewall;
use super::super::firewall;
use super::filters::firewall_of;
use super::*;
use crate::intercept::Family;

/// The configuration of these tests with this `allow_clients`.
fn allowing(line: &str) -> Config {
    let text = TEXT.replace("name = \"green\"\n", &format!("name = \"green\"\n{line}\n"));
    // The key's own part of the program comes to its end elsewhere: what counts here is the value.
    let mut config = config();
    if !line.is_empty() {
        let list = text.lines().find_map(|text| text.strip_prefix("allow_clients = ")).unwrap();
        let list: Vec<String> = serde_json::from_str(list).unwrap();
        let network = |text: &String| super::super::ranges::network(text).unwrap();
        config.zones[0].allow_clients = Some(list.iter().map(network).collect());
    }
    config
}

/// What is said of the green zone's forward rules.
fn found(config: &Config, firewall: &Firewall) -> Finding {
    let file = File { path: Path::new("/etc/mailguard/mailguard.toml"), text: TEXT };
    let found = firewall::judge(config, &file, firewall);
    let mut found = found.into_iter().filter(|finding| finding.check == "forward-clients");
    let finding = found.next().unwrap();
    assert_eq!(found.next(), None, "one for each transparent zone");
    finding
}

/// `allow_clients = […]` of the command that mends it.
#[track_caller]
fn line(finding: &Finding) -> &str {
    assert_eq!(finding.severity, Severity::Error, "{finding:?}");
    let command = &finding.commands[0];
    let line = command.strip_prefix("sed -i '3a ").and_then(|rest| rest.split_once('\'')).unwrap();
    assert!(finding.why.contains(line.0), "{finding:?}");
    assert_eq!(line.1, " /etc/mailguard/mailguard.toml");
    line.0
}

fn nft(policy: &str, rules: &[Value]) -> Firewall {
    let chain = json!({"chain": {"family": "inet", "table": "t", "name": "fw", "hook": "forward", "prio": 0,
        "type": "filter", "policy": policy}});
    let set = json!({"set": {"family": "inet", "table": "t", "name": "senders", "type": "ipv4_addr", "elem":
        ["10.1.0.25", "10.1.0.26"]}});
    let rule = |expr: &Value| json!({"rule": {"family": "inet", "table": "t", "chain": "fw", "expr": expr}});
    let objects: Vec<Value> = [chain, set].into_iter().chain(rules.iter().map(rule)).collect();
    firewall_of(json!({ "nftables": objects }).to_string())
}

fn test(protocol: &str, field: &str, op: &str, right: Value) -> Value {
    json!({"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}})
}

fn saddr(op: &str, right: Value) -> Value {
    test("ip", "saddr", op, right)
}

fn smtp() -> Value {
    test("tcp", "dport", "==", json!(25))
}

fn interface(key: &str, name: &str) -> Value {
    json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}})
}

#[test]
fn a_forward_rule_that_keeps_clients_from_port_25_wants_its_line() {
    let accept = || json!({"accept": null});
    let reject = || json!({"reject": {"type": "tcp reset"}});
    let set = |items: Value| json!({ "set": items });
    let net = |text: &str, len: u8| json!({"prefix": {"addr": text, "len": len}});
    for (policy, rules, expect) in [
        ("accept", vec![json!([saddr("!=", json!("10.1.0.25")), smtp(), reject()])], r#"["10.1.0.25"]"#),
        (
            "accept",
            vec![json!([saddr("!=", json!("@senders")), smtp(), reject()])],
            r#"["10.1.0.25", "10.1.0.26"]"#,
        ),
        (
            "accept",
            vec![json!([
                saddr("!=", set(json!([net("10.1.0.0", 28), {"range": ["192.0.2.4", "192.0.2.7"]}]))),
                smtp(),
                reject()
            ])],
            r#"["10.1.0.0/28", "192.0.2.4/30"]"#,
        ),
        ("accept", vec![json!([test("tcp", "dport", "==", set(json!([25, 465, 587]))), reject()])], "[]"),
        ("accept", vec![json!([test("tcp", "dport", "==", json!({"range": [1, 1023]})), reject()])], "[]"),
        ("drop", vec![], "[]"),
        ("drop", vec![json!([interface("iifname", "lan1"), smtp(), accept()])], r#"["10.1.0.0/24"]"#),
        ("drop", vec![json!([saddr("==", json!("192.0.2.9")), smtp(), accept()])], r#"["192.0.2.9"]"#),
        (
            "drop",
            vec![
                json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": null}]]}}}]),
                json!([saddr("==", json!("10.1.0.25")), interface("oifname", "wan0"), accept()]),
            ],
            r#"["10.1.0.25"]"#,
        ),
        // One that is kept out of a network that sends.
        (
            "accept",
            vec![json!([saddr("==", net("10.1.0.0", 25)), smtp(), reject()])],
            r#"["10.1.0.128/25", "192.0.2.0/24"]"#,
        ),
        // Only the provider's server is to be reached.
        ("accept", vec![json!([test("ip", "daddr", "!=", json!("203.0.113.25")), smtp(), reject()])], "[]"),
    ] {
        let found = found(&allowing(""), &nft(policy, &rules));
        let line = line(&found);
        assert_eq!(line, format!("allow_clients = {expect}"), "{policy} {rules:?}");
        assert!(found.what.contains("the chain fw of nftables' table inet t: "), "{found:?}");
    }
}

#[test]
fn rules_that_keep_nobody_from_port_25_want_none() {
    let reject = || json!({"reject": {"type": "tcp reset"}});
    for (policy, rules) in [
        ("accept", vec![]),
        ("accept", vec![json!([test("tcp", "dport", "==", json!(80)), reject()])]),
        ("accept", vec![json!([test("udp", "dport", "==", json!(25)), reject()])]),
        ("accept", vec![json!([interface("iifname", "guest0"), smtp(), reject()])]),
        ("accept", vec![json!([interface("iifname", "wan0"), reject()])]),
        // Those that come by the wrong interface, and servers that are shut out.
        ("accept", vec![json!([saddr("==", json!("172.16.0.5")), smtp(), reject()])]),
        ("accept", vec![json!([test("ip", "daddr", "==", json!("203.0.113.66")), smtp(), reject()])]),
        ("drop", vec![json!([interface("oifname", "wan0"), {"accept": null}])]),
        ("drop", vec![json!([smtp(), {"accept": null}])]),
        ("accept", vec![json!([test("ip6", "saddr", "!=", json!("2001:db8::1")), smtp(), reject()])]),
    ] {
        let found = found(&allowing(""), &nft(policy, &rules));
        assert_eq!(found.severity, Severity::Ok, "{policy} {rules:?}: {found:?}");
    }
}

#[test]
fn a_rule_that_cant_be_decided_is_a_warning() {
    let limited = json!([{"limit": {"rate": 10, "per": "minute", "inv": true}}, smtp(), {"drop": null}]);
    let unknown = json!([saddr("!=", json!("@changing")), smtp(), {"drop": null}]);
    for rule in [limited, unknown] {
        let found = found(&allowing(""), &nft("accept", std::slice::from_ref(&rule)));
        assert_eq!((found.severity, found.commands.len()), (Severity::Warning, 0), "{rule}: {found:?}");
        assert!(found.what.contains("may keep"));
    }
}

#[test]
fn allow_clients_answers_and_says_no_more_than_the_firewall() {
    let only_25 = nft("accept", &[json!([saddr("!=", json!("10.1.0.25")), smtp(), {"drop": null}])]);
    for (line, severity, words) in [
        ("allow_clients = [\"10.1.0.25\"]", Severity::Ok, "answers"),
        ("allow_clients = []", Severity::Ok, "answers"),
        ("allow_clients = [\"10.1.0.25\", \"10.1.0.66\"]", Severity::Warning, "allows 10.1.0.66, whom"),
        ("allow_clients = [\"10.1.0.24/31\"]", Severity::Warning, "allows 10.1.0.24, whom"),
    ] {
        let found = found(&allowing(line), &only_25);
        assert_eq!(found.severity, severity, "{line}: {found:?}");
        assert!(found.what.contains(words), "{line}: {found:?}");
    }
}

#[test]
fn iptables_forward_rules_are_read_too() {
    let rules = |text: &str| {
        let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n:mail - [0:0]\n{text}COMMIT\n");
        Firewall { iptables: vec![("legacy", Family::V4, Ok(text))], ..firewall_of(String::new()) }
    };
    for (text, expect) in [
        (
            "-A FORWARD ! -s 10.1.0.25/32 -p tcp -m tcp --dport 25 -j REJECT --reject-with tcp-reset\n",
            r#"["10.1.0.25"]"#,
        ),
        (
            "-A FORWARD -p tcp -m multiport --dports 25,465 -j mail\n-A mail -s 192.0.2.8/29 -j RETURN\n-A mail -j DROP\n",
            r#"["192.0.2.8/29"]"#,
        ),
        ("-A FORWARD -i lan+ -o wan0 -p tcp -m tcp --dport 25 -j DROP\n", "[]"),
        (
            "-A FORWARD -p tcp -m tcp --dport 25 -m iprange ! --src-range 10.1.0.4-10.1.0.5 -j DROP\n",
            r#"["10.1.0.4/31"]"#,
        ),
    ] {
        let found = found(&allowing(""), &rules(text));
        assert_eq!(line(&found), format!("allow_clients = {expect}"), "{text}");
        assert!(found.what.contains("iptables-legacy's chain FORWARD (table filter): \"-A "), "{found:?}");
    }
    let found = found(&allowing(""), &rules("-A FORWARD -i guest0 -p tcp -m tcp --dport 25 -j DROP\n"));
    assert_eq!(found.severity, Severity::Ok);
}

#[test]
fn a_family_that_nobody_restricts_is_allowed_whole() {
    let mut firewall = nft("accept", &[json!([saddr("!=", json!("10.1.0.25")), smtp(), {"drop": null}])]);
    let routes = r#"[{"dst": "2001:db8:1::/64", "dev": "lan0"}, {"dst": "fe80::/64", "dev": "lan1"}]"#;
    firewall.routes.push((Family::V6, Ok(routes.to_owned())));
    assert_eq!(line(&found(&allowing(""), &firewall)), r#"allow_clients = ["10.1.0.25", "::/0"]"#);
}

#[test]
fn more_addresses_than_can_be_tried_are_no_proof() {
    let many: Vec<String> = (0..3_000).map(|n| format!("172.20.{}.{}", n / 128, n % 128 * 2)).collect();
    let mut firewall = nft("accept", &[json!([saddr("==", json!({"set": many})), smtp(), {"drop": null}])]);
    assert_eq!(found(&allowing(""), &firewall).severity, Severity::Ok, "none of a client's");
    firewall.routes.clear();
    assert_eq!(found(&allowing(""), &firewall).severity, Severity::Warning, "clients aren't known");
}
