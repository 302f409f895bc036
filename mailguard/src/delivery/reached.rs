//! A next hop of which a server is ready for a message: what is between the search for one and the message.
//!
//! `queue` fetches the message then, and not before: next hops that don't answer hold none in memory
//! (docs/adr/0016).

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use mailguard_core::mail::Envelope;
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::{NoRoute, Route};
use mailguard_core::smtp::{Detail, EnhancedStatus};
use tokio::time::Instant;

use super::attempt::{Attempt, is_loop, says_more};
use super::session::{Session, SessionAge};
use super::{Delivery, Terms, addressed, identity, waiting_session};
use crate::queue::{Outgoing, Reached};
use crate::routing::{Destination, Names};
use crate::spool::Body;

/// A session that had to wait longer for its message may have come to its end, as one that waited for the
/// next.
const FRESH_TIME: Duration = Duration::from_secs(5);

/// A next hop, and a session with one of its servers.
pub(super) struct ReachedHop<'a> {
    delivery: &'a Delivery,
    terms: Terms<'a>,
    route: &'a Route,
    names: Option<&'a Names>,
    session: Session,
    age: SessionAge,
    since: Instant,
    /// Servers that couldn't be used.
    unusable: Vec<SocketAddr>,
}

impl Delivery {
    /// A session with a server of `route`: one that waits, or else a new one with the first that can be used.
    pub(super) async fn reach<'a>(
        &'a self,
        terms: Terms<'a>,
        route: &'a Route,
        names: Option<&'a Names>,
    ) -> Result<ReachedHop<'a>, Outcome> {
        let servers = || self.servers(&terms, route, names);
        // Where servers take turns a session with another one is of no use.
        let chosen = route.next_hop.is_balanced().then(servers);
        let turn = chosen.as_ref().and_then(|chosen| Some(chosen.as_ref().ok()?.first()?.address));
        let (session, age, unusable) = match waiting_session(&self.pool, route, turn) {
            Some(session) => (session, SessionAge::Waited, Vec::new()),
            None => {
                let servers = chosen.unwrap_or_else(servers);
                let (session, unusable) = self.first_session(&terms, route, servers).await?;
                (session, SessionAge::New, unusable)
            }
        };
        let since = Instant::now();
        Ok(ReachedHop { delivery: self, terms, route, names, session, age, since, unusable })
    }

    /// A session with the first server that can be used, and those that can't; or what most is said by.
    async fn first_session(
        &self,
        terms: &Terms<'_>,
        route: &Route,
        servers: Result<Vec<Destination>, NoRoute>,
    ) -> Result<(Session, Vec<SocketAddr>), Outcome> {
        let (identity, mut unusable, mut said) = (identity(terms), Vec::new(), None);
        for destination in servers.map_err(Outcome::from)? {
            let outcome = match self.session(&destination, route, &identity).await {
                Ok(session) => return Ok((session, unusable)),
                Err(outcome) => outcome,
            };
            unusable.push(destination.address);
            // Whoever comes after ourselves in the order would only send it back to us.
            let is_last = is_loop(&outcome);
            if said.as_ref().is_none_or(|before| says_more(&outcome, before)) {
                said = Some(outcome);
            }
            if is_last {
                break;
            }
        }
        Err(said.unwrap_or_else(nobody_to_ask))
    }
}

impl ReachedHop<'_> {
    /// Hands the message to the server, and to others for whom it leaves. One outcome a recipient, in their
    /// order.
    pub(super) async fn hand_over(self, envelope: &Envelope, body: &Body) -> Vec<Outcome> {
        let Self { delivery, terms, route, names, mut session, age, since, unusable } = self;
        let recipients = addressed(&envelope.recipients, terms.postmaster);
        let mut attempt = Attempt::new(envelope, &recipients, body, delivery.scratch.as_ref(), unusable);
        let mut sessions = 0;
        if age == SessionAge::Waited || since.elapsed() > FRESH_TIME {
            if attempt.send_by_waiting(&mut session).await {
                delivery.keep(route, session);
            }
        } else {
            attempt.send(&mut session).await;
            delivery.keep(route, session);
            sessions = 1;
        }
        if !attempt.is_over() {
            delivery.try_servers(&terms, route, names, &mut attempt, sessions).await;
        }
        attempt.into_outcomes()
    }
}

impl Reached for ReachedHop<'_> {
    fn send<'a>(self: Box<Self>, message: &'a Outgoing) -> BoxFuture<'a, Vec<Outcome>>
    where
        Self: 'a,
    {
        Box::pin(async move { self.hand_over(&message.envelope, &message.body).await })
    }
}

/// What there is to say where no server was found that could be asked.
pub(super) fn nobody_to_ask() -> Outcome {
    let status = EnhancedStatus::transient(Detail::OTHER_NETWORK);
    Outcome::Deferred(Report::ours(status, "no server could be asked".to_owned()))
}
