//! Starts the mail process: the same program, another user, no capability, and only the descriptors it needs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Gid, Uid, User};

use super::RunError;

/// Who handles mail.
#[derive(Debug, Clone)]
pub(super) struct MailUser {
    name: CString,
    uid: Uid,
    gid: Gid,
}

impl MailUser {
    /// Looks `user` up; it must exist and not be root.
    pub(super) fn find(user: &str) -> Result<Self, RunError> {
        let found = User::from_name(user).ok().flatten().ok_or_else(|| RunError::NoUser(user.to_owned()))?;
        if found.uid.is_root() {
            return Err(RunError::RootUser);
        }
        let name = CString::new(found.name).map_err(|_| RunError::NoUser(user.to_owned()))?;
        Ok(Self { name, uid: found.uid, gid: found.gid })
    }

    /// Whether `path` is the user's.
    pub(super) fn owns(&self, path: &std::path::Path) -> bool {
        nix::sys::stat::stat(path).is_ok_and(|facts| facts.st_uid == self.uid.as_raw())
    }

    /// Gives `path` to the user.
    pub(super) fn own(&self, path: &std::path::Path) -> Result<(), RunError> {
        nix::unistd::chown(path, Some(self.uid), Some(self.gid))
            .map_err(|error| RunError::Directory { path: path.to_owned(), source: error.into() })
    }
}

/// Starts `mailguard mail` with its ends of both channels inherited under the numbers they have here.
pub(super) fn mail_process(user: &MailUser, channel: OwnedFd, descriptors: OwnedFd) -> io::Result<Child> {
    let inherited = [channel.as_raw_fd(), descriptors.as_raw_fd()];
    let user = user.clone();
    let parent = nix::unistd::getpid();
    let mut command = Command::new("/proc/self/exe");
    command.arg("mail").arg("--channel").arg(channel.as_raw_fd().to_string()).stdin(Stdio::null());
    // SAFETY: between fork and exec the closure makes system calls only: `initgroups` may allocate in the
    // C library, which is safe here since the datapath process holds no lock of it while it forks.
    unsafe {
        command.pre_exec(move || {
            for fd in inherited {
                fcntl(BorrowedFd::borrow_raw(fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            nix::unistd::initgroups(&user.name, user.gid)?;
            nix::unistd::setgid(user.gid)?;
            nix::unistd::setuid(user.uid)?;
            nix::sys::prctl::set_no_new_privs()?;
            // A mail process never outlives its datapath process: it would hold the spool against the next one,
            // even stopped. After setuid, which clears the setting.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(io::Error::other("the datapath process is gone"));
            }
            Ok(())
        });
    }
    command.spawn()
}

/// The two ends of a channel between the processes, both closed on exec.
pub(super) fn channel() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, theirs.into()))
}
