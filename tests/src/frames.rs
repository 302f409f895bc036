//! Hand-made frames: what no well-behaved stack would send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::netns::Namespace;
use crate::peers::PATIENCE;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send,
    socket,
};

/// TCP flag: no more data.
pub const FIN: u8 = 1;
/// TCP flag: a new connection.
pub const SYN: u8 = 2;
/// TCP flag: the connection is refused or broken.
pub const RST: u8 = 4;
/// TCP flag: the receiver is to hand on at once.
pub const PSH: u8 = 8;
/// TCP flag: the acknowledgement field counts.
pub const ACK: u8 = 16;
/// TCP flag: some of the data is urgent.
pub const URG: u8 = 32;

/// IPv6 next header: options for every router.
pub const HOP_BY_HOP: u8 = 0;
/// IPv6 next header: a fragment.
pub const FRAGMENT: u8 = 44;
/// IPv6 next header: options for the destination.
pub const DESTINATION: u8 = 60;
/// Protocol and next header: TCP.
pub const TCP: u8 = 6;

/// Type of a VLAN tag.
pub const VLAN: u16 = 0x8100;
/// Type of a provider's VLAN tag.
pub const PROVIDER_VLAN: u16 = 0x88a8;

/// Frames that are sent without a pause; `net.core.netdev_max_backlog` is 1,000.
const BURST: usize = 64;

/// The ones' complement checksum (RFC 1071).
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let octets = parts.concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The pseudo-header of a TCP segment.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Vec<u8> {
    let mut header = [octets(source), octets(destination)].concat();
    header.extend(u32::from(TCP).to_be_bytes());
    header.extend((length as u32).to_be_bytes());
    header
}

/// A TCP segment to `port` with these flags and data, from port 40,002.
pub fn segment(source: IpAddr, destination: IpAddr, port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    segment_from(40_002, source, destination, port, flags, data)
}

/// [`segment`] from `source_port`.
pub fn segment_from(
    source_port: u16,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source_port.to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend(1_000_000u32.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([5 << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(data);
    let sum = checksum(&[&pseudo_header(source, destination, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// An IPv4 packet; `fragment` is the field of flags and offset, `options` a multiple of four octets.
pub fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, TCP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet whose header names `next` and the payload's true length.
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A SYN from `source`, port `source_port`, to port 25 of `destination`, both of one family.
pub fn syn(source: IpAddr, source_port: u16, destination: IpAddr) -> Vec<u8> {
    let segment = segment_from(source_port, source, destination, 25, SYN, b"");
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, 0, b"", &segment),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, TCP, &segment),
        _ => panic!("{source} and {destination} are not of one family"),
    }
}

/// An extension header of eight octets (a destination or hop-by-hop header: six octets of padding).
pub fn extension(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// A fragment header; `field` is offset and flag.
pub fn fragment_header(next: u8, field: u16) -> [u8; 8] {
    let [high, low] = field.to_be_bytes();
    [next, 0, high, low, 0, 0, 0x12, 0x34]
}

/// An Ethernet frame around `packet`.
pub fn ethernet(to: [u8; 6], from: [u8; 6], tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let tag = tag.map(|tag| (VLAN, tag));
    tagged(to, from, tag.as_slice(), packet)
}

/// [`ethernet`] with any number of tags, each with its type.
pub fn tagged(to: [u8; 6], from: [u8; 6], tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    for (ethertype, tag) in tags {
        frame.extend(ethertype.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

/// A packet socket on an interface.
pub struct Wire {
    socket: std::os::fd::OwnedFd,
    /// The interface's address.
    pub mac: [u8; 6],
}

impl Wire {
    /// Opens it, for sending and for everything that arrives from now on.
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let open = || {
            let all = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, all)?;
            let addresses = nix::ifaddrs::getifaddrs()?;
            let mut links = addresses.filter(|entry| entry.interface_name == interface);
            let link =
                links.find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()));
            let link: LinkAddr = link.expect("the interface is there");
            let mut raw: nix::libc::sockaddr_ll = *link.as_ref();
            raw.sll_protocol = (nix::libc::ETH_P_ALL as u16).to_be();
            // SAFETY: a whole sockaddr_ll, as long as it says.
            let bound = unsafe {
                LinkAddr::from_raw((&raw const raw).cast(), Some(size_of_val(&raw) as nix::libc::socklen_t))
            };
            bind(socket.as_raw_fd(), &bound.expect("a link address"))?;
            Ok(Self { socket, mac: link.addr().expect("an Ethernet address") })
        };
        namespace.within(open).unwrap()
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    /// Sends many, in bursts short enough for the queue of the other end of a veth pair.
    pub fn send_all(&self, frames: impl Iterator<Item = Vec<u8>>) {
        for (number, frame) in frames.enumerate() {
            if number % BURST == BURST - 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.send(&frame);
        }
    }

    /// The frames that arrived, until one for which `last` says yes, or none in [`PATIENCE`].
    pub fn receive_until(&self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        while Instant::now() < deadline {
            let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            frames.push(buffer[..length].to_vec());
            if last(&buffer[..length]) {
                return frames;
            }
        }
        panic!("the last frame never came; {} others did", frames.len());
    }
}

/// The address of an interface in a namespace.
pub fn mac(namespace: &Namespace, interface: &str) -> [u8; 6] {
    Wire::open(namespace, interface).mac
}
