//! Closed sessions that the kernel remembers (TIME_WAIT), and has to forget when packets are to pass without
//! us.
//!
//! A client may come again from a port whose session with us is closed. Where its connection is forwarded,
//! the stack finds our old socket first (net.ipv4.ip_early_demux), and drops what it is to forward and has a
//! socket for: the client waits until the minute of TIME_WAIT is over. While the TC program is there it leads
//! the packet around (`mailguard-ebpf/src/steer.rs`); when it is taken off, or somebody may take it off any
//! time, the sockets are destroyed by sock_diag (sock_diag(7), linux/inet_diag.h).
//!
//! Ours are those at port 25 of an address that isn't this machine's: only a transparent listener has such
//! sessions, and what the machine's own servers remember is never touched.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use mailguard_common::maps::SMTP_PORT;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::DatapathError;
use super::local::{Delivery, deliveries};
use crate::intercept::has_ipv6;

/// What follows when the kernel doesn't destroy them.
const KEPT: &str = "a client that comes again from the same port waits for up to a minute; with \
                    net.ipv4.ip_early_demux = 0 it doesn't";
/// Sockets that are destroyed in one go: the rest is for the next.
const MAX_SOCKETS: usize = 1 << 18;
/// Octets of the kernel's answer that are read at once: it sends no more in one piece.
const ANSWER_OCTETS: usize = 32 * 1024;
/// Longest wait for an answer of the kernel, seconds.
const ANSWER_SECONDS: i64 = 5;

/// States of TCP (linux/tcp.h).
const FIN_WAIT_1: u32 = 4;
const FIN_WAIT_2: u32 = 5;
const TIME_WAIT: u32 = 6;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// Message types of sock_diag.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// Octets of the head of a netlink message, of a socket's identity, and of what comes before and after it in
/// an answer.
const HEAD_OCTETS: usize = 16;
const ID_OCTETS: usize = 48;
const BEFORE_ID: usize = 4;
const AFTER_ID: usize = 20;

/// Which sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Both ends have said all that they had to say, or the client needn't hear more.
    Closed,
    /// Those whose last words are still on their way, too: nothing will lead the answers to them any more.
    Orphaned,
}

impl Which {
    fn states(self) -> u32 {
        let closed = 1 << TIME_WAIT | 1 << FIN_WAIT_2;
        match self {
            Self::Closed => closed,
            Self::Orphaned => closed | 1 << FIN_WAIT_1 | 1 << LAST_ACK | 1 << CLOSING,
        }
    }
}

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    /// Destroyed.
    pub(super) sessions: usize,
    /// Why some of them are still there.
    pub(super) kept: Option<String>,
}

/// A socket as sock_diag names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    family: u8,
    /// Ports, addresses, interface and cookie, as they came: they are handed back like this.
    id: [u8; ID_OCTETS],
    /// 0 once no process has it.
    inode: u32,
}

impl Session {
    /// Reads what follows the head of an answer.
    fn parse(payload: &[u8]) -> Option<Self> {
        let id = payload.get(BEFORE_ID..BEFORE_ID + ID_OCTETS)?.try_into().ok()?;
        let after = payload.get(BEFORE_ID + ID_OCTETS..BEFORE_ID + ID_OCTETS + AFTER_ID)?;
        let inode = u32::from_ne_bytes(after.last_chunk::<4>().copied()?);
        Some(Self { family: *payload.first()?, id, inode })
    }

    fn port(&self) -> u16 {
        u16::from_be_bytes([self.id[0], self.id[1]])
    }

    /// The address at our end.
    fn address(&self) -> IpAddr {
        let octets: [u8; 16] = self.id[4..20].first_chunk().copied().unwrap_or_default();
        match i32::from(self.family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            _ => IpAddr::V6(Ipv6Addr::from(octets)),
        }
    }
}

/// Has the kernel forget our sessions.
pub(super) fn forget(which: Which) -> Forgotten {
    forget_or_fail(which)
        .unwrap_or_else(|error| Forgotten { sessions: 0, kept: Some(format!("{error}: {KEPT}")) })
}

fn forget_or_fail(which: Which) -> Result<Forgotten, DatapathError> {
    let diag = Diag::open().map_err(DatapathError::SockDiag)?;
    let mut sessions = Vec::new();
    for family in [libc::AF_INET].into_iter().chain(has_ipv6().then_some(libc::AF_INET6)) {
        let found = diag.sessions(family as u8, which.states()).map_err(DatapathError::SockDiag)?;
        sessions
            .extend(found.into_iter().filter(|session| session.port() == SMTP_PORT && session.inode == 0));
    }
    let addresses: Vec<IpAddr> =
        sessions.iter().map(Session::address).collect::<BTreeSet<_>>().into_iter().collect();
    let deliveries = deliveries(&addresses)?;
    let elsewhere = addresses.iter().zip(deliveries).filter(|(_, delivery)| *delivery == Delivery::Elsewhere);
    let foreign: BTreeSet<&IpAddr> = elsewhere.map(|(address, _)| address).collect();
    let ours = sessions.iter().filter(|session| foreign.contains(&session.address()));
    let mut forgotten = Forgotten::default();
    let mut refusals = 0;
    for session in ours.take(MAX_SOCKETS) {
        match diag.destroy(session) {
            Ok(()) => forgotten.sessions += 1,
            // Its time was over just then.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => {
                refusals += 1;
                let refused = format!("{refusals} closed sessions can't be removed by this kernel");
                forgotten.kept = Some(format!("{refused} ({error}; CONFIG_INET_DIAG_DESTROY): {KEPT}"));
            }
        }
    }
    Ok(forgotten)
}

/// A socket of sock_diag.
struct Diag(OwnedFd);

impl Diag {
    fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
        Ok(Self(socket))
    }

    /// The TCP sockets of this family in these states.
    fn sessions(&self, family: u8, states: u32) -> io::Result<Vec<Session>> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        self.send(&request(SOCK_DIAG_BY_FAMILY, flags, family, states, &[0; ID_OCTETS]))?;
        let mut sessions = Vec::new();
        let mut buffer = vec![0; ANSWER_OCTETS];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, payload) in messages(&buffer[..length]) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(sessions),
                    libc::NLMSG_ERROR => return Err(refusal(payload)),
                    _ => sessions.extend(Session::parse(payload)),
                }
            }
        }
    }

    fn destroy(&self, session: &Session) -> io::Result<()> {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        self.send(&request(SOCK_DESTROY, flags, session.family, 0, &session.id))?;
        let mut buffer = [0; 1024];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let payload = messages(&buffer[..length]).next().map(|(_, payload)| payload);
        let error = refusal(payload.unwrap_or_default());
        if error.raw_os_error() == Some(0) { Ok(()) } else { Err(error) }
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), message, MsgFlags::empty())?;
        Ok(())
    }
}

/// A request of sock_diag: `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; ID_OCTETS]) -> Vec<u8> {
    let length = (HEAD_OCTETS + 8 + ID_OCTETS) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    message.extend(states.to_ne_bytes());
    message.extend(id);
    message
}

/// Kinds and payloads of the messages in what was received.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*octets.first_chunk::<4>()?) as usize;
        let message = octets.get(..length)?;
        let kind = u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]);
        let payload = message.get(HEAD_OCTETS..)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// What a `struct nlmsgerr` says; 0: that all is well.
fn refusal(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk::<4>().map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(-code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer about a socket at port 25 of 192.0.2.1.
    fn answer(inode: u32) -> Vec<u8> {
        let mut payload = vec![libc::AF_INET as u8, TIME_WAIT as u8, 0, 0];
        let mut id = [0; ID_OCTETS];
        id[..8].copy_from_slice(&[0, 25, 0x9c, 0x40, 192, 0, 2, 1]);
        payload.extend(id);
        payload.extend([0; 16]);
        payload.extend(inode.to_ne_bytes());
        let mut message = ((HEAD_OCTETS + payload.len()) as u32).to_ne_bytes().to_vec();
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(payload);
        message
    }

    #[test]
    fn answers_of_the_kernel_are_read_one_after_the_other() {
        let text = [answer(0), answer(7)].concat();
        let sessions: Vec<_> = messages(&text).filter_map(|(_, payload)| Session::parse(payload)).collect();
        assert_eq!(sessions.iter().map(|session| session.inode).collect::<Vec<_>>(), [0, 7]);
        assert_eq!(sessions[0].port(), 25);
        assert_eq!(sessions[0].address(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn an_answer_that_is_cut_off_says_nothing() {
        let text = answer(0);
        for length in 0..text.len() {
            assert_eq!(messages(&text[..length]).count(), 0, "{length}");
        }
        assert_eq!(Session::parse(&[0; 20]), None);
        assert_eq!(refusal(&[]).raw_os_error(), Some(libc::EIO));
    }
}
