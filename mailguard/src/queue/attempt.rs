//! What the queue asks of `delivery` and tells `trace`: one attempt, its material, its outcomes.

use std::sync::Arc;

use futures::future::BoxFuture;
use mailguard_core::config::Config;
use mailguard_core::mail::{Envelope, ForwardPath, QueueId, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Outcome;
use mailguard_core::route::{NextHop, Route};
use serde::{Deserialize, Serialize};

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
    /// The place of each in the envelope as it was received.
    pub recipients: Vec<usize>,
    /// The octets.
    pub body: Body,
    /// When it came.
    pub received_at: UnixTime,
}

/// Hands messages to next hops, by their routes. One implementation, `delivery`; tests have their own.
pub trait Deliver: Send + Sync + 'static {
    /// Asks what the names of a next hop lead to, within limits of time of its own; nothing where it has none.
    fn look_up<'a>(&'a self, config: &'a Arc<Config>, next_hop: &'a NextHop) -> BoxFuture<'a, Option<Names>>;

    /// Looks for a server that is ready for a message among those that the names lead to, within limits of time of its own. The
    /// outcome where there is none holds for every recipient.
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

/// What one attempt came to for one recipient: a line of the message's trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempted {
    /// Which message.
    pub id: QueueId,
    /// When the attempt ended.
    pub at: UnixTime,
    /// For whom, redirection done.
    pub recipient: ForwardPath,
    /// Where; none where no next hop could be found.
    pub next_hop: Option<NextHop>,
    /// What came of it.
    pub outcome: Outcome,
    /// What the queue does about it.
    pub consequence: Consequence,
}

/// What the queue does about an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consequence {
    /// Nothing more.
    #[serde(rename = "done")]
    Done,
    /// Tries again at this time.
    #[serde(rename = "retry")]
    Retry(UnixTime),
    /// Tells the sender.
    #[serde(rename = "report")]
    Report,
    /// Quarantines the message: nobody is to be told by mail.
    #[serde(rename = "quarantine")]
    Quarantine,
    /// Drops it: it was a notice itself, or the sender asked for silence.
    #[serde(rename = "drop")]
    Drop,
}

/// Is told of every attempt.
pub trait AttemptObserver: Send + Sync + 'static {
    /// Takes note. The queue waits for it, so that a full trace slows deliveries and doesn't grow.
    fn attempted(&self, attempted: Vec<Attempted>) -> BoxFuture<'_, ()>;

    /// A notice of our own about a message is in the queue.
    fn noticed(&self, id: QueueId, about: QueueId);
}
