//! `cargo xtask`: everything that is done to this repository, one subcommand a file.
//!
//! It installs what is missing (`setup`), builds the kernel part and embeds it (`build`), and drives what needs
//! root: loading by hand, tests in namespaces, benchmarks. It holds no logic of mailguard itself.

mod bench;
mod build;
mod load;
mod process;
mod setup;

use clap::{Parser, Subcommand};

/// Set-up, build, tests and benchmarks of mailguard.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need: packages, the eBPF toolchain, cargo tools
    Setup(setup::Arguments),
    /// Build the kernel part, then the mailguard binary that carries it
    Build(build::Arguments),
    /// Attach the kernel programs to one interface, for trying by hand
    Load(load::LoadArguments),
    /// Remove what `load` attached
    Unload(load::UnloadArguments),
    /// Measure, and print raw samples
    Bench(bench::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Load(arguments) => load::load(&arguments),
        Command::Unload(arguments) => load::unload(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    }
}
