//! The two databases and how they are written: `spool.redb` (queue and quarantine, durable) and `facts.redb`
//! (the rest, relaxed), each with one writer thread.
//!
//! Everything that outlives the process goes through here. Opening is here, too, because both files are
//! created, locked, checked and complained about in the same way. What the rows mean is left to `spool`,
//! `queue`, `quarantine` and `trace`.

pub mod body;
pub mod facts;
mod reopening;
mod files;
#[cfg(test)]
pub(crate) mod golden;
pub mod inspect;
pub mod intake;
#[cfg(test)]
pub(crate) mod lossy;
pub mod record;
pub mod recover;
pub mod rows;
pub mod schema;
pub mod spool_db;
pub mod stock;
pub mod view;
pub mod writer;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend};

use schema::Format;

/// Why a database can't be used. Every text names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error(
        "{path}: {source}: the file and its directory must belong to the configured `user` and have room"
    )]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{path}: in use by another process: is another mailguard running with this state_dir?")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// It isn't what we wrote.
    #[error(
        "{path}: damaged ({cause}): stop mailguard, keep a copy of this file, restore it from a backup or move it \
         away; without it mailguard starts empty, what it held is in the copy, and the large messages' bodies are kept in \
         bodies/lost beside it until the database is back"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A later version of mailguard wrote it.
    #[error(
        "{path}: a newer mailguard wrote it: its stored format is version {found}, and this one (mailguard {}) reads versions up to \
         {expected}: install the version that wrote it, or a newer one; nothing in the file was changed",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// What the file says.
        found: u64,
        /// What we write.
        expected: u64,
    },
    /// Whole, and not as this version has it.
    #[error(
        "{path}: another version of mailguard wrote it ({cause}): install the version that wrote it, or a newer one; no row in it was \
         changed"
    )]
    OtherVersion {
        /// Which file.
        path: PathBuf,
        /// What differs.
        cause: String,
    },
}

impl OpenError {
    /// An error of the operating system about `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn damaged(path: &Path, cause: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), cause: cause.into() }
    }

    /// What redb says of the file at `path`.
    pub fn redb(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(source)
                if !matches!(
                    source.kind(),
                    std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::io(path, source)
            }
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path: path.to_owned() },
            other if is_of_another_version(&other) => {
                Self::OtherVersion { path: path.to_owned(), cause: other.to_string() }
            }
            other => Self::damaged(path, other.to_string()),
        }
    }
}

/// Whether redb found everything in order, but not as we have it: a table of other types, a file as another redb writes it.
fn is_of_another_version(error: &redb::Error) -> bool {
    match error {
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::LockProtocolMismatch => true,
        // Newer than ours; there is no word of its own for it.
        redb::Error::Corrupted(cause) => cause.starts_with("Expected file format version"),
        _ => false,
    }
}

/// Creates `path`, and what leads to it, for our eyes only, and makes the new entry durable.
pub fn create_directory(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| OpenError::io(path, e))?;
    if let Some(parent) = path.parent() {
        sync_directory(parent).map_err(|e| OpenError::io(parent, e))?;
    }
    Ok(())
}

/// Makes the names in a directory durable: a file's own `fsync` doesn't.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Runs `look` at a database on a thread that may block. The error is a cause for people; a file so damaged that redb
/// panics is one, too.
async fn read_blocking<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(look).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("redb panicked: the file is damaged".to_owned()),
    }
}

/// Opens or creates the database file at `path`, for our eyes only, and brings it up to our version.
pub(crate) fn open_file(path: &Path, format: Format, cache_octets: usize) -> Result<Database, OpenError> {
    let io = |e| OpenError::io(path, e);
    let fresh = !fs::exists(path).map_err(io)?;
    if !fresh {
        format.refuse_newer(path)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let backend = FileBackend::new(file).map_err(|e| OpenError::redb(path, e))?;
    let database = open_backend(path, backend, format, cache_octets)?;
    if fresh && let Some(parent) = path.parent() {
        sync_directory(parent).map_err(|e| OpenError::io(parent, e))?;
    }
    Ok(database)
}

/// Opens or creates a database on `backend` and brings it up to our version; `path` is for messages only.
pub(crate) fn open_backend(
    path: &Path,
    backend: impl StorageBackend,
    format: Format,
    cache_octets: usize,
) -> Result<Database, OpenError> {
    let name = path.display().to_string();
    let mut builder = Builder::new();
    builder.set_cache_size(cache_octets).set_repair_callback(move |session| {
        tracing::warn!(store = name, progress = session.progress(), "checking after an unclean end");
    });
    // redb panics on some damaged files; an administrator needs the file's name instead.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = builder.create_with_backend(backend).map_err(|e| OpenError::redb(path, e))?;
        format.bring_up(path, &database)?;
        Ok(database)
    }));
    opened.unwrap_or_else(|_| Err(OpenError::damaged(path, "redb can't read it")))
}
