//! What a long queue costs: time and memory of a start, and the pace of new messages beside it, by the number
//! of messages that wait. Each number is a process of its own.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::output_of;
use crate::{build, setup};

/// Messages that wait.
const WAITING: [u64; 4] = [0, 10_000, 100_000, 1_000_000];

/// Measures and prints the table.
pub(crate) fn run() -> Result<()> {
    setup::everything()?;
    build::release()?;
    let program = build::example("bench_queue")?;
    println!(
        "{:>9} {:>10} {:>10} {:>12} {:>11} {:>9}",
        "waiting", "open s", "start s", "memory MiB", "octets each", "new/s"
    );
    for waiting in WAITING {
        let said =
            output_of(Command::new(&program).arg(waiting.to_string())).context("bench_queue failed")?;
        let figures: Value = serde_json::from_str(said.trim())?;
        let figure = |name: &str| figures[name].as_f64().unwrap_or_default();
        let kib = figure("memory_kib");
        println!(
            "{waiting:>9} {:>10.2} {:>10.2} {:>12.1} {:>11.0} {:>9.0}",
            figure("open_seconds"),
            figure("start_seconds"),
            kib / 1024.0,
            kib * 1024.0 / waiting.max(1) as f64,
            figure("new_messages_a_second"),
        );
    }
    Ok(())
}
