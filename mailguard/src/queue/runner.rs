//! The one task that puts messages in line: what the spool hands over, and what is due.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::{QueueId, RecipientIndex, UnixTime};
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::{OriginalDestination, Route};
use mailguard_core::schedule::Placed;
use mailguard_core::smtp::{Detail, EnhancedStatus};

use super::judge::notify_at;
use super::plan::{Group, Orders, plan};
use super::worker::{Settling, work};
use super::{LOAD_BATCH, Live, NAMES_TIME, STORE_RETRY, Shared, Work, Worker};
use crate::routing::Names;
use crate::store::StoreError;
use crate::store::spool::{CachedMessage, Committed, MessageRecord, RecipientState, SpoolOp};

/// No answer from host (RFC 3463 §3.5).
const NO_ANSWER: EnhancedStatus = EnhancedStatus::transient(Detail::NO_ANSWER_FROM_HOST);

/// How long the runner sleeps when nothing is due; it is woken for anything new.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs until the queue stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let intake = shared.around.db.intake().clone();
    loop {
        let mut known = Vec::new();
        for committed in intake.drain() {
            known.extend(shared.arrive(committed));
        }
        known.extend(shared.load_due().await);
        shared.start_workers();
        // One commit for all of them.
        join_all(known.into_iter().map(|settling| shared.settle(settling))).await;
        let sleep = shared.until_due();
        tokio::select! {
            () = intake.arrived() => {}
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(sleep) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

impl Shared {
    fn until_due(&self) -> Duration {
        let due = self.lock().schedule.poll_timeout();
        due.map_or(IDLE, |due| due.since(self.now())).min(IDLE)
    }

    /// Puts what was just committed in line.
    fn arrive(&self, committed: Committed) -> Vec<Settling> {
        let Committed { id, cached } = committed;
        if let Some(cached) = cached {
            let cached = Arc::new(cached);
            return self.place(id, &cached.record, Some(&cached));
        }
        let now = self.now();
        let mut state = self.lock();
        state.live.entry(id).or_default();
        state.schedule.set_due(id, now);
        Vec::new()
    }

    /// Puts the recipients that are due in line for their next hops. Comes back with those whose outcome is
    /// known without an attempt.
    fn place(
        &self,
        id: QueueId,
        record: &MessageRecord,
        cached: Option<&Arc<CachedMessage>>,
    ) -> Vec<Settling> {
        let config = self.around.config.load_full();
        let now = self.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        let live = state.live.entry(id).or_default();
        let forced = std::mem::take(&mut live.forced);
        let orders = Orders { forced, paused: &state.paused };
        let plan = plan(&config, record, &live.busy, now, orders);
        if let Some(due) = plan.next_due {
            state.schedule.set_due(id, due);
        }
        let mut known = Vec::new();
        let mut settle = |next_hop, outcomes| {
            known.push(Settling { id, record: record.clone(), body: None, next_hop, outcomes });
        };
        for Group { route, recipients } in plan.groups {
            live.busy.extend_from_slice(&recipients);
            if forced {
                state.schedule.wake(&route);
            }
            let notify_at = notify_at(&config, record, &recipients);
            let has_come_to_it = now >= notify_at || is_left_after_a_deferral(&route);
            if !forced && has_come_to_it && state.schedule.backs_off(&route, now) {
                // Others were tried in its place just now; it would wait behind them for ever.
                let outcomes = recipients.into_iter().map(|index| (index, unanswered(record, index)));
                settle(Some(route.next_hop), outcomes.collect());
                continue;
            }
            let work = Work { id, recipients, config: config.clone(), cached: cached.cloned(), notify_at };
            if let Placed::BackingOff(until, work) = state.schedule.enqueue(now, &route, work) {
                send_back(live, &work);
                state.schedule.set_due(id, until);
            }
        }
        if !plan.unroutable.is_empty() {
            live.busy.extend(plan.unroutable.iter().map(|(index, _)| *index));
            settle(None, plan.unroutable.into_iter().map(|(index, none)| (index, none.into())).collect());
        }
        known
    }

    /// Reads some of the messages that are due and puts them in line.
    async fn load_due(&self) -> Vec<Settling> {
        let now = self.now();
        let ids: Vec<_> = {
            let mut state = self.lock();
            std::iter::from_fn(|| state.schedule.poll_due(now)).take(LOAD_BATCH).collect()
        };
        let mut known = Vec::new();
        if ids.is_empty() {
            return known;
        }
        match self.around.db.due(ids.clone()).await {
            Ok(found) => {
                for (id, record) in found {
                    known.extend(self.loaded(id, record).await);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the queue can't read its store");
                let mut state = self.lock();
                for id in ids {
                    state.schedule.set_due(id, now.plus(STORE_RETRY));
                }
            }
        }
        known
    }

    async fn loaded(&self, id: QueueId, found: Result<Option<MessageRecord>, StoreError>) -> Vec<Settling> {
        match found {
            Ok(Some(record)) => return self.place(id, &record, None),
            // Finished or removed meanwhile.
            Ok(None) => self.lock().forget(id),
            Err(damage) => self.put_aside(id, damage.to_string()).await,
        }
        Vec::new()
    }

    /// A message that can't be read is kept and shown, and not tried any more.
    pub(super) async fn put_aside(&self, id: QueueId, cause: String) {
        tracing::error!(%id, cause, "a queued message can't be used and is kept aside");
        self.lock().forget(id);
        if let Err(error) = self.around.db.submit(SpoolOp::PutAside(id, cause)).await {
            tracing::error!(%id, %error, "and can't even be put aside: it is tried again later");
            let later = self.now().plus(STORE_RETRY);
            self.lock().schedule.set_due(id, later);
        }
    }

    /// Starts what may start.
    pub(super) fn start_workers(self: &Arc<Self>) {
        if *self.stopping.borrow() {
            return;
        }
        let now = self.now();
        let mut state = self.lock();
        while let Some(first) = state.schedule.poll_start(now) {
            let worker = Worker::register(self, &mut state);
            tokio::spawn(work(worker, first));
        }
        drop(state);
        // Names that hold no longer are found out when a place is to be taken.
        self.look_up_names();
    }

    /// Asks for the names of the next hops whose turn it is.
    pub(super) fn look_up_names(self: &Arc<Self>) {
        let mut state = self.lock();
        while let Some(route) = state.schedule.poll_lookup() {
            tokio::spawn(look_up(self.clone(), route));
        }
    }

    /// A next hop rests: what was in line for it is due when the rest is over, and routed anew then. Somebody
    /// may have to be told of it now, or it goes another way from now on.
    pub(super) fn send_back(&self, route: &Route, until: UnixTime, works: VecDeque<Work>) {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        for work in works {
            if let Some(live) = state.live.get_mut(&work.id) {
                send_back(live, &work);
                let is_due = now >= work.notify_at || is_left_after_a_deferral(route);
                state.schedule.set_due(work.id, if is_due { now } else { until });
            }
        }
    }
}

/// Asks for the names of one next hop, and starts what may start then. A stop doesn't wait for it.
async fn look_up(shared: Arc<Shared>, route: Route) {
    let mut stopping = shared.stopping.subscribe();
    let config = shared.around.config.load_full();
    let asked = shared.around.deliver.look_up(&config, &route.next_hop);
    // A mistake there must not take a place for good.
    let asked = AssertUnwindSafe(asked).catch_unwind();
    let names = tokio::select! {
        names = asked => names.ok().flatten().unwrap_or_else(unknown),
        _ = stopping.wait_for(|stopping| *stopping) => return,
    };
    let now = shared.now();
    shared.lock().schedule.looked_up(now, &route, Arc::new(names), now.plus(NAMES_TIME));
    shared.start_workers();
}

/// Whether other servers take what this next hop defers. What would wait behind its rest counts as deferred
/// with the rest.
fn is_left_after_a_deferral(route: &Route) -> bool {
    route.original_destination == OriginalDestination::First
}

fn unknown() -> Names {
    Names::Host(Lookup::Unavailable("its look-up broke off by a mistake of mailguard".to_owned()))
}

fn send_back(live: &mut Live, work: &Work) {
    live.busy.retain(|index| !work.recipients.contains(index));
}

/// The outcome for a recipient whose next hop is known not to answer.
fn unanswered(record: &MessageRecord, index: RecipientIndex) -> Outcome {
    let last = match record.state(index) {
        RecipientState::Queued(queued) => queued.last.clone(),
        RecipientState::Ended(_) => None,
    };
    Outcome::Deferred(
        last.unwrap_or_else(|| Report::ours(NO_ANSWER, "the next hop doesn't answer".to_owned())),
    )
}
