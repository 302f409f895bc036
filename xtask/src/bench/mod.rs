//! `cargo xtask bench`: measurements, each with its raw samples.

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs them.
pub(crate) fn run(_arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("nothing to measure")
}
