//! `cargo xtask crash [ROUNDS]`: rounds of chance that take disk and processes away from under a busy
//! mailguard. A round that fails prints its seed, by which it is played again.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use mailguard_tests::crash::{Summary, Zone, play};

use crate::process::{self, repository};
use crate::{build, setup};

/// Options of `crash`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Rounds of each kind: over failing disks in one process, and of kill -9 from outside
    #[arg(default_value_t = 300)]
    rounds: u64,
    /// The seed of the first round; each next one has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Plays the rounds.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "only root may make network namespaces");
    setup::everything()?;
    build::debug()?;
    let Arguments { rounds, seed } = *arguments;
    println!("── {rounds} rounds over disks that fail and forget, from seed {seed} ──");
    let mut faults = Command::new("cargo");
    faults.args(["nextest", "run", "-p", "mailguard", "--no-capture", "-E", "test(failing_disks)"]);
    faults.env("MAILGUARD_ROUNDS", rounds.to_string()).env("MAILGUARD_FIRST", seed.to_string());
    process::run(faults.current_dir(repository()))?;
    println!("── {rounds} rounds of kill -9 under load, from seed {seed} ──");
    let (start, mut sum) = (Instant::now(), Summary::default());
    let end = seed + rounds;
    let mut first = seed;
    while first < end {
        let next = end.min((first / Zone::SEEDS + 1) * Zone::SEEDS);
        let zone = Zone::of(first);
        let Summary { rounds, kills, acknowledged, repeated } = play(zone, first..next)?;
        first = next;
        sum.rounds += rounds;
        sum.kills += kills;
        sum.acknowledged += acknowledged;
        sum.repeated += repeated;
        println!("{:>5} s  {zone:?}: {sum:?}", start.elapsed().as_secs());
    }
    println!(
        "crash: {} rounds, {} kills: {} messages acknowledged, none lost, each recipient at one end; \
         {} recipients were served again after a kill",
        sum.rounds, sum.kills, sum.acknowledged, sum.repeated
    );
    Ok(())
}
