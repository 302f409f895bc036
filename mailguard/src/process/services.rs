//! The roles of a session, each joined to the real thing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use mailguard_core::config::Config;
use mailguard_core::credentials::Credentials;
use mailguard_core::finding::Finding;
use mailguard_core::mail::{Domain, QueueId};
use mailguard_core::smtp::Refusal;
use mailguard_core::smtp::server::LoginRefused;
use rustls::ServerConfig;
use tracing::error;

use crate::auth::{Authenticator, Failures};
use crate::bans::Bans;
use crate::delivery;
use crate::greylist::Greylist;
use crate::lookup::dns::CurrentDns;
use crate::scan::Scanner;
use crate::session::journal::SessionSoFar;
use crate::session::{Content, InForce, Journal, Journals, Logins, LookUps, MailLines, Roles, Sink};
use crate::spool::{Body, BodyWriter, Durable, IdMint, NewMessage, Spool};
use crate::tls::Identity;
use crate::trace::{Record, Recorder};
use crate::verification::Verification;

/// What is in force, and what was made of it.
pub(super) struct MailServices {
    config: Arc<ArcSwap<Config>>,
    compiled: ArcSwap<CompiledConfig>,
    dns: Arc<CurrentDns>,
    verification: Arc<Verification>,
    failures: Failures,
}

/// Where messages of sessions go.
pub(super) struct SpoolSink {
    spool: Spool,
    ids: Arc<IdMint>,
}

/// What the roles are joined to.
pub(super) struct RoleParts {
    pub(super) spool: Spool,
    pub(super) ids: Arc<IdMint>,
    pub(super) traces: Recorder,
    pub(super) bans: Bans,
    pub(super) greylist: Greylist,
    pub(super) verification: Verification,
    pub(super) config: Arc<ArcSwap<Config>>,
}

/// The roles of all sessions, and what is behind several of them.
pub(super) fn roles(
    compiled: CompiledConfig,
    parts: RoleParts,
) -> (Arc<Roles<SpoolSink>>, Arc<MailServices>) {
    let RoleParts { spool, ids, traces, bans, greylist, verification, config } = parts;
    let (dns, verification) = (Arc::new(CurrentDns::default()), Arc::new(verification));
    let look_ups =
        LookUps { config: config.clone(), dns: dns.clone(), verification: verification.clone(), greylist };
    let services = Arc::new(MailServices {
        config,
        compiled: ArcSwap::from_pointee(compiled),
        dns,
        verification,
        failures: Failures::default(),
    });
    let roles = Roles {
        in_force: services.clone(),
        facts: Arc::new(look_ups),
        logins: services.clone(),
        content: services.clone(),
        sink: Arc::new(SpoolSink { spool, ids }),
        journals: Arc::new(Journals::new(vec![
            Arc::new(MailLines::default()),
            Arc::new(traces),
            Arc::new(bans),
        ])),
    };
    (Arc::new(roles), services)
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
    /// An error says what of the configuration can't be used, though it is written rightly. What the one
    /// before has and the configuration doesn't change goes on: a certificate that couldn't be kept, logins
    /// that wait for their turn, compiled rules.
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

    /// Whether [`CompiledConfig::of`] can be made, without a trace of it. The keeper of our own certificate
    /// is another user.
    pub(super) fn validate(config: &Config) -> anyhow::Result<()> {
        Scanner::new(config)?;
        Identity::configured(config)?;
        config.imap_auth.as_ref().map(Authenticator::new).transpose()?;
        delivery::validate(config)?;
        Ok(())
    }
}

impl MailServices {
    /// What serves sessions and messages.
    pub(super) fn compiled(&self) -> Arc<CompiledConfig> {
        self.compiled.load_full()
    }

    /// From now on it is this.
    pub(super) fn set_compiled(&self, compiled: CompiledConfig) {
        self.compiled.store(Arc::new(compiled));
        self.verification.forget();
    }
}

impl InForce for MailServices {
    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.compiled.load().identity.server_config())
    }
}

impl Content for MailServices {
    fn scan<'a>(&'a self, body: &'a Body) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(async { self.compiled().scanner.scan(body).await })
    }
}

impl Logins for MailServices {
    fn login(&self, client: IpAddr, credentials: Credentials) -> BoxFuture<'_, Result<(), LoginRefused>> {
        Box::pin(async move {
            // Taken out of the configuration while the session went on.
            let Some(authenticator) = self.compiled().authenticator.clone() else {
                return Err(LoginRefused::Unavailable);
            };
            self.failures.begin(client, Instant::now())?;
            let dns = self.dns.get(&self.config.load().dns);
            let verdict = authenticator.check(&dns, credentials).await;
            self.failures.end(client, verdict == Err(LoginRefused::Wrong));
            verdict
        })
    }

    fn login_for_another(&self, client: IpAddr) -> LoginRefused {
        if self.compiled.load().authenticator.is_none() {
            return LoginRefused::Unavailable;
        }
        self.failures.note_wrong(client, Instant::now()).err().unwrap_or(LoginRefused::ForAnother)
    }
}

impl Sink for SpoolSink {
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

    async fn commit(&self, message: NewMessage) -> Result<Durable<QueueId>, Refusal> {
        let id = message.id;
        self.spool.commit(message).await.map_err(|error| {
            error!(%id, %error, "a message isn't taken");
            error.refusal()
        })
    }
}

impl Journal for Recorder {
    fn transaction<'a>(&'a self, _: &'a SessionSoFar, record: &'a Record) -> BoxFuture<'a, ()> {
        Box::pin(self.transaction(record))
    }
}

impl Journal for Bans {
    fn abused<'a>(&'a self, client: IpAddr, reason: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.after_abuse(client, reason.to_owned()))
    }
}
