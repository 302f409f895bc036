//! The quarantine: what was quarantined, until somebody decides or its time is over.
//!
//! Stands beside the queue. Entries come from the spool (something was found) and from the queue
//! (undeliverable, and nobody to tell). They leave by release, back into the queue, routed afresh and not
//! filtered again; by deletion; or by age. The octets are kept as they were received.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mailguard_core::bcc;
use mailguard_core::config::Config;
use mailguard_core::finding::Threat;
use mailguard_core::mail::{ForwardPath, Mailbox, QueueId, Recipient, UnixTime, header, shown};
use mailguard_core::mime::subject;

use crate::store::body::Body;
use crate::store::spool::{Listing, QuarantineRecord, Reason, Release, SpoolDb, SpoolOp, SpoolOpResult};
use crate::store::stock::Stock;
use crate::store::{ReadError, WriteError};

/// How much of a message is shown, octets.
const SHOWN_OCTETS: usize = 64 * 1024;

/// How often entries are looked at for their age.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(15 * 60);

/// Expired entries that one transaction removes.
const EXPIRE_BATCH: usize = 500;

/// What a list is narrowed to; the default is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Occurs in id, sender, a recipient, a reason, or the client's address; letter case doesn't matter.
    pub text: Option<String>,
}

/// A quarantined message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What is known of it.
    pub record: QuarantineRecord,
    /// Its subject, decoded; empty without one.
    pub subject: String,
    /// Its header, safe to show.
    pub header: String,
    /// The beginning of what follows, undecoded, safe to show.
    pub text: String,
}

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It is in the queue.
    Queued,
    /// There is no such entry.
    Absent,
    /// It holds a virus, and that wasn't confirmed.
    NeedsConfirmation,
}

/// Why something couldn't be done.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The store couldn't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store couldn't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Looks at and changes the quarantine; cheap to clone.
#[derive(Debug, Clone)]
pub struct QuarantineHandle {
    db: SpoolDb,
    config: Arc<ArcSwap<Config>>,
}

impl QuarantineHandle {
    /// The quarantine of this store.
    pub fn new(db: SpoolDb, config: Arc<ArcSwap<Config>>) -> Self {
        Self { db, config }
    }

    /// At most `limit` entries that the filter lets through, oldest first, behind `after`.
    pub async fn list(
        &self,
        filter: Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Listing<QuarantineRecord>, ReadError> {
        let text = filter.text.map(|text| text.to_lowercase());
        let is_wanted =
            move |id, record: &QuarantineRecord| text.as_ref().is_none_or(|text| matches(id, record, text));
        self.db.quarantine(after, limit, is_wanted).await
    }

    /// One entry for people.
    pub async fn show(&self, id: QueueId) -> Result<Option<Shown>, ReadError> {
        let Some(record) = self.db.quarantined(id).await? else { return Ok(None) };
        let head = self.db.body(id, record.body).await?.head(SHOWN_OCTETS).await;
        let head = head.map_err(|source| ReadError::Body { id, source })?;
        let end = header::end(&head, 0).unwrap_or(head.len());
        Ok(Some(Shown {
            subject: subject(&head).unwrap_or_default(),
            header: shown(&head[..end]),
            text: shown(head.get(end + 2..).unwrap_or_default()),
            record,
        }))
    }

    /// The octets as they were received.
    pub async fn body(&self, id: QueueId) -> Result<Option<Body>, ReadError> {
        match self.db.quarantined(id).await? {
            Some(record) => self.db.body(id, record.body).await.map(Some),
            None => Ok(None),
        }
    }

    /// How much is quarantined.
    pub fn stock(&self) -> Stock {
        self.db.quarantine_stock()
    }

    /// The ids of all entries, for what is done to all of them.
    pub async fn ids(&self) -> Result<Vec<QueueId>, ReadError> {
        self.db.quarantine_ids().await
    }

    /// Sends entries on, to those they are quarantined from or to `to` instead. A virus goes only when
    /// `confirmed`.
    pub async fn release(
        &self,
        ids: &[QueueId],
        to: Option<&Mailbox>,
        confirmed: bool,
    ) -> Result<Vec<(QueueId, Released)>, QuarantineError> {
        let mut released = Vec::with_capacity(ids.len());
        for &id in ids {
            released.push((id, self.release_one(id, to, confirmed).await?));
        }
        Ok(released)
    }

    async fn release_one(
        &self,
        id: QueueId,
        to: Option<&Mailbox>,
        confirmed: bool,
    ) -> Result<Released, QuarantineError> {
        let Some(record) = self.db.quarantined(id).await? else { return Ok(Released::Absent) };
        if !confirmed && record.quarantined.iter().any(|quarantined| is_virus(&quarantined.reason)) {
            return Ok(Released::NeedsConfirmation);
        }
        let copies = match to {
            Some(_) => Vec::new(),
            None => {
                let recipients = record.envelope.recipients.iter().map(|recipient| &recipient.forward_path);
                let served = |bcc: &Mailbox| record.copied.iter().any(|copied| copied.same_as(bcc));
                bcc::copies(&self.config.load(), &record.envelope.reverse_path, recipients, served)
            }
        };
        let to = to.map(|mailbox| vec![Recipient::new(ForwardPath::Mailbox(mailbox.clone()))]);
        let release = Release { id, to, copies, at: SystemTime::now().into() };
        match self.db.submit(SpoolOp::Release(Box::new(release))).await? {
            SpoolOpResult::Absent => Ok(Released::Absent),
            _ => Ok(Released::Queued),
        }
    }

    /// Deletes entries for good and says how many there were.
    pub async fn delete(&self, ids: Vec<QueueId>) -> Result<usize, WriteError> {
        match self.db.submit(SpoolOp::Expunge(ids)).await? {
            SpoolOpResult::Removed(removed) => Ok(removed),
            _ => Ok(0),
        }
    }

    /// Deletes what is older than `quarantine.retention_days`, from now on and for ever.
    pub async fn run_maintenance(self) {
        loop {
            match self.expire(SystemTime::now().into()).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "quarantine entries expired"),
                Err(error) => tracing::error!(%error, "the quarantine can't be swept"),
            }
            tokio::time::sleep(MAINTENANCE_EVERY).await;
        }
    }

    /// Deletes what is too old at `now` and says how many entries that were.
    pub async fn expire(&self, now: UnixTime) -> Result<usize, QuarantineError> {
        let retention = self.config.load().quarantine.retention;
        let ids = self.db.expired(now.minus(retention)).await?;
        let mut removed = 0;
        for batch in ids.chunks(EXPIRE_BATCH) {
            removed += self.delete(batch.to_vec()).await?;
        }
        Ok(removed)
    }
}

fn is_virus(reason: &Reason) -> bool {
    matches!(reason, Reason::Threat(Threat::Virus(_)))
}

/// Whether the text, in lower case, occurs in what the list shows.
fn matches(id: QueueId, record: &QuarantineRecord, text: &str) -> bool {
    let has = |value: &dyn std::fmt::Display| value.to_string().to_lowercase().contains(text);
    let client = match &record.origin {
        mailguard_core::origin::Origin::Client(client) => Some(client.client),
        mailguard_core::origin::Origin::Internal => None,
    };
    has(&id)
        || has(&record.envelope.reverse_path)
        || record.envelope.recipients.iter().any(|recipient| has(&recipient.forward_path))
        || record.quarantined.iter().any(|quarantined| has(&quarantined.reason))
        || client.is_some_and(|client| has(&client))
}
