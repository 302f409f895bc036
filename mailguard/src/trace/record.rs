//! What a trace holds. The rows are JSON, to be read with nothing but the file at hand, and grown by later versions.

use mailguard_core::disposition::Disposition;
use mailguard_core::finding::Finding;
use mailguard_core::mail::{ForwardPath, QueueId, ReversePath, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Outcome;
use mailguard_core::route::NextHop;
use mailguard_core::smtp::Reply;
use serde::{Deserialize, Serialize};

use crate::queue::{Attempted, Consequence};

/// One transaction, whatever became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names it: the queue id of an accepted message, the reference in the reply of a refused one.
    pub id: QueueId,
    /// When it was decided.
    pub at: UnixTime,
    /// Client, zone, HELO, original destination; or a notice of our own.
    pub origin: Origin,
    /// MAIL FROM; absent where the client was refused before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_path: Option<ReversePath>,
    /// The recipients that were accepted at RCPT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<ForwardPath>,
    /// Those that weren't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_recipients: Vec<RefusedRecipient>,
    /// The Subject field, decoded; empty where there is none or no data came.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Octets of the message as it came.
    #[serde(default)]
    pub size: u64,
    /// What each check said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// How it ended.
    pub result: TransactionResult,
    /// What became of it since. Rows of their own: empty in the row of the trace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptRecord>,
}

/// A recipient that was refused while others may not have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecipient {
    /// RCPT TO.
    pub recipient: ForwardPath,
    /// What we replied.
    pub reply: Reply,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransactionResult {
    /// Nothing was taken; this was the reply. 4yz: the client may come again.
    Refused(Reply),
    /// Answered 250.
    Accepted {
        /// One for each of `recipients`.
        dispositions: Vec<Disposition>,
    },
}

/// One attempt, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When it ended.
    pub at: UnixTime,
    /// For whom, redirection done.
    pub recipient: ForwardPath,
    /// Where; absent where no next hop could be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// What came of it.
    pub outcome: Outcome,
    /// What the queue does about it.
    pub consequence: Consequence,
}

impl From<Attempted> for AttemptRecord {
    fn from(attempted: Attempted) -> Self {
        let Attempted { id: _, at, recipient, next_hop, outcome, consequence } = attempted;
        Self { at, recipient, next_hop, outcome, consequence }
    }
}
