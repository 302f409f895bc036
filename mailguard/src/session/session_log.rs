//! What a session comes to: counted here, and told to the journals as it happens; the last of it when it is
//! over, however it ends.

use std::sync::Arc;
use std::time::Instant;

use mailguard_core::config::model::ZoneKind;
use mailguard_core::mail::QueueId;
use mailguard_core::smtp::server::LoginRefused;

use super::Peer;
use super::journal::{Journals, SessionSoFar};
use crate::mail_log::{self, Counts, SessionLine};
use crate::trace::{Record, TransactionResult};

/// Tells of the session's end when it is dropped.
pub(super) struct SessionLog {
    journals: Arc<Journals>,
    session: SessionSoFar,
    began: Instant,
    /// How it ended.
    pub(super) end: &'static str,
    pub(super) encrypted: bool,
    /// What the client called itself.
    pub(super) helo: Option<String>,
    /// Who it had shown to be.
    pub(super) user: Option<String>,
}

impl SessionLog {
    pub(super) fn begin(id: QueueId, peer: Peer, zone: (&str, ZoneKind), journals: Arc<Journals>) -> Self {
        Self {
            journals,
            session: SessionSoFar { id, peer, zone: (zone.0.to_owned(), zone.1), counts: Counts::default() },
            began: super::now(),
            // Unless somebody says otherwise: the process didn't wait for it.
            end: "broken-off",
            encrypted: false,
            helo: None,
            user: None,
        }
    }

    /// A transaction ended so.
    pub(super) async fn transaction(&mut self, record: &Record) {
        let counts = &mut self.session.counts;
        let count = match &record.result {
            TransactionResult::Accepted { .. } => &mut counts.taken,
            TransactionResult::Refused(reply) if mail_log::is_deferral(reply) => &mut counts.deferred,
            TransactionResult::Refused(_) => &mut counts.refused,
        };
        *count += 1;
        self.journals.transaction(&self.session, record).await;
    }

    /// A transaction was given up by the client, and nothing of it had been refused.
    pub(super) fn abandoned(&mut self) {
        self.session.counts.abandoned += 1;
    }

    /// A login failed.
    pub(super) fn failed_login(&mut self, user: &str, why: LoginRefused) {
        self.session.counts.failed_logins += 1;
        self.journals.failed_login(&self.session, user, why);
    }

    /// The client made too many errors; the text says how many.
    pub(super) async fn abused(&self, reason: &str) {
        self.journals.abused(self.session.peer.client.ip(), reason).await;
    }
}

impl Drop for SessionLog {
    fn drop(&mut self) {
        let SessionSoFar { id, peer, zone, counts } = &self.session;
        self.journals.session(&SessionLine {
            id: *id,
            client: peer.client,
            destination: peer.destination,
            zone: (&zone.0, zone.1),
            lasted: super::now().saturating_duration_since(self.began),
            end: self.end,
            counts,
            encrypted: self.encrypted,
            helo: self.helo.as_deref(),
            user: self.user.as_deref(),
        });
    }
}
