//! The spool: where a message becomes ours. One durable commit, and only then the 250 (RFC 5321 §4.2.5,
//! §6.1).
//!
//! The session writes the octets with a [`BodyWriter`], hands in a [`NewMessage`] with its dispositions, and
//! gets a [`Durable`] receipt or a reason to say 452. What is to be delivered goes on to the queue by itself,
//! even if the session is gone by then. How rows and files are kept is left to `store`.

#[cfg(test)]
pub(crate) mod fixture;
mod free_disk;
mod id_mint;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mailguard_core::bcc;
use mailguard_core::config::Config;
use mailguard_core::disposition::Disposition;
use mailguard_core::mail::{Envelope, Mailbox, QueueId, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::smtp::Refusal;

pub use self::id_mint::IdMint;
pub use crate::store::body::{Body, BodyFile, BodyWriter, SPILL_OCTETS};

use self::free_disk::FreeDisk;
use crate::store::body::BodyDirectory;
use crate::store::spool::{
    Accept, Budget, CachedMessage, Committed, MessageRecord, QuarantineRecord, Reason, RecipientState,
    SpoolDb, SpoolOp, SpoolOpResult, StoredBody, first_states,
};
use crate::store::{StoreError, WriteError};

/// Octets of bodies that wait in memory for their first attempt; what exceeds it is read back from the store.
const CACHED_OCTETS: u64 = 64 * 1024 * 1024;

/// Proof that `T` is on disk: only [`Spool::commit`] makes one, after the `fsync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// What is on disk.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// A message that passed the filters.
#[derive(Debug)]
pub struct NewMessage {
    /// From [`IdMint`].
    pub id: QueueId,
    /// Who brought it.
    pub origin: Origin,
    /// To whom.
    pub envelope: Envelope,
    /// What becomes of it, one a recipient, in the envelope's order.
    pub dispositions: Vec<Disposition>,
    /// The octets, with our trace fields.
    pub body: Body,
    /// When the last octet came.
    pub received_at: UnixTime,
}

/// Why a message wasn't taken; nothing of it remains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Less than `min_free_disk` is free, or the disk said so itself.
    #[error("the disk is full: below min_free_disk nothing is accepted")]
    Full,
    /// `quarantine.max_size` is reached.
    #[error("the quarantine is full: raise quarantine.max_size, or delete or release entries")]
    QuarantineFull,
    /// The store failed.
    #[error("{0}")]
    Failed(Arc<str>),
}

impl CommitError {
    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            CommitError::Full => Refusal::StorageFull,
            CommitError::QuarantineFull => Refusal::QuarantineFull,
            CommitError::Failed(_) => Refusal::StorageFailed,
        }
    }
}

/// A body couldn't be written.
impl From<io::Error> for CommitError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full,
            _ => CommitError::Failed(format!("a body file can't be written: {error}").into()),
        }
    }
}

/// A row couldn't be made.
impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        CommitError::Failed(error.to_string().into())
    }
}

impl From<WriteError> for CommitError {
    fn from(error: WriteError) -> Self {
        CommitError::Failed(error.to_string().into())
    }
}

/// The spool; clones are the same one.
#[derive(Debug, Clone)]
pub struct Spool {
    db: SpoolDb,
    config: Arc<ArcSwap<Config>>,
    ids: Arc<IdMint>,
    bodies: BodyDirectory,
    free_disk: Arc<FreeDisk>,
    budget: Budget,
}

impl Spool {
    /// A spool on an opened store. `ids` starts above what the store holds.
    pub fn new(db: SpoolDb, config: Arc<ArcSwap<Config>>, ids: Arc<IdMint>) -> Self {
        let free_disk = Arc::new(FreeDisk::of(&config.load().state_dir));
        let bodies = db.bodies().clone();
        Self { db, config, ids, bodies, free_disk, budget: Budget::default() }
    }

    /// Whether a message could be taken now; asked before the octets are.
    pub fn storage_available(&self) -> Result<(), CommitError> {
        if let Some(failure) = self.db.failure() {
            return Err(CommitError::Failed(failure));
        }
        if self.free_disk.octets() < self.config.load().min_free_disk {
            return Err(CommitError::Full);
        }
        Ok(())
    }

    /// A writer for the octets of one message.
    pub fn body_writer(&self) -> BodyWriter {
        self.bodies.writer(self.ids.mint().0)
    }

    /// Takes a message for good. When this returns a receipt, a power cut loses nothing of it. Dropping the
    /// future doesn't take the message back.
    pub async fn commit(&self, message: NewMessage) -> Result<Durable<QueueId>, CommitError> {
        self.storage_available()?;
        let id = message.id;
        let Some(accept) = self.accept(message)? else {
            // Discarded for every recipient: there is nothing that could get lost.
            return Ok(Durable(id));
        };
        accept.body.settle().await?;
        match self.db.submit(SpoolOp::Accept(Box::new(accept))).await? {
            SpoolOpResult::Done => Ok(Durable(id)),
            other => Err(CommitError::Failed(format!("the store answered {other:?}").into())),
        }
    }

    /// Who gets a copy of what is delivered now.
    fn copies(&self, envelope: &Envelope, dispositions: &[Disposition]) -> Vec<Mailbox> {
        let recipients = envelope.recipients.iter().zip(dispositions);
        let delivered = recipients
            .filter(|(_, disposition)| **disposition == Disposition::Deliver)
            .map(|(recipient, _)| &recipient.forward_path);
        // Who has the message quarantined gets it when it is released; who gets it redirected, has it.
        let named = |bcc: &Mailbox| {
            envelope.recipients.iter().filter_map(|to| to.forward_path.mailbox()).any(|to| to.same_as(bcc))
        };
        let redirected = |bcc: &Mailbox| {
            let is_to = |disposition: &Disposition| matches!(disposition, Disposition::Redirect(mailbox) if mailbox.same_as(bcc));
            dispositions.iter().any(is_to)
        };
        let served = |bcc: &Mailbox| named(bcc) || redirected(bcc);
        bcc::copies(&self.config.load(), &envelope.reverse_path, delivered, served)
    }

    /// The rows of a message; none if nothing is to be kept.
    fn accept(&self, message: NewMessage) -> Result<Option<Accept>, CommitError> {
        let NewMessage { id, origin, envelope, dispositions, body, received_at } = message;
        if dispositions.len() != envelope.recipients.len() {
            return Err(CommitError::Failed("each recipient needs one disposition".into()));
        }
        let states = first_states(&dispositions, received_at);
        let mut record = MessageRecord::new(origin, envelope, received_at, StoredBody::of(&body), states);
        let copies = self.copies(&record.envelope, &dispositions);
        let quarantine = quarantined(&record, &dispositions, &copies);
        record.copy_to(copies, received_at);
        if quarantine.is_some() {
            // Commits under way aren't counted: the limit may be exceeded by what a few sessions hold.
            let octets = self.db.quarantine_stock().octets.saturating_add(body.octets());
            if octets > self.config.load().quarantine.max_size {
                return Err(CommitError::QuarantineFull);
            }
        }
        let queued = record.states.iter().any(|state| matches!(state, RecipientState::Queued(_)));
        if !queued && quarantine.is_none() {
            return Ok(None);
        }
        let quarantine = quarantine.map(|entry| entry.row()).transpose()?;
        let row = if queued { Some(record.row()?) } else { None };
        let handover = queued.then(|| Committed {
            id,
            cached: self.budget.take(body.octets(), CACHED_OCTETS).map(|share| CachedMessage {
                record,
                body: body.clone(),
                _share: share,
            }),
        });
        Ok(Some(Accept { id, message: row, quarantine, body, handover }))
    }
}

/// The quarantine entry that the dispositions ask for; `copies` are sent now.
fn quarantined(
    record: &MessageRecord,
    dispositions: &[Disposition],
    copies: &[Mailbox],
) -> Option<QuarantineRecord> {
    let mut entry = None;
    for (recipient, disposition) in record.envelope.recipients.iter().zip(dispositions) {
        if let Disposition::Quarantine(threat) = disposition {
            entry.get_or_insert_with(|| QuarantineRecord::about(record)).quarantine(
                recipient.clone(),
                Reason::Threat(threat.clone()),
                record.received_at,
            );
        }
    }
    if let Some(entry) = &mut entry {
        entry.copied = copies.to_vec();
    }
    entry
}
