//! A database that is opened again by itself after a write failed: for what we know and could do without (`facts`). Its
//! writer has ended then, as redb takes nothing more. The spool isn't reopened: there a failed write stops acceptance.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use redb::Database;

use super::OpenError;
use super::writer::{Rows, Writer};

/// Pause before a store whose write failed is opened again; doubles up to [`REOPEN_MAX`] while that is in vain.
const REOPEN_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const REOPEN_MAX: Duration = Duration::from_secs(60);

type Open<R> = dyn Fn() -> Result<(Arc<Database>, Writer<R>), OpenError> + Send + Sync;

/// What is open now; clones are the same one.
pub(super) struct Reopening<R: Rows>(Arc<Inner<R>>);

struct Inner<R: Rows> {
    open: Box<Open<R>>,
    state: Mutex<State<R>>,
}

struct State<R: Rows> {
    /// None between a failure and the next opening: a file is opened once at a time.
    database: Option<Arc<Database>>,
    writer: Writer<R>,
    /// Nothing is opened any more.
    closed: bool,
}

impl<R: Rows> Clone for Reopening<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Rows> fmt::Debug for Reopening<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reopening").field(&self.0.state().writer).finish()
    }
}

impl<R: Rows> Reopening<R> {
    /// Opens by `open`, now and after each failure.
    pub(super) fn start(
        open: impl Fn() -> Result<(Arc<Database>, Writer<R>), OpenError> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let (database, writer) = open()?;
        let state = Mutex::new(State { database: Some(database), writer, closed: false });
        Ok(Self(Arc::new(Inner { open: Box::new(open), state })))
    }

    /// The writer: a failed one, which says why, until the store is open again.
    pub(super) fn writer(&self) -> Writer<R> {
        let mut state = self.0.state();
        // Whoever sees the failure first has the store opened again; the database is there for as long as nobody has.
        if state.writer.failure().is_some() && !state.closed && state.database.take().is_some() {
            let inner = Arc::downgrade(&self.0);
            let healer = thread::Builder::new().name("store-reopener".to_owned());
            if let Err(error) = healer.spawn(move || open_again(&inner)) {
                tracing::error!(%error, "a store can't be opened again before a restart");
            }
        }
        state.writer.clone()
    }

    /// What is read from; none while it waits to be opened again.
    pub(super) fn database(&self) -> Option<Arc<Database>> {
        self.0.state().database.clone()
    }

    /// Writes what is queued; nothing is taken or opened after it.
    pub(super) async fn close(&self) {
        let writer = {
            let mut state = self.0.state();
            state.closed = true;
            state.writer.clone()
        };
        writer.close().await;
    }
}

impl<R: Rows> Inner<R> {
    fn state(&self) -> MutexGuard<'_, State<R>> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no further try is due.
    fn try_open(&self) -> bool {
        if self.state().closed {
            return true;
        }
        match (self.open)() {
            Ok((database, writer)) => {
                let mut state = self.state();
                if !state.closed {
                    tracing::warn!(store = writer.name(), "open again: what comes from here on is stored");
                    (state.database, state.writer) = (Some(database), writer);
                }
                true
            }
            // The failure was logged, and stands in the status until this succeeds.
            Err(error) => {
                tracing::debug!(%error, "not open again");
                false
            }
        }
    }
}

fn open_again<R: Rows>(inner: &Weak<Inner<R>>) {
    let mut pause = REOPEN_MIN;
    loop {
        thread::sleep(pause);
        let Some(inner) = inner.upgrade() else { return };
        if inner.try_open() {
            return;
        }
        pause = (pause * 2).min(REOPEN_MAX);
    }
}
