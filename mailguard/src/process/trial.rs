//! Tries what the mail process will do, as the mail user, in a process that lives for the trial only: rules
//! are compiled, folders reached, files opened and written. What fails here is known before anything is
//! changed, and root never parses rule files. What nobody can tell without doing it, such as a database that
//! is damaged inside, is left to the mail process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use mailguard_core::config::Config;
use nix::libc::O_NOFOLLOW;
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::last_words::{LastWords, cause};
use super::spawn::{self, MailUser};
use super::{ipc, services};
use crate::config::{self, Source};
use crate::control;
use crate::store;

/// How long a trial may take: as many rules as a configuration may hold compile well within it.
const TRIAL_TIME: Duration = Duration::from_secs(45);
/// Longest report, octets.
const MAX_REPORT_OCTETS: u64 = 1 << 20;
/// What is written for a trial, octets.
const TRIAL_OCTETS: usize = 4_096;

/// What is tried.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    source: Source,
    extent: Extent,
}

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Extent {
    /// What the files say: whether rules compile, and keys fit certificates.
    Content,
    /// Whether the mail user can use its folders on this machine.
    Folders,
    /// Both.
    Both,
}

/// Why a trial says nothing.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// No process can be started.
    #[error("the mail user's side can't be tried: {0}")]
    Start(#[from] io::Error),
    /// It took too long.
    #[error("the configuration can't be tried within {} seconds: too many rules, or a disk that hangs", TRIAL_TIME.as_secs())]
    TooLong,
    /// It ended without a report.
    #[error("the configuration can't be tried: the process that tries it {0}")]
    Ended(String),
}

/// Has `source` tried as the mail user; what is wrong, each a text for an administrator.
pub(super) fn ask(user: &MailUser, source: &Source, extent: Extent) -> Result<Vec<String>, TrialError> {
    let mut child = spawn::trial(user)?;
    let (Some(mut to), Some(from), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("a pipe is missing").into());
    };
    // It has no log: a line that looks like one is not for ours.
    let words = LastWords::hear(stderr, |_| {})?;
    let task = Task { source: source.clone(), extent };
    // It fails if the process ends before it has read it all, of which its own end says more.
    thread::spawn(move || ipc::write(&mut to, &task));
    let (done, report) = sync_channel(1);
    thread::spawn(move || {
        let mut octets = Vec::new();
        let read = from.take(MAX_REPORT_OCTETS).read_to_end(&mut octets);
        let _ = done.send(read.map(|_| octets));
    });
    let report = report.recv_timeout(TRIAL_TIME);
    if report.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let octets = match report {
        Ok(octets) => octets?,
        Err(RecvTimeoutError::Timeout) => return Err(TrialError::TooLong),
        Err(RecvTimeoutError::Disconnected) => Vec::new(),
    };
    match serde_json::from_slice(&octets) {
        Ok(problems) if status.success() => Ok(problems),
        _ => Err(TrialError::Ended([vec![cause(status)], words.all()].concat().join("\n  "))),
    }
}

/// The process that tries: reads what from standard input, and writes what is wrong to standard output.
pub fn run() -> Result<()> {
    let task: Task =
        ipc::read(&mut io::stdin().lock(), ipc::MAX_FRAME_OCTETS).context("nobody says what to try")?;
    let problems = match config::parse_and_validate(&task.source) {
        Err(errors) => vec![errors.to_string()],
        Ok(config) => problems(&config, task.extent),
    };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &problems)?;
    Ok(out.flush()?)
}

fn problems(config: &Config, extent: Extent) -> Vec<String> {
    let mut problems = Vec::new();
    if extent != Extent::Folders {
        problems.extend(services::CompiledConfig::validate(config).err().map(|error| error.to_string()));
    }
    if extent != Extent::Content {
        problems.extend(state(&config.state_dir));
        problems.extend(socket(&control::mail_folder(&config.runtime_dir)).err());
    }
    problems
}

fn said(path: &Path, what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {what} as the mail user: {error}", path.display())
}

/// What keeps the mail user from working in `state_dir`: the first thing of each kind.
fn state(state_dir: &Path) -> Vec<String> {
    // What is below a folder that can't be reached isn't worth a word.
    if let Err(problem) = writable(state_dir) {
        return vec![problem];
    }
    let databases = store::DATABASES.map(|name| database(&state_dir.join(name)));
    let bodies = usable(&state_dir.join(store::BODIES));
    databases.into_iter().chain([bodies]).filter_map(Result::err).collect()
}

/// Whether a file can be written there and removed again, which a full disk forbids, too.
fn writable(folder: &Path) -> Result<(), String> {
    let path = folder.join(format!(".trial-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&[0; TRIAL_OCTETS]).and_then(|()| file.sync_all())
    };
    let written = write().map_err(said(folder, "nothing can be written there"));
    let removed = match fs::remove_file(&path) {
        Err(error) if written.is_ok() => Err(said(folder, "nothing can be removed there")(error)),
        _ => Ok(()),
    };
    written.and(removed)
}

/// Whether a database can be opened, if there is one.
fn database(path: &Path) -> Result<(), String> {
    let mut begin = [0; store::MAGIC.len()];
    let open = OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW).open(path);
    let mut file: File = match open {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(said(path, "can't be opened")(error)),
    };
    let length = file.metadata().map_err(said(path, "can't be looked at"))?.len();
    if length == 0 {
        return Ok(());
    }
    file.read_exact(&mut begin).map_err(said(path, "can't be read"))?;
    if &begin != store::MAGIC {
        return Err(format!(
            "{}: is damaged, or no database at all: put back what was there, or move it away (mailguard store check says more)",
            path.display()
        ));
    }
    Ok(())
}

/// Whether a folder that may not be there yet can be worked in.
fn usable(folder: &Path) -> Result<(), String> {
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(said(folder, "can't be reached")(error)),
        Ok(facts) if !facts.is_dir() => Err(format!("{}: is no folder: move it away", folder.display())),
        Ok(_) => access(folder, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|error| said(folder, "can't be used")(error.into())),
    }
}

/// Whether the mail process's socket can be made in its folder.
fn socket(folder: &Path) -> Result<(), String> {
    let path = folder.join("control.sock");
    match fs::symlink_metadata(&path) {
        Ok(facts) if !facts.file_type().is_socket() => {
            return Err(format!("{}: is not a socket: remove it", path.display()));
        }
        _ => {}
    }
    // A name of the same length: a socket's path is limited.
    let trial = folder.join(".trial.sock1");
    let _ = fs::remove_file(&trial);
    let bound = UnixListener::bind(&trial).map_err(said(folder, "no socket can be made there"));
    let _ = fs::remove_file(&trial);
    bound.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_state_dir_is_tried_and_left_as_it_was() {
        let folder = TempDir::new().unwrap();
        let check = |expect: &[&str]| {
            let problems = state(folder.path());
            let found =
                problems.len() == expect.len() && problems.iter().zip(expect).all(|(p, e)| p.contains(e));
            assert!(found, "{problems:?}, not {expect:?}");
        };
        check(&[]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        let (spool, bodies) = (folder.path().join("spool.redb"), folder.path().join("bodies"));
        fs::write(&spool, b"redb\x1a\x0a and so on").unwrap();
        fs::create_dir(&bodies).unwrap();
        check(&[]);
        fs::write(&spool, b"").unwrap();
        check(&[]);
        fs::write(&spool, b"rubbish").unwrap();
        check(&["spool.redb: is damaged"]);
        fs::write(&spool, b"x").unwrap();
        check(&["spool.redb: can't be read"]);
        fs::remove_file(&spool).unwrap();
        symlink("/etc/passwd", &spool).unwrap();
        fs::remove_dir(&bodies).unwrap();
        fs::write(&bodies, b"").unwrap();
        check(&["spool.redb: can't be opened", "bodies: is no folder"]);
        assert!(state(Path::new("/nowhere/at/all"))[0].contains("nothing can be written there"));
    }

    #[test]
    fn what_stands_in_the_place_of_the_socket_is_named() {
        let folder = TempDir::new().unwrap();
        socket(folder.path()).unwrap();
        drop(UnixListener::bind(folder.path().join("control.sock")).unwrap());
        socket(folder.path()).unwrap();
        fs::remove_file(folder.path().join("control.sock")).unwrap();
        fs::create_dir(folder.path().join("control.sock")).unwrap();
        assert!(socket(folder.path()).unwrap_err().contains("control.sock: is not a socket: remove it"));
        let long = folder.path().join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        fs::set_permissions(&long, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(socket(&long).unwrap_err().contains("no socket can be made there"));
    }
}
