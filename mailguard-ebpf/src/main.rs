//! mailguard's kernel part: the entry points.
//!
//! `steer` is the TC program of every zone interface; `early` is the XDP program; `reconnect` answers the
//! kernel's socket look-up. What they decide is in mailguard-common, tested on the host; here are only the
//! look-ups and the carrying out.

#![no_std]
#![no_main]

mod early;
mod home;
mod lookups;
mod maps;
mod reconnect;
mod reset;
mod sockets;
mod stats;
mod steer;
mod view;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS};
use aya_ebpf::macros::{classifier, sk_lookup, xdp};
use aya_ebpf::programs::{SkLookupContext, TcContext, XdpContext};

/// TC ingress.
#[classifier]
pub fn mg_steer(ctx: TcContext) -> i32 {
    steer::steer(ctx.skb.skb)
}

/// XDP, Ethernet.
#[xdp(frags)]
pub fn mg_early(ctx: XdpContext) -> u32 {
    early::early(&ctx)
}

/// The same for kernels that know no packets of several buffers (before 5.18).
#[xdp]
pub fn mg_early_linear(ctx: XdpContext) -> u32 {
    early::early(&ctx)
}

/// Socket look-up, one for the network namespace.
#[sk_lookup]
pub fn mg_reconnect(ctx: SkLookupContext) -> u32 {
    reconnect::reconnect(&ctx)
}

/// Nothing: what `cargo xtask bench packet` compares the TC program with.
#[classifier]
pub fn mg_empty_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Nothing: what `cargo xtask bench packet` compares the XDP program with.
#[xdp(frags)]
pub fn mg_empty_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Never reached: the programs hold nothing that panics, or the verifier would refuse them.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel gives some of the helpers only to programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
