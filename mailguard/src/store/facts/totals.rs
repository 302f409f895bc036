//! Running totals: name ▶ number. So far the octets of all traces and attempts, by which they are kept within
//! `trace.max_size`.

use redb::ReadableTable;

use super::{FactsDb, Writing};
use crate::store::error::{ReadError, StoreError};
use crate::store::table::StoredTable;

/// Octets of all traces and attempts.
const TRACE_OCTETS: &str = "trace-octets";

/// What a row takes in the file beside its value, octets, roughly.
pub(super) const ROW_OCTETS: u64 = 32;

/// The table.
pub(super) struct Totals;

impl StoredTable for Totals {
    const NAME: &'static str = "totals";
    type Key = &'static str;
    type Value = u64;
}

/// What a row of a trace or an attempt counts for.
pub(super) fn size(row: &[u8]) -> u64 {
    row.len() as u64 + ROW_OCTETS
}

fn trace_octets(totals: &impl ReadableTable<&'static str, u64>) -> Result<u64, StoreError> {
    Ok(totals.get(TRACE_OCTETS)?.map_or(0, |total| total.value()))
}

impl FactsDb {
    /// Octets of all traces and attempts.
    pub async fn trace_octets(&self) -> Result<u64, ReadError> {
        self.read(|view| trace_octets(&view.open::<Totals>()?)).await
    }
}

impl Writing<'_> {
    pub(super) fn trace_octets(&self) -> Result<u64, StoreError> {
        trace_octets(&self.totals)
    }

    /// So many more, and so many less, which were counted before.
    pub(super) fn change_trace_octets(&mut self, more: u64, less: u64) -> Result<(), StoreError> {
        let octets = self.trace_octets()?.saturating_add(more).saturating_sub(less);
        self.totals.insert(TRACE_OCTETS, octets)?;
        Ok(())
    }
}
