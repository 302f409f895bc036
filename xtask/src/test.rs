//! `cargo xtask test [SUITE]`: set-up, build, then every test or one suite of them. With `--stress`: which
//! unit tests depend on the scheduler.

use std::hint;
use std::num::NonZero;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail};

use crate::process::{self, repository};
use crate::{build, package, setup};

/// How long a test may take, and how many run at a time.
const NEXTEST_CONFIG: &str = ".config/nextest.toml";

/// How often `--stress` runs each unit test.
const STRESS_ROUNDS: &str = "50";

/// The suite that installs the package on a machine made for it. It needs an optimised build, and is none of
/// `cargo xtask ci`'s.
const PACKAGE: &str = "package";

/// What to run.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// core, common, scan, mailguard, xtask, a file of tests/tests, or package, which no run without a name
    /// includes
    suite: Option<String>,
    /// Run every unit test 50 times beside processors that are busy with something else; none may fail
    #[arg(long)]
    stress: bool,
}

/// Runs the tests: all, or those of one suite: a crate (`core`, `common`, `scan`, `mailguard`, `xtask`) or a
/// file of `tests/tests` (`kernel`, `flow`, `crash`, …).
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.suite.as_deref() == Some(PACKAGE) {
        return on_a_machine();
    }
    setup::everything()?;
    build::debug()?;
    let mut nextest = Command::new("cargo");
    nextest.args(["nextest", "run", "--config-file", NEXTEST_CONFIG]);
    match arguments.suite.as_deref() {
        None if arguments.stress => nextest.args(["--workspace", "--exclude", "mailguard-tests"]),
        None => nextest.arg("--workspace"),
        Some("core") => nextest.args(["-p", "mailguard-core"]),
        Some("common") => nextest.args(["-p", "mailguard-common"]),
        Some("scan") => nextest.args(["-p", "mailguard-scan"]),
        Some(package @ ("mailguard" | "xtask")) => nextest.args(["-p", package]),
        Some(file) if arguments.stress => bail!("--stress is for unit tests, which {file} holds none of"),
        Some(file) if is_test_file(file) => nextest.args(["-p", "mailguard-tests", "--test", file]),
        Some(other) => {
            bail!("no suite is called {other}: core, common, scan, mailguard, xtask or a file of tests/tests")
        }
    };
    nextest.current_dir(repository());
    if arguments.stress {
        nextest.args([
            "--stress-count",
            STRESS_ROUNDS,
            "--status-level",
            "fail",
            "--final-status-level",
            "fail",
        ]);
        return beside_load(|| process::run(&mut nextest));
    }
    process::run(&mut nextest)?;
    match arguments.suite.as_deref() {
        None | Some("core") => doctests(),
        Some(_) => Ok(()),
    }
}

/// The examples in the core's documentation, which nextest doesn't run.
fn doctests() -> Result<()> {
    let mut cargo = Command::new("cargo");
    process::run(cargo.args(["test", "--quiet", "--doc", "-p", "mailguard-core"]).current_dir(repository()))
}

/// Makes the package twice, the second one an upgrade of the first, and has both installed on a machine.
fn on_a_machine() -> Result<()> {
    setup::run(setup::Purpose::TestPackage)?;
    let [first, upgrade] = package::pair()?;
    process::run(Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(&first))?;
    let mut nextest = Command::new("cargo");
    nextest.args(["nextest", "run", "--config-file", NEXTEST_CONFIG, "-p", "mailguard-tests"]);
    nextest.args(["--features", PACKAGE, "--test", PACKAGE]).current_dir(repository());
    process::run(nextest.env("MAILGUARD_DEB", first).env("MAILGUARD_UPGRADE_DEB", upgrade))
}

/// Does `work` while as many loops as there are processors, and one more, want all of them.
fn beside_load<T>(work: impl FnOnce() -> T) -> T {
    let loops = thread::available_parallelism().map_or(1, NonZero::get) + 1;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..loops {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// Whether tests/tests holds a suite of this name, in one file or a folder.
fn is_test_file(name: &str) -> bool {
    let suites = repository().join("tests/tests");
    suites.join(format!("{name}.rs")).exists() || suites.join(name).join("main.rs").exists()
}
