//! Rounds of `kill -9` under load, judged from outside: by the ledger of every 250, by what the far server
//! took, and by what is quarantined.
//!
//! Each message has four recipients: one that is taken, one that is refused, one that is put off once, and
//! one whose connection is closed once instead of an answer. After each round everything is delivered, and
//! each of them must have come to one end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::appliance::Appliance;
use crate::ledger::{Letter, Witness, lines_of};
use crate::netns::{FIREWALL4, LAN, SERVER4, Topology};
use crate::peers::fickle::{Fickle, Taken};
use crate::peers::wait_at_most;

/// Connections of the witness.
const CONNECTIONS: usize = 6;
/// Octets of text: a message fits into the database, or has a file of its own.
const OCTETS: [usize; 2] = [2_000, 300_000];
/// Of so many rounds, one has large messages.
const LARGE_EVERY: u64 = 4;
/// Longest time between the beginning of the load and the kill, milliseconds.
const LONGEST_PAUSE: u64 = 500;
/// Longest time between a start and another kill in the midst of it, milliseconds.
const LONGEST_START: u64 = 150;
/// Recipients that one kill may make a server take a second time: those under way, and those whose note waits
/// for its commit.
const UNDER_WAY: u64 = 80;
/// Longest wait for the queue to empty.
const DRAIN: Duration = Duration::from_secs(60);

/// Rounds whose senders get reports, or whose failed mail is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// Green: reports.
    Green,
    /// Red: the quarantine.
    Red,
}

impl Zone {
    /// Seeds in a row that have the same zone.
    pub const SEEDS: u64 = 25;

    /// In which the round of this seed is played.
    pub fn of(seed: u64) -> Self {
        if (seed / Self::SEEDS).is_multiple_of(2) { Zone::Green } else { Zone::Red }
    }
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Rounds.
    pub rounds: u64,
    /// Processes killed.
    pub kills: u64,
    /// Messages answered 250.
    pub acknowledged: u64,
    /// Recipients that a server took more than once.
    pub repeated: u64,
}

/// SplitMix64: what is decided by a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Plays a round for each seed. An error names the seed of the round that fails.
pub fn play(zone: Zone, seeds: impl Iterator<Item = u64>) -> Result<Summary> {
    let topology = Topology::new()?;
    let firewall = |program: &str| topology.firewall.command(program);
    let far = std::fs::File::open(topology.server.path())?;
    let server = Fickle::start(SocketAddr::new(SERVER4.into(), 25), move || enter(&far))?;
    let mut appliance = Appliance::start(&firewall, &config(zone))?;
    let mut summary = Summary::default();
    for seed in seeds {
        round(&topology, &server, &mut appliance, zone, seed, &mut summary).with_context(|| {
            format!("the round of seed {seed} in the {zone:?} zone fails; again: cargo xtask crash 1 --seed {seed}")
        })?;
    }
    ensure!(summary.acknowledged > summary.rounds, "hardly anything was acknowledged: {summary:?}");
    Ok(summary)
}

fn enter(namespace: &std::fs::File) {
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("enters the namespace");
}

fn config(zone: Zone) -> String {
    let kind = match zone {
        Zone::Green => "green",
        Zone::Red => "red",
    };
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"lan\"\nkind = \"{kind}\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"active\"\n\
         [[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n\
         [[incoming_domain]]\ndomain = \"client.example.test\"\nserver = \"{SERVER4}\"\n\
         [delivery]\nretry_min = \"1s\"\nretry_max = \"1s\"\n"
    )
}

fn round(
    topology: &Topology,
    server: &Fickle,
    appliance: &mut Appliance<'_>,
    zone: Zone,
    seed: u64,
    summary: &mut Summary,
) -> Result<()> {
    let mut chance = Chance(seed);
    let octets = OCTETS[usize::from(chance.below(LARGE_EVERY) == 0)];
    let folder = tempfile::tempdir()?;
    let letter = Letter {
        octets,
        first: seed.wrapping_mul(1_000_000) % 1_000_000_000_000,
        sender: "w{}@client.example.test",
        recipients: &[
            "g{}@inside.example.test",
            "b{}@inside.example.test",
            "l{}@inside.example.test",
            "d{}@inside.example.test",
        ],
    };
    let client = std::sync::Arc::new(std::fs::File::open(topology.client.path())?);
    let to = SocketAddr::new(FIREWALL4.into(), 25);
    let witness = Witness::start(folder.path(), to, CONNECTIONS, letter, move || enter(&client))?;
    std::thread::sleep(Duration::from_millis(chance.below(LONGEST_PAUSE)));
    let mut kills = 1;
    if chance.below(3) == 0 {
        kill_mail_process(appliance)?;
    } else {
        appliance.kill()?;
        if chance.below(4) == 0 {
            // In the midst of the recovery.
            let midst = Duration::from_millis(chance.below(LONGEST_START));
            appliance.run_for(midst)?;
            kills += 1;
        }
        appliance.run()?;
    }
    std::thread::sleep(Duration::from_millis(chance.below(LONGEST_PAUSE) / 4));
    let acknowledged = witness.finish()?;
    wait_at_most(DRAIN, "the queue is empty", &mut || {
        appliance.json(&["queue", "list"]).is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty))
    })?;
    let quarantined = quarantined(appliance)?;
    let repeated = judge(zone, &acknowledged, &server.drain(), &quarantined, lines_of(octets))?;
    ensure!(repeated <= kills * UNDER_WAY, "{repeated} recipients were served again after {kills} kills");
    appliance.ok(&["quarantine", "delete", "--all"])?;
    summary.rounds += 1;
    summary.kills += kills;
    summary.acknowledged += acknowledged.len() as u64;
    summary.repeated += repeated;
    Ok(())
}

fn kill_mail_process(appliance: &Appliance<'_>) -> Result<()> {
    let parent = appliance.process().context("it runs")?.pid().to_string();
    Command::new("pkill").args(["-9", "-P", &parent]).status()?;
    Ok(())
}

/// Senders of what is quarantined, from those who were refused and from nobody else.
fn quarantined(appliance: &Appliance<'_>) -> Result<Vec<String>> {
    let list = appliance.json(&["quarantine", "list", "--limit", "1000000"])?;
    let rows = list.as_array().context("a list")?;
    for row in rows {
        let recipients = row["recipients"].as_array().context("recipients")?;
        let refused = |address: &Value| address.as_str().is_some_and(|address| address.starts_with('b'));
        ensure!(recipients.len() == 1 && recipients.iter().all(refused), "quarantined from others: {row}");
    }
    Ok(rows
        .iter()
        .filter_map(|row| row["sender"].as_str())
        .map(|path| path.trim_matches(['<', '>']).to_owned())
        .collect())
}

/// Whether each recipient of what was acknowledged came to one end; how many were served more than once.
fn judge(
    zone: Zone,
    acknowledged: &BTreeSet<u64>,
    taken: &[Taken],
    quarantined: &[String],
    lines: usize,
) -> Result<u64> {
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for message in taken {
        if !message.sender.is_empty() && message.lines < lines {
            bail!("{message:?} was answered 250 and isn't whole: {lines} lines of text");
        }
        if let Some(other) = message.reported.iter().find(|address| !address.starts_with('b')) {
            bail!("{other} was served, or will be, and is reported: {message:?}");
        }
        for recipient in &message.recipients {
            *times.entry(recipient).or_default() += 1;
        }
    }
    let count = |address: String| times.get(address.as_str()).copied().unwrap_or(0);
    for number in acknowledged {
        for letter in ["g", "l", "d"] {
            let address = format!("{letter}{number}@inside.example.test");
            ensure!(count(address.clone()) > 0, "acknowledged and lost: {address}");
        }
        let sender = format!("w{number}@client.example.test");
        let (reports, kept) =
            (count(sender.clone()), quarantined.iter().filter(|other| **other == sender).count());
        let one_end = match zone {
            Zone::Green => reports > 0 && kept == 0,
            Zone::Red => reports == 0 && kept == 1,
        };
        ensure!(one_end, "b{number}@inside.example.test: {reports} reports, quarantined {kept} times");
    }
    // What the administrator is told, he is told often.
    Ok(times
        .iter()
        .filter(|(address, _)| !address.starts_with("postmaster@"))
        .map(|(_, times)| times - 1)
        .sum())
}
