//! What a process of ours inherits from the one that starts it: its standard descriptors, and those that it
//! is given on purpose. Whoever started the datapath process may have left others open, and most who do that
//! don't know it; root's files and sockets are not for a process that a stranger could take over.

use std::io;

use nix::libc;

/// The first descriptor that isn't a standard one.
const FIRST: libc::c_uint = 3;

/// Has every descriptor but the standard ones closed at the next exec. For the time between fork and exec:
/// one system call.
pub(crate) fn keep_only_standard() -> io::Result<()> {
    let (last, flags) = (libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: no memory is involved.
    match unsafe { libc::syscall(libc::SYS_close_range, FIRST, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
