//! Joins what root may ask (`admin`) to the rest of the datapath process: to its one thread, to the trial as
//! the mail user, and to root's socket, where only root is heard.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;

use mailguard_core::config::Config;
use tracing::{error, info};

use super::RunError;
use super::spawn::MailUser;
use super::start;
use super::supervisor::Event;
use super::trial::{self, Extent};
use crate::admin::request::Reload;
use crate::admin::root::{Changes, DatapathProcess, Order, RootAdmin};
use crate::admin::{self, Actor, AdminError, ErrorKind, ProcessReport};
use crate::config::{Kept, Source};
use crate::control;

/// The rest of the datapath process, as the use cases see it.
pub(super) struct Rest {
    /// To the one thread.
    pub(super) events: SyncSender<Event>,
    /// Who tries configurations.
    pub(super) user: MailUser,
    /// Is told what is wrong with the file.
    pub(super) kept: Arc<Kept>,
    /// What is known without that thread.
    pub(super) known: Box<dyn Fn() -> ProcessReport + Send + Sync>,
}

impl DatapathProcess for Rest {
    fn order(&self, order: Order) -> bool {
        self.events.send(Event::Order(order)).is_ok()
    }

    fn try_order(&self, order: Order) -> bool {
        self.events.try_send(Event::Order(order)).is_ok()
    }

    fn known(&self) -> ProcessReport {
        (self.known)()
    }

    fn read(&self, path: &Path) -> Result<(Source, Config), AdminError> {
        // Its rules are only text here.
        let read = start::read(path, |source, _| Ok(trial::ask(&self.user, source, Extent::Content)?));
        if let Err(RunError::Config(why)) = &read {
            self.kept.refused(why);
        }
        read.map_err(|error| match error.exit_code() {
            // Somebody must change something first.
            Some(_) => AdminError::new(ErrorKind::Refused, error),
            None => AdminError::new(ErrorKind::Failed, error),
        })
    }
}

/// Has a configuration tried as the mail user.
pub(super) fn tried(user: &MailUser, source: &Source, extent: Extent) -> Result<(), RunError> {
    let problems = trial::ask(user, source, extent)?;
    if problems.is_empty() { Ok(()) } else { Err(RunError::Trial(problems.join("\n"))) }
}

/// What the datapath process's thread leaves to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Mail is served for the first time: what is in force is worth keeping.
    Served,
    /// The file is to be read again.
    Reload,
}

/// Of these so many wait: the first service comes once, and one reload that waits for its turn is enough.
pub(super) const MAX_TOLD: usize = 2;

/// Does what it is told by the channel, in a thread of its own.
pub(super) fn follow(changes: Arc<Changes>, told: Receiver<Told>) {
    thread::spawn(move || {
        while let Ok(told) = told.recv() {
            if told == Told::Served {
                changes.keep();
                continue;
            }
            let reload = |actor: &Actor| changes.reload(actor, Reload {});
            match admin::reload_by_signal(reload, || changes.revision()) {
                Ok(reloaded) => {
                    info!(notes = reloaded.notes.join("; "), "{} is in force", reloaded.config.display())
                }
                Err(error) => error!("reload refused, the old configuration stays in force: {error}"),
            }
        }
    });
}

/// Opens root's socket and answers there, in a thread of its own. The caller is the only instance with this
/// folder, which is root's: a socket that is there is an earlier run's.
pub(super) fn serve(changes: Arc<Changes>, runtime_dir: &Path) -> Result<(), RunError> {
    let fail = |source| RunError::System { what: "serve the control socket", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let path = control::root_socket(runtime_dir);
    if fs::symlink_metadata(&path).is_ok_and(|facts| facts.file_type().is_socket()) {
        fs::remove_file(&path).map_err(fail)?;
    }
    let within = runtime.enter();
    let socket = control::bind(&path, control::ROOT_MODE)?;
    drop(within);
    let answer = move || runtime.block_on(control::serve(socket, Arc::new(RootAdmin(changes))));
    thread::Builder::new().name("control".to_owned()).spawn(answer).map_err(fail)?;
    Ok(())
}
