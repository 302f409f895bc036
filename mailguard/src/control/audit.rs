//! The audit: one line for everything that somebody changes over a control socket: who, what, how it went, and the
//! configuration in force then. Looking changes nothing and has no line.
//!
//! Who it was is what the kernel says of the socket's other end (SO_PEERCRED). docs/operations.md shows the lines.

use mailguard_core::log_value::{MAX_SHOWN_OCTETS, cut, listed};
use mailguard_core::mail::QueueId;
use nix::unistd::{Uid, User};
use tokio::net::unix::UCred;
use tracing::info;

use super::protocol::{Answer, ControlError, Done, ErrorKind, Request, Which};
use crate::config::{Change, Edit};

/// The target of the lines.
pub const AUDIT: &str = "audit";

/// What only the datapath process does, and nobody else may claim to have done.
pub const VERBS_OF_ROOT: [&str; 4] = ["reload", "list-add", "list-remove", "ban-lift"];

/// Octets of a list of what it was done to.
const MAX_LIST_OCTETS: usize = 900;
/// Octets of everything that it was done to, and how.
const MAX_WHAT_OCTETS: usize = 1_280;
/// Octets of why it wasn't done; who asked is told all of it.
const MAX_ERROR_OCTETS: usize = 960;

const _: () = assert!(crate::process::fits_a_log_line(MAX_SHOWN_OCTETS + MAX_WHAT_OCTETS + MAX_ERROR_OCTETS));

/// Something that somebody asked for. Its line comes when it is over, or when it is given up.
#[derive(Debug)]
pub(super) struct Audited {
    who: Who,
    verb: &'static str,
    what: String,
    revision: u64,
    outcome: Outcome,
}

/// Who asks.
#[derive(Debug)]
pub(super) struct Who {
    uid: u32,
    pid: i32,
    user: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    word: &'static str,
    messages: Option<u64>,
    error: Option<String>,
}

impl Who {
    /// The other end of a socket, and its user's name where the system knows it.
    pub(super) async fn of(credentials: UCred) -> Self {
        let uid = credentials.uid();
        // Users may be kept by a server that has to be asked.
        let found = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await;
        let user = found.ok().and_then(Result::ok).flatten().map(|user| user.name);
        Self { uid, pid: credentials.pid().unwrap_or_default(), user: user.unwrap_or_default() }
    }
}

impl Audited {
    /// Begins to do it, unless it is only looked.
    pub(super) async fn begin(who: UCred, request: &Request) -> Option<Self> {
        let (verb, what) = changes(request)?;
        let outcome = Outcome { word: "unfinished", messages: None, error: None };
        Some(Self { who: Who::of(who).await, verb, what, revision: 0, outcome })
    }

    /// It is over, and this configuration is in force.
    pub(super) fn ended(mut self, result: Result<&Answer, &ControlError>, revision: u64) {
        self.revision = revision;
        self.outcome = outcome(result);
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let Self { who, verb, what, revision, outcome } = self;
        info!(
            target: AUDIT,
            verb,
            outcome = outcome.word,
            uid = who.uid,
            user = &*cut(&who.user, MAX_SHOWN_OCTETS),
            pid = who.pid,
            revision,
            messages = outcome.messages,
            what = &*cut(what, MAX_WHAT_OCTETS),
            error = outcome.error.as_deref(),
        );
    }
}

/// Somebody asked whom the socket isn't for, whatever its mode says.
pub(super) fn not_admitted(who: &Who, revision: u64) {
    let Who { uid, pid, user } = who;
    let user = &*cut(user, MAX_SHOWN_OCTETS);
    info!(target: AUDIT, verb = "ask", outcome = "refused", uid, user, pid, revision);
}

/// The configuration was read again because of a signal, of which nobody knows the sender.
pub fn reloaded_by_signal(result: Result<(), &ControlError>, revision: u64) {
    let Outcome { word, error, .. } = match result {
        Ok(()) => done(None),
        Err(error) => outcome(Err(error)),
    };
    info!(target: AUDIT, verb = "reload", outcome = word, by = "SIGHUP", revision, error);
}

fn done(messages: Option<u64>) -> Outcome {
    Outcome { word: "done", messages, error: None }
}

fn outcome(result: Result<&Answer, &ControlError>) -> Outcome {
    match result {
        Ok(Answer::Done(Done { messages, .. })) => done(Some(*messages)),
        Ok(_) => done(None),
        Err(ControlError { kind, message }) => {
            let word = match kind {
                ErrorKind::Invalid => "invalid",
                ErrorKind::NotFound => "not-found",
                ErrorKind::Refused => "refused",
                ErrorKind::Failed => "failed",
            };
            let error = cut(message, MAX_ERROR_OCTETS).into_owned();
            Outcome { word, messages: None, error: Some(error) }
        }
    }
}

/// What a request changes, and of what; nothing where it only looks.
fn changes(request: &Request) -> Option<(&'static str, String)> {
    Some(match request {
        Request::Status
        | Request::Entries { .. }
        | Request::QueueList(_)
        | Request::QueueShow { .. }
        | Request::QuarantineList(_)
        | Request::QuarantineShow { .. }
        | Request::Trace { .. }
        | Request::Route { .. }
        | Request::Bans
        | Request::Processes => return None,
        Request::Reload => ("reload", String::new()),
        Request::Edit(Edit { list, change, values, all }) => {
            let verb = match change {
                Change::Add => "list-add",
                Change::Remove => "list-remove",
            };
            let all = if *all { " all" } else { "" };
            (verb, format!("{}: {}{all}", list.path().join("."), listed(values, MAX_LIST_OCTETS)))
        }
        Request::QueueRetry { which } => ("queue-retry", messages(which)),
        Request::QueueRemove { which } => ("queue-remove", messages(which)),
        Request::QueueHold { which, held: true } => ("queue-hold", messages(which)),
        Request::QueueHold { which, held: false } => ("queue-unhold", messages(which)),
        Request::QueuePause { destination, paused } => {
            let verb = if *paused { "queue-pause" } else { "queue-resume" };
            (verb, cut(destination, MAX_SHOWN_OCTETS).into_owned())
        }
        Request::QuarantineRelease { which, to, with_virus } => {
            let to = to.as_ref().map(|to| format!(" to <{to}>")).unwrap_or_default();
            let virus = if *with_virus { " with-virus" } else { "" };
            ("quarantine-release", format!("{}{to}{virus}", messages(which)))
        }
        Request::QuarantineDelete { which } => ("quarantine-delete", messages(which)),
        Request::BanAdd { clients, seconds, reason } => {
            let seconds = seconds.map(|seconds| format!(" for {seconds}s")).unwrap_or_default();
            let reason =
                reason.as_deref().map(|reason| format!(" because {}", cut(reason, MAX_SHOWN_OCTETS)));
            let clients = listed(clients.iter().map(ToString::to_string), MAX_LIST_OCTETS);
            ("ban", format!("{clients}{seconds}{}", reason.unwrap_or_default()))
        }
        Request::BanLift { clients: None } => ("ban-lift", "all".to_owned()),
        Request::BanLift { clients: Some(clients) } => {
            ("ban-lift", listed(clients.iter().map(ToString::to_string), MAX_LIST_OCTETS))
        }
    })
}

fn messages(which: &Which) -> String {
    match which {
        Which::All => "all".to_owned(),
        Which::Ids(ids) => listed(ids.iter().map(QueueId::to_string), MAX_LIST_OCTETS),
        Which::To(destination) => format!("to {}", cut(destination, MAX_SHOWN_OCTETS)),
    }
}
