//! Turns a refused SYN into the RST that answers it, and sends it back where it came from.

use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_store_bytes,
};
use mailguard_common::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Flow, IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use mailguard_common::reset::{fold, ipv4_header, ipv6_header, pseudo_sum, sum, tcp_header};

use crate::view::{Aligned, ETHERNET_HEADER, ethernet_addresses};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: u32 = 16;

/// Rewrites the packet and returns the verdict that sends it out, or None if it can't be rewritten. It goes
/// out of the interface that it came in by.
#[inline(never)]
pub(crate) fn reset(skb: *mut __sk_buff, flow: &Flow, ethernet: bool) -> Option<i32> {
    let start = u32::from(flow.network);
    if flow.is_ipv6() {
        rewrite(skb, flow, start, &Aligned(ipv6_header(flow)))?;
    } else {
        rewrite(skb, flow, start, &Aligned(ipv4_header(flow)))?;
    }
    if ethernet {
        rewrite_ethernet(skb, flow, start)?;
    }
    // SAFETY: the context is valid while the program runs.
    Some(unsafe { bpf_redirect((*skb).ifindex, 0) } as i32)
}

/// Writes both headers. The checksum is built by the helper: it knows whether the packet carries a finished
/// one or, between virtual interfaces, only the start of one that the hardware completes.
#[inline(always)]
fn rewrite<const N: usize>(skb: *mut __sk_buff, flow: &Flow, start: u32, ip: &Aligned<N>) -> Option<()> {
    const { assert!(N == IPV4_HEADER || N == IPV6_HEADER) };
    let tcp = Aligned(tcp_header(flow));
    let transport = start + N as u32;
    let checksum = transport + TCP_CHECKSUM;
    let whole = transport + TCP_HEADER as u32;
    // SAFETY: the helpers read only the arrays, and check offsets against the packet.
    let results = unsafe {
        let resized = bpf_skb_change_tail(skb, whole, 0);
        if resized != 0 {
            return None;
        }
        bpf_skb_store_bytes(skb, start, ip.0.as_ptr().cast(), N as u32, 0)
            | bpf_skb_store_bytes(skb, transport, tcp.0.as_ptr().cast(), TCP_HEADER as u32, 0)
            | bpf_l4_csum_replace(skb, checksum, 0, wire(pseudo_sum(flow)), BPF_F_PSEUDO_HDR as u64)
            | bpf_l4_csum_replace(skb, checksum, 0, wire(sum(&tcp.0)), 0)
    };
    (results == 0).then_some(())
}

/// A sum as the kernel keeps it: of words in network order.
#[inline(always)]
fn wire(sum: u32) -> u64 {
    fold(sum).to_be().into()
}

/// Back to the sender. Where the program isn't shown the Ethernet header, room for one is made first.
#[inline(always)]
fn rewrite_ethernet(skb: *mut __sk_buff, flow: &Flow, start: u32) -> Option<()> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = ethernet_addresses(skb)?.0;
    let [m, n] = if flow.is_ipv6() { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }.to_be_bytes();
    let header: Aligned<ETHERNET_HEADER> = Aligned([g, h, i, j, k, l, a, b, c, d, e, f, m, n]);
    // SAFETY: fourteen octets are stored from fourteen.
    let results = unsafe {
        let room = if start == 0 { bpf_skb_change_head(skb, ETHERNET_HEADER as u32, 0) } else { 0 };
        if room != 0 {
            return None;
        }
        bpf_skb_store_bytes(skb, 0, header.0.as_ptr().cast(), ETHERNET_HEADER as u32, 0)
    };
    (results == 0).then_some(())
}
