//! Messages of which a recipient waits: id ▶ JSON. What is known of a message between its 250 and its end.
//!
//! JSON, so that an administrator with nothing but the file can read the rows and a later version can add
//! fields. Who changes them: `spool` writes the first version, `queue` goes on.

use mailguard_core::bcc;
use mailguard_core::config::Config;
use mailguard_core::disposition::Disposition;
use mailguard_core::mail::{Envelope, ForwardPath, Mailbox, QueueId, Recipient, RecipientIndex, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Report;
use mailguard_core::route::{NoRoute, Route, route};
use serde::{Deserialize, Serialize};

use super::SpoolDb;
use super::bodies::StoredBody;
use super::by_id::{self, Listing};
use crate::store::error::{ReadError, StoreError};
use crate::store::table::{StoredTable, encode};

/// The table.
pub(super) struct Messages;

impl StoredTable for Messages {
    const NAME: &'static str = "messages";
    type Key = u64;
    type Value = &'static [u8];
}

/// A message of which at least one recipient still waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// Who brought it.
    #[serde(rename = "origin")]
    pub origin: Origin,
    /// As the session took it.
    #[serde(rename = "envelope")]
    pub envelope: Envelope,
    /// When the session took it.
    #[serde(rename = "received_at")]
    pub received_at: UnixTime,
    /// Where the octets are.
    #[serde(rename = "body")]
    pub body: StoredBody,
    /// One a recipient, in the envelope's order.
    #[serde(rename = "states")]
    pub states: Vec<RecipientState>,
    /// Who has got a copy, or gets one: recipients that nobody else knows of.
    #[serde(rename = "copied", default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<Mailbox>,
    /// An administrator wants no attempt made.
    #[serde(rename = "held", default, skip_serializing_if = "std::ops::Not::not")]
    pub on_hold: bool,
}

/// How far one recipient is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// Waits for an attempt.
    #[serde(rename = "queued")]
    Queued(Queued),
    /// Nothing more is done.
    #[serde(rename = "ended")]
    Ended(Ending),
}

/// A recipient that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Goes here and not to the forward-path of the envelope.
    #[serde(rename = "redirected_to")]
    pub redirected_to: Option<Mailbox>,
    /// Attempts so far.
    #[serde(rename = "attempts")]
    pub attempts: u32,
    /// Not before.
    #[serde(rename = "next_attempt")]
    pub next_attempt: UnixTime,
    /// What the last attempt came to.
    #[serde(rename = "last")]
    pub last: Option<Report>,
    /// The sender was told of the delay.
    #[serde(rename = "warned", default, skip_serializing_if = "std::ops::Not::not")]
    pub warned: bool,
    /// The address is ours, not one that the client gave: the original destination has nothing to do
    /// with it.
    #[serde(rename = "ours", default, skip_serializing_if = "std::ops::Not::not")]
    pub added_by_us: bool,
}

impl Queued {
    /// Waits for its first attempt, which is due at `now`.
    pub fn first(redirected_to: Option<Mailbox>, now: UnixTime) -> Self {
        let added_by_us = redirected_to.is_some();
        Self { redirected_to, attempts: 0, next_attempt: now, last: None, warned: false, added_by_us }
    }
}

/// Why nothing more is done for a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The next hop has it.
    #[serde(rename = "delivered")]
    Delivered,
    /// It could not be delivered; the sender was told, or there was nobody to tell.
    #[serde(rename = "failed")]
    Failed(Report),
    /// The quarantine has it.
    #[serde(rename = "quarantined")]
    Quarantined,
    /// Redirected to an address that gets the message for an earlier recipient already.
    #[serde(rename = "merged")]
    Merged,
    /// The configuration says drop.
    #[serde(rename = "discarded")]
    Discarded,
}

impl MessageRecord {
    /// Its row.
    pub fn row(&self) -> Result<Vec<u8>, StoreError> {
        encode("of a new message", self)
    }

    /// A message of which nobody has a copy.
    pub fn new(
        origin: Origin,
        envelope: Envelope,
        received_at: UnixTime,
        body: StoredBody,
        states: Vec<RecipientState>,
    ) -> Self {
        Self { origin, envelope, received_at, body, states, copied: Vec::new(), on_hold: false }
    }

    /// One more recipient, due at `now`; `added_by_us`: of whom the client knows nothing.
    pub fn add(&mut self, recipient: Recipient, added_by_us: bool, now: UnixTime) {
        self.envelope.recipients.push(recipient);
        self.states.push(RecipientState::Queued(Queued { added_by_us, ..Queued::first(None, now) }));
    }

    /// Copies for these, due at `now`.
    pub fn copy_to(&mut self, copies: Vec<Mailbox>, now: UnixTime) {
        for bcc in copies {
            self.add(bcc::recipient(bcc.clone()), true, now);
            self.copied.push(bcc);
        }
    }

    /// When the next of its recipients is due; none when every recipient is ended.
    pub fn due(&self) -> Option<UnixTime> {
        self.queued().map(|(_, queued)| queued.next_attempt).min()
    }

    /// Every recipient, and how far it is.
    pub fn recipients(&self) -> impl Iterator<Item = (RecipientIndex, &RecipientState)> {
        self.states.iter().enumerate().map(|(place, state)| (RecipientIndex::new(place), state))
    }

    /// The recipients that wait.
    pub fn queued(&self) -> impl Iterator<Item = (RecipientIndex, &Queued)> {
        self.recipients().filter_map(|(index, state)| match state {
            RecipientState::Queued(queued) => Some((index, queued)),
            RecipientState::Ended(_) => None,
        })
    }

    /// What RCPT said.
    pub fn recipient(&self, index: RecipientIndex) -> &Recipient {
        &self.envelope.recipients[index.get()]
    }

    /// How far the recipient is.
    pub fn state(&self, index: RecipientIndex) -> &RecipientState {
        &self.states[index.get()]
    }

    /// Whether the recipient is one who gets a copy.
    pub fn is_copy(&self, index: RecipientIndex) -> bool {
        let mailbox = self.recipient(index).forward_path.mailbox();
        let is_added_by_us =
            matches!(self.state(index), RecipientState::Queued(Queued { added_by_us: true, .. }));
        is_added_by_us && mailbox.is_some_and(|mailbox| self.copied.iter().any(|bcc| bcc.same_as(mailbox)))
    }

    /// By which way the mail for the recipient goes.
    pub fn route(&self, config: &Config, index: RecipientIndex) -> Result<Route, NoRoute> {
        let (added_by_us, deferred) = match self.state(index) {
            RecipientState::Queued(queued) => (queued.added_by_us, queued.attempts > 0),
            RecipientState::Ended(_) => (false, false),
        };
        let origin = if added_by_us { &Origin::Internal } else { &self.origin };
        route(config, &self.envelope.reverse_path, &self.destination(index), origin, deferred)
    }

    /// Where the mail for the recipient goes, redirection considered.
    pub fn destination(&self, index: RecipientIndex) -> ForwardPath {
        match self.state(index) {
            RecipientState::Queued(Queued { redirected_to: Some(mailbox), .. }) => {
                ForwardPath::Mailbox(mailbox.clone())
            }
            _ => self.recipient(index).forward_path.clone(),
        }
    }
}

/// The first states of a message: what the dispositions say, due at `now`.
pub fn first_states(dispositions: &[Disposition], now: UnixTime) -> Vec<RecipientState> {
    let mut redirected: Vec<&Mailbox> = Vec::new();
    let queued = |redirected_to| RecipientState::Queued(Queued::first(redirected_to, now));
    dispositions
        .iter()
        .map(|disposition| match disposition {
            Disposition::Deliver => queued(None),
            Disposition::Redirect(mailbox) if redirected.iter().any(|earlier| earlier.same_as(mailbox)) => {
                RecipientState::Ended(Ending::Merged)
            }
            Disposition::Redirect(mailbox) => {
                redirected.push(mailbox);
                queued(Some(mailbox.clone()))
            }
            Disposition::Quarantine(_) => RecipientState::Ended(Ending::Quarantined),
            Disposition::Discard(_) => RecipientState::Ended(Ending::Discarded),
        })
        .collect()
}

/// What was found of one message: its record, nothing (any more), or why its row can't be read.
pub type FoundMessage = (QueueId, Result<Option<MessageRecord>, StoreError>);

impl SpoolDb {
    /// The record of a message that waits.
    pub async fn message(&self, id: QueueId) -> Result<Option<MessageRecord>, ReadError> {
        self.read(move |view| by_id::get(&view.open::<Messages>()?, id)).await
    }

    /// The records of these messages, which are due.
    pub async fn due(&self, ids: Vec<QueueId>) -> Result<Vec<FoundMessage>, ReadError> {
        self.read(move |view| {
            let table = view.open::<Messages>()?;
            let found = |id| match by_id::get(&table, id) {
                // The others can be read. Anything else may be the disk's: those are tried again.
                Err(damage @ (StoreError::Row { .. } | StoreError::Corrupted(_))) => Ok((id, Err(damage))),
                Err(error) => Err(error),
                record => Ok((id, record)),
            };
            ids.into_iter().map(found).collect()
        })
        .await
    }

    /// At most `limit` messages that wait, oldest first, behind `after`.
    pub async fn messages(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Listing<MessageRecord>, ReadError> {
        self.read(move |view| by_id::page(by_id::range(&view.open::<Messages>()?, after)?, limit)).await
    }

    /// The messages that wait and are such as `is_wanted` says, oldest first. Reads every one.
    pub async fn messages_that(
        &self,
        is_wanted: impl Fn(&MessageRecord) -> bool + Send + 'static,
    ) -> Result<Vec<QueueId>, ReadError> {
        self.read(move |view| {
            let mut found = Vec::new();
            for row in by_id::range(&view.open::<Messages>()?, None)? {
                let (id, record) = row?;
                if is_wanted(&record) {
                    found.push(id);
                }
            }
            Ok(found)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::{Accept, SpoolOp};
    use super::*;
    use crate::store::body::Body;
    use crate::store::golden;

    /// As a bit that flips under a running daemon: recovery has seen every row before.
    #[tokio::test]
    async fn a_row_that_can_not_be_read_hides_none_of_the_others_that_are_due() {
        let directory = tempfile::tempdir().unwrap();
        let (db, _) = SpoolDb::open(directory.path()).unwrap();
        let whole = golden::MESSAGES.rows().swap_remove(0).row;
        for (id, row) in [(1, whole.as_str()), (2, "{}"), (3, "\u{0}"), (4, whole.as_str())] {
            let body = Body::Memory("x".into());
            let message = Some(row.as_bytes().to_vec());
            let accept = Accept { id: QueueId(id), message, quarantine: None, body, handover: None };
            db.submit(SpoolOp::Accept(Box::new(accept))).await.unwrap();
        }
        let found = db.due([1, 2, 3, 4, 5].map(QueueId).to_vec()).await.unwrap();
        let told: Vec<_> = found
            .into_iter()
            .map(|(id, found)| (id.0, found.map(|found| found.is_some()).map_err(|error| error.to_string())))
            .collect();
        let [(1, Ok(true)), (2, Err(other)), (3, Err(damaged)), (4, Ok(true)), (5, Ok(false))] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert!(other.contains(&QueueId(2).to_string()) && other.contains("another version"), "{other}");
        assert!(damaged.contains("it is damaged"), "{damaged}");
    }
}
