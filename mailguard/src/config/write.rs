//! Puts an edited configuration in the place of the file, unless somebody else has changed that meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::replace::Fresh;
use super::source::{ReadError, Source, read_text};

/// Why the file wasn't written. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody edited it since it was loaded.
    #[error("{} was changed since it was loaded: run `mailguard reload` first", .0.display())]
    Changed(PathBuf),
    /// It can't be read again for comparison.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: ReadError,
    },
    /// The new one can't be written next to it.
    #[error("{} can't be written: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Replaces the file that `loaded` came from by `edited`, keeping owner and mode; on disk when it returns.
/// Refused if the file isn't the one that was loaded.
pub fn write(loaded: &Source, edited: &Source) -> Result<(), WriteError> {
    let failed = |cause| WriteError::Io { path: loaded.path.clone(), cause };
    // A link stays one: what it leads to is replaced.
    let target = loaded.path.canonicalize().map_err(failed)?;
    unchanged(&target, loaded)?;
    let old = fs::metadata(&target).map_err(failed)?;
    let like_the_old = |file: &File| {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))
    };
    let fresh = Fresh::write(&target, edited.text.as_bytes(), like_the_old).map_err(failed)?;
    unchanged(&target, loaded)?;
    fresh.put().map_err(failed)
}

fn unchanged(target: &Path, loaded: &Source) -> Result<(), WriteError> {
    match read_text(target) {
        Ok(text) if text == loaded.text => Ok(()),
        Ok(_) => Err(WriteError::Changed(loaded.path.clone())),
        Err(cause) => Err(WriteError::Read { path: loaded.path.clone(), cause }),
    }
}
