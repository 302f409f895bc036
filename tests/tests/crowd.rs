//! Ten thousand clients that say nothing and two hundred that say little, beside those who send mail.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::crowd::Crowd;
use mailguard_tests::memory;
use mailguard_tests::netns::{FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};
use mailguard_tests::peers::wait_until;

/// Sessions that say nothing.
const IDLE: usize = 10_000;
/// Sessions that are in the middle of a message, and send an octet now and then.
const SLOW: usize = 200;
/// Messages of those who send mail.
const MESSAGES: u64 = 500;
/// KiB that an idle session may cost.
const MEMORY_A_SESSION: u64 = 12;

#[test]
fn who_is_slow_or_silent_costs_little_and_stalls_nobody() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let config = format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"red\"\nkind = \"red\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"active\"\n[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n\
         [server]\nmax_sessions = 15000\nmax_sessions_per_client = 15000\n"
    );
    let appliance = Appliance::start(&firewall, &config).expect("mailguard runs");
    let server = |program: &str| topology.server.command(program);
    let sink = SmtpSink::start(&server, appliance.folder(), &port25(SERVER4), false).expect("smtp-sink runs");
    let address = SocketAddr::new(FIREWALL4.into(), 25);
    let held = || {
        let process = appliance.process().expect("it runs");
        memory::of_tree(process.pid()).expect("memory").proportional
    };
    let open = |sessions| topology.client.within(|| Crowd::open(address, sessions)).expect("sessions");

    let few = open(100);
    let before = held();
    let mut idle = open(IDLE);
    let used = held().saturating_sub(before);
    println!("{IDLE} idle sessions: {used} KiB, {:.1} KiB each", used as f64 / IDLE as f64);
    assert!(used < MEMORY_A_SESSION * IDLE as u64, "{used} KiB for {IDLE} sessions");
    drop(few);

    let mut slow = open(SLOW);
    slow.all("MAIL FROM:<slow@client.example.test>", "250").expect("taken");
    slow.all("RCPT TO:<bob@inside.example.test>", "250").expect("taken");
    slow.all("DATA", "354").expect("taken");
    let load = Load {
        server: &port25(FIREWALL4),
        helo: "client.example.test",
        kept: false,
        sessions: 20,
        messages: MESSAGES,
        octets: 1000,
        recipients: 1,
        sender: "alice@client.example.test",
        recipient: "bob@inside.example.test",
    };
    thread::scope(|scope| {
        let busy = scope.spawn(|| smtp_source::run(&|program| topology.client.command(program), &load));
        while !busy.is_finished() {
            slow.say("x").expect("taken");
            thread::sleep(Duration::from_millis(100));
        }
        busy.join().expect("no panic").expect("every message is taken");
    });
    wait_until("the mail of those who are busy arrives", || sink.count() >= MESSAGES).expect("it arrives");
    idle.all("NOOP", "250").expect("each is still served");
    slow.all("\r\n.", "250").expect("each message is taken");
    wait_until("the mail of those who are slow arrives", || sink.count() >= MESSAGES + SLOW as u64)
        .expect("it arrives");
}

#[test]
fn too_few_open_files_are_told_with_what_to_do() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| {
        let mut command = topology.firewall.command("prlimit");
        command.arg("--nofile=20000").arg(program);
        command
    };
    let config = format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"transparent\"\n"
    );
    let appliance = Appliance::start(&firewall, &config).expect("mailguard runs");
    let told = "20000 files and sockets may be open, and at worst ";
    let problems = appliance.json(&["status"]).expect("it answers")["problems"].to_string();
    let doctor = appliance.cli(&["doctor"]).expect("it runs").stdout;
    for text in [appliance.log(), problems, String::from_utf8_lossy(&doctor).into_owned()] {
        assert!(text.contains(told) && text.contains("LimitNOFILE="), "{text}");
    }
}
