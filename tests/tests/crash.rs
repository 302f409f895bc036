//! `kill -9` under load, again and again: nothing that an independent witness saw acknowledged may be missing
//! at the far server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::crash::{Zone, play};
use mailguard_tests::ledger::{Letter, Witness, is_complete};
use mailguard_tests::netns::{FIREWALL4, LAN, SERVER4, Topology};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::wait_at_most;

/// Kills; every third of the mail process alone, the others of both processes.
const KILLS: usize = 24;
/// Connections of the witness.
const CONNECTIONS: usize = 8;
/// Octets of text: every message fits into the database ...
const SMALL: usize = 2_000;
/// ... or each has a file of its own.
const LARGE: usize = 300_000;
/// Most deliveries to the sink that a kill may catch between the sink's word and the note of it on disk:
/// those under way at once, and as many that wait for their commit.
const UNDER_WAY: usize = 40;
/// Longest wait for the queue to empty at the end.
const DRAIN: Duration = Duration::from_secs(90);

/// Pauses between kills, varied without chance so that a failure can be repeated.
fn pause(kill: usize) -> Duration {
    Duration::from_millis(150 + (kill as u64 * 137) % 700)
}

fn check(octets: usize, kills: usize) {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let config = format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"red\"\nkind = \"red\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"active\"\n[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n\
         [delivery]\nretry_min = \"1s\"\nretry_max = \"2s\"\n"
    );
    let mut appliance = Appliance::start(&firewall, &config).expect("mailguard runs");
    let sink = SmtpSink::of_server(&topology, appliance.folder()).expect("smtp-sink runs");
    let client = std::sync::Arc::new(std::fs::File::open(topology.client.path()).expect("the namespace"));
    let enter = move || {
        nix::sched::setns(&*client, nix::sched::CloneFlags::CLONE_NEWNET).expect("enters the namespace");
    };
    let letter = Letter {
        octets,
        first: 0,
        sender: "witness@client.example.test",
        recipients: &["ledger@inside.example.test"],
    };
    let server = SocketAddr::new(FIREWALL4.into(), 25);
    let witness = Witness::start(appliance.folder(), server, CONNECTIONS, letter, enter).expect("a witness");
    for kill in 0..kills {
        std::thread::sleep(pause(kill));
        if kill % 3 == 2 {
            kill_mail_process(&appliance);
        } else {
            appliance.kill().expect("killed");
            appliance.run().expect("runs again");
        }
    }
    let acknowledged = witness.finish().expect("a ledger");
    assert!(acknowledged.len() > kills, "only {} messages were acknowledged", acknowledged.len());
    wait_at_most(DRAIN, "the queue is empty", &mut || {
        appliance.json(&["queue", "list"]).is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty))
    })
    .expect("everything is delivered");
    let mut arrived: BTreeMap<u64, usize> = BTreeMap::new();
    for message in sink.received() {
        let subject = message.content.lines().find_map(|line| line.strip_prefix("Subject: ledger-"));
        let number = subject.and_then(|text| text.parse().ok()).expect("a message of the witness");
        // The sink also keeps what a killed process had begun to send.
        if !is_complete(&message.content, octets) {
            continue;
        }
        *arrived.entry(number).or_default() += 1;
    }
    let lost: Vec<&u64> = acknowledged.iter().filter(|number| !arrived.contains_key(number)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let repeated: usize = arrived.values().map(|times| times - 1).sum();
    println!("{} acknowledged, {} arrived, {repeated} times again", acknowledged.len(), arrived.len());
    // Repetition is allowed only for what was under way, or just over, when a process died (RFC 5321
    // §4.5.4.1).
    assert!(repeated <= kills * UNDER_WAY, "{repeated} repetitions of {}", arrived.len());
}

fn kill_mail_process(appliance: &Appliance<'_>) {
    let parent = appliance.process().expect("it runs").pid().to_string();
    let _ = Command::new("pkill").args(["-9", "-P", &parent]).status();
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    check(SMALL, KILLS);
}

#[test]
fn nothing_acknowledged_is_lost_of_messages_in_files() {
    check(LARGE, KILLS / 2);
}

/// Rounds of chance in each zone; `cargo xtask crash` plays many more.
const ROUNDS: u64 = 5;

#[test]
fn each_recipient_comes_to_one_end_where_senders_get_reports() {
    println!("{:?}", play(Zone::Green, 1..=ROUNDS).expect("every round holds"));
}

#[test]
fn each_recipient_comes_to_one_end_where_failed_mail_is_quarantined() {
    println!("{:?}", play(Zone::Red, 1..=ROUNDS).expect("every round holds"));
}
