//! What sessions use of the rest of the house, joined to the real thing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use mailguard_core::config::model::Greylist as Settings;
use mailguard_core::credentials::Credentials;
use mailguard_core::finding::Finding;
use mailguard_core::mail::{ForwardPath, QueueId, ReversePath};
use mailguard_core::smtp::Refusal;
use mailguard_core::smtp::server::LoginRefused;
use rustls::ServerConfig;
use tracing::{error, info};

use super::bans::Bans;
use crate::auth::{Authenticator, Failures};
use crate::greylist::Greylist;
use crate::lookup::dns::{CurrentDns, Dns};
use crate::scan::Scanner;
use crate::session::Services;
use crate::spool::{Body, BodyWriter, CommitError, Durable, IdMint, NewMessage, Spool};
use crate::tls::Identity;
use crate::trace::{Record, Recorder};

/// What a session works with.
pub(super) struct MailServices {
    spool: Spool,
    ids: Arc<IdMint>,
    traces: Recorder,
    bans: Bans,
    config: Arc<ArcSwap<Config>>,
    made: ArcSwap<Made>,
    dns: CurrentDns,
    failures: Failures,
    greylist: Greylist,
}

/// What is made of a configuration once, for all sessions.
pub(super) struct Made {
    scanner: Scanner,
    identity: Identity,
    authenticator: Option<Authenticator>,
}

impl Made {
    /// An error says what of the configuration can't be used, though it is written rightly.
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            scanner: Scanner::new(config)?,
            identity: Identity::serving(config)?,
            authenticator: config.imap_auth.as_ref().map(Authenticator::new).transpose()?,
        })
    }

    /// Whether [`Made::of`] can be made, without a trace of it. The keeper of our own certificate is another user.
    pub(super) fn examine(config: &Config) -> anyhow::Result<()> {
        Scanner::new(config)?;
        Identity::configured(config)?;
        config.imap_auth.as_ref().map(Authenticator::new).transpose()?;
        Ok(())
    }
}

impl MailServices {
    pub(super) fn new(
        spool: Spool,
        ids: Arc<IdMint>,
        made: Made,
        traces: Recorder,
        bans: Bans,
        greylist: Greylist,
        config: Arc<ArcSwap<Config>>,
    ) -> Self {
        let made = ArcSwap::from_pointee(made);
        let (dns, failures) = (CurrentDns::default(), Failures::default());
        Self { spool, ids, traces, bans, config, made, dns, failures, greylist }
    }

    /// Sessions and messages from now on are served by this.
    pub(super) fn set_made(&self, made: Made) {
        self.made.store(Arc::new(made));
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
        self.made.load_full().scanner.scan(body).await
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

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.made.load().identity.server_config())
    }

    fn dns(&self) -> Arc<Dns> {
        self.dns.get(&self.config.load().dns)
    }

    async fn greylist(
        &self,
        settings: &Settings,
        client: IpAddr,
        reverse_path: &ReversePath,
        forward_path: &ForwardPath,
    ) -> Finding {
        let now = SystemTime::now().into();
        self.greylist.judge(settings, client, reverse_path, forward_path, now).await
    }

    async fn login(&self, client: IpAddr, credentials: Credentials) -> Result<(), LoginRefused> {
        if !self.failures.may_try(client, Instant::now()) {
            return Err(LoginRefused::TooMany);
        }
        let made = self.made.load_full();
        // Taken out of the configuration while the session went on.
        let Some(authenticator) = &made.authenticator else { return Err(LoginRefused::Unavailable) };
        let user = credentials.user.clone();
        let verdict = authenticator.check(&self.dns(), credentials).await;
        match verdict {
            Ok(()) => self.failures.forgive(client),
            Err(LoginRefused::Wrong) => {
                self.failures.note(client, Instant::now());
                info!(%client, user, "a login failed");
            }
            Err(LoginRefused::Unavailable | LoginRefused::TooMany) => {}
        }
        verdict
    }

    async fn abused(&self, client: IpAddr, reason: String) {
        self.bans.after_abuse(client, reason).await;
    }
}
