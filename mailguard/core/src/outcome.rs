//! What an attempt at delivery came to, for one recipient.

use serde::{Deserialize, Serialize};

use crate::smtp::{EnhancedStatus, Reply, ReplyCode};

/// The result of one attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The next hop took responsibility.
    Delivered(Report),
    /// As `Delivered`, by a server that can't be told that the sender wants to hear of it (RFC 3461 §5.2.2).
    Relayed(Report),
    /// Try again later.
    Deferred(Report),
    /// Never.
    Failed(Report),
}

/// What is known of the result: the material of a trace line and of a DSN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The status code, the remote one or our own.
    pub status: EnhancedStatus,
    /// Name or address of the server that answered; empty where none did.
    pub remote: String,
    /// Its reply, where there was one.
    pub reply: Option<Reply>,
    /// One line for people: "host unreachable: connection refused".
    pub text: String,
}

impl Outcome {
    /// The report, whatever the result.
    pub fn report(&self) -> &Report {
        match self {
            Outcome::Delivered(report)
            | Outcome::Relayed(report)
            | Outcome::Deferred(report)
            | Outcome::Failed(report) => report,
        }
    }

    /// As [`Outcome::report`].
    pub fn into_report(self) -> Report {
        match self {
            Outcome::Delivered(report)
            | Outcome::Relayed(report)
            | Outcome::Deferred(report)
            | Outcome::Failed(report) => report,
        }
    }

    /// Whether this says that the next hop itself doesn't work now: nobody answered, or it takes no mail at all
    /// (RFC 5321 §3.8).
    pub fn blames_next_hop(&self) -> bool {
        match self {
            Outcome::Deferred(report) => {
                report.reply.as_ref().is_none_or(|reply| reply.code == ReplyCode::NOT_AVAILABLE)
            }
            Outcome::Delivered(_) | Outcome::Relayed(_) | Outcome::Failed(_) => false,
        }
    }
}
