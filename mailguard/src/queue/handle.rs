//! The queue for control and command line: look at it, try a message now, hold or remove one, pause a
//! destination.

use std::path::PathBuf;
use std::sync::Arc;

use mailguard_core::destination::Destination;
use mailguard_core::mail::{QueueId, shown};

use super::{Live, MAX_PAUSED, Shared, State};
use crate::store::spool::{DamagedRecord, Listing, MessageRecord, SpoolOp, SpoolOpResult};
use crate::store::stock::Stock;
use crate::store::{ReadError, WriteError};

/// How much of a message is shown, octets.
const SHOWN_OCTETS: usize = 16 * 1024;

/// Why a destination isn't paused.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// [`MAX_PAUSED`] are.
    #[error("{MAX_PAUSED} destinations are paused already: resume some, or pause \"all\"")]
    TooMany,
    /// The store couldn't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Looks at and steers the queue; cheap to clone.
#[derive(Clone)]
pub struct QueueHandle {
    shared: Arc<Shared>,
}

impl QueueHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// At most `limit` messages that wait, oldest first, behind `after`.
    pub async fn list(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Listing<MessageRecord>, ReadError> {
        self.shared.around.db.messages(after, limit).await
    }

    /// Messages that can't be used and are kept aside, and why.
    pub async fn damaged(&self) -> Result<Vec<(QueueId, DamagedRecord)>, ReadError> {
        self.shared.around.db.damaged().await
    }

    /// One message that waits, and its first lines, safe to show.
    pub async fn show(&self, id: QueueId) -> Result<Option<(MessageRecord, String)>, ReadError> {
        let db = &self.shared.around.db;
        let Some(record) = db.message(id).await? else { return Ok(None) };
        let head = db.body(id, record.body).await?.head(SHOWN_OCTETS).await;
        let head = head.map_err(|source| ReadError::Body { id, source })?;
        Ok(Some((record, shown(&head))))
    }

    /// The folder of message bodies that no row names, and how much is in it.
    pub async fn lost(&self) -> std::io::Result<(PathBuf, Stock)> {
        let bodies = self.shared.around.db.bodies().clone();
        tokio::task::spawn_blocking(move || Ok((bodies.lost(), bodies.lost_stock()?))).await?
    }

    /// How much waits.
    pub fn stock(&self) -> Stock {
        self.shared.around.db.queue_stock()
    }

    /// Why nothing is stored or tried any more, if that is so.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.around.db.failure()
    }

    /// Tries a message now, though its next hop may rest; false if it isn't in the queue.
    pub fn retry(&self, id: QueueId) -> bool {
        self.shared.make_due(Some(id), true) > 0
    }

    /// The ids of all messages.
    pub fn ids(&self) -> Vec<QueueId> {
        self.shared.lock().live.keys().copied().collect()
    }

    /// Makes no attempt at a message from now on, or makes attempts again; false if it isn't in the queue. An
    /// attempt that runs goes on.
    pub async fn hold(&self, id: QueueId, on_hold: bool) -> Result<bool, WriteError> {
        if self.shared.around.db.submit(SpoolOp::Hold(id, on_hold)).await? != SpoolOpResult::Done {
            return Ok(false);
        }
        if let Some(live) = self.shared.lock().live.get_mut(&id) {
            live.on_hold = on_hold;
        }
        match on_hold {
            true => self.shared.lock().schedule.forget(id),
            false => drop(self.shared.make_due(Some(id), false)),
        }
        Ok(true)
    }

    /// What is paused may go by other ways now: each message that waits is looked at once.
    pub fn config_changed(&self) {
        if !self.shared.lock().paused.is_empty() {
            self.shared.make_due(None, false);
        }
    }

    /// Makes no attempt at a destination from now on, also after a restart. Attempts that run go on.
    pub async fn pause(&self, destination: Destination) -> Result<(), PauseError> {
        let paused = self.paused();
        if paused.len() >= MAX_PAUSED && destination != Destination::All && !paused.contains(&destination) {
            return Err(PauseError::TooMany);
        }
        self.shared.around.db.submit(SpoolOp::Pause(destination.to_string(), true)).await?;
        let mut state = self.shared.lock();
        if !state.paused.contains(&destination) {
            state.paused.push(destination);
        }
        Ok(())
    }

    /// Makes attempts at a destination again; false if it wasn't paused.
    pub async fn resume(&self, destination: &Destination) -> Result<bool, WriteError> {
        let answer = self.shared.around.db.submit(SpoolOp::Pause(destination.to_string(), false)).await?;
        self.shared.lock().paused.retain(|paused| paused != destination);
        // Nobody noted whom it concerns: each is looked at once.
        self.shared.make_due(None, false);
        Ok(answer == SpoolOpResult::Done)
    }

    /// Where no attempt is made.
    pub fn paused(&self) -> Vec<Destination> {
        self.shared.lock().paused.clone()
    }

    /// The messages of which a recipient that waits is at a destination. Reads every message that waits.
    pub async fn ids_to(&self, destination: Destination) -> Result<Vec<QueueId>, ReadError> {
        let config = self.shared.around.config.load_full();
        let is_there = move |record: &MessageRecord| {
            record.queued().any(|(index, _)| {
                let route = record.route(&config, index);
                route.is_ok_and(|route| destination.covers(&record.destination(index), &route))
            })
        };
        self.shared.around.db.messages_that(is_there).await
    }

    /// Removes a message, also one that is kept aside, without telling anybody; false if there is none. An
    /// attempt that runs goes on.
    pub async fn remove(&self, id: QueueId) -> Result<bool, WriteError> {
        let answer = self.shared.around.db.submit(SpoolOp::Remove(id)).await?;
        self.shared.forget_unless_released(id).await;
        Ok(answer == SpoolOpResult::Done)
    }
}

impl Shared {
    /// Makes one message, or all, due now; `forced`: whatever its recipients wait for.
    fn make_due(&self, id: Option<QueueId>, forced: bool) -> usize {
        let now = self.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut found = 0;
        let State { live, schedule, .. } = state;
        let mut wake = |id: QueueId, live: &mut Live| {
            live.forced |= forced;
            schedule.set_due(id, now);
            found += 1;
        };
        match id {
            Some(id) => live.get_mut(&id).into_iter().for_each(|live| wake(id, live)),
            None => live.iter_mut().for_each(|(&id, live)| wake(id, live)),
        }
        drop(guard);
        self.wake.notify_one();
        found
    }
}
