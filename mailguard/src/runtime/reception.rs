//! Where clients come in: accepts on the listeners that the datapath process hands over, and hands each connection to a
//! session.

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
use super::services::MailServices;
use crate::intercept::{Connection, Listener, Role};
use crate::session::{self, Limits, Peer, SessionContext};

/// Pause when no connection can be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a transparent listener that is wanted no longer goes on accepting: clients that were given to it are still
/// shaking hands.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);

/// What accepting a connection needs.
#[derive(Clone)]
pub(super) struct Doorman {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) services: Arc<MailServices>,
    pub(super) limits: Arc<Limits>,
    /// True when sessions shall end.
    pub(super) stop: watch::Receiver<bool>,
}

/// The listeners, each with a task that accepts.
pub(super) struct Reception {
    doorman: Doorman,
    /// Where listeners come from.
    descriptors: UnixStream,
    tasks: JoinSet<()>,
    open: HashMap<u64, Open>,
}

struct Open {
    address: SocketAddr,
    /// Dropped: nothing more is expected from it.
    _wanted: oneshot::Sender<()>,
}

impl Reception {
    /// Without a listener yet. Further ones come by `descriptors`. Must be called within a runtime, as all of these.
    pub(super) fn new(doorman: Doorman, descriptors: UnixStream) -> Self {
        Self { doorman, descriptors, tasks: JoinSet::new(), open: HashMap::new() }
    }

    /// Accepts on these, too.
    pub(super) fn open(&mut self, listeners: Vec<(u64, Listener)>) {
        for (id, listener) in listeners {
            let (wanted, unwanted) = oneshot::channel();
            self.open.insert(id, Open { address: listener.address(), _wanted: wanted });
            self.tasks.spawn(serve(listener, self.doorman.clone(), unwanted));
        }
    }

    /// Accepts on these, too, which come by `descriptors`.
    pub(super) fn take(&mut self, listeners: Vec<HandedListener>) -> io::Result<()> {
        let listeners = receive(&self.descriptors, listeners)?;
        self.open(listeners);
        Ok(())
    }

    /// Accepts on these no more.
    pub(super) fn close(&mut self, ids: &[u64]) {
        for id in ids {
            self.open.remove(id);
        }
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

/// The listeners that were announced, with their numbers: their sockets are waiting in `descriptors`.
pub(super) fn receive(
    descriptors: &UnixStream,
    listeners: Vec<HandedListener>,
) -> io::Result<Vec<(u64, Listener)>> {
    let sockets = descriptors::receive(descriptors, listeners.len())?;
    let handed = listeners.into_iter().zip(sockets);
    handed.map(|(handed, socket)| Ok((handed.id, Listener::new(handed.purpose, socket)?))).collect()
}

/// Accepts until the listener is wanted no more, and then whoever is still on the way.
async fn serve(listener: Listener, doorman: Doorman, unwanted: oneshot::Receiver<()>) {
    let late = match listener.purpose().role {
        Role::Transparent { .. } => HANDSHAKE_TIME,
        Role::Active { .. } => Duration::ZERO,
    };
    let mut gate = Gate { listener, known: doorman.config.load_full(), doorman };
    tokio::select! {
        // Its sender is dropped: that is the message.
        _ = unwanted => {}
        () = gate.accept() => {}
    }
    // With no time at all it still takes those that wait already.
    let _ = tokio::time::timeout(late, gate.accept()).await;
}

/// One listener's way in.
struct Gate {
    listener: Listener,
    doorman: Doorman,
    /// The last configuration that had the zone: one that is taken out serves its last clients by it.
    known: Arc<Config>,
}

impl Gate {
    /// For ever. Cancellation loses no connection.
    async fn accept(&mut self) {
        loop {
            match self.listener.accept().await {
                Ok(connection) => self.admit(connection),
                Err(error) => {
                    warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&mut self, connection: Connection) {
        let current = self.doorman.config.load_full();
        if self.zone_in(&current).is_some() {
            self.known = current;
        }
        // One that no configuration ever had: the datapath process hands over none such.
        let Some(zone) = self.zone_in(&self.known) else { return };
        let Connection { stream, client, destination, destination_is_ours } = connection;
        let peer = Peer { client, destination, destination_is_ours, zone };
        let context = SessionContext {
            config: self.known.clone(),
            services: self.doorman.services.clone(),
            limits: self.doorman.limits.clone(),
            stop: self.doorman.stop.clone(),
        };
        tokio::spawn(session::serve(stream, peer, context));
    }

    /// The zone's place in `config`.
    fn zone_in(&self, config: &Config) -> Option<usize> {
        config.zones.iter().position(|zone| zone.name == self.listener.purpose().zone)
    }
}
