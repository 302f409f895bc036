//! The one task that puts messages in line: what the spool hands over, and what is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mailguard_core::mail::{QueueId, UnixTime};
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::{NextHop, NoRoute};
use mailguard_core::schedule::Placed;

use super::plan::plan;
use super::worker::{Settling, work};
use super::{LOAD_BATCH, Live, STORE_RETRY, Shared, Work};
use crate::store::intake::{Committed, Held};
use crate::store::record::MessageRecord;
use crate::store::rows::Job;
use crate::store::spool_db::ReadError;

/// How long the runner sleeps when nothing is due; it is woken for anything new.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs until the queue stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let intake = shared.around.db.intake().clone();
    loop {
        for committed in intake.drain() {
            shared.arrive(committed);
        }
        shared.load_due().await;
        shared.start_workers();
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

    fn arrive(self: &Arc<Self>, committed: Committed) {
        let Committed { id, held } = committed;
        match held {
            Some(held) => self.place(id, &Arc::new(held)),
            None => {
                let mut state = self.lock();
                state.live.entry(id).or_default();
                state.schedule.set_due(id, self.now());
            }
        }
    }

    /// Puts a message that just came in line.
    fn place(self: &Arc<Self>, id: QueueId, held: &Arc<Held>) {
        self.place_record(id, &held.record, Some(held));
    }

    /// Puts the recipients that are due in line for their next hops.
    fn place_record(self: &Arc<Self>, id: QueueId, record: &MessageRecord, held: Option<&Arc<Held>>) {
        let config = self.around.config.load_full();
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let live = state.live.entry(id).or_default();
        let forced = std::mem::take(&mut live.forced);
        let plan = plan(&config, record, &live.busy, now, forced);
        if let Some(due) = plan.next_due {
            state.schedule.set_due(id, due);
        }
        for group in plan.groups {
            if forced {
                state.schedule.wake(&group.next_hop);
            }
            live.busy.extend_from_slice(&group.recipients);
            let held = held.cloned();
            let work = Work { id, recipients: group.recipients, config: config.clone(), held };
            if let Placed::Resting(until, work) = state.schedule.enqueue(now, &group.next_hop, work) {
                send_back(live, &work);
                state.schedule.set_due(id, until);
            }
        }
        if !plan.unroutable.is_empty() {
            live.busy.extend(plan.unroutable.iter().map(|(index, _)| *index));
            self.settle_unroutable(id, record, plan.unroutable);
        }
    }

    /// No attempt can be made: the outcome is known.
    fn settle_unroutable(
        self: &Arc<Self>,
        id: QueueId,
        record: &MessageRecord,
        recipients: Vec<(usize, NoRoute)>,
    ) {
        let outcomes = recipients.into_iter().map(|(index, no_route)| (index, outcome(no_route))).collect();
        let settling = Settling { id, record: record.clone(), body: None, next_hop: None, outcomes };
        let shared = self.clone();
        tokio::spawn(async move { shared.settle(settling).await });
    }

    /// Reads the messages that are due and puts them in line.
    async fn load_due(self: &Arc<Self>) {
        loop {
            let now = self.now();
            let ids: Vec<_> = {
                let mut state = self.lock();
                std::iter::from_fn(|| state.schedule.poll_due(now)).take(LOAD_BATCH).collect()
            };
            if ids.is_empty() {
                return;
            }
            match self.load(ids.clone()).await {
                Ok(records) => {
                    for (id, record) in records {
                        self.loaded(id, record).await;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the queue can't read its store");
                    let mut state = self.lock();
                    for id in ids {
                        state.schedule.set_due(id, now.plus(STORE_RETRY));
                    }
                    return;
                }
            }
            // Those that were read first needn't wait for the rest.
            self.start_workers();
        }
    }

    async fn load(&self, ids: Vec<QueueId>) -> Result<Vec<(QueueId, Row)>, ReadError> {
        let read = move |view: &crate::store::spool_db::View| {
            ids.into_iter()
                .map(|id| match view.message(id) {
                    Ok(row) => Ok((id, Ok(row))),
                    Err(redb::Error::Corrupted(cause)) => Ok((id, Err(cause))),
                    Err(error) => Err(error),
                })
                .collect()
        };
        self.around.db.read(read).await
    }

    async fn loaded(self: &Arc<Self>, id: QueueId, row: Row) {
        match row {
            Ok(Some(record)) => self.place_record(id, &record, None),
            // Finished or removed meanwhile.
            Ok(None) => self.lock().forget(id),
            Err(cause) => self.put_aside(id, cause).await,
        }
    }

    /// A message that can't be read is kept and shown, and not tried any more.
    pub(super) async fn put_aside(&self, id: QueueId, cause: String) {
        tracing::error!(%id, cause, "a queued message can't be used and is kept aside");
        self.lock().forget(id);
        if let Err(error) = self.around.db.submit(Job::PutAside(id, cause)).await {
            tracing::error!(%id, %error, "and can't even be put aside");
        }
    }

    /// Starts what may start.
    pub(super) fn start_workers(self: &Arc<Self>) {
        if *self.stopping.borrow() {
            return;
        }
        let mut state = self.lock();
        while let Some((next_hop, first)) = state.schedule.poll_start() {
            tokio::spawn(work(self.clone(), next_hop, first));
        }
    }

    /// A next hop rests: what was in line for it is due when the rest is over, and routed anew then.
    pub(super) fn send_back(&self, until: UnixTime, works: VecDeque<Work>) {
        let mut state = self.lock();
        let state = &mut *state;
        for work in works {
            if let Some(live) = state.live.get_mut(&work.id) {
                send_back(live, &work);
                state.schedule.set_due(work.id, until);
            }
        }
    }
}

/// What the store has under an id: a record, nothing, or something that can't be read.
type Row = Result<Option<MessageRecord>, String>;

fn send_back(live: &mut Live, work: &Work) {
    live.busy.retain(|index| !work.recipients.contains(index));
}

fn outcome(no_route: NoRoute) -> Outcome {
    let NoRoute { status, transient, reason } = no_route;
    let report = Report { status, remote: String::new(), reply: None, text: reason };
    if transient { Outcome::Deferred(report) } else { Outcome::Failed(report) }
}

/// The next hop for messages.
pub(super) fn name(next_hop: Option<&NextHop>) -> String {
    next_hop.map_or_else(|| "nowhere".to_owned(), NextHop::to_string)
}
