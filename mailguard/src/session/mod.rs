//! A client's session: the socket, the clock and the store around `smtp::server`, and policy around its questions.
//!
//! `driver` reads, writes and keeps time over a `stream`; `transaction` gathers facts, by `lookups` where others must be asked,
//! asks `policy` and decides what becomes of a message; `incoming_body` takes the octets; `limits` counts sessions; `session_log`
//! says what they came to. How a client comes here is
//! `intercept`'s business, what "stored" means is `spool`'s.
//!
//! Nothing here fails upwards: the end of a session, however it comes, ends that session only.

mod cheap_lines;
mod driver;
mod incoming_body;
pub mod limits;
pub(crate) mod lookups;
mod session_log;
#[cfg(test)]
mod tests;
mod received_header;
mod transaction;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use mailguard_core::config::Config;
use mailguard_core::config::model::{Greylist, ZoneKind};
use mailguard_core::credentials::Credentials;
use mailguard_core::finding::Finding;
use mailguard_core::mail::{ForwardPath, QueueId, ReversePath};
use mailguard_core::route::Route;
use mailguard_core::smtp::server::{Introduction, LoginRefused};
use mailguard_core::smtp::{Detail, Refusal, Reply, ReplyCode};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::lookup::dns::Dns;
use crate::spool::{Body, BodyWriter, NewMessage};
use crate::trace::Record;

pub use limits::Limits;
use session_log::SessionLog;

/// The two ends of a connection as interception knows them.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The client, never an IPv4 address in IPv6's clothes.
    pub client: SocketAddr,
    /// Whom it had dialled.
    pub destination: SocketAddr,
    /// Whether that is an address of this host.
    pub destination_is_ours: bool,
    /// Index of the zone in the configuration.
    pub zone: usize,
}

/// What a session uses of the rest of the house.
pub trait Services: Send + Sync + 'static {
    /// The proof that a message is safely stored: `Durable<QueueId>`.
    type Receipt: Send;

    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// A new transaction's id.
    fn mint(&self) -> QueueId;

    /// Whether a message could be stored now, or the reply if not.
    fn storage_available(&self) -> Result<(), Refusal>;

    /// A writer for one body.
    fn body_writer(&self) -> BodyWriter;

    /// What the content checks find.
    fn scan(&self, body: &Body) -> impl Future<Output = Vec<Finding>> + Send;

    /// Stores a message for good.
    fn commit(&self, message: NewMessage) -> impl Future<Output = Result<Self::Receipt, Refusal>> + Send;

    /// Keeps the trace of a transaction. Waited for before the client is answered.
    fn record(&self, record: Record) -> impl Future<Output = ()> + Send;

    /// What STARTTLS needs; nothing where it can't be offered.
    fn tls(&self) -> Option<Arc<ServerConfig>>;

    /// The DNS of the configuration in force.
    fn dns(&self) -> Arc<Dns>;

    /// Whether a server of the recipient's takes mail for it.
    fn verify(
        &self,
        config: &Config,
        route: &Route,
        forward_path: &ForwardPath,
    ) -> impl Future<Output = Finding> + Send;

    /// Whether client, sender and recipient were seen before.
    fn greylist(
        &self,
        settings: &Greylist,
        client: IpAddr,
        reverse_path: &ReversePath,
        forward_path: &ForwardPath,
    ) -> impl Future<Output = Finding> + Send;

    /// Whether the client is who it says it is.
    fn login(
        &self,
        client: IpAddr,
        credentials: Credentials,
    ) -> impl Future<Output = Result<(), LoginRefused>> + Send;

    /// What a client is told that would act for somebody else. It counts as a wrong password.
    fn login_for_another(&self, client: IpAddr) -> LoginRefused;

    /// A client of a red zone made too many errors; the text says how many.
    fn abused(&self, client: IpAddr, reason: String) -> impl Future<Output = ()> + Send;
}

/// What a session is handed.
#[derive(Debug)]
pub struct SessionContext<S> {
    /// The configuration as the session begins; each transaction keeps the one in force at its MAIL.
    pub config: Arc<Config>,
    /// The rest of the house.
    pub services: Arc<S>,
    /// The count of all sessions.
    pub limits: Arc<Limits>,
    /// Turns true when we shut down: each session ends at its next command.
    pub stop: watch::Receiver<bool>,
}

/// Serves one connection to its end.
pub async fn serve<S: Services>(stream: TcpStream, peer: Peer, context: SessionContext<S>) {
    let client = peer.client.ip();
    let zone = context.config.zones.get(peer.zone);
    let name = zone.map_or("", |zone| zone.name.as_str());
    // One that is gone from the configuration gets nothing anyway.
    let kind = zone.map_or(ZoneKind::Red, |zone| zone.kind);
    let mut log = SessionLog::begin(context.services.mint(), peer, (name, kind), context.limits.clone());
    if zone.is_some_and(|zone| !zone.allows(client)) {
        log.end = "not-allowed";
        drop(log);
        return refuse_sender(stream, &context).await;
    }
    let refused = match context.limits.admit(client, kind, &context.config) {
        Ok(admission) => return driver::run(stream, peer, context, admission, log).await,
        Err(refused) => refused,
    };
    log.end = refused.word();
    drop(log);
    // With too many who are being told so already, one hears nothing.
    if let Some(_place) = context.limits.may_reject() {
        driver::reject_connection(stream, &refused.reply()).await;
    }
}

/// Tells a client that may not send from its zone. The kernel keeps these out; one gets here when it was under way as the
/// list was changed, was let pass to our own address by a bypass, or came in where no program is.
async fn refuse_sender<S>(stream: TcpStream, context: &SessionContext<S>) {
    let text = "Your address may not send mail here";
    let reply = Reply::new(ReplyCode::TRANSACTION_FAILED, Detail::NOT_AUTHORIZED, text.to_owned());
    if let Some(_place) = context.limits.may_reject() {
        driver::reject_connection(stream, &reply).await;
    }
}

/// The runtime's clock, which tests can wind.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
