//! Traces: id of the message ▶ JSON. The ids grow with time, so the id is the index by time, too. What can be
//! asked of them is left to `trace`; here is how they are found, newest first, and how the oldest go, with
//! their attempts.

use std::ops::ControlFlow;

use mailguard_core::disposition::Disposition;
use mailguard_core::finding::Finding;
use mailguard_core::mail::{ForwardPath, QueueId, ReversePath, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::smtp::Reply;
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::attempts::{self, AttemptRecord, FoundAttempt};
use super::totals::size;
use super::{Change, FactsDb, FactsSnapshot, Writing};
use crate::store::error::{ReadError, StoreError, UnreadableRow, WriteError};
use crate::store::table::{StoredTable, encode};

/// Rows that one change removes at most: what the commit of others waits for it.
pub const MAX_REMOVED_AT_ONCE: usize = 10_000;

/// The table.
pub(super) struct Traces;

impl StoredTable for Traces {
    const NAME: &'static str = "traces";
    type Key = u64;
    type Value = &'static [u8];
}

/// One transaction, whatever became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names it: the queue id of an accepted message, the reference in the reply of a refused one.
    #[serde(rename = "id")]
    pub id: QueueId,
    /// When it was decided.
    #[serde(rename = "at")]
    pub at: UnixTime,
    /// Client, zone, HELO, original destination; or a notice of our own.
    #[serde(rename = "origin")]
    pub origin: Origin,
    /// MAIL FROM; absent where the client was refused before it.
    #[serde(rename = "reverse_path", default, skip_serializing_if = "Option::is_none")]
    pub reverse_path: Option<ReversePath>,
    /// The recipients that were accepted at RCPT.
    #[serde(rename = "recipients", default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<ForwardPath>,
    /// Those that weren't.
    #[serde(rename = "refused_recipients", default, skip_serializing_if = "Vec::is_empty")]
    pub refused_recipients: Vec<RefusedRecipient>,
    /// The Subject field, decoded; empty where there is none or no data came.
    #[serde(rename = "subject", default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Octets of the message as it came.
    #[serde(rename = "size", default)]
    pub size: u64,
    /// What each check said.
    #[serde(rename = "findings", default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// How it ended.
    #[serde(rename = "result")]
    pub result: TransactionResult,
    /// What became of it since. Rows of their own: empty in the row of the trace.
    #[serde(rename = "attempts", default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptRecord>,
}

/// A recipient that was refused while others may not have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecipient {
    /// RCPT TO.
    #[serde(rename = "recipient")]
    pub recipient: ForwardPath,
    /// What we replied.
    #[serde(rename = "reply")]
    pub reply: Reply,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionResult {
    /// Nothing was taken; this was the reply. 4yz: the client may come again.
    #[serde(rename = "refused")]
    Refused(Reply),
    /// Answered 250.
    #[serde(rename = "accepted")]
    Accepted {
        /// One for each of `recipients`.
        #[serde(rename = "dispositions")]
        dispositions: Vec<Disposition>,
    },
}

/// Which traces are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// One.
    Only(QueueId),
    /// From this one on.
    Since(QueueId),
}

/// A trace on the way, not decoded yet.
pub struct Found<'v> {
    /// Names it.
    pub id: QueueId,
    /// Its row.
    pub row: &'v [u8],
    view: &'v FactsSnapshot,
}

impl Found<'_> {
    /// What the row says, without the attempts.
    pub fn record(&self) -> Result<Record, UnreadableRow> {
        serde_json::from_slice(self.row).map_err(|error| UnreadableRow::of(self.row, &error))
    }

    /// Its attempts, in the order in which they ended.
    pub fn attempts(&self) -> Result<Vec<FoundAttempt>, StoreError> {
        self.view.attempts(self.id)
    }
}

/// Looks at traces on the way past them.
pub trait Visitor: Send + 'static {
    /// Looks at one, and says whether the next is wanted.
    fn visit(&mut self, found: &Found<'_>) -> Result<ControlFlow<()>, StoreError>;
}

impl FactsDb {
    /// Shows traces with their attempts, of one state of the store and newest first, until the visitor has
    /// seen enough.
    pub async fn traces<V: Visitor>(&self, wanted: Wanted, mut visitor: V) -> Result<V, ReadError> {
        self.read(move |view| {
            view.show_traces(wanted, &mut visitor)?;
            Ok(visitor)
        })
        .await
    }

    /// Begins a trace. Returns when it is queued, not when it is on disk.
    pub async fn add_trace(&self, record: &Record) -> Result<(), WriteError> {
        self.post(Add(record.id, encode(record.id, record)?)).await
    }

    /// Removes every trace of before `keep_from`, and the oldest beyond so many octets, at most
    /// [`MAX_REMOVED_AT_ONCE`] rows; says how many went.
    pub async fn remove_traces(&self, keep_from: QueueId, max_octets: u64) -> Result<usize, WriteError> {
        self.submit(Remove { keep_from, max_octets }).await
    }
}

impl FactsSnapshot {
    fn show_traces(&self, wanted: Wanted, visitor: &mut impl Visitor) -> Result<(), StoreError> {
        let traces = self.open::<Traces>()?;
        let range = match wanted {
            Wanted::Only(id) => id.0..=id.0,
            Wanted::Since(id) => id.0..=u64::MAX,
        };
        for row in traces.range(range)?.rev() {
            let (id, row) = row?;
            let found = Found { id: QueueId(id.value()), row: row.value(), view: self };
            if visitor.visit(&found)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Add(QueueId, Vec<u8>);

impl Change for Add {
    fn octets(&self) -> usize {
        self.1.len()
    }

    fn apply(self: Box<Self>, tables: &mut Writing<'_>) -> Result<usize, StoreError> {
        let Self(id, row) = *self;
        let replaced = tables.traces.insert(id.0, row.as_slice())?.map_or(0, |old| size(old.value()));
        tables.change_trace_octets(size(&row), replaced)?;
        Ok(0)
    }
}

#[derive(Debug)]
struct Remove {
    keep_from: QueueId,
    max_octets: u64,
}

impl Change for Remove {
    fn octets(&self) -> usize {
        0
    }

    /// Whole traces, oldest first.
    fn apply(self: Box<Self>, tables: &mut Writing<'_>) -> Result<usize, StoreError> {
        let (mut removed, mut gone) = (0, 0);
        let total = tables.trace_octets()?;
        while removed < MAX_REMOVED_AT_ONCE {
            let trace = tables.traces.first()?.map(|(id, _)| id.value());
            let attempt = tables.attempts.first()?.map(|(key, _)| key.value().0);
            let Some(oldest) = trace.into_iter().chain(attempt).min() else { break };
            if oldest >= self.keep_from.0 && total.saturating_sub(gone) <= self.max_octets {
                break;
            }
            if let Some(row) = tables.traces.remove(oldest)? {
                gone += size(row.value());
                removed += 1;
            }
            tables.attempts.retain_in(attempts::of(QueueId(oldest)), |_, row| {
                gone += size(row);
                removed += 1;
                false
            })?;
        }
        tables.change_trace_octets(0, gone)?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use mailguard_core::attempt::{Attempted, Consequence};
    use mailguard_core::outcome::{Outcome, Report};
    use mailguard_core::smtp::EnhancedStatus;

    use super::*;
    use crate::store::facts::totals::ROW_OCTETS;
    use crate::store::golden;

    /// Ids of traces, and the number of their attempts.
    #[derive(Default)]
    struct Seen(Vec<(u64, usize)>);

    impl Visitor for Seen {
        fn visit(&mut self, found: &Found<'_>) -> Result<ControlFlow<()>, StoreError> {
            self.0.push((found.id.0, found.attempts()?.len()));
            Ok(ControlFlow::Continue(()))
        }
    }

    /// The traces from `oldest` on, newest first.
    async fn seen(facts: &FactsDb, oldest: u64) -> Vec<(u64, usize)> {
        facts.flush().await.unwrap();
        facts.traces(Wanted::Since(QueueId(oldest)), Seen::default()).await.unwrap().0
    }

    fn row(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    async fn add(facts: &FactsDb, id: u64, text: &str) {
        facts.post(Add(QueueId(id), row(text))).await.unwrap();
    }

    fn attempted(id: u64, text: &str) -> Attempted {
        let report = Report::about(EnhancedStatus::new(2, 0, 0), "mx.test".to_owned(), text.to_owned());
        Attempted {
            id: QueueId(id),
            at: UnixTime(1),
            recipient: ForwardPath::Postmaster,
            next_hop: None,
            outcome: Outcome::Deferred(report),
            consequence: Consequence::Done,
        }
    }

    #[tokio::test]
    async fn traces_come_newest_first_with_their_attempts_in_order() {
        let facts = FactsDb::in_memory();
        for id in [5, 7, 6] {
            add(&facts, id, "x").await;
        }
        let attempts = [(6, "a"), (7, "b"), (6, "c")].map(|(id, text)| attempted(id, text));
        facts.add_attempts(attempts.to_vec()).await.unwrap();
        assert_eq!(seen(&facts, 6).await, [(7, 1), (6, 2)]);
        let six = facts.read(|view| view.attempts(QueueId(6))).await.unwrap();
        let six: Vec<_> = six.into_iter().map(|found| found.record.unwrap()).collect();
        assert_eq!(six, [attempted(6, "a").into(), attempted(6, "c").into()]);
    }

    #[tokio::test]
    async fn the_oldest_are_removed_and_no_more_than_allowed() {
        let facts = FactsDb::in_memory();
        let octets = encode(0, &AttemptRecord::from(attempted(0, ""))).unwrap().len() as u64 + ROW_OCTETS;
        for id in 0..10 {
            add(&facts, id, &"x".repeat((octets - ROW_OCTETS) as usize)).await;
            facts.add_attempts(vec![attempted(id, "")]).await.unwrap();
        }
        let remove =
            async |keep_from, max_octets| facts.remove_traces(QueueId(keep_from), max_octets).await.unwrap();
        let ids = async || seen(&facts, 0).await.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(remove(0, u64::MAX).await, 0);
        assert_eq!(remove(3, u64::MAX).await, 6);
        assert_eq!(ids().await, [9, 8, 7, 6, 5, 4, 3]);
        assert_eq!(remove(0, 4 * octets).await, 10);
        assert_eq!(ids().await, [9, 8]);
        assert_eq!(facts.trace_octets().await.unwrap(), 4 * octets);
        // An attempt without a trace doesn't stay for ever.
        facts.add_attempts(vec![attempted(1, "late")]).await.unwrap();
        assert_eq!(remove(8, u64::MAX).await, 1);
        assert_eq!(remove(u64::MAX, 0).await, 4);
        assert_eq!(facts.trace_octets().await.unwrap(), 0);
    }

    #[tokio::test]
    async fn replaced_rows_count_once() {
        let facts = FactsDb::in_memory();
        for text in ["long long", "short"] {
            add(&facts, 1, text).await;
        }
        facts.flush().await.unwrap();
        assert_eq!(facts.trace_octets().await.unwrap(), 5 + ROW_OCTETS);
    }

    #[test]
    fn each_row_of_the_trace_is_read_and_written_as_it_stands() {
        golden::TRACES.check::<Record>(&["attempts"]);
    }
}
