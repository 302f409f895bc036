//! The receiving server with every check of the envelope that Postfix has, too: messages and refused sessions
//! a second, and what an open session costs. `smtp-source` in the red zone → mailguard or Postfix →
//! `smtp-sink`, the DNS answered by Unbound beside them.
//!
//! Both deliver while they receive. A rate counts from the first connection until the last reply, each
//! message durable by then; afterwards every accepted message must arrive. Neither greylists (Postfix doesn't
//! by itself), nor verifies recipients.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mailguard_tests::appliance::Appliance;
use mailguard_tests::crowd::Crowd;
use mailguard_tests::memory::{self, Memory};
use mailguard_tests::netns::{CLIENT4, FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::postfix::Postfix;
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};
use mailguard_tests::peers::unbound::{self, Unbound};
use mailguard_tests::peers::{open_folder, wait_at_most};
use nix::unistd::Pid;

use super::samples::Samples;
use crate::setup;

/// Rounds, each of them with every contestant.
const ROUNDS: usize = 3;
/// Messages, or refused sessions, a contestant, load and round.
const MESSAGES: u64 = 3_000;
/// Octets of each message's text.
const OCTETS: u32 = 4_096;
/// Connections at a time.
const SESSIONS: u32 = 20;
/// Port of Postfix on the firewall.
const POSTFIX_PORT: u16 = 2526;
/// Sessions that are held open with mailguard.
const OPEN: usize = 10_000;
/// Sessions that are held open with Postfix, which has a process for each.
const OPEN_AT_POSTFIX: usize = 80;
/// Longest wait for the last message of a round.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the clients do.
const LOADS: [Clients; 3] = [
    Clients { name: "a message a session", kept: false, recipient: INSIDE },
    Clients { name: "many messages a session", kept: true, recipient: INSIDE },
    Clients { name: "refused: no relay", kept: false, recipient: "bob@far.example.test" },
];
const INSIDE: &str = "bob@inside.example.test";

struct Clients {
    name: &'static str,
    kept: bool,
    recipient: &'static str,
}

/// Figures by load and contestant.
type Rates = BTreeMap<(&'static str, &'static str), Samples>;

/// Measures and prints the tables.
pub(crate) fn run() -> Result<()> {
    setup::everything()?;
    super::use_release()?;
    let topology = Topology::new()?;
    let server = |program: &str| topology.server.command(program);
    let firewall = |program: &str| topology.firewall.command(program);
    let folder = tempfile::tempdir()?;
    let sink = SmtpSink::start(&server, folder.path(), &port25(SERVER4), false)?;
    let _unbound = Unbound::start(&firewall, folder.path(), &records())?;
    let appliance = Appliance::start(&firewall, &config())?;
    // The last one goes first: Postfix is stopped by what lies in its folder.
    let (_folder, postfix) = postfix(&topology)?;
    let contestants = [("mailguard", MAILGUARD), ("postfix", POSTFIX)];
    let mut rates = Rates::new();
    for round in 0..ROUNDS {
        println!("round {}:", round + 1);
        let mut order = contestants;
        order.rotate_left(round % 2);
        for (contestant, server) in order {
            measure(&topology, &sink, contestant, server, &mut rates).with_context(|| postfix.log())?;
        }
    }
    let root = appliance.process().context("it runs")?.pid();
    let memories = BTreeMap::from([
        ("mailguard", held(&topology, root, MAILGUARD, OPEN)?),
        ("postfix", held(&topology, postfix.master()?, POSTFIX, OPEN_AT_POSTFIX)?),
    ]);
    print_rates(&rates);
    print_memory(&memories);
    Ok(())
}

const MAILGUARD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(FIREWALL4), 25);
const POSTFIX: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(FIREWALL4), POSTFIX_PORT);

fn records() -> [&'static str; 4] {
    assert_eq!(CLIENT4.to_string(), "192.0.2.2");
    [
        "client.example.test. A 192.0.2.2",
        "client.example.test. MX 10 client.example.test.",
        "2.2.0.192.in-addr.arpa. PTR client.example.test.",
        "2.0.0.127.rbl.example.test. A 127.0.0.2",
    ]
}

fn config() -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"red\"\nkind = \"red\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"active\"\n[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n\
         [dns]\nservers = [\"127.0.0.1:{}\"]\n[rbl]\nenabled = true\nip_lists = [\"rbl.example.test\"]\n\
         domain_lists = [\"names.example.test\"]\n[spam_prevention]\nreject_non_fqdn_recipient = true\n\
         reject_non_fqdn_sender = true\nreject_non_fqdn_helo = true\nreject_unknown_sender_domain = true\n\
         [server]\nreject_invalid_hostname = true\nmax_sessions = 15000\nmax_sessions_per_client = 15000\n\
         hard_error_limit = 1000\n",
        unbound::PORT
    )
}

/// The same checks; what it keeps of each session besides is its own.
fn postfix(topology: &Topology) -> Result<(tempfile::TempDir, Postfix)> {
    let folder = open_folder("postfix-")?;
    let resolver = folder.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\n")?;
    let place = |program: &str| with_resolver(topology, &resolver, program);
    let settings = format!(
        "relay_domains = inside.example.test\nrelayhost = [{SERVER4}]:25\nmynetworks = 127.0.0.0/8\n\
         local_recipient_maps =\nsmtpd_helo_required = yes\nsmtpd_delay_reject = yes\n\
         smtpd_client_connection_count_limit = 0\nsmtpd_recipient_restrictions = reject_unauth_destination,\n \
         reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, reject_non_fqdn_sender,\n \
         reject_non_fqdn_recipient, reject_unknown_sender_domain, reject_rbl_client rbl.example.test,\n \
         reject_rhsbl_client names.example.test, reject_rhsbl_helo names.example.test,\n \
         reject_rhsbl_sender names.example.test\n"
    );
    let postfix = Postfix::start(&place, folder.path(), &FIREWALL4.to_string(), POSTFIX_PORT, &settings)?;
    Ok((folder, postfix))
}

/// A command on the firewall that asks this resolver: Postfix reads the machine's file.
fn with_resolver(topology: &Topology, resolver: &Path, program: &str) -> Command {
    let mut command = topology.firewall.command("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(resolver).arg(program);
    command
}

/// Every load through whatever listens at `server`.
fn measure(
    topology: &Topology,
    sink: &SmtpSink,
    contestant: &'static str,
    server: SocketAddr,
    rates: &mut Rates,
) -> Result<()> {
    for clients in &LOADS {
        let before = sink.count();
        let load = Load {
            server: &server.to_string(),
            helo: "client.example.test",
            kept: clients.kept,
            sessions: SESSIONS,
            messages: MESSAGES,
            octets: OCTETS,
            recipients: 1,
            sender: "alice@client.example.test",
            recipient: clients.recipient,
        };
        let start = Instant::now();
        smtp_source::run(&|program| topology.client.command(program), &load)?;
        let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
        let expect = if clients.recipient == INSIDE { MESSAGES } else { 0 };
        wait_at_most(PATIENCE, "the last message arrives", &mut || sink.count() >= before + expect)?;
        let came = sink.count() - before;
        ensure!(came == expect, "{contestant}, {}: {came} messages came, not {expect}", clients.name);
        println!("{contestant}, {}: {rate:.0}/s", clients.name);
        rates.entry((clients.name, contestant)).or_default().push(rate);
    }
    Ok(())
}

/// What a program holds before and while so many sessions are open.
struct Held {
    idle: Memory,
    open: Memory,
    sessions: usize,
}

fn held(topology: &Topology, root: Pid, server: SocketAddr, sessions: usize) -> Result<Held> {
    let idle = memory::of_tree(root)?;
    let crowd = topology.client.within(|| Crowd::open(server, sessions))?;
    Ok(Held { idle, open: memory::of_tree(root)?, sessions: crowd.sessions() })
}

fn print_rates(rates: &Rates) {
    println!("\na second, {OCTETS} octets, {SESSIONS} connections, {MESSAGES} a sample:");
    println!("{:<24} {:<10} {:>8} {:>8} {:>8}  samples", "clients", "through", "min", "median", "max");
    for ((load, contestant), samples) in rates {
        println!("{load:<24} {contestant:<10} {}", samples.row(0));
    }
    for Clients { name, recipient, .. } in &LOADS {
        if let (Some(ours), Some(postfix)) =
            (rates.get(&(*name, "mailguard")), rates.get(&(*name, "postfix")))
        {
            let aim = if *recipient == INSIDE { "   (aim: at least 5)" } else { "" };
            println!("{name}: mailguard / postfix {:.2}{aim}", ours.ratio_to(postfix));
        }
    }
}

fn print_memory(memories: &BTreeMap<&str, Held>) {
    println!("\nmemory of all processes, KiB, after the loads:");
    println!(
        "{:<10} {:>10} {:>10} {:>9} {:>10} {:>10} {:>14}",
        "", "resident", "shared out", "sessions", "resident", "shared out", "a session"
    );
    for (name, Held { idle, open, sessions }) in memories {
        let each = open.proportional.saturating_sub(idle.proportional) as f64 / *sessions as f64;
        println!(
            "{name:<10} {:>10} {:>10} {sessions:>9} {:>10} {:>10} {each:>14.1}",
            idle.resident, idle.proportional, open.resident, open.proportional
        );
    }
}
