//! What we take and from whom: facts and configuration in, findings out. One file a stage of the session.
//!
//! `connect`, `helo` and `mail` only find; the answer is given at RCPT, where all is known, so that a whitelist can
//! win. [`rcpt::next`] is the one place that has the order. What is over the limits is refused at once
//! ([`mail::limits`]). Content is the scanners' business, and `disposition` decides on it.

pub mod connect;
pub mod domain;
pub mod end_of_data;
pub mod greylist;
pub mod helo;
pub mod mail;
pub mod rbl;
pub mod rcpt;
pub mod verification;

use crate::config::model::{AddressPattern, ZoneKind};
use crate::finding::{Check, Finding, Opinion};
use crate::mail::Mailbox;
use crate::smtp::Refusal;

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

/// The opinion of a pair of lists: whitelisted, blacklisted or neither. The whitelist wins.
fn listed(check: Check, subject: &str, white: bool, black: bool, refusal: Refusal) -> Finding {
    if white {
        Finding::new(check, Opinion::Allow, format!("{subject} is whitelisted"))
    } else if black {
        Finding::new(check, Opinion::Refuse(refusal), format!("{subject} is blacklisted"))
    } else {
        Finding::new(check, Opinion::Pass, format!("{subject} is on no list"))
    }
}

fn is_listed(patterns: &[AddressPattern], mailbox: &Mailbox) -> bool {
    patterns.iter().any(|pattern| pattern.matches(mailbox))
}
