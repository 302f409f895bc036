//! XDP: drops a banned or blacklisted client's SYN before the stack spends anything on it. Nothing else, ever: what it can't
//! read at a glance, and every reset, is left to TC, which takes the same decision.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::programs::XdpContext;
use mailguard_common::decide::decide_early;
use mailguard_common::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Flow, Octets, Parsed, Version, parse};

use crate::lookups::{Maps, Sender};
use crate::maps::CONFIG;
use crate::stats::{count, report};
use crate::view::{Direct, ETHERNET_HEADER, ETHERNET_SOURCE};

/// Offset of the type in an Ethernet header.
const ETHERNET_TYPE: usize = 12;

impl Sender for Direct {
    #[inline(always)]
    fn mac(&self) -> Option<[u8; 6]> {
        self.octets(ETHERNET_SOURCE)
    }
}

/// The program.
#[inline(always)]
pub(crate) fn early(ctx: &XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    let frame = Direct { data, end, length: end - data };
    let Some(ethertype) = frame.octets::<2>(ETHERNET_TYPE) else { return XDP_PASS };
    let version = match u16::from_be_bytes(ethertype) {
        ETHERTYPE_IPV4 => Version::V4,
        ETHERTYPE_IPV6 => Version::V6,
        _ => return XDP_PASS,
    };
    let mut flow = MaybeUninit::uninit();
    if parse(&frame, ETHERNET_HEADER, version, &mut flow) != Parsed::Smtp {
        return XDP_PASS;
    }
    // SAFETY: written, as Smtp says.
    let flow: Flow = unsafe { flow.assume_init() };
    let length = frame.length as u32;
    let Some(settings) = CONFIG.get(0) else { return XDP_PASS };
    let Some((reason, rule)) = decide_early(&flow, settings, &Maps { frame }) else { return XDP_PASS };
    count(reason, Some(rule), length);
    report(reason, &flow, ctx.ingress_ifindex() as u32);
    XDP_DROP
}
