//! A database that is opened again by itself after a write failed: for what we know and could do without
//! (`facts`). Its writer has ended then, as redb takes nothing more. The spool isn't reopened: there a failed
//! write stops acceptance.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use redb::Database;

use super::error::OpenError;
use super::writer::{Rows, Writer};

/// Pause before a store whose write failed is opened again; doubles up to [`REOPEN_MAX`] while that is in
/// vain, or while what was opened fails again within [`STABLE_AFTER`].
const REOPEN_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const REOPEN_MAX: Duration = Duration::from_secs(60);
/// A store that took what came for so long after it was opened is sound: its next failure is a new one.
const STABLE_AFTER: Duration = Duration::from_secs(120);

type Open<R> = dyn Fn() -> Result<(Arc<Database>, Writer<R>), OpenError> + Send + Sync;

/// What is open now; clones are the same one.
pub(super) struct Reopening<R: Rows>(Arc<Inner<R>>);

struct Inner<R: Rows> {
    open: Box<Open<R>>,
    state: Mutex<State<R>>,
    /// To the thread that opens again: one failure at a time. It ends when this is dropped.
    failed: SyncSender<()>,
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
        let path = PathBuf::from(writer.name());
        let state = Mutex::new(State { database: Some(database), writer, closed: false });
        let (failed, failures) = mpsc::sync_channel(1);
        let inner = Arc::new(Inner { open: Box::new(open), state, failed });
        // Now, for when something has failed a thread may be what can't be had.
        let weak = Arc::downgrade(&inner);
        thread::Builder::new()
            .name("store-reopener".to_owned())
            .spawn(move || open_after_failures(&weak, &failures))
            .map_err(|error| OpenError::io(&path, error))?;
        Ok(Self(inner))
    }

    /// The writer: a failed one, which says why, until the store is open again.
    pub(super) fn writer(&self) -> Writer<R> {
        let mut state = self.0.state();
        // Whoever sees the failure first has the store opened again; the database is there for as long as
        // nobody has.
        if state.writer.failure().is_some() && !state.closed && state.database.take().is_some() {
            // Full: that is on its way already.
            let _ = self.0.failed.try_send(());
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

fn open_after_failures<R: Rows>(inner: &Weak<Inner<R>>, failures: &Receiver<()>) {
    let (mut pause, mut opened) = (REOPEN_MIN, None::<Instant>);
    while failures.recv().is_ok() {
        pause = pause_after_failure(pause, opened.map(|at| at.elapsed()));
        loop {
            thread::sleep(pause);
            let Some(inner) = inner.upgrade() else { return };
            if inner.try_open() {
                break;
            }
            pause = longer(pause);
        }
        opened = Some(Instant::now());
    }
}

/// The pause before what failed is opened again: `last` is that before the last opening, and `lasted` how
/// long the store held after it; none: it was never opened again.
fn pause_after_failure(last: Duration, lasted: Option<Duration>) -> Duration {
    if lasted.is_some_and(|lasted| lasted < STABLE_AFTER) { longer(last) } else { REOPEN_MIN }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(REOPEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An opening that succeeds says nothing of the next write: a disk that stays full is left alone for
    /// longer and longer.
    #[test]
    fn a_store_that_fails_again_and_again_is_opened_ever_more_rarely() {
        let soon = Some(Duration::from_millis(200));
        let mut pause = pause_after_failure(REOPEN_MIN, None);
        assert_eq!(pause, REOPEN_MIN);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pause = pause_after_failure(pause, soon);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause_after_failure(pause, Some(STABLE_AFTER)), REOPEN_MIN, "a failure of its own");
    }
}
