//! The handle through which traces are written and read.
//!
//! Writing costs the caller an encoding and a place in the writer's queue; when that is full the caller
//! waits, which slows sessions and deliveries down instead of growing. A failed store loses traces, never
//! mail: the writer says so once, loudly, and `status` shows it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use mailguard_core::attempt::Attempted;
use mailguard_core::config::Config;
use mailguard_core::mail::{QueueId, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use super::Record;
use super::query::{MAX_LIMIT, Query};
use crate::mail_log;
use crate::queue::AttemptObserver;
use crate::store::facts::FactsDb;
use crate::store::facts::traces::{Found, MAX_REMOVED_AT_ONCE, Visitor, Wanted};
use crate::store::{ReadError, StoreError, WriteError};

/// Queries that are answered at one time.
const MAX_QUERIES: usize = 2;

/// Most octets of rows in one answer.
const MAX_ANSWER_OCTETS: usize = 8 * 1024 * 1024;

/// How often retention and size are looked at.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(10);

/// The answer to a query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Traces {
    /// Newest first, attempts included.
    pub records: Vec<Record>,
    /// Whether older ones match, too.
    pub more: bool,
    /// Rows that this version can't read.
    pub unreadable: usize,
}

/// Writes and reads traces; clones are the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    facts: FactsDb,
    config: Arc<ArcSwap<Config>>,
    queries: Arc<Semaphore>,
}

impl Recorder {
    /// A recorder on an opened store.
    pub fn new(facts: FactsDb, config: Arc<ArcSwap<Config>>) -> Self {
        Self { facts, config, queries: Arc::new(Semaphore::new(MAX_QUERIES)) }
    }

    /// Records how a transaction ended. Returns when it is queued, not when it is on disk.
    pub async fn transaction(&self, record: &Record) {
        told(self.facts.add_trace(record).await);
    }

    /// Records attempts, in the order in which they ended.
    pub async fn attempts(&self, attempts: Vec<Attempted>) {
        told(self.facts.add_attempts(attempts).await);
    }

    /// Answers a query; what was recorded before it is in the answer.
    pub async fn query(&self, query: Query) -> Result<Traces, ReadError> {
        // A store that no longer writes can still be read.
        let _stale = self.facts.flush().await.is_err();
        // The semaphore is never closed; without a permit the answer is the same, only dearer.
        let _turn = self.queries.acquire().await.ok();
        let wanted = match query.id {
            Some(id) => Wanted::Only(id),
            None => Wanted::Since(QueueId(query.since.map_or(0, |since| since.0))),
        };
        let collector = Collector { query, traces: Traces::default(), octets: 0 };
        Ok(self.facts.traces(wanted, collector).await?.traces)
    }

    /// Why no trace is stored any more, if that is so.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.facts.failure()
    }

    /// Octets of all traces.
    pub async fn octets(&self) -> Result<u64, ReadError> {
        self.facts.trace_octets().await
    }

    /// Removes what is too old or too much, until the store is closed. A task of its own.
    pub async fn run_maintenance(self) {
        let mut ticks = tokio::time::interval(MAINTENANCE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // One that failed is opened again by itself.
            if let Err(WriteError::Closed) = self.remove_expired(SystemTime::now().into()).await {
                return;
            }
        }
    }

    /// Removes in steps that let other jobs in between.
    async fn remove_expired(&self, now: UnixTime) -> Result<(), WriteError> {
        loop {
            let (keep_from, max_octets) = {
                let trace = &self.config.load().trace;
                (QueueId(now.minus(trace.retention).0), trace.max_size)
            };
            if self.facts.remove_traces(keep_from, max_octets).await? < MAX_REMOVED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Writes what is queued; nothing is recorded after it.
    pub async fn close(&self) {
        self.facts.close().await;
    }
}

impl AttemptObserver for Recorder {
    fn attempted(&self, attempted: Vec<Attempted>) -> BoxFuture<'_, ()> {
        attempted.iter().for_each(mail_log::attempt);
        Box::pin(self.attempts(attempted))
    }

    fn noticed(&self, id: QueueId, about: QueueId) {
        mail_log::notice(id, about);
    }
}

/// A trace that can't be stored is lost, and mail goes on.
fn told(outcome: Result<(), WriteError>) {
    if let Err(WriteError::Unwritable(cause)) = outcome {
        tracing::error!(cause, "a trace can't be encoded");
    }
    // Of anything else the writer has said in the log why it takes nothing more.
}

/// Collects the answer, newest first.
struct Collector {
    query: Query,
    traces: Traces,
    octets: usize,
}

impl Visitor for Collector {
    fn visit(&mut self, found: &Found<'_>) -> Result<ControlFlow<()>, StoreError> {
        if !self.query.may_match(found.row) {
            return Ok(ControlFlow::Continue(()));
        }
        let Ok(mut record) = found.record() else {
            self.traces.unreadable += 1;
            return Ok(ControlFlow::Continue(()));
        };
        let attempts_first = self.query.needs_attempts();
        if !attempts_first && !self.query.matches(&record) {
            return Ok(ControlFlow::Continue(()));
        }
        self.add_attempts(found, &mut record)?;
        if attempts_first && !self.query.matches(&record) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.traces.records.len() == self.query.limit.min(MAX_LIMIT) || self.octets > MAX_ANSWER_OCTETS {
            self.traces.more = true;
            return Ok(ControlFlow::Break(()));
        }
        self.octets += found.row.len();
        self.traces.records.push(record);
        Ok(ControlFlow::Continue(()))
    }
}

impl Collector {
    fn add_attempts(&mut self, found: &Found<'_>, record: &mut Record) -> Result<(), StoreError> {
        for attempt in found.attempts()? {
            match attempt.record {
                Ok(attempt) => record.attempts.push(attempt),
                Err(_) => self.traces.unreadable += 1,
            }
            self.octets += attempt.octets;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mailguard_core::attempt::Consequence;
    use mailguard_core::disposition::Disposition;
    use mailguard_core::finding::{Check, Finding, Opinion, Threat};
    use mailguard_core::language::ENGLISH;
    use mailguard_core::mail::{ForwardPath, ReversePath};
    use mailguard_core::outcome::{Outcome, Report};
    use mailguard_core::route::NextHop;
    use mailguard_core::smtp::{EnhancedStatus, Refusal};

    use super::*;
    use crate::spool::fixture::{client, config, mailbox, shared};
    use crate::trace::{RefusedRecipient, TransactionResult};

    fn recorder(retention: Duration, max_size: u64) -> Recorder {
        let mut config = config("/nowhere".as_ref());
        config.trace.retention = retention;
        config.trace.max_size = max_size;
        Recorder::new(FactsDb::in_memory(), shared(config))
    }

    fn record(id: u64, from: &str, to: &str, result: TransactionResult) -> Record {
        Record {
            id: QueueId(id),
            at: UnixTime(id),
            origin: client("green"),
            reverse_path: Some(ReversePath::Mailbox(mailbox(from))),
            recipients: vec![ForwardPath::Mailbox(mailbox(to))],
            refused_recipients: Vec::new(),
            subject: "Grüße".to_owned(),
            size: 4096,
            findings: vec![Finding::new(Check::Files, Opinion::Pass, "1 part, nothing found")],
            result,
            attempts: Vec::new(),
        }
    }

    fn accepted(disposition: Disposition) -> TransactionResult {
        TransactionResult::Accepted { dispositions: vec![disposition] }
    }

    fn attempted(id: u64, at: u64, outcome: fn(Report) -> Outcome) -> Attempted {
        let report = Report::about(EnhancedStatus::new(2, 0, 0), "mx.test".to_owned(), "sent".to_owned());
        Attempted {
            id: QueueId(id),
            at: UnixTime(at),
            recipient: ForwardPath::Mailbox(mailbox("bob@b.test")),
            next_hop: Some(NextHop::Address("192.0.2.9:25".parse().unwrap())),
            outcome: outcome(report),
            consequence: Consequence::Done,
        }
    }

    /// Ids of the answer, newest first, each with its number of attempts.
    async fn answer(recorder: &Recorder, query: &str) -> Vec<(u64, usize)> {
        let query = Query::parse(query, UnixTime(1000)).unwrap();
        let traces = recorder.query(query).await.unwrap();
        assert_eq!(traces.unreadable, 0);
        traces.records.iter().map(|record| (record.id.0, record.attempts.len())).collect()
    }

    async fn filled() -> Recorder {
        let recorder = recorder(Duration::from_secs(1), 1 << 20);
        let virus = Threat::Virus("Eicar".to_owned());
        let refused = |refusal: Refusal| TransactionResult::Refused(refusal.reply("X", ENGLISH));
        let mut with_refused = record(104, "alice@a.test", "bob@b.test", refused(Refusal::TooLarge(10)));
        with_refused.refused_recipients = vec![RefusedRecipient {
            recipient: ForwardPath::Mailbox(mailbox("mallory@m.test")),
            reply: Refusal::RelayDenied.reply("X", ENGLISH),
        }];
        let mut null = record(105, "x@y.test", "Carol@C.test", accepted(Disposition::Discard(virus.clone())));
        null.reverse_path = Some(ReversePath::Null);
        for record in [
            record(101, "alice@a.test", "bob@b.test", accepted(Disposition::Deliver)),
            record(102, "alice@a.test", "bob@b.test", accepted(Disposition::Quarantine(virus))),
            record(103, "dave@d.test", "bob@b.test", refused(Refusal::StorageFull)),
            with_refused,
            null,
        ] {
            recorder.transaction(&record).await;
        }
        let attempts = vec![attempted(101, 200, Outcome::Deferred), attempted(101, 300, Outcome::Delivered)];
        recorder.attempted(attempts).await;
        recorder
    }

    #[tokio::test]
    async fn queries_find_what_they_ask_for() {
        let recorder = filled().await;
        let id = |id: u64| QueueId(id).to_string();
        for (query, expect) in [
            ("", &[(105, 0), (104, 0), (103, 0), (102, 0), (101, 2)][..]),
            (&id(101), &[(101, 2)]),
            (&id(99), &[]),
            ("from:ALICE", &[(104, 0), (102, 0), (101, 2)]),
            ("from:<>", &[(105, 0)]),
            ("to:carol", &[(105, 0)]),
            ("to:mallory@", &[(104, 0)]),
            ("from:bob", &[]),
            ("client:192.0.2.0/24 limit:1", &[(105, 0)]),
            ("client:198.51.100.1", &[]),
            ("result:refused", &[(104, 0)]),
            ("result:deferred", &[(103, 0)]),
            ("result:quarantined", &[(102, 0)]),
            ("result:discarded", &[(105, 0)]),
            ("result:delivered from:alice", &[(101, 2)]),
            ("result:failed", &[]),
        ] {
            assert_eq!(answer(&recorder, query).await, expect, "{query}");
        }
    }

    #[tokio::test]
    async fn a_limit_says_that_there_is_more() {
        let recorder = filled().await;
        for (limit, more) in [(4, true), (5, false)] {
            let traces = recorder.query(Query { limit, ..Query::default() }).await.unwrap();
            assert_eq!((traces.records.len(), traces.more), (limit, more));
        }
        let since = Query { since: Some(UnixTime(104)), ..Query::default() };
        assert_eq!(recorder.query(since).await.unwrap().records.len(), 2);
    }

    #[tokio::test]
    async fn a_trace_comes_back_as_it_was_recorded() {
        let recorder = filled().await;
        let mut expect = record(101, "alice@a.test", "bob@b.test", accepted(Disposition::Deliver));
        expect.attempts = vec![
            attempted(101, 200, Outcome::Deferred).into(),
            attempted(101, 300, Outcome::Delivered).into(),
        ];
        let traces = recorder.query(Query { id: Some(QueueId(101)), ..Query::default() }).await.unwrap();
        assert_eq!(traces.records, [expect]);
    }

    #[tokio::test]
    async fn maintenance_follows_retention_and_max_size() {
        let recorder = filled().await;
        recorder.remove_expired(UnixTime(1_000_103)).await.unwrap();
        assert_eq!(answer(&recorder, "").await, [(105, 0), (104, 0), (103, 0)]);
        let recorder = Recorder { config: shared(config("/nowhere".as_ref())), ..recorder };
        recorder.remove_expired(UnixTime(1_000_103)).await.unwrap();
        assert_eq!(answer(&recorder, "").await.len(), 3);
        let mut small = config("/nowhere".as_ref());
        small.trace.max_size = 0;
        let recorder = Recorder { config: shared(small), ..recorder };
        recorder.remove_expired(UnixTime(0)).await.unwrap();
        assert_eq!(answer(&recorder, "").await, []);
        assert_eq!(recorder.octets().await.unwrap(), 0);
    }
}
