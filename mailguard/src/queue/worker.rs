//! One attempt after another: fetch the message, hand it to `delivery`, make what follows durable.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use mailguard_core::attempt::Attempted;
use mailguard_core::config::Config;
use mailguard_core::dsn::{Action, Reader};
use mailguard_core::mail::{QueueId, RecipientIndex, UnixTime};
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::{NextHop, Route};
use mailguard_core::schedule::{Health, Standing, Start};
use mailguard_core::smtp::{Detail, EnhancedStatus};

use super::attempt::{Outgoing, Reached};
use super::judge::{JudgedRecipient, Judgement, Next, judge, retry_policy};
use super::notice::{Reported, ReportedOutcome, notice};
use super::plan::{envelope, is_paused};
use super::{STORE_RETRY, Shared, Work, Worker};
use crate::routing::Names;
use crate::store::body::Body;
use crate::store::spool::{Accept, MessageRecord, Reason, RecordAttempt, SpoolOp, SpoolOpResult};
use crate::store::{ReadError, WriteError};

/// Other or undefined mail system status (RFC 3463 §3.4): ours.
const OUR_FAULT: EnhancedStatus = EnhancedStatus::transient(Detail::OTHER_MAIL_SYSTEM);

/// Makes attempts until none may start. `first` counts as in flight.
pub(super) async fn work(worker: Worker, first: Start<Work, Arc<Names>>) {
    let shared = &worker.0;
    let mut next = Some(first);
    while let Some(start) = next {
        shared.attempt(start).await;
        next = shared.next_start();
    }
}

/// What an attempt came to, to be made durable.
pub(super) struct Settling {
    pub(super) id: QueueId,
    pub(super) record: MessageRecord,
    /// The octets, if they are at hand.
    pub(super) body: Option<Body>,
    pub(super) next_hop: Option<NextHop>,
    pub(super) outcomes: Vec<(RecipientIndex, Outcome)>,
}

impl Shared {
    fn next_start(self: &Arc<Self>) -> Option<Start<Work, Arc<Names>>> {
        if *self.stopping.borrow() {
            return None;
        }
        let now = self.now();
        let next = self.lock().schedule.poll_start(now);
        self.look_up_names();
        next
    }

    /// One attempt. Record and body are fetched when a server is ready for them, or what follows is to be
    /// noted: of those that wait for a server there are too many to keep a record of each, which may name
    /// thousands of recipients.
    async fn attempt(&self, start: Start<Work, Arc<Names>>) {
        let Start { route, names, standing, work } = start;
        if !self.is_current(&work) || self.wanted_record(&route, &work).await.is_none() {
            return self.abandoned(&route);
        }
        let mut stopping = self.stopping.subscribe();
        let reaching = self.around.deliver.reach(&work.config, &route, names.as_deref());
        // A mistake in one delivery must not take a place in the schedule for good.
        let reached = tokio::select! {
            reached = AssertUnwindSafe(reaching).catch_unwind() => reached,
            _ = stopping.wait_for(|stopping| *stopping) => return self.abandoned(&route),
        };
        match reached {
            Ok(Ok(reached)) => self.transfer(reached, &route, standing, &work).await,
            Ok(Err(outcome)) => self.fail(vec![outcome; work.recipients.len()], &route, &work).await,
            Err(_) => self.fail(Vec::new(), &route, &work).await,
        }
    }

    /// Hands the message to a server that is ready for it.
    async fn transfer(&self, reached: Box<dyn Reached + '_>, route: &Route, standing: Standing, work: &Work) {
        // Nobody closes it.
        let Ok(_room) = self.transfers[standing as usize].acquire().await else {
            return self.abandoned(route);
        };
        let Some(record) = self.wanted_record(route, work).await else { return self.abandoned(route) };
        let Some(body) = self.body(work, &record).await else { return self.abandoned(route) };
        let outgoing = outgoing(work, &record, body);
        let outcomes = AssertUnwindSafe(reached.send(&outgoing)).catch_unwind().await.unwrap_or_default();
        let outcomes = self.finished(route, work, outcomes);
        self.settle(settling(route, work, record, Some(outgoing.body), outcomes)).await;
    }

    /// No server was ready for the message.
    async fn fail(&self, outcomes: Vec<Outcome>, route: &Route, work: &Work) {
        let outcomes = self.finished(route, work, outcomes);
        let Ok(_room) = self.failures.acquire().await else { return };
        let Some(record) = self.record(work).await else { return };
        self.settle(settling(route, work, record, None, outcomes)).await;
    }

    fn abandoned(&self, route: &Route) {
        let now = self.now();
        self.lock().schedule.abandoned(now, route);
    }

    /// The attempt is over: an outcome for each of its recipients. The place in the schedule is free before
    /// they are on disk: the next attempt needn't wait for that.
    fn finished(&self, route: &Route, work: &Work, outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let outcomes = complete(outcomes, work.recipients.len());
        let health =
            if outcomes.iter().all(Outcome::blames_next_hop) { Health::Fails } else { Health::Answers };
        let policy = retry_policy(&self.around.config.load());
        let now = self.now();
        let sent_back = self.lock().schedule.finished(now, route, health, &policy);
        if let Some((until, works)) = sent_back {
            tracing::warn!(next_hop = %route.next_hop, waiting = works.len(), until = %until.rfc3339(), "the next hop rests");
            self.send_back(route, until, works);
            self.wake.notify_one();
        }
        outcomes
    }

    /// Whether the message was put in line by the configuration in force; otherwise it is put there anew.
    fn is_current(&self, work: &Work) -> bool {
        let current = Arc::ptr_eq(&work.config, &self.around.config.load());
        if !current && self.is_wanted(work) {
            self.due_again(work, std::time::Duration::ZERO);
        }
        current
    }

    /// The record, unless there is a reason to make no attempt now.
    async fn wanted_record(&self, route: &Route, work: &Work) -> Option<MessageRecord> {
        if !self.is_wanted(work) {
            return None;
        }
        let record = self.record(work).await?;
        self.unless_stopped(route, work, &record).then_some(record)
    }

    /// The record, unless the message has ended meanwhile or can't be read now.
    async fn record(&self, work: &Work) -> Option<MessageRecord> {
        if let Some(cached) = &work.cached {
            return Some(cached.record.clone());
        }
        match self.around.db.message(work.id).await {
            Ok(Some(record)) => Some(record),
            Ok(None) => {
                self.lock().forget(work.id);
                None
            }
            Err(error) => self.unread(work, &error),
        }
    }

    /// The octets, unless they can't be read now.
    async fn body(&self, work: &Work, record: &MessageRecord) -> Option<Body> {
        if let Some(cached) = &work.cached {
            return Some(cached.body.clone());
        }
        match self.around.db.body(work.id, record.body).await {
            Ok(body) => Some(body),
            Err(missing @ ReadError::BodyMissing { .. }) => {
                match self.around.db.message(work.id).await {
                    // Removed meanwhile.
                    Ok(None) => self.lock().forget(work.id),
                    _ => self.put_aside(work.id, missing.to_string()).await,
                }
                None
            }
            Err(error) => self.unread(work, &error),
        }
    }

    /// Whether the message waits still, what comes of it could be noted, and no stop waits for it.
    fn is_wanted(&self, work: &Work) -> bool {
        if self.around.db.failure().is_some() {
            // The outcome couldn't be noted: the message would go out again after the restart, and again.
            self.stopping.send_replace(true);
            return false;
        }
        !*self.stopping.borrow() && self.lock().live.contains_key(&work.id)
    }

    /// Whether no administrator has stopped it since it was put in line; one that he has is in line no
    /// longer.
    fn unless_stopped(&self, route: &Route, work: &Work, record: &MessageRecord) -> bool {
        let mut state = self.lock();
        let on_hold = record.on_hold || state.live.get(&work.id).is_some_and(|live| live.on_hold);
        let is_paused = |&index: &RecipientIndex| is_paused(&state.paused, &record.destination(index), route);
        let stopped = on_hold || work.recipients.iter().any(is_paused);
        if stopped {
            state.not_busy(work.id, &work.recipients);
        }
        !stopped
    }

    /// The store couldn't be read just now: the message is tried later.
    fn unread<T>(&self, work: &Work, error: &ReadError) -> Option<T> {
        tracing::error!(id = %work.id, %error, "the queue can't read its store");
        self.due_again(work, STORE_RETRY);
        None
    }

    fn due_again(&self, work: &Work, after: std::time::Duration) {
        let due = self.now().plus(after);
        let mut state = self.lock();
        state.not_busy(work.id, &work.recipients);
        if state.live.contains_key(&work.id) {
            state.schedule.set_due(work.id, due);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Judges the outcomes, makes what follows durable, and tells the trace.
    pub(super) async fn settle(&self, settling: Settling) {
        let config = self.around.config.load_full();
        let now = self.now();
        let judgement = judge(&config, &settling.record, &settling.outcomes, now);
        let attempted = attempted(&settling, &judgement, now);
        let all = settling.outcomes.len() == settling.record.states.len();
        let written = if all && judgement.is_done() {
            // Nobody waits for this one: lost in a crash, the message goes out once more, as RFC 5321
            // §4.5.4.1 and §6.1 have it.
            self.lock().forget(settling.id);
            self.around.db.post(SpoolOp::Finish(settling.id, settling.record.body)).await
        } else {
            self.note(&config, &settling, judgement, now).await
        };
        if let Err(error) = written {
            tracing::error!(id = %settling.id, %error, "an outcome can't be noted: the message will go out again");
        }
        self.around.observer.attempted(attempted).await;
    }

    /// The message is gone from memory, unless a release has just put it back into the store: its arrival and
    /// our word of its end may have crossed.
    pub(super) async fn forget_unless_released(&self, id: QueueId) {
        self.lock().forget(id);
        if let Ok(Some(record)) = self.around.db.message(id).await {
            let mut state = self.lock();
            state.live.entry(id).or_default();
            state.schedule.set_due(id, record.due().unwrap_or(record.received_at));
            drop(state);
            self.wake.notify_one();
        }
    }

    async fn note(
        &self,
        config: &Config,
        settling: &Settling,
        judgement: Judgement<'_>,
        now: UnixTime,
    ) -> Result<(), WriteError> {
        let id = settling.id;
        let recipients: Vec<_> = settling.outcomes.iter().map(|(index, _)| *index).collect();
        let next_due = judgement.next_due();
        let (mut states, mut quarantine, mut reported) = (Vec::new(), Vec::new(), Vec::new());
        for JudgedRecipient { index, follows, .. } in judgement.recipients {
            match follows.next {
                Next::State(state) => states.push((index, state)),
                Next::Quarantine(reason) => quarantine.push((index, reason)),
            }
            let report = follows.report;
            reported.extend(report.map(|(action, report)| ReportedOutcome { index, action, report }));
        }
        let notices = self.notices(config, settling, &reported, &quarantine, now).await;
        let named: Vec<_> = notices.iter().map(|notice| notice.id).collect();
        let record = RecordAttempt {
            id,
            recipients: settling.record.states.len(),
            states,
            quarantine,
            at: now,
            notices,
        };
        let answer = self.around.db.submit(SpoolOp::Record(Box::new(record))).await?;
        if matches!(answer, SpoolOpResult::Recorded(_)) {
            named.into_iter().for_each(|notice| self.around.observer.noticed(notice, id));
        }
        match answer {
            SpoolOpResult::Recorded(Some(_)) => {
                let mut state = self.lock();
                state.not_busy(id, &recipients);
                if let Some(due) = next_due.filter(|_| state.live.contains_key(&id)) {
                    state.schedule.set_due(id, due);
                }
                drop(state);
                self.wake.notify_one();
            }
            // Ended for everybody, or removed by an administrator.
            _ => self.forget_unless_released(id).await,
        }
        Ok(())
    }

    /// What sender and administrator are told.
    async fn notices(
        &self,
        config: &Config,
        settling: &Settling,
        reported: &[ReportedOutcome],
        quarantine: &[(RecipientIndex, Reason)],
        now: UnixTime,
    ) -> Vec<Accept> {
        let quarantined: Vec<_> = quarantine
            .iter()
            .filter_map(|(index, reason)| match reason {
                Reason::Undeliverable(report) => {
                    Some(ReportedOutcome { index: *index, action: Action::Failed, report: report.clone() })
                }
                Reason::Threat(_) => None,
            })
            .collect();
        let mut readers = Vec::new();
        if !reported.is_empty() {
            readers.push((Reader::Sender, reported));
        }
        if !quarantined.is_empty() && config.postmaster.is_none() {
            tracing::warn!(id = %settling.id, "undeliverable, quarantined; there is no postmaster to be told");
        }
        if let Some(postmaster) = config.postmaster.as_ref().filter(|_| !quarantined.is_empty()) {
            if self.lock().administrator_notices.allow(now) {
                readers.push((Reader::Administrator(postmaster), &quarantined[..]));
            } else {
                tracing::warn!(id = %settling.id, "undeliverable, quarantined; the administrator got too many notices to be told");
            }
        }
        let mut notices = Vec::new();
        if readers.is_empty() {
            return notices;
        }
        let body = self.body_for_report(settling).await;
        for (reader, told) in readers {
            let message = Reported { id: settling.id, record: &settling.record, reader, told, body: &body };
            notices.extend(notice(config, message, self.around.ids.mint(), now).await);
        }
        notices
    }

    async fn body_for_report(&self, settling: &Settling) -> Body {
        if let Some(body) = &settling.body {
            return body.clone();
        }
        self.around.db.body(settling.id, settling.record.body).await.unwrap_or_else(|error| {
            tracing::error!(id = %settling.id, %error, "a failed message can't be read: its report says only why");
            Body::Memory(bytes::Bytes::new())
        })
    }
}

fn settling(
    route: &Route,
    work: &Work,
    record: MessageRecord,
    body: Option<Body>,
    outcomes: Vec<Outcome>,
) -> Settling {
    let outcomes = work.recipients.iter().copied().zip(outcomes).collect();
    Settling { id: work.id, record, body, next_hop: Some(route.next_hop.clone()), outcomes }
}

fn outgoing(work: &Work, record: &MessageRecord, body: Body) -> Outgoing {
    Outgoing {
        id: work.id,
        origin: record.origin.clone(),
        envelope: envelope(record, &work.recipients),
        body,
        received_at: record.received_at,
    }
}

/// One outcome a recipient, whatever `delivery` gave back.
fn complete(mut outcomes: Vec<Outcome>, recipients: usize) -> Vec<Outcome> {
    if outcomes.len() != recipients {
        tracing::error!(outcomes = outcomes.len(), recipients, "an attempt broke off");
        let report = Report::ours(OUR_FAULT, "the attempt broke off by a mistake of mailguard".to_owned());
        outcomes.resize(recipients, Outcome::Deferred(report));
    }
    outcomes
}

fn attempted(settling: &Settling, judgement: &Judgement<'_>, at: UnixTime) -> Vec<Attempted> {
    let attempted = |judged: &JudgedRecipient<'_>| Attempted {
        id: settling.id,
        at,
        recipient: settling.record.destination(judged.index),
        next_hop: settling.next_hop.clone(),
        outcome: judged.outcome.clone(),
        consequence: judged.follows.consequence,
    };
    judgement.recipients.iter().map(attempted).collect()
}
