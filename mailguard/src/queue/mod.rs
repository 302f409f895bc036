//! The queue: takes every message from its 250 to its last outcome (RFC 5321 §4.5.4.1, §6.1).
//!
//! Stands after the spool: rebuilt from the store at start, then fed by it. Each recipient is routed by the
//! configuration of the moment; recipients with one next hop share an attempt. When, how many at once and who
//! rests is core::schedule's decision; the attempt is `delivery`'s; what follows from it is in [`judge`];
//! this module carries it out and makes it durable.

mod attempt;
mod handle;
mod judge;
mod notice;
mod plan;
mod runner;
#[cfg(test)]
mod tests;
mod worker;

use std::array;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use mailguard_core::destination::Destination;
use mailguard_core::mail::{QueueId, RecipientIndex, UnixTime};
use mailguard_core::schedule::{Limits, STANDINGS, Schedule};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

pub use self::attempt::{AttemptObserver, Deliver, Outgoing, Reached};
pub use self::handle::{PauseError, QueueHandle};

use self::notice::AdministratorNotices;
use crate::lookup::dns::MAX_MAIL_QUERIES;
use crate::routing::{HOSTS_AT_ONCE, Names};
use crate::spool::IdMint;
use crate::store::spool::{CachedMessage, Recovered, SpoolDb};

/// Most recipients of one attempt: what every server must take (RFC 5321 §4.5.3.1.8).
pub const MAX_ATTEMPT_RECIPIENTS: usize = 100;

/// Attempts at once to next hops of one standing: those that an administrator named, those that answered
/// lately, new ones, and those that failed have a quarter each of all places (docs/adr/0016). Until a server
/// has greeted, each costs a socket only.
pub const MAX_ATTEMPTS_A_STANDING: usize = 1_024;

/// Attempts at once, in all.
pub const MAX_ATTEMPTS_IN_FLIGHT: usize = STANDINGS * MAX_ATTEMPTS_A_STANDING;

/// Of those, attempts that have a server and hand it their message: so many messages are in memory for them.
pub const MAX_TRANSFERS_A_STANDING: usize = 75;

/// Transfers at once, in all.
pub const MAX_TRANSFERS: usize = STANDINGS * MAX_TRANSFERS_A_STANDING;

/// Attempts without a server whose outcomes are noted at once: so many records are in memory for them.
pub const MAX_FAILURES_NOTED_AT_ONCE: usize = 75;

/// Next hops of one standing whose names are looked up at once.
pub const MAX_LOOKUPS_A_STANDING: usize = MAX_ATTEMPTS_A_STANDING;

/// For how long what a next hop's names lead to holds for new attempts, whatever its TTL.
const NAMES_TIME: Duration = Duration::from_secs(30);

// Addresses of both families. No look-up waits for another one.
const _: () = assert!(STANDINGS * MAX_LOOKUPS_A_STANDING * HOSTS_AT_ONCE * 2 <= MAX_MAIL_QUERIES);

/// Attempts at once to one next hop.
pub const MAX_ATTEMPTS_PER_HOP: usize = 20;

/// Destinations that may be paused at one time.
pub const MAX_PAUSED: usize = 1_000;

/// Messages whose records are read from the store at once.
const LOAD_BATCH: usize = 256;

/// How long a message waits when its record couldn't be read just now.
const STORE_RETRY: Duration = Duration::from_secs(60);

/// How long a stop waits for attempts that run; RFC 5321 §4.5.3.2 allows them ten minutes, a restart can't.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// What the queue works with.
pub struct QueueContext {
    /// The store.
    pub db: SpoolDb,
    /// The configuration of the moment.
    pub config: Arc<ArcSwap<Config>>,
    /// Names for reports.
    pub ids: Arc<IdMint>,
    /// Who makes the attempts.
    pub deliver: Arc<dyn Deliver>,
    /// Who is told of them.
    pub observer: Arc<dyn AttemptObserver>,
}

/// The running queue.
pub struct Queue {
    shared: Arc<Shared>,
    runner: JoinHandle<()>,
}

impl Queue {
    /// Starts with what recovery found.
    pub fn start(surroundings: QueueContext, recovered: &Recovered) -> Self {
        Self::start_with(surroundings, recovered, Arc::new(|| SystemTime::now().into()))
    }

    fn start_with(surroundings: QueueContext, recovered: &Recovered, clock: Clock) -> Self {
        let limits = Limits {
            places: MAX_ATTEMPTS_A_STANDING,
            per_hop: MAX_ATTEMPTS_PER_HOP,
            lookups: MAX_LOOKUPS_A_STANDING,
        };
        let mut state = State {
            schedule: Schedule::new(limits),
            live: HashMap::with_capacity(recovered.queued.len()),
            workers: 0,
            // A row is written by us from what was parsed before.
            paused: recovered.paused.iter().filter_map(|text| text.parse().ok()).collect(),
            administrator_notices: AdministratorNotices::default(),
        };
        for &(id, due) in &recovered.queued {
            state.live.insert(id, Live::default());
            state.schedule.set_due(id, due);
        }
        let shared = Arc::new(Shared {
            around: surroundings,
            clock,
            state: Mutex::new(state),
            transfers: array::from_fn(|_| Semaphore::new(MAX_TRANSFERS_A_STANDING)),
            failures: Semaphore::new(MAX_FAILURES_NOTED_AT_ONCE),
            wake: Notify::new(),
            stopping: watch::Sender::new(false),
            idle: Notify::new(),
        });
        let runner = tokio::spawn(runner::run(shared.clone()));
        Self { shared, runner }
    }

    /// What control and command line use.
    pub fn handle(&self) -> QueueHandle {
        QueueHandle::new(self.shared.clone())
    }

    /// Starts no more attempts and waits a while until the outcomes of those that run are on disk. What isn't
    /// finished is tried again after the next start.
    pub async fn stop(self) {
        self.shared.stopping.send_replace(true);
        let _ = self.runner.await;
        let finished = async {
            loop {
                let idle = self.shared.idle.notified();
                if self.shared.lock().workers == 0 {
                    return;
                }
                idle.await;
            }
        };
        if tokio::time::timeout(STOP_GRACE, finished).await.is_err() {
            tracing::warn!("stopped with attempts under way; their messages are tried again");
        }
    }
}

type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

struct Shared {
    around: QueueContext,
    clock: Clock,
    state: Mutex<State>,
    /// The room for messages on their way to a server, by the standing of their next hops.
    transfers: [Semaphore; STANDINGS],
    /// The room for records of messages that no server was ready for, until what follows is noted.
    failures: Semaphore,
    /// Something is due earlier than the runner thinks.
    wake: Notify,
    stopping: watch::Sender<bool>,
    /// A worker ended.
    idle: Notify,
}

/// A task that makes attempts or notes their outcomes; a stop waits until it is dropped.
struct Worker(Arc<Shared>);

impl Worker {
    /// Registers a worker that is about to be spawned.
    fn register(shared: &Arc<Shared>, state: &mut State) -> Self {
        state.workers += 1;
        Self(shared.clone())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.lock().workers -= 1;
        self.0.idle.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics on what a peer sends; if it did, the schedule would still be sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> UnixTime {
        (self.clock)()
    }
}

/// Bounded by the spool on disk: an entry a message, bodies within the budget of `spool`.
struct State {
    schedule: Schedule<Work, Arc<Names>>,
    /// Every message that waits.
    live: HashMap<QueueId, Live>,
    /// Tasks that make attempts or note their outcomes.
    workers: usize,
    /// Where no attempt is made; at most [`MAX_PAUSED`].
    paused: Vec<Destination>,
    administrator_notices: AdministratorNotices,
}

/// What is known in memory of a message that waits.
#[derive(Default)]
struct Live {
    /// Recipients in line for a next hop or in an attempt.
    busy: Vec<RecipientIndex>,
    /// An administrator wants it tried now.
    forced: bool,
    /// An administrator wants no attempt, since it was put in line.
    on_hold: bool,
}

/// One attempt to be made.
struct Work {
    id: QueueId,
    recipients: Vec<RecipientIndex>,
    /// The configuration that routed it.
    config: Arc<Config>,
    /// Record and body, if they are in memory.
    cached: Option<Arc<CachedMessage>>,
    /// From then on a next hop that doesn't answer is told of: the time is up, or a warning is due.
    notify_at: UnixTime,
}

impl State {
    /// The recipients are no longer in line.
    fn not_busy(&mut self, id: QueueId, recipients: &[RecipientIndex]) {
        if let Some(live) = self.live.get_mut(&id) {
            live.busy.retain(|index| !recipients.contains(index));
        }
    }

    /// The message is gone.
    fn forget(&mut self, id: QueueId) {
        self.live.remove(&id);
        self.schedule.forget(id);
    }
}
