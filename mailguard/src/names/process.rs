//! Starts the resolver and reads what it says. The same program, a user that nobody else is, and three pipes.

use std::io::{self, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use mailguard_core::config::model::Dns as DnsConfig;
use mailguard_core::names::Question;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, User};

use super::frames::{self, FromResolver, ToResolver, printable};
use crate::inheritance;

/// Users that no file, account or service has: the first one that is free is taken. Between those that
/// systemd gives to containers and those that don't fit a signed number.
const USERS: std::ops::Range<u32> = 1_879_500_000..1_879_500_016;

/// Memory that it may have, octets of address space.
const MAX_MEMORY: u64 = 1 << 30;
/// Files and sockets that it may have open: each question needs a socket or two.
const MAX_OPEN_FILES: u64 = 256;
/// Processes and threads of its user: it has two, and so has that of each other network namespace.
const MAX_THREADS: u64 = 256;
/// What is read of its last words, octets.
const LAST_WORDS: u64 = 2_048;

/// What the resolver says.
pub(super) enum Said {
    /// An answer.
    Answer(FromResolver),
    /// Nothing any more; why, as far as it said.
    Ended(String),
}

/// A running resolver; ended when dropped.
pub(super) struct Process {
    child: Child,
    stdin: ChildStdin,
}

impl Process {
    /// Starts one that asks as `dns` says. `heard` is called with all that it says, from a thread of its own,
    /// until that returns false.
    pub(super) fn start(dns: &DnsConfig, heard: impl Fn(Said) -> bool + Send + 'static) -> io::Result<Self> {
        let mut child = command()?.spawn()?;
        let missing = || io::Error::other("no pipe to the resolver");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut process = Self { stdin: stdin.ok_or_else(missing)?, child };
        let (stdout, stderr) = stdout.zip(stderr).ok_or_else(missing)?;
        frames::write(&mut process.stdin, &frames::start(dns))?;
        thread::Builder::new().name("resolver".to_owned()).spawn(move || listen(stdout, stderr, heard))?;
        Ok(process)
    }

    /// Has it ask. Never waits: few questions are under way at a time, and the pipe holds them all.
    pub(super) fn ask(&mut self, id: u32, question: Question) -> io::Result<()> {
        frames::write(&mut self.stdin, &ToResolver::Ask { id, question })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stdout: ChildStdout, mut stderr: ChildStderr, heard: impl Fn(Said) -> bool) {
    let mut from = BufReader::new(stdout);
    let broken = loop {
        match frames::read(&mut from) {
            Ok(Some(answer)) => {
                if !heard(Said::Answer(answer)) {
                    return;
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(format!("it said what makes no sense: {error}")),
        }
    };
    // One that says nonsense still lives, and may keep its standard error open.
    let why = broken.unwrap_or_else(|| {
        let mut words = Vec::new();
        let _ = stderr.by_ref().take(LAST_WORDS).read_to_end(&mut words);
        match printable(&String::from_utf8_lossy(&words)) {
            words if words.is_empty() => "it said nothing".to_owned(),
            words => words,
        }
    });
    heard(Said::Ended(why));
}

fn command() -> io::Result<Command> {
    let user = free_user().ok_or_else(|| io::Error::other("every user that it could be is somebody else"))?;
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    let parent = nix::unistd::getpid();
    let mut command = Command::new("/proc/self/exe");
    command.arg("names").env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec the closure makes system calls only.
    unsafe {
        command.pre_exec(move || {
            for (resource, most) in [
                (Resource::RLIMIT_AS, MAX_MEMORY),
                (Resource::RLIMIT_NOFILE, MAX_OPEN_FILES),
                (Resource::RLIMIT_NPROC, MAX_THREADS),
                (Resource::RLIMIT_FSIZE, 0),
                (Resource::RLIMIT_CORE, 0),
            ] {
                setrlimit(resource, most, most)?;
            }
            inheritance::keep_only_standard()?;
            nix::unistd::setgroups(&[])?;
            nix::unistd::setgid(gid)?;
            nix::unistd::setuid(uid)?;
            nix::sys::prctl::set_no_new_privs()?;
            // After setuid, which clears the setting: it never outlives the process that judges its answers.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(io::Error::other("the datapath process is gone"));
            }
            Ok(())
        });
    }
    Ok(command)
}

fn free_user() -> Option<u32> {
    USERS.into_iter().find(|user| matches!(User::from_uid(Uid::from_raw(*user)), Ok(None)))
}
