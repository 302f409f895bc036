//! The version of the stored format, and the way to ours from an older one (docs/adr/0025).
//!
//! Each database says in a table of its own which version it has. One of our version is used; an older one is brought up by the
//! steps that it lacks, in one transaction; a newer one is refused and stays as it is. What stands in the rows of this version is
//! left to `record`, `trace` and whoever else has rows; golden files pin it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, ReadOnlyDatabase, ReadableDatabase, TableDefinition, TableError, WriteTransaction};
use serde::de::IgnoredAny;

use super::OpenError;

/// Where each database keeps its version, under [`VERSION_KEY`].
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The key of the version.
const VERSION_KEY: &str = "schema";

/// The version before all steps.
const FIRST: u64 = 1;

/// Makes of the rows of one version those of the next.
pub(crate) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// How the rows of a database came to be what they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// From [`FIRST`] on, one a version: whoever adds one has a new version. None is ever removed.
    steps: &'static [Step],
}

/// `spool.redb`.
pub(super) const SPOOL: Format = Format { steps: &[] };

/// `facts.redb`.
pub(super) const FACTS: Format = Format { steps: &[] };

/// What a database says of its version.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing: it is new.
    New,
    /// This.
    Version(u64),
    /// Nothing, though there is something in it.
    Unsaid,
}

impl Format {
    /// The version that we read and write.
    pub(super) const fn version(self) -> u64 {
        FIRST + self.steps.len() as u64
    }

    /// Refuses the file of a newer version before it is opened for writing, so that it stays as it is, octet by octet. What else
    /// is wrong with a file, and one after an unclean end, is left to the opening.
    pub(super) fn refuse_newer(self, path: &Path) -> Result<(), OpenError> {
        let read = || -> Result<Found, redb::Error> { version_of(&ReadOnlyDatabase::open(path)?) };
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(Found::Version(found))) if found > self.version() => Err(self.newer(path, found)),
            _ => Ok(()),
        }
    }

    /// Makes an open database one of our version, or refuses it; `path` is for messages only.
    pub(super) fn bring_up(self, path: &Path, database: &Database) -> Result<(), OpenError> {
        let failed = |e| OpenError::redb(path, e);
        let ours = self.version();
        match version_of(database).map_err(failed)? {
            Found::New => self.migrate(ours, database).map_err(failed),
            Found::Version(found) if found == ours => Ok(()),
            Found::Version(found) if found > ours => Err(self.newer(path, found)),
            Found::Version(found) if found >= FIRST => {
                let store = path.display();
                tracing::info!(%store, from = found, to = ours, "the stored format is brought up to this version's");
                self.migrate(found, database).map_err(failed)
            }
            Found::Version(_) | Found::Unsaid => {
                Err(OpenError::damaged(path, "it doesn't say which version of mailguard wrote it"))
            }
        }
    }

    /// Brings a database from version `from`, one of ours, to the present one: by all its steps, or, if one fails, by none.
    fn migrate(self, from: u64, database: &Database) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        for version in from..self.version() {
            self.steps[(version - FIRST) as usize](&transaction)?;
        }
        transaction.open_table(META)?.insert(VERSION_KEY, self.version())?;
        Ok(transaction.commit()?)
    }

    fn newer(self, path: &Path, found: u64) -> OpenError {
        OpenError::Newer { path: path.to_owned(), found, expected: self.version() }
    }
}

fn version_of(database: &impl ReadableDatabase) -> Result<Found, redb::Error> {
    let reading = database.begin_read()?;
    match reading.open_table(META) {
        Ok(meta) => Ok(meta.get(VERSION_KEY)?.map_or(Found::Unsaid, |row| Found::Version(row.value()))),
        Err(TableError::TableDoesNotExist(_)) if reading.list_tables()?.next().is_none() => Ok(Found::New),
        Err(TableError::TableDoesNotExist(_)) => Ok(Found::Unsaid),
        Err(error) => Err(error.into()),
    }
}

/// Why a row can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableRow {
    /// It is whole, and says something that we have no word for.
    #[error("another version of mailguard wrote it, and this one can't read it ({0})")]
    OtherVersion(String),
    /// It isn't what anybody wrote.
    #[error("it is damaged ({0})")]
    Damaged(String),
}

impl UnreadableRow {
    /// Why there was this `error` at `row`.
    pub fn of(row: &[u8], error: &serde_json::Error) -> Self {
        match serde_json::from_slice::<IgnoredAny>(row) {
            Ok(IgnoredAny) => Self::OtherVersion(error.to_string()),
            Err(damage) => Self::Damaged(damage.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
