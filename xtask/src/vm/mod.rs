//! `cargo xtask vm`: the kernel side on the oldest kernel that Debian supports, in a virtual machine without
//! any help of the processor, so that it runs everywhere.
//!
//! Its verifier is far more laborious than today's, it lacks TCX, and its helpers are older: what passes here
//! and on the developer's own kernel can be expected to pass in between. In there run `cargo xtask verify`
//! and the scenarios of the suite `kernel` that are named below.

mod image;
mod kernel;
mod machine;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::image::Image;
use self::machine::Outcome;
use crate::process::{output_of, repository};
use crate::{build, setup};

/// Tests of `tests/tests/kernel`, by the beginning of their names. They are those that show what may differ
/// between kernels; the rest would show nothing new and costs time.
const SCENARIOS: &[&str] = &[
    "blacklist::",
    "bypass::",
    "evasion::",
    "intercept::",
    "lifecycle::",
    "links::",
    "own_addresses::a_network",
    "programs::",
];

/// Tests among them that are about TCX, which this kernel doesn't have.
const ABOUT_TCX: &[&str] = &["lifecycle::a_restart_mends_what_is_missing_and_drops_what_is_left_over"];

/// Tests among them that run mailguard itself, which isn't in there: the programs in the kernel are tried
/// without it.
const WITH_MAILGUARD: &[&str] =
    &["links::an_interface_that_is_moved_away_from_a_killed_program_is_let_alone"];

/// Programs that the tests call.
const PROGRAMS: &[&str] = &["ip", "nft", "nsenter", "ss", "sysctl", "tc"];

/// Runs everything in the virtual machine; an error names what failed there.
pub(crate) fn run() -> Result<()> {
    setup::everything()?;
    build::debug()?;
    let tests = suite()?;
    let kernel = kernel::fetch()?;
    let folder = repository().join("target/vm");
    let mut image = Image::new(&folder.join("root"))?;
    image.add_kernel_modules(&kernel)?;
    for program in PROGRAMS {
        image.add_program(&image::find(program)?, program)?;
    }
    image.add_program(&std::env::current_exe()?, "xtask")?;
    image.add_program(&tests, "kernel-tests")?;
    image.add_file(&repository().join("target/bpf/mailguard.bpf.o"), "mailguard.bpf.o")?;
    let parts =
        [("verify", "xtask verify --object /mailguard.bpf.o".to_owned()), ("kernel-suite", suite_command())];
    image.add_parts(&parts)?;
    let archive = image.pack(&folder.join("initramfs"))?;
    let outcome = machine::boot(&kernel.image, &archive)?;
    judge(&parts.map(|(name, _)| name), &outcome)
}

/// Every part came to its end, and well.
fn judge(parts: &[&str], outcome: &Outcome) -> Result<()> {
    let failed: Vec<String> = parts
        .iter()
        .filter_map(|part| match outcome.codes.get(*part) {
            Some(0) => None,
            Some(code) => Some(format!("{part} ended with exit code {code}")),
            None => Some(format!("{part} never ran")),
        })
        .collect();
    if !failed.is_empty() {
        bail!("on kernel {}: {}; its output is above", outcome.kernel, failed.join(", "));
    }
    println!("vm: all passed on kernel {} in {} s", outcome.kernel, outcome.took.as_secs());
    Ok(())
}

/// Builds the suite `kernel` and returns its program; each of the scenarios must be in it.
fn suite() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "mailguard-tests", "--test", "kernel", "--no-run"]);
    cargo.args(["--message-format", "json"]).current_dir(repository());
    let messages = output_of(&mut cargo).context("the suite kernel didn't build: cargo xtask test kernel")?;
    let program = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kernel")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no program of the suite kernel")?;
    let tests = output_of(Command::new(&program).arg("--list")).context("the suite kernel lists no tests")?;
    let mut named = SCENARIOS.iter().chain(ABOUT_TCX).chain(WITH_MAILGUARD);
    match named.find(|name| !tests.lines().any(|test| test.starts_with(**name))) {
        Some(name) => {
            bail!("no test of the suite kernel begins with {name}, which xtask/src/vm/mod.rs names")
        }
        None => Ok(program),
    }
}

/// How the suite is run in the virtual machine.
fn suite_command() -> String {
    let skipped: String =
        ABOUT_TCX.iter().chain(WITH_MAILGUARD).map(|test| format!(" --skip {test}")).collect();
    format!("kernel-tests --test-threads=1 {}{skipped}", SCENARIOS.join(" "))
}
