//! How both databases are opened: created for our user only, locked, brought up to our version, and
//! complained about in one way.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend};

use super::error::{OpenError, ReadError, StoreError};
use super::schema::Format;

/// Creates `path`, and what leads to it, for our eyes only, and makes the new entry durable.
pub(super) fn create_directory(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| OpenError::io(path, e))?;
    if let Some(parent) = path.parent() {
        sync_directory(parent).map_err(|e| OpenError::io(parent, e))?;
    }
    Ok(())
}

/// Makes the names in a directory durable: a file's own `fsync` doesn't.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Looks at the database of `path`, which redb may find so damaged that it panics: an administrator needs the
/// file's name instead.
pub(super) fn guarded<T>(path: &Path, look: impl FnOnce() -> Result<T, StoreError>) -> Result<T, OpenError> {
    let outcome = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| Err(StoreError::panicked()));
    outcome.map_err(|error| OpenError::of(path, error))
}

/// The same on a thread that may block.
pub(super) async fn read_blocking<T: Send + 'static>(
    path: PathBuf,
    look: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ReadError> {
    let outcome = tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| Err(StoreError::panicked()));
    outcome.map_err(|source| ReadError::Store { path, source })
}

/// Opens or creates the database file at `path`, for our eyes only, and brings it up to our version.
pub(super) fn open_file(path: &Path, format: Format, cache_octets: usize) -> Result<Database, OpenError> {
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
    let backend = FileBackend::new(file).map_err(|e| OpenError::of(path, e))?;
    let database = open_backend(path, backend, format, cache_octets)?;
    if fresh && let Some(parent) = path.parent() {
        sync_directory(parent).map_err(|e| OpenError::io(parent, e))?;
    }
    Ok(database)
}

/// Opens or creates a database on `backend` and brings it up to our version; `path` is for messages only.
pub(super) fn open_backend(
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
        let database = builder.create_with_backend(backend).map_err(|e| OpenError::of(path, e))?;
        format.bring_up(path, &database)?;
        Ok(database)
    }));
    opened.unwrap_or_else(|_| Err(OpenError::damaged(path, "redb can't read it")))
}
