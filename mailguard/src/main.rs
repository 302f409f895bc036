//! The program `mailguard`: command line, datapath process and mail process in one.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;

use mailguard::cli::{self, Processes};
use mailguard::config::{Located, Source};
use mailguard::datapath::Unloaded;
use mailguard::doctor::{self, Report};
use mailguard::names;
use mailguard::process::{self, RunError, mail, supervisor, trial};
use mailguard::store::spool::inspect::{self, Exported, Inspection};
use mailguard_core::config::Config;
use mimalloc::MiMalloc;

/// Of all processes. The C library's keeps what large messages took, for good (docs/adr/0024).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

struct Program;

impl Processes for Program {
    fn run(&self, config: &Path) -> anyhow::Result<()> {
        Ok(supervisor::run(config)?)
    }

    fn mail(&self, channel: RawFd) -> anyhow::Result<()> {
        mail::run(channel)
    }

    fn names(&self) -> anyhow::Result<()> {
        Ok(names::resolver::run()?)
    }

    fn unload(&self, pin_dir: Option<&Path>) -> anyhow::Result<Vec<String>> {
        let unloaded = supervisor::unload(pin_dir)?;
        let Unloaded { programs, maps, routes, sessions, sessions_kept } = unloaded;
        if let Some(reason) = sessions_kept {
            eprintln!("mailguard: {reason}");
        }
        let counts = [
            (programs, "attached programs"),
            (maps, "pinned maps"),
            (routes, "policy rules and routes"),
            (sessions, "closed sessions"),
        ];
        Ok(counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect())
    }

    fn trial(&self) -> anyhow::Result<()> {
        trial::run()
    }

    fn exit_code(&self, error: &anyhow::Error) -> Option<u8> {
        error.downcast_ref::<RunError>().and_then(RunError::exit_code)
    }

    fn validate(&self, source: &Source, config: &Config) -> anyhow::Result<Vec<String>> {
        process::validate(source, config)
    }

    fn warnings(&self, source: &Source, config: &Config) -> Vec<Located> {
        process::warnings(source, config)
    }

    fn check_store(&self, state_dir: &Path) -> anyhow::Result<Inspection> {
        Ok(inspect::check(state_dir)?)
    }

    fn export_store(&self, state_dir: &Path, to: &Path) -> anyhow::Result<Exported> {
        Ok(inspect::export(state_dir, to)?)
    }

    fn doctor(&self, config: &Path) -> anyhow::Result<Report> {
        if !nix::unistd::geteuid().is_root() {
            anyhow::bail!("mailguard doctor needs root: it looks at the kernel and at other processes");
        }
        Ok(doctor::run_checks(config, |source, config| {
            self.validate(source, config).map_err(|error| error.to_string())
        }))
    }
}

fn main() -> ExitCode {
    cli::main(&Program)
}
