//! What a trace holds. The rows are JSON, to be read with nothing but the file at hand, and grown by later versions.

use mailguard_core::attempt::{Attempted, Consequence};
use mailguard_core::disposition::Disposition;
use mailguard_core::finding::Finding;
use mailguard_core::mail::{ForwardPath, QueueId, ReversePath, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Outcome;
use mailguard_core::route::NextHop;
use mailguard_core::smtp::Reply;
use serde::{Deserialize, Serialize};

/// One transaction, whatever became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names it: the queue id of an accepted message, the reference in the reply of a refused one.
    #[serde(rename = "id")]
    pub id: QueueId,
    /// When it was decided.
    #[serde(rename = "at")]
    pub at: UnixTime,
    /// Client, zone, HELO, original destination; or a notice of our own.
    #[serde(rename = "origin")]
    pub origin: Origin,
    /// MAIL FROM; absent where the client was refused before it.
    #[serde(rename = "reverse_path", default, skip_serializing_if = "Option::is_none")]
    pub reverse_path: Option<ReversePath>,
    /// The recipients that were accepted at RCPT.
    #[serde(rename = "recipients", default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<ForwardPath>,
    /// Those that weren't.
    #[serde(rename = "refused_recipients", default, skip_serializing_if = "Vec::is_empty")]
    pub refused_recipients: Vec<RefusedRecipient>,
    /// The Subject field, decoded; empty where there is none or no data came.
    #[serde(rename = "subject", default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Octets of the message as it came.
    #[serde(rename = "size", default)]
    pub size: u64,
    /// What each check said.
    #[serde(rename = "findings", default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// How it ended.
    #[serde(rename = "result")]
    pub result: TransactionResult,
    /// What became of it since. Rows of their own: empty in the row of the trace.
    #[serde(rename = "attempts", default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptRecord>,
}

/// A recipient that was refused while others may not have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecipient {
    /// RCPT TO.
    #[serde(rename = "recipient")]
    pub recipient: ForwardPath,
    /// What we replied.
    #[serde(rename = "reply")]
    pub reply: Reply,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionResult {
    /// Nothing was taken; this was the reply. 4yz: the client may come again.
    #[serde(rename = "refused")]
    Refused(Reply),
    /// Answered 250.
    #[serde(rename = "accepted")]
    Accepted {
        /// One for each of `recipients`.
        #[serde(rename = "dispositions")]
        dispositions: Vec<Disposition>,
    },
}

/// One attempt, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When it ended.
    #[serde(rename = "at")]
    pub at: UnixTime,
    /// For whom, redirection done.
    #[serde(rename = "recipient")]
    pub recipient: ForwardPath,
    /// Where; absent where no next hop could be found.
    #[serde(rename = "next_hop", default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// What came of it.
    #[serde(rename = "outcome")]
    pub outcome: Outcome,
    /// What the queue does about it.
    #[serde(rename = "consequence")]
    pub consequence: Consequence,
}

impl From<Attempted> for AttemptRecord {
    fn from(attempted: Attempted) -> Self {
        let Attempted { id: _, at, recipient, next_hop, outcome, consequence } = attempted;
        Self { at, recipient, next_hop, outcome, consequence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::golden;

    #[test]
    fn each_row_of_the_trace_is_read_and_written_as_it_stands() {
        golden::TRACES.check::<Record>(&["attempts"]);
        golden::ATTEMPTS.check::<AttemptRecord>(&[]);
    }
}
