//! Sends frames as fast as one processor can: a packet socket without queueing discipline, many frames a
//! system call, all of them made ready before. On veth the sender's processor also does the receiver's work,
//! so that the rate is that of the whole way.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mailguard_tests::netns::Namespace;
use nix::errno::Errno;
use nix::libc::{self, c_int, iovec, mmsghdr, sockaddr_ll, socklen_t};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, SockaddrLike, bind, socket};

/// Frames a system call.
const BATCH: usize = 64;

/// A socket on an interface.
pub(super) struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Opens it in `namespace`.
    pub(super) fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.within(|| {
            // Protocol 0: it sends only, and is given no copy of anything.
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            // SAFETY: all-zero is a valid address.
            let mut raw: sockaddr_ll = unsafe { std::mem::zeroed() };
            raw.sll_family = libc::AF_PACKET as u16;
            raw.sll_ifindex = if_nametoindex(interface)?.cast_signed();
            // SAFETY: a whole sockaddr_ll, as long as it says.
            let address =
                unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(size_of_val(&raw) as socklen_t)) };
            bind(socket.as_raw_fd(), &address.context("a link address")?)?;
            let on: c_int = 1;
            // SAFETY: the option's value is an int, and as long as it says.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_QDISC_BYPASS,
                    (&raw const on).cast(),
                    size_of::<c_int>() as socklen_t,
                )
            };
            Errno::result(result).context("PACKET_QDISC_BYPASS")?;
            Ok(Self { socket })
        })
    }

    /// Sends `frames` over and over for so long; how many it sent, and in how many seconds.
    pub(super) fn send_for(&self, frames: &[Vec<u8>], window: Duration) -> Result<(u64, f64)> {
        ensure!(!frames.is_empty(), "there is a frame to send");
        // A whole batch at least.
        let frames = frames.iter().cycle().take(frames.len().next_multiple_of(BATCH));
        let mut vectors: Vec<iovec> = frames
            .map(|frame| iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all-zero is a valid message of nothing to nobody.
                let mut message: mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let start = Instant::now();
        let mut sent = 0;
        for batch in (0..messages.len() / BATCH).cycle() {
            let batch = &mut messages[batch * BATCH..][..BATCH];
            // SAFETY: the messages, their vectors and frames outlive the call, which writes to msg_len only.
            let result = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), batch.as_mut_ptr(), BATCH as libc::c_uint, 0)
            };
            match Errno::result(result) {
                Ok(count) => sent += u64::from(count.cast_unsigned()),
                // The far end's ring is full: this frame is lost before it is received, and not counted.
                Err(Errno::ENOBUFS) => {}
                Err(error) => return Err(error).context("sendmmsg"),
            }
            if start.elapsed() >= window {
                break;
            }
        }
        Ok((sent, start.elapsed().as_secs_f64()))
    }
}
