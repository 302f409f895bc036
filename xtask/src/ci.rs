//! `cargo xtask ci`: everything that must hold before a change is taken, in the order of cheapness.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::sh;
use crate::{build, demo, fuzz, sabotage, setup, test, tidy, verify, vm};

struct Step {
    name: &'static str,
    /// A step that takes longer is reported: the whole run has 60 minutes on two cores.
    budget: Duration,
    run: fn() -> Result<()>,
}

const fn step(name: &'static str, minutes: u64, run: fn() -> Result<()>) -> Step {
    Step { name, budget: Duration::from_secs(minutes * 60), run }
}

const STEPS: &[Step] = &[
    step("setup", 12, setup::everything),
    step("format", 1, || sh("cargo", &["fmt", "--all", "--check"])),
    step("tidy", 2, tidy::run),
    step("dependencies", 1, || {
        sh("cargo", &["deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
    }),
    step("build", 5, build::debug),
    step("clippy", 5, || {
        sh("cargo", &["clippy", "--workspace", "--all-features", "--all-targets", "--", "-D", "warnings"])
    }),
    step("verify", 1, verify::built),
    step("test", 14, || test::run(&test::Arguments::default())),
    step("vm", 10, vm::run),
    step("fuzz", 8, || fuzz::run(fuzz::SHORT, None)),
    step("demo", 8, demo::run),
    step("sabotage", 12, sabotage::some),
];

/// Runs every step; stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    let mut times = Vec::new();
    for step in STEPS {
        println!("── {} ──", step.name);
        let start = Instant::now();
        (step.run)().with_context(|| format!("ci step {}", step.name))?;
        times.push((step, start.elapsed()));
    }
    println!("{:<14} {:>8} {:>8}", "step", "seconds", "budget");
    for (step, took) in &times {
        println!("{:<14} {:>8} {:>8}", step.name, took.as_secs(), step.budget.as_secs());
    }
    for (step, took) in times.iter().filter(|(step, took)| *took > step.budget) {
        println!("{} is over its budget by {} s", step.name, (*took - step.budget).as_secs());
    }
    Ok(())
}
