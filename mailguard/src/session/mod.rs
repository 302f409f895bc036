//! A client's session: the socket, the clock and the store around `smtp::server`, and policy around its
//! questions.
//!
//! `driver` reads, writes and keeps time over a `stream`; `transaction` asks `policy`, gathers the `facts`
//! that it needs, and decides what becomes of a message; `incoming_body` takes the octets; `limits` counts
//! sessions; `session_log` counts what they come to and tells the `journal`s, of which `mail_lines` is one.
//! What all that stands on are the `roles`. How a client comes here is `intercept`'s business, what "stored"
//! means is `spool`'s.
//!
//! Nothing here fails upwards: the end of a session, however it comes, ends that session only.

mod cheap_lines;
mod driver;
pub(crate) mod facts;
mod incoming_body;
pub mod journal;
pub mod limits;
mod mail_lines;
mod received_header;
pub mod roles;
mod session_log;
#[cfg(test)]
mod tests;
mod transaction;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneKind;
use mailguard_core::smtp::server::Introduction;
use mailguard_core::smtp::{Detail, Reply, ReplyCode};
use tokio::net::TcpStream;
use tokio::sync::watch;

pub use facts::LookUps;
pub use journal::{Journal, Journals};
pub use limits::Limits;
pub use mail_lines::MailLines;
pub use roles::{Content, Facts, InForce, Logins, Roles, Sink};
use session_log::SessionLog;

/// The two ends of a connection as interception knows them.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The client, never an IPv4 address in IPv6's clothes.
    pub client: SocketAddr,
    /// Its original destination.
    pub destination: SocketAddr,
    /// Whether that is an address of this host.
    pub destination_is_local: bool,
    /// Index of the zone in the configuration.
    pub zone: usize,
}

/// What a session is handed.
pub struct SessionContext<S> {
    /// The configuration as the session begins; each transaction keeps the one in force at its MAIL.
    pub config: Arc<Config>,
    /// The rest of the house.
    pub roles: Arc<Roles<S>>,
    /// The count of all sessions.
    pub limits: Arc<Limits>,
    /// Turns true when we shut down: each session ends at its next command.
    pub stop: watch::Receiver<bool>,
}

/// Serves one connection to its end.
pub async fn serve<S: Sink>(stream: TcpStream, peer: Peer, context: SessionContext<S>) {
    let client = peer.client.ip();
    let zone = context.config.zones.get(peer.zone);
    let name = zone.map_or("", |zone| zone.name.as_str());
    // One that is gone from the configuration gets nothing anyway.
    let kind = zone.map_or(ZoneKind::Red, |zone| zone.kind);
    let Roles { sink, journals, .. } = &*context.roles;
    let mut log = SessionLog::begin(sink.mint(), peer, (name, kind), journals.clone());
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

/// Tells a client that may not send from its zone. The kernel keeps these out; one gets here when it was
/// under way as the list was changed, was let pass to our own address by a bypass, or came in where no
/// program is.
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
