//! What sessions use of the rest of the house, joined to the real thing.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mailguard_core::finding::Finding;
use mailguard_core::mail::QueueId;
use mailguard_core::smtp::Refusal;
use tracing::error;

use super::bans::Bans;
use crate::scan::Scanner;
use crate::session::Services;
use crate::spool::{Body, BodyWriter, CommitError, Durable, IdMint, NewMessage, Spool};
use crate::trace::{Record, Recorder};

/// What a session works with.
pub(super) struct MailServices {
    spool: Spool,
    ids: Arc<IdMint>,
    scanner: ArcSwap<Scanner>,
    traces: Recorder,
    bans: Bans,
}

impl MailServices {
    pub(super) fn new(
        spool: Spool,
        ids: Arc<IdMint>,
        scanner: Scanner,
        traces: Recorder,
        bans: Bans,
    ) -> Self {
        Self { spool, ids, scanner: ArcSwap::from_pointee(scanner), traces, bans }
    }

    /// Messages from now on are scanned by this one.
    pub(super) fn set_scanner(&self, scanner: Scanner) {
        self.scanner.store(Arc::new(scanner));
    }

    /// Why no message can be taken now, if that is so.
    pub(super) fn storage_problem(&self) -> Option<CommitError> {
        self.spool.storage_available().err()
    }
}

impl Services for MailServices {
    type Receipt = Durable<QueueId>;

    fn mint(&self) -> QueueId {
        self.ids.mint()
    }

    fn storage_available(&self) -> Result<(), Refusal> {
        self.spool.storage_available().map_err(|error| error.refusal())
    }

    fn body_writer(&self) -> BodyWriter {
        self.spool.body_writer()
    }

    async fn scan(&self, body: &Body) -> Vec<Finding> {
        self.scanner.load_full().scan(body).await
    }

    async fn commit(&self, message: NewMessage) -> Result<Durable<QueueId>, Refusal> {
        let id = message.id;
        self.spool.commit(message).await.map_err(|error| {
            error!(%id, %error, "a message isn't taken");
            error.refusal()
        })
    }

    async fn record(&self, record: Record) {
        self.traces.transaction(&record).await;
    }

    async fn abused(&self, client: IpAddr, reason: String) {
        self.bans.after_abuse(client, reason).await;
    }
}
