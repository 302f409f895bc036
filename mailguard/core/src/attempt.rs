//! What an attempt came to, and what the queue does about it: values that `queue` makes, and that trace and
//! mail log tell of.
//!
//! How an attempt ended is [`Outcome`]; when the next one is made, [`crate::schedule`]'s.

use serde::{Deserialize, Serialize};

use crate::mail::{ForwardPath, QueueId, UnixTime};
use crate::outcome::Outcome;
use crate::route::NextHop;

/// What one attempt came to for one recipient: a line of the message's trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempted {
    /// Which message.
    pub id: QueueId,
    /// When the attempt ended.
    pub at: UnixTime,
    /// For whom, redirection done.
    pub recipient: ForwardPath,
    /// Where; none where no next hop could be found.
    pub next_hop: Option<NextHop>,
    /// What came of it.
    pub outcome: Outcome,
    /// What the queue does about it.
    pub consequence: Consequence,
}

/// What the queue does about an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consequence {
    /// Nothing more.
    #[serde(rename = "done")]
    Done,
    /// Tries again at this time.
    #[serde(rename = "retry")]
    Retry(UnixTime),
    /// Tells the sender.
    #[serde(rename = "report")]
    Report,
    /// Quarantines the message: nobody is to be told by mail.
    #[serde(rename = "quarantine")]
    Quarantine,
    /// Drops it: it was a notice itself, or the sender asked for silence.
    #[serde(rename = "drop")]
    Drop,
}
