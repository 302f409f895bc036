//! Replaces a file by another one: all of it or nothing, whatever happens in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use tracing::{info, warn};

/// What will take the place of a file: on disk, beside it. Removed where it doesn't.
pub(super) struct Fresh {
    path: PathBuf,
    target: PathBuf,
    /// Not stale as long as its lock is held.
    file: Flock<File>,
}

impl Fresh {
    /// Writes `octets` beside `target`. Nobody but its owner may open it before `finish` has given it its own
    /// owner and mode: it may hold a password.
    pub(super) fn write(
        target: &Path,
        octets: &[u8],
        finish: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Self> {
        remove_stale(target);
        let path = fresh_name(target, std::process::id());
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let unlocked = |(_, error)| {
            let _ = fs::remove_file(&path);
            error
        };
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(unlocked)?;
        let mut fresh = Self { path, target: target.to_owned(), file };
        fresh.file.write_all(octets)?;
        finish(&fresh.file)?;
        fresh.file.sync_all()?;
        Ok(fresh)
    }

    /// Puts it in its place; there for good when this returns.
    pub(super) fn put(self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        let folder = self.target.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // It has its place by now, or nobody wants it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where a process of this number writes what is to take the place of `target`.
fn fresh_name(target: &Path, process: u32) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{process}.new"))
}

/// Removes what edits of the file left that were killed half-way: it may hold a password, and nobody looks
/// for it.
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
