//! Kernel, interfaces, settings, routing, ports.

use std::collections::HashMap;

use super::super::daemon::Daemon;
use super::super::facts::Routing;
use super::super::ports::Socket;
use super::super::system::{Folder, FolderState, System};
use super::super::tool::{Said, Unread};
use super::super::{daemon, interfaces, ports, presence, routing, settings, system};
use super::*;
use crate::intercept::Family;

const ALL: u64 = u64::MAX;

fn machine() -> System {
    System {
        kernel: "6.1.0-25-amd64".to_owned(),
        capabilities: ALL,
        has_bpffs: true,
        on_bpffs: true,
        private_bpffs: None,
        probe: Ok("tcx"),
        user: Some(999),
        folders: Vec::new(),
    }
}

#[test]
fn kernels_and_capabilities() {
    let without = |bits: &[u32]| bits.iter().fold(ALL, |all, bit| all & !(1 << bit));
    for (kernel, capabilities, expect) in [
        ("5.15.0", ALL, &[][..]),
        ("5.14.21-150500.55", ALL, &["kernel"]),
        ("4.19.0", ALL, &["kernel"]),
        ("unknown", ALL, &["kernel"]),
        ("7.0", without(&[21]), &[]),
        ("7.0", without(&[38, 39]), &[]),
        ("7.0", without(&[21, 38]), &["capabilities"]),
        ("7.0", without(&[12, 10]), &["capabilities", "capabilities"]),
    ] {
        let system = System { kernel: kernel.to_owned(), capabilities, ..machine() };
        let found = system::judge(&config(), &system);
        let found: Vec<&str> = complaints(&found).into_iter().map(|(check, _)| check).collect();
        assert_eq!(found, expect, "{kernel} {capabilities:x}");
    }
}

#[test]
fn users_folders_and_pins() {
    let folder = |state| Folder { path: "/var/lib/mail guard".into(), state };
    for (system, expect) in [
        (System { user: None, ..machine() }, "useradd --system --no-create-home mailguard"),
        (
            System { folders: vec![folder(FolderState::Exists { owner: 33, empty: false })], ..machine() },
            "chown -R mailguard '/var/lib/mail guard'",
        ),
        (
            System { on_bpffs: false, capabilities: ALL & !(1 << 21), ..machine() },
            "mkdir -p /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf",
        ),
    ] {
        let found = system::judge(&config(), &system);
        let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
        assert_eq!(commands, [expect]);
    }
    for system in [
        System { user: Some(0), ..machine() },
        System { on_bpffs: false, has_bpffs: false, ..machine() },
        System { private_bpffs: Some("it goes with the process".to_owned()), ..machine() },
        System { probe: Err("unknown opcode ".repeat(1_000)), ..machine() },
        System {
            folders: vec![folder(FolderState::Impossible("it isn't a folder".to_owned()))],
            ..machine()
        },
    ] {
        let found = system::judge(&config(), &system);
        assert_eq!(complaints(&found).len(), 1, "{found:?}");
        assert!(found.iter().all(|finding| finding.what.len() < 1_000), "a verifier's log is cut");
    }
    for state in [
        FolderState::Possible,
        FolderState::Exists { owner: 999, empty: false },
        FolderState::Exists { owner: 0, empty: true },
    ] {
        let found = system::judge(&config(), &System { folders: vec![folder(state)], ..machine() });
        assert_eq!(complaints(&found), []);
    }
}

#[test]
fn daemons() {
    use daemon::Daemon;
    for (heard, expect) in [
        (Daemon::Runs { alive: true, problems: Vec::new(), serves: Vec::new(), stand_in: None }, None),
        (
            Daemon::Runs { alive: false, problems: Vec::new(), serves: Vec::new(), stand_in: None },
            Some(Severity::Error),
        ),
        (
            Daemon::Runs {
                alive: true,
                problems: Vec::new(),
                serves: Vec::new(),
                stand_in: Some(
                    "mailguard runs by the configuration that was applied at some time".to_owned(),
                ),
            },
            Some(Severity::Error),
        ),
        (
            Daemon::Runs {
                alive: true,
                problems: vec!["a full queue".to_owned(), "system: too few files".to_owned()],
                serves: Vec::new(),
                stand_in: None,
            },
            Some(Severity::Warning),
        ),
        (Daemon::Down { attached: 0 }, None),
        (Daemon::Down { attached: 3 }, Some(Severity::Warning)),
        (Daemon::Odd("it closed the connection".to_owned()), Some(Severity::Warning)),
    ] {
        let found = daemon::judge(&config(), &heard);
        assert_eq!(complaints(&found).first().map(|(_, severity)| *severity), expect, "{found:?}");
    }
}

/// `ip -j -d link show`, for the four interfaces of the zones and what `more` adds; `lan0` is `lan0`.
fn links(lan0: &str, more: &str) -> Said {
    let up = |name: &str| format!(r#"{{"ifname":"{name}","flags":["UP"],"link_type":"ether"}}"#);
    Ok(format!("[{lan0},{},{},{{}}{more}]", up("lan1"), up("wan0")))
}

#[test]
fn where_the_packets_come_in() {
    let up = r#"{"ifname":"lan0","flags":["UP"],"link_type":"ether"}"#;
    let member = |kind: &str| {
        format!(
            r#"{{"ifname":"lan0","flags":["UP"],"link_type":"ether","master":"m0",
                "linkinfo":{{"info_kind":"veth","info_slave_kind":"{kind}"}}}}"#
        )
    };
    let bridge = r#"{"ifname":"lan0","flags":["UP"],"link_type":"ether","linkinfo":{"info_kind":"bridge"}}"#;
    let port = |name: &str| format!(r#",{{"ifname":"{name}","flags":["UP"],"master":"lan0"}}"#);
    let vlan = |name: &str| {
        format!(r#",{{"ifname":"{name}","flags":["UP"],"link":"lan0","linkinfo":{{"info_kind":"vlan"}}}}"#)
    };
    let on_lan0 = |kind: &str, more: &str| {
        format!(r#",{{"ifname":"over0","link":"lan0","linkinfo":{{"info_kind":"{kind}"}}{more}}}"#)
    };
    let vxlan = r#",{"ifname":"over0","linkinfo":{"info_kind":"vxlan","info_data":{"id":7,"link":"lan0"}}}"#
        .to_owned();
    let renamed = up.replace(r#""lan0""#, r#""enp1s0","altnames":["lan0"]"#);
    let xdp =
        |name: &str| up.replace('}', &format!(r#","xdp":{{"mode":1,"prog":{{"id":7,"name":"{name}"}}}}}}"#));
    let down = up.replace("\"UP\"", "\"BROADCAST\"");
    let other = up.replace("lan0", "eth0");
    let (two_ports, both_vlans) = (port("p1") + &port("p2"), vlan("lan0.5") + &vlan("wlan0"));
    let replaced = |new: &str| Some(format!("sed -i '5s/\"lan0\"/{new}/' /etc/m.toml"));
    use Severity::{Error, Warning};
    for (lan0, more, expect, command) in [
        (up, "", None, None),
        (&other, "", Some(("interface-missing", Warning)), Some("ip -br link".to_owned())),
        (&down, "", Some(("interface-down", Error)), Some("ip link set lan0 up".to_owned())),
        (&member("bridge"), "", Some(("interface-member", Error)), replaced("\"m0\"")),
        (&member("bond"), "", Some(("interface-member", Error)), replaced("\"m0\"")),
        (&member("vrf"), "", Some(("interface-vrf", Warning)), Some("ip link set lan0 nomaster".to_owned())),
        (&xdp("mg_early"), "", None, None),
        (&xdp("other"), "", Some(("other-programs", Warning)), None),
        (bridge, &port("p1"), None, None),
        (bridge, &two_ports, Some(("interface-bridge", Warning)), None),
        (up, &both_vlans, Some(("interface-vlan", Warning)), replaced("\"lan0\", \"lan0.5\"")),
        (up, &on_lan0("macvlan", ""), Some(("interface-overlay", Warning)), replaced("\"lan0\", \"over0\"")),
        (up, &on_lan0("ipvlan", ""), Some(("interface-overlay", Warning)), replaced("\"lan0\", \"over0\"")),
        (up, &vxlan, Some(("interface-overlay", Warning)), replaced("\"lan0\", \"over0\"")),
        // The other end of a cable, and one that a zone names by another name.
        (up, &on_lan0("veth", ""), None, None),
        (up, &on_lan0("macvlan", r#","altnames":["wlan0"]"#), None, None),
        (&renamed, "", None, None),
    ] {
        let file = File { path: Path::new("/etc/m.toml"), text: TEXT };
        let found = interfaces::judge(&config(), &file, &links(lan0, more), &HashMap::new());
        assert_eq!(complaints(&found), expect.into_iter().collect::<Vec<_>>(), "{lan0} {more}");
        let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
        assert_eq!(commands, command.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_name_that_stands_in_more_lines_is_left_to_the_administrator() {
    let replace = |text: &str, name: &str| File { path: Path::new("m.toml"), text }.replace(name, "\"br0\"");
    let commented = format!("{TEXT}# \"lan0\" is the office\n");
    assert_eq!(replace(&commented, "lan0").as_deref(), Some("sed -i '5s/\"lan0\"/\"br0\"/' m.toml"));
    assert_eq!(replace(&format!("{TEXT}[dns]\nx = [\"lan0\"]\n"), "lan0"), None);
    assert_eq!(replace(TEXT, "lan9"), None);
    assert_eq!(replace("interfaces = [\"a/b\"]", "a/b"), None, "sed would take it for its own");
}

#[test]
fn other_programs_at_an_interface() {
    for (programs, expect) in [
        (&["mg_steer", "other"][..], None),
        (&["other", "mg_steer"], Some(Severity::Warning)),
        (&["other"], Some(Severity::Ok)),
        (&[], None),
    ] {
        let programs = [("lan0".to_owned(), programs.iter().map(|name| (*name).to_owned()).collect())].into();
        let up = r#"{"ifname":"lan0","flags":["UP"],"link_type":"ether"}"#;
        let file = File { path: Path::new("m.toml"), text: TEXT };
        let found = interfaces::judge(&config(), &file, &links(up, ""), &programs);
        let found = found.iter().find(|finding| finding.check == "other-programs");
        assert_eq!(found.map(|finding| finding.severity), expect);
    }
}

#[test]
fn settings_that_matter_to_bypassed_mail() {
    let one = "default via 192.0.2.1 dev wan0\n";
    let two = format!("{one}default via 198.51.100.1 dev wan1 metric 100\n");
    for (values, routes, expect) in [
        (&[("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/lan0/rp_filter", "1")][..], one, &[][..]),
        (&[("net/ipv4/ip_forward", "0")], one, &["sysctl -w net.ipv4.ip_forward=1"]),
        (&[("net/ipv6/conf/all/forwarding", "0")], one, &["sysctl -w net.ipv6.conf.all.forwarding=1"]),
        (&[("net/ipv4/conf/lan0/rp_filter", "1")], &two, &["sysctl -w net.ipv4.conf.lan0.rp_filter=2"]),
        (
            &[("net/ipv4/conf/lan0/rp_filter", "2"), ("net/ipv4/conf/all/rp_filter", "1")],
            &two,
            &["sysctl -w net.ipv4.conf.lan1.rp_filter=2"],
        ),
    ] {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let found = settings::judge(&config(), &values, &Ok(routes.to_owned()));
        let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
        assert_eq!(commands, expect, "{values:?}");
    }
}

#[test]
fn rules_that_come_before_ours() {
    const OURS: &str = "25:\tfrom all fwmark 0x10000000/0x10000000 iif lan0 lookup 2525\n";
    const MAIN: &str = "32766:\tfrom all lookup main\n";
    const LOCAL: &str = "0:\tfrom all lookup local\n";
    use Severity::{Error, Warning};
    for (rules, expect) in [
        ("", None),
        ("26:\tfrom all lookup 100\n", None),
        ("10:\tfrom all nop\n", None),
        ("10:\tfrom all iif wan0 lookup 100\n", None),
        ("10:\tfrom all oif lan0 lookup 100\n", None),
        ("10:\tfrom all ipproto udp lookup 100\n", None),
        ("10:\tfrom all ipproto tcp dport 80-90 lookup 100\n", None),
        ("10:\tfrom all fwmark 0x1 lookup 100\n", None),
        ("10:\tfrom all fwmark 0/0x10000000 lookup 100\n", None),
        ("10:\tfrom all lookup 100\n", Some(("policy-rule", Error))),
        ("25:\tfrom all iif lan1 [detached] unreachable\n", Some(("policy-rule", Error))),
        ("10:\tfrom all dport 20-30 lookup 100\n", Some(("policy-rule", Error))),
        ("10:\tfrom 10.0.0.0/8 lookup 100\n", Some(("policy-rule", Warning))),
        ("10:\tnot from all iif wan0 lookup 100\n", Some(("policy-rule", Warning))),
        ("10:\tfrom all fwmark 0x1/0xff lookup 100\n", Some(("policy-rule", Warning))),
    ] {
        let rules = format!("{LOCAL}{rules}{OURS}{MAIN}");
        let routing = Routing { family: Family::V4, rules: Ok(rules.clone()), routes: Ok(String::new()) };
        assert_eq!(
            complaints(&routing::judge(&config(), &[routing])),
            expect.into_iter().collect::<Vec<_>>(),
            "{rules}"
        );
    }
    let rules = format!(
        "10:\tfrom 10.0.0.0/8 lookup 100\n20:\tfrom all to 10.1.0.0/16 iif lan0 [detached] prohibit\n{OURS}26:\tfrom all lookup 7\n"
    );
    let routing = Routing { family: Family::V6, rules: Ok(rules), routes: Ok(String::new()) };
    let found = routing::judge(&config(), &[routing]);
    let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
    assert_eq!(
        commands,
        [
            "ip -6 rule add priority 0 lookup local",
            "ip -6 rule add from 10.0.0.0/8 lookup 100 priority 27 && ip -6 rule del from 10.0.0.0/8 lookup 100 priority 10",
            "ip -6 rule add from all to 10.1.0.0/16 iif lan0 prohibit priority 28 && \
             ip -6 rule del from all to 10.1.0.0/16 iif lan0 prohibit priority 20",
        ],
        "in their order, to numbers that are free"
    );
}

#[test]
fn routes_in_our_table() {
    let text = "local default dev lo scope host \n10.0.0.0/8 via 192.0.2.9 dev lan0 proto static metric 5 linkdown \n\
                blackhole 11.0.0.0/8 \nlocal default dev lo metric 1024 pref medium\ndefault dev wan0 scope link\n";
    let rules = Ok("0:\tfrom all lookup local\n".to_owned());
    let found =
        routing::judge(&config(), &[Routing { family: Family::V4, rules, routes: Ok(text.to_owned()) }]);
    let commands: Vec<&String> = found.iter().flat_map(|finding| &finding.commands).collect();
    assert_eq!(
        commands,
        [
            "ip -4 route del 10.0.0.0/8 via 192.0.2.9 dev lan0 metric 5 table 2525",
            "ip -4 route del blackhole 11.0.0.0/8 table 2525",
            "ip -4 route del default dev wan0 table 2525",
        ]
    );
}

#[test]
fn what_cant_be_read_is_said() {
    let missing = || Err(Unread::Missing { program: "ip", package: "iproute2" });
    let routing = Routing { family: Family::V4, rules: missing(), routes: missing() };
    let file = File { path: Path::new("m.toml"), text: TEXT };
    for found in [
        routing::judge(&config(), &[routing]),
        interfaces::judge(&config(), &file, &missing(), &HashMap::new()),
        interfaces::judge(&config(), &file, &Ok("no JSON".to_owned()), &HashMap::new()),
    ] {
        assert!(found.iter().all(|finding| finding.severity == Severity::Warning), "{found:?}");
        assert!(found.iter().all(|finding| finding.what.starts_with("not checked: ")), "{found:?}");
    }
}

#[test]
fn listeners_of_others() {
    let socket = |address: &str, port, owner: Option<&str>| Socket {
        address: address.parse().unwrap(),
        port,
        owner: owner.map(str::to_owned),
    };
    for (socket, expect) in [
        (socket("0.0.0.0", 80, Some("nginx (pid 1)")), None),
        (socket("0.0.0.0", 25, Some("mailguard (pid 1)")), None),
        (socket("::1", 10025, Some("mailguard-mail (pid 1)")), None),
        (socket("192.0.2.1", 10025, Some("other (pid 1)")), None),
        (socket("0.0.0.0", 10026, Some("other (pid 1)")), None),
        (socket("::", 10025, Some("other (pid 1)")), Some("proxy-port")),
        (socket("127.0.0.1", 10025, None), Some("proxy-port")),
        (socket("127.0.0.1", 25, Some("master (pid 1)")), Some("port-25")),
    ] {
        let found = ports::judge(&config(), std::slice::from_ref(&socket));
        assert_eq!(complaints(&found).first().map(|(check, _)| *check), expect, "{socket:?}");
    }
    let inactive =
        config::parse_and_validate(&Source::of_text("m.toml", TEXT.replace("\"active\"", "\"inactive\"")))
            .unwrap();
    let found = ports::judge(&inactive, &[socket("0.0.0.0", 25, Some("master (pid 1)"))]);
    assert_eq!(complaints(&found), [], "a transparent zone needs no port 25");
}

#[test]
fn sockets_as_the_kernel_lists_them() {
    let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0\n\
        1: 0100007F:0019 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0\n\
        2: 00000000000000000000000001000000:2729 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4713 1\n";
    assert_eq!(
        ports::listening(text),
        [("127.0.0.1".parse().unwrap(), 25, 4711), ("::1".parse().unwrap(), 10025, 4713)]
    );
}

#[test]
fn what_a_running_daemon_set_up_and_is_missing_is_an_error() {
    let running = |problems: &[&str]| {
        let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
        Daemon::Runs {
            alive: true,
            problems,
            serves: ["lan0", "wan0"].map(str::to_owned).into(),
            stand_in: None,
        }
    };
    // lan1 is there, but the daemon hasn't been told of it yet.
    let present = ["lo", "lan0", "lan1", "wan0"].map(str::to_owned);
    let rules = "25:\tfrom all fwmark 0x10000000/0x10000000 iif lan0 lookup 2525\n";
    let route = "local default dev lo scope host\n";
    let programs = |lan0: &[&str]| {
        let list =
            |programs: &[&str]| programs.iter().map(|program| (*program).to_owned()).collect::<Vec<_>>();
        HashMap::from([("lan0".to_owned(), list(lan0)), ("wan0".to_owned(), list(&["mg_steer"]))])
    };
    for (daemon, rules, route, lan0, expect) in [
        (running(&[]), rules, route, &["mg_steer"][..], &[][..]),
        (running(&[]), "", route, &["mg_steer"], &["policy-rule-missing"]),
        (running(&[]), rules, "", &["mg_steer"], &["policy-route-missing"]),
        (running(&[]), rules, route, &["other"], &["program-missing"]),
        (
            Daemon::Odd("it hangs".to_owned()),
            "",
            "",
            &[],
            &["policy-rule-missing", "policy-rule-missing", "policy-route-missing", "program-missing"],
        ),
        (
            running(&["kernel: the XDP program on lan0 is missing", "message 7: damaged"]),
            rules,
            route,
            &["mg_steer"],
            &["daemon-problem"],
        ),
        (Daemon::Down { attached: 0 }, "", "", &[], &[]),
    ] {
        let routing =
            Routing { family: Family::V4, rules: Ok(rules.to_owned()), routes: Ok(route.to_owned()) };
        let found = presence::judge(&config(), &daemon, &present, &[routing], Some(&programs(lan0)));
        let checks: Vec<&str> = complaints(&found).into_iter().map(|(check, _)| check).collect();
        assert_eq!(checks, expect, "{found:?}");
    }
}

#[test]
fn an_interface_is_known_by_any_of_its_names() {
    let links =
        Ok(r#"[{"ifname": "enp3s0", "altnames": ["lan0", "office"]}, {"ifname": "wan0"}]"#.to_owned());
    let config = interfaces::by_real_names(config(), &links);
    assert_eq!(interfaces_in(&config, ZoneMode::Transparent), ["enp3s0", "lan1"]);
    assert_eq!(interfaces_in(&config, ZoneMode::Active), ["wan0"]);
}
