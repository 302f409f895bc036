//! Puts an edited configuration in the place of the file: all of it or nothing, whatever happens in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use tracing::{info, warn};

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
    remove_stale(&target);
    let fresh = fresh_name(&target, std::process::id());
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

/// Where a process of this number writes what is to take the place of `target`.
fn fresh_name(target: &Path, process: u32) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{process}.new"))
}

/// Removes what edits of the file left that were killed half-way: it may hold a password, and nobody looks for it.
pub fn sweep(path: &Path) {
    if let Ok(target) = path.canonicalize() {
        remove_stale(&target);
    }
}

fn remove_stale(target: &Path) {
    let Some(entries) = target.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if !is_fresh(&path, target) || is_being_written(&path) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => {
                info!(path = %path.display(), "what a killed edit of the configuration left is removed")
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "what a killed edit left can't be removed: remove it")
            }
        }
    }
}

/// Whether the name is one that a process would write to before it replaces `target`.
fn is_fresh(path: &Path, target: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = name.strip_suffix(".new").and_then(|name| name.rsplit('.').next()?.parse().ok());
    process.is_some_and(|process: u32| path == fresh_name(target, process))
}

/// Whether a process writes the file now: it holds its lock. What isn't a plain file is somebody else's.
fn is_being_written(path: &Path) -> bool {
    let flags = O_NOFOLLOW | O_NONBLOCK;
    let Ok(file) = File::options().read(true).custom_flags(flags).open(path) else { return true };
    let is_file = file.metadata().is_ok_and(|facts| facts.is_file());
    !is_file || Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
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
    // Nobody may open it before it has the old one's mode: it may hold a password.
    let file = File::options().write(true).create_new(true).mode(0o600).open(fresh)?;
    // Not stale as long as this process lives.
    let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
    file.write_all(text.as_bytes())?;
    fchown(&*file, Some(metadata.uid()), Some(metadata.gid()))?;
    file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    file.sync_all()
}
