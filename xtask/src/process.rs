//! Runs another program, or says exactly which one failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The repository's top folder.
pub(crate) fn repository() -> PathBuf {
    // xtask/ lies directly in it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_path_buf()
}

/// Runs `command` with our own terminal; an exit status other than 0 is an error that names it.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Runs `command` and returns what it printed, or nothing if it isn't there or fails.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `program` is found on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()))
}

/// Runs `program` in the repository's folder.
pub(crate) fn sh(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new(program).args(arguments).current_dir(repository()).stdin(Stdio::null()))
}

/// What `program`, run in the repository's folder, prints; its failure is an error.
pub(crate) fn read(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    let text = output_of(command.args(arguments).current_dir(repository()));
    text.with_context(|| format!("{command:?} failed"))
}
