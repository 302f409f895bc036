//! `spool.redb`: opening, recovery, writing and reading. Queue and quarantine in one database, so that one
//! transaction spans them.
//!
//! The layout of the spool directory, all of it for our user only: `spool.redb`, and `bodies/` with one file
//! for each body over [`SPILL_OCTETS`](super::body::SPILL_OCTETS). What the rows mean to mail is left to
//! `spool`, `queue` and `quarantine`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mailguard_core::mail::QueueId;
use redb::Database;
#[cfg(test)]
use redb::StorageBackend;

use super::body::{Body, BodyDirectory};
use super::intake::Intake;
use super::record::{MessageRecord, QuarantineRecord, StoredBody};
use super::recover::{Recovered, recover};
use super::rows::{SpoolOp, SpoolOpResult, SpoolRows};
use super::schema::SPOOL;
use super::stock::{SharedStock, Stock};
use super::view::SpoolSnapshot;
use super::writer::{WriteError, Writer};
use super::{OpenError, create_directory, open_file, read_blocking};
#[cfg(test)]
use super::{files::Files, open_backend};

/// Memory for redb's page cache, octets.
pub(super) const CACHE_OCTETS: usize = 64 * 1024 * 1024;

/// The file's name in the spool directory.
pub(super) const FILE_NAME: &str = "spool.redb";

/// The body files' directory in the spool directory.
pub(super) const BODIES_NAME: &str = "bodies";

/// Every answer is waited for.
const LINGER: Duration = Duration::ZERO;

/// Octets of rows from which on a start after a kill would take too long without quick repair (docs/adr/0001).
const QUICK_REPAIR_OCTETS: u64 = 256 * 1024 * 1024;

/// What a job's rows hold in memory beside its body, octets, roughly.
const ROW_OCTETS: usize = 1024;

/// Why the store can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// redb or the disk.
    #[error("{path}: reading failed ({cause})")]
    Store {
        /// Which file.
        path: PathBuf,
        /// What was said.
        cause: String,
    },
    /// The disk, about a body file.
    #[error("{id}: its body can't be read: {source}")]
    Body {
        /// Which message.
        id: QueueId,
        /// What was said.
        source: std::io::Error,
    },
    /// The row is there and its body isn't.
    #[error("{id}: its body is missing from {path}: restore it from a backup or remove the message")]
    BodyMissing {
        /// Which message.
        id: QueueId,
        /// Where the body should be.
        path: PathBuf,
    },
}

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

    /// Runs `look` on one consistent view of the tables, on a thread that may block.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&SpoolSnapshot) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, ReadError> {
        let database = self.database.clone();
        read_blocking(move || SpoolSnapshot::of(&database).and_then(|view| look(&view)))
            .await
            .map_err(|cause| ReadError::Store { path: self.path.to_path_buf(), cause })
    }

    /// The record of a message that waits.
    pub async fn message(&self, id: QueueId) -> Result<Option<MessageRecord>, ReadError> {
        self.read(move |view| view.message(id)).await
    }

    /// A quarantine entry.
    pub async fn quarantined(&self, id: QueueId) -> Result<Option<QuarantineRecord>, ReadError> {
        self.read(move |view| view.quarantined(id)).await
    }

    /// The octets of a message.
    pub async fn body(&self, id: QueueId, stored: StoredBody) -> Result<Body, ReadError> {
        match stored {
            StoredBody::Row { .. } => {
                let row = self.read(move |view| view.body(id)).await?;
                let missing = || ReadError::BodyMissing { id, path: self.path.to_path_buf() };
                row.map(Body::Memory).ok_or_else(missing)
            }
            StoredBody::File { number, octets } => {
                let path = self.directory.path_of(number);
                match tokio::fs::metadata(&path).await {
                    Ok(found) if found.len() == octets => Ok(self.directory.stored(number, octets)),
                    _ => Err(ReadError::BodyMissing { id, path }),
                }
            }
        }
    }
}

impl SpoolOp {
    /// What it holds in memory, roughly.
    fn octets(&self) -> usize {
        let body = |accept: &super::rows::Accept| match &accept.body {
            Body::Memory(octets) => octets.len(),
            Body::File(_) => 0,
        };
        ROW_OCTETS
            + match self {
                SpoolOp::Accept(accept) => body(accept),
                SpoolOp::Record(record) => record.notices.iter().map(body).sum(),
                _ => 0,
            }
    }
}
