//! `mailguard doctor`: what would break interception on this machine, and the command that mends it.
//!
//! `facts` reads what the system says, and changes nothing; `tool` runs the programs that say it. The other
//! files judge: pure functions from the texts and the configuration to findings. `ruleset` follows a `packet`
//! through a firewall's chains as `nftables` and `iptables` wrote them down, `journey` through all of them in
//! the kernel's order; `firewall` says what that means for us, `forward` what it meant for the clients before
//! us. `watch` looks at the rules for the daemon, too.

mod daemon;
mod facts;
mod firewall;
mod forward;
mod ground;
mod hops;
mod interfaces;
mod iptables;
mod journey;
mod nftables;
mod packet;
mod ports;
mod presence;
mod ranges;
mod routing;
mod ruleset;
mod settings;
mod system;
mod tool;
mod watch;

use std::path::Path;

use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;
use serde::{Deserialize, Serialize};

use crate::config::{self, LastApplied, Located, Source};
use crate::datapath::Hook;
use facts::Facts;
pub use watch::FirewallWatch;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Interception doesn't work, or the daemon won't start.
    Error,
    /// Something isn't intercepted, will be surprising, or couldn't be checked.
    Warning,
    /// Looked at, and fine.
    Ok,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked, a fixed word: `input-firewall`.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with names and values.
    pub what: String,
    /// Why it matters, and what to do where no command does it; empty when all is well.
    pub why: String,
    /// Commands for a shell of root that mend it, in this order.
    pub commands: Vec<String>,
}

impl Finding {
    fn new(check: &str, severity: Severity, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { check: check.to_owned(), severity, what: what.into(), why: why.into(), commands: Vec::new() }
    }

    fn ok(check: &str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, what, "")
    }

    fn warning(check: &str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, what, why)
    }

    fn error(check: &str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(check, Severity::Error, what, why)
    }

    fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Runs every check of this machine for the configuration at `path`. `validate` says what the parts that use
/// a configuration find wrong with it. Needs root; works with and without a daemon.
pub fn run_checks(path: &Path, validate: impl Fn(&Source, &Config) -> Result<Vec<String>, String>) -> Report {
    let fail = |text: String| {
        let why = format!("{} Nothing else can be checked before it is right.", without_the_file(path));
        Report { findings: vec![Finding::error("configuration", text, why)] }
    };
    let source = match config::load(path) {
        Ok(source) => source,
        Err(error) => return fail(error.to_string()),
    };
    let config = match config::parse_and_validate(&source) {
        Ok(config) => config,
        Err(errors) => return fail(errors.to_string()),
    };
    let tried = validate(&source, &config);
    let config = interfaces::by_real_names(config, &facts::links());
    let file = File { path, text: &source.text };
    let mut findings = judge(&config, &file, &Facts::gather(&config));
    findings.extend(hops::judge(&hops::ask(&config)));
    findings.extend(judge_trial(tried));
    Report { findings }
}

/// What the daemon does while the configuration file at `path` can't be used.
fn without_the_file(path: &Path) -> String {
    let version = match LastApplied::of_this_machine().load(path) {
        Ok(None) => return "The daemon doesn't start with it.".to_owned(),
        Ok(Some(version)) => version,
        Err(error) => {
            return format!("The daemon doesn't start with it, nor with what was applied last: {error}.");
        }
    };
    let applied_at = version.applied_at.rfc3339();
    match config::parse_and_validate(&version.source) {
        // Whoever wrote the file since wants something else.
        Ok(config) if !config.enabled => "The daemon doesn't start with it.".to_owned(),
        Ok(_) => format!(
            "Until it is mended the daemon starts with what was applied at {applied_at}, and says so in its status."
        ),
        Err(errors) => {
            let first =
                errors.iter().next().map(|Located { key, message, .. }| format!(": {key}: {message}"));
            let first = first.unwrap_or_default();
            format!(
                "The daemon doesn't start with it, nor with what was applied at {applied_at}, which doesn't check either{first}."
            )
        }
    }
}

/// What came of trying what the mail user will do: what is wrong, or what couldn't be tried.
fn judge_trial(tried: Result<Vec<String>, String>) -> Vec<Finding> {
    const CHECK: &str = "mail-user";
    match tried {
        Ok(untried) if untried.is_empty() => {
            vec![Finding::ok(CHECK, "rules, keys and folders were tried as the mail user")]
        }
        // Why is somebody else's finding: no user, no folder yet.
        Ok(untried) => untried.into_iter().map(|what| Finding::ok(CHECK, what)).collect(),
        Err(error) => {
            let why = "The mail process can't do its work by it. The daemon doesn't start, or, where rules or keys are at fault, starts \
                       with what was applied last.";
            vec![Finding::error(CHECK, error, why)]
        }
    }
}

/// What the firewall's rules do to mail, and to what `source` says: the part of [`run_checks`] that a running
/// daemon looks at.
pub fn check_firewall(source: &Source, config: &Config) -> Vec<Finding> {
    let file = File { path: &source.path, text: &source.text };
    firewall::judge(config, &file, &facts::firewall(&config.user))
}

/// The configuration file, for commands that edit it.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    /// The command that puts `new` in place of the interface `old`, if the name stands in exactly one line.
    fn replace(&self, old: &str, new: &str) -> Option<String> {
        let quoted = format!("\"{old}\"");
        let mut lines = self
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(&quoted) && !line.trim_start().starts_with('#'));
        let (Some((index, _)), None) = (lines.next(), lines.next()) else { return None };
        // Characters that mean something to sed or the shell don't occur in the names of real interfaces.
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@:\", ".contains(c));
        if !plain(old) || !plain(new) {
            return None;
        }
        let pattern = quoted.replace('.', "\\.");
        Some(format!("sed -i '{}s/{pattern}/{new}/' {}", index + 1, shell(&self.path.to_string_lossy())))
    }
}

impl File<'_> {
    /// The command that adds `line` to the zone, if its name stands in exactly one line.
    fn add_to_zone(&self, zone: &str, line: &str) -> Option<String> {
        let names = |line: &str| {
            let value = line.trim_start().strip_prefix("name").map(str::trim_start);
            let value = value.and_then(|rest| rest.strip_prefix('=')).map(str::trim_start);
            value.is_some_and(|value| value.starts_with(&format!("\"{zone}\"")))
        };
        let mut lines = self.text.lines().enumerate().filter(|(_, line)| names(line));
        let (Some((index, _)), None) = (lines.next(), lines.next()) else { return None };
        Some(format!("sed -i '{}a {line}' {}", index + 1, shell(&self.path.to_string_lossy())))
    }
}

/// `word` as a shell takes it.
fn shell(word: &str) -> String {
    if word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:=@,".contains(c)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The interfaces of the zones in this mode, with their zones' names.
fn interfaces_in(config: &Config, mode: ZoneMode) -> Vec<&str> {
    let zones = config.zones.iter().filter(|zone| zone.mode == mode);
    zones.flat_map(|zone| zone.interfaces.iter().map(String::as_str)).collect()
}

fn judge(config: &Config, file: &File<'_>, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![match config.enabled {
        true => Finding::ok("configuration", format!("{} loads", file.path.display())),
        false => Finding::warning(
            "configuration",
            format!("{}: enabled = false", file.path.display()),
            "Nothing is intercepted: set enabled = true. What follows is what would hold then.",
        ),
    }];
    findings.extend(daemon::judge(config, &facts.daemon));
    findings.extend(presence::judge(
        config,
        &facts.daemon,
        &interfaces::names(&facts.links),
        &facts.routing,
        (Hook::of_this_kernel() == Hook::Tcx).then_some(&facts.programs),
    ));
    findings.extend(system::judge(config, &facts.system));
    findings.extend(interfaces::judge(config, file, &facts.links, &facts.programs));
    findings.extend(settings::judge(config, &facts.settings, &facts.default_routes));
    findings.extend(routing::judge(config, &facts.routing));
    findings.extend(firewall::judge(config, file, &facts.firewall));
    findings.extend(ports::judge(config, &facts.sockets));
    findings
}

#[cfg(test)]
mod tests;
