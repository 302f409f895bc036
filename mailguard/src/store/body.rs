//! A message's octets: in memory while they are few, in a file of their own above [`SPILL_OCTETS`].
//!
//! The session writes one with [`BodyWriter`], the scanner and the deliveries read it, the spool commits it.
//! A file is on disk, name and all, before the row that names it. It has a name of its own kind until then
//! ([`Body::settle`]): one that is found under such a name was never acknowledged, and goes at the next
//! start, or with its last [`Body`]. Any other file that no row names is kept, in a folder beside
//! (docs/adr/0017).

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_blocking;

use super::files::{Disk, Files, NewFile};
use super::stock::Stock;

/// The end of the name of a file that no row names yet.
const NEW: &str = ".new";

/// The folder, in that of the body files, of those that no row names.
const LOST: &str = "lost";

/// Longest body in octets that is kept in memory and in the database.
pub const SPILL_OCTETS: usize = 256 * 1024;

/// A body, cheap to clone.
#[derive(Debug, Clone)]
pub enum Body {
    /// At most [`SPILL_OCTETS`].
    Memory(Bytes),
    /// More than that.
    File(Arc<BodyFile>),
}

/// A body in a file.
#[derive(Debug)]
pub struct BodyFile {
    directory: BodyDirectory,
    number: u64,
    octets: u64,
    /// It has the name that rows use.
    settled: AtomicBool,
    /// A row names the file, or may: it isn't ours to remove.
    kept: AtomicBool,
}

impl BodyFile {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        match self.settled.load(Ordering::Acquire) {
            true => self.directory.path_of(self.number),
            false => self.directory.new_path_of(self.number),
        }
    }

    fn settle(&self) -> io::Result<()> {
        if self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let Place { path, files } = &*self.directory.0;
        files.rename(&self.path(), &self.directory.path_of(self.number))?;
        self.settled.store(true, Ordering::Release);
        files.sync_directory(path)
    }

    /// Its length in octets.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// What names it in the directory.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// From now on only the removal of its row removes it.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            self.directory.remove_file(&self.path());
        }
    }
}

impl Body {
    /// Its length in octets.
    pub fn octets(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File(file) => file.octets,
        }
    }

    /// Gives a file the name that rows use, durably: before the commit of its row.
    pub async fn settle(&self) -> io::Result<()> {
        match self {
            Body::Memory(_) => Ok(()),
            Body::File(file) => {
                let file = file.clone();
                spawn_blocking(move || file.settle()).await?
            }
        }
    }

    /// The first octets, at most `limit` of them.
    pub async fn head(&self, limit: usize) -> io::Result<Bytes> {
        match self {
            Body::Memory(bytes) => Ok(bytes.slice(..bytes.len().min(limit))),
            Body::File(file) => {
                let file = file.clone();
                spawn_blocking(move || {
                    let mut head = Vec::new();
                    File::open(file.path())?.take(limit as u64).read_to_end(&mut head)?;
                    Ok(head.into())
                })
                .await?
            }
        }
    }
}

/// The directory of body files.
#[derive(Debug, Clone)]
pub struct BodyDirectory(Arc<Place>);

#[derive(Debug)]
struct Place {
    path: PathBuf,
    files: Box<dyn Files>,
}

impl BodyDirectory {
    /// The directory `path`, which must exist.
    pub fn new(path: PathBuf) -> Self {
        Self::on(path, Disk)
    }

    /// The directory `path` on these files.
    pub(crate) fn on(path: PathBuf, files: impl Files + 'static) -> Self {
        Self(Arc::new(Place { path, files: Box::new(files) }))
    }

    /// The path of body file `number`.
    pub fn path_of(&self, number: u64) -> PathBuf {
        self.0.path.join(format!("{number:016x}"))
    }

    fn new_path_of(&self, number: u64) -> PathBuf {
        self.0.path.join(format!("{number:016x}{NEW}"))
    }

    /// The folder of body files that no row names.
    pub fn lost(&self) -> PathBuf {
        self.0.path.join(LOST)
    }

    /// The path of body file `number` in that folder.
    pub(super) fn lost_path_of(&self, number: u64) -> PathBuf {
        self.lost().join(format!("{number:016x}"))
    }

    /// The body that a row names.
    pub(super) fn stored(&self, number: u64, octets: u64) -> Body {
        let directory = self.clone();
        let (settled, kept) = (AtomicBool::new(true), AtomicBool::new(true));
        Body::File(Arc::new(BodyFile { directory, number, octets, settled, kept }))
    }

    /// Removes body file `number`, whose last row is gone. A failure costs room, nothing else.
    pub(super) fn remove(&self, number: u64) {
        self.remove_file(&self.path_of(number));
    }

    fn remove_file(&self, path: &Path) {
        if let Err(error) = self.0.files.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "can't remove a body file");
        }
    }

    /// Removes what was being received when an earlier process ended: it was never acknowledged. How many
    /// files.
    pub(super) fn remove_new(&self) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.0.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().and_then(|name| name.strip_suffix(NEW)).and_then(number_of).is_some() {
                self.remove_file(&entry.path());
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Moves body files that no row names into the folder of such files.
    pub(super) fn lose(&self, numbers: &[u64]) -> io::Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(self.lost())?;
        self.move_all(numbers, |number| (self.path_of(number), self.lost_path_of(number)))
    }

    /// Moves body files back that a row names.
    pub(super) fn find_again(&self, numbers: &[u64]) -> io::Result<()> {
        self.move_all(numbers, |number| (self.lost_path_of(number), self.path_of(number)))
    }

    fn move_all(&self, numbers: &[u64], paths: impl Fn(u64) -> (PathBuf, PathBuf)) -> io::Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        for &number in numbers {
            let (from, to) = paths(number);
            self.0.files.rename(&from, &to)?;
        }
        self.0.files.sync_directory(&self.lost())?;
        self.0.files.sync_directory(&self.0.path)
    }

    /// What is in the directory: number and length of each body file. Anything else there is left alone.
    pub(super) fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        list(&self.0.path)
    }

    /// The same of the body files that no row names.
    pub(super) fn list_lost(&self) -> io::Result<Vec<(u64, u64)>> {
        match list(&self.lost()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// How much is in the folder of body files that no row names.
    pub fn lost_stock(&self) -> io::Result<Stock> {
        let mut stock = Stock::default();
        self.list_lost()?.into_iter().for_each(|(_, octets)| stock.add(octets));
        Ok(stock)
    }

    /// A writer whose file, if it comes to one, is called `number`.
    pub fn writer(&self, number: u64) -> BodyWriter {
        BodyWriter { buffer: BytesMut::new(), spilled: None, octets: 0, number, directory: self.clone() }
    }
}

fn number_of(name: &str) -> Option<u64> {
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok()).flatten()
}

fn list(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(number_of) {
            found.push((number, entry.metadata()?.len()));
        }
    }
    Ok(found)
}

/// Takes a body in pieces. Dropped unfinished it leaves nothing behind.
#[derive(Debug)]
pub struct BodyWriter {
    /// At most [`SPILL_OCTETS`] and one piece.
    buffer: BytesMut,
    spilled: Option<Spilled>,
    octets: u64,
    number: u64,
    directory: BodyDirectory,
}

/// The file and who removes it.
#[derive(Debug)]
struct Spilled {
    file: Box<dyn NewFile>,
    body: BodyFile,
}

impl BodyWriter {
    /// Takes the next piece. A failure is the disk's: the message can't be taken.
    pub async fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.octets += piece.len() as u64;
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() > SPILL_OCTETS { self.spill().await } else { Ok(()) }
    }

    /// Octets taken so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The whole body; one in a file is on disk, and gets its name by [`Body::settle`].
    pub async fn finish(mut self) -> io::Result<Body> {
        if self.spilled.is_none() {
            return Ok(Body::Memory(self.buffer.freeze()));
        }
        self.spill().await?;
        let Some(Spilled { mut file, mut body }) = self.spilled.take() else {
            return Err(io::Error::other("a spilled body has a file"));
        };
        body.octets = self.octets;
        spawn_blocking(move || {
            file.sync()?;
            Ok(Body::File(Arc::new(body)))
        })
        .await?
    }

    /// Moves the buffer to the file.
    async fn spill(&mut self) -> io::Result<()> {
        let buffer = self.buffer.split();
        let spilled = self.spilled.take();
        let (directory, number) = (self.directory.clone(), self.number);
        let spilled = spawn_blocking(move || -> io::Result<Spilled> {
            let mut spilled = match spilled {
                Some(spilled) => spilled,
                None => Spilled::create(&directory, number)?,
            };
            spilled.file.write_all(&buffer)?;
            Ok(spilled)
        })
        .await??;
        self.spilled = Some(spilled);
        Ok(())
    }
}

impl Spilled {
    fn create(directory: &BodyDirectory, number: u64) -> io::Result<Self> {
        let file = directory.0.files.create(&directory.new_path_of(number))?;
        let directory = directory.clone();
        let (settled, kept) = (AtomicBool::new(false), AtomicBool::new(false));
        let body = BodyFile { directory, number, octets: 0, settled, kept };
        Ok(Self { file, body })
    }
}
