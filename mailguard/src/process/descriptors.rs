//! Hands open descriptors from one process to the other, over a socket pair of their own: the channel carries
//! text.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Descriptors in one message: the kernel takes 253 (SCM_MAX_FD).
const MAX_AT_ONCE: usize = 250;

/// Sends them; waits as long as `to` may wait for a reader.
pub(super) fn send(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(MAX_AT_ONCE) {
        let raw: Vec<RawFd> = some.iter().map(AsRawFd::as_raw_fd).collect();
        // Descriptors travel with data only: one octet.
        let data = [IoSlice::new(&[0])];
        let control = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(to.as_raw_fd(), &data, &control, MsgFlags::MSG_NOSIGNAL, None)?;
    }
    Ok(())
}

/// Receives `count` of them, which were sent in one call, in their order; closed on exec. An error if they
/// haven't been sent yet.
pub(super) fn receive(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::with_capacity(count);
    while received.len() < count {
        let before = received.len();
        let mut octet = [0];
        let mut data = [IoSliceMut::new(&mut octet)];
        let mut space = nix::cmsg_space!([RawFd; MAX_AT_ONCE]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(from.as_raw_fd(), &mut data, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made these numbers for us, and nothing else owns them.
                received.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if received.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    if received.len() > count {
        return Err(io::Error::other(format!("{} descriptors came, {count} were announced", received.len())));
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn same_file(one: &impl AsFd, other: &impl AsFd) -> bool {
        let inode = |fd| nix::sys::stat::fstat(fd).map(|facts| (facts.st_dev, facts.st_ino)).unwrap();
        inode(one.as_fd()) == inode(other.as_fd())
    }

    #[test]
    fn more_than_a_message_holds_arrive_in_their_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let many: Vec<_> = (0..=MAX_AT_ONCE).map(|_| one.as_fd()).chain([other.as_fd()]).collect();
        send(&ours, &many).unwrap();
        send(&ours, &[other.as_fd()]).unwrap();
        let received = receive(&theirs, many.len()).unwrap();
        assert_eq!(received.len(), MAX_AT_ONCE + 2);
        assert!(same_file(&received[0], &one) && same_file(&received[MAX_AT_ONCE], &one));
        assert!(same_file(&received[MAX_AT_ONCE + 1], &other));
        assert_eq!(receive(&theirs, 1).unwrap().len(), 1);
        assert!(receive(&theirs, 0).unwrap().is_empty());
    }

    #[test]
    fn what_was_announced_and_not_sent_is_an_error_and_no_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(receive(&theirs, 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&ours, &[ours.as_fd(), theirs.as_fd()]).unwrap();
        assert!(receive(&theirs, 1).is_err(), "more came than were announced");
        drop(ours);
        assert_eq!(receive(&theirs, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
