//! How much room the disk has, asked seldom enough to cost nothing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

/// How old the last answer may be. What sessions can write meanwhile is far below any sensible min_free_disk.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// The free room of one file system.
#[derive(Debug)]
pub(super) struct FreeDisk {
    path: PathBuf,
    last: Mutex<Option<(Instant, u64)>>,
}

impl FreeDisk {
    /// Of the file system that holds `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), last: Mutex::new(None) }
    }

    /// Octets that an unprivileged user may still write; none when that can't be found out, for what we can't
    /// decide is a 4yz.
    pub(super) fn octets(&self) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, octets)) if at.elapsed() < REFRESH_EVERY => octets,
            _ => {
                let octets = self.ask();
                *last = Some((Instant::now(), octets));
                octets
            }
        }
    }

    fn ask(&self) -> u64 {
        match statvfs(&self.path) {
            Ok(found) => found.blocks_available().saturating_mul(found.fragment_size()),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "can't find out how much room the disk has");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_cannot_be_asked_has_no_room() {
        let directory = tempfile::tempdir().unwrap();
        assert!(FreeDisk::of(directory.path()).octets() > 0);
        assert_eq!(FreeDisk::of(&directory.path().join("absent")).octets(), 0);
    }
}
