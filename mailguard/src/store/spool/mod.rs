//! `spool.redb`: opening, recovery, writing and reading. Queue and quarantine in one database, so that one
//! transaction spans them.
//!
//! The layout of the spool directory, all of it for our user only: `spool.redb`, and `bodies/` with one file
//! for each body over [`SPILL_OCTETS`](super::body::SPILL_OCTETS). A file a table: its rows as values, how
//! they are found and changed; changes that span tables are in `ops`. What the rows mean to mail is left to
//! the rooms `spool`, `queue` and `quarantine`.

mod bodies;
mod by_id;
mod damaged;
pub mod inspect;
mod intake;
mod messages;
mod ops;
mod paused;
mod quarantine;
#[cfg(test)]
pub(crate) mod raw;
mod recover;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
use redb::StorageBackend;
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};

pub use self::bodies::StoredBody;
pub use self::by_id::Listing;
pub use self::damaged::{DamagedRecord, DamagedTable};
pub(crate) use self::intake::Budget;
pub use self::intake::{CachedMessage, Committed, Intake};
pub use self::messages::{Ending, FoundMessage, MessageRecord, Queued, RecipientState, first_states};
pub use self::ops::{Accept, RecordAttempt, Release, SpoolOp, SpoolOpResult};
pub use self::quarantine::{QuarantineRecord, QuarantinedRecipient, Reason};
pub use self::recover::Recovered;

use super::body::BodyDirectory;
use super::error::{OpenError, ReadError, StoreError, WriteError};
use super::opening::{create_directory, open_file, read_blocking};
use super::schema::SPOOL;
use super::stock::{SharedStock, Stock};
use super::table::{StoredTable, tables};
use super::writer::Writer;
#[cfg(test)]
use super::{files::Files, opening::open_backend};
use ops::SpoolRows;
use recover::recover;

tables! {
    messages: messages::Messages,
    bodies: bodies::Bodies,
    quarantine: quarantine::Quarantine,
    damaged: damaged::Damaged,
    paused: paused::Paused,
}

/// Memory for redb's page cache, octets.
const CACHE_OCTETS: usize = 64 * 1024 * 1024;

/// The file's name in the spool directory.
pub(super) const FILE_NAME: &str = "spool.redb";

/// The body files' directory in the spool directory.
pub(super) const BODIES_NAME: &str = "bodies";

/// Every answer is waited for.
const LINGER: Duration = Duration::ZERO;

/// Octets of rows from which on a start after a kill would take too long without quick repair
/// (docs/adr/0001).
const QUICK_REPAIR_OCTETS: u64 = 256 * 1024 * 1024;

/// The database; clones are the same one.
#[derive(Debug, Clone)]
pub struct SpoolDb {
    database: Arc<Database>,
    writer: Writer<SpoolRows>,
    directory: BodyDirectory,
    path: Arc<PathBuf>,
    intake: Arc<Intake>,
    queued: SharedStock,
    quarantined: SharedStock,
}

impl SpoolDb {
    /// Opens or creates the spool in `directory` and recovers what an unclean end left.
    pub fn open(directory: &Path) -> Result<(Self, Recovered), OpenError> {
        create_directory(directory)?;
        create_directory(&directory.join(BODIES_NAME))?;
        let path = directory.join(FILE_NAME);
        let database = open_file(&path, SPOOL, CACHE_OCTETS)?;
        let bodies = BodyDirectory::new(directory.join(BODIES_NAME));
        Self::start(directory, database, bodies, QUICK_REPAIR_OCTETS)
    }

    /// As [`SpoolDb::open`], with the database on `backend` instead of its file, these body files, and quick
    /// repair from so many octets of rows on.
    #[cfg(test)]
    pub(crate) fn open_on(
        directory: &Path,
        backend: impl StorageBackend,
        files: impl Files + 'static,
        quick_repair_octets: u64,
    ) -> Result<(Self, Recovered), OpenError> {
        create_directory(&directory.join(BODIES_NAME))?;
        let database = open_backend(&directory.join(FILE_NAME), backend, SPOOL, CACHE_OCTETS)?;
        let bodies = BodyDirectory::on(directory.join(BODIES_NAME), files);
        Self::start(directory, database, bodies, quick_repair_octets)
    }

    fn start(
        directory: &Path,
        database: Database,
        bodies: BodyDirectory,
        quick_repair_octets: u64,
    ) -> Result<(Self, Recovered), OpenError> {
        let path = directory.join(FILE_NAME);
        let recovered = recover(&path, &database, &bodies)?;
        let database = Arc::new(database);
        let intake = Arc::new(Intake::default());
        let queued = SharedStock::new(recovered.queue_stock);
        let quarantined = SharedStock::new(recovered.quarantine_stock);
        let rows = SpoolRows::new(bodies.clone(), intake.clone(), queued.clone(), quarantined.clone())
            .with_weight(recovered.row_octets, quick_repair_octets);
        let name = path.display().to_string();
        let writer =
            Writer::start(&name, database.clone(), rows, LINGER).map_err(|e| OpenError::io(&path, e))?;
        let path = Arc::new(path);
        let db = Self { database, writer, directory: bodies, path, intake, queued, quarantined };
        Ok((db, recovered))
    }

    /// Does `job` and returns once it is on disk.
    pub async fn submit(&self, job: SpoolOp) -> Result<SpoolOpResult, WriteError> {
        let octets = job.octets();
        self.writer.submit(job, octets).await
    }

    /// Hands `job` in and doesn't wait: for what may be repeated after a crash.
    pub async fn post(&self, job: SpoolOp) -> Result<(), WriteError> {
        let octets = job.octets();
        self.writer.post(job, octets).await
    }

    /// Why nothing is stored any more, if that is so.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.writer.failure()
    }

    /// Writes what is queued and takes nothing more.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// What has just become durable, for the queue.
    pub fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Where body files are.
    pub fn bodies(&self) -> &BodyDirectory {
        &self.directory
    }

    /// How much waits.
    pub fn queue_stock(&self) -> Stock {
        self.queued.get()
    }

    /// How much is quarantined.
    pub fn quarantine_stock(&self) -> Stock {
        self.quarantined.get()
    }

    /// The database's file.
    fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `look` on one consistent view of the tables, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&SpoolSnapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let database = self.database.clone();
        read_blocking(self.path.to_path_buf(), move || look(&SpoolSnapshot::of(&database)?)).await
    }
}

/// One consistent view of all tables, beside whatever is being written.
struct SpoolSnapshot(ReadTransaction);

impl SpoolSnapshot {
    fn of(database: &Database) -> Result<Self, StoreError> {
        Ok(Self(database.begin_read()?))
    }

    fn open<T: StoredTable>(&self) -> Result<ReadOnlyTable<T::Key, T::Value>, StoreError> {
        T::open(&self.0)
    }
}
