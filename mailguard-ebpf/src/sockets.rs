//! Sockets: which one a packet belongs to, whether it is ours, and giving the packet to one that the stack
//! wouldn't find.
//!
//! One function a version of IP, none of them inlined and none touching a map while it holds a socket: that
//! keeps the verifier's work small. Each field of a socket is read once, into a local.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{
    bpf_get_listener_sock, bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_fullsock, bpf_sk_release,
    bpf_skb_load_bytes, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie,
};
use mailguard_common::decide::{PacketVerdict, Socket, by_socket};
use mailguard_common::maps::{SMTP_PORT, SOCKET_MARK};
use mailguard_common::packet::{Flow, IPV4_HEADER, IPV6_HEADER, TCP_HEADER};

use crate::maps::LISTENERS;

/// States of a TCP socket, as `bpf_sock.state` has them.
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;
const NEW_SYN_RECV: u32 = 12;

/// What is done with the socket that is found.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Nothing, where it is a session of ours: the mark, which the caller sets, has the packet delivered
    /// here, and the stack finds the same socket again. It then goes by the session's own route
    /// (net.ipv4.ip_early_demux); a packet with a socket assigned would have its route looked up, and its
    /// source's, each time.
    Deliver,
    /// A closed session that the kernel remembers is assigned to the packet.
    DeliverToClosed,
    /// Nothing.
    Look,
}

/// What was found, and done.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// No socket, or only a listening one.
    None,
    /// A socket that isn't ours.
    Foreign,
    /// A closed session that the kernel remembers; nothing was done.
    TimeWait,
    /// A socket of ours; with [`Purpose::Look`] nothing was done.
    Ours,
    /// The kernel refused the assignment.
    Refused,
}

/// Finds the socket of an IPv4 flow.
#[inline(never)]
pub(crate) fn find_v4(skb: *mut __sk_buff, flow: &Flow, purpose: Purpose) -> Found {
    // Not zeroed first: what an IPv4 tuple hasn't got isn't looked at.
    let mut tuple = MaybeUninit::<bpf_sock_tuple>::uninit();
    let to = tuple.as_mut_ptr();
    // SAFETY: the tuple is written as far as it says that it is; the reference is released in `settle`.
    unsafe {
        (*to).__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: u32::from_ne_bytes(flow.source_v4()),
            daddr: u32::from_ne_bytes(flow.destination_v4()),
            sport: u16::from_ne_bytes(flow.source_port),
            dport: SMTP_PORT.to_be(),
        };
        let socket = bpf_skc_lookup_tcp(skb.cast(), to, 12, BPF_F_CURRENT_NETNS as u64, 0);
        settle(skb, socket, purpose)
    }
}

/// Finds the socket of an IPv6 flow.
#[inline(never)]
pub(crate) fn find_v6(skb: *mut __sk_buff, flow: &Flow, purpose: Purpose) -> Found {
    let mut tuple = MaybeUninit::<bpf_sock_tuple>::uninit();
    let to = tuple.as_mut_ptr();
    // SAFETY: as above.
    unsafe {
        (*to).__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: words(&flow.source),
            daddr: words(&flow.destination),
            sport: u16::from_ne_bytes(flow.source_port),
            dport: SMTP_PORT.to_be(),
        };
        let socket = bpf_skc_lookup_tcp(skb.cast(), to, 36, BPF_F_CURRENT_NETNS as u64, 0);
        settle(skb, socket, purpose)
    }
}

/// An IPv6 address as the tuple has it.
#[inline(always)]
fn words(address: &[u8; 16]) -> [u32; 4] {
    let word =
        |at: usize| u32::from_ne_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// Does what is to be done with `socket`, and releases it.
///
/// # Safety
/// `socket` comes from `bpf_skc_lookup_tcp` and is null or holds a reference.
#[inline(always)]
unsafe fn settle(skb: *mut __sk_buff, socket: *mut bpf_sock, purpose: Purpose) -> Found {
    if socket.is_null() {
        return Found::None;
    }
    // SAFETY: not null, and referenced until the release at the end.
    unsafe {
        let class = classify(socket, purpose == Purpose::DeliverToClosed);
        let found = match (class, by_socket(class)) {
            (_, Some(PacketVerdict::Assign)) => {
                if purpose != Purpose::DeliverToClosed || bpf_sk_assign(skb.cast(), socket.cast(), 0) == 0 {
                    Found::Ours
                } else {
                    Found::Refused
                }
            }
            (Socket::TimeWait, _) => Found::TimeWait,
            (Socket::Foreign, _) => Found::Foreign,
            _ => Found::None,
        };
        bpf_sk_release(socket.cast());
        found
    }
}

/// Whose the socket is. The mark of a half-open one is its listener's; a closed one has none: the caller says
/// whether it shall count as ours.
///
/// # Safety
/// `socket` is a referenced sock_common.
#[inline(always)]
unsafe fn classify(socket: *mut bpf_sock, closed_is_ours: bool) -> Socket {
    // SAFETY: the caller's promise; what the helpers return is null or valid as long as `socket` is.
    unsafe {
        let state = (*socket).state;
        if state == LISTEN {
            return Socket::None;
        }
        if state == TIME_WAIT {
            return if closed_is_ours { Socket::Ours } else { Socket::TimeWait };
        }
        let marked = if state == NEW_SYN_RECV {
            let listener = bpf_get_listener_sock(socket);
            // Without a listener the half-open connection fails by itself, once it has the packet.
            if listener.is_null() { SOCKET_MARK } else { (*listener).mark }
        } else {
            let full = bpf_sk_fullsock(socket);
            if full.is_null() { 0 } else { (*full).mark }
        };
        if marked & SOCKET_MARK != 0 { Socket::Ours } else { Socket::Foreign }
    }
}

/// What a listener did with a packet.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// There is no listener.
    Nobody,
    /// It has the packet.
    Taken,
    /// It says that the packet answers no cookie of its own.
    NotMine,
    /// The kernel refused the assignment.
    Refused,
}

/// The listener at `index`, with a reference to be released, or null.
#[inline(always)]
fn listener(index: u32) -> *mut bpf_sock {
    // SAFETY: the map is a socket map, whose look-up returns null or a referenced socket.
    unsafe { bpf_map_lookup_elem((&raw const LISTENERS) as *mut _, (&raw const index).cast()).cast() }
}

/// Whether there is a listener at `index`.
#[inline(never)]
pub(crate) fn has_listener(index: u32) -> bool {
    let socket = listener(index);
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, referenced.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

/// Gives the packet to the listener at `index`.
#[inline(never)]
pub(crate) fn offer(skb: *mut __sk_buff, index: u32) -> Offered {
    let socket = listener(index);
    if socket.is_null() {
        return Offered::Nobody;
    }
    // SAFETY: not null, referenced until the release.
    let assigned = unsafe { bpf_sk_assign(skb.cast(), socket.cast(), 0) };
    // SAFETY: as above.
    unsafe { bpf_sk_release(socket.cast()) };
    if assigned == 0 { Offered::Taken } else { Offered::Refused }
}

/// Gives an IPv4 packet to the listener at `index` if it answers a SYN cookie.
#[inline(never)]
pub(crate) fn offer_answer_v4(skb: *mut __sk_buff, start: u32, transport: u32, index: u32) -> Offered {
    offer_answer::<IPV4_HEADER>(skb, start, transport, index)
}

/// Gives an IPv6 packet to the listener at `index` if it answers a SYN cookie.
#[inline(never)]
pub(crate) fn offer_answer_v6(skb: *mut __sk_buff, start: u32, transport: u32, index: u32) -> Offered {
    offer_answer::<IPV6_HEADER>(skb, start, transport, index)
}

#[inline(always)]
fn offer_answer<const N: usize>(skb: *mut __sk_buff, start: u32, transport: u32, index: u32) -> Offered {
    let mut ip = [0u8; N];
    let mut tcp = [0u8; TCP_HEADER];
    // SAFETY: the helpers write no more than the arrays hold, and read no further than that; the socket isn't
    // null where it is used, and is released once.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), start, ip.as_mut_ptr().cast(), N as u32) != 0
            || bpf_skb_load_bytes(skb.cast(), transport, tcp.as_mut_ptr().cast(), TCP_HEADER as u32) != 0
        {
            return Offered::NotMine;
        }
        let socket = listener(index);
        if socket.is_null() {
            return Offered::Nobody;
        }
        let (ip, tcp) = (ip.as_mut_ptr().cast(), tcp.as_mut_ptr().cast());
        let offered = if bpf_tcp_check_syncookie(socket.cast(), ip, N as u32, tcp, TCP_HEADER as u32) != 0 {
            Offered::NotMine
        } else if bpf_sk_assign(skb.cast(), socket.cast(), 0) == 0 {
            Offered::Taken
        } else {
            Offered::Refused
        };
        bpf_sk_release(socket.cast());
        offered
    }
}
