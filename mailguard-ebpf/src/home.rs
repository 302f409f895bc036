//! Whether a program runs in the network namespace that it was attached in. Its interface may be moved to
//! another one, and the program goes with it; while the datapath process lives it is taken off then,
//! otherwise it must find out by itself.
//!
//! No helper says where a received packet is: `bpf_get_netns_cookie` speaks of the sender's socket, or of the
//! first namespace (ADR 20). But the socket look-up program stays behind with its namespace: it answers a
//! look-up that no packet makes, and where it doesn't answer is elsewhere.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_sk_release, bpf_skc_lookup_tcp};
use mailguard_common::maps::{SMTP_PORT, Settings};

use crate::maps::HOME;

/// Octets of an IPv4 tuple.
const TUPLE_OCTETS: u32 = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;

/// Whether to leave everything alone: nobody takes the program off, and its interface is in another
/// namespace. `ctx` is TC's or XDP's.
#[inline(always)]
pub(crate) fn is_away(ctx: *mut c_void, settings: &Settings) -> bool {
    // SAFETY: no arguments, no effects.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    !settings.proxy_alive(now) && !is_home(ctx)
}

/// Asks the socket look-up program of the namespace that the packet is in.
#[inline(never)]
fn is_home(ctx: *mut c_void) -> bool {
    let Some(answer) = HOME.get_ptr_mut(0) else { return true };
    let mut tuple = MaybeUninit::<bpf_sock_tuple>::uninit();
    let to = tuple.as_mut_ptr();
    // SAFETY: the slot is this CPU's own until the program ends, and changes under the call; the tuple is
    // written as far as it says that it is; a socket that is found is released.
    unsafe {
        answer.write_volatile(0);
        (*to).__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: 0,
            daddr: 0,
            sport: 0,
            dport: SMTP_PORT.to_be(),
        };
        let socket = bpf_skc_lookup_tcp(ctx, to, TUPLE_OCTETS, BPF_F_CURRENT_NETNS as u64, 0);
        if !socket.is_null() {
            bpf_sk_release(socket.cast());
        }
        answer.read_volatile() != 0
    }
}

/// Whether this is the look-up of [`is_home`]: nobody's connection comes from port 0 of no address.
#[inline(always)]
pub(crate) fn is_asked(address: u32, port: u16) -> bool {
    address == 0 && port == 0
}

/// Answers it.
#[inline(always)]
pub(crate) fn answer() {
    if let Some(answer) = HOME.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own, which is the one that asks.
        unsafe { answer.write_volatile(1) };
    }
}
