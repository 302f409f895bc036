//! One mailguard a network namespace, and one a `runtime_dir`: locks that nobody but root can take.
//!
//! A lock is a file in a folder of root's own, at a place that no configuration can change, named by what it
//! locks; it is held as long as its process lives. The namespace's file says who holds it, and in which
//! folder its programs are pinned: they outlive the process, and whoever comes next with another folder must
//! know of them. What killed instances left is removed by the next one that starts, anywhere (`leftovers`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use serde::{Deserialize, Serialize};

use crate::datapath::{DatapathError, netns_cookie};

mod leftovers;

/// Where the locks are.
const FOLDER: &str = "/run/mailguard-lock";
/// What a lock's file may hold, octets: more than the longest path takes.
const MAX_RECORD_OCTETS: u64 = 8192;
/// How often a lock is tried whose file is removed just then.
const MAX_TRIES: usize = 16;
/// How long the next try waits where the holder that a lock's file names is dead: who holds it now only looks
/// whether it can go.
const LOOKED_AT_TIME: Duration = Duration::from_millis(10);

/// Why a lock can't be had.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another instance runs in this namespace.
    #[error(
        "another mailguard is running in this network namespace{}: there can be one only; stop it first",
        holder(*.0)
    )]
    SameNamespace(Option<u32>),
    /// Another instance, in another namespace, has the folder.
    #[error(
        "another mailguard is running{} and uses runtime_dir {}: name another one for this network namespace",
        holder(*.pid), .folder.display()
    )]
    SameFolder {
        /// Its process.
        pid: Option<u32>,
        /// The folder.
        folder: PathBuf,
    },
    /// The last instance here used another `pin_dir`.
    #[error(
        "the mailguard of this network namespace has its programs pinned in {}, not in {}: unload with that \
         one's configuration",
        .theirs.display(), .asked.display()
    )]
    OtherPins {
        /// Where they are.
        theirs: PathBuf,
        /// What was asked for.
        asked: PathBuf,
    },
    /// The locks' folder isn't root's alone.
    #[error("{}: must be a folder that belongs to root and that nobody else can enter: remove it", .0.display())]
    ForeignFolder(PathBuf),
    /// A lock's file can't be used.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// The network namespace has no number.
    #[error(transparent)]
    Namespace(#[from] DatapathError),
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// The right to be the mailguard of this network namespace.
#[derive(Debug)]
pub(super) struct Instance {
    namespace: Lock,
    netns_cookie: u64,
    /// Where the last one's programs are pinned.
    pinned: Option<PathBuf>,
    runtime_dir: Option<Lock>,
}

/// What a namespace's file says. The namespace's inode may be another's after its end, its cookie never.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    #[serde(rename = "pid")]
    pid: u32,
    #[serde(rename = "netns_cookie", default)]
    netns_cookie: u64,
    #[serde(rename = "pin_dir", default)]
    pin_dir: Option<PathBuf>,
}

impl Record {
    /// Whether the process that wrote it is there, or another one of its number.
    fn holder_lives(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

impl Instance {
    /// Claims this network namespace; an error names who has it.
    pub(super) fn claim() -> Result<Self, InstanceError> {
        Self::claim_in(Path::new(FOLDER))
    }

    fn claim_in(folder: &Path) -> Result<Self, InstanceError> {
        let netns = "/proc/thread-self/ns/net";
        let inode = fs::metadata(netns).map_err(|error| file_error(netns, error))?.ino();
        let namespace = Lock::take(folder, &format!("net-{inode}"))?;
        let mut namespace = namespace.map_err(|record| InstanceError::SameNamespace(record.pid()))?;
        let netns_cookie = netns_cookie()?;
        let last = namespace.read()?.filter(|record| record.netns_cookie == netns_cookie);
        let pinned = last.and_then(|record| record.pin_dir);
        namespace.write(&Record { pid: std::process::id(), netns_cookie, pin_dir: pinned.clone() })?;
        leftovers::sweep(folder);
        Ok(Self { namespace, netns_cookie, pinned, runtime_dir: None })
    }

    /// Claims the folder of the control socket, which is there: instances of several namespaces may see it.
    pub(super) fn claim_runtime_dir(&mut self, runtime_dir: &Path) -> Result<(), InstanceError> {
        let facts = fs::metadata(runtime_dir).map_err(|error| file_error(runtime_dir, error))?;
        let name = format!("runtime-{}-{}", facts.dev(), facts.ino());
        let lock = Lock::take(self.namespace.folder(), &name)?;
        let mut lock = lock.map_err(|record| InstanceError::SameFolder {
            pid: record.pid(),
            folder: runtime_dir.to_owned(),
        })?;
        lock.write(&Record { pid: std::process::id(), ..Record::default() })?;
        self.runtime_dir = Some(lock);
        Ok(())
    }

    /// Where the programs of the last instance here are pinned, if that isn't `pin_dir`.
    pub(super) fn pinned_elsewhere(&self, pin_dir: &Path) -> Option<&Path> {
        self.pinned.as_deref().filter(|pinned| *pinned != pin_dir)
    }

    /// From now on they are pinned here.
    pub(super) fn note_pins(&mut self, pin_dir: &Path) -> Result<(), InstanceError> {
        let (netns_cookie, pin_dir) = (self.netns_cookie, Some(pin_dir.to_owned()));
        self.pinned.clone_from(&pin_dir);
        self.namespace.write(&Record { pid: std::process::id(), netns_cookie, pin_dir })
    }

    /// Nothing is pinned any more: leaves no trace.
    pub(super) fn forget(self) -> Result<(), InstanceError> {
        fs::remove_file(&self.namespace.path).map_err(|error| file_error(&self.namespace.path, error))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It has nothing to say to the next one. What can't be removed is taken over.
        if let Some(lock) = &self.runtime_dir {
            let _ = fs::remove_file(&lock.path);
        }
    }
}

/// What the file of a lock said that somebody else holds.
#[derive(Debug)]
struct Held(Option<Record>);

impl Held {
    fn pid(&self) -> Option<u32> {
        self.0.as_ref().map(|record| record.pid)
    }
}

/// A lock that is held.
#[derive(Debug)]
struct Lock {
    file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock `name` in `folder`; the inner error is what its holder wrote.
    fn take(folder: &Path, name: &str) -> Result<Result<Self, Held>, InstanceError> {
        roots_own(folder)?;
        let path = folder.join(name);
        let fail = |error| file_error(&path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(O_NOFOLLOW);
        let mut held = None;
        for _ in 0..MAX_TRIES {
            let file = options.open(&path).map_err(fail)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Not one that its last holder removed meanwhile: the next would make a new one.
                Ok(file) if file.metadata().map_err(fail)?.nlink() == 0 => {}
                Ok(file) => return Ok(Ok(Self { file, path })),
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    held = read(&mut file).map_err(fail)?;
                    if held.as_ref().is_none_or(Record::holder_lives) {
                        return Ok(Err(Held(held)));
                    }
                    thread::sleep(LOOKED_AT_TIME);
                }
                Err((_, error)) => return Err(fail(error.into())),
            }
        }
        match held {
            None => Err(fail(io::Error::other("is removed again and again"))),
            held => Ok(Err(Held(held))),
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(FOLDER))
    }

    fn read(&mut self) -> Result<Option<Record>, InstanceError> {
        read(&mut self.file).map_err(|error| file_error(&self.path, error))
    }

    fn write(&mut self, record: &Record) -> Result<(), InstanceError> {
        let mut write = || {
            let text = serde_json::to_string(record)?;
            self.file.rewind()?;
            self.file.set_len(0)?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|error| file_error(&self.path, error))
    }
}

/// None for a new file, or one that its holder has only begun to write.
fn read(file: &mut File) -> io::Result<Option<Record>> {
    let mut text = String::new();
    file.rewind()?;
    file.take(MAX_RECORD_OCTETS).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text).ok())
}

/// Makes the folder. One that others could have put a file into is refused, a symbolic link too.
fn roots_own(folder: &Path) -> Result<(), InstanceError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(file_error(folder, error)),
        _ => {}
    }
    let facts = fs::symlink_metadata(folder).map_err(|error| file_error(folder, error))?;
    if !facts.is_dir() || facts.uid() != 0 || facts.mode() & 0o077 != 0 {
        return Err(InstanceError::ForeignFolder(folder.to_owned()));
    }
    Ok(())
}

fn file_error(path: impl Into<PathBuf>, error: io::Error) -> InstanceError {
    InstanceError::File { path: path.into(), error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn each_lock_is_read_and_written_as_it_stands() {
        crate::store::golden::LOCK.check::<Record>(&[]);
    }

    /// A place for the folder of locks.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("lock");
        (place, folder)
    }

    #[test]
    fn a_second_instance_in_the_namespace_is_refused_with_the_pid_of_the_first() {
        let (_place, folder) = place();
        let first = Instance::claim_in(&folder).unwrap();
        let error = Instance::claim_in(&folder).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(first);
        Instance::claim_in(&folder).unwrap();
    }

    #[test]
    fn the_next_instance_knows_where_the_last_ones_programs_are_pinned() {
        let (_place, folder) = place();
        let mut first = Instance::claim_in(&folder).unwrap();
        assert_eq!(first.pinned_elsewhere(Path::new("/a")), None, "there was none");
        first.note_pins(Path::new("/a")).unwrap();
        drop(first);
        let next = Instance::claim_in(&folder).unwrap();
        assert_eq!(next.pinned_elsewhere(Path::new("/b")), Some(Path::new("/a")));
        assert_eq!(next.pinned_elsewhere(Path::new("/a/")), None);
        next.forget().unwrap();
        assert_eq!(Instance::claim_in(&folder).unwrap().pinned_elsewhere(Path::new("/b")), None);
    }

    #[test]
    fn what_another_namespace_of_the_same_number_left_counts_for_nothing() {
        let (_place, folder) = place();
        let mut gone = Instance::claim_in(&folder).unwrap();
        gone.netns_cookie += 1;
        gone.note_pins(Path::new("/a")).unwrap();
        drop(gone);
        assert_eq!(Instance::claim_in(&folder).unwrap().pinned_elsewhere(Path::new("/b")), None);
    }

    #[test]
    fn two_namespaces_dont_share_a_runtime_dir() {
        let (place, folder) = place();
        let mut first = Instance::claim_in(&folder).unwrap();
        first.claim_runtime_dir(place.path()).unwrap();
        fs::remove_file(&first.namespace.path).unwrap();
        let mut other = Instance::claim_in(&folder).unwrap();
        let error = other.claim_runtime_dir(place.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
    }

    #[test]
    fn locks_that_others_could_have_made_are_refused() {
        let (place, folder) = place();
        let foreign = || {
            let error = Instance::claim_in(&folder).unwrap_err();
            matches!(error, InstanceError::ForeignFolder(_) | InstanceError::File { .. })
        };
        symlink(place.path(), &folder).unwrap();
        assert!(foreign(), "a link to somewhere else");
        fs::remove_file(&folder).unwrap();
        drop(Instance::claim_in(&folder).unwrap());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(foreign(), "others can open its files, and lock them");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        fs::remove_file(&file).unwrap();
        symlink("/dev/null", &file).unwrap();
        assert!(foreign(), "a file that leads elsewhere");
    }
}
