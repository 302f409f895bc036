//! Bytes in, a [`Flow`] out: IPv4 with options, IPv6 with extension headers, fragments (RFC 791, 8200, 9293).
//!
//! Everything is bounded by the length that the IP header gives, never by the frame's: what the stack cuts
//! off, nobody may hide a header in. The rules for fragments are those of RFC 1858 and 7112: whoever cuts the
//! headers apart has something to hide. Which flows concern us is `decide`'s.

use core::mem::MaybeUninit;

/// IPv4, as `skb->protocol` and the Ethernet header have it.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Extension headers that are read; one more and the packet is dropped.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Octets of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Octets of an IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Octets of a TCP header without options.
pub const TCP_HEADER: usize = 20;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// Offsets of the addresses in an IPv6 header.
const IPV6_SOURCE: usize = 8;
const IPV6_DESTINATION: usize = 24;
/// Octets of the shortest IPv6 extension header, of an ICMP header, and of an IPv6 header before its
/// addresses.
const EIGHT: usize = 8;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The two versions of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Where a packet's octets come from.
pub trait Octets {
    /// Whether offsets that were computed from the packet may be read, as extension headers need. A view that
    /// can't says `false`, and such packets come back as [`Parsed::Short`].
    const WALKS: bool;

    /// `N` octets at `offset` from the frame's start, if the view holds them.
    fn octets<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Octets of the whole frame.
    fn frame_length(&self) -> usize;
}

impl Octets for &[u8] {
    const WALKS: bool = true;

    fn octets<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset + N)?.try_into().ok()
    }

    fn frame_length(&self) -> usize {
        self.len()
    }
}

/// A packet to port 25, or the flow that an ICMP message quotes. Aligned so that the programs copy it by
/// words.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// The client: an IPv6 address or an IPv4-mapped one.
    pub source: [u8; 16],
    /// Its destination.
    pub destination: [u8; 16],
    /// The client's port, network order.
    pub source_port: [u8; 2],
    /// Octets from the frame's start to the TCP header.
    pub transport: u16,
    /// Octets of sequence space that the segment takes: data, and one each for SYN and FIN.
    pub span: u16,
    /// TCP flags.
    pub flags: u8,
    /// 1: IPv6.
    pub ipv6: u8,
    /// 1: the first of several fragments.
    pub fragment: u8,
    /// 1: the TCP header follows the IP header, no options or extension headers between, and no tags stand
    /// before that.
    pub plain: u8,
    /// Octets from the frame's start to the IP header.
    pub network: u16,
    /// TCP sequence number, network order.
    pub sequence: [u8; 4],
}

impl Flow {
    /// Asks for a new connection: SYN without ACK, whatever other flags are set.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Carries RST, whatever else: such a segment is never answered (RFC 9293 §3.10.7).
    #[inline(always)]
    pub fn is_reset(&self) -> bool {
        self.flags & RST != 0
    }

    /// IPv6.
    #[inline(always)]
    pub fn is_ipv6(&self) -> bool {
        self.ipv6 != 0
    }

    /// The client's IPv4 address.
    #[inline(always)]
    pub fn source_v4(&self) -> [u8; 4] {
        last_four(&self.source)
    }

    /// The IPv4 destination address.
    #[inline(always)]
    pub fn destination_v4(&self) -> [u8; 4] {
        last_four(&self.destination)
    }
}

#[inline(always)]
fn last_four(address: &[u8; 16]) -> [u8; 4] {
    [address[12], address[13], address[14], address[15]]
}

/// ::ffff:a.b.c.d
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    // As a number: an array with many zeros becomes a loop that writes them.
    (0xffff_0000_0000 | u32::from_be_bytes(v4) as u128).to_be_bytes()
}

/// What a packet is.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing of ours, or something that no stack would take.
    Other,
    /// The view ends before the headers do.
    Short,
    /// To port 25; the flow was filled in.
    Smtp,
    /// An ICMP message that a packet was too big, about a flow from port 25; the flow was filled in.
    PathMtu,
    /// A first fragment without all headers, unless it can be seen to go to another port: to be dropped.
    TinyFragment,
    /// A fragment that would overwrite the end of the TCP header: to be dropped.
    OverlayFragment,
    /// More than [`MAX_EXTENSION_HEADERS`]: to be dropped.
    LongChain,
    /// More than [`MAX_PRIORITY_TAGS`](crate::tags::MAX_PRIORITY_TAGS) before the packet, as `tags` finds: to
    /// be dropped.
    DeepTags,
}

/// A TCP header to look at.
#[derive(Clone, Copy)]
struct Segment {
    /// Offset of the IP header.
    start: usize,
    /// Offset of the TCP header.
    at: usize,
    /// Offset of the packet's end, by the IP header.
    end: usize,
    /// Further fragments follow.
    more: bool,
    /// Nothing between IP and TCP header.
    plain: bool,
}

/// The addresses of a packet.
struct Addresses {
    source: [u8; 16],
    destination: [u8; 16],
    ipv6: bool,
}

/// Reads the packet whose IP header lies `start` octets into the frame. `flow` is written with
/// [`Parsed::Smtp`] and [`Parsed::PathMtu`], and only then: most packets go to other ports, and are to cost
/// nothing more.
#[inline(always)]
pub fn parse(packet: &impl Octets, start: usize, version: Version, flow: &mut MaybeUninit<Flow>) -> Parsed {
    match version {
        Version::V4 => parse_v4(packet, start, flow),
        Version::V6 => parse_v6(packet, start, flow),
    }
}

#[inline(always)]
fn parse_v4(packet: &impl Octets, start: usize, flow: &mut MaybeUninit<Flow>) -> Parsed {
    let Some(header) = packet.octets::<IPV4_HEADER>(start) else { return Parsed::Short };
    let header_octets = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || header_octets < IPV4_HEADER {
        return Parsed::Other;
    }
    // 0 stands for "more than fits", in packets that the receive path has merged.
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let end = if total == 0 { packet.frame_length() } else { start + total };
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    let at = start + header_octets;
    if header[9] != TCP {
        return match header[9] {
            ICMP if offset == 0 && !more => parse_icmp(packet, at, end, Version::V4, flow),
            _ => Parsed::Other,
        };
    }
    if offset != 0 {
        return if offset == 1 { Parsed::OverlayFragment } else { Parsed::Other };
    }
    let addresses = || {
        let source = mapped([header[12], header[13], header[14], header[15]]);
        let destination = mapped([header[16], header[17], header[18], header[19]]);
        Some(Addresses { source, destination, ipv6: false })
    };
    parse_tcp(packet, Segment { start, at, end, more, plain: header_octets == IPV4_HEADER }, addresses, flow)
}

#[inline(always)]
fn parse_v6(packet: &impl Octets, start: usize, flow: &mut MaybeUninit<Flow>) -> Parsed {
    let Some(header) = packet.octets::<EIGHT>(start) else { return Parsed::Short };
    if header[0] >> 4 != 6 {
        return Parsed::Other;
    }
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // With a hop-by-hop header a length of 0 is that of a jumbogram, and the stack then goes by the frame.
    let end = if payload == 0 && header[6] == HOP_BY_HOP {
        packet.frame_length()
    } else {
        start + IPV6_HEADER + payload
    };
    parse_headers(packet, header[6], start, end, flow)
}

#[inline(always)]
fn addresses_v6(packet: &impl Octets, start: usize) -> Option<Addresses> {
    let source = packet.octets(start + IPV6_SOURCE)?;
    let destination = packet.octets(start + IPV6_DESTINATION)?;
    Some(Addresses { source, destination, ipv6: true })
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HOST_IDENTITY | SHIM6
    )
}

/// Walks the headers (RFC 8200 §4) that follow the IPv6 header at `start`, the first of type `next`.
#[inline(always)]
fn parse_headers<P: Octets>(
    packet: &P,
    next: u8,
    start: usize,
    end: usize,
    flow: &mut MaybeUninit<Flow>,
) -> Parsed {
    let (mut next, mut at, mut more) = (next, start + IPV6_HEADER, false);
    for passed in 0..=MAX_EXTENSION_HEADERS {
        match next {
            TCP => {
                let segment = Segment { start, at, end, more, plain: passed == 0 };
                return parse_tcp(packet, segment, || addresses_v6(packet, start), flow);
            }
            ICMPV6 if passed == 0 => return parse_icmp(packet, at, end, Version::V6, flow),
            _ if !is_extension(next) => return Parsed::Other,
            _ if !P::WALKS => return Parsed::Short,
            _ => {}
        }
        if passed == MAX_EXTENSION_HEADERS {
            break;
        }
        if at + EIGHT > end {
            return if more { Parsed::TinyFragment } else { Parsed::Other };
        }
        let Some(header) = packet.octets::<EIGHT>(at) else { return Parsed::Short };
        let units = usize::from(header[1]);
        match next {
            FRAGMENT => {
                let field = u16::from_be_bytes([header[2], header[3]]);
                if field >> 3 != 0 {
                    let overlays = field >> 3 == 1 && header[0] == TCP;
                    return if overlays { Parsed::OverlayFragment } else { Parsed::Other };
                }
                more |= field & 1 != 0;
                at += EIGHT;
            }
            AUTHENTICATION => at += (units + 2) * 4,
            _ => at += (units + 1) * 8,
        }
        next = header[0];
    }
    Parsed::LongChain
}

#[inline(always)]
fn parse_tcp(
    packet: &impl Octets,
    segment: Segment,
    addresses: impl FnOnce() -> Option<Addresses>,
    flow: &mut MaybeUninit<Flow>,
) -> Parsed {
    let Segment { start, at, end, more, plain } = segment;
    if at + TCP_HEADER > end {
        return if more { parse_tiny(packet, at, end) } else { Parsed::Other };
    }
    let Some(header) = packet.octets::<TCP_HEADER>(at) else { return Parsed::Short };
    if u16::from_be_bytes([header[2], header[3]]) != crate::maps::SMTP_PORT {
        return Parsed::Other;
    }
    let Some(Addresses { source, destination, ipv6 }) = addresses() else { return Parsed::Short };
    let flags = header[13];
    let data = (end - at).saturating_sub(usize::from(header[12] >> 4) * 4) as u16;
    flow.write(Flow {
        source,
        destination,
        source_port: [header[0], header[1]],
        transport: at as u16,
        // Past 16 bits only where the lengths can't be: a jumbogram, or a data offset within the header. No
        // such segment is taken.
        span: data.wrapping_add(u16::from(flags & SYN != 0) + u16::from(flags & FIN != 0)),
        flags,
        ipv6: ipv6.into(),
        fragment: more.into(),
        plain: plain.into(),
        network: start as u16,
        sequence: [header[4], header[5], header[6], header[7]],
    });
    Parsed::Smtp
}

/// A first fragment that ends within the TCP header: harmless only where it shows another port.
#[inline(always)]
fn parse_tiny(packet: &impl Octets, at: usize, end: usize) -> Parsed {
    if at + 4 > end {
        return Parsed::TinyFragment;
    }
    let Some(ports) = packet.octets::<4>(at) else { return Parsed::Short };
    let other = u16::from_be_bytes([ports[2], ports[3]]) != crate::maps::SMTP_PORT;
    if other { Parsed::Other } else { Parsed::TinyFragment }
}

/// Fragmentation needed (RFC 1191 §4) and Packet Too Big (RFC 4443 §3.2), quoting a packet from port 25. The
/// flow is filled in as the client's packets would show it.
#[inline(always)]
fn parse_icmp<P: Octets>(
    packet: &P,
    at: usize,
    end: usize,
    version: Version,
    flow: &mut MaybeUninit<Flow>,
) -> Parsed {
    let Some([kind, code]) = packet.octets::<2>(at) else { return Parsed::Short };
    let about_size = match version {
        Version::V4 => (kind, code) == (3, 4),
        Version::V6 => (kind, code) == (2, 0),
    };
    if !about_size {
        return Parsed::Other;
    }
    if !P::WALKS {
        return Parsed::Short;
    }
    let quoted = match version {
        Version::V4 => quoted_v4(packet, at + EIGHT),
        Version::V6 => quoted_v6(packet, at + EIGHT),
    };
    let Some((ports_at, Addresses { source, destination, ipv6 })) = quoted else { return Parsed::Other };
    match packet.octets::<4>(ports_at) {
        Some(ports) if ports_at + 4 <= end && ports[..2] == crate::maps::SMTP_PORT.to_be_bytes() => {
            flow.write(Flow {
                // The quoted packet is ours: it went to the client.
                source: destination,
                destination: source,
                source_port: [ports[2], ports[3]],
                transport: 0,
                span: 0,
                flags: ACK,
                ipv6: ipv6.into(),
                fragment: 0,
                plain: 0,
                network: 0,
                sequence: [0; 4],
            });
            Parsed::PathMtu
        }
        _ => Parsed::Other,
    }
}

/// The addresses of a quoted TCP packet, and where its ports lie.
#[inline(always)]
fn quoted_v4(packet: &impl Octets, start: usize) -> Option<(usize, Addresses)> {
    let header = packet.octets::<IPV4_HEADER>(start)?;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if header[9] != TCP || later_fragment {
        return None;
    }
    let source = mapped([header[12], header[13], header[14], header[15]]);
    let destination = mapped([header[16], header[17], header[18], header[19]]);
    let ports_at = start + usize::from(header[0] & 0xf) * 4;
    Some((ports_at, Addresses { source, destination, ipv6: false }))
}

#[inline(always)]
fn quoted_v6(packet: &impl Octets, start: usize) -> Option<(usize, Addresses)> {
    let header = packet.octets::<EIGHT>(start)?;
    if header[6] != TCP {
        return None;
    }
    Some((start + IPV6_HEADER, addresses_v6(packet, start)?))
}

#[cfg(test)]
mod tests;
