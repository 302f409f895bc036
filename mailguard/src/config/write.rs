//! Puts an edited configuration in the place of the file: all of it or nothing, whatever happens in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

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

/// Replaces the file that `loaded` came from by `edited`, keeping owner and mode; on disk when it returns. Refused
/// if the file isn't the one that was loaded.
pub fn write(loaded: &Source, edited: &Source) -> Result<(), WriteError> {
    let failed = |cause| WriteError::Io { path: loaded.path.clone(), cause };
    // A link stays one: what it leads to is replaced.
    let target = loaded.path.canonicalize().map_err(failed)?;
    unchanged(&target, loaded)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let fresh = target.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let result = write_fresh(&target, &fresh, &edited.text).map_err(failed).and_then(|()| {
        unchanged(&target, loaded)?;
        fs::rename(&fresh, &target).map_err(failed)
    });
    if result.is_err() {
        // It may not even have been made.
        let _ = fs::remove_file(&fresh);
        return result;
    }
    let folder = target.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn unchanged(target: &Path, loaded: &Source) -> Result<(), WriteError> {
    match read_text(target) {
        Ok(text) if text == loaded.text => Ok(()),
        Ok(_) => Err(WriteError::Changed(loaded.path.clone())),
        Err(cause) => Err(WriteError::Read { path: loaded.path.clone(), cause }),
    }
}

/// The new text, on disk, with the owner and the mode of the old file.
fn write_fresh(old: &Path, fresh: &Path, text: &str) -> io::Result<()> {
    let metadata = fs::metadata(old)?;
    match fs::remove_file(fresh) {
        // Left by a process of the same number that died here.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Nobody may open it before it has the old one's mode: it may hold a password.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(text.as_bytes())?;
    fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
    file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    file.sync_all()
}
