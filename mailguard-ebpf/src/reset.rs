//! Turns a refused SYN into the RST that answers it, and sends it back where it came from.

use aya_ebpf::bindings::{__sk_buff, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use mailguard_common::packet::{Flow, IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use mailguard_common::reset::{fold, ipv4_header, ipv6_header, pseudo_sum, sum, tcp_header};

use crate::view::ETHERNET_HEADER;

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: u32 = 16;

/// Rewrites the packet and returns the verdict that sends it out, or None if it can't be rewritten.
#[inline(never)]
pub(crate) fn reset(skb: *mut __sk_buff, flow: &Flow, start: u32) -> Option<i32> {
    if flow.is_ipv6() {
        rewrite(skb, flow, start, &ipv6_header(flow))?;
    } else {
        rewrite(skb, flow, start, &ipv4_header(flow))?;
    }
    if start as usize == ETHERNET_HEADER {
        swap_ethernet(skb)?;
    }
    // SAFETY: sends the packet out of the interface that it came in by.
    Some(unsafe { bpf_redirect((*skb).ifindex, 0) } as i32)
}

/// Writes both headers. The checksum is built by the helper: it knows whether the packet carries a finished one or,
/// between virtual interfaces, only the start of one that the hardware completes.
#[inline(always)]
fn rewrite<const N: usize>(skb: *mut __sk_buff, flow: &Flow, start: u32, ip: &[u8; N]) -> Option<()> {
    const { assert!(N == IPV4_HEADER || N == IPV6_HEADER) };
    let tcp = tcp_header(flow);
    let transport = start + N as u32;
    let checksum = transport + TCP_CHECKSUM;
    let whole = transport + TCP_HEADER as u32;
    // SAFETY: the helpers read only the arrays, and check offsets against the packet.
    let results = unsafe {
        let resized = bpf_skb_change_tail(skb, whole, 0);
        if resized != 0 {
            return None;
        }
        bpf_skb_store_bytes(skb, start, ip.as_ptr().cast(), N as u32, 0)
            | bpf_skb_store_bytes(skb, transport, tcp.as_ptr().cast(), TCP_HEADER as u32, 0)
            | bpf_l4_csum_replace(skb, checksum, 0, wire(pseudo_sum(flow)), BPF_F_PSEUDO_HDR as u64)
            | bpf_l4_csum_replace(skb, checksum, 0, wire(sum(&tcp)), 0)
    };
    (results == 0).then_some(())
}

/// A sum as the kernel keeps it: of words in network order.
#[inline(always)]
fn wire(sum: u32) -> u64 {
    fold(sum).to_be().into()
}

#[inline(always)]
fn swap_ethernet(skb: *mut __sk_buff) -> Option<()> {
    let mut addresses = [0u8; 12];
    // SAFETY: twelve octets are loaded into twelve.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, addresses.as_mut_ptr().cast(), 12) } != 0 {
        return None;
    }
    let mut swapped = [0u8; 12];
    let mut at = 0;
    while at < 6 {
        swapped[at] = addresses[at + 6];
        swapped[at + 6] = addresses[at];
        at += 1;
    }
    // SAFETY: twelve octets are stored from twelve.
    let stored = unsafe { bpf_skb_store_bytes(skb, 0, swapped.as_ptr().cast(), 12, 0) };
    (stored == 0).then_some(())
}
