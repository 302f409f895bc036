//! `cargo xtask bench`: measurements, each with its raw samples, against a baseline in the same run.

mod delivery;
mod kernel;
mod memory;
mod outage;
mod packet;
mod queue;
mod receive;
mod relay;
mod samples;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::build;

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure; everything if absent
    what: Option<What>,
    /// `relay` and `memory`: measure this program of mailguard's, too, in turn with what is built here: that
    /// of an earlier commit
    #[arg(long, value_name = "PROGRAM")]
    baseline: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Connections, dropped and forwarded packets, against nftables
    Kernel,
    /// Nanoseconds a packet, of the kernel programs
    Packet,
    /// Messages and sessions a second with all checks of the envelope, and memory a session, against Postfix
    Receive,
    /// Messages a second, end to end, against Postfix
    Relay,
    /// The same by size and number of connections, with many recipients, and how long the 250 takes
    Delivery,
    /// Start, memory and pace beside up to a million messages that wait
    Queue,
    /// What the mail process keeps of its memory after messages of 20 MB
    Memory,
    /// How long mail waits for those who are up while a thousand domains don't answer
    Outage,
}

/// Builds the program that is measured, unless `MAILGUARD_BIN` names one, and has the tests' library start
/// that one.
fn use_release() -> anyhow::Result<()> {
    if std::env::var_os("MAILGUARD_BIN").is_some() {
        return Ok(());
    }
    let program = build::release()?;
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("MAILGUARD_BIN", program) };
    Ok(())
}

/// Runs them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let baseline = arguments
        .baseline
        .as_ref()
        .map(|program| fs::canonicalize(program).with_context(|| program.display().to_string()));
    let baseline = baseline.transpose()?;
    let wanted = |what| arguments.what.is_none_or(|only| only == what);
    if wanted(What::Packet) {
        packet::run()?;
    }
    if wanted(What::Kernel) {
        kernel::run()?;
    }
    if wanted(What::Receive) {
        receive::run()?;
    }
    if wanted(What::Relay) {
        relay::run(baseline.as_deref())?;
    }
    if wanted(What::Delivery) {
        delivery::run()?;
    }
    if wanted(What::Queue) {
        queue::run()?;
    }
    if wanted(What::Memory) {
        memory::run(baseline.as_deref())?;
    }
    if wanted(What::Outage) {
        outage::run()?;
    }
    Ok(())
}
