//! What can go wrong with the store, by kind. redb's own errors end here: no other room sees one.
//!
//! [`StoreError`] is what a look into a database, or a change of it, comes to; opening, reading and writing
//! say it with the file's name and what to do, as [`OpenError`], [`ReadError`] and [`WriteError`].

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailguard_core::mail::QueueId;
use serde::de::IgnoredAny;

/// What is said of a file on which redb panics.
const PANICKED: &str = "redb panicked: the file is damaged";

/// What a look into a database, or a change of it, can come to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or the operating system.
    #[error("I/O error: {0}")]
    Io(#[source] io::Error),
    /// Another process has the file.
    #[error("in use by another process")]
    InUse,
    /// It isn't what we wrote.
    #[error("{0}")]
    Damaged(String),
    /// A page of it isn't what redb wrote; what stands elsewhere can be read.
    #[error("{0}")]
    Corrupted(String),
    /// It is whole, and not as this version has it.
    #[error("{0}")]
    OtherVersion(String),
    /// One row can't be read or written; the others can.
    #[error("row {key}: {why}")]
    Row {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: UnreadableRow,
    },
    /// The database is out of use: after an earlier failure, or since it was closed.
    #[error("{0}")]
    OutOfUse(String),
}

impl StoreError {
    /// That redb panicked, as it does on some damaged files.
    pub(super) fn panicked() -> Self {
        Self::Damaged(PANICKED.to_owned())
    }

    /// That the row of `key` can't be used.
    pub(super) fn row(key: impl Display, why: UnreadableRow) -> Self {
        Self::Row { key: key.to_string(), why }
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        use redb::Error as Redb;
        let error = error.into();
        let text = error.to_string();
        match error {
            Redb::Io(source) if is_of_the_content(&source) => Self::Damaged(text),
            Redb::Io(source) => Self::Io(source),
            Redb::DatabaseAlreadyOpen => Self::InUse,
            Redb::PreviousIo | Redb::DatabaseClosed | Redb::LockPoisoned(_) | Redb::TransactionPoisoned => {
                Self::OutOfUse(text)
            }
            other if is_of_another_version(&other) => Self::OtherVersion(text),
            Redb::Corrupted(_) => Self::Corrupted(text),
            _ => Self::Damaged(text),
        }
    }
}

/// Whether it is what the file holds, and not the disk, that an error is about.
fn is_of_the_content(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// Whether redb found everything in order, but not as we have it: a table of other types, a file as another
/// redb writes it.
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
        source: io::Error,
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
    pub fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, cause: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), cause: cause.into() }
    }

    /// What was found at the file `path`.
    pub(super) fn of(path: &Path, error: impl Into<StoreError>) -> Self {
        let path_buf = path.to_owned();
        match error.into() {
            StoreError::Io(source) => Self::io(path, source),
            StoreError::InUse => Self::InUse { path: path_buf },
            StoreError::OtherVersion(cause) => Self::OtherVersion { path: path_buf, cause },
            other @ (StoreError::Damaged(_)
            | StoreError::Corrupted(_)
            | StoreError::Row { .. }
            | StoreError::OutOfUse(_)) => Self::damaged(path, other.to_string()),
        }
    }
}

/// Why the store can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database.
    #[error("{path}: reading failed ({source})")]
    Store {
        /// Which file.
        path: PathBuf,
        /// What was found.
        source: StoreError,
    },
    /// The disk, about a body file.
    #[error("{id}: its body can't be read: {source}")]
    Body {
        /// Which message.
        id: QueueId,
        /// What was said.
        source: io::Error,
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

/// Why a job wasn't done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A write or `fsync` failed, now or earlier.
    #[error("{0}")]
    Failed(Arc<str>),
    /// It can't be stored as a row.
    #[error("{0}")]
    Unwritable(String),
    /// The writer was closed: we are shutting down.
    #[error("the store is closed")]
    Closed,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Unwritable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one row is put aside for must not come of a disk that reads short, which hits whatever is read
    /// then.
    #[test]
    fn a_page_that_is_not_redbs_is_told_from_a_file_that_reads_short() {
        let of = |error: redb::Error| StoreError::from(error);
        let short = || io::Error::from(ErrorKind::UnexpectedEof);
        assert!(matches!(of(redb::Error::Corrupted("a page".to_owned())), StoreError::Corrupted(_)));
        assert!(matches!(of(redb::Error::Io(short())), StoreError::Damaged(_)));
        assert!(matches!(of(redb::Error::Io(io::Error::other("EIO"))), StoreError::Io(_)));
        let newer = "Expected file format version 3, and found 4".to_owned();
        assert!(matches!(of(redb::Error::Corrupted(newer)), StoreError::OtherVersion(_)));
    }
}
