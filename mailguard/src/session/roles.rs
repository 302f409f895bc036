//! What a session uses of the rest of the house, by role. `process` joins each role to the real thing, tests
//! to one that is scripted. Only where messages go is generic, for the proof that they are there; all else is
//! behind a pointer.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use mailguard_core::config::Config;
use mailguard_core::credentials::Credentials;
use mailguard_core::finding::Finding;
use mailguard_core::mail::QueueId;
use mailguard_core::policy::{Fact, Query};
use mailguard_core::smtp::Refusal;
use mailguard_core::smtp::server::LoginRefused;
use rustls::ServerConfig;

use super::journal::Journals;
use crate::spool::{Body, BodyWriter, NewMessage};

/// All of them.
pub struct Roles<S> {
    /// What is in force.
    pub in_force: Arc<dyn InForce>,
    /// Who knows about clients, senders and recipients.
    pub facts: Arc<dyn Facts>,
    /// Who knows passwords.
    pub logins: Arc<dyn Logins>,
    /// Who looks at content.
    pub content: Arc<dyn Content>,
    /// Where messages go.
    pub sink: Arc<S>,
    /// Who hears what became of them.
    pub journals: Arc<Journals>,
}

/// What is in force now; a reload changes it.
pub trait InForce: Send + Sync {
    /// The configuration.
    fn config(&self) -> Arc<Config>;

    /// What STARTTLS needs; nothing where it can't be offered.
    fn tls(&self) -> Option<Arc<ServerConfig>>;
}

/// Look-ups: what policy must know about client, sender and recipient.
pub trait Facts: Send + Sync {
    /// Answers the query, by `config` where it says how. Who asks stops waiting after a while.
    fn ask<'a>(&'a self, config: &'a Config, query: &'a Query) -> BoxFuture<'a, Fact>;
}

/// Logins with a name and a password.
pub trait Logins: Send + Sync {
    /// Whether the client is who it says it is.
    fn login(&self, client: IpAddr, credentials: Credentials) -> BoxFuture<'_, Result<(), LoginRefused>>;

    /// What a client is told that would act for somebody else. It counts as a wrong password.
    fn login_for_another(&self, client: IpAddr) -> LoginRefused;
}

/// The checks of content.
pub trait Content: Send + Sync {
    /// What they find, each at least one thing.
    fn scan<'a>(&'a self, body: &'a Body) -> BoxFuture<'a, Vec<Finding>>;
}

/// Where messages go.
pub trait Sink: Send + Sync + 'static {
    /// The proof that a message is safely stored: `Durable<QueueId>`.
    type Receipt: Send;

    /// A new id, for a session or a transaction.
    fn mint(&self) -> QueueId;

    /// Whether a message could be stored now, or the reply if not.
    fn storage_available(&self) -> Result<(), Refusal>;

    /// A writer for one body.
    fn body_writer(&self) -> BodyWriter;

    /// Stores a message for good.
    fn commit(&self, message: NewMessage) -> impl Future<Output = Result<Self::Receipt, Refusal>> + Send;
}
