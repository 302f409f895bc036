//! `facts.redb`: what we know and could do without, first of all the traces. Written in batches; a crash
//! costs the last fraction of a second.
//!
//! A file a table: its keys and values, its reads and its changes. Who needs a change to be on disk waits for
//! its commit. After a failed write the file is opened again by itself.

pub mod attempts;
pub mod bans;
pub mod greylist;
mod totals;
pub mod traces;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::error::{OpenError, ReadError, StoreError, WriteError};
use super::opening::{create_directory, open_file, read_blocking};
use super::reopening::Reopening;
use super::schema::FACTS;
use super::table::{StoredTable, tables};
use super::writer::{Rows, Writer};

/// Memory for redb's page cache, octets.
const CACHE_OCTETS: usize = 16 * 1024 * 1024;

/// The file's name in `state_dir`.
pub(super) const FILE_NAME: &str = "facts.redb";

/// Nobody waits for a trace: its commits linger, so that they take few of the `fsync`s that the spool needs.
const LINGER: Duration = Duration::from_millis(200);

tables! {
    traces: traces::Traces,
    attempts: attempts::Attempts,
    bans: bans::Bans,
    greylist: greylist::Greylist,
    totals: totals::Totals,
}

/// One change of the database, whole or not at all. Each table's file has its own.
trait Change: fmt::Debug + Send {
    /// What it holds in memory, octets, roughly.
    fn octets(&self) -> usize;

    /// Makes it, and says how many rows it removed.
    fn apply(self: Box<Self>, tables: &mut Writing<'_>) -> Result<usize, StoreError>;
}

/// The database; clones are the same one.
#[derive(Debug, Clone)]
pub struct FactsDb {
    open: Reopening<FactRows>,
    path: Arc<PathBuf>,
}

impl FactsDb {
    /// Opens or creates the file in `state_dir`.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        create_directory(state_dir)?;
        Self::start(state_dir.join(FILE_NAME), |path| open_file(path, FACTS, CACHE_OCTETS))
    }

    /// The same on what `backend` gives each time; the name is for messages.
    #[cfg(test)]
    pub(super) fn open_on<B: redb::StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let open = move |path: &Path| super::opening::open_backend(path, backend(), FACTS, CACHE_OCTETS);
        Self::start(PathBuf::from(FILE_NAME), open)
    }

    /// One that leaves nothing behind.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::open_on(redb::backends::InMemoryBackend::new).unwrap()
    }

    fn start(
        path: PathBuf,
        open: impl Fn(&Path) -> Result<Database, OpenError> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let path = Arc::new(path);
        let of = path.clone();
        let open = Reopening::start(move || {
            let database = Arc::new(open(&of)?);
            let name = of.display().to_string();
            let writer = Writer::start(&name, database.clone(), FactRows, LINGER);
            Ok((database, writer.map_err(|e| OpenError::io(&of, e))?))
        })?;
        Ok(Self { open, path })
    }

    /// Hands a change in; waits only while too much is waiting.
    async fn post(&self, change: impl Change + 'static) -> Result<(), WriteError> {
        let octets = change.octets();
        self.open.writer().post(Box::new(change), octets).await
    }

    /// Hands a change in and waits for its commit. Says how many rows it removed.
    async fn submit(&self, change: impl Change + 'static) -> Result<usize, WriteError> {
        let octets = change.octets();
        self.open.writer().submit(Box::new(change), octets).await
    }

    /// Waits until everything handed in before can be read.
    pub async fn flush(&self) -> Result<(), WriteError> {
        self.submit(Flush).await.map(drop)
    }

    /// Why nothing is stored now, if that is so.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.open.writer().failure()
    }

    /// Writes what is queued and takes nothing more.
    pub async fn close(&self) {
        self.open.close().await;
    }

    /// Runs `look` on one consistent view, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&FactsSnapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let path = self.path.to_path_buf();
        let Some(database) = self.open.database() else {
            let source = StoreError::OutOfUse("it waits to be opened again".to_owned());
            return Err(ReadError::Store { path, source });
        };
        read_blocking(path, move || look(&FactsSnapshot(database.begin_read()?))).await
    }
}

/// One consistent view of all tables.
struct FactsSnapshot(ReadTransaction);

impl FactsSnapshot {
    fn open<T: StoredTable>(&self) -> Result<ReadOnlyTable<T::Key, T::Value>, StoreError> {
        T::open(&self.0)
    }
}

/// What the writer does.
struct FactRows;

impl Rows for FactRows {
    type Job = Box<dyn Change>;
    type Answer = usize;

    fn apply(
        &mut self,
        transaction: &WriteTransaction,
        jobs: Vec<Box<dyn Change>>,
    ) -> Result<Vec<usize>, StoreError> {
        let mut tables = Writing::open(transaction)?;
        jobs.into_iter().map(|change| change.apply(&mut tables)).collect()
    }

    /// Few commits are what makes it cheap.
    fn quick_repair(&self) -> bool {
        true
    }

    fn committed(&mut self) {}

    const AFTER_A_FAILURE: &'static str =
        "nothing is stored until the file could be opened again, which is tried";
}

/// No change.
#[derive(Debug)]
struct Flush;

impl Change for Flush {
    fn octets(&self) -> usize {
        0
    }

    fn apply(self: Box<Self>, _: &mut Writing<'_>) -> Result<usize, StoreError> {
        Ok(0)
    }
}
