//! mailguard's kernel side against nftables, each in namespaces of its own, in rounds that alternate: new
//! connections (`connections`), dropped packets (`drops`); and forwarding against nothing at all
//! (`forwarding`).
//!
//! Speeds are printed, not judged: only the ratios have aims. The load runs in this process, which cargo may
//! have built without optimising: it is system calls on data made ready before, so that hardly matters.

mod connections;
mod drops;
mod firewall;
mod forwarding;
mod sender;

use std::time::Duration;

use anyhow::Result;

use super::samples::Samples;
use crate::{build, setup};

/// Time before the first round, in which what a start has set in motion comes to rest.
const REST: Duration = Duration::from_millis(300);

/// A ratio that is to be higher than `above`.
struct Aim {
    what: String,
    ratio: f64,
    above: f64,
}

/// Measures everything, then says which aims were met.
pub(crate) fn run() -> Result<()> {
    setup::everything()?;
    build::ebpf()?;
    let program = build::example("bench_firewall")?;
    println!("kernel: load average before: {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    let mut aims = connections::run(&program)?;
    aims.extend(drops::run(&program)?);
    aims.extend(forwarding::run(&program)?);
    println!("\nkernel: aims");
    for aim in &aims {
        let met = if aim.ratio > aim.above { "met" } else { "missed" };
        println!("{:<66} {:>6.3}   aim: above {:<5} {met}", aim.what, aim.ratio, aim.above);
    }
    let missed = aims.iter().filter(|aim| aim.ratio <= aim.above).count();
    println!("kernel: {} of {} aims missed", missed, aims.len());
    Ok(())
}

/// So many rounds over all contestants, each round beginning with another one. `measure` is told which.
fn alternate<T>(
    contestants: &mut [T],
    rounds: usize,
    mut measure: impl FnMut(usize, &mut T) -> Result<()>,
) -> Result<()> {
    std::thread::sleep(REST);
    let count = contestants.len();
    for round in 0..rounds {
        for place in 0..count {
            let number = (round + place) % count;
            measure(number, &mut contestants[number])?;
        }
    }
    Ok(())
}

/// The head of a table of [`print_row`].
fn print_head(what: &str) {
    println!("\n{what:<52} {:>9} {:>9} {:>9}  samples", "min", "median", "max");
}

/// A line of it.
fn print_row(name: &str, samples: &Samples) {
    println!("{name:<52}  {}", samples.row(0));
}
