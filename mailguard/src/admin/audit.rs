//! The audit: one line for everything that somebody changes: who, what, how it went, and the configuration in
//! force then. Looking changes nothing and has no line. docs/operations.md shows the lines.

use mailguard_core::log_value::{MAX_SHOWN_OCTETS, cut, fits_a_line, listed};
use mailguard_core::mail::QueueId;
use nix::unistd::{Uid, User};
use tracing::info;

use super::actor::Actor;
use super::answer::{AdminError, Answer, Done, ErrorKind, Reloaded};
use super::request::{
    BanAdd, BanLift, QuarantineDelete, QuarantineRelease, QueueHold, QueuePause, QueueRemove, QueueRetry,
    Reload, Request, Which,
};
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

const _: () = assert!(fits_a_line(MAX_SHOWN_OCTETS + MAX_WHAT_OCTETS + MAX_ERROR_OCTETS));

/// Something that somebody asked for. Its line comes when it is over, or when it is given up.
#[derive(Debug)]
pub(super) struct Audited {
    who: Who,
    verb: &'static str,
    what: String,
    revision: u64,
    outcome: Outcome,
}

/// Who asks, as the lines name him.
#[derive(Debug)]
struct Who {
    actor: Actor,
    /// Of a local one, where the system knows it.
    user: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    word: &'static str,
    messages: Option<u64>,
    error: Option<String>,
}

impl Who {
    async fn of(actor: &Actor) -> Self {
        let user = match *actor {
            // Users may be kept by a server that has to be asked.
            Actor::Local { uid, .. } => {
                tokio::task::spawn_blocking(move || name_of(uid)).await.ok().flatten()
            }
            Actor::Signal => None,
        };
        Self { actor: actor.clone(), user: user.unwrap_or_default() }
    }
}

fn name_of(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

impl Audited {
    /// Begins to do it, unless it is only looked.
    pub(super) async fn begin(actor: &Actor, request: &Request) -> Option<Self> {
        let (verb, what) = changes(request)?;
        Some(Self { who: Who::of(actor).await, verb, what, revision: 0, outcome: unfinished() })
    }

    /// Begins to read the configuration again because of a signal.
    fn begin_by_signal() -> Self {
        let who = Who { actor: Actor::Signal, user: String::new() };
        Self { who, verb: "reload", what: String::new(), revision: 0, outcome: unfinished() }
    }

    /// It is over, and this configuration is in force.
    pub(super) fn ended(self, result: Result<&Answer, &AdminError>, revision: u64) {
        self.ended_as(outcome(result), revision);
    }

    fn ended_as(mut self, outcome: Outcome, revision: u64) {
        (self.outcome, self.revision) = (outcome, revision);
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let Self { who: Who { actor, user }, verb, what, revision, outcome } = self;
        let Outcome { word, messages, error } = outcome;
        match actor {
            Actor::Local { uid, pid } => info!(
                target: AUDIT,
                verb,
                outcome = word,
                uid,
                user = &*cut(user, MAX_SHOWN_OCTETS),
                pid,
                revision,
                messages,
                what = &*cut(what, MAX_WHAT_OCTETS),
                error = error.as_deref(),
            ),
            // It says what is to be done, and nothing of it.
            Actor::Signal => {
                info!(target: AUDIT, verb, outcome = word, by = "SIGHUP", revision, error = error.as_deref());
            }
        }
    }
}

/// Somebody asked who may not, whatever the mode of a socket says.
pub async fn not_admitted(actor: &Actor, revision: u64) {
    let Who { actor, user } = Who::of(actor).await;
    // Signals ask nothing.
    let Actor::Local { uid, pid } = actor else { return };
    let user = &*cut(&user, MAX_SHOWN_OCTETS);
    info!(target: AUDIT, verb = "ask", outcome = "refused", uid, user, pid, revision);
}

/// Has the configuration read again because of a signal. Its line comes whatever becomes of that, as a
/// request's does; `revision` says what is in force then.
pub fn reload_by_signal(
    reload: impl FnOnce(&Actor) -> Result<Reloaded, AdminError>,
    revision: impl FnOnce() -> u64,
) -> Result<Reloaded, AdminError> {
    let audited = Audited::begin_by_signal();
    let reloaded = reload(&Actor::Signal);
    let outcome = reloaded.as_ref().map_or_else(not_done, |_| done(None));
    audited.ended_as(outcome, revision());
    reloaded
}

fn unfinished() -> Outcome {
    Outcome { word: "unfinished", messages: None, error: None }
}

fn done(messages: Option<u64>) -> Outcome {
    Outcome { word: "done", messages, error: None }
}

fn not_done(AdminError { kind, message }: &AdminError) -> Outcome {
    let word = match kind {
        ErrorKind::Invalid => "invalid",
        ErrorKind::NotFound => "not-found",
        ErrorKind::Refused => "refused",
        ErrorKind::Failed | ErrorKind::Other => "failed",
        ErrorKind::Unavailable => "unavailable",
    };
    Outcome { word, messages: None, error: Some(cut(message, MAX_ERROR_OCTETS).into_owned()) }
}

fn outcome(result: Result<&Answer, &AdminError>) -> Outcome {
    match result {
        Ok(Answer::Done(Done { messages, .. })) => done(Some(*messages)),
        Ok(_) => done(None),
        Err(error) => not_done(error),
    }
}

/// What a request changes, and of what; nothing where it only looks.
fn changes(request: &Request) -> Option<(&'static str, String)> {
    Some(match request {
        Request::Status(_)
        | Request::Entries(_)
        | Request::QueueList(_)
        | Request::QueueShow(_)
        | Request::QuarantineList(_)
        | Request::QuarantineShow(_)
        | Request::Trace(_)
        | Request::Route(_)
        | Request::Bans(_)
        | Request::Processes(_) => return None,
        Request::Reload(Reload {}) => ("reload", String::new()),
        Request::Edit(Edit { list, change, values, all }) => {
            let verb = match change {
                Change::Add => "list-add",
                Change::Remove => "list-remove",
            };
            let all = if *all { " all" } else { "" };
            (verb, format!("{}: {}{all}", list.path().join("."), listed(values, MAX_LIST_OCTETS)))
        }
        Request::QueueRetry(QueueRetry { which }) => ("queue-retry", messages(which)),
        Request::QueueRemove(QueueRemove { which }) => ("queue-remove", messages(which)),
        Request::QueueHold(QueueHold { which, held: true }) => ("queue-hold", messages(which)),
        Request::QueueHold(QueueHold { which, held: false }) => ("queue-unhold", messages(which)),
        Request::QueuePause(QueuePause { destination, paused }) => {
            let verb = if *paused { "queue-pause" } else { "queue-resume" };
            (verb, cut(destination, MAX_SHOWN_OCTETS).into_owned())
        }
        Request::QuarantineRelease(QuarantineRelease { which, to, with_virus }) => {
            let to = to.as_ref().map(|to| format!(" to <{to}>")).unwrap_or_default();
            let virus = if *with_virus { " with-virus" } else { "" };
            ("quarantine-release", format!("{}{to}{virus}", messages(which)))
        }
        Request::QuarantineDelete(QuarantineDelete { which }) => ("quarantine-delete", messages(which)),
        Request::BanAdd(BanAdd { clients, seconds, reason }) => {
            let seconds = seconds.map(|seconds| format!(" for {seconds}s")).unwrap_or_default();
            let reason =
                reason.as_deref().map(|reason| format!(" because {}", cut(reason, MAX_SHOWN_OCTETS)));
            let clients = listed(clients.iter().map(ToString::to_string), MAX_LIST_OCTETS);
            ("ban", format!("{clients}{seconds}{}", reason.unwrap_or_default()))
        }
        Request::BanLift(BanLift { clients: None }) => ("ban-lift", "all".to_owned()),
        Request::BanLift(BanLift { clients: Some(clients) }) => {
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_reload_by_a_signal_names_the_signal_and_no_user() {
        let log = mailguard_core::testing::config("log = { level = \"error\", mail = false }").log;
        let (heard, _guard) = crate::process::heard_log(&log);
        let reloaded = Reloaded { config: "/m.toml".into(), notes: Vec::new(), inactive: Vec::new() };
        let refused = AdminError::new(ErrorKind::Refused, "a slip");
        assert_eq!(reload_by_signal(|_| Ok(reloaded.clone()), || 3), Ok(reloaded));
        assert_eq!(reload_by_signal(|_| Err(refused.clone()), || 4), Err(refused));
        let panics = AssertUnwindSafe(|| reload_by_signal(|_| panic!("a fault"), || 5));
        assert!(catch_unwind(panics).is_err());
        let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(" audit: ")?.1)).collect();
        let expect = [
            "verb=reload outcome=done by=SIGHUP revision=3",
            "verb=reload outcome=refused by=SIGHUP revision=4 error=\"a slip\"",
            "verb=reload outcome=unfinished by=SIGHUP revision=0",
        ];
        assert_eq!(lines, expect);
    }
}
