//! What an administrator orders at the command line, and a dead server beside one that works.

use mailguard_tests::netns::{FIREWALL4, SERVER4, port25};
use mailguard_tests::peers::open_folder;
use mailguard_tests::peers::postfix::Postfix;
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};

use super::*;

fn domains() -> String {
    config(&format!(
        "[[incoming_domain]]\ndomain = \"alive.example.test\"\nserver = \"{SERVER4}\"\n\
         [[incoming_domain]]\ndomain = \"dead.example.test\"\nserver = \"{SERVER4}:2599\"\n\
         [delivery]\nretry_min = \"1h\"\n"
    ))
}

fn listed(appliance: &Appliance<'_>) -> Vec<Value> {
    appliance.json(&["queue", "list"]).expect("a list").as_array().expect("rows").clone()
}

#[test]
fn a_message_is_held_and_a_destination_paused_until_somebody_says_otherwise() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &domains()).expect("mailguard runs");
    let sink = SmtpSink::of_server(&topology, appliance.folder()).expect("smtp-sink runs");
    assert_eq!(
        appliance.ok(&["queue", "pause", "alive.example.test"]).expect("paused"),
        "paused: alive.example.test\n"
    );
    send(&topology, "alice@client.example.test", "bob@alive.example.test", "paused");
    send(&topology, "alice@client.example.test", "bob@dead.example.test", "dead");
    assert_eq!(text(&attempts(&appliance, "bob@dead.example.test")[0], "outcome"), "deferred");
    assert!(appliance.ok(&["status"]).expect("a status").contains("paused      alive.example.test\n"));
    // Both outlive a restart.
    let rows = listed(&appliance);
    assert_eq!(rows.len(), 2, "{rows:?}");
    let dead =
        rows.iter().find(|row| text(row, "first_recipient") == "bob@dead.example.test").expect("it waits");
    let id = text(dead, "id").to_owned();
    appliance.ok(&["queue", "hold", &id]).expect("held");
    appliance.kill().expect("killed");
    appliance.run().expect("runs again");
    assert!(listed(&appliance).iter().any(|row| row["held"] == true));
    send(&topology, "alice@client.example.test", "bob@alive.example.test", "also paused");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(sink.received().is_empty(), "nothing goes there");
    assert!(!appliance.cli(&["queue", "resume", "other.example.test"]).expect("runs").status.success());
    let resumed = appliance.ok(&["queue", "resume", "alive.example.test"]).expect("resumed");
    assert_eq!(resumed, "no destination is paused\n");
    sink.wait_for("paused").expect("it arrives");
    sink.wait_for("also paused").expect("it arrives");
    let done = appliance.ok(&["queue", "release", "--to", "dead.example.test"]).expect("released");
    assert_eq!(done, "1 message is no longer held\n");
    let done = appliance.ok(&["queue", "remove", "--to", &format!("{SERVER4}:2599")]).expect("removed");
    assert_eq!(done, "1 message removed\n");
    assert!(listed(&appliance).is_empty());
    let refused = appliance.cli(&["queue", "retry", "--to", "a b"]).expect("runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("names no destination"));
}

#[test]
fn a_dead_server_holds_up_nobody() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &domains()).expect("mailguard runs");
    // It answers no SYN: each attempt takes its whole time.
    let drop = "add rule inet filter input tcp dport 2599 drop";
    let nft = |words: &str| {
        let status = topology.server.command("nft").args(words.split(' ')).status().expect("nft runs");
        assert!(status.success(), "{words}");
    };
    nft("add table inet filter");
    nft("add chain inet filter input { type filter hook input priority 0 ; }");
    nft(drop);
    let sink = SmtpSink::of_server(&topology, appliance.folder()).expect("smtp-sink runs");
    for number in 0..30 {
        send(&topology, "alice@client.example.test", &format!("bob{number}@dead.example.test"), "to nobody");
    }
    send(&topology, "alice@client.example.test", "bob@alive.example.test", "in time");
    sink.wait_for("in time").expect("it arrives while the others wait");
    // The server has it before it is crossed off here.
    wait_until("the others wait, and nobody else", || listed(&appliance).len() == 30).expect("all of them");
    // A stop would wait for what is under way.
    appliance.kill().expect("killed");
}

#[test]
fn the_store_is_looked_at_and_exported_when_nothing_runs() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &domains()).expect("mailguard runs");
    send(&topology, "alice@client.example.test", "bob@dead.example.test", "kept");
    let busy = appliance.cli(&["store", "check"]).expect("runs");
    assert!(String::from_utf8_lossy(&busy.stderr).contains("in use by another process"));
    appliance.kill().expect("killed");
    wait_until("the store is free", || {
        appliance.cli(&["store", "check"]).is_ok_and(|output| output.status.success())
    })
    .expect("all is there");
    let folder = appliance.folder().join("rescued");
    let said = appliance.ok(&["store", "export", &folder.display().to_string()]).expect("exported");
    assert!(said.starts_with("1 message written to "), "{said}");
    let mut files = std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path());
    let eml = files.find(|path| path.extension().is_some_and(|end| end == "eml")).expect("a message");
    assert!(std::fs::read_to_string(eml).expect("read").contains("Subject: kept\r\n"));
    appliance.run().expect("runs again");
    assert_eq!(listed(&appliance).len(), 1, "and nothing was changed by it");
}

/// Postfix serves three connections of ours and answers the fourth with 421: mail goes on by as many as it
/// serves.
#[test]
fn a_server_that_takes_few_connections_is_not_left_alone() {
    const MESSAGES: u64 = 120;
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let server = |program: &str| topology.server.command(program);
    let folder = open_folder("few-").expect("a folder");
    let settings = "default_transport = discard:\nsmtpd_peername_lookup = no\nsmtpd_client_connection_count_limit = 3\n\
                    smtpd_client_event_limit_exceptions =\n";
    let postfix =
        Postfix::start(&server, folder.path(), &SERVER4.to_string(), 25, settings).expect("Postfix runs");
    let appliance =
        Appliance::start(&firewall, &domains().replace("\"1h\"", "\"1s\"")).expect("mailguard runs");
    let load = Load {
        server: &port25(FIREWALL4),
        helo: "client.example.test",
        kept: true,
        sessions: 20,
        messages: MESSAGES,
        octets: 2_000,
        recipients: 1,
        sender: "alice@client.example.test",
        recipient: "bob@alive.example.test",
    };
    smtp_source::run(&|program| topology.client.command(program), &load).expect("all are taken");
    wait_until("the queue is empty", || listed(&appliance).is_empty()).expect("everything is delivered");
    let log = appliance.log();
    assert!(!log.contains("the next hop rests"), "{log}");
    let full = std::fs::read_to_string(folder.path().join("postfix.log")).expect("a log");
    assert!(full.contains("Connection concurrency limit exceeded"), "{}", postfix.log());
}
