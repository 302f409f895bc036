//! A message's octets: in memory while they are few, in a file of their own above [`SPILL_OCTETS`].
//!
//! The session writes one with [`BodyWriter`], the scanner and the deliveries read it, the spool commits it. A
//! file is on disk, name and all, before the row that names it; a file without a row is removed when its last
//! [`Body`] goes, or by the next recovery.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_blocking;

use super::files::{Disk, Files, NewFile};

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
    path: PathBuf,
    number: u64,
    octets: u64,
    /// A row names the file, or may: it isn't ours to remove.
    kept: AtomicBool,
}

impl BodyFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
            self.directory.remove(self.number);
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

    /// The first octets, at most `limit` of them.
    pub async fn head(&self, limit: usize) -> io::Result<Bytes> {
        match self {
            Body::Memory(bytes) => Ok(bytes.slice(..bytes.len().min(limit))),
            Body::File(file) => {
                let file = file.clone();
                spawn_blocking(move || {
                    let mut head = Vec::new();
                    File::open(&file.path)?.take(limit as u64).read_to_end(&mut head)?;
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

    /// The body that a row names.
    pub(super) fn stored(&self, number: u64, octets: u64) -> Body {
        let path = self.path_of(number);
        let directory = self.clone();
        Body::File(Arc::new(BodyFile { directory, path, number, octets, kept: AtomicBool::new(true) }))
    }

    /// Removes body file `number`, which no row names. A failure costs room until the next recovery, nothing else.
    pub(super) fn remove(&self, number: u64) {
        let path = self.path_of(number);
        if let Err(error) = self.0.files.remove(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "can't remove a body file; the next start will");
        }
    }

    /// What is in the directory: number and length of each body file. Anything else there is left alone.
    pub(super) fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().filter(|name| name.len() == 16);
            if let Some(Ok(number)) = number.map(|name| u64::from_str_radix(name, 16)) {
                found.push((number, entry.metadata()?.len()));
            }
        }
        Ok(found)
    }

    /// A writer whose file, if it comes to one, is called `number`.
    pub fn writer(&self, number: u64) -> BodyWriter {
        BodyWriter { buffer: BytesMut::new(), spilled: None, octets: 0, number, directory: self.clone() }
    }
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

    /// The whole body; one in a file is on disk with its name.
    pub async fn finish(mut self) -> io::Result<Body> {
        if self.spilled.is_none() {
            return Ok(Body::Memory(self.buffer.freeze()));
        }
        self.spill().await?;
        let Some(Spilled { mut file, mut body }) = self.spilled.take() else {
            return Err(io::Error::other("a spilled body has a file"));
        };
        let directory = self.directory.clone();
        body.octets = self.octets;
        spawn_blocking(move || {
            file.sync()?;
            directory.0.files.sync_directory(&directory.0.path)?;
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
        let path = directory.path_of(number);
        let file = directory.0.files.create(&path)?;
        let directory = directory.clone();
        let body = BodyFile { directory, path, number, octets: 0, kept: AtomicBool::new(false) };
        Ok(Self { file, body })
    }
}
