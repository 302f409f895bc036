//! What the writer of `spool.redb` does with a job inside a transaction, and with the world after the
//! `fsync`.
//!
//! A message lives in up to three tables under one id: its record, its body, its quarantine entry. Here is
//! the one place that keeps them consistent: a body goes with the last row that needs it. Records are read,
//! changed and written back in here only, so that two attempts that end together don't undo each other.

use std::sync::Arc;

use mailguard_core::mail::{Envelope, Mailbox, QueueId, Recipient, RecipientIndex, UnixTime};
use redb::{ReadableTable, WriteTransaction};

use super::Writing;
use super::bodies::StoredBody;
use super::by_id::{get, put};
use super::damaged::{self, DamagedRecord, DamagedTable};
use super::intake::{Committed, Intake};
use super::messages::{Ending, MessageRecord, RecipientState};
use super::quarantine::{QuarantineRecord, Reason};
use crate::store::body::{Body, BodyDirectory};
use crate::store::error::StoreError;
use crate::store::stock::{Change, SharedStock};
use crate::store::writer::Rows;

/// What a job's rows hold in memory beside its body, octets, roughly.
const ROW_OCTETS: usize = 1024;

/// What a record adds to the octets of a body, roughly.
pub(super) const RECORD_OCTETS: u64 = 1024;

/// One change of the spool, whole or not at all.
#[derive(Debug)]
pub enum SpoolOp {
    /// A new message.
    Accept(Box<Accept>),
    /// Every recipient of a message that was never quarantined is ended.
    Finish(QueueId, StoredBody),
    /// What an attempt came to.
    Record(Box<RecordAttempt>),
    /// A message is no longer to be delivered, at an administrator's word. Damaged rows go, too.
    Remove(QueueId),
    /// Quarantine entries are no longer needed.
    Expunge(Vec<QueueId>),
    /// A quarantined message goes back to the queue.
    Release(Box<Release>),
    /// A row that turned out to be unusable is put aside.
    PutAside(QueueId, String),
    /// No attempt is made at a message from now on, or attempts are made again.
    Hold(QueueId, bool),
    /// No attempt is made at a destination from now on, or attempts are made again.
    Pause(String, bool),
}

/// A new message; at least one of `message` and `quarantine` is there.
#[derive(Debug)]
pub struct Accept {
    /// Its name, new.
    pub id: QueueId,
    /// The encoded [`MessageRecord`], where a recipient waits.
    pub message: Option<Vec<u8>>,
    /// The encoded [`QuarantineRecord`], where a recipient's copy is quarantined.
    pub quarantine: Option<Vec<u8>>,
    /// The octets, on disk already where they are a file.
    pub body: Body,
    /// What the queue gets, once the message is on disk.
    pub handover: Option<Committed>,
}

/// What an attempt came to.
#[derive(Debug)]
pub struct RecordAttempt {
    /// Which message.
    pub id: QueueId,
    /// How many recipients the message had for whom these are the outcomes. A row that was made anew under
    /// the same id, by a release after a removal, has fewer, and they are none of its.
    pub recipients: usize,
    /// New states.
    pub states: Vec<(RecipientIndex, RecipientState)>,
    /// Recipients to be quarantined.
    pub quarantine: Vec<(RecipientIndex, Reason)>,
    /// When.
    pub at: UnixTime,
    /// The notices of it, to sender and administrator.
    pub notices: Vec<Accept>,
}

/// A quarantined message that goes back to the queue.
#[derive(Debug)]
pub struct Release {
    /// Which.
    pub id: QueueId,
    /// To whom; none: to those it is quarantined from.
    pub to: Option<Vec<Recipient>>,
    /// Who gets a copy.
    pub copies: Vec<Mailbox>,
    /// When.
    pub at: UnixTime,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolOpResult {
    /// Done.
    Done,
    /// There is no such row (any more): nothing was done.
    Absent,
    /// The record is written; the message is due again at this time, or ended.
    Recorded(Option<UnixTime>),
    /// So many rows were removed.
    Removed(usize),
}

/// The writer's side of `spool.redb`.
pub(super) struct SpoolRows {
    directory: BodyDirectory,
    intake: Arc<Intake>,
    queued: SharedStock,
    quarantined: SharedStock,
    weight: Weight,
    after: After,
}

/// How much a start after an unclean end would have to read, roughly.
#[derive(Default)]
struct Weight {
    octets: u64,
    quick_repair_octets: u64,
}

impl Weight {
    fn add(&mut self, body: u64) {
        self.octets = self.octets.saturating_add(body + RECORD_OCTETS);
    }

    fn remove(&mut self, body: u64) {
        self.octets = self.octets.saturating_sub(body + RECORD_OCTETS);
    }
}

impl SpoolRows {
    pub(super) fn new(
        directory: BodyDirectory,
        intake: Arc<Intake>,
        queued: SharedStock,
        quarantined: SharedStock,
    ) -> Self {
        Self { directory, intake, queued, quarantined, weight: Weight::default(), after: After::default() }
    }

    /// Begins with `octets` of rows and uses quick repair from `quick_repair_octets` on.
    pub(super) fn with_weight(self, octets: u64, quick_repair_octets: u64) -> Self {
        Self { weight: Weight { octets, quick_repair_octets }, ..self }
    }
}

/// What is done once a commit is on disk.
#[derive(Default)]
struct After {
    handover: Vec<Committed>,
    unlink: Vec<u64>,
    queued: Change,
    quarantined: Change,
}

impl Rows for SpoolRows {
    type Job = SpoolOp;
    type Answer = SpoolOpResult;

    fn apply(
        &mut self,
        transaction: &WriteTransaction,
        jobs: Vec<SpoolOp>,
    ) -> Result<Vec<SpoolOpResult>, StoreError> {
        let tables = Writing::open(transaction)?;
        let mut batch = Batch { tables, weight: &mut self.weight, after: &mut self.after };
        jobs.into_iter().map(|job| batch.apply(job)).collect()
    }

    fn quick_repair(&self) -> bool {
        self.weight.octets >= self.weight.quick_repair_octets
    }

    fn committed(&mut self) {
        let After { handover, unlink, queued, quarantined } = std::mem::take(&mut self.after);
        self.queued.change(queued);
        self.quarantined.change(quarantined);
        if !handover.is_empty() {
            self.intake.push(handover.into_iter());
        }
        for number in unlink {
            self.directory.remove(number);
        }
    }
}

/// The jobs of one commit.
struct Batch<'a, 't> {
    tables: Writing<'t>,
    weight: &'a mut Weight,
    after: &'a mut After,
}

impl Batch<'_, '_> {
    fn apply(&mut self, job: SpoolOp) -> Result<SpoolOpResult, StoreError> {
        match job {
            SpoolOp::Accept(accept) => self.accept(*accept),
            SpoolOp::Finish(id, body) => {
                self.remove_message(id, body)?;
                Ok(SpoolOpResult::Done)
            }
            SpoolOp::Record(record) => self.record(*record),
            SpoolOp::Remove(id) => self.remove(id),
            SpoolOp::Expunge(ids) => {
                let mut removed = 0;
                for id in ids {
                    removed += usize::from(self.expunge(id)?);
                }
                Ok(SpoolOpResult::Removed(removed))
            }
            SpoolOp::Release(release) => self.release(*release),
            SpoolOp::PutAside(id, cause) => self.put_aside(id, cause),
            SpoolOp::Hold(id, on_hold) => self.hold(id, on_hold),
            SpoolOp::Pause(destination, true) => {
                self.tables.pause(&destination)?;
                Ok(SpoolOpResult::Done)
            }
            SpoolOp::Pause(destination, false) => Ok(if self.tables.resume(&destination)? {
                SpoolOpResult::Done
            } else {
                SpoolOpResult::Absent
            }),
        }
    }

    fn accept(&mut self, accept: Accept) -> Result<SpoolOpResult, StoreError> {
        let id = accept.id.0;
        match &accept.body {
            Body::Memory(octets) => {
                self.tables.bodies.insert(id, &octets[..])?;
                self.weight.add(octets.len() as u64);
            }
            Body::File(file) => file.keep(),
        }
        if let Some(row) = accept.message {
            self.tables.messages.insert(id, &row[..])?;
            self.after.queued.add(accept.body.octets());
        }
        if let Some(row) = accept.quarantine {
            self.tables.quarantine.insert(id, &row[..])?;
            self.after.quarantined.add(accept.body.octets());
        }
        self.after.handover.extend(accept.handover);
        Ok(SpoolOpResult::Done)
    }

    fn record(&mut self, record: RecordAttempt) -> Result<SpoolOpResult, StoreError> {
        let Some(mut message) = get::<MessageRecord>(&self.tables.messages, record.id)? else {
            return Ok(SpoolOpResult::Absent);
        };
        if message.states.len() < record.recipients {
            return Ok(SpoolOpResult::Absent);
        }
        for (index, state) in record.states {
            if let Some(place) = message.states.get_mut(index.get()) {
                *place = state;
            }
        }
        if !record.quarantine.is_empty() {
            self.quarantine(record.id, &mut message, record.quarantine, record.at)?;
        }
        for notice in record.notices {
            self.accept(notice)?;
        }
        let due = message.due();
        if due.is_some() {
            put(&mut self.tables.messages, record.id, &message)?;
        } else {
            self.remove_message(record.id, message.body)?;
        }
        Ok(SpoolOpResult::Recorded(due))
    }

    fn quarantine(
        &mut self,
        id: QueueId,
        message: &mut MessageRecord,
        recipients: Vec<(RecipientIndex, Reason)>,
        at: UnixTime,
    ) -> Result<(), StoreError> {
        let mut entry = match get::<QuarantineRecord>(&self.tables.quarantine, id)? {
            Some(entry) => entry,
            None => {
                self.after.quarantined.add(message.body.octets());
                QuarantineRecord::about(message)
            }
        };
        for (index, reason) in recipients {
            let mut recipient = message.recipient(index).clone();
            recipient.forward_path = message.destination(index);
            entry.quarantine(recipient, reason, at);
            message.states[index.get()] = RecipientState::Ended(Ending::Quarantined);
        }
        put(&mut self.tables.quarantine, id, &entry)
    }

    fn remove(&mut self, id: QueueId) -> Result<SpoolOpResult, StoreError> {
        let damaged = self.tables.remove_damaged(id)?;
        if damaged {
            // A file stays, for the next start to put aside: which one it is only a row that can be read says
            // for certain.
            self.remove_body(id, StoredBody::Row { octets: 0 })?;
        }
        let Some(message) = get::<MessageRecord>(&self.tables.messages, id)? else {
            return Ok(if damaged { SpoolOpResult::Done } else { SpoolOpResult::Absent });
        };
        self.remove_message(id, message.body)?;
        Ok(SpoolOpResult::Done)
    }

    fn expunge(&mut self, id: QueueId) -> Result<bool, StoreError> {
        let Some(entry) = get::<QuarantineRecord>(&self.tables.quarantine, id)? else { return Ok(false) };
        self.tables.quarantine.remove(id.0)?;
        self.after.quarantined.remove(entry.body.octets());
        self.remove_body(id, entry.body)?;
        Ok(true)
    }

    /// The recipients join those who still wait for the same message, if there are any.
    fn release(&mut self, release: Release) -> Result<SpoolOpResult, StoreError> {
        let Release { id, to, copies, at } = release;
        let Some(entry) = get::<QuarantineRecord>(&self.tables.quarantine, id)? else {
            return Ok(SpoolOpResult::Absent);
        };
        let body = entry.body;
        let elsewhere = to.is_some();
        let recipients = to.unwrap_or_else(|| entry.envelope.recipients.clone());
        let mut message = match get::<MessageRecord>(&self.tables.messages, id)? {
            Some(message) => message,
            None => {
                self.after.queued.add(body.octets());
                let envelope = Envelope { recipients: Vec::new(), ..entry.envelope };
                let mut message = MessageRecord::new(entry.origin, envelope, at, body, Vec::new());
                message.copied = entry.copied;
                message
            }
        };
        for recipient in recipients {
            message.add(recipient, elsewhere, at);
        }
        message.copy_to(copies, at);
        put(&mut self.tables.messages, id, &message)?;
        self.tables.quarantine.remove(id.0)?;
        self.after.quarantined.remove(body.octets());
        self.after.handover.push(Committed { id, cached: None });
        Ok(SpoolOpResult::Recorded(message.due()))
    }

    fn hold(&mut self, id: QueueId, on_hold: bool) -> Result<SpoolOpResult, StoreError> {
        let Some(mut message) = get::<MessageRecord>(&self.tables.messages, id)? else {
            return Ok(SpoolOpResult::Absent);
        };
        message.on_hold = on_hold;
        put(&mut self.tables.messages, id, &message)?;
        Ok(SpoolOpResult::Done)
    }

    fn put_aside(&mut self, id: QueueId, cause: String) -> Result<SpoolOpResult, StoreError> {
        let row = match self.tables.messages.remove(id.0)? {
            Some(row) => String::from_utf8_lossy(row.value()).into_owned(),
            None => return Ok(SpoolOpResult::Absent),
        };
        let octets = serde_json::from_str::<MessageRecord>(&row).map_or(0, |message| message.body.octets());
        self.after.queued.remove(octets);
        let record = DamagedRecord { cause, table: DamagedTable::Messages, row };
        damaged::put(&mut self.tables.damaged, id, &record)?;
        Ok(SpoolOpResult::Done)
    }

    fn remove_message(&mut self, id: QueueId, body: StoredBody) -> Result<(), StoreError> {
        if self.tables.messages.remove(id.0)?.is_some() {
            self.after.queued.remove(body.octets());
            self.remove_body(id, body)?;
        }
        Ok(())
    }

    /// Removes the body unless another row needs it.
    fn remove_body(&mut self, id: QueueId, body: StoredBody) -> Result<(), StoreError> {
        if self.tables.messages.get(id.0)?.is_some() || self.tables.quarantine.get(id.0)?.is_some() {
            return Ok(());
        }
        match body {
            StoredBody::Row { octets } => {
                self.tables.bodies.remove(id.0)?;
                self.weight.remove(octets);
            }
            StoredBody::File { number, .. } => self.after.unlink.push(number),
        }
        Ok(())
    }
}

impl SpoolOp {
    /// What it holds in memory, roughly.
    pub(super) fn octets(&self) -> usize {
        let body = |accept: &Accept| match &accept.body {
            Body::Memory(octets) => octets.len(),
            Body::File(_) => 0,
        };
        ROW_OCTETS
            + match self {
                SpoolOp::Accept(accept) => body(accept),
                SpoolOp::Record(record) => record.notices.iter().map(body).sum(),
                _ => 0,
            }
    }
}
