//! XDP: drops a banned or blacklisted client's SYN before the stack spends anything on it. Nothing else,
//! ever: what it can't read at a glance, and every reset, is left to TC, which takes the same decision.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use mailguard_common::decide::decide_early;
use mailguard_common::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Flow, Octets, Parsed, Version, parse};
use mailguard_common::tags::{TAG_OCTETS, is_priority_only, is_tag};

use crate::home::is_away;
use crate::lookups::{Maps, Sender};
use crate::maps::CONFIG;
use crate::stats::{count, report};
use crate::view::{Direct, ETHERNET_HEADER, ETHERNET_SOURCE};

/// Octets of the type that ends an Ethernet header and a tag.
const ETHERTYPE_OCTETS: usize = 2;
/// No verdict of the kernel's: the packet begins further on.
const TAGGED: u32 = u32::MAX;

impl Sender for Direct {
    #[inline(always)]
    fn mac(&self) -> Option<[u8; 6]> {
        self.octets(ETHERNET_SOURCE)
    }
}

/// The program. Few frames have a tag, and hardly any two: what lies behind more is TC's.
#[inline(always)]
pub(crate) fn early(ctx: &XdpContext) -> u32 {
    let mut verdict = judge::<ETHERNET_HEADER>(ctx.ctx);
    if verdict == TAGGED {
        verdict = judge::<{ ETHERNET_HEADER + TAG_OCTETS }>(ctx.ctx);
    }
    if verdict == TAGGED {
        verdict = judge::<{ ETHERNET_HEADER + 2 * TAG_OCTETS }>(ctx.ctx);
    }
    if verdict == TAGGED { XDP_PASS } else { verdict }
}

/// Judges the frame if its packet begins at `START`: places that the verifier needn't follow. [`TAGGED`] if a
/// tag of VID 0 stands there; one that the hardware took off isn't shown.
#[inline(never)]
fn judge<const START: usize>(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (data, end) = (ctx.data(), ctx.data_end());
    let frame = Direct { data, end, length: end - data };
    let Some(ethertype) = frame.octets::<2>(START - ETHERTYPE_OCTETS) else { return XDP_PASS };
    let version = match u16::from_be_bytes(ethertype) {
        ETHERTYPE_IPV4 => Version::V4,
        ETHERTYPE_IPV6 => Version::V6,
        ethertype if is_tag(ethertype) => {
            let tag = frame.octets::<2>(START);
            let follow = tag.is_some_and(|tag| is_priority_only(u16::from_be_bytes(tag)));
            return if follow { TAGGED } else { XDP_PASS };
        }
        _ => return XDP_PASS,
    };
    let mut flow = MaybeUninit::uninit();
    if parse(&frame, START, version, &mut flow) != Parsed::Smtp {
        return XDP_PASS;
    }
    // SAFETY: written, as Smtp says.
    let flow: Flow = unsafe { flow.assume_init() };
    let length = frame.length as u32;
    let Some(settings) = CONFIG.get(0) else { return XDP_PASS };
    let Some((reason, rule)) = decide_early(&flow, settings, &Maps { frame }) else { return XDP_PASS };
    if is_away(ctx.ctx.cast(), settings) {
        return XDP_PASS;
    }
    count(reason, Some(rule), length);
    report(reason, &flow, ctx.ingress_ifindex() as u32);
    XDP_DROP
}
