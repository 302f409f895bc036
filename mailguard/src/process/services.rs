//! What sessions use of the rest of the process, joined to the real thing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use mailguard_core::config::model::Greylist as Settings;
use mailguard_core::credentials::Credentials;
use mailguard_core::finding::{Check, Finding, Opinion};
use mailguard_core::mail::{Domain, ForwardPath, QueueId, ReversePath};
use mailguard_core::route::Route;
use mailguard_core::smtp::Refusal;
use mailguard_core::smtp::server::LoginRefused;
use rustls::ServerConfig;
use tracing::error;

use super::bans::Bans;
use crate::auth::{Authenticator, Failures};
use crate::delivery;
use crate::greylist::Greylist;
use crate::lookup::dns::{CurrentDns, Dns};
use crate::scan::Scanner;
use crate::session::Services;
use crate::spool::{Body, BodyWriter, CommitError, Durable, IdMint, NewMessage, Spool};
use crate::tls::Identity;
use crate::trace::{Record, Recorder};
use crate::verification::Verification;

/// Longest wait for the greylist.
const GREYLIST_TIME: Duration = Duration::from_secs(5);

/// What a session works with.
pub(super) struct MailServices {
    spool: Spool,
    ids: Arc<IdMint>,
    traces: Recorder,
    memory: Memory,
    config: Arc<ArcSwap<Config>>,
    compiled: ArcSwap<CompiledConfig>,
    dns: CurrentDns,
    failures: Failures,
}

/// What is remembered of clients, senders and recipients.
pub(super) struct Memory {
    pub(super) bans: Bans,
    pub(super) greylist: Greylist,
    pub(super) verification: Verification,
}

/// What is made of a configuration once, for all sessions.
pub(super) struct CompiledConfig {
    scanner: Scanner,
    identity: Identity,
    /// The name in a certificate of our own making.
    own_name: Option<Domain>,
    authenticator: Option<Arc<Authenticator>>,
}

impl CompiledConfig {
    /// An error says what of the configuration can't be used, though it is written rightly.
    /// What the one before has and the configuration doesn't change goes on: a certificate that couldn't be kept, logins that
    /// wait for their turn, compiled rules.
    pub(super) fn of(config: &Config, before: Option<(&CompiledConfig, &Config)>) -> anyhow::Result<Self> {
        let scanner = match before {
            Some((before, old)) => Scanner::renewed(config, (&before.scanner, old))?,
            None => Scanner::new(config)?,
        };
        let before = before.map(|(before, _)| before);
        let own_name = config.server.tls.is_none().then(|| config.hostname.clone());
        let same_name = before.filter(|before| own_name.is_some() && before.own_name == own_name);
        let identity = match same_name {
            Some(before) => before.identity.clone(),
            None => Identity::serving(config)?,
        };
        let authenticator = match &config.imap_auth {
            None => None,
            Some(section) => {
                let before = before.and_then(|before| before.authenticator.clone());
                match before.filter(|before| before.config() == section) {
                    Some(before) => Some(before),
                    None => Some(Arc::new(Authenticator::new(section)?)),
                }
            }
        };
        Ok(Self { scanner, identity, own_name, authenticator })
    }

    /// Whether [`CompiledConfig::of`] can be made, without a trace of it. The keeper of our own certificate is another user.
    pub(super) fn examine(config: &Config) -> anyhow::Result<()> {
        Scanner::new(config)?;
        Identity::configured(config)?;
        config.imap_auth.as_ref().map(Authenticator::new).transpose()?;
        delivery::examine(config)?;
        Ok(())
    }
}

impl MailServices {
    pub(super) fn new(
        spool: Spool,
        ids: Arc<IdMint>,
        compiled: CompiledConfig,
        traces: Recorder,
        memory: Memory,
        config: Arc<ArcSwap<Config>>,
    ) -> Self {
        let compiled = ArcSwap::from_pointee(compiled);
        let (dns, failures) = (CurrentDns::default(), Failures::default());
        Self { spool, ids, traces, memory, config, compiled, dns, failures }
    }

    /// What serves sessions and messages.
    pub(super) fn compiled(&self) -> Arc<CompiledConfig> {
        self.compiled.load_full()
    }

    /// From now on it is this.
    pub(super) fn set_compiled(&self, compiled: CompiledConfig) {
        self.compiled.store(Arc::new(compiled));
        self.memory.verification.forget();
    }

    /// Why no message can be taken now, if that is so.
    pub(super) fn storage_problem(&self) -> Option<CommitError> {
        self.spool.storage_available().err()
    }
}

impl Services for MailServices {
    type Receipt = Durable<QueueId>;

    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

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
        self.compiled.load_full().scanner.scan(body).await
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
        Some(self.compiled.load().identity.server_config())
    }

    fn dns(&self) -> Arc<Dns> {
        self.dns.get(&self.config.load().dns)
    }

    async fn verify(&self, config: &Config, route: &Route, forward_path: &ForwardPath) -> Finding {
        self.memory.verification.verify(config, route, forward_path).await
    }

    async fn greylist(
        &self,
        settings: &Settings,
        client: IpAddr,
        reverse_path: &ReversePath,
        forward_path: &ForwardPath,
    ) -> Finding {
        let judged = self.memory.greylist.judge(
            settings,
            client,
            reverse_path,
            forward_path,
            SystemTime::now().into(),
        );
        // A store that hangs is no reason to keep strangers waiting, and their places taken.
        tokio::time::timeout(GREYLIST_TIME, judged).await.unwrap_or_else(|_| {
            let cause = "the greylist's store doesn't answer";
            Finding::new(Check::Greylist, Opinion::Unavailable(cause.to_owned()), cause)
        })
    }

    async fn login(&self, client: IpAddr, credentials: Credentials) -> Result<(), LoginRefused> {
        // Taken out of the configuration while the session went on.
        let Some(authenticator) = self.compiled.load_full().authenticator.clone() else {
            return Err(LoginRefused::Unavailable);
        };
        self.failures.begin(client, Instant::now())?;
        let verdict = authenticator.check(&self.dns(), credentials).await;
        self.failures.end(client, verdict == Err(LoginRefused::Wrong));
        verdict
    }

    fn login_for_another(&self, client: IpAddr) -> LoginRefused {
        if self.compiled.load().authenticator.is_none() {
            return LoginRefused::Unavailable;
        }
        self.failures.note_wrong(client, Instant::now()).err().unwrap_or(LoginRefused::ForAnother)
    }

    async fn abused(&self, client: IpAddr, reason: String) {
        self.memory.bans.after_abuse(client, reason).await;
    }
}
