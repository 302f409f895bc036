//! Relayed messages a second, end to end: `smtp-source` → X → `smtp-sink` between three namespaces, where X
//! is mailguard (everything at its default, every 250 durable), the same without its mail log, another
//! program of mailguard's if there is one to compare with, Postfix as shipped but for relay host and process
//! limit, or nothing.
//!
//! All in one run, in an order that alternates. A rate counts from the first connection to the last message
//! that the sink has got.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::postfix::Postfix;
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};
use mailguard_tests::peers::{open_folder, wait_at_most};

use super::samples::Samples;
use crate::setup;

/// Rounds, each of them with every contestant.
const ROUNDS: usize = 5;
/// Messages a contestant and round.
const MESSAGES: u64 = 4000;
/// Octets of each message's text.
const OCTETS: u32 = 4096;
/// Connections at a time.
const SESSIONS: u32 = 20;
/// Port of Postfix on the firewall.
const POSTFIX_PORT: u16 = 2526;
/// Longest wait for the last message of a round.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// What stands between client and server.
#[derive(Clone, Copy)]
enum Between<'a> {
    /// What is built here, or the other program; with its mail log or without.
    Mailguard {
        program: Option<&'a Path>,
        mail_log: bool,
    },
    Postfix,
    Nothing,
}

/// Measures and prints the table.
pub(crate) fn run(baseline: Option<&Path>) -> Result<()> {
    setup::everything()?;
    super::use_release()?;
    let topology = Topology::new()?;
    let server = |program: &str| topology.server.command(program);
    let folder = tempfile::tempdir()?;
    let sink = SmtpSink::start(&server, folder.path(), &port25(SERVER4), false)?;
    let mut contestants = vec![
        (OURS, Between::Mailguard { program: None, mail_log: true }),
        (UNLOGGED, Between::Mailguard { program: None, mail_log: false }),
        (POSTFIX, Between::Postfix),
        (DIRECT, Between::Nothing),
    ];
    // Beside the one that it is compared with.
    let other = baseline.map(|program| Between::Mailguard { program: Some(program), mail_log: true });
    contestants.splice(1..1, other.map(|other| (BASELINE, other)));
    let mut rates: BTreeMap<&str, Samples> = BTreeMap::new();
    let mut shares: BTreeMap<&str, String> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut order = contestants.clone();
        order.rotate_left(round % contestants.len());
        for (name, between) in order {
            let (rate, share) = through(&topology, &sink, between)?;
            println!("round {}: {name}: {rate:.0} messages/s", round + 1);
            rates.entry(name).or_default().push(rate);
            shares.insert(name, share);
        }
    }
    print(&rates, &shares)
}

/// One load with this between.
fn through(topology: &Topology, sink: &SmtpSink, between: Between<'_>) -> Result<(f64, String)> {
    let firewall = |program: &str| topology.firewall.command(program);
    match between {
        Between::Mailguard { program, mail_log } => {
            let mut appliance = Appliance::prepare(&firewall, &config(mail_log))?;
            if let Some(program) = program {
                appliance = appliance.with_program(program);
            }
            appliance.run()?;
            measure(topology, sink, &port25(SERVER4))
        }
        Between::Postfix => {
            let folder = open_folder("postfix-")?;
            let host = FIREWALL4.to_string();
            let relay_host = format!("[{SERVER4}]:25");
            let _postfix = Postfix::relay(&firewall, folder.path(), &host, POSTFIX_PORT, &relay_host)?;
            measure(topology, sink, &format!("{FIREWALL4}:{POSTFIX_PORT}"))
        }
        Between::Nothing => measure(topology, sink, &port25(SERVER4)),
    }
}

const OURS: &str = "mailguard";
const BASELINE: &str = "baseline";
const UNLOGGED: &str = "unlogged";
const POSTFIX: &str = "postfix";
const DIRECT: &str = "direct";

fn config(mail_log: bool) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"transparent\"\n[delivery]\ndefault = \"original\"\n[log]\nmail = {mail_log}\n"
    )
}

/// One load through whatever stands between; messages a second, and who used the processors.
fn measure(topology: &Topology, sink: &SmtpSink, server: &str) -> Result<(f64, String)> {
    let before = sink.count();
    let processors = processor_times()?;
    let load = Load::of_strangers(server, SESSIONS, MESSAGES, OCTETS);
    let start = Instant::now();
    smtp_source::run(&|program| topology.client.command(program), &load)?;
    wait_at_most(PATIENCE, "the last message arrives", &mut || sink.count() >= before + MESSAGES)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((MESSAGES as f64 / seconds, shares(&processors, &processor_times()?, seconds)))
}

/// What a process is called, and the clock ticks that it has used so far.
type Times = BTreeMap<u32, (String, u64)>;

/// Of every process. What ended meanwhile and we waited for, smtp-source, counts under [`CHILDREN`].
fn processor_times() -> Result<Times> {
    let mut times = Times::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let fields: Vec<u64> = tail.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // Fields 14 and 15 of proc_pid_stat(5), and 16 and 17, those of children that were waited for.
        times.insert(pid, (name.to_owned(), fields.iter().skip(11).take(2).sum()));
        if pid == std::process::id() {
            times.insert(CHILDREN, ("smtp-source".to_owned(), fields.iter().skip(13).take(2).sum()));
        }
    }
    Ok(times)
}

/// No process has this id.
const CHILDREN: u32 = 0;

/// The programs that used most, in percent of one processor.
fn shares(before: &Times, after: &Times, seconds: f64) -> String {
    const TICKS_A_SECOND: f64 = 100.0;
    let mut programs: BTreeMap<&str, u64> = BTreeMap::new();
    for (pid, (name, ticks)) in after {
        let earlier = before.get(pid).map_or(0, |(_, ticks)| *ticks);
        *programs.entry(name).or_default() += ticks.saturating_sub(earlier);
    }
    let mut list: Vec<(u64, &str)> = programs.into_iter().map(|(name, ticks)| (ticks, name)).collect();
    list.sort_unstable_by(|a, b| b.cmp(a));
    let percent = |ticks: u64| ticks as f64 / TICKS_A_SECOND / seconds * 100.0;
    list.iter()
        .take(6)
        .map(|(ticks, name)| format!("{name} {:.0}%", percent(*ticks)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn print(rates: &BTreeMap<&str, Samples>, shares: &BTreeMap<&str, String>) -> Result<()> {
    println!("\nmessages/s, {OCTETS} octets, {SESSIONS} connections, {MESSAGES} messages a sample:");
    println!("{:<10} {:>8} {:>8} {:>8}  samples", "through", "min", "median", "max");
    for (name, samples) in rates {
        println!("{name:<10} {}", samples.row(0));
    }
    println!("\nshare of one processor, last round:");
    for (name, share) in shares {
        println!("{name:<10} {share}");
    }
    let of = |name| rates.get(name).context("every contestant has samples");
    let (ours, postfix, direct) = (of(OURS)?, of(POSTFIX)?, of(DIRECT)?);
    println!("\nmailguard / postfix: {:.2}   (aim: at least 4)", ours.median() / postfix.median());
    println!("mailguard / direct:  {:.2}", ours.median() / direct.median());
    println!("mailguard / without its mail log: {:.3}", ours.ratio_to(of(UNLOGGED)?));
    if let Some(baseline) = rates.get(BASELINE) {
        println!("mailguard / baseline: {:.3}   (aim: at least 1)", ours.ratio_to(baseline));
    }
    Ok(())
}
