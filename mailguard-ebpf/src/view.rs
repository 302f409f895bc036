//! Two ways to a packet's octets: straight from memory, which is quick and sees the linear part only, and by the
//! helper that finds everything.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use mailguard_common::packet::Octets;

/// Octets of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;

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
        // SAFETY: the N octets lie before `end`; the verifier checks the same. No alignment is assumed.
        Some(unsafe { core::ptr::read_unaligned(at as *const [u8; N]) })
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
        let mut octets = [0; N];
        // SAFETY: the helper writes at most N octets to the array, and checks the offset against the frame.
        let result = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset as u32, octets.as_mut_ptr().cast(), N as u32)
        };
        (result == 0).then_some(octets)
    }

    #[inline(always)]
    fn frame_length(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).len as usize }
    }
}
