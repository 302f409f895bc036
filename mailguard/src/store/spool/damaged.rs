//! Rows that can't be used: id and the table that it stood in ▶ JSON. Kept so that nothing is lost silently;
//! recovery fills it and brings back what can be used again.

use mailguard_core::mail::QueueId;
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::bodies::StoredBody;
use super::messages::MessageRecord;
use super::quarantine::QuarantineRecord;
use super::{SpoolDb, SpoolSnapshot, Writing};
use crate::store::error::{ReadError, StoreError, UnreadableRow};
use crate::store::table::{OpenTable, StoredTable, encode};

/// The table.
pub(super) struct Damaged;

impl StoredTable for Damaged {
    const NAME: &'static str = "damaged";
    type Key = (u64, u8);
    type Value = &'static [u8];
}

/// A row that can't be used, kept so that nothing is lost silently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedRecord {
    /// What is wrong and what to do.
    #[serde(rename = "cause")]
    pub cause: String,
    /// The table it stood in.
    #[serde(rename = "table")]
    pub table: DamagedTable,
    /// The row as it was.
    #[serde(rename = "row")]
    pub row: String,
}

/// What is looked for in one that can't be read itself.
#[derive(Deserialize)]
struct Kept {
    row: String,
}

/// What every version's rows say of the body.
#[derive(Deserialize)]
struct Named {
    body: StoredBody,
}

impl DamagedRecord {
    /// A row of `table` that can't be used for this reason.
    pub(super) fn of(table: DamagedTable, row: &[u8], cause: String) -> Self {
        Self { cause, table, row: String::from_utf8_lossy(row).into_owned() }
    }

    /// A row of `table` at which there was this `error`.
    pub(super) fn unreadable(table: DamagedTable, row: &[u8], error: &serde_json::Error) -> Self {
        let why = UnreadableRow::of(row, error);
        let cause = match why {
            UnreadableRow::OtherVersion(_) => format!(
                "{why}: it is kept as it is and used again once that version, or a newer one, is started; mailguard store export \
                 writes it out"
            ),
            UnreadableRow::Damaged(_) => format!("the row can't be read: {why}"),
        };
        Self::of(table, row, cause)
    }

    /// The body that the row names, where so much can be read, whatever version wrote it.
    pub(super) fn body(&self) -> Option<StoredBody> {
        serde_json::from_str(&self.row).ok().map(|Named { body }| body)
    }

    /// Whether this version can read the row.
    pub(super) fn is_readable(&self) -> bool {
        match self.table {
            DamagedTable::Messages => serde_json::from_str::<MessageRecord>(&self.row).is_ok(),
            DamagedTable::Quarantine => serde_json::from_str::<QuarantineRecord>(&self.row).is_ok(),
        }
    }

    /// What is kept under a key of this `table`. Never fails: one that can't be read is a damaged row as
    /// well.
    pub(super) fn stored(table: u8, octets: &[u8]) -> Self {
        serde_json::from_slice(octets).unwrap_or_else(|error| {
            let whole = || String::from_utf8_lossy(octets).into_owned();
            let quarantine = table == DamagedTable::Quarantine as u8;
            Self {
                cause: format!(
                    "it was kept aside, and what was kept can't be read ({error}): it stays as it is; mailguard store export \
                     writes it out, mailguard queue remove removes it"
                ),
                table: if quarantine { DamagedTable::Quarantine } else { DamagedTable::Messages },
                row: serde_json::from_slice(octets).map_or_else(|_| whole(), |Kept { row }| row),
            }
        })
    }
}

/// Where a damaged row stood. The number is part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DamagedTable {
    /// Messages that wait.
    #[serde(rename = "messages")]
    Messages = 0,
    /// The quarantine.
    #[serde(rename = "quarantine")]
    Quarantine = 1,
}

/// The keys of the rows of one message.
fn of(id: QueueId) -> std::ops::RangeInclusive<(u64, u8)> {
    (id.0, u8::MIN)..=(id.0, u8::MAX)
}

/// All of them, oldest first.
pub(super) fn all(
    table: &impl ReadableTable<(u64, u8), &'static [u8]>,
) -> Result<Vec<(QueueId, DamagedRecord)>, StoreError> {
    let row = |row: Result<_, redb::StorageError>| {
        let (key, value): (redb::AccessGuard<'_, (u64, u8)>, redb::AccessGuard<'_, &[u8]>) = row?;
        let (id, table) = key.value();
        Ok((QueueId(id), DamagedRecord::stored(table, value.value())))
    };
    table.iter()?.map(row).collect()
}

/// Puts a row aside.
pub(super) fn put(
    table: &mut OpenTable<'_, Damaged>,
    id: QueueId,
    record: &DamagedRecord,
) -> Result<(), StoreError> {
    table.insert((id.0, record.table as u8), &encode(id, record)?[..])?;
    Ok(())
}

impl SpoolSnapshot {
    /// The rows of this id that can't be used.
    pub(super) fn damaged_of(&self, id: QueueId) -> Result<Vec<DamagedRecord>, StoreError> {
        let table = self.open::<Damaged>()?;
        let rows = table.range(of(id))?.map(|row| {
            let (key, value) = row?;
            Ok(DamagedRecord::stored(key.value().1, value.value()))
        });
        rows.collect()
    }
}

impl SpoolDb {
    /// The rows that can't be used, oldest first.
    pub async fn damaged(&self) -> Result<Vec<(QueueId, DamagedRecord)>, ReadError> {
        self.read(|view| all(&view.open::<Damaged>()?)).await
    }
}

impl Writing<'_> {
    /// Removes what is kept under this id, and says whether there was anything.
    pub(super) fn remove_damaged(&mut self, id: QueueId) -> Result<bool, StoreError> {
        let mut any = false;
        self.damaged.retain_in(of(id), |_, _| {
            any = true;
            false
        })?;
        Ok(any)
    }
}
