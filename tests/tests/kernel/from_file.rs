//! `--from-file` on the real program: thousands of clients in one command, each of them kept out; or none.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use mailguard_tests::appliance::Appliance;
use mailguard_tests::frames::{Wire, ethernet, mac, syn};
use mailguard_tests::netns::{LAN, SERVER4, Topology};
use mailguard_tests::peers::wait_until;

use crate::firewall::ZONES;

/// Clients in the file.
const MANY: u32 = 5_000;

fn strangers() -> Vec<IpAddr> {
    (1..=MANY).map(|number| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number).into()).collect()
}

/// The entries of the clients' blacklist that were hit, and all of them.
fn hit_and_listed(appliance: &Appliance<'_>) -> (usize, usize) {
    let entries = appliance.json(&["blacklist", "list", "client"]).expect("the list");
    let entries = entries.as_array().expect("rows");
    let hit = entries.iter().filter(|entry| entry["packets"].as_u64() > Some(0)).count();
    (hit, entries.len())
}

#[test]
fn thousands_of_clients_from_a_file_are_each_kept_out_or_none() {
    let topology = Topology::new().expect("namespaces");
    let place = |program: &str| topology.firewall.command(program);
    let config = format!("hostname = \"mailguard.example.org\"\n{ZONES}");
    let appliance = Appliance::start(&place, &config).expect("mailguard runs");
    let strangers = strangers();
    let lines: Vec<String> = strangers.iter().map(ToString::to_string).collect();
    let file = appliance.folder().join("clients.txt");
    let path = file.to_str().expect("UTF-8");
    let before = fs::read_to_string(appliance.config()).expect("the configuration");

    let wrong = [&lines[..2_999], &["10.0.0.256".to_owned()], &lines[2_999..]].concat().join("\n");
    fs::write(&file, wrong).expect("written");
    let refused = appliance.cli(&["blacklist", "add", "client", "--from-file", path]).expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "one line is wrong");
    let expect = format!("{path}:3000: \"10.0.0.256\" is not accepted in access.blacklist_clients");
    assert!(said.contains(&expect), "{said}");
    assert_eq!(hit_and_listed(&appliance), (0, 0), "all or nothing");
    assert_eq!(fs::read_to_string(appliance.config()).expect("the configuration"), before);

    fs::write(&file, format!("# spammers\n{}\n", lines.join("\n"))).expect("written");
    let added = appliance.ok(&["blacklist", "add", "client", "--from-file", path]).expect("added");
    assert!(added.contains(&format!("added: {MANY} values of client")), "{added}");
    assert_eq!(hit_and_listed(&appliance), (0, MANY as usize));
    let wire = Wire::open(&topology.client, "eth0");
    let router = mac(&topology.firewall, LAN);
    let frame = |source: &IpAddr| ethernet(router, wire.mac, None, &syn(*source, 2_000, SERVER4.into()));
    wire.send_all(strangers.iter().map(frame));
    let counted = wait_until("each of them is counted", || hit_and_listed(&appliance).0 == strangers.len());
    counted.unwrap_or_else(|error| panic!("{error}: {:?}", hit_and_listed(&appliance)));

    appliance.ok(&["blacklist", "remove", "client", "--from-file", path]).expect("removed");
    assert_eq!(hit_and_listed(&appliance), (0, 0));
}
