//! Hears from the kernel when what we go by changes, and says when it is time to look without being told: not
//! everything that others may undo is announced. For the kernel side that is an interface, a rule, a route of
//! our table or a TC filter; for `own_addresses` a route of the local table.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::drift::Occasion;

/// How often everything is looked at, whether anything was announced or not.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Changes of the kernel side that come within this time are one: making an interface is several.
const SETTLE_TIME: Duration = Duration::from_millis(20);
/// Announcements that the kernel keeps for us, octets. What doesn't fit is lost and an error says so, which
/// is as good: the next look sees it.
const RECEIVE_BUFFER_OCTETS: usize = 32 * 1024;

/// How many of them are taken in one go: who comes faster than that is met at the next.
const MAX_DRAINED: usize = 1024;

/// What a subscriber is told of.
pub(super) struct Topics {
    /// Groups of linux/rtnetlink.h.
    groups: u32,
    /// Of routes those of this table only, as `rtm_table` says it: in others there may be a million, and a
    /// routing daemon that replaces them all at once.
    routes_of: u8,
    /// Pause between an announcement and the look; what else is announced meanwhile belongs to it.
    settle: Duration,
}

const ROUTES: u32 = (libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE) as u32;

/// Links, TC, rules and routes of both families. Our table's number doesn't fit in an octet.
const KERNEL_SIDE: Topics = Topics {
    groups: (libc::RTMGRP_LINK | libc::RTMGRP_TC | libc::RTMGRP_IPV4_RULE) as u32
        | 1 << (libc::RTNLGRP_IPV6_RULE - 1)
        | ROUTES,
    routes_of: libc::RT_TABLE_COMPAT,
    settle: SETTLE_TIME,
};
const _: () = assert!(super::TABLE > 255);

/// What arrives here. Looked at without a pause: whoever dials a new address may be there already.
pub(super) const LOCAL_ROUTES: Topics =
    Topics { groups: ROUTES, routes_of: libc::RT_TABLE_LOCAL, settle: Duration::ZERO };

/// Calls `changed` after each change of the kernel side, and every [`LOOK_EVERY`], from a thread of its own,
/// until it returns false.
pub fn watch_kernel(changed: impl Fn(Occasion) -> bool + Send + 'static) -> io::Result<()> {
    Subscription::open(KERNEL_SIDE)?.follow("kernel", changed)
}

/// Announcements that wait to be taken.
pub(super) struct Subscription {
    socket: OwnedFd,
    settle: Duration,
}

impl Subscription {
    /// From here on nothing is missed.
    pub(super) fn open(topics: Topics) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_OCTETS)?;
        only_routes_of(topics.routes_of, &socket)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, topics.groups))?;
        Ok(Self { socket, settle: topics.settle })
    }

    /// Calls `changed` after each announcement, and every [`LOOK_EVERY`], from a thread of this name, until
    /// it returns false.
    pub(super) fn follow(
        self,
        name: &str,
        changed: impl Fn(Occasion) -> bool + Send + 'static,
    ) -> io::Result<()> {
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut looked = Instant::now();
            while self.heard(looked).is_none_or(&changed) {
                if looked.elapsed() >= LOOK_EVERY {
                    looked = Instant::now();
                    if !changed(Occasion::Look) {
                        return;
                    }
                }
            }
        })?;
        Ok(())
    }

    /// Waits for an announcement, until it is time to look; what else is announced meanwhile belongs to it.
    fn heard(&self, looked: Instant) -> Option<Occasion> {
        let left = LOOK_EVERY.saturating_sub(looked.elapsed()).max(Duration::from_millis(1));
        let timeout = TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros()));
        let waited = setsockopt(&self.socket, sockopt::ReceiveTimeout, &timeout)
            .and_then(|()| receive(&self.socket, MsgFlags::empty()));
        match waited {
            Err(Errno::EAGAIN | Errno::EINTR) => return None,
            Ok(()) => thread::sleep(self.settle),
            // ENOBUFS: something was missed. Others aren't expected, and must not make us spin.
            Err(_) => thread::sleep(SETTLE_TIME),
        }
        let more =
            |_: &usize| matches!(receive(&self.socket, MsgFlags::MSG_DONTWAIT), Ok(()) | Err(Errno::ENOBUFS));
        let _ = (0..MAX_DRAINED).take_while(more).count();
        Some(Occasion::Event)
    }
}

/// Takes one announcement. What it says is read anew from where it stands: its first octets will do.
fn receive(socket: &OwnedFd, flags: MsgFlags) -> nix::Result<()> {
    recv(socket.as_raw_fd(), &mut [0; 16], flags).map(|_| ())
}

/// Has the kernel leave out the routes of other tables.
fn only_routes_of(table: u8, socket: &OwnedFd) -> io::Result<()> {
    /// Where `nlmsg_type` is in a message, and `rtm_table` in one about a route.
    const TYPE: u32 = 4;
    const ROUTE_TABLE: u32 = 20;
    let (load_half, load_octet) =
        (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
    let (equal, end) = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET | libc::BPF_K);
    // The filter reads in network order what stands there in the host's.
    let kind = |kind: u16| u32::from(kind.to_be());
    let mut program = [
        (load_half, 0, 0, TYPE),
        (equal, 1, 0, kind(libc::RTM_NEWROUTE)),
        (equal, 0, 2, kind(libc::RTM_DELROUTE)),
        (load_octet, 0, 0, ROUTE_TABLE),
        (equal, 0, 1, u32::from(table)),
        (end, 0, 0, u32::MAX),
        (end, 0, 0, 0),
    ]
    .map(|(code, jt, jf, k)| libc::sock_filter { code: code as u16, jt, jf, k });
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is alive until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
