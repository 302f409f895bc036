//! Starts processes of the mail user: the same program, another user, no capability, and only the descriptors
//! it needs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::RunError;
use super::notify::VARIABLES;
use crate::inheritance;

/// Who handles mail.
#[derive(Debug, Clone)]
pub(super) struct MailUser {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl MailUser {
    /// Looks `user` up; it must exist and not be root.
    pub(super) fn find(user: &str) -> Result<Self, RunError> {
        let none = || RunError::NoUser(user.to_owned());
        let found = User::from_name(user).ok().flatten().ok_or_else(none)?;
        if found.uid.is_root() {
            return Err(RunError::RootUser);
        }
        let name = CString::new(found.name).map_err(|_| none())?;
        // Here, and not between fork and exec, where another thread's locks may be held for ever.
        let groups = getgrouplist(&name, found.gid).map_err(|error| RunError::System {
            what: "read the mail user's groups",
            source: error.into(),
        })?;
        Ok(Self { uid: found.uid, gid: found.gid, groups })
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    pub(super) fn gid(&self) -> u32 {
        self.gid.as_raw()
    }
}

/// Starts `mailguard mail` with its ends of both channels inherited under the numbers they have here, and its
/// standard error as a pipe.
pub(super) fn mail_process(user: &MailUser, channel: OwnedFd, descriptors: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("mail").arg("--channel").arg(channel.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    as_user(&mut command, user, vec![channel.as_raw_fd(), descriptors.as_raw_fd()]);
    command.spawn()
}

/// Starts `mailguard trial`; all three standard descriptors are pipes.
pub(super) fn trial(user: &MailUser) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("trial").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    as_user(&mut command, user, Vec::new());
    command.spawn()
}

/// Has `command` run as the mail user, with these descriptors and no others, and die with the thread that
/// starts it.
fn as_user(command: &mut Command, user: &MailUser, inherited: Vec<i32>) {
    let user = user.clone();
    let parent = nix::unistd::getpid();
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    // SAFETY: between fork and exec the closure makes system calls only.
    unsafe {
        command.pre_exec(move || {
            inheritance::keep_only_standard()?;
            for fd in &inherited {
                fcntl(BorrowedFd::borrow_raw(*fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            nix::unistd::setgroups(&user.groups)?;
            nix::unistd::setgid(user.gid)?;
            nix::unistd::setuid(user.uid)?;
            nix::sys::prctl::set_no_new_privs()?;
            // A mail process never outlives its datapath process: it would hold the spool against the next
            // one, even stopped. After setuid, which clears the setting.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// The two ends of a channel between the processes, both closed on exec.
pub(super) fn channel() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, theirs.into()))
}
