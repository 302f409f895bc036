//! `mailguard doctor` on machines that are set up wrongly: it finds what is wrong, interception fails indeed,
//! and the very command that it prints mends it.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use mailguard_tests::appliance::{Appliance, is_of_this_machine};
use mailguard_tests::netns::{
    FIREWALL4, FIREWALL4_WAN, LAN, Namespace, SERVER4, SERVER6, Topology, WAN, port25,
};
use mailguard_tests::peers::wait_until;
use serde_json::Value;

/// How long a client waits for a greeting: time for one retransmission.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A transparent zone towards the client, on this interface.
pub(crate) fn transparent(interface: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{interface}\"]\nmode = \"transparent\"\n[delivery]\ndefault = \"original\"\n"
    )
}

/// What the doctor found, ok or not, and whether it failed.
fn report(appliance: &Appliance<'_>) -> (Vec<Value>, bool) {
    let output = appliance.cli(&["doctor", "--json"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {complaint}"));
    let mut findings = report["findings"].as_array().unwrap().clone();
    findings.retain(|finding| !is_of_this_machine(finding["what"].as_str().unwrap_or_default()));
    (findings, !output.status.success())
}

/// The errors and warnings.
pub(crate) fn complaints(appliance: &Appliance<'_>) -> Vec<Value> {
    report(appliance).0.into_iter().filter(|finding| finding["severity"] != "ok").collect()
}

/// The complaint of this check, which must be the only one.
#[track_caller]
fn only_complaint(appliance: &Appliance<'_>, check: &str, severity: &str) -> Value {
    let complaints = complaints(appliance);
    assert_eq!(complaints.len(), 1, "{check}: {complaints:#?}");
    let found = complaints.into_iter().next().unwrap();
    assert_eq!(
        (found["check"].as_str(), found["severity"].as_str()),
        (Some(check), Some(severity)),
        "{found}"
    );
    found
}

pub(crate) fn shell(place: &Namespace, command: &str) {
    let output = place.command("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Types what the finding says.
pub(crate) fn mend(place: &Namespace, finding: &Value) {
    let commands = finding["commands"].as_array().unwrap();
    assert!(!commands.is_empty(), "{finding}");
    for command in commands {
        shell(place, command.as_str().unwrap());
    }
}

/// Whether mailguard answers the client that dials port 25 of `destination`.
pub(crate) fn intercepted(topology: &Topology, destination: impl Into<IpAddr>) -> bool {
    let address = port25(destination).parse().unwrap();
    let dial = || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut greeting = String::new();
        BufReader::new(stream).read_line(&mut greeting)?;
        Ok(greeting)
    };
    topology.client.within(dial).is_ok_and(|greeting: String| greeting.contains("mailguard.example.test"))
}

#[test]
fn a_machine_that_is_set_up_well_has_no_complaints() {
    let topology = Topology::new().unwrap();
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &transparent(LAN)).unwrap();
    assert_eq!(complaints(&appliance), Vec::<Value>::new(), "before the first start");
    appliance.run().unwrap();
    let state = || {
        topology.firewall.ip_output("rule show").unwrap() + &topology.firewall.ip_output("-d link").unwrap()
    };
    let before = state();
    let (findings, failed) = report(&appliance);
    assert!(findings.iter().all(|finding| finding["severity"] == "ok") && !failed, "{findings:#?}");
    let checks: Vec<&str> = findings.iter().filter_map(|finding| finding["check"].as_str()).collect();
    for check in
        ["daemon", "kernel", "capabilities", "programs", "interface", "policy-routing", "firewall", "port-25"]
    {
        assert!(checks.contains(&check), "{check} is looked at: {checks:?}");
    }
    assert_eq!(state(), before, "nothing was changed");
    assert!(intercepted(&topology, SERVER4));

    topology.firewall.sysctl("net.ipv4.ip_forward", "0").unwrap();
    let finding = only_complaint(&appliance, "forwarding", "warning");
    assert!(!report(&appliance).1, "a warning is no failure");
    mend(&topology.firewall, &finding);
    assert_eq!(complaints(&appliance), Vec::<Value>::new());

    appliance.kill().unwrap();
    let finding = only_complaint(&appliance, "daemon", "warning");
    assert!(finding["why"].as_str().unwrap().contains("no new connection to port 25 gets through"));
}

/// A firewall that breaks interception: how it is set up, how the finding is called, how it is removed.
struct Broken {
    setup: &'static str,
    check: &'static str,
    removal: &'static str,
}

const FLUSH: &str = "nft flush ruleset";

/// Each was tried: without the remedy the client gets no greeting.
const BROKEN: &[Broken] = &[
    Broken {
        setup: "nft 'table inet f { chain in { type filter hook input priority 0; policy drop; }; }'",
        check: "input-firewall",
        removal: FLUSH,
    },
    Broken {
        setup: "nft 'table inet f { chain rest { reject with icmpx port-unreachable; }; \
                chain in { type filter hook input priority 0; ct state vmap { established : accept, \
                related : accept }; iif lo accept; tcp dport 22 accept; goto rest; }; }'",
        check: "input-firewall",
        removal: FLUSH,
    },
    Broken {
        setup: "nft 'table ip raw { chain pre { type filter hook prerouting priority raw; \
                iifname \"lan*\" tcp dport { 25, 465 } drop; }; }'",
        check: "input-firewall",
        removal: FLUSH,
    },
    Broken {
        setup: "nft 'table ip m { chain pre { type filter hook prerouting priority mangle; \
                meta mark set ct mark; }; }'",
        check: "firewall-mark",
        removal: FLUSH,
    },
    Broken {
        setup: "nft 'table ip m { chain pre { type filter hook prerouting priority mangle; \
                meta mark set meta mark and 0xff or 0x1; }; }'",
        check: "firewall-mark",
        removal: FLUSH,
    },
    Broken {
        setup: "nft 'table ip n { chain pre { type nat hook prerouting priority dstnat; \
                tcp dport 25 dnat to 198.51.100.77; }; }'",
        check: "firewall-redirect",
        removal: FLUSH,
    },
    Broken {
        setup: "iptables-legacy -P INPUT DROP",
        check: "input-firewall",
        removal: "iptables-legacy -P INPUT ACCEPT; iptables-legacy -F",
    },
    Broken {
        setup: "iptables-nft -t mangle -A PREROUTING -m comment --comment 'of the router' \
                -j CONNMARK --restore-mark",
        check: "firewall-mark",
        removal: FLUSH,
    },
];

#[test]
fn a_firewall_that_breaks_interception_is_mended_by_the_printed_command() {
    let topology = Topology::new().unwrap();
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    for Broken { setup, check, removal } in BROKEN {
        shell(&topology.firewall, setup);
        assert!(!intercepted(&topology, SERVER4), "{setup}: breaks it");
        let finding = only_complaint(&appliance, check, "error");
        assert!(report(&appliance).1, "an error is a failure");
        mend(&topology.firewall, &finding);
        assert_eq!(complaints(&appliance), Vec::<Value>::new(), "{setup}: mended by {}", finding["commands"]);
        assert!(intercepted(&topology, SERVER4), "{setup}: mended by {}", finding["commands"]);
        shell(&topology.firewall, removal);
        assert!(intercepted(&topology, SERVER4), "without a firewall");
    }
}

#[test]
fn rules_that_leave_interception_alone_are_no_errors() {
    let topology = Topology::new().unwrap();
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    for setup in [
        "nft 'table inet f { chain in { type filter hook input priority 0; policy drop; \
         iifname lan0 meta mark and 0x10000000 == 0x10000000 accept; }; }'",
        "nft 'table inet f { chain in { type filter hook input priority 0; ip saddr 203.0.113.0/24 drop; }; }'",
        "nft 'table ip m { chain pre { type filter hook prerouting priority mangle; \
         meta mark set meta mark or 0x1; }; }'",
        "iptables-nft -t mangle -A PREROUTING -j CONNMARK --restore-mark --mask 0xff",
        "nft 'table ip n { chain pre { type nat hook prerouting priority dstnat; \
         iifname wan0 tcp dport 25 dnat to 192.0.2.9; tcp dport 80 redirect to :8080; }; }'",
    ] {
        shell(&topology.firewall, setup);
        assert!(intercepted(&topology, SERVER4), "{setup}: intercepted all the same");
        assert_eq!(complaints(&appliance), Vec::<Value>::new(), "{setup}");
        shell(&topology.firewall, FLUSH);
    }
}

#[test]
fn rules_and_routes_in_our_way_are_mended_by_the_printed_command() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    // Before the daemon starts: of two rules with one priority the older comes first.
    place.ip(&format!("route add default via {SERVER4} dev {WAN} table 100")).unwrap();
    place.ip(&format!("rule add iif {LAN} priority 25 lookup 100")).unwrap();
    let firewall = |program: &str| place.command(program);
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    assert!(!intercepted(&topology, SERVER4), "the foreign rule breaks it");
    mend(place, &only_complaint(&appliance, "policy-rule", "error"));
    assert_eq!(complaints(&appliance), Vec::<Value>::new());
    assert!(intercepted(&topology, SERVER4));
    assert!(
        place.ip_output("rule show").unwrap().contains("26:\tfrom all iif lan0 lookup 100"),
        "moved, not lost"
    );

    for (destination, route) in [
        (IpAddr::from(SERVER4), format!("-4 route add {SERVER4}/32 via {SERVER4} dev {WAN} table 2525")),
        (SERVER6.into(), format!("-6 route add {SERVER6}/128 via {SERVER6} dev {WAN} table 2525")),
    ] {
        place.ip(&route).unwrap();
        assert!(!intercepted(&topology, destination), "{route}: breaks it");
        mend(place, &only_complaint(&appliance, "policy-table", "error"));
        assert_eq!(complaints(&appliance), Vec::<Value>::new());
        assert!(intercepted(&topology, destination));
    }
}

#[test]
fn interfaces_that_packets_dont_come_in_by_are_found() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let mut appliance = Appliance::prepare(&firewall, &transparent("lan7")).unwrap();
    let missing = only_complaint(&appliance, "interface-missing", "warning");
    assert!(missing["what"].as_str().unwrap().contains(LAN), "says which there are: {missing}");

    appliance.write_config(&transparent(LAN)).unwrap();
    place.ip(&format!("link set {LAN} down")).unwrap();
    mend(place, &only_complaint(&appliance, "interface-down", "error"));
    assert_eq!(complaints(&appliance), Vec::<Value>::new());

    place.ip("link add br0 type bridge").unwrap();
    place.ip("link set br0 up").unwrap();
    place.ip(&format!("address flush dev {LAN}")).unwrap();
    place.ip(&format!("link set {LAN} master br0")).unwrap();
    place.ip(&format!("address add {FIREWALL4}/24 dev br0")).unwrap();
    mend(place, &only_complaint(&appliance, "interface-member", "error"));
    assert_eq!(complaints(&appliance), Vec::<Value>::new(), "the bridge is named in place of its port");
    appliance.run().unwrap();
    wait_until("mail is intercepted on the bridge", || intercepted(&topology, SERVER4)).unwrap();

    place.ip("link add spare0 type veth peer name spare1").unwrap();
    place.ip("link set spare0 master br0").unwrap();
    only_complaint(&appliance, "interface-bridge", "warning");
}

#[test]
fn ports_that_others_have_are_found_with_their_owner() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let active = transparent(LAN)
        + &format!("[[zone]]\nname = \"red\"\nkind = \"red\"\ninterfaces = [\"{WAN}\"]\nmode = \"active\"\n");
    let mut appliance = Appliance::prepare(&firewall, &active).unwrap();
    for (address, check, severity) in
        [("127.0.0.1:10025", "proxy-port", "warning"), ("127.0.0.1:25", "port-25", "error")]
    {
        let other = place.within(|| Ok(TcpListener::bind(address)?)).unwrap();
        let finding = only_complaint(&appliance, check, severity);
        let what = finding["what"].as_str().unwrap();
        assert!(what.contains(address) && what.contains(&format!("(pid {})", std::process::id())), "{what}");
        match severity {
            "error" => {
                let refused = appliance.run().expect_err("the daemon doesn't start indeed");
                assert!(refused.to_string().contains("Address already in use"), "{refused}");
            }
            _ => {
                appliance.run().expect("the daemon starts on another port indeed");
                appliance.stop().unwrap();
                appliance.ok(&["unload"]).unwrap();
            }
        }
        drop(other);
        assert_eq!(complaints(&appliance), Vec::<Value>::new());
    }
    appliance.run().unwrap();
    assert_eq!(complaints(&appliance), Vec::<Value>::new(), "our own listeners are no others'");
    shell(
        place,
        "nft 'table inet f { chain in { type filter hook input priority 0; policy drop; \
         meta mark and 0x10000000 == 0x10000000 accept; }; }'",
    );
    let from_server = || {
        let dial = || Ok(TcpStream::connect_timeout(&port25(FIREWALL4_WAN).parse()?, PATIENCE)?);
        topology.server.within(dial).is_ok()
    };
    assert!(!from_server(), "the active zone is cut off");
    mend(place, &only_complaint(&appliance, "input-firewall", "error"));
    assert_eq!(complaints(&appliance), Vec::<Value>::new());
    assert!(from_server());
}

#[test]
fn an_interface_on_a_zones_interface_that_no_zone_names_is_found() {
    let topology = Topology::new().unwrap();
    let place = &topology.firewall;
    let firewall = |program: &str| place.command(program);
    let appliance = Appliance::start(&firewall, &transparent(LAN)).unwrap();
    // Each answers for its own address only.
    place.sysctl(&format!("net.ipv4.conf.{LAN}.arp_ignore"), "1").unwrap();
    place.ip(&format!("link add link {LAN} name over0 type macvlan mode private")).unwrap();
    place.ip("address add 192.0.2.9/24 dev over0").unwrap();
    place.ip("link set over0 up").unwrap();
    assert!(intercepted(&topology, SERVER4));
    topology.client.ip("route replace default via 192.0.2.9").unwrap();
    assert!(!intercepted(&topology, SERVER4), "what comes in by the overlay passes by");
    mend(place, &only_complaint(&appliance, "interface-overlay", "warning"));
    appliance.ok(&["reload"]).unwrap();
    assert_eq!(complaints(&appliance), Vec::<Value>::new());
    assert!(intercepted(&topology, SERVER4));

    place.ip(&format!("link add tunnel0 type vxlan id 7 dev {LAN} dstport 4789 remote 192.0.2.2")).unwrap();
    mend(place, &only_complaint(&appliance, "interface-overlay", "warning"));
    place.ip("link set tunnel0 up").unwrap();
    assert_eq!(complaints(&appliance), Vec::<Value>::new());
    place.ip("link property add dev over0 altname office").unwrap();
    let config = std::fs::read_to_string(appliance.config()).unwrap();
    std::fs::write(appliance.config(), config.replace("\"over0\"", "\"office\"")).unwrap();
    assert_eq!(complaints(&appliance), Vec::<Value>::new(), "known by its other name");
}
