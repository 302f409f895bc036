//! End to end by size and number of connections: `smtp-source` → X → `smtp-sink` between three namespaces,
//! where X is mailguard (everything at its default but the sessions a client may have, every 250 durable),
//! Postfix as shipped but for relay host and limits, or nothing. Then one message to many recipients, how
//! long the 250 takes, and what memory large messages take.
//!
//! All in one run, in an order that alternates; each ratio is the median of those within the rounds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::postfix::Postfix;
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};
use mailguard_tests::peers::{Place, open_folder, wait_at_most};
use mailguard_tests::{memory, stopwatch};
use nix::unistd::Pid;

use super::samples::Samples;
use crate::setup;

/// Rounds, each of them with every contestant.
const ROUNDS: usize = 3;
/// Connections at a time.
const SESSIONS: [u32; 3] = [1, 20, 200];
/// Octets of text, and messages a sample over one connection and over several.
const SIZES: [(u32, u64, u64); 4] =
    [(1 << 10, 300, 3000), (4 << 10, 300, 3000), (64 << 10, 150, 800), (5 << 20, 12, 40)];
/// Recipients of one message.
const RECIPIENTS: u32 = 1000;
/// Port of Postfix on the firewall.
const POSTFIX_PORT: u16 = 2526;
/// Longest wait for the last message of a round.
const PATIENCE: Duration = Duration::from_secs(180);
/// Messages a session whose 250 is timed.
const TIMED_MESSAGES: usize = 40;
/// How often memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(20);

const CONTESTANTS: [&str; 3] = ["mailguard", "postfix", "direct"];

/// What was measured of each contestant.
type Figures = BTreeMap<(String, &'static str), Samples>;

/// Measures and prints the tables.
pub(crate) fn run() -> Result<()> {
    setup::everything()?;
    super::use_release()?;
    let topology = Topology::new()?;
    let server = |program: &str| topology.server.command(program);
    let firewall = |program: &str| topology.firewall.command(program);
    let folder = tempfile::tempdir()?;
    let sink = SmtpSink::start(&server, folder.path(), &port25(SERVER4), false)?;
    let (mut rates, mut latencies, mut memories) = (Figures::new(), Figures::new(), Figures::new());
    for round in 0..ROUNDS {
        let mut order = CONTESTANTS;
        order.rotate_left(round % CONTESTANTS.len());
        for contestant in order {
            let rival = Rival::start(&firewall, contestant)?;
            let bench = Bench { topology: &topology, sink: &sink, rival: &rival, contestant };
            bench.rates(&mut rates, &mut memories)?;
            bench.recipients(&mut rates)?;
            bench.latencies(&mut latencies)?;
            println!("round {} of {ROUNDS}: {contestant} done", round + 1);
        }
    }
    print_rates(&rates);
    print_latencies(&latencies);
    print_memories(&memories);
    Ok(())
}

/// Who stands between.
enum Rival<'a> {
    Mailguard(Box<Appliance<'a>>),
    /// Dropped in this order: it is stopped by what lies in its folder.
    Postfix {
        postfix: Postfix,
        _folder: tempfile::TempDir,
    },
    Nobody,
}

impl<'a> Rival<'a> {
    fn start(firewall: Place<'a>, contestant: &str) -> Result<Self> {
        Ok(match contestant {
            "mailguard" => Rival::Mailguard(Box::new(Appliance::start(firewall, &config())?)),
            "postfix" => {
                let folder = open_folder("postfix-")?;
                let settings = format!(
                    "relayhost = [{SERVER4}]:25\nsmtpd_client_connection_count_limit = 0\n\
                     smtpd_peername_lookup = no\nmessage_size_limit = 0\n"
                );
                let host = FIREWALL4.to_string();
                let postfix = Postfix::start(firewall, folder.path(), &host, POSTFIX_PORT, &settings)?;
                Rival::Postfix { postfix, _folder: folder }
            }
            _ => Rival::Nobody,
        })
    }

    fn address(&self) -> SocketAddr {
        match self {
            Rival::Postfix { .. } => SocketAddr::new(FIREWALL4.into(), POSTFIX_PORT),
            Rival::Mailguard(_) | Rival::Nobody => SocketAddr::new(SERVER4.into(), 25),
        }
    }

    fn process(&self) -> Result<Option<Pid>> {
        Ok(match self {
            Rival::Mailguard(appliance) => appliance.process().map(|process| process.pid()),
            Rival::Postfix { postfix, .. } => Some(postfix.master()?),
            Rival::Nobody => None,
        })
    }

    /// Messages that a server gets of one with [`RECIPIENTS`]: each takes as many recipients at once.
    fn transactions(&self) -> u64 {
        match self {
            Rival::Mailguard(_) => u64::from(RECIPIENTS / 100),
            Rival::Postfix { .. } => u64::from(RECIPIENTS / 50),
            Rival::Nobody => 1,
        }
    }
}

fn config() -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"transparent\"\n[delivery]\ndefault = \"original\"\n\
         [server]\nmax_sessions_per_client = 1000\n"
    )
}

struct Bench<'a> {
    topology: &'a Topology,
    sink: &'a SmtpSink,
    rival: &'a Rival<'a>,
    contestant: &'static str,
}

impl Bench<'_> {
    /// Messages a second for each size and number of connections, and the most memory for each size.
    fn rates(&self, rates: &mut Figures, memories: &mut Figures) -> Result<()> {
        for (octets, alone, many) in SIZES {
            for sessions in SESSIONS {
                let messages = if sessions == 1 { alone } else { many };
                let (seconds, memory) = self.load(sessions, messages, octets, 1, messages)?;
                let key = (format!("{:>7} octets, {sessions:>3} connections", octets), self.contestant);
                rates.entry(key).or_default().push(messages as f64 / seconds);
                if sessions == 20 && self.rival.process()?.is_some() {
                    let key = (format!("{octets:>7} octets"), self.contestant);
                    memories.entry(key).or_default().push(memory as f64 / 1024.0);
                }
            }
        }
        Ok(())
    }

    fn recipients(&self, rates: &mut Figures) -> Result<()> {
        let (seconds, _) = self.load(1, 1, 4 << 10, RECIPIENTS, self.rival.transactions())?;
        let key = (format!("{RECIPIENTS} recipients of one message"), self.contestant);
        rates.entry(key).or_default().push(f64::from(RECIPIENTS) / seconds);
        Ok(())
    }

    /// Seconds from the first connection to the last message at the sink, and the most memory meanwhile, KiB.
    fn load(
        &self,
        sessions: u32,
        messages: u64,
        octets: u32,
        recipients: u32,
        arrive: u64,
    ) -> Result<(f64, u64)> {
        let before = self.sink.count();
        let server = self.rival.address().to_string();
        let load = Load {
            server: &server,
            helo: "client.example.test",
            kept: false,
            sessions,
            messages,
            octets,
            recipients,
            sender: "bench@client.example.test",
            recipient: "bench@server.example.test",
        };
        let (root, over) = (self.rival.process()?, AtomicBool::new(false));
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while let Some(root) = root.filter(|_| !over.load(Ordering::Relaxed)) {
                    most = most.max(memory::of_tree(root).map_or(0, |memory| memory.proportional));
                    std::thread::sleep(MEMORY_INTERVAL);
                }
                most
            });
            let start = Instant::now();
            let done =
                smtp_source::run(&|program| self.topology.client.command(program), &load).and_then(|()| {
                    wait_at_most(PATIENCE, "the last message arrives", &mut || {
                        self.sink.count() >= before + arrive
                    })
                });
            let seconds = start.elapsed().as_secs_f64();
            over.store(true, Ordering::Relaxed);
            let memory = watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
            done.map(|()| (seconds, memory))
                .with_context(|| format!("{}, {sessions} connections", self.contestant))
        })
    }

    fn latencies(&self, latencies: &mut Figures) -> Result<()> {
        for sessions in SESSIONS {
            let to = self.rival.address();
            let client = &self.topology.client;
            let mut times = stopwatch::measure(client, to, sessions as usize, TIMED_MESSAGES, 4 << 10)?;
            for percent in [50, 99] {
                let key = (format!("{sessions:>3} connections, p{percent}"), self.contestant);
                let time = stopwatch::percentile(&mut times, percent).as_secs_f64() * 1000.0;
                latencies.entry(key).or_default().push(time);
            }
        }
        Ok(())
    }
}

fn print_rates(rates: &Figures) {
    println!("\nmessages/s, to the last at the sink (recipients/s of one message):");
    println!("{:<34} {:<10} {:>8} {:>8} {:>8}  samples", "load", "through", "min", "median", "max");
    for ((load, contestant), samples) in rates {
        println!("{load:<34} {contestant:<10} {}", samples.row(0));
    }
    println!(
        "\n{:<34} {:>10} {:>10}   (aim at 4096 octets, 20 connections: 5 and 0.40)",
        "load", "/ postfix", "/ direct"
    );
    for load in loads(rates) {
        let of = |contestant| rates.get(&(load.clone(), contestant));
        if let (Some(ours), Some(postfix), Some(direct)) = (of("mailguard"), of("postfix"), of("direct")) {
            println!("{load:<34} {:>10.2} {:>10.2}", ours.ratio_to(postfix), ours.ratio_to(direct));
        }
    }
}

fn print_latencies(latencies: &Figures) {
    println!("\nmilliseconds from the final dot to the 250, 4096 octets, sessions kept:");
    for ((load, contestant), samples) in latencies {
        println!("{load:<24} {contestant:<10} {}", samples.row(2));
    }
}

fn print_memories(memories: &Figures) {
    println!("\nmost memory of all processes at 20 connections, MiB shared out:");
    for ((load, contestant), samples) in memories {
        println!("{load:<24} {contestant:<10} {}", samples.row(1));
    }
}

/// Each load once.
fn loads(figures: &Figures) -> Vec<String> {
    let mut loads: Vec<String> = figures.keys().map(|(load, _)| load.clone()).collect();
    loads.dedup();
    loads
}
