//! What root asks of the datapath process: changes are read and checked in threads of their own, then the one
//! thread that keeps the kernel side is asked to put them into force. One at a time, so that nothing is
//! decided by what another change has just replaced.

use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailguard_core::config::Config;
use mailguard_core::subscriber::Subscriber;

use super::request::{BanLift, Processes, Reload};
use super::{
    Actor, AdminError, Administration, Answer, Ask, Edited, ErrorKind, ProcessReport, Reloaded, Request,
};
use crate::config::{self, Edit, Kept, Source};

/// How long a change waits for the mail process to take it, too.
const TAKEN_TIME: Duration = Duration::from_secs(10);
/// How often it is looked whether that lives.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// A mail process without a sign of life for so long isn't waited for: one comes each second.
const SILENCE: Duration = Duration::from_millis(2_000);
/// How long a report waits for the datapath process's thread, which may be busy.
const REPORT_TIME: Duration = Duration::from_secs(1);

/// The rest of the datapath process.
pub trait DatapathProcess: Send + Sync + 'static {
    /// Hands an order to the one thread that keeps the kernel side, when that has room for it. False: it is
    /// stopping.
    fn order(&self, order: Order) -> bool;

    /// The same if there is room now; false otherwise.
    fn try_order(&self, order: Order) -> bool;

    /// What is known without that thread.
    fn known(&self) -> ProcessReport;

    /// Reads the configuration file, if the mail process could work by it.
    fn read(&self, path: &Path) -> Result<(Source, Config), AdminError>;
}

/// What the datapath process's thread is asked to do.
pub enum Order {
    /// Put this into force.
    Adopt {
        /// What.
        change: Box<Change>,
        /// How it went.
        reply: SyncSender<Result<Taken<Vec<String>>, AdminError>>,
    },
    /// Let these clients in again, or all that are banned.
    Lift {
        /// Whom.
        clients: Option<Vec<IpAddr>>,
        /// Whom it was done to.
        reply: SyncSender<Result<Taken<Vec<Subscriber>>, AdminError>>,
    },
    /// Say how everything is.
    Report {
        /// To whom.
        reply: SyncSender<ProcessReport>,
    },
}

/// A configuration that is to be put into force.
pub struct Change {
    /// What it was read from.
    pub source: Source,
    /// What it means.
    pub config: Arc<Config>,
    /// What it was made of by an edit: then it is to be written into the file.
    pub edited: Option<Source>,
}

/// The configuration in force, for those who change it.
#[derive(Clone)]
pub struct InForce {
    /// What it was read from.
    pub source: Source,
    /// What that means: nobody need parse it again.
    pub config: Arc<Config>,
    /// Its number.
    pub revision: u64,
}

/// Something is in force, and the mail process is told.
pub struct Taken<T> {
    /// What is to be said of it.
    pub what: T,
    /// Says when the mail process has taken it, or how it couldn't; closed when there is none.
    pub taken: Receiver<Result<(), AdminError>>,
}

impl<T> Taken<T> {
    /// Waits for the mail process as long as it `lives`, and what is the matter with it if it doesn't take
    /// it.
    fn wait(&self, lives: impl Fn() -> bool) -> Option<String> {
        let deadline = Instant::now() + TAKEN_TIME;
        loop {
            match self.taken.recv_timeout(POLL_INTERVAL) {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => {
                    return Some(format!("the mail process can't use it, and goes on as before: {error}"));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline && lives() => {}
                Err(RecvTimeoutError::Timeout) => {
                    let text =
                        "in force in the kernel; the mail process hasn't taken it yet: see mailguard status";
                    return Some(text.to_owned());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let text = "in force in the kernel; the mail process takes it when it starts anew";
                    return Some(text.to_owned());
                }
            }
        }
    }
}

/// Changes what is in force.
pub struct Changes {
    in_force: Arc<Mutex<InForce>>,
    kept: Arc<Kept>,
    rest: Box<dyn DatapathProcess>,
    one_at_a_time: Mutex<()>,
}

fn lock<T>(guarded: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: impl ToString) -> AdminError {
    AdminError::new(ErrorKind::Refused, error)
}

fn gone() -> AdminError {
    AdminError::new(ErrorKind::Failed, "the datapath process is stopping")
}

impl Changes {
    /// Changes what `rest` has put in force, and notes there.
    pub fn new(in_force: Arc<Mutex<InForce>>, kept: Arc<Kept>, rest: Box<dyn DatapathProcess>) -> Self {
        Self { in_force, kept, rest, one_at_a_time: Mutex::new(()) }
    }

    /// Whether the mail process gave a sign of life of late, or has still to give its first.
    fn mail_lives(&self) -> bool {
        let silent = self.rest.known().mail.silent_milliseconds.map(Duration::from_millis);
        silent.is_none_or(|silent| silent < SILENCE)
    }

    /// The configuration in force, by its number.
    pub fn revision(&self) -> u64 {
        lock(&self.in_force).revision
    }

    fn order<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order) -> Result<T, AdminError> {
        let (reply, answer) = sync_channel(1);
        if !self.rest.order(order(reply)) {
            return Err(gone());
        }
        answer.recv().map_err(|_| gone())
    }

    /// Reads the file again and applies it whole, or changes nothing.
    pub fn reload(&self, _: &Actor, Reload {}: Reload) -> Result<Reloaded, AdminError> {
        let _alone = lock(&self.one_at_a_time);
        let path = lock(&self.in_force).source.path.clone();
        let (source, config) = self.rest.read(&path)?;
        let inactive = config.inactive.clone();
        let change = Box::new(Change { source, config: Arc::new(config), edited: None });
        let taken = self.adopt(change)?;
        let notes = taken.wait(|| self.mail_lives()).into_iter().chain(taken.what.iter().cloned()).collect();
        Ok(Reloaded { config: path, notes, inactive })
    }

    /// Has a change put in force, and keeps what is in force then.
    fn adopt(&self, change: Box<Change>) -> Result<Taken<Vec<String>>, AdminError> {
        let taken = self.order(|reply| Order::Adopt { change, reply })??;
        let source = lock(&self.in_force).source.clone();
        self.kept.adopted(&source);
        Ok(taken)
    }

    /// Keeps what is in force since the start, now that it serves.
    pub fn keep(&self) {
        let _alone = lock(&self.one_at_a_time);
        let source = lock(&self.in_force).source.clone();
        self.kept.keep(&source);
    }

    /// Changes one list and writes it into the file. No list has to do with what is tried.
    fn edit(&self, _: &Actor, edit: Edit) -> Result<Edited, AdminError> {
        let _alone = lock(&self.one_at_a_time);
        let InForce { source: before, config, .. } = lock(&self.in_force).clone();
        // It would go into a file that doesn't check, or be lost when that is mended.
        if let Some(stand_in) = self.kept.stand_in() {
            return Err(refused(format!("nothing was changed: {}", stand_in.problem(&before.path))));
        }
        let (source, config) = config::edit(&before, &config, &edit).map_err(refused)?;
        let path = source.path.clone();
        let change = Box::new(Change { source, config: Arc::new(config), edited: Some(before) });
        let taken = self.adopt(change)?;
        let Edit { list, change, values, .. } = edit;
        Ok(Edited {
            list,
            change,
            values,
            config: path,
            notes: taken.wait(|| self.mail_lives()).into_iter().collect(),
        })
    }

    fn ban_lift(&self, _: &Actor, BanLift { clients }: BanLift) -> Result<Vec<Subscriber>, AdminError> {
        let _alone = lock(&self.one_at_a_time);
        let taken = self.order(|reply| Order::Lift { clients, reply })??;
        // They are let in. A mail process that doesn't say so yet hears it again at its next start.
        taken.wait(|| self.mail_lives());
        Ok(taken.what)
    }

    /// How everything is; what the datapath process's thread alone knows is left out while that is busy.
    fn processes(&self, _: &Actor, Processes {}: Processes) -> Result<ProcessReport, AdminError> {
        let (reply, answer) = sync_channel(1);
        // Nobody waits behind a full queue to hear that it is full.
        let asked = self.rest.try_order(Order::Report { reply });
        let answered = asked.then(|| answer.recv_timeout(REPORT_TIME).ok()).flatten();
        Ok(answered.unwrap_or_else(|| {
            let mut report = self.rest.known();
            report.problems.push("the datapath process is busy: its kernel side isn't shown".to_owned());
            report
        }))
    }
}

/// What root may ask of the datapath process.
pub struct RootAdmin(pub Arc<Changes>);

impl RootAdmin {
    /// Has `by` answer in a thread that may wait.
    async fn answer<A>(
        &self,
        actor: &Actor,
        ask: A,
        by: fn(&Changes, &Actor, A) -> Result<A::Answer, AdminError>,
    ) -> Result<Answer, AdminError>
    where
        A: Ask<Answer: Send> + Send + 'static,
    {
        let (changes, actor) = (self.0.clone(), actor.clone());
        let done = tokio::task::spawn_blocking(move || by(&changes, &actor, ask)).await;
        done.unwrap_or_else(|error| Err(AdminError::new(ErrorKind::Failed, error))).map(Into::into)
    }
}

impl Administration for RootAdmin {
    fn admits(&self, actor: &Actor) -> bool {
        actor.is_root()
    }

    fn revision(&self) -> u64 {
        self.0.revision()
    }

    async fn perform(&self, actor: &Actor, request: Request) -> Result<Answer, AdminError> {
        match request {
            Request::Reload(ask) => self.answer(actor, ask, Changes::reload).await,
            Request::Edit(ask) => self.answer(actor, ask, Changes::edit).await,
            Request::BanLift(ask) => self.answer(actor, ask, Changes::ban_lift).await,
            Request::Processes(ask) => self.answer(actor, ask, Changes::processes).await,
            Request::Status(_)
            | Request::Entries(_)
            | Request::QueueList(_)
            | Request::QueueShow(_)
            | Request::QueueRetry(_)
            | Request::QueueRemove(_)
            | Request::QueueHold(_)
            | Request::QueuePause(_)
            | Request::QuarantineList(_)
            | Request::QuarantineShow(_)
            | Request::QuarantineRelease(_)
            | Request::QuarantineDelete(_)
            | Request::Trace(_)
            | Request::Route(_)
            | Request::Bans(_)
            | Request::BanAdd(_) => {
                Err(AdminError::new(ErrorKind::Invalid, "this is asked of the mail process"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::MailProcess;
    use crate::config::{self, EditList, LastApplied, tests::parses_of};

    /// The rest of a datapath process, which takes every change but the third; there is no mail process to
    /// wait for.
    struct Rest(Arc<Mutex<InForce>>);

    impl DatapathProcess for Rest {
        fn order(&self, order: Order) -> bool {
            let Order::Adopt { change, reply } = order else { return false };
            let Change { source, config, .. } = *change;
            let revision = lock(&self.0).revision + 1;
            if revision > 3 {
                reply.send(Err(AdminError::new(ErrorKind::Failed, "the kernel says no"))).unwrap();
                return true;
            }
            *lock(&self.0) = InForce { source, config, revision };
            let (_, taken) = sync_channel(1);
            reply.send(Ok(Taken { what: Vec::new(), taken })).unwrap();
            true
        }

        fn try_order(&self, _: Order) -> bool {
            false
        }

        fn known(&self) -> ProcessReport {
            report()
        }

        fn read(&self, _: &Path) -> Result<(Source, Config), AdminError> {
            Err(refused("there is no file"))
        }
    }

    fn report() -> ProcessReport {
        ProcessReport {
            version: String::new(),
            hostname: String::new(),
            config: "m.toml".into(),
            pid: 0,
            started_at: mailguard_core::mail::UnixTime(0),
            problems: Vec::new(),
            stand_in: None,
            mail: MailProcess::default(),
            kernel: None,
        }
    }

    #[test]
    fn the_datapath_process_parses_each_text_of_an_edit_once() {
        let place = tempfile::tempdir().unwrap();
        let source = Source::of_text(place.path().join("m.toml"), config::tests::LEAST);
        let config = Arc::new(config::parse_and_validate(&source).unwrap());
        let in_force = Arc::new(Mutex::new(InForce { source, config, revision: 1 }));
        let kept = Arc::new(Kept::new(LastApplied::within(place.path().join("kept")), None));
        let changes = Changes::new(in_force.clone(), kept, Box::new(Rest(in_force.clone())));
        for value in ["192.0.2.1", "192.0.2.2"] {
            let (list, values) = (EditList::BlacklistClient, vec![value.to_owned()]);
            let edit = Edit { list, change: config::Change::Add, values, all: false };
            let (parses, edited) = parses_of(|| changes.edit(&Actor::Signal, edit));
            assert_eq!(edited.unwrap().values, [value]);
            assert_eq!(parses, 2, "the text that changes, and the one that comes of it");
        }
        let (list, values) = (EditList::BlacklistClient, vec!["192.0.2.3".to_owned()]);
        let edit = Edit { list, change: config::Change::Add, values, all: false };
        let error = changes.edit(&Actor::Signal, edit).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Failed, "as the datapath process's thread says it");
        let InForce { source, config, revision } = lock(&in_force).clone();
        assert_eq!((config.access.blacklist_clients.len(), revision), (2, 3));
        assert_eq!(config::parse_and_validate(&source).unwrap(), *config);
    }
}
