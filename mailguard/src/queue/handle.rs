//! The queue for control and command line: look at it, try a message now, remove one.

use std::sync::Arc;

use mailguard_core::mail::{QueueId, shown};

use super::Shared;
use crate::store::record::{DamagedRecord, MessageRecord};
use crate::store::rows::{Answer, Job};
use crate::store::spool_db::ReadError;
use crate::store::stock::Stock;
use crate::store::view::{Listing, page};
use crate::store::writer::WriteError;

/// How much of a message is shown, octets.
const SHOWN_OCTETS: usize = 16 * 1024;

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
        self.shared.around.db.read(move |view| page(view.messages(after)?, limit)).await
    }

    /// Messages that can't be used and are kept aside, and why.
    pub async fn damaged(&self) -> Result<Vec<(QueueId, DamagedRecord)>, ReadError> {
        self.shared.around.db.read(|view| view.damaged()?.collect()).await
    }

    /// One message that waits, and its first lines, safe to show.
    pub async fn show(&self, id: QueueId) -> Result<Option<(MessageRecord, String)>, ReadError> {
        let db = &self.shared.around.db;
        let Some(record) = db.message(id).await? else { return Ok(None) };
        let head = db.body(id, record.body).await?.head(SHOWN_OCTETS).await;
        let head = head.map_err(|source| ReadError::Body { id, source })?;
        Ok(Some((record, shown(&head))))
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
        self.shared.force(Some(id)) > 0
    }

    /// Tries every message now and says how many.
    pub fn retry_all(&self) -> usize {
        self.shared.force(None)
    }

    /// Removes a message, also one that is kept aside, without telling anybody; false if there is none. An attempt
    /// that runs goes on.
    pub async fn remove(&self, id: QueueId) -> Result<bool, WriteError> {
        let answer = self.shared.around.db.submit(Job::Remove(id)).await?;
        self.shared.forget_unless_released(id).await;
        Ok(answer == Answer::Done)
    }

    /// Removes every message that waits and says how many.
    pub async fn remove_all(&self) -> Result<usize, WriteError> {
        let ids: Vec<_> = self.shared.lock().live.keys().copied().collect();
        let mut removed = 0;
        for id in ids {
            removed += usize::from(self.remove(id).await?);
        }
        Ok(removed)
    }
}

impl Shared {
    /// Makes one message, or all, due now.
    fn force(&self, id: Option<QueueId>) -> usize {
        let now = self.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut found = 0;
        for (&live_id, live) in state.live.iter_mut().filter(|(live, _)| id.is_none_or(|id| id == **live)) {
            live.forced = true;
            state.schedule.set_due(live_id, now);
            found += 1;
        }
        drop(guard);
        self.wake.notify_one();
        found
    }
}
