//! Who hears what sessions come to: the mail log, the trace, whoever bans. Each is a [`Journal`]; a session
//! tells all of them.

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use mailguard_core::config::model::ZoneKind;
use mailguard_core::mail::QueueId;
use mailguard_core::smtp::server::LoginRefused;

use super::Peer;
use crate::mail_log::{Counts, SessionLine};
use crate::trace::Record;

/// A session, as far as it has come.
#[derive(Debug)]
pub struct SessionSoFar {
    /// Its id.
    pub id: QueueId,
    /// Between whom it is.
    pub peer: Peer,
    /// The zone's name and kind.
    pub zone: (String, ZoneKind),
    /// What it has come to.
    pub counts: Counts,
}

/// Hears what sessions come to. What one doesn't ask for it doesn't implement.
pub trait Journal: Send + Sync {
    /// A transaction ended so; `session` counts it already. Waited for before the client is answered.
    fn transaction<'a>(&'a self, _session: &'a SessionSoFar, _record: &'a Record) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    /// Somebody didn't show to be `user`.
    fn failed_login(&self, _session: &SessionSoFar, _user: &str, _why: LoginRefused) {}

    /// A client of a red zone made too many errors; the text says how many.
    fn abused<'a>(&'a self, _client: IpAddr, _reason: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    /// A session is over, however it ended.
    fn session(&self, _ended: &SessionLine<'_>) {}
}

/// All who hear.
#[derive(Default)]
pub struct Journals(Vec<Arc<dyn Journal>>);

impl Journals {
    /// These, each told after the one before.
    pub fn new(journals: Vec<Arc<dyn Journal>>) -> Self {
        Self(journals)
    }

    /// Tells each of a transaction that ended.
    pub(super) async fn transaction(&self, session: &SessionSoFar, record: &Record) {
        for journal in &self.0 {
            journal.transaction(session, record).await;
        }
    }

    /// Tells each of a login that failed.
    pub(super) fn failed_login(&self, session: &SessionSoFar, user: &str, why: LoginRefused) {
        self.0.iter().for_each(|journal| journal.failed_login(session, user, why));
    }

    /// Tells each of a client with too many errors.
    pub(super) async fn abused(&self, client: IpAddr, reason: &str) {
        for journal in &self.0 {
            journal.abused(client, reason).await;
        }
    }

    /// Tells each of a session that is over.
    pub(super) fn session(&self, ended: &SessionLine<'_>) {
        self.0.iter().for_each(|journal| journal.session(ended));
    }
}
