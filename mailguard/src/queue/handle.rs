//! The queue for control and command line: look at it, try a message now, remove one.

use std::sync::Arc;

use mailguard_core::mail::{QueueId, UnixTime};
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::store::record::{DamagedRecord, DamagedTable, Ending, MessageRecord, RecipientState};
use crate::store::rows::{Answer, Job};
use crate::store::spool_db::{ReadError, View};
use crate::store::writer::WriteError;

/// Looks at and steers the queue; cheap to clone.
#[derive(Clone)]
pub struct QueueHandle {
    shared: Arc<Shared>,
}

/// One message in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Its name.
    pub id: QueueId,
    /// When it came.
    pub received_at: UnixTime,
    /// Its length in octets.
    pub octets: u64,
    /// The reverse-path, with its brackets.
    pub sender: String,
    /// Everybody in the envelope, also those who are done.
    pub recipients: Vec<QueueRecipient>,
    /// Why it can't be used and what to do, if that is so; then the rest is what could be made out.
    pub damaged: Option<String>,
}

/// One recipient of a message in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// The address the mail goes to, with its brackets.
    pub address: String,
    /// `queued`, `delivered`, `failed`, `quarantined`, `merged` or `discarded`.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt: Option<UnixTime>,
    /// What was heard last.
    pub last: Option<String>,
}

impl QueueHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The first `limit` messages, damaged ones first, then the oldest.
    pub async fn list(&self, limit: usize) -> Result<Vec<QueueRow>, ReadError> {
        self.shared.around.db.read(move |view| rows(view, None, limit)).await
    }

    /// One message.
    pub async fn show(&self, id: QueueId) -> Result<Option<QueueRow>, ReadError> {
        Ok(self.shared.around.db.read(move |view| rows(view, Some(id), 1)).await?.pop())
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.shared.lock().live.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tries a message now, though its next hop may rest; false if it isn't in the queue.
    pub fn retry(&self, id: QueueId) -> bool {
        let found = self.shared.force(Some(id)) > 0;
        self.shared.wake.notify_one();
        found
    }

    /// Tries every message now and says how many.
    pub fn retry_all(&self) -> usize {
        let found = self.shared.force(None);
        self.shared.wake.notify_one();
        found
    }

    /// Removes a message without telling anybody; false if it isn't in the queue. An attempt that runs goes on.
    pub async fn remove(&self, id: QueueId) -> Result<bool, WriteError> {
        let answer = self.shared.around.db.submit(Job::Remove(id)).await?;
        self.shared.lock().forget(id);
        Ok(answer == Answer::Done)
    }
}

impl Shared {
    /// Makes one message, or all, due now.
    fn force(&self, id: Option<QueueId>) -> usize {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let mut found = 0;
        for (&live_id, live) in
            state.live.iter_mut().filter(|(live_id, _)| id.is_none_or(|id| id == **live_id))
        {
            live.forced = true;
            state.schedule.set_due(live_id, now);
            found += 1;
        }
        found
    }
}

fn rows(view: &View, id: Option<QueueId>, limit: usize) -> Result<Vec<QueueRow>, redb::Error> {
    let mut rows = Vec::new();
    for row in view.damaged()? {
        let (damaged_id, record) = row?;
        if id.is_none_or(|id| id == damaged_id) && record.table == DamagedTable::Messages {
            rows.push(damaged_row(damaged_id, record));
        }
    }
    match id {
        Some(id) => rows.extend(view.message(id)?.map(|record| QueueRow::new(id, &record))),
        None => {
            for row in view.messages()?.take(limit) {
                let (id, record) = row?;
                rows.push(QueueRow::new(id, &record));
            }
        }
    }
    rows.truncate(limit);
    Ok(rows)
}

fn damaged_row(id: QueueId, damaged: DamagedRecord) -> QueueRow {
    let readable = serde_json::from_str::<MessageRecord>(&damaged.row).ok();
    let empty = QueueRow {
        id,
        received_at: UnixTime(id.0),
        octets: 0,
        sender: String::new(),
        recipients: Vec::new(),
        damaged: None,
    };
    let row = readable.map_or(empty, |record| QueueRow::new(id, &record));
    QueueRow { damaged: Some(damaged.cause), ..row }
}

impl QueueRow {
    fn new(id: QueueId, record: &MessageRecord) -> Self {
        Self {
            id,
            received_at: record.received_at,
            octets: record.body.octets(),
            sender: record.envelope.reverse_path.to_string(),
            recipients: (0..record.states.len()).map(|index| QueueRecipient::new(record, index)).collect(),
            damaged: None,
        }
    }
}

impl QueueRecipient {
    fn new(record: &MessageRecord, index: usize) -> Self {
        let address = record.destination(index).to_string();
        let ended = |state: &str, last| Self {
            address: address.clone(),
            state: state.to_owned(),
            attempts: 0,
            next_attempt: None,
            last,
        };
        match &record.states[index] {
            RecipientState::Queued(queued) => Self {
                attempts: queued.attempts,
                next_attempt: Some(queued.next_attempt),
                ..ended("queued", queued.last.as_ref().map(|report| report.text.clone()))
            },
            RecipientState::Ended(Ending::Delivered) => ended("delivered", None),
            RecipientState::Ended(Ending::Failed(report)) => ended("failed", Some(report.text.clone())),
            RecipientState::Ended(Ending::Quarantined) => ended("quarantined", None),
            RecipientState::Ended(Ending::Merged) => ended("merged", None),
            RecipientState::Ended(Ending::Discarded) => ended("discarded", None),
        }
    }
}
