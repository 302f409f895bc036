//! Reading `spool.redb`: every look is at one consistent state, beside whatever is being written.

use std::ops::Bound;

use bytes::Bytes;
use mailguard_core::mail::QueueId;
use redb::{Database, ReadOnlyTable, ReadableDatabase};
use serde::de::DeserializeOwned;

use super::record::{DamagedRecord, DamagedTable, MessageRecord, QuarantineRecord};
use super::rows::{BODIES, DAMAGED, MESSAGES, QUARANTINE};

/// One consistent view of the tables.
pub struct SpoolSnapshot {
    messages: ReadOnlyTable<u64, &'static [u8]>,
    bodies: ReadOnlyTable<u64, &'static [u8]>,
    quarantine: ReadOnlyTable<u64, &'static [u8]>,
    damaged: ReadOnlyTable<(u64, u8), &'static [u8]>,
}

impl SpoolSnapshot {
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let reading = database.begin_read()?;
        Ok(Self {
            messages: reading.open_table(MESSAGES)?,
            bodies: reading.open_table(BODIES)?,
            quarantine: reading.open_table(QUARANTINE)?,
            damaged: reading.open_table(DAMAGED)?,
        })
    }

    /// The record of a message that waits.
    pub fn message(&self, id: QueueId) -> Result<Option<MessageRecord>, redb::Error> {
        self.messages.get(id.0)?.map(|row| decode(id, row.value())).transpose()
    }

    /// The row of this id in `table`, as it is.
    pub(super) fn row(&self, table: DamagedTable, id: QueueId) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = match table {
            DamagedTable::Messages => &self.messages,
            DamagedTable::Quarantine => &self.quarantine,
        };
        Ok(table.get(id.0)?.map(|row| row.value().to_vec()))
    }

    /// The octets of a body that isn't a file.
    pub fn body(&self, id: QueueId) -> Result<Option<Bytes>, redb::Error> {
        Ok(self.bodies.get(id.0)?.map(|row| Bytes::copy_from_slice(row.value())))
    }

    /// A quarantine entry.
    pub fn quarantined(&self, id: QueueId) -> Result<Option<QuarantineRecord>, redb::Error> {
        self.quarantine.get(id.0)?.map(|row| decode(id, row.value())).transpose()
    }

    /// The messages that wait, oldest first, behind `after`.
    pub fn messages(
        &self,
        after: Option<QueueId>,
    ) -> Result<impl Iterator<Item = Result<(QueueId, MessageRecord), redb::Error>>, redb::Error> {
        Ok(self.messages.range(behind(after))?.map(decode_row))
    }

    /// The quarantine, oldest first, behind `after`.
    pub fn quarantine(
        &self,
        after: Option<QueueId>,
    ) -> Result<impl Iterator<Item = Result<(QueueId, QuarantineRecord), redb::Error>>, redb::Error> {
        Ok(self.quarantine.range(behind(after))?.map(decode_row))
    }

    /// The ids that anything is stored under, each once, in order.
    pub(super) fn ids(&self) -> Result<Vec<QueueId>, redb::Error> {
        let mut ids = Vec::new();
        for table in [&self.messages, &self.quarantine] {
            for row in table.range::<u64>(..)? {
                ids.push(QueueId(row?.0.value()));
            }
        }
        for row in self.damaged.range::<(u64, u8)>(..)? {
            ids.push(QueueId(row?.0.value().0));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The rows of this id that can't be used.
    pub(super) fn damaged_of(&self, id: QueueId) -> Result<Vec<DamagedRecord>, redb::Error> {
        let rows = self.damaged.range((id.0, u8::MIN)..=(id.0, u8::MAX))?;
        rows.map(|row| {
            let (key, value) = row?;
            Ok(DamagedRecord::stored(key.value().1, value.value()))
        })
        .collect()
    }

    /// The rows that can't be used, oldest first.
    pub fn damaged(
        &self,
    ) -> Result<impl Iterator<Item = Result<(QueueId, DamagedRecord), redb::Error>>, redb::Error> {
        Ok(self.damaged.range::<(u64, u8)>(..)?.map(|row| {
            let (key, value) = row?;
            let (id, table) = key.value();
            Ok((QueueId(id), DamagedRecord::stored(table, value.value())))
        }))
    }
}

fn behind(after: Option<QueueId>) -> (Bound<u64>, Bound<u64>) {
    (after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0)), Bound::Unbounded)
}

/// A piece of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// The rows.
    pub rows: Vec<(QueueId, T)>,
    /// Ask for what comes behind this one; none: nothing does.
    pub next: Option<QueueId>,
}

/// The first `limit` rows, and whether there are more.
pub fn page<T>(
    rows: impl Iterator<Item = Result<(QueueId, T), redb::Error>>,
    limit: usize,
) -> Result<Listing<T>, redb::Error> {
    let mut rows = rows.peekable();
    let page: Vec<_> = rows.by_ref().take(limit).collect::<Result<_, _>>()?;
    let more = rows.peek().is_some();
    let next = page.last().filter(|_| more).map(|(id, _)| *id);
    Ok(Listing { rows: page, next })
}

type Row =
    Result<(redb::AccessGuard<'static, u64>, redb::AccessGuard<'static, &'static [u8]>), redb::StorageError>;

fn decode_row<T: DeserializeOwned>(row: Row) -> Result<(QueueId, T), redb::Error> {
    let (key, value) = row?;
    let id = QueueId(key.value());
    Ok((id, decode(id, value.value())?))
}

fn decode<T: DeserializeOwned>(id: QueueId, row: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(row).map_err(|error| redb::Error::Corrupted(format!("row {id}: {error}")))
}
