//! nftables and iptables, as their programs print them.

use serde_json::{Value, json};

use super::super::facts::Firewall;
use super::super::firewall;
use super::super::tool::Unread;
use super::*;
use crate::intercept::Family;

/// Clients of 192.0.2.0/24 at lan0 and of 10.1.0.0/24 at lan1, and the rest of the world at wan0. IPv4 only.
const ADDRESSES: &str = r#"[
    {"ifname": "lan0", "addr_info": [{"family": "inet", "local": "192.0.2.1", "prefixlen": 24}]},
    {"ifname": "lan1", "addr_info": [{"family": "inet", "local": "10.1.0.1", "prefixlen": 24}]},
    {"ifname": "wan0", "addr_info": [{"family": "inet", "local": "198.51.100.1", "prefixlen": 24}]}]"#;
const ROUTES: &str = r#"[{"dst": "default", "gateway": "198.51.100.254", "dev": "wan0"},
    {"dst": "192.0.2.0/24", "dev": "lan0"}, {"dst": "10.1.0.0/24", "dev": "lan1"},
    {"dst": "198.51.100.0/24", "dev": "wan0"}]"#;
/// The mail user's number.
const USER: u32 = 990;

/// With this list of nft's, and no iptables.
pub(super) fn firewall_of(nft: String) -> Firewall {
    Firewall {
        nft: Ok(nft),
        terse: false,
        iptables: Vec::new(),
        addresses: Ok(ADDRESSES.to_owned()),
        routes: vec![(Family::V4, Ok(ROUTES.to_owned()))],
        user: Some(USER),
    }
}

/// The findings, those about forward chains apart.
pub(super) fn judge(firewall: &Firewall) -> Vec<Finding> {
    let file = File { path: Path::new("/etc/mailguard/mailguard.toml"), text: TEXT };
    let found = firewall::judge(&config(), &file, firewall);
    found.into_iter().filter(|finding| finding.check != "forward-clients").collect()
}

/// `nft -j list ruleset`: a base chain of `table inet t` at this hook, and chains `one` and `two` to jump to.
fn nft(hook: &str, policy: &str, rules: &[Value], one: &[Value]) -> Firewall {
    let chain = |name: &str| json!({"chain": {"family": "inet", "table": "t", "name": name, "handle": 1}});
    let mut base = chain("base");
    for (key, value) in [("type", "filter"), ("hook", hook), ("policy", policy)] {
        base["chain"][key] = value.into();
    }
    let rule = |chain: &str, expr: &Value| json!({"rule": {"family": "inet", "table": "t", "chain": chain, "handle": 7, "expr": expr}});
    let mut objects = vec![json!({"metainfo": {}}), base, chain("one")];
    objects.extend(rules.iter().map(|expr| rule("base", expr)));
    objects.extend(one.iter().map(|expr| rule("one", expr)));
    firewall_of(json!({ "nftables": objects }).to_string())
}

fn matches(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn meta(key: &str, right: impl Into<Value>) -> Value {
    matches(json!({"meta": {"key": key}}), right.into())
}

fn dport(right: impl Into<Value>) -> Value {
    matches(json!({"payload": {"protocol": "tcp", "field": "dport"}}), right.into())
}

fn accept() -> Value {
    json!({"accept": null})
}

fn drop() -> Value {
    json!({"drop": null})
}

fn our_mark() -> Value {
    matches(json!({"&": [{"meta": {"key": "mark"}}, 0x1000_0000]}), json!(0x1000_0000))
}

fn states() -> Value {
    json!({"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [
        ["established", {"accept": null}], ["related", {"accept": null}], ["invalid", {"drop": null}]]}}})
}

/// The severity for intercepted packets, and for those to the active zone.
fn severities(firewall: &Firewall) -> (Option<Severity>, Option<Severity>) {
    let found = judge(firewall);
    let of = |words: &str| {
        let found =
            found.iter().find(|finding| finding.check == "input-firewall" && finding.what.contains(words));
        found.map(|finding| finding.severity)
    };
    (of("intercepted packets"), of("active zone"))
}

#[test]
fn what_an_input_chain_lets_in() {
    const DROPS: Option<Severity> = Some(Severity::Error);
    const PERHAPS: Option<Severity> = Some(Severity::Warning);
    let saddr = || matches(json!({"payload": {"protocol": "ip", "field": "saddr"}}), json!("@good"));
    let set = |items: Value| json!({ "set": items });
    let jump = || json!([meta("iifname", "lan*"), {"jump": {"target": "one"}}]);
    for (policy, rules, one, expect) in [
        ("accept", vec![], vec![], (None, None)),
        ("drop", vec![], vec![], (DROPS, DROPS)),
        ("drop", vec![json!([our_mark(), accept()])], vec![], (None, DROPS)),
        ("drop", vec![json!([dport(25), accept()])], vec![], (None, None)),
        ("drop", vec![json!([dport(set(json!([22, {"range": [20, 30]}]))), accept()])], vec![], (None, None)),
        ("drop", vec![json!([dport(set(json!([22, 80]))), accept()])], vec![], (DROPS, DROPS)),
        ("drop", vec![json!([meta("iifname", "wan0"), dport(25), accept()])], vec![], (DROPS, None)),
        (
            "drop",
            vec![json!([meta("iifname", set(json!(["lan0", "wan0"]))), accept()])],
            vec![],
            (DROPS, None),
        ),
        // Accepted is only the rest of a connection that never begins.
        ("drop", vec![json!([states()])], vec![], (DROPS, DROPS)),
        ("drop", vec![json!([states()]), json!([dport(25), accept()])], vec![], (None, None)),
        ("accept", vec![json!([{"reject": {"type": "icmpx"}}])], vec![], (DROPS, DROPS)),
        ("accept", vec![json!([meta("nfproto", "ipv4"), drop()])], vec![], (DROPS, DROPS)),
        ("accept", vec![json!([meta("nfproto", "ipv6"), drop()])], vec![], (None, None)),
        ("accept", vec![json!([meta("l4proto", "udp"), drop()])], vec![], (None, None)),
        ("accept", vec![json!([meta("oifname", "lan0"), drop()])], vec![], (None, None)),
        ("accept", vec![json!([meta("mark", 0), drop()])], vec![], (None, DROPS)),
        // Who is kept out is the administrator's business; who is let in, too, but it is mentioned.
        ("accept", vec![json!([saddr(), drop()])], vec![], (None, None)),
        ("drop", vec![json!([saddr(), accept()])], vec![], (PERHAPS, PERHAPS)),
        ("drop", vec![json!([{"limit": {"rate": 1}}, accept()])], vec![], (PERHAPS, PERHAPS)),
        ("drop", vec![jump()], vec![json!([accept()])], (None, DROPS)),
        ("drop", vec![jump()], vec![json!([{"return": null}]), json!([accept()])], (DROPS, DROPS)),
        ("drop", vec![json!([{"goto": {"target": "one"}}]), json!([accept()])], vec![], (DROPS, DROPS)),
        ("accept", vec![jump()], vec![json!([{"jump": {"target": "one"}}]), json!([drop()])], (DROPS, None)),
        (
            "drop",
            vec![json!([saddr(), {"jump": {"target": "one"}}])],
            vec![json!([accept()])],
            (PERHAPS, PERHAPS),
        ),
    ] {
        assert_eq!(severities(&nft("input", policy, &rules, &one)), expect, "{policy} {rules:?} {one:?}");
    }
    let negated =
        json!([{"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "wan0"}}, drop()]);
    assert_eq!(severities(&nft("input", "accept", &[negated], &[])), (DROPS, None));
    let forward = nft("forward", "drop", &[], &[]);
    assert_eq!(severities(&forward), (None, None), "another hook");
}

#[test]
fn remedies_are_commands() {
    let found = judge(&nft("input", "drop", &[], &[]));
    let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
    assert_eq!(
        commands,
        [
            "nft 'insert rule inet t base meta mark & 0x10000000 == 0x10000000 accept'",
            "nft 'insert rule inet t base iifname \"wan0\" tcp dport 25 accept'",
        ]
    );
}

#[test]
fn each_active_interface_is_let_in() {
    let text = TEXT.replace("\"wan0\"", "\"wan0\", \"wan1\"");
    let config = config::parse_and_validate(&Source::of_text("m.toml", text)).unwrap();
    let file = File { path: Path::new("/m.toml"), text: TEXT };
    let found = firewall::judge(&config, &file, &nft("input", "drop", &[json!([our_mark(), accept()])], &[]));
    let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
    let expect = ["wan0", "wan1"]
        .map(|name| format!("nft 'insert rule inet t base iifname \"{name}\" tcp dport 25 accept'"));
    assert_eq!(commands, expect.iter().collect::<Vec<_>>());
}

#[test]
fn marks_that_are_replaced() {
    let mark = || json!({"meta": {"key": "mark"}});
    for (value, lost) in [
        (json!(1), true),
        (json!(0x1000_0001), false),
        (json!({"ct": {"key": "mark"}}), true),
        (json!({"|": [mark(), 1]}), false),
        (json!({"^": [mark(), 0x1000_0000]}), true),
        (json!({"|": [{"&": [mark(), 0xff]}, 1]}), true),
        (json!({"|": [{"&": [mark(), 0xffff_ff00_u32]}, 1]}), false),
        (json!({"&": [{"ct": {"key": "mark"}}, 0xff]}), true),
    ] {
        let rule = json!([{"mangle": {"key": mark(), "value": value}}]);
        let found = judge(&nft("prerouting", "accept", &[rule], &[]));
        assert_eq!(
            complaints(&found),
            if lost { vec![("firewall-mark", Severity::Error)] } else { vec![] },
            "{value}"
        );
    }
    let saved = json!([{"mangle": {"key": {"ct": {"key": "mark"}}, "value": mark()}}]);
    assert_eq!(complaints(&judge(&nft("prerouting", "accept", &[saved], &[]))), []);
}

#[test]
fn port_25_that_is_sent_elsewhere() {
    for statement in [
        json!({"dnat": {"family": "ip", "addr": "10.0.0.5"}}),
        json!({"redirect": {"port": 2525}}),
        json!({"tproxy": {"port": 2525}}),
    ] {
        let found = judge(&nft("prerouting", "accept", &[json!([dport(25), statement])], &[]));
        let expect = [("firewall-redirect", Severity::Error), ("firewall-redirect", Severity::Warning)];
        assert_eq!(complaints(&found), expect, "intercepted packets, and the active zone's");
        assert_eq!(found[1].commands, ["nft delete rule inet t base handle 7"]);
        let elsewhere = [json!([dport(443), statement])];
        assert_eq!(complaints(&judge(&nft("prerouting", "accept", &elsewhere, &[]))), []);
    }
}

fn iptables(variant: &'static str, text: &str) -> Firewall {
    Firewall { iptables: vec![(variant, Family::V4, Ok(text.to_owned()))], ..firewall_of(String::new()) }
}

#[test]
fn what_iptables_lets_in() {
    const DROPS: Option<Severity> = Some(Severity::Error);
    for (policy, rules, expect) in [
        ("ACCEPT", "", (None, None)),
        ("DROP", "", (DROPS, DROPS)),
        ("DROP", "-A INPUT -m mark --mark 0x10000000/0x10000000 -j ACCEPT\n", (None, DROPS)),
        ("DROP", "-A INPUT -i wan+ -p tcp -m multiport --dports 20:30,443 -j ACCEPT\n", (DROPS, None)),
        ("DROP", "-A INPUT -p udp -m udp --dport 25 -j ACCEPT\n", (DROPS, DROPS)),
        ("ACCEPT", "-A INPUT ! -i wan0 -m comment --comment \"all -j ACCEPT\" -j DROP\n", (DROPS, None)),
        ("ACCEPT", "-A INPUT -s 203.0.113.0/24 -j DROP\n", (None, None)),
        (
            "ACCEPT",
            "-A INPUT -m conntrack --ctstate NEW -j own\n-A own -p tcp -j LOG\n-A own -j DROP\n",
            (DROPS, DROPS),
        ),
        ("ACCEPT", "-A INPUT -m conntrack --ctstate INVALID -j DROP\n", (None, None)),
        (
            "DROP",
            "-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -g own\n-A own -j ACCEPT\n",
            (None, None),
        ),
    ] {
        let text = format!("*filter\n:INPUT {policy} [0:0]\n:own - [0:0]\n{rules}COMMIT\n");
        assert_eq!(severities(&iptables("legacy", &text)), expect, "{text}");
    }
    let found = judge(&iptables("legacy", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"));
    let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
    assert_eq!(
        commands,
        [
            "iptables-legacy -t filter -I INPUT -m mark --mark 0x10000000/0x10000000 -j ACCEPT",
            "iptables-legacy -t filter -I INPUT -i wan0 -p tcp --dport 25 -j ACCEPT",
        ]
    );
}

#[test]
fn what_iptables_does_to_marks_and_addresses() {
    const MARK: (&str, Severity) = ("firewall-mark", Severity::Error);
    for (rule, expect) in [
        ("-j MARK --set-xmark 0x1/0xffffffff", vec![MARK]),
        ("-j MARK --set-xmark 0x1/0xff", vec![]),
        ("-j MARK --set-xmark 0x10000000/0x0", vec![MARK]),
        ("-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", vec![MARK]),
        ("-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", vec![]),
        ("-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff", vec![]),
        (
            "-i wan0 -p tcp -m tcp --dport 25 -j DNAT --to-destination 10.0.0.5",
            vec![("firewall-redirect", Severity::Warning)],
        ),
        (
            "-i lan0 -p tcp -m tcp --dport 25 -j REDIRECT --to-ports 2525",
            vec![("firewall-redirect", Severity::Error)],
        ),
        ("-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128", vec![]),
    ] {
        let text = format!("*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n");
        assert_eq!(complaints(&judge(&iptables("legacy", &text))), expect, "{rule}");
    }
}

#[test]
fn a_table_is_judged_once_by_who_knows_it_best() {
    let chain = json!({"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}});
    let rule =
        |expr: Value| json!({"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "expr": expr}});
    let list = |expr: Value| Ok(json!({"nftables": [chain, rule(expr)]}).to_string());
    let saved =
        |rules: &str| vec![("nft", Family::V4, Ok(format!("*filter\n:INPUT DROP [0:0]\n{rules}COMMIT\n")))];
    let own =
        Firewall { nft: list(json!([{"counter": null}])), iptables: saved(""), ..firewall_of(String::new()) };
    assert_eq!(complaints(&judge(&own)).len(), 2, "one for each kind of zone, not two");
    let xt = list(json!([{"xt": {"type": "match", "name": "multiport"}}, {"accept": null}]));
    let known = Firewall {
        nft: xt,
        iptables: saved("-A INPUT -p tcp -m multiport --dports 25,587 -j ACCEPT\n"),
        ..firewall_of(String::new())
    };
    assert_eq!(complaints(&judge(&known)), []);
}

#[test]
fn a_firewall_that_cant_be_read_is_said() {
    let missing = |program| Err(Unread::Missing { program, package: "p" });
    let iptables = vec![("nft", Family::V4, missing("iptables-nft-save"))];
    let found = judge(&Firewall { iptables, ..firewall_of(String::new()) });
    assert_eq!(complaints(&found), [], "where nft tells all, nobody misses iptables");
    let iptables = vec![("legacy", Family::V4, missing("iptables-legacy-save"))];
    let found = judge(&Firewall { nft: missing("nft"), iptables, ..firewall_of(String::new()) });
    assert_eq!(complaints(&found), [("firewall", Severity::Warning); 2]);
    assert!(found.iter().all(|finding| finding.commands == ["apt-get install p"]));
}
