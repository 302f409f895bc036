//! What we take and from whom: facts and configuration in, findings out.
//!
//! `stage` has a file for each stage of the session: what is judged there, and in what order. `check` has a
//! file for each check that more than one stage asks, or that must ask others. `connect`, `helo` and `mail`
//! only find; the answer is given at RCPT, where all is known, so that a whitelist can win. What is over the
//! limits is refused at once ([`stage::mail::limits`]). Content is the scanners' business, and `disposition`
//! decides on it.

pub mod check;
mod need;
pub mod stage;

use crate::config::model::ZoneKind;

pub use need::{Fact, Holds, Known, MAX_TRANSACTION_FACTS, NO_ANSWER_IN_TIME, Need, Query, Source, Subject};

/// How far a client is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A stranger: may send to us only, and is checked most.
    Untrusted,
    /// One of ours: may send anywhere.
    Trusted,
}

impl Trust {
    /// Of a client of a zone of this kind, who has shown who it is or not (S7).
    pub fn of(kind: ZoneKind, authenticated: bool) -> Self {
        if kind == ZoneKind::Red && !authenticated { Trust::Untrusted } else { Trust::Trusted }
    }
}
