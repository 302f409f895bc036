//! The command line. It holds no state and reads no database: it asks the running daemon over the control
//! socket and prints the answer. `run`, `mail`, `unload`, `doctor` and `store` are [`Processes`], which
//! `main` hands in.

mod args;
mod bans;
mod check;
mod daemon;
mod doctor;
mod files;
mod kernel;
mod terminal;
mod lists;
mod messages;
mod rbl;
mod route;
mod status;
mod store;
mod traces;
mod values;

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use mailguard_core::config::Config;
use mailguard_core::mail::UnixTime;
use serde::Serialize;

use crate::admin::request::Trace;
use crate::admin::{AdminError, ErrorKind};
use crate::config::{self, Located, Source};
use crate::control::{ClientError, signposted};
use crate::doctor::Report;
use crate::store::spool::inspect::{Exported, Inspection};
use args::{Args, Command, Output};
use daemon::Daemon;

/// What the program can be besides a client of the daemon.
pub trait Processes {
    /// The datapath process, until it ends. Sets its own log up.
    fn run(&self, config: &Path) -> anyhow::Result<()>;
    /// The mail process, which finds the socket pair to the datapath process under `channel`.
    fn mail(&self, channel: RawFd) -> anyhow::Result<()>;
    /// The process that asks the DNS for `bypass.to_names`, over its standard input and output.
    fn names(&self) -> anyhow::Result<()>;
    /// What the mail user will do, tried as that user: the source comes by standard input, what is wrong goes
    /// to standard output.
    fn trial(&self) -> anyhow::Result<()>;
    /// Removes from the kernel what has this `pin_dir`, or what the last one here had if none is known,
    /// unless a daemon runs here; what was removed, one line each.
    fn unload(&self, pin_dir: Option<&Path>) -> anyhow::Result<Vec<String>>;
    /// What only the modules themselves can find wrong with a configuration, such as YARA rules that don't
    /// compile, and what keeps the mail user from doing its work on this machine. Returns what couldn't be
    /// tried, a line each.
    fn validate(&self, source: &Source, config: &Config) -> anyhow::Result<Vec<String>>;
    /// What a configuration that can be used will surprise with.
    fn warnings(&self, source: &Source, config: &Config) -> Vec<Located>;
    /// Looks at everything in the spool in this `state_dir`.
    fn check_store(&self, state_dir: &Path) -> anyhow::Result<Inspection>;
    /// Writes every message of it into the folder `to`.
    fn export_store(&self, state_dir: &Path, to: &Path) -> anyhow::Result<Exported>;
    /// The exit code for this error, if it isn't 1.
    fn exit_code(&self, error: &anyhow::Error) -> Option<u8>;
    /// What on this machine would break interception under the configuration at this path.
    fn doctor(&self, config: &Path) -> anyhow::Result<Report>;
}

/// What can be typed, for manual pages and completions.
pub fn command() -> clap::Command {
    Args::command()
}

/// The exit code of what isn't understood: by clap, or by the daemon.
const EXIT_NOT_UNDERSTOOD: u8 = 2;

/// Parses the arguments and does what they say. Exit codes: 0 done, 1 failed, 2 not understood, and what
/// [`Processes::exit_code`] says. docs/administration.md has them.
pub fn main(processes: &impl Processes) -> ExitCode {
    let args = Args::parse();
    let now = UnixTime::from(SystemTime::now());
    let printed = perform(args, processes, now).unwrap_or_else(|error| failed(&error, processes));
    // Nobody is left to be told if this fails, too.
    let _ = io::stderr().write_all(printed.complaint.as_bytes());
    match io::stdout().write_all(printed.text.as_bytes()).and_then(|()| io::stdout().flush()) {
        // `mailguard queue list | head` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "mailguard: can't write the result: {error}");
            ExitCode::FAILURE
        }
        _ if printed.complaint.is_empty() && !printed.failed => ExitCode::SUCCESS,
        _ => printed.code.map_or(ExitCode::FAILURE, ExitCode::from),
    }
}

fn failed(error: &anyhow::Error, processes: &impl Processes) -> Printed {
    let of_daemon = || match error.downcast_ref() {
        Some(ClientError::Refused(AdminError { kind, .. })) => exit_code(*kind),
        _ => None,
    };
    let code = processes.exit_code(error).or_else(of_daemon);
    Printed { complaint: complaint(error), code, ..Printed::default() }
}

/// The exit code for what the daemon says, if it isn't 1.
fn exit_code(kind: ErrorKind) -> Option<u8> {
    match kind {
        ErrorKind::Invalid => Some(EXIT_NOT_UNDERSTOOD),
        ErrorKind::NotFound
        | ErrorKind::Refused
        | ErrorKind::Failed
        | ErrorKind::Unavailable
        | ErrorKind::Other => None,
    }
}

/// An error with its causes, less those that an error names in its own words already.
fn complaint(error: &anyhow::Error) -> String {
    let mut text = format!("mailguard: {error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text + "\n"
}

/// What a command says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Printed {
    /// For standard output.
    text: String,
    /// For standard error; whoever complains has failed.
    complaint: String,
    /// Failed without a complaint: what was found is the result.
    failed: bool,
    /// Another exit code for a failure than 1.
    code: Option<u8>,
}

impl Printed {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// JSON or, for people, what `text` makes.
    fn result(output: Output, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<Self> {
        if output.json {
            Ok(Self::text(terminal::json(value).context("can't be written as JSON")?))
        } else {
            Ok(Self::text(text()))
        }
    }
}

fn perform(args: Args, processes: &impl Processes, now: UnixTime) -> anyhow::Result<Printed> {
    let connect = || daemon_of(&args.config);
    match args.command {
        Command::Run => processes.run(&args.config).map(|()| Printed::default()),
        Command::Mail { channel } => processes.mail(channel).map(|()| Printed::default()),
        Command::Names => processes.names().map(|()| Printed::default()),
        Command::Trial => processes.trial().map(|()| Printed::default()),
        Command::Check { file, output } => {
            check::check(file.as_deref().unwrap_or(&args.config), output, processes)
        }
        Command::Doctor { output } => doctor::doctor(output, &processes.doctor(&args.config)?),
        Command::Unload { output } => {
            // Of all commands this one must not depend on a file: it opens port 25 again.
            let (places, complaint) = match config::places(&args.config) {
                Ok(places) => (Some(places), String::new()),
                Err(error) => {
                    (None, format!("mailguard: {error}: unloading what the last mailguard here left\n"))
                }
            };
            let removed = processes.unload(places.as_ref().map(|places| places.pin_dir.as_path()))?;
            Ok(Printed { complaint, ..status::unloaded(output, &removed)? })
        }
        Command::Status { output } => status::status(&mut connect()?, output, now),
        Command::Reload { output } => status::reload(&mut connect()?, output),
        Command::Bypass(command) => lists::lists(&mut connect()?, command),
        Command::Blacklist(command) => lists::lists(&mut connect()?, command),
        Command::Rbl(command) => rbl::rbl(&args.config, connect, command),
        Command::Files(command) => files::files(command),
        Command::Ban(command) => bans::bans(&mut connect()?, command, now),
        Command::Queue(command) => messages::queue(&mut connect()?, command, now),
        Command::Quarantine(command) => messages::quarantine(&mut connect()?, command, now),
        Command::Route { recipient, sender, output } => {
            route::route(&mut connect()?, recipient, sender, output)
        }
        Command::Store(command) => store::store(processes, &config::places(&args.config)?.state_dir, command),
        Command::Trace { query, full, output } => {
            let rows = connect()?.ask(Trace { query: query.join(" ") })?;
            Printed::result(output, &rows, || traces::print(&rows, full, now))
        }
    }
}

/// The daemon that runs by this configuration. It leads us there itself, whether or not the file may be read,
/// is there, or says the same as when it was started; what it answers is up to its sockets.
fn daemon_of(path: &Path) -> anyhow::Result<Daemon> {
    if let Some(runtime_dir) = signposted(path) {
        return Ok(Daemon::of(&runtime_dir));
    }
    match config::places(path) {
        Ok(places) => Ok(Daemon::of(&places.runtime_dir)),
        Err(error) if error.is_permission() => {
            bail!("{error}, and no mailguard runs by this file: start it, or run this as root")
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
