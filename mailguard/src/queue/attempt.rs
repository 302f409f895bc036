//! What the queue asks of `delivery` and tells `trace`: one attempt, its material, who makes it and who hears
//! of it. What it came to is core `attempt`'s.

use std::sync::Arc;

use futures::future::BoxFuture;
use mailguard_core::attempt::Attempted;
use mailguard_core::config::Config;
use mailguard_core::mail::{Envelope, QueueId, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Outcome;
use mailguard_core::route::{NextHop, Route};

use crate::routing::Names;
use crate::store::body::Body;

/// A message as one attempt gets it.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its name.
    pub id: QueueId,
    /// Who brought it.
    pub origin: Origin,
    /// The recipients of this attempt only, redirection done; at most
    /// [`MAX_ATTEMPT_RECIPIENTS`](super::MAX_ATTEMPT_RECIPIENTS).
    pub envelope: Envelope,
    /// The octets.
    pub body: Body,
    /// When it came.
    pub received_at: UnixTime,
}

/// Hands messages to next hops, by their routes. One implementation, `delivery`; tests have their own.
pub trait Deliver: Send + Sync + 'static {
    /// Asks what the names of a next hop lead to, within limits of time of its own; nothing where it has
    /// none.
    fn look_up<'a>(&'a self, config: &'a Arc<Config>, next_hop: &'a NextHop) -> BoxFuture<'a, Option<Names>>;

    /// Looks for a server that is ready for a message among those that the names lead to, within limits of
    /// time of its own. The outcome where there is none holds for every recipient.
    fn reach<'a>(
        &'a self,
        config: &'a Arc<Config>,
        route: &'a Route,
        names: Option<&'a Names>,
    ) -> BoxFuture<'a, Result<Box<dyn Reached + 'a>, Outcome>>;
}

/// A next hop of which a server is ready for a message.
pub trait Reached: Send {
    /// Tries once, within limits of time of its own. One outcome a recipient, in the envelope's order.
    fn send<'a>(self: Box<Self>, message: &'a Outgoing) -> BoxFuture<'a, Vec<Outcome>>
    where
        Self: 'a;
}

/// Is told of every attempt.
pub trait AttemptObserver: Send + Sync + 'static {
    /// Takes note. The queue waits for it, so that a full trace slows deliveries and doesn't grow.
    fn attempted(&self, attempted: Vec<Attempted>) -> BoxFuture<'_, ()>;

    /// A notice of our own about a message is in the queue.
    fn noticed(&self, id: QueueId, about: QueueId);
}
