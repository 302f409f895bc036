//! Destinations at which no attempts are made, as [`mailguard_core::destination`] writes them ▶ 0.

use redb::ReadableTable;

use super::Writing;
use crate::store::error::StoreError;
use crate::store::table::StoredTable;

/// The table.
pub(super) struct Paused;

impl StoredTable for Paused {
    const NAME: &'static str = "paused";
    type Key = &'static str;
    type Value = u64;
}

/// All of them.
pub(super) fn all(table: &impl ReadableTable<&'static str, u64>) -> Result<Vec<String>, StoreError> {
    table.iter()?.map(|row| Ok(row?.0.value().to_owned())).collect()
}

impl Writing<'_> {
    pub(super) fn pause(&mut self, destination: &str) -> Result<(), StoreError> {
        self.paused.insert(destination, 0)?;
        Ok(())
    }

    /// Whether it was paused.
    pub(super) fn resume(&mut self, destination: &str) -> Result<bool, StoreError> {
        Ok(self.paused.remove(destination)?.is_some())
    }
}
