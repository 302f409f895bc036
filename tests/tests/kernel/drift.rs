//! What others remove from the kernel under a running mailguard is put back, counted and said: rules, routes,
//! programs, pins. Judged by who answers the client.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use aya::programs::{Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use mailguard::datapath::{Hook, Occasion};
use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{BRIDGE, CLIENT4, CLIENT6, LAN, Namespace, SERVER4, SERVER6, Topology};
use mailguard_tests::peers::wait_until;
use mailguard_tests::programs::object;
use serde_json::Value;

use crate::firewall::{Answer, Firewall, Session, ZONES, hooks};
use crate::servers::Server;

#[track_caller]
fn check_served(firewall: &Firewall, what: &str) {
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4), "{what}");
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6), "{what}");
}

/// How often the firewall's status says that this was put back.
fn times(firewall: &Firewall, part: &str) -> u64 {
    firewall.status().mended.iter().find(|mended| mended.what == part).map_or(0, |mended| mended.times)
}

/// Removes something, which mends nothing yet; a look at everything does.
#[track_caller]
fn check_mended(firewall: &mut Firewall, part: &str, remove: impl FnOnce(&Firewall)) {
    remove(firewall);
    firewall.verify(Occasion::Look);
    assert_eq!(times(firewall, part), 1, "{part}: {:?}", firewall.status().mended);
    assert_eq!(firewall.problems(), [""; 0], "{part}");
    check_served(firewall, part);
    firewall.verify(Occasion::Look);
    assert_eq!(times(firewall, part), 1, "{part}: once");
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn host(firewall: &Firewall) -> &Namespace {
    &firewall.topology.firewall
}

fn pin(firewall: &Firewall, kind: &str) -> PathBuf {
    let line = host(firewall).ip_output(&format!("-o link show {LAN}")).unwrap();
    firewall.pin_dir().join("links").join(format!("{kind}-{}", line.split(':').next().unwrap()))
}

#[test]
fn rules_and_routes_that_others_remove_come_back() {
    let mut firewall = Firewall::new("");
    for (part, words) in [
        ("the IPv4 rule for lan0", "-4 rule del iif lan0 table 2525"),
        ("the IPv6 rule for lan0", "-6 rule del iif lan0 table 2525"),
        ("the IPv4 route of table 2525", "-4 route flush table 2525"),
        ("the IPv6 route of table 2525", "-6 route flush table 2525"),
    ] {
        check_mended(&mut firewall, part, |firewall| host(firewall).ip(words).unwrap());
    }
}

#[test]
fn lo_that_goes_down_is_a_problem_until_it_is_up_again() {
    let mut firewall = Firewall::new("");
    host(&firewall).ip("link set lo down").unwrap();
    firewall.verify(Occasion::Event);
    let problems = firewall.problems().join("\n");
    assert!(problems.contains("route"), "{problems}");
    host(&firewall).ip("link set lo up").unwrap();
    firewall.verify(Occasion::Event);
    assert_eq!(firewall.problems(), [""; 0]);
    assert_eq!(times(&firewall, "the IPv6 route of table 2525"), 1);
    check_served(&firewall, "lo is up again");
}

#[test]
fn programs_that_others_detach_come_back() {
    let mut firewall = Firewall::idle(&format!("{ZONES}[kernel]\nxdp = \"generic\"\n"));
    firewall.start();
    if hooks().contains(&Hook::Tcx) {
        check_mended(&mut firewall, "the TC program on lan0", |firewall| {
            std::fs::remove_file(pin(firewall, "tc")).unwrap();
        });
    }
    check_mended(&mut firewall, "the XDP program on lan0", |firewall| {
        std::fs::remove_file(pin(firewall, "xdp-generic")).unwrap();
    });
    check_mended(&mut firewall, "the socket look-up program", |firewall| {
        std::fs::remove_file(firewall.pin_dir().join("links/reconnect")).unwrap();
    });
}

#[test]
fn a_clsact_qdisc_or_a_filter_that_others_remove_comes_back() {
    let mut firewall = Firewall::idle(ZONES);
    firewall.start_on(Hook::Clsact);
    check_mended(&mut firewall, "the TC program on lan0", |firewall| {
        run(host(firewall).command("tc").args(["qdisc", "del", "dev", LAN, "clsact"]));
    });
    let filter = ["filter", "del", "dev", "wan0", "ingress"];
    check_mended(&mut firewall, "the TC program on wan0", |firewall| {
        run(host(firewall).command("tc").args(filter));
    });
}

/// Another program at the TCX hook of the client's interface, in front of all that are there.
fn overtake(firewall: &Firewall) -> (Ebpf, FdLink) {
    let attach = || {
        let mut ebpf = EbpfLoader::new().load(&std::fs::read(object())?)?;
        let name = ebpf
            .programs()
            .find(|(_, program)| matches!(program, Program::SchedClassifier(_)))
            .map(|(name, _)| name.to_owned())
            .expect("a TC program");
        let program: &mut SchedClassifier = ebpf.program_mut(&name).expect("it").try_into()?;
        program.load()?;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(LAN, TcAttachType::Ingress, first)?;
        let link = program.take_link(id)?.try_into()?;
        Ok((ebpf, link))
    };
    host(firewall).within(attach).unwrap()
}

#[test]
fn another_program_doesnt_stay_in_front_of_ours() {
    if !hooks().contains(&Hook::Tcx) {
        println!("this kernel has no TCX");
        return;
    }
    let mut firewall = Firewall::new("");
    let _other = overtake(&firewall);
    firewall.verify(Occasion::Look);
    assert_eq!(times(&firewall, "the first place of the TC program on lan0"), 1);
    assert_eq!(crate::lifecycle::programs(&firewall, LAN).len(), 2, "theirs is left alone");
    check_served(&firewall, "in front again");
    let _another = overtake(&firewall);
    firewall.stop();
    firewall.start();
    assert_eq!(times(&firewall, "the first place of the TC program on lan0"), 1, "a start does the same");
}

#[test]
fn pins_that_others_remove_come_back() {
    let mut firewall = Firewall::new("[bypass]\nfrom_ips = [\"192.0.2.3\"]\n");
    check_mended(&mut firewall, "the pin of the map CONFIG", |firewall| {
        let maps = std::fs::read_dir(firewall.pin_dir()).unwrap().flatten();
        let maps = maps.map(|entry| entry.path()).find(|path| path.join("CONFIG").exists()).unwrap();
        std::fs::remove_file(maps.join("CONFIG")).unwrap();
    });
    check_mended(&mut firewall, "the pin of the map BANS", |firewall| {
        std::fs::remove_dir_all(firewall.pin_dir()).unwrap();
    });
    firewall.stop();
    firewall.start();
    check_served(&firewall, "what is pinned is taken over");
}

#[test]
fn a_reload_mends_too() {
    let mut firewall = Firewall::new("");
    host(&firewall).ip("-4 route flush table 2525").unwrap();
    firewall.reload("");
    assert_eq!(times(&firewall, "the IPv4 route of table 2525"), 1);
    check_served(&firewall, "after a reload");
}

#[test]
fn an_interface_that_becomes_a_port_is_a_problem_until_it_leaves() {
    let mut firewall = Firewall::new("");
    host(&firewall).ip(&format!("link add {BRIDGE} type bridge")).unwrap();
    host(&firewall).ip(&format!("link set {LAN} master {BRIDGE}")).unwrap();
    assert!(firewall.follow_interfaces());
    let problems = firewall.problems().join("\n");
    assert!(
        problems.contains("lan0 (zone green)") && problems.contains("port of the bridge br0"),
        "{problems}"
    );
    host(&firewall).ip(&format!("link set {LAN} nomaster")).unwrap();
    assert!(firewall.follow_interfaces());
    assert_eq!(firewall.problems(), [""; 0]);
    check_served(&firewall, "it has left the bridge");
}

#[test]
fn an_interface_may_be_named_by_another_name_of_its() {
    let mut firewall = Firewall::idle(&ZONES.replace("lan0", "to-the-office-on-the-second-floor"));
    host(&firewall)
        .ip(&format!("link property add dev {LAN} altname to-the-office-on-the-second-floor"))
        .unwrap();
    firewall.start();
    assert_eq!(firewall.problems(), [""; 0]);
    check_served(&firewall, "by its other name");
}

/// The real program in a namespace, and what its status says.
fn with_program(work: impl FnOnce(&Topology, &Appliance<'_>)) {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let config = format!("hostname = \"mailguard.example.org\"\n{ZONES}");
    let appliance = Appliance::start(&place, &config).expect("mailguard runs");
    work(&topology, &appliance);
}

#[track_caller]
fn check_program_serves(topology: &Topology, what: &str) {
    for server in [IpAddr::from(SERVER4), SERVER6.into()] {
        let served = || {
            let session = Session::open(&topology.client, None, (server, 25).into());
            session.is_ok_and(|session| session.answer == Answer::Daemon)
        };
        wait_until(what, served).unwrap();
    }
}

#[test]
fn the_running_program_mends_and_says_so() {
    with_program(|topology, appliance| {
        check_program_serves(topology, "it serves");
        for words in ["-4 rule del table 2525", "-6 rule del table 2525", "-6 route flush table 2525"] {
            topology.firewall.ip(words).unwrap();
            check_program_serves(topology, words);
        }
        topology.firewall.ip("link set lo down").unwrap();
        topology.firewall.ip("link set lo up").unwrap();
        check_program_serves(topology, "lo went down and up");
        std::fs::remove_dir_all(appliance.pin_dir().join("links")).unwrap();
        let mended = |part: &str| {
            let status = appliance.json(&["status"]).unwrap();
            let mended = status["kernel"]["mended"].as_array().unwrap().clone();
            mended.iter().any(|row: &Value| row["what"] == part && row["times"].as_u64() > Some(0))
        };
        wait_until("nothing announces that", || mended("the socket look-up program")).unwrap();
        check_program_serves(topology, "the links are back");
        assert!(mended("the IPv4 rule for lan0") && mended("the IPv6 route of table 2525"));
        let log = appliance.log();
        assert!(log.contains("the IPv4 rule for lan0 was missing and has been put back"), "{log}");
    });
}

/// Announcements of the kernel within a second that a mailguard may cause, while another program undoes its
/// work each time.
const MAX_FIGHT: usize = 60;

#[test]
fn a_fight_with_another_program_is_slow() {
    with_program(|topology, appliance| {
        check_program_serves(topology, "it serves");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(8);
        let mut removed = 0;
        while std::time::Instant::now() < deadline {
            removed += usize::from(topology.firewall.ip("-4 rule del table 2525").is_ok());
        }
        assert!(removed > 0 && removed < MAX_FIGHT, "{removed}");
        assert!(appliance.log().contains("again and again"), "{}", appliance.log());
        check_program_serves(topology, "the other has given up");
    });
}

#[test]
fn a_flood_of_routes_in_other_tables_costs_nothing() {
    with_program(|topology, appliance| {
        let routes: String =
            (0..20_000).map(|n| format!("route add 10.{}.{}.0/24 dev wan0\n", n / 256, n % 256)).collect();
        let file = appliance.folder().join("routes");
        std::fs::write(&file, routes).unwrap();
        let used = || {
            let pid = appliance.process().unwrap().pid();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let before = used();
        run(topology.firewall.command("ip").arg("-batch").arg(&file));
        let ticks = used() - before;
        assert!(ticks < 100, "a second of processor time, at most: {ticks} ticks");
        check_program_serves(topology, "it serves");
    });
}
