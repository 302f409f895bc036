//! A client that reconnects from the same port while the kernel remembers the last connection.
//!
//! The kernel then looks for a listener at the destination address, where there is none of ours. `steer` has
//! noted the tuple; this program, asked by that look-up, answers with the zone's listener, once.
//!
//! It belongs to the network namespace, which is what it tells programs that don't know where they are
//! (`home`).

use aya_ebpf::programs::SkLookupContext;
use mailguard_common::maps::{BYPASSED, SMTP_PORT, Tuple};
use mailguard_common::packet::mapped;

use crate::home;
use crate::maps::{LISTENERS, TWSYN};

/// The verdict that ends the look-up: there is no socket.
const SK_DROP: u32 = 0;
/// The verdict that lets the look-up go on, with the socket that was assigned, if any.
const SK_PASS: u32 = 1;
const TCP: u32 = 6;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// The program.
#[inline(always)]
pub(crate) fn reconnect(ctx: &SkLookupContext) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: the context is valid while the program runs.
    let (protocol, port, family) = unsafe { ((*lookup).protocol, (*lookup).local_port, (*lookup).family) };
    if protocol != TCP || port != u32::from(SMTP_PORT) {
        return SK_PASS;
    }
    match family {
        AF_INET => answer_v4(ctx),
        AF_INET6 => answer_v6(ctx),
        _ => SK_PASS,
    }
}

// Two functions, not inlined: merged into one, the two reads would go by a computed context pointer, which
// the verifier refuses.

#[inline(never)]
fn answer_v4(ctx: &SkLookupContext) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: the context is valid while the program runs.
    let (address, port) = unsafe { ((*lookup).remote_ip4, (*lookup).remote_port) };
    if home::is_asked(address, port) {
        home::answer();
        return SK_DROP;
    }
    // SAFETY: as above.
    let destination = unsafe { (*lookup).local_ip4 };
    let tuple = Tuple {
        source: mapped(address.to_ne_bytes()),
        destination: mapped(destination.to_ne_bytes()),
        source_port: port.to_ne_bytes(),
        padding: [0; 2],
    };
    answer(ctx, &tuple);
    SK_PASS
}

#[inline(never)]
fn answer_v6(ctx: &SkLookupContext) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: as above.
    let tuple = unsafe {
        Tuple {
            source: octets((*lookup).remote_ip6),
            destination: octets((*lookup).local_ip6),
            source_port: (*lookup).remote_port.to_ne_bytes(),
            padding: [0; 2],
        }
    };
    answer(ctx, &tuple);
    SK_PASS
}

#[inline(always)]
fn answer(ctx: &SkLookupContext, tuple: &Tuple) {
    // SAFETY: a note that is replaced meanwhile yields another zone's listener at worst.
    let Some(note) = (unsafe { TWSYN.get(tuple) }).copied() else { return };
    if note.listener == BYPASSED {
        return;
    }
    // Either call may fail: then the kernel finds no listener, and the client tries again.
    let _ = TWSYN.remove(tuple);
    let _ = LISTENERS.redirect_sk_lookup(ctx, note.listener, 0);
}

#[inline(always)]
fn octets(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}
