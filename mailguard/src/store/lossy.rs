//! A disk for tests that forgets what was never synced, fails on demand, and can be made to lie.
//!
//! `kill -9` doesn't show a missing `fsync`, the page cache survives it; this does. It stands below redb, in
//! place of the file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::files::{Disk, Files, NewFile};

/// The errors that a failing disk gives: no space left, input/output error.
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EIO: i32 = 5;

/// A disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct LossyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What reads see: the page cache.
    current: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
    /// Writes, length changes and syncs so far.
    operations: u64,
    /// The operation that fails, and with which error; later ones succeed again.
    fail_at: Option<(u64, i32)>,
    /// The write that fails is half done.
    half_way: bool,
    /// Reports syncs that it doesn't make.
    lies: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl LossyDisk {
    /// A disk for one opening; the disk itself stays with us.
    pub(crate) fn backend(&self) -> Self {
        self.clone()
    }

    /// From now on syncs are reported and not made.
    pub(crate) fn lie(&self) {
        self.lock().lies = true;
    }

    /// Makes one operation fail: the `operation`th from now on, counted from 1.
    pub(crate) fn fail_in(&self, operation: u64, errno: i32) {
        let mut state = self.lock();
        state.fail_at = Some((state.operations + operation, errno));
    }

    /// As [`LossyDisk::fail_in`]; if it is a write, half of it is done.
    pub(crate) fn fail_half_way_in(&self, operation: u64, errno: i32) {
        self.fail_in(operation, errno);
        self.lock().half_way = true;
    }

    /// Writes, length changes and syncs so far.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The disk as a power cut now would leave it: what was synced, and of the rest what `survives` says of
    /// each change in turn. (A disk may write out what it likes before it is asked to.)
    pub(crate) fn after_power_cut(&self, mut survives: impl FnMut() -> bool) -> Self {
        let state = self.lock();
        let mut left = state.durable.clone();
        for change in &state.unsynced {
            if survives() {
                change.apply(&mut left);
            }
        }
        Self(Arc::new(Mutex::new(State { current: left.clone(), durable: left, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn operate(&self, change: Option<Change>) -> io::Result<()> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.operations += 1;
        if let Some((at, errno)) = state.fail_at
            && state.operations == at
        {
            if let Some(Change::Write(offset, mut data)) = change.filter(|_| state.half_way) {
                data.truncate(data.len() / 2);
                let half = Change::Write(offset, data);
                half.apply(&mut state.current);
                state.unsynced.push(half);
            }
            return Err(io::Error::from_raw_os_error(errno));
        }
        match change {
            Some(change) => {
                change.apply(&mut state.current);
                state.unsynced.push(change);
            }
            None if state.lies => {}
            None => {
                for change in state.unsynced.drain(..) {
                    change.apply(&mut state.durable);
                }
            }
        }
        Ok(())
    }
}

impl Change {
    fn apply(&self, disk: &mut Vec<u8>) {
        match self {
            Change::Length(length) => disk.resize(*length as usize, 0),
            Change::Write(offset, data) => {
                let start = *offset as usize;
                if disk.len() < start + data.len() {
                    disk.resize(start + data.len(), 0);
                }
                disk[start..start + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl StorageBackend for LossyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let start = offset as usize;
        let data = state.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(Some(Change::Length(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Some(Change::Write(offset, data.to_vec())))
    }
}

/// Body files on a disk of that kind; clones are the same one. A power cut removes what isn't durable,
/// content and name, from the real directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct LossyFiles(Arc<Mutex<FilesState>>);

#[derive(Debug, Default)]
struct FilesState {
    files: BTreeMap<PathBuf, Kept>,
    operations: u64,
    fail_at: Option<(u64, i32)>,
    off: bool,
}

#[derive(Debug, Default)]
struct Kept {
    content: bool,
    name: bool,
}

impl LossyFiles {
    /// Makes one operation fail: the `operation`th from now on, counted from 1.
    pub(crate) fn fail_in(&self, operation: u64, errno: i32) {
        let mut state = self.0.lock().unwrap();
        state.fail_at = Some((state.operations + operation, errno));
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    /// Nothing can be done to the files from now on.
    pub(crate) fn switch_off(&self) {
        self.0.lock().unwrap().off = true;
    }

    /// Removes every file that a power cut now would not leave whole.
    pub(crate) fn cut_power(&self) {
        for (path, kept) in &self.0.lock().unwrap().files {
            if !(kept.content && kept.name) {
                // It may have been removed in the ordinary way.
                let _ = fs::remove_file(path);
            }
        }
    }

    fn operate(&self) -> io::Result<MutexGuard<'_, FilesState>> {
        let mut state = self.0.lock().unwrap();
        state.operations += 1;
        match state.fail_at {
            Some((at, errno)) if state.operations == at => Err(io::Error::from_raw_os_error(errno)),
            _ if state.off => Err(io::Error::from_raw_os_error(EIO)),
            _ => Ok(state),
        }
    }
}

impl Files for LossyFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.operate()?;
        let file = Disk.create(path)?;
        state.files.insert(path.to_owned(), Kept::default());
        Ok(Box::new(LossyFile { file, path: path.to_owned(), files: self.clone() }))
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.operate()?.files.values_mut().for_each(|kept| kept.name = true);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operate()?;
        Disk.rename(from, to)?;
        let kept = state.files.remove(from).unwrap_or_default();
        state.files.insert(to.to_owned(), Kept { name: false, ..kept });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.0.lock().unwrap().off {
            true => Err(io::Error::from_raw_os_error(EIO)),
            false => Disk.remove(path),
        }
    }
}

#[derive(Debug)]
struct LossyFile {
    file: Box<dyn NewFile>,
    path: PathBuf,
    files: LossyFiles,
}

impl NewFile for LossyFile {
    fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        self.files.operate()?.files.entry(self.path.clone()).or_default().content = false;
        self.file.write_all(octets)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.operate()?.files.entry(self.path.clone()).or_default().content = true;
        Ok(())
    }
}
