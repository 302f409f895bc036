//! The answer to a refused SYN: the headers of a RST (RFC 9293 §3.10.7.1), and the sums for its checksum.
//!
//! Writing them into the packet, and the checksum, whose form depends on the packet's offload state, is the
//! program's.

use crate::packet::{Flow, IPV4_HEADER, IPV6_HEADER, TCP_HEADER};

const RST_ACK: u8 = 0x14;
const TCP: u8 = 6;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;

/// The IPv4 header from the destination address to the client.
#[inline(always)]
pub fn ipv4_header(flow: &Flow) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45;
    header[3] = (IPV4_HEADER + TCP_HEADER) as u8;
    header[6] = DONT_FRAGMENT;
    header[8] = TTL;
    header[9] = TCP;
    header[12..16].copy_from_slice(&flow.destination_v4());
    header[16..20].copy_from_slice(&flow.source_v4());
    let sum = (!fold(sum(&header))).to_be_bytes();
    header[10] = sum[0];
    header[11] = sum[1];
    header
}

/// The IPv6 header from the destination address to the client.
#[inline(always)]
pub fn ipv6_header(flow: &Flow) -> [u8; IPV6_HEADER] {
    let mut header = [0; IPV6_HEADER];
    header[0] = 0x60;
    header[5] = TCP_HEADER as u8;
    header[6] = TCP;
    header[7] = TTL;
    header[8..24].copy_from_slice(&flow.destination);
    header[24..40].copy_from_slice(&flow.source);
    header
}

/// The TCP header, its checksum 0: RST and ACK of everything that the SYN's segment took.
#[inline(always)]
pub fn tcp_header(flow: &Flow) -> [u8; TCP_HEADER] {
    let mut header = [0; TCP_HEADER];
    let port = crate::maps::SMTP_PORT.to_be_bytes();
    header[0] = port[0];
    header[1] = port[1];
    header[2] = flow.source_port[0];
    header[3] = flow.source_port[1];
    let acknowledged = u32::from_be_bytes(flow.sequence).wrapping_add(u32::from(flow.span)).to_be_bytes();
    header[8..12].copy_from_slice(&acknowledged);
    header[12] = (TCP_HEADER as u8 / 4) << 4;
    header[13] = RST_ACK;
    header
}

/// The sum of the pseudo-header. The mapped form of an IPv4 address adds 0xffff twice, which is nothing in
/// ones' complement.
#[inline(always)]
pub fn pseudo_sum(flow: &Flow) -> u32 {
    sum(&flow.source) + sum(&flow.destination) + u32::from(TCP) + TCP_HEADER as u32
}

/// The sum of 16-bit words, not folded. `octets` is short and even.
#[inline(always)]
pub fn sum<const N: usize>(octets: &[u8; N]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += u32::from(u16::from_be_bytes([octets[at], octets[at + 1]]));
        at += 2;
    }
    sum
}

/// Folds the carries in.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::mapped;

    /// RFC 1071, over whole octets.
    fn reference(octets: &[u8]) -> u16 {
        let mut sum: u32 = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_octets(source: [u8; 16], destination: [u8; 16], sequence: [u8; 4], span: u16) {
            let flow = Flow { source, destination, sequence, span, ..Flow::default() };
            let pseudo = [&source[..], &destination, &[0, TCP, 0, 20]].concat();
            prop_assert_eq!(fold(pseudo_sum(&flow)), reference(&pseudo));
            let header = tcp_header(&flow);
            prop_assert_eq!(fold(sum(&header)), reference(&header));
            prop_assert_eq!(reference(&ipv4_header(&flow)), 0xffff, "an IPv4 header sums up to nothing");
            let acknowledged = u32::from_be_bytes(sequence).wrapping_add(span.into());
            prop_assert_eq!(&header[8..12], &acknowledged.to_be_bytes());
        }

        #[test]
        fn mapped_addresses_sum_up_like_ipv4_ones(source: [u8; 4], destination: [u8; 4]) {
            let flow = Flow { source: mapped(source), destination: mapped(destination), ..Flow::default() };
            let pseudo = [&source[..], &destination, &[0, TCP, 0, 20]].concat();
            prop_assert_eq!(fold(pseudo_sum(&flow)), reference(&pseudo));
        }
    }
}
