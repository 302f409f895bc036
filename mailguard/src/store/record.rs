//! The rows of `spool.redb` as values: what is known of a message between its 250 and its end.
//!
//! JSON, so that an administrator with nothing but the file can read them and a later version can add fields.
//! Who changes them: `spool` writes the first version, `queue` and `quarantine` go on.

use mailguard_core::bcc;
use mailguard_core::config::Config;
use mailguard_core::disposition::Disposition;
use mailguard_core::finding::Threat;
use mailguard_core::mail::{Envelope, ForwardPath, Mailbox, Recipient, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Report;
use mailguard_core::route::{NoRoute, Route, route};
use serde::{Deserialize, Serialize};

use super::body::Body;
use super::schema::UnreadableRow;

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

/// Where a body is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredBody {
    /// In the table of bodies, under the message's id.
    #[serde(rename = "row")]
    Row {
        /// Its length.
        #[serde(rename = "octets")]
        octets: u64,
    },
    /// In a file of its own.
    #[serde(rename = "file")]
    File {
        /// Names the file; not the message's id.
        #[serde(rename = "number")]
        number: u64,
        /// Its length.
        #[serde(rename = "octets")]
        octets: u64,
    },
}

impl StoredBody {
    /// Where `body` will be kept.
    pub fn of(body: &Body) -> Self {
        match body {
            Body::Memory(bytes) => StoredBody::Row { octets: bytes.len() as u64 },
            Body::File(file) => StoredBody::File { number: file.number(), octets: file.octets() },
        }
    }

    /// Its length in octets.
    pub fn octets(self) -> u64 {
        match self {
            StoredBody::Row { octets } | StoredBody::File { octets, .. } => octets,
        }
    }
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
    /// The address is ours, not one that the client gave: the server that it had dialled has nothing to do with it.
    #[serde(rename = "ours", default, skip_serializing_if = "std::ops::Not::not")]
    pub ours: bool,
}

impl Queued {
    /// Waits for its first attempt, which is due at `now`.
    pub fn first(redirected_to: Option<Mailbox>, now: UnixTime) -> Self {
        let ours = redirected_to.is_some();
        Self { redirected_to, attempts: 0, next_attempt: now, last: None, warned: false, ours }
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

    /// One more recipient, due at `now`; `ours`: of whom the client knows nothing.
    pub fn add(&mut self, recipient: Recipient, ours: bool, now: UnixTime) {
        self.envelope.recipients.push(recipient);
        self.states.push(RecipientState::Queued(Queued { ours, ..Queued::first(None, now) }));
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

    /// The recipients that wait, with their place in the envelope.
    pub fn queued(&self) -> impl Iterator<Item = (usize, &Queued)> {
        self.states.iter().enumerate().filter_map(|(index, state)| match state {
            RecipientState::Queued(queued) => Some((index, queued)),
            RecipientState::Ended(_) => None,
        })
    }

    /// Whether recipient `index` is one who gets a copy.
    pub fn is_copy(&self, index: usize) -> bool {
        let mailbox = self.envelope.recipients[index].forward_path.mailbox();
        let is_ours = matches!(&self.states[index], RecipientState::Queued(Queued { ours: true, .. }));
        is_ours && mailbox.is_some_and(|mailbox| self.copied.iter().any(|bcc| bcc.same_as(mailbox)))
    }

    /// By which way the mail for recipient `index` goes.
    pub fn route(&self, config: &Config, index: usize) -> Result<Route, NoRoute> {
        let (ours, deferred) = match &self.states[index] {
            RecipientState::Queued(queued) => (queued.ours, queued.attempts > 0),
            RecipientState::Ended(_) => (false, false),
        };
        let origin = if ours { &Origin::Own } else { &self.origin };
        route(config, &self.envelope.reverse_path, &self.destination(index), origin, deferred)
    }

    /// Where the mail for recipient `index` goes, redirection considered.
    pub fn destination(&self, index: usize) -> ForwardPath {
        match &self.states[index] {
            RecipientState::Queued(Queued { redirected_to: Some(mailbox), .. }) => {
                ForwardPath::Mailbox(mailbox.clone())
            }
            _ => self.envelope.recipients[index].forward_path.clone(),
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

/// A row that can't be used, kept so that nothing is lost silently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedRecord {
    /// What is wrong and what to do.
    #[serde(rename = "cause")]
    pub cause: String,
    /// The table it stood in.
    #[serde(rename = "table")]
    pub table: DamagedTable,
    /// The row as it was.
    #[serde(rename = "row")]
    pub row: String,
}

/// What is looked for in one that can't be read itself.
#[derive(Deserialize)]
struct Kept {
    row: String,
}

/// What every version's rows say of the body.
#[derive(Deserialize)]
struct Named {
    body: StoredBody,
}

impl DamagedRecord {
    /// A row of `table` that can't be used for this reason.
    pub(super) fn of(table: DamagedTable, row: &[u8], cause: String) -> Self {
        Self { cause, table, row: String::from_utf8_lossy(row).into_owned() }
    }

    /// A row of `table` at which there was this `error`.
    pub(super) fn unreadable(table: DamagedTable, row: &[u8], error: &serde_json::Error) -> Self {
        let why = UnreadableRow::of(row, error);
        let cause = match why {
            UnreadableRow::OtherVersion(_) => format!(
                "{why}: it is kept as it is and used again once that version, or a newer one, is started; mailguard store export \
                 writes it out"
            ),
            UnreadableRow::Damaged(_) => format!("the row can't be read: {why}"),
        };
        Self::of(table, row, cause)
    }

    /// The body that the row names, where so much can be read, whatever version wrote it.
    pub(super) fn body(&self) -> Option<StoredBody> {
        serde_json::from_str(&self.row).ok().map(|Named { body }| body)
    }

    /// Whether this version can read the row.
    pub(super) fn is_readable(&self) -> bool {
        match self.table {
            DamagedTable::Messages => serde_json::from_str::<MessageRecord>(&self.row).is_ok(),
            DamagedTable::Quarantine => serde_json::from_str::<QuarantineRecord>(&self.row).is_ok(),
        }
    }

    /// What is kept under a key of this `table`. Never fails: one that can't be read is a damaged row as well.
    pub(super) fn stored(table: u8, octets: &[u8]) -> Self {
        serde_json::from_slice(octets).unwrap_or_else(|error| {
            let whole = || String::from_utf8_lossy(octets).into_owned();
            let quarantine = table == DamagedTable::Quarantine as u8;
            Self {
                cause: format!(
                    "it was kept aside, and what was kept can't be read ({error}): it stays as it is; mailguard store export \
                     writes it out, mailguard queue remove removes it"
                ),
                table: if quarantine { DamagedTable::Quarantine } else { DamagedTable::Messages },
                row: serde_json::from_slice(octets).map_or_else(|_| whole(), |Kept { row }| row),
            }
        })
    }
}

/// Where a damaged row stood. The number is part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DamagedTable {
    /// Messages that wait.
    #[serde(rename = "messages")]
    Messages = 0,
    /// The quarantine.
    #[serde(rename = "quarantine")]
    Quarantine = 1,
}
