//! Bans by the real program: for errors and by hand, kept over restarts and starts of the machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT6, FIREWALL4, FIREWALL6, LAN, Topology};
use mailguard_tests::peers::wait_until;
use serde_json::Value;

/// Errors that a session may have.
const ALLOWED: usize = 2;
/// The network of the client's IPv6 address.
const NETWORK6: &str = "2001:db8:1::/64";
/// How long a client waits for a connection: time for one retransmission.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The client's side is the uplink.
fn config(more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[server]\nhard_error_limit = {ALLOWED}\n[[zone]]\nname = \"red\"\n\
         kind = \"red\"\ninterfaces = [\"{LAN}\"]\nmode = \"active\"\n{more}\n"
    )
}

fn with_appliance(more: &str, work: impl FnOnce(&Topology, &mut Appliance<'_>)) {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &config(more)).expect("mailguard runs");
    work(&topology, &mut appliance);
}

/// The port that the client dials.
fn target(six: bool) -> SocketAddr {
    let address: IpAddr = if six { FIREWALL6.into() } else { FIREWALL4.into() };
    (address, 25).into()
}

fn connect(topology: &Topology, six: bool) -> Option<BufReader<TcpStream>> {
    let dial = || Ok(TcpStream::connect_timeout(&target(six), PATIENCE).ok());
    topology.client.within(dial).expect("in the client's namespace").map(BufReader::new)
}

fn let_in(topology: &Topology, six: bool) -> bool {
    connect(topology, six).is_some_and(|mut stream| {
        let mut line = String::new();
        stream.read_line(&mut line).is_ok_and(|_| line.starts_with("220 "))
    })
}

/// Makes one error more than allowed; returns the last reply.
fn abuse(topology: &Topology, six: bool) -> String {
    let mut stream = connect(topology, six).expect("a connection");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a greeting");
    for _ in 0..=ALLOWED {
        stream.get_mut().write_all(b"NONSENSE\r\n").expect("sent");
        line.clear();
        stream.read_line(&mut line).expect("a reply");
    }
    // Closed by the other side when everything is done about it.
    stream.read_line(&mut String::new()).expect("the end");
    line
}

fn bans(appliance: &Appliance<'_>) -> Vec<Value> {
    appliance.json(&["ban", "list"]).expect("a list").as_array().expect("an array").clone()
}

fn clients(appliance: &Appliance<'_>) -> Vec<String> {
    bans(appliance).iter().map(|ban| ban["client"].as_str().expect("an address").to_owned()).collect()
}

fn fails(appliance: &Appliance<'_>, arguments: &[&str], why: &str) {
    let output = appliance.cli(arguments).expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
}

#[test]
fn a_red_client_with_too_many_errors_is_banned_and_stays_so() {
    with_appliance("", |topology, appliance| {
        for six in [false, true] {
            let last = abuse(topology, six);
            assert!(last.starts_with("421 "), "{last}");
            assert!(!let_in(topology, six), "banned");
        }
        for ban in bans(appliance) {
            assert_eq!(ban["reason"], "3 errors in a session, 2 allowed");
            let left = ban["seconds_left"].as_u64().expect("a time");
            assert!(left <= 3_600 && left > 3_000, "{ban}");
            assert!(ban["packets"].as_u64() >= Some(1) && ban["last"].is_string(), "{ban}");
        }
        let both = [CLIENT4.to_string(), NETWORK6.to_owned()];
        assert_eq!(clients(appliance), both);

        appliance.stop().expect("it stops");
        appliance.run().expect("it runs again");
        assert_eq!(clients(appliance), both, "after a restart");
        assert!(!let_in(topology, false) && !let_in(topology, true), "after a restart");

        // A start of the machine: the kernel has forgotten everything.
        appliance.stop().expect("it stops");
        appliance.ok(&["unload"]).expect("unloaded");
        assert!(!appliance.pin_dir().exists());
        appliance.run().expect("it runs again");
        assert!(!let_in(topology, false) && !let_in(topology, true), "after a reboot");
        assert!(bans(appliance).iter().all(|ban| ban["packets"].as_u64() >= Some(1)), "counted anew");

        appliance.ok(&["ban", "lift", &both[0]]).expect("lifted");
        assert!(let_in(topology, false) && !let_in(topology, true));
        appliance.ok(&["ban", "lift", "--all"]).expect("lifted");
        assert!(let_in(topology, true));
        assert_eq!(appliance.ok(&["ban", "list"]).expect("a list"), "nobody is banned\n");
    });
}

#[test]
fn whitelisted_clients_are_never_banned() {
    let white = format!("[access]\nwhitelist_clients = [\"{CLIENT4}\"]\n");
    with_appliance(&white, |topology, appliance| {
        abuse(topology, false);
        assert!(let_in(topology, false));
        assert!(appliance.log().contains("a whitelisted client isn't banned"), "{}", appliance.log());
        let (one, other) = (CLIENT4.to_string(), CLIENT4_SECOND.to_string());
        fails(appliance, &["ban", "add", &other, &one], "whitelist_clients");
        assert_eq!(clients(appliance), Vec::<String>::new(), "all or nobody");

        abuse(topology, true);
        assert!(!let_in(topology, true));
        let more = format!("[access]\nwhitelist_clients = [\"{CLIENT6}\"]\n");
        appliance.write_config(&config(&more)).expect("written");
        appliance.ok(&["reload"]).expect("reloaded");
        assert!(let_in(topology, true), "though others of its network are banned");
        assert_eq!(clients(appliance), [NETWORK6]);
        let network = format!("[access]\nwhitelist_clients = [\"{NETWORK6}\"]\n");
        appliance.write_config(&config(&network)).expect("written");
        appliance.ok(&["reload"]).expect("reloaded");
        wait_until("nobody is banned", || clients(appliance).is_empty()).expect("lifted");
        assert!(let_in(topology, true));
        fails(appliance, &["ban", "add", NETWORK6], "whitelist_clients");
    });
}

#[test]
fn bans_by_hand_end_by_themselves_and_are_never_shortened() {
    with_appliance("[kernel]\nban_after_abuse = \"0s\"\n", |topology, appliance| {
        abuse(topology, false);
        assert!(let_in(topology, false), "0s bans nobody");

        let (one, other) = (CLIENT4.to_string(), CLIENT4_SECOND.to_string());
        let in_ipv6_clothes = CLIENT4.to_ipv6_mapped().to_string();
        appliance
            .ok(&["ban", "add", &in_ipv6_clothes, "--for", "3s", "--reason", "too loud"])
            .expect("banned");
        let list = bans(appliance);
        assert_eq!(
            (&list[0]["client"], &list[0]["reason"]),
            (&Value::from(one.as_str()), &"too loud".into())
        );
        wait_until("the ban ends", || let_in(topology, false)).expect("it ends");
        wait_until("the ban isn't listed", || bans(appliance).is_empty()).expect("it ends");

        appliance.ok(&["ban", "add", &one, &other]).expect("banned");
        appliance.ok(&["ban", "add", &one, "--for", "1m"]).expect("banned");
        assert!(bans(appliance).iter().all(|ban| ban["seconds_left"].as_u64() > Some(3_000)));
        appliance.ok(&["ban", "add", "2001:db8:9::1", "2001:db8:9::2", "2001:db8:9:1::"]).expect("banned");
        assert_eq!(clients(appliance)[2..], ["2001:db8:9::/64", "2001:db8:9:1::/64"]);
        appliance.ok(&["ban", "lift", "2001:db8:9::/64", "2001:db8:9:1::7"]).expect("lifted");
        fails(appliance, &["ban", "lift", &one, "203.0.113.77"], "203.0.113.77: not banned");
        assert_eq!(clients(appliance), [one.as_str(), &other], "all or nothing");
        fails(appliance, &["ban", "add", &one, "--for", "0s"], "1s to 365d");
        fails(appliance, &["ban", "add", &one, "--for", "soon"], "a duration like");
    });
}
