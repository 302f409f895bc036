//! The quarantine: id ▶ JSON. `spool` and `queue` put entries in; what becomes of them is left to
//! `quarantine`.

use mailguard_core::finding::Threat;
use mailguard_core::mail::{Envelope, Mailbox, QueueId, Recipient, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Report;
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::SpoolDb;
use super::bodies::StoredBody;
use super::by_id::{self, Listing};
use super::messages::MessageRecord;
use crate::store::error::{ReadError, StoreError};
use crate::store::table::{StoredTable, encode};

/// The table.
pub(super) struct Quarantine;

impl StoredTable for Quarantine {
    const NAME: &'static str = "quarantine";
    type Key = u64;
    type Value = &'static [u8];
}

/// A message that is quarantined for at least one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// Who brought it.
    #[serde(rename = "origin")]
    pub origin: Origin,
    /// As the session took it, with the quarantined recipients only.
    #[serde(rename = "envelope")]
    pub envelope: Envelope,
    /// When the session took it.
    #[serde(rename = "received_at")]
    pub received_at: UnixTime,
    /// Where the octets are.
    #[serde(rename = "body")]
    pub body: StoredBody,
    /// One a recipient, in the envelope's order.
    #[serde(rename = "withheld")]
    pub quarantined: Vec<QuarantinedRecipient>,
    /// Who has got a copy.
    #[serde(rename = "copied", default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<Mailbox>,
}

/// Why one recipient hasn't got the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedRecipient {
    /// Why.
    #[serde(rename = "reason")]
    pub reason: Reason,
    /// Since when.
    #[serde(rename = "since")]
    pub since: UnixTime,
}

/// The reasons to quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Something was found in it.
    #[serde(rename = "threat")]
    Threat(Threat),
    /// It can't be delivered, and nobody is to be told by mail.
    #[serde(rename = "undeliverable")]
    Undeliverable(Report),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Threat(threat) => threat.fmt(f),
            Reason::Undeliverable(report) => write!(f, "undeliverable: {}", report.text),
        }
    }
}

impl QuarantineRecord {
    /// Its row.
    pub fn row(&self) -> Result<Vec<u8>, StoreError> {
        encode("of a new entry of the quarantine", self)
    }

    /// An entry about `message` that quarantines nothing yet.
    pub fn about(message: &MessageRecord) -> Self {
        Self {
            origin: message.origin.clone(),
            envelope: Envelope { recipients: Vec::new(), ..message.envelope.clone() },
            received_at: message.received_at,
            body: message.body,
            quarantined: Vec::new(),
            copied: message.copied.clone(),
        }
    }

    /// Quarantines the message for one more recipient.
    pub fn quarantine(&mut self, recipient: Recipient, reason: Reason, since: UnixTime) {
        self.envelope.recipients.push(recipient);
        self.quarantined.push(QuarantinedRecipient { reason, since });
    }

    /// Since when the whole entry is as it is: retention counts from here.
    pub fn since(&self) -> UnixTime {
        self.quarantined.iter().map(|quarantined| quarantined.since).max().unwrap_or(self.received_at)
    }
}

impl SpoolDb {
    /// A quarantine entry.
    pub async fn quarantined(&self, id: QueueId) -> Result<Option<QuarantineRecord>, ReadError> {
        self.read(move |view| by_id::get(&view.open::<Quarantine>()?, id)).await
    }

    /// At most `limit` entries that are such as `is_wanted` says, oldest first, behind `after`.
    pub async fn quarantine(
        &self,
        after: Option<QueueId>,
        limit: usize,
        is_wanted: impl Fn(QueueId, &QuarantineRecord) -> bool + Send + 'static,
    ) -> Result<Listing<QuarantineRecord>, ReadError> {
        self.read(move |view| {
            let table = view.open::<Quarantine>()?;
            let rows = by_id::range(&table, after)?;
            let wanted = rows.filter(|row| row.as_ref().map_or(true, |(id, record)| is_wanted(*id, record)));
            by_id::page(wanted, limit)
        })
        .await
    }

    /// The ids of all entries.
    pub async fn quarantine_ids(&self) -> Result<Vec<QueueId>, ReadError> {
        self.read(|view| view.open::<Quarantine>()?.iter()?.map(|row| Ok(QueueId(row?.0.value()))).collect())
            .await
    }

    /// The entries that have been as they are since before `since`, oldest first.
    pub async fn expired(&self, since: UnixTime) -> Result<Vec<QueueId>, ReadError> {
        self.read(move |view| {
            let mut expired = Vec::new();
            for row in by_id::range::<QuarantineRecord>(&view.open::<Quarantine>()?, None)? {
                let (id, record) = row?;
                if record.since() < since {
                    expired.push(id);
                }
            }
            Ok(expired)
        })
        .await
    }
}
