//! `cargo xtask fuzz [SECONDS] [TARGET]`: feeds each parser of foreign bytes with mutations of its seeds.
//!
//! The targets stand in `fuzz/fuzz_targets`, their seeds, kept under version control, in `fuzz/seeds`; what
//! the fuzzer finds on the way goes to `fuzz/corpus`, what breaks a target to `fuzz/artifacts`.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, repository};

/// Seconds a target in `ci`.
pub(crate) const SHORT: u64 = 10;

/// Runs every target, or the one of this name, for `seconds`; the first crash, leak or timeout is an error.
pub(crate) fn run(seconds: u64, only: Option<&str>) -> Result<()> {
    let mut targets = targets()?;
    targets.retain(|target| only.is_none_or(|only| only == target));
    if targets.is_empty() {
        bail!("no such target in fuzz/fuzz_targets");
    }
    process::run(fuzz().args(["build"]))?;
    for target in &targets {
        let (corpus, seeds) = (format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}"));
        if fs::read_dir(repository().join(&seeds)).map_or(0, Iterator::count) == 0 {
            bail!("{seeds} holds no seeds");
        }
        fs::create_dir_all(repository().join(&corpus))?;
        let bounds =
            [format!("-max_total_time={seconds}"), "-timeout=10".into(), "-rss_limit_mb=1024".into()];
        process::run(fuzz().args(["run", target, &corpus, &seeds, "--"]).args(bounds))?;
    }
    println!("{} passed, 0 failed", targets.len());
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(repository().join("fuzz/fuzz_targets"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// The sanitizers are unstable options; the pinned compiler knows them, so no second toolchain is needed.
fn fuzz() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg("fuzz").current_dir(repository()).env("RUSTC_BOOTSTRAP", "1");
    cargo
}
