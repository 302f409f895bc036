//! The version of the stored format, and the way to ours from an older one (docs/adr/0025).
//!
//! Each database says in a table of its own which version it has. One of our version is used; an older one is
//! brought up by the steps that it lacks, in one transaction; a newer one is refused and stays as it is. What
//! stands in the rows of this version is left to the files of the tables; golden files pin it. Tables that a
//! database lacks are made: each has a list of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, ReadOnlyDatabase, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

use super::error::{OpenError, StoreError};
use super::table::Listed;
use super::{facts, spool};

/// Where each database keeps its version, under [`VERSION_KEY`].
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The key of the version.
const VERSION_KEY: &str = "schema";

/// The version before all steps.
const FIRST: u64 = 1;

/// Makes of the rows of one version those of the next.
pub(super) type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// How the rows of a database came to be what they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    /// From [`FIRST`] on, one a version: whoever adds one has a new version. None is ever removed.
    steps: &'static [Step],
    /// What it consists of.
    tables: &'static [Listed],
}

/// `spool.redb`.
pub(super) const SPOOL: Format = Format { steps: &[], tables: spool::TABLES };

/// `facts.redb`.
pub(super) const FACTS: Format = Format { steps: &[], tables: facts::TABLES };

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

    /// Refuses the file of a newer version before it is opened for writing, so that it stays as it is, octet
    /// by octet. What else is wrong with a file, and one after an unclean end, is left to the opening.
    pub(super) fn refuse_newer(self, path: &Path) -> Result<(), OpenError> {
        let read = || -> Result<Found, StoreError> { version_of(&ReadOnlyDatabase::open(path)?) };
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(Found::Version(found))) if found > self.version() => Err(self.newer(path, found)),
            _ => Ok(()),
        }
    }

    /// Makes an open database one of our version, or refuses it; `path` is for messages only.
    pub(super) fn bring_up(self, path: &Path, database: &Database) -> Result<(), OpenError> {
        let failed = |e| OpenError::of(path, e);
        let ours = self.version();
        match version_of(database).map_err(failed)? {
            Found::New => self.migrate(ours, database).map_err(failed),
            Found::Version(found) if found == ours => self.complete(database).map_err(failed),
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

    /// Brings a database from version `from`, one of ours, to the present one: by all its steps, or, if one
    /// fails, by none.
    fn migrate(self, from: u64, database: &Database) -> Result<(), StoreError> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        for version in from..self.version() {
            self.steps[(version - FIRST) as usize](&transaction)?;
        }
        self.create_tables(&transaction)?;
        transaction.open_table(META)?.insert(VERSION_KEY, self.version())?;
        Ok(transaction.commit()?)
    }

    /// Makes the tables that a database of our version lacks.
    fn complete(self, database: &Database) -> Result<(), StoreError> {
        let reading = database.begin_read()?;
        let mut lacks = false;
        for table in self.tables {
            lacks |= !table.is_there(&reading)?;
        }
        if lacks {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            self.create_tables(&transaction)?;
            transaction.commit()?;
        }
        Ok(())
    }

    fn create_tables(self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        self.tables.iter().try_for_each(|table| table.create(transaction))
    }

    fn newer(self, path: &Path, found: u64) -> OpenError {
        OpenError::Newer { path: path.to_owned(), found, expected: self.version() }
    }
}

fn version_of(database: &impl ReadableDatabase) -> Result<Found, StoreError> {
    let reading = database.begin_read()?;
    match reading.open_table(META) {
        Ok(meta) => Ok(meta.get(VERSION_KEY)?.map_or(Found::Unsaid, |row| Found::Version(row.value()))),
        Err(TableError::TableDoesNotExist(_)) if reading.list_tables()?.next().is_none() => Ok(Found::New),
        Err(TableError::TableDoesNotExist(_)) => Ok(Found::Unsaid),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
