//! `cargo xtask`: everything that is done to this repository, one subcommand a file.
//!
//! It installs what is missing (`setup`), builds the kernel part and embeds it (`build`), and drives what
//! needs root: loading by hand, tests in namespaces, benchmarks. It holds no logic of mailguard itself.

mod bench;
mod build;
mod ci;
mod crash;
mod demo;
mod fuzz;
mod load;
mod package;
mod process;
mod sabotage;
mod setup;
mod test;
mod tidy;
mod verify;
mod vm;

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
    /// Make the Debian package, and one with the debug symbols
    Package(package::Arguments),
    /// Attach the kernel programs to one interface, for trying by hand
    Load(load::LoadArguments),
    /// Remove what `load` attached
    Unload(load::UnloadArguments),
    /// Run every test, or one suite
    Test(test::Arguments),
    /// Load every kernel program here, and say what each costs the verifier
    Verify(verify::Arguments),
    /// The same, and the tests of the kernel side, on the oldest kernel at hand: Debian's 6.1 in a virtual
    /// machine
    Vm,
    /// Send real mail through mailguard between namespaces and judge it from outside
    Demo,
    /// Take disk and processes away from under a busy mailguard, in rounds of chance
    Crash(crash::Arguments),
    /// Measure, and print raw samples
    Bench(bench::Arguments),
    /// Break each promise in a scratch copy and expect its test to fail
    Sabotage {
        /// Only patches whose name holds this
        name: Option<String>,
    },
    /// Feed the parsers with mutated input
    Fuzz {
        /// Seconds a target
        #[arg(default_value_t = 60)]
        seconds: u64,
        /// Only this target
        target: Option<String>,
    },
    /// Check documents, file sizes and the table of features
    Tidy,
    /// Everything that must pass before a change is taken
    Ci,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Setup(arguments) => setup::asked(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Load(arguments) => load::load(&arguments),
        Command::Unload(arguments) => load::unload(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Vm => vm::run(),
        Command::Demo => demo::run(),
        Command::Crash(arguments) => crash::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Sabotage { name } => sabotage::all(name.as_deref()),
        Command::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()),
        Command::Tidy => tidy::run(),
        Command::Ci => ci::run(),
    }
}
