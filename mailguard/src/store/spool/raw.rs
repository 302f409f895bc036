//! For tests: rows of a closed `spool.redb` changed behind our back, as another version, a failing disk or a
//! hand may leave them.

use std::path::Path;

use mailguard_core::mail::QueueId;
use redb::Database;

use super::{FILE_NAME, Writing};

/// The tables, to be changed row by row.
pub(crate) struct Raw<'t>(Writing<'t>);

/// Changes the database in `directory`.
pub(crate) fn change(directory: &Path, change: impl FnOnce(&mut Raw<'_>)) {
    let database = Database::open(directory.join(FILE_NAME)).unwrap();
    let writing = database.begin_write().unwrap();
    change(&mut Raw(Writing::open(&writing).unwrap()));
    writing.commit().unwrap();
}

impl Raw<'_> {
    /// Takes the row of a message out.
    pub(crate) fn take_message(&mut self, id: QueueId) -> String {
        let row = self.0.messages.remove(id.0).unwrap().expect("there is such a message");
        String::from_utf8(row.value().to_vec()).unwrap()
    }

    /// Puts a row in, whatever it says.
    pub(crate) fn put_message(&mut self, id: QueueId, row: &str) {
        self.0.messages.insert(id.0, row.as_bytes()).unwrap();
    }

    /// Puts a row in among those that can't be used.
    pub(crate) fn put_damaged(&mut self, id: QueueId, table: u8, row: &[u8]) {
        self.0.damaged.insert((id.0, table), row).unwrap();
    }
}
