//! `mailguard status`, `reload` and `unload`.

use std::fmt::Write;

use mailguard_core::mail::UnixTime;
use serde::Serialize;
use serde_json::json;

use super::args::Output;
use super::check::inactive;
use super::daemon::{Daemon, Known};
use super::terminal::{Table, ago, messages, plain, size, span};
use super::{Printed, kernel};
use crate::admin::request::Reload;
use crate::admin::{MailProcess, ProcessReport, Reloaded, StatusReport, ZoneStatus};
use crate::control::ClientError;

/// What both processes say, as JSON.
#[derive(Serialize)]
struct Everything<'a> {
    #[serde(flatten)]
    report: &'a StatusReport,
    /// Absent where this user may not ask.
    processes: Option<&'a ProcessReport>,
}

/// What is known while the mail process says nothing, as JSON: each part where it is otherwise.
#[derive(Serialize)]
struct WithoutMail<'a> {
    /// That it says nothing.
    problems: &'a [String],
    processes: &'a ProcessReport,
}

/// Shows what runs: all of it, or what the datapath process knows while the mail process says nothing.
pub(super) fn status(daemon: &mut Daemon, output: Output, now: UnixTime) -> anyhow::Result<Printed> {
    let Known { mail, processes } = daemon.known()?;
    match (mail, processes) {
        (Ok(report), processes) => {
            let all = Everything { report: &report, processes: processes.as_ref() };
            Printed::result(output, &all, || print_status(&report, processes.as_ref(), now))
        }
        (Err(error), None) => Err(error.into()),
        (Err(error), Some(report)) => {
            let problems = [no_word(&report, &error)];
            let all = WithoutMail { problems: &problems, processes: &report };
            let printed = Printed::result(output, &all, || print_processes(&all, now))?;
            Ok(Printed { failed: true, ..printed })
        }
    }
}

/// That the mail process says nothing, and what to do.
fn no_word(report: &ProcessReport, error: &ClientError) -> String {
    match report.mail {
        MailProcess { pid: None, .. } => "no mail process runs now; it is started anew by itself".to_owned(),
        MailProcess { silent_milliseconds: None, .. } => {
            "the mail process is starting: it looks at everything that waits".to_owned()
        }
        MailProcess { pid: Some(pid), silent_milliseconds: Some(silent), .. } => format!(
            "the mail process ({pid}) doesn't answer, its last sign of life is {} s old: if it hangs, it is ended and \
             started anew by itself ({error})",
            silent / 1_000
        ),
    }
}

/// What the datapath process knows, and what there is to say of the mail process.
fn print_processes(all: &WithoutMail<'_>, now: UnixTime) -> String {
    let WithoutMail { problems, processes: report } = all;
    let mut text = format!(
        "mailguard {} on {}, running for {}\nconfiguration {}\n",
        report.version,
        report.hostname,
        span(now.since(report.started_at)),
        report.config.display(),
    );
    for problem in report.problems.iter().chain(*problems) {
        let _ = writeln!(text, "PROBLEM: {}", plain(problem));
    }
    text.push('\n');
    ended(&mut text, &report.mail, now);
    if let Some(status) = &report.kernel {
        kernel::print(&mut text, status);
    }
    text
}

/// How mail processes ended, if any did.
fn ended(text: &mut String, mail: &MailProcess, now: UnixTime) {
    let (Some(at), Some(cause)) = (mail.last_ended_at, &mail.last_cause) else { return };
    let (when, cause) = (ago(now, at), plain(cause));
    let _ = writeln!(text, "restarts of the mail process  {}, last {when}: it {cause}", mail.restarts);
    for line in &mail.last_words {
        let _ = writeln!(text, "  | {}", plain(line));
    }
}

/// Applies the configuration file.
pub(super) fn reload(daemon: &mut Daemon, output: Output) -> anyhow::Result<Printed> {
    let reloaded = daemon.ask(Reload {})?;
    Printed::result(output, &reloaded, || print_reloaded(&reloaded))
}

/// Says what was removed.
pub(super) fn unloaded(output: Output, removed: &[String]) -> anyhow::Result<Printed> {
    Printed::result(output, &json!({ "removed": removed }), || match removed {
        [] => "nothing was loaded\n".to_owned(),
        removed => removed.iter().map(|what| format!("removed: {}\n", plain(what))).collect(),
    })
}

fn print_reloaded(reloaded: &Reloaded) -> String {
    let mut text = format!("{} is in force\n", reloaded.config.display());
    for note in &reloaded.notes {
        let _ = writeln!(text, "  {}", plain(note));
    }
    inactive(&mut text, &reloaded.inactive);
    text
}

fn print_status(report: &StatusReport, processes: Option<&ProcessReport>, now: UnixTime) -> String {
    let mut text = format!(
        "mailguard {} on {}, running for {}{}\nconfiguration {}, loaded {}\n",
        report.version,
        report.hostname,
        span(now.since(report.started_at)),
        if report.enabled { "" } else { ", NOT ENABLED" },
        report.config.display(),
        ago(now, report.loaded_at)
    );
    for problem in &report.problems {
        let _ = writeln!(text, "PROBLEM: {}", plain(problem));
    }
    let mut zones = Table::new(&["ZONE", "KIND", "MODE", "INTERFACES"]);
    for ZoneStatus { name, kind, mode, interfaces } in &report.zones {
        let word = |debug: String| debug.to_lowercase();
        zones.row([name.clone(), word(format!("{kind:?}")), word(format!("{mode:?}")), interfaces.join(" ")]);
    }
    text.push('\n');
    zones.print(&mut text, "");
    let mut stock = Table::lines();
    stock.row(["sessions".to_owned(), format!("{} of {}", report.sessions, report.max_sessions)]);
    let queue = format!("{}, {}", messages(report.queue.messages), size(report.queue.octets));
    stock.row(["queue".to_owned(), queue]);
    if !report.paused.is_empty() {
        stock.row(["paused".to_owned(), report.paused.join(" ")]);
    }
    let (count, octets) = (messages(report.quarantine.messages), size(report.quarantine.octets));
    let quarantine = format!("{count}, {octets} of {}", size(report.quarantine_max_octets));
    stock.row(["quarantine".to_owned(), quarantine]);
    text.push('\n');
    stock.print(&mut text, "");
    if let Some(processes) = processes {
        ended(&mut text, &processes.mail, now);
    }
    if let Some(status) = &report.kernel {
        kernel::print(&mut text, status);
    }
    inactive(&mut text, &report.inactive);
    text
}
