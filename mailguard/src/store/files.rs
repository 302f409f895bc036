//! The few things that are done to body files, so that tests can put a disk that fails and forgets in their
//! place.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::opening::sync_directory;

/// A file being written.
pub(crate) trait NewFile: Send + Sync + fmt::Debug {
    /// Appends.
    fn write_all(&mut self, octets: &[u8]) -> io::Result<()>;
    /// Makes the content durable; the name isn't yet.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file system.
pub(crate) trait Files: Send + Sync + fmt::Debug {
    /// A new file, for our eyes only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, on the same file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Debug)]
pub(crate) struct Disk;

impl Files for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

impl NewFile for File {
    fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        Write::write_all(self, octets)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
