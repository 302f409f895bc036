//! Start, death, restart, removal: what holds when no process is there, and what is taken over.

use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, MapData};
use aya::programs::{SchedClassifier, TcAttachType};
use mailguard::datapath::{Hook, TcAttachment};
use mailguard_common::maps::ABI;
use mailguard_tests::netns::{
    CLIENT4, CLIENT4_SECOND, CLIENT6, FIREWALL6, FIREWALL6_WAN, LAN, SERVER4, SERVER6, WAN,
};

use crate::firewall::{Answer, Firewall, hooks};

const BLACKLISTED: &str = "[access]\nblacklist_clients = [\"192.0.2.3\"]\n";

#[test]
fn without_a_proxy_new_connections_follow_on_proxy_down() {
    for (mode, answer4, answer6) in [
        ("block", Answer::Nobody, Answer::Nobody),
        ("bypass", Answer::server(CLIENT4), Answer::server(CLIENT6)),
    ] {
        let settings = format!("[kernel]\non_proxy_down = \"{mode}\"\n{BLACKLISTED}");
        let mut firewall = Firewall::new(&settings);
        let check = |firewall: &Firewall, what: &str| {
            assert_eq!(firewall.dial(SERVER4), answer4, "{mode}: {what}");
            assert_eq!(firewall.dial(SERVER6), answer6, "{mode}: {what}");
            assert_eq!(
                firewall.dial_from(CLIENT4_SECOND, SERVER4),
                Answer::Nobody,
                "{mode}: {what}: blacklist"
            );
        };
        firewall.silence();
        firewall.datapath().proxy_down().unwrap();
        check(&firewall, "told");
        firewall.revive();
        assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4), "{mode}: back");

        firewall.kill_proxy();
        check(&firewall, "the listeners are gone");
        firewall.stop();
        check(&firewall, "the datapath process is gone too");
    }
}

#[test]
fn a_proxy_that_hangs_is_noticed_by_its_silence() {
    let mut firewall = Firewall::new("[kernel]\non_proxy_down = \"bypass\"\n");
    let mut session = firewall.session(SERVER4);
    firewall.silence();
    std::thread::sleep(Duration::from_millis(3_200));
    assert_eq!(firewall.dial(SERVER4), Answer::server(CLIENT4));
    assert!(!firewall.status().proxy_alive);
    assert!(session.alive(), "what is open stays with the proxy");
    firewall.revive();
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
}

#[test]
fn a_restart_takes_over_programs_rules_counters_and_flows() {
    let mut firewall = Firewall::new(BLACKLISTED);
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::Nobody);
    let mut session = firewall.session(SERVER4);
    let dropped = firewall.packets("blacklist-dropped");
    let links = links(firewall.pin_dir());
    assert!(dropped > 0);

    firewall.stop();
    assert!(session.alive(), "while nobody is there");
    firewall.start();
    assert!(session.alive(), "after the restart");
    assert_eq!(firewall.packets("blacklist-dropped"), dropped);
    assert_eq!(firewall.rule_packets("blacklist client", "192.0.2.3"), dropped);
    assert_eq!(links, self::links(firewall.pin_dir()), "the same links, with the new program");
    assert_eq!(programs(&firewall, LAN).len() + filters(&firewall, LAN).matches("handle").count(), 1);
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::Nobody);
}

#[test]
fn a_restart_mends_what_is_missing_and_drops_what_is_left_over() {
    let mut firewall = Firewall::new("");
    let interface =
        |name: &str| firewall.topology.firewall.ip_output(&format!("-o link show {name}")).unwrap();
    let index = |line: String| line.split(':').next().unwrap().to_owned();
    let (lan, wan) = (index(interface(LAN)), index(interface(WAN)));
    let pin = |index: &str| firewall.pin_dir().join("links").join(format!("tc-{index}"));
    // As if the pin had been removed by hand, and as if an earlier run had had another interface.
    std::fs::remove_file(pin(&lan)).unwrap();
    std::fs::rename(pin(&wan), pin("4711")).unwrap();
    firewall.start();
    let names: Vec<String> = links(firewall.pin_dir()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [format!("tc-{lan}"), format!("tc-{wan}")]);
    assert_eq!(programs(&firewall, LAN).len(), 1);
    assert_eq!(programs(&firewall, WAN).len(), 1);
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
}

/// Deletes the firewall's interface towards the client.
fn unplug(firewall: &Firewall) {
    firewall.topology.firewall.ip(&format!("link del {LAN}")).unwrap();
}

#[test]
fn an_interface_that_came_anew_is_served_after_a_restart() {
    let mut firewall = Firewall::new("");
    unplug(&firewall);
    firewall.topology.plug_client().unwrap();
    firewall.start();
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
}

#[test]
fn interfaces_come_and_go_under_a_running_firewall() {
    let problem = |firewall: &Firewall| {
        firewall.status().interfaces.iter().find(|i| i.name == LAN).unwrap().problem.clone()
    };
    for hook in crate::firewall::hooks() {
        let mut firewall = Firewall::idle(crate::firewall::ZONES);
        unplug(&firewall);
        firewall.start_on(hook);
        assert_eq!(problem(&firewall).as_deref(), Some("there is no such interface now"), "{hook:?}");
        assert!(!firewall.follow_interfaces(), "{hook:?}: nothing has changed");
        for what in ["it comes", "it comes anew"] {
            firewall.topology.plug_client().unwrap();
            assert!(firewall.follow_interfaces(), "{hook:?}: {what}");
            assert_eq!(problem(&firewall), None, "{hook:?}: {what}");
            assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4), "{hook:?}: {what}");
            assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6), "{hook:?}: {what}");
            unplug(&firewall);
            assert!(firewall.follow_interfaces(), "{hook:?}: it goes");
            let links = links(firewall.pin_dir());
            assert!(links.len() <= 1, "{hook:?}: of the interface that went nothing stays: {links:?}");
        }
    }
}

#[test]
fn ipv6_may_come_and_go_under_a_running_firewall() {
    let mut firewall = Firewall::idle(crate::firewall::ZONES);
    let disable = |firewall: &Firewall, yes: &str| {
        firewall.topology.firewall.sysctl("net.ipv6.conf.all.disable_ipv6", yes).unwrap();
    };
    disable(&firewall, "1");
    firewall.start();
    for _ in 0..2 {
        assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
        disable(&firewall, "0");
        for (address, interface) in [(FIREWALL6, LAN), (FIREWALL6_WAN, WAN)] {
            let words = format!("address replace {address}/64 dev {interface} nodad");
            firewall.topology.firewall.ip(&words).unwrap();
        }
        assert!(firewall.follow_interfaces(), "it comes");
        assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
        disable(&firewall, "1");
        assert!(firewall.follow_interfaces(), "it goes");
        firewall.close_unwanted();
        firewall.reload("");
    }
}

#[test]
fn maps_of_another_shape_are_never_used() {
    let mut firewall = Firewall::idle(crate::firewall::ZONES);
    firewall.start();
    let stats = firewall.pin_dir().join(format!("abi-{ABI}/STATS"));
    firewall.stop();
    std::fs::remove_file(&stats).unwrap();
    let other: Array<MapData, u64> = Array::create(4, 0).unwrap();
    other.pin(&stats).unwrap();
    firewall.start();
    assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4));
    assert_eq!(firewall.packets("intercepted"), 1);
    let folders = || entries(firewall.pin_dir()).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(
        folders(),
        [format!("abi-{ABI}-2"), "links".to_owned()],
        "a new folder, and the old one is gone"
    );
}

#[test]
fn unloading_leaves_nothing() {
    for hook in hooks() {
        let mut firewall = Firewall::idle(&format!("{}[kernel]\nxdp = \"native\"\n", crate::firewall::ZONES));
        firewall.start_on(hook);
        assert_eq!(firewall.dial(SERVER4), Answer::intercepted(CLIENT4, SERVER4), "{hook:?}");
        let rules = |family: &str| firewall.topology.firewall.ip_output(&format!("{family} rule")).unwrap();
        assert!(rules("-4").contains("iif lan0 lookup 2525"), "{}", rules("-4"));
        assert!(rules("-6").contains("iif lan0 lookup 2525"), "{}", rules("-6"));

        let removed = firewall.unload();
        assert_eq!((removed.programs, removed.maps, removed.routes), (5, 24, 4), "{hook:?}");
        let host = &firewall.topology.firewall;
        for family in ["-4", "-6"] {
            assert!(!host.ip_output(&format!("{family} rule")).unwrap().contains("2525"));
            assert_eq!(host.ip_output(&format!("{family} route show table 2525")).unwrap(), "");
        }
        for interface in [LAN, WAN] {
            assert_eq!(programs(&firewall, interface), [] as [u32; 0], "{hook:?}");
            assert_eq!(filters(&firewall, interface), "", "{hook:?}");
            assert!(!host.ip_output(&format!("link show {interface}")).unwrap().contains("xdp"));
        }
        assert!(!firewall.pin_dir().exists());
        assert_eq!(firewall.dial(SERVER4), Answer::server(CLIENT4), "{hook:?}");
        assert_eq!(firewall.unload(), mailguard::datapath::Unloaded::default(), "again: nothing to do");
    }
}

#[test]
fn kernels_without_tcx_use_clsact_and_swap_there_too() {
    let mut firewall = Firewall::idle(&format!("{}{BLACKLISTED}", crate::firewall::ZONES));
    firewall.start_on(Hook::Clsact);
    let mut sessions = [firewall.session(SERVER4), firewall.session(SERVER6)];
    firewall.stop();
    firewall.start_on(Hook::Clsact);
    assert!(sessions.iter_mut().all(|session| session.alive()));
    assert_eq!(filters(&firewall, LAN).matches("handle").count(), 1, "{}", filters(&firewall, LAN));
    assert_eq!(programs(&firewall, LAN), [] as [u32; 0]);
    assert_eq!(firewall.dial(SERVER6), Answer::intercepted(CLIENT6, SERVER6));
    assert_eq!(firewall.dial_from(CLIENT4_SECOND, SERVER4), Answer::Nobody);
    let status = firewall.status();
    assert!(status.interfaces.iter().all(|interface| interface.tc == TcAttachment::Clsact));
}

/// The TCX programs of an interface of the firewall: none where the kernel knows no such thing.
pub(crate) fn programs(firewall: &Firewall, interface: &str) -> Vec<u32> {
    if !hooks().contains(&Hook::Tcx) {
        return Vec::new();
    }
    let query = || Ok(SchedClassifier::query_tcx(interface, TcAttachType::Ingress)?);
    let (_, programs) = firewall.topology.firewall.within(query).unwrap();
    programs.iter().map(|program| program.id()).collect()
}

/// The clsact filters of an interface of the firewall.
pub(crate) fn filters(firewall: &Firewall, interface: &str) -> String {
    let output = firewall
        .topology
        .firewall
        .command("tc")
        .args(["filter", "show", "dev", interface, "ingress"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Names and inodes of the pinned TC and XDP links, in order; the socket look-up's can't be swapped.
fn links(pin_dir: &Path) -> Vec<(String, u64)> {
    entries(&pin_dir.join("links")).into_iter().filter(|(name, _)| name != "reconnect").collect()
}

fn entries(folder: &Path) -> Vec<(String, u64)> {
    use std::os::unix::fs::DirEntryExt;
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.ino())
    };
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(entry).collect();
    entries.sort();
    entries
}
