//! `cargo xtask test [SUITE]`: set-up, build, then every test or one suite of them.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, repository};
use crate::{build, setup};

/// How long a test may take, and which tests run alone.
const NEXTEST_CONFIG: &str = ".config/nextest.toml";

/// Runs the tests: all, or those of one suite: a crate (`core`, `common`, `mailguard`, `xtask`) or a file of
/// `tests/tests` (`kernel`, `flow`, `crash`, …).
pub(crate) fn run(suite: Option<&str>) -> Result<()> {
    setup::everything()?;
    build::debug()?;
    let mut nextest = Command::new("cargo");
    nextest.args(["nextest", "run", "--config-file", NEXTEST_CONFIG]);
    match suite {
        None => nextest.arg("--workspace"),
        Some("core") => nextest.args(["-p", "mailguard-core"]),
        Some("common") => nextest.args(["-p", "mailguard-common"]),
        Some(package @ ("mailguard" | "xtask")) => nextest.args(["-p", package]),
        Some(file) if is_test_file(file) => nextest.args(["-p", "mailguard-tests", "--test", file]),
        Some(other) => {
            bail!("no suite is called {other}: core, common, mailguard, xtask or a file of tests/tests")
        }
    };
    process::run(nextest.current_dir(repository()))
}

/// Whether tests/tests holds a suite of this name, in one file or a folder.
fn is_test_file(name: &str) -> bool {
    let suites = repository().join("tests/tests");
    suites.join(format!("{name}.rs")).exists() || suites.join(name).join("main.rs").exists()
}
