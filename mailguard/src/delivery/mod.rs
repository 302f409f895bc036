//! Performs attempts: one message, one next hop, and an outcome for each recipient (RFC 5321 §5.1).
//!
//! `queue` says when and to which next hop, `routing` finds its servers; here they are tried in turn,
//! sessions are kept for the next message, and what each server said becomes outcomes. Nothing is remembered
//! between attempts but the waiting sessions. Retries and reports are left to `queue`.

mod attempt;
mod content;
mod greeting;
mod pool;
mod reached;
mod session;
mod verification;

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, join_all};
use mailguard_core::config::Config;
use mailguard_core::config::model::{HeloName, OutgoingAddress, RouteSmarthost, Tls};
use mailguard_core::mail::{Domain, Envelope, ForwardPath, Mailbox, Recipient};
use mailguard_core::outcome::Outcome;
use mailguard_core::route::{NamedBy, NextHop, NoRoute, Route};
use mailguard_core::smtp::{Detail, EnhancedStatus};
use tokio::time::{Instant, sleep};

pub use self::attempt::Scratch;
pub use self::greeting::Greeted;
pub use self::pool::{IDLE_TIME, MAX_IDLE_SESSIONS, MAX_IDLE_SESSIONS_A_HOP, MAX_SESSION_TIME};
pub use self::session::CONNECT_TIMEOUT;

use self::attempt::Attempt;
use self::pool::Pool;
use self::session::{Identity, Session};
use crate::lookup::dns::CurrentDns;
use crate::queue::{Deliver, Reached};
use crate::routing::{self, Destination, LOOP_TO_BE_MENDED, Names, OwnListeners};
use crate::spool::Body;
use crate::tls::{self, TrustError, Trusts};

/// Most servers that are given the message in one attempt: those that don't take a recipient now will be
/// asked again soon enough.
const MAX_SESSIONS_AN_ATTEMPT: usize = 5;

/// Routing loop detected (RFC 3463 §3.5): the server is ourselves.
const LOOP: EnhancedStatus = EnhancedStatus::permanent(Detail::ROUTING_LOOP);

/// How often waiting sessions are looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// What of a configuration can't be used, though it is written rightly.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {source}")]
pub struct SmarthostError {
    /// The key path.
    key: String,
    source: TrustError,
}

/// Whether the trust anchors of every smarthost can be used.
pub fn validate(config: &Config) -> Result<(), SmarthostError> {
    let general = config.smarthost.iter().map(|smarthost| ("smarthost.ca_file".to_owned(), smarthost));
    let own = config.domain_routes.iter().enumerate().filter_map(|(index, route)| match &route.smarthost {
        RouteSmarthost::Own(own) => Some((format!("domain_route[{index}].smarthost.ca_file"), own)),
        RouteSmarthost::General | RouteSmarthost::Without => None,
    });
    let required = (config.delivery.tls == Tls::Required).then(|| ("delivery.tls".to_owned(), None));
    let named = general.chain(own).filter_map(|(key, smarthost)| {
        let verifies = matches!(smarthost.tls, Tls::Required | Tls::Implicit) || smarthost.ca.is_some();
        verifies.then(|| (key, smarthost.ca.as_deref()))
    });
    // Reading the system's anchors takes a while: each set once.
    let mut seen = HashSet::new();
    for (key, ca) in required.into_iter().chain(named).filter(|(_, ca)| seen.insert(*ca)) {
        tls::verifying(ca).map_err(|source| SmarthostError { key, source })?;
    }
    Ok(())
}

/// Performs attempts.
#[derive(Default)]
pub struct Delivery {
    pool: Pool,
    /// Sessions that wait for the next question about a recipient. No message goes by them: what servers hold
    /// against those who try out names must not be held against mail.
    probe_pool: Pool,
    trusts: Trusts,
    dns: CurrentDns,
    listeners: ArcSwap<OwnListeners>,
    /// Where bodies are converted; none: nowhere.
    scratch: Option<Scratch>,
}

/// What an attempt needs of the configuration.
#[derive(Clone, Copy)]
struct Terms<'a> {
    own_name: &'a Domain,
    helo: Option<&'a Domain>,
    postmaster: Option<&'a Mailbox>,
}

impl Delivery {
    /// A delivery without waiting sessions. `listeners`: the addresses on which we accept mail ourselves.
    pub fn new(listeners: OwnListeners) -> Self {
        Self { listeners: ArcSwap::from_pointee(listeners), ..Self::default() }
    }

    /// The same, able to convert bodies for servers that don't take them as they are.
    pub fn with_scratch(self, scratch: Scratch) -> Self {
        Self { scratch: Some(scratch), ..self }
    }

    /// The listeners have changed.
    pub fn set_listeners(&self, listeners: OwnListeners) {
        self.listeners.store(Arc::new(listeners));
    }

    /// Tries to hand `body` to a server of `route` for each recipient of `envelope`: one outcome each, in
    /// their order. Takes as long as the servers take; may be dropped at any time, which breaks the session
    /// off.
    pub async fn attempt(
        &self,
        config: &Config,
        route: &Route,
        names: Option<&Names>,
        envelope: &Envelope,
        body: &Body,
    ) -> Vec<Outcome> {
        self.attempt_on(&Self::terms(config), route, names, envelope, body).await
    }

    fn terms(config: &Config) -> Terms<'_> {
        Terms {
            own_name: &config.hostname,
            helo: match &config.delivery.helo_name {
                HeloName::Name(name) => Some(name),
                HeloName::AddressLiteral => None,
            },
            postmaster: config.postmaster.as_ref(),
        }
    }

    async fn attempt_on(
        &self,
        terms: &Terms<'_>,
        route: &Route,
        names: Option<&Names>,
        envelope: &Envelope,
        body: &Body,
    ) -> Vec<Outcome> {
        match self.reach(*terms, route, names).await {
            Ok(reached) => reached.hand_over(envelope, body).await,
            Err(outcome) => vec![outcome; envelope.recipients.len()],
        }
    }

    /// The servers of a route that may be tried, in their order.
    fn servers(
        &self,
        terms: &Terms<'_>,
        route: &Route,
        names: Option<&Names>,
    ) -> Result<Vec<Destination>, NoRoute> {
        let found = routing::destinations(route, names, terms.own_name, &self.listeners.load());
        found.and_then(|found| reachable(found, route))
    }

    /// Tries the next hop's servers in their order on new connections; `sessions` have had the message.
    async fn try_servers(
        &self,
        terms: &Terms<'_>,
        route: &Route,
        names: Option<&Names>,
        attempt: &mut Attempt<'_>,
        mut sessions: usize,
    ) {
        let destinations = match self.servers(terms, route, names) {
            Ok(destinations) => destinations,
            Err(no_route) => return attempt.settle(&no_route.into()),
        };
        let identity = identity(terms);
        for destination in destinations {
            if attempt.has_asked(destination.address) {
                continue;
            }
            match self.session(&destination, route, &identity).await {
                Ok(mut session) => {
                    attempt.send(&mut session).await;
                    self.keep(route, session);
                    sessions += 1;
                }
                Err(outcome) => attempt.note_unusable(outcome),
            }
            if attempt.is_over() || sessions == MAX_SESSIONS_AN_ATTEMPT {
                return;
            }
        }
    }

    /// A new session with a server of `route`.
    async fn session(
        &self,
        destination: &Destination,
        route: &Route,
        identity: &Identity,
    ) -> Result<Session, Outcome> {
        Session::open(destination, route, identity, &self.trusts).await.map_err(|outcome| {
            let outcome = as_routed(outcome, route);
            tracing::debug!(%destination, reason = %outcome.report().text, "a server can't be used");
            outcome
        })
    }

    /// The servers of a next hop in the order in which they would be tried now.
    pub async fn destinations(&self, config: &Config, route: &Route) -> Result<Vec<Destination>, NoRoute> {
        let names = routing::look_up(&self.dns.get(&config.dns), &route.next_hop).await;
        routing::destinations(route, names.as_ref(), &config.hostname, &self.listeners.load())
    }

    /// Keeps a session for the next message, if it is good for one.
    fn keep(&self, route: &Route, session: Session) {
        if session.is_ready()
            && let Some(session) = self.pool.put(route, session)
        {
            tokio::spawn(session.quit());
        }
    }

    /// Ends sessions that have waited too long. Never returns; run it beside the queue.
    pub async fn run_maintenance(&self) {
        loop {
            sleep(HOUSEKEEPING_INTERVAL).await;
            if let Some(since) = Instant::now().checked_sub(IDLE_TIME) {
                for pool in [&self.pool, &self.probe_pool] {
                    pool.take_idle_since(since)
                        .into_iter()
                        .for_each(|session| drop(tokio::spawn(session.quit())));
                }
            }
        }
    }

    /// Takes leave of every server that a waiting session is open to.
    pub async fn close(&self) {
        let waiting = [&self.pool, &self.probe_pool].map(|pool| pool.take_idle_since(Instant::now()));
        join_all(waiting.into_iter().flatten().map(Session::quit)).await;
    }
}

impl Deliver for Delivery {
    fn look_up<'a>(&'a self, config: &'a Arc<Config>, next_hop: &'a NextHop) -> BoxFuture<'a, Option<Names>> {
        let dns = self.dns.get(&config.dns);
        Box::pin(async move { routing::look_up(&dns, next_hop).await })
    }

    fn reach<'a>(
        &'a self,
        config: &'a Arc<Config>,
        route: &'a Route,
        names: Option<&'a Names>,
    ) -> BoxFuture<'a, Result<Box<dyn Reached + 'a>, Outcome>> {
        Box::pin(async move {
            let reached = self.reach(Self::terms(config), route, names).await?;
            Ok(Box::new(reached) as Box<dyn Reached + 'a>)
        })
    }
}

/// A session by `route` that waits, to this server if it must be that one, as far as can be told without
/// asking the server.
fn waiting_session(pool: &Pool, route: &Route, server: Option<SocketAddr>) -> Option<Session> {
    loop {
        let mut session = pool.take(route, server)?;
        if !session.is_stale() {
            return Some(session);
        }
    }
}

/// The servers that can be reached from the route's address.
fn reachable(mut destinations: Vec<Destination>, route: &Route) -> Result<Vec<Destination>, NoRoute> {
    let Some(OutgoingAddress::Address(from)) = &route.outgoing else { return Ok(destinations) };
    destinations.retain(|destination| destination.address.is_ipv4() == from.is_ipv4());
    if !destinations.is_empty() {
        return Ok(destinations);
    }
    let (have, want) = if from.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
    let reason = format!("outgoing_address {from} is {have}, and {} has {want} only", route.next_hop);
    Err(NoRoute { status: EnhancedStatus::transient(Detail::NO_ANSWER_FROM_HOST), reason })
}

fn identity(terms: &Terms<'_>) -> Identity {
    Identity {
        helo: terms.helo.cloned(),
        own_names: terms.helo.into_iter().chain([terms.own_name]).cloned().collect(),
    }
}

/// The recipients as the server is told of them: bare `<postmaster>` is only ours to know.
fn addressed<'a>(recipients: &'a [Recipient], postmaster: Option<&Mailbox>) -> Cow<'a, [Recipient]> {
    let is_bare = |recipient: &Recipient| recipient.forward_path == ForwardPath::Postmaster;
    let Some(mailbox) = postmaster.filter(|_| recipients.iter().any(is_bare)) else {
        return Cow::Borrowed(recipients);
    };
    let mut addressed = recipients.to_vec();
    for recipient in addressed.iter_mut().filter(|recipient| is_bare(recipient)) {
        recipient.forward_path = ForwardPath::Mailbox(mailbox.clone());
    }
    Cow::Owned(addressed)
}

/// A server that an administrator named and that calls itself as we do is a name to be mended: its mail waits
/// for that.
fn as_routed(outcome: Outcome, route: &Route) -> Outcome {
    match outcome {
        Outcome::Failed(mut report) if report.status == LOOP && route.named_by == NamedBy::Administrator => {
            tracing::error!(next_hop = %route.next_hop, reason = report.text, "mail waits until the configuration is mended");
            report.status = LOOP_TO_BE_MENDED;
            Outcome::Deferred(report)
        }
        other => other,
    }
}
