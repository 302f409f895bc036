//! Two ways to a packet's octets: straight from memory, which is quick and sees the linear part only, and by
//! the helper that finds everything.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::bindings::bpf_hdr_start_off::BPF_HDR_START_MAC;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative};
use mailguard_common::packet::Octets;

/// Octets of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// Longest link-layer header that is believed: an IPv6 tunnel's outer headers fit.
const MAX_LINK_HEADER: usize = 128;
/// Offset of the source address in it.
pub(crate) const ETHERNET_SOURCE: usize = 6;

/// Octets of the link-layer header that the program is shown before the packet.
///
/// PPP, tun and most tunnels have none; a tunnel without a fixed peer shows its outer header, a VLAN
/// interface with `reorder_hdr off` an Ethernet header with the tag. Generic XDP has the kernel copy packets
/// and forget how long that header is (seen on 6.18): then the program is shown the packet without it, on
/// Ethernet too. What tells is the length that the receive path noted, which never counts that header.
#[inline(always)]
pub(crate) fn link_header(skb: *mut __sk_buff, frame: &Direct) -> usize {
    // SAFETY: the context is valid while the program runs.
    let noted = unsafe { (*skb).wire_len as usize };
    let shown = frame.length.wrapping_sub(noted);
    // A test run notes no length.
    if noted != 0 && shown <= MAX_LINK_HEADER { shown } else { ETHERNET_HEADER }
}

/// Whether an IP packet begins with the frame, of which that was said: so that a kernel that notes another
/// length does no harm.
#[inline(always)]
pub(crate) fn begins_with_packet(frame: &Direct) -> bool {
    // Two octets, for a check of one alone becomes a comparison that the verifier learns nothing from.
    frame.octets::<2>(0).is_some_and(|[first, _]| first >> 4 == 4 || first >> 4 == 6)
}

/// The Ethernet addresses of the frame, whether or not the program is shown them. Only for Ethernet
/// interfaces.
#[inline(always)]
pub(crate) fn ethernet_addresses(skb: *mut __sk_buff) -> Option<Aligned<12>> {
    from_ethernet_header(skb, 0)
}

/// The source address of the frame, in the same way.
#[inline(always)]
pub(crate) fn ethernet_source(skb: *mut __sk_buff) -> Option<Aligned<6>> {
    from_ethernet_header(skb, ETHERNET_SOURCE)
}

/// Octets on the stack, where the verifier wants every access aligned.
#[repr(align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Aligned<const N: usize>(pub(crate) [u8; N]);

#[inline(always)]
fn from_ethernet_header<const N: usize>(skb: *mut __sk_buff, offset: usize) -> Option<Aligned<N>> {
    let mut octets = MaybeUninit::<Aligned<N>>::uninit();
    // SAFETY: the helper writes N octets at most.
    let result = unsafe {
        let to = octets.as_mut_ptr().cast();
        bpf_skb_load_bytes_relative(skb.cast(), offset as u32, to, N as u32, BPF_HDR_START_MAC)
    };
    // SAFETY: 0 says that all of them were written.
    (result == 0).then(|| unsafe { octets.assume_init() })
}

/// The linear part, by pointer.
pub(crate) struct Direct {
    /// Address of the first octet.
    pub(crate) data: usize,
    /// Address after the last octet.
    pub(crate) end: usize,
    /// Octets of the whole frame.
    pub(crate) length: usize,
}

impl Octets for Direct {
    // The verifier follows computed offsets of direct access with difficulty; such packets are rare.
    const WALKS: bool = false;

    #[inline(always)]
    fn octets<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.data + offset;
        if at + N > self.end {
            return None;
        }
        let mut octets = MaybeUninit::<[u8; N]>::uninit();
        let (from, to) = (at as *const u8, octets.as_mut_ptr().cast::<u8>());
        let mut done = 0;
        // By words, for octet by octet it takes thrice the instructions. x86-64 and arm64 don't mind where
        // these lie, and the kernel's verifier refuses the program where the processor would. SAFETY: the N
        // octets lie before `end`; the verifier checks the same.
        unsafe {
            while done + 4 <= N {
                to.add(done).cast::<u32>().write_unaligned(from.add(done).cast::<u32>().read());
                done += 4;
            }
            while done < N {
                to.add(done).write(from.add(done).read());
                done += 1;
            }
            Some(octets.assume_init())
        }
    }

    #[inline(always)]
    fn frame_length(&self) -> usize {
        self.length
    }
}

/// The whole frame, by helper.
pub(crate) struct Loaded {
    /// The packet.
    pub(crate) skb: *mut __sk_buff,
}

impl Octets for Loaded {
    const WALKS: bool = true;

    #[inline(always)]
    fn octets<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // Not zeroed first: that would be a call, and 6.1's verifier loses track of every number at one.
        let mut octets = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes N octets to the array, and checks the offset against the frame.
        let result = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset as u32, octets.as_mut_ptr().cast(), N as u32)
        };
        // SAFETY: 0 says that all of them were written.
        (result == 0).then(|| unsafe { octets.assume_init() })
    }

    #[inline(always)]
    fn frame_length(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).len as usize }
    }
}
