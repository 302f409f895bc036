//! Rows of JSON under the id of their message, as the tables of messages and of the quarantine have them:
//! one, all behind another one, a page of them.

use std::ops::Bound;

use mailguard_core::mail::QueueId;
use redb::{AccessGuard, ReadOnlyTable, ReadableTable, StorageError, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::error::StoreError;
use crate::store::table::{decode, encode};

/// A piece of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// The rows.
    pub rows: Vec<(QueueId, T)>,
    /// Ask for what comes behind this one; none: nothing does.
    pub next: Option<QueueId>,
}

/// The row of `id`. Rows were checked when the store was opened and are written in here only: one that can't
/// be decoded now is damage.
pub(super) fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<u64, &'static [u8]>,
    id: QueueId,
) -> Result<Option<T>, StoreError> {
    table.get(id.0)?.map(|row| decode(id, row.value())).transpose()
}

/// Writes the row of `id`.
pub(super) fn put(
    table: &mut Table<'_, u64, &'static [u8]>,
    id: QueueId,
    record: &impl Serialize,
) -> Result<(), StoreError> {
    table.insert(id.0, &encode(id, record)?[..])?;
    Ok(())
}

/// The rows behind `after`, oldest first.
pub(super) fn range<T: DeserializeOwned>(
    table: &ReadOnlyTable<u64, &'static [u8]>,
    after: Option<QueueId>,
) -> Result<impl Iterator<Item = Result<(QueueId, T), StoreError>>, StoreError> {
    let behind = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0));
    Ok(table.range((behind, Bound::Unbounded))?.map(decode_row))
}

type Row = Result<(AccessGuard<'static, u64>, AccessGuard<'static, &'static [u8]>), StorageError>;

fn decode_row<T: DeserializeOwned>(row: Row) -> Result<(QueueId, T), StoreError> {
    let (key, value) = row?;
    let id = QueueId(key.value());
    Ok((id, decode(id, value.value())?))
}

/// The first `limit` rows, and whether there are more.
pub(super) fn page<T>(
    rows: impl Iterator<Item = Result<(QueueId, T), StoreError>>,
    limit: usize,
) -> Result<Listing<T>, StoreError> {
    let mut rows = rows.peekable();
    let page: Vec<_> = rows.by_ref().take(limit).collect::<Result<_, _>>()?;
    let more = rows.peek().is_some();
    let next = page.last().filter(|_| more).map(|(id, _)| *id);
    Ok(Listing { rows: page, next })
}
