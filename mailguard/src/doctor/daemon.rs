//! Whether a daemon runs, and what becomes of port 25 if none does.

use std::fs;

use mailguard_core::config::Config;
use mailguard_core::config::model::OnProxyDown;

use super::Finding;
use crate::admin::request::Processes;
use crate::admin::{Process, SYSTEM_PROBLEM};
use crate::control::{Client, ClientError, root_socket};

/// What was heard of the daemon.
pub(super) enum Daemon {
    /// It answers.
    Runs {
        /// The kernel side takes the proxy for alive.
        alive: bool,
        /// What it says is the matter.
        problems: Vec<String>,
        /// The interfaces that it serves: the file may name others since.
        serves: Vec<String>,
        /// That it doesn't run by the file, and why, if that is so.
        stand_in: Option<String>,
    },
    /// None; so many programs of an earlier one are attached.
    Down { attached: usize },
    /// It is there and doesn't answer as it should.
    Odd(String),
}

/// Asks it.
pub(super) fn read(config: &Config) -> Daemon {
    let asked = Client::connect(&root_socket(&config.runtime_dir), Process::Datapath)
        .and_then(|mut client| client.ask(Processes {}));
    match asked {
        // With `enabled = false` there is no kernel side that could take it for dead.
        Ok(report) => {
            let alive = report.kernel.as_ref().is_none_or(|kernel| kernel.proxy_alive);
            let interfaces = report.kernel.map(|kernel| kernel.interfaces).unwrap_or_default();
            Daemon::Runs {
                alive,
                serves: interfaces.into_iter().map(|interface| interface.name).collect(),
                stand_in: report.stand_in.map(|stand_in| stand_in.problem(&report.config)),
                problems: report.problems,
            }
        }
        Err(ClientError::NotRunning(_)) => {
            let links = fs::read_dir(config.kernel.pin_dir.join("links"));
            Daemon::Down { attached: links.map_or(0, Iterator::count) }
        }
        Err(error) => Daemon::Odd(error.to_string()),
    }
}

/// What that means.
pub(super) fn judge(config: &Config, daemon: &Daemon) -> Vec<Finding> {
    let consequence = match config.kernel.on_proxy_down {
        OnProxyDown::Block => "no new connection to port 25 gets through (on_proxy_down = \"block\")",
        OnProxyDown::Bypass => "mail passes unfiltered (on_proxy_down = \"bypass\")",
    };
    let mut findings = vec![match daemon {
        Daemon::Runs { alive: true, .. } => {
            Finding::ok("daemon", "the daemon runs and the kernel side knows it")
        }
        Daemon::Runs { alive: false, .. } => Finding::error(
            "daemon",
            "the daemon answers, but the kernel side takes the proxy for dead",
            format!("Its sign of life is more than three seconds old: {consequence}. See its log."),
        ),
        Daemon::Down { attached: 0 } => {
            Finding::ok("daemon", "no daemon runs, and nothing of one is attached")
        }
        Daemon::Down { attached } => Finding::warning(
            "daemon",
            format!("no daemon runs, but {attached} programs of an earlier one are attached"),
            format!("So {consequence}. Start the daemon (mailguard run), or remove them."),
        )
        .command("mailguard unload"),
        Daemon::Odd(reason) => Finding::warning(
            "daemon",
            format!("a daemon is there, but doesn't answer as it should: {reason}"),
            format!("If it hangs, {consequence}. See its log."),
        ),
    }];
    // The file is right by now, or nobody would be here.
    if let Daemon::Runs { stand_in: Some(stand_in), .. } = daemon {
        let why = "What was changed in the file since then isn't in force.";
        findings.push(Finding::error("configuration-in-force", stand_in, why).command("mailguard reload"));
    }
    if let Daemon::Runs { problems, .. } = daemon {
        let of_system = problems.iter().filter(|problem| problem.starts_with(SYSTEM_PROBLEM));
        let why = "The daemon says so: see `mailguard status`.";
        findings.extend(of_system.map(|problem| Finding::warning("daemon-problem", problem, why)));
    }
    findings
}
