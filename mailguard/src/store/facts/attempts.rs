//! Attempts, a row each: id of the message and number of the attempt ▶ JSON. Adding one rewrites nothing.

use mailguard_core::attempt::{Attempted, Consequence};
use mailguard_core::mail::{ForwardPath, QueueId, UnixTime};
use mailguard_core::outcome::Outcome;
use mailguard_core::route::NextHop;
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::totals::size;
use super::{Change, FactsDb, FactsSnapshot, Writing};
use crate::store::error::{StoreError, UnreadableRow, WriteError};
use crate::store::table::{StoredTable, encode};

/// Most attempts kept of one message; beyond it the last is overwritten.
pub const MAX_ATTEMPTS: u32 = 10_000;

/// The table.
pub(super) struct Attempts;

impl StoredTable for Attempts {
    const NAME: &'static str = "attempts";
    type Key = (u64, u32);
    type Value = &'static [u8];
}

/// One attempt, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When it ended.
    #[serde(rename = "at")]
    pub at: UnixTime,
    /// For whom, redirection done.
    #[serde(rename = "recipient")]
    pub recipient: ForwardPath,
    /// Where; absent where no next hop could be found.
    #[serde(rename = "next_hop", default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// What came of it.
    #[serde(rename = "outcome")]
    pub outcome: Outcome,
    /// What the queue does about it.
    #[serde(rename = "consequence")]
    pub consequence: Consequence,
}

impl From<Attempted> for AttemptRecord {
    fn from(attempted: Attempted) -> Self {
        let Attempted { id: _, at, recipient, next_hop, outcome, consequence } = attempted;
        Self { at, recipient, next_hop, outcome, consequence }
    }
}

/// The keys of a message's attempts.
pub(super) fn of(id: QueueId) -> std::ops::RangeInclusive<(u64, u32)> {
    (id.0, 0)..=(id.0, u32::MAX)
}

/// An attempt as it was found.
pub struct FoundAttempt {
    /// What it says.
    pub record: Result<AttemptRecord, UnreadableRow>,
    /// Octets of its row.
    pub octets: usize,
}

impl FactsSnapshot {
    /// The attempts of one message, in the order in which they ended.
    pub(super) fn attempts(&self, id: QueueId) -> Result<Vec<FoundAttempt>, StoreError> {
        let attempt = |row: &[u8]| {
            let record = serde_json::from_slice(row).map_err(|error| UnreadableRow::of(row, &error));
            FoundAttempt { record, octets: row.len() }
        };
        self.open::<Attempts>()?.range(of(id))?.map(|row| Ok(attempt(row?.1.value()))).collect()
    }
}

impl FactsDb {
    /// Adds attempts to their messages, in the order in which they ended. Returns when they are queued, not
    /// when they are on disk.
    pub async fn add_attempts(&self, attempts: Vec<Attempted>) -> Result<(), WriteError> {
        let row = |attempted: Attempted| {
            let id = attempted.id;
            let row = encode(id, &AttemptRecord::from(attempted));
            // One that can't be written costs none of the others.
            row.inspect_err(|error| tracing::error!(%id, %error, "an attempt is missing from the trace"))
                .ok()
                .map(|row| (id, row))
        };
        self.post(Add(attempts.into_iter().filter_map(row).collect())).await
    }
}

#[derive(Debug)]
struct Add(Vec<(QueueId, Vec<u8>)>);

impl Change for Add {
    fn octets(&self) -> usize {
        self.0.iter().map(|(_, row)| row.len()).sum()
    }

    fn apply(self: Box<Self>, tables: &mut Writing<'_>) -> Result<usize, StoreError> {
        let (mut more, mut less) = (0, 0);
        for (id, row) in self.0 {
            let last = tables.attempts.range(of(id))?.next_back().transpose()?;
            let number = last.map_or(0, |(key, _)| (key.value().1 + 1).min(MAX_ATTEMPTS - 1));
            let replaced = tables.attempts.insert((id.0, number), row.as_slice())?;
            less += replaced.map_or(0, |old| size(old.value()));
            more += size(&row);
        }
        tables.change_trace_octets(more, less)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::golden;

    #[test]
    fn each_attempt_is_read_and_written_as_it_stands() {
        golden::ATTEMPTS.check::<AttemptRecord>(&[]);
    }
}
