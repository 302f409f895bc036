//! Where clients come in: accepts on the listeners that the datapath process hands over, and hands each
//! connection to a session.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::warn;

use super::descriptors;
use super::ipc::HandedListener;
use super::services::SpoolSink;
use crate::intercept::{Connection, Listener, OwnAddresses, Role};
use crate::session::{self, Limits, Peer, Roles, SessionContext};

/// Pause when no connection can be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a transparent listener that is wanted no longer goes on accepting: clients that were given to it
/// are still shaking hands.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);
/// How long an active one does: time to take those that wait already, and little, for nobody else can have
/// the port meanwhile.
const QUEUE_TIME: Duration = Duration::from_millis(100);

/// What accepting a connection needs.
#[derive(Clone)]
pub(super) struct AcceptContext {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) roles: Arc<Roles<SpoolSink>>,
    pub(super) limits: Arc<Limits>,
    /// This host's addresses.
    pub(super) own_addresses: OwnAddresses,
    /// True when sessions shall end.
    pub(super) stop: watch::Receiver<bool>,
}

/// The listeners, each with a task that accepts.
pub(super) struct Acceptors {
    context: AcceptContext,
    /// Where listeners come from.
    descriptors: UnixStream,
    tasks: JoinSet<()>,
    open: HashMap<u64, Open>,
}

struct Open {
    address: SocketAddr,
    /// Nothing more is expected from it.
    unwanted: oneshot::Sender<StopAccepting>,
}

/// What a listener is told that is wanted no more.
struct StopAccepting {
    /// The configuration that was in force until now.
    before: Arc<Config>,
    /// How long a transparent one goes on accepting.
    handshake_time: Duration,
}

impl Acceptors {
    /// Without a listener yet. Further ones come by `descriptors`. Must be called within a runtime, as all of
    /// these.
    pub(super) fn new(context: AcceptContext, descriptors: UnixStream) -> Self {
        Self { context, descriptors, tasks: JoinSet::new(), open: HashMap::new() }
    }

    /// Accepts on these, too.
    pub(super) fn open(&mut self, listeners: Vec<(u64, Listener)>) {
        for (id, listener) in listeners {
            let (unwanted, until) = oneshot::channel();
            self.open.insert(id, Open { address: listener.address(), unwanted });
            self.tasks.spawn(serve(listener, self.context.clone(), until));
        }
    }

    /// Accepts on these, too, which come by `descriptors`.
    pub(super) fn take(&mut self, listeners: Vec<HandedListener>) -> io::Result<()> {
        let listeners = receive(&self.descriptors, listeners)?;
        self.open(listeners);
        Ok(())
    }

    /// Accepts on these no more. `before` was in force until now.
    pub(super) fn close(&mut self, ids: &[u64], before: &Arc<Config>) {
        for open in ids.iter().filter_map(|id| self.open.remove(id)) {
            // A task that has ended is found by `failed`.
            let _ =
                open.unwanted.send(StopAccepting { before: before.clone(), handshake_time: HANDSHAKE_TIME });
        }
    }

    /// Accepts those that wait already, on every listener, and ends.
    pub(super) async fn finish(mut self) {
        let before = self.context.config.load_full();
        for (_, open) in self.open.drain() {
            let _ = open.unwanted.send(StopAccepting { before: before.clone(), handshake_time: QUEUE_TIME });
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Where we listen.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.values().map(|open| open.address).collect()
    }

    /// Waits until a task has ended that nobody asked to.
    pub(super) async fn failed(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(())) => {}
                Some(Err(_)) => return,
                // Without any: for ever.
                None => std::future::pending().await,
            }
        }
    }
}

/// The listeners that were announced, with their numbers: their sockets are waiting in `descriptors`. An
/// error if the process has no room for them, too: it ends, and the next one has.
pub(super) fn receive(
    descriptors: &UnixStream,
    listeners: Vec<HandedListener>,
) -> io::Result<Vec<(u64, Listener)>> {
    let sockets = descriptors::receive(descriptors, listeners.len())?;
    let handed = listeners.into_iter().zip(sockets);
    handed.map(|(handed, socket)| Ok((handed.id, Listener::new(handed.purpose, socket)?))).collect()
}

/// Accepts until the listener is wanted no more, and then whoever is still on the way.
async fn serve(listener: Listener, context: AcceptContext, until: oneshot::Receiver<StopAccepting>) {
    let mut accept_loop = AcceptLoop { listener, known: context.config.load_full(), context };
    let stop = tokio::select! {
        stop = until => stop,
        () = accept_loop.accept() => return,
    };
    // Without a word when the process ends in a hurry.
    let Ok(StopAccepting { before, handshake_time }) = stop else { return };
    accept_loop.remember(before);
    let late = match accept_loop.listener.purpose().role {
        Role::Transparent { .. } => handshake_time,
        Role::Active { .. } => QUEUE_TIME,
    };
    let _ = tokio::time::timeout(late, accept_loop.accept()).await;
}

/// One listener's way in.
struct AcceptLoop {
    listener: Listener,
    context: AcceptContext,
    /// The last configuration that had the zone: one that is taken out serves its last clients by it.
    known: Arc<Config>,
}

impl AcceptLoop {
    /// For ever. Cancellation loses no connection.
    async fn accept(&mut self) {
        loop {
            match self.listener.accept(&self.context.own_addresses).await {
                Ok(connection) => self.admit(connection),
                Err(error) => {
                    warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Remembers `config`, if the zone is in it.
    fn remember(&mut self, config: Arc<Config>) {
        if self.zone_in(&config).is_some() {
            self.known = config;
        }
    }

    fn admit(&mut self, connection: Connection) {
        self.remember(self.context.config.load_full());
        // One that no configuration ever had: the datapath process hands over none such.
        let Some(zone) = self.zone_in(&self.known) else { return };
        let Connection { stream, client, destination, destination_is_local } = connection;
        let peer = Peer { client, destination, destination_is_local, zone };
        let context = SessionContext {
            config: self.known.clone(),
            roles: self.context.roles.clone(),
            limits: self.context.limits.clone(),
            stop: self.context.stop.clone(),
        };
        tokio::spawn(session::serve(stream, peer, context));
    }

    /// The zone's place in `config`.
    fn zone_in(&self, config: &Config) -> Option<usize> {
        config.zones.iter().position(|zone| zone.name == self.listener.purpose().zone)
    }
}
