//! VLAN tags in front of a packet (IEEE 802.1Q): which of them count.
//!
//! A tag of VID 0 only carries a priority. The stack takes the outermost tag off before TC and, when it finds
//! no VLAN interface for it, one of VID 0 after another behind TC's back: the packet behind them is the
//! parent interface's own, and must be judged there. The first tag of another VID makes the frame the VLAN
//! interface's, whatever lies behind; TC is asked again there. Other types aren't taken off by anybody
//! (0x9100), or lead to an interface of their own (PPPoE).

use crate::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Octets, Version};

/// A customer's tag.
pub const ETHERTYPE_TAG: u16 = 0x8100;
/// A provider's tag (802.1ad).
pub const ETHERTYPE_PROVIDER_TAG: u16 = 0x88a8;

/// Tags of VID 0 that are followed within a frame; one more and the frame is dropped. The stack takes off any
/// number.
pub const MAX_PRIORITY_TAGS: usize = 8;

/// Octets of a tag behind its type: priority and VID, and the type of what follows.
pub const TAG_OCTETS: usize = 4;

/// The VLAN's number in a tag.
const VID: u16 = 0xfff;

/// What lies behind the tags of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// A packet of the interface's own: its version, and the octets before its IP header.
    Packet(Version, usize),
    /// Another VLAN's frame, or no IP packet.
    Other,
    /// More than [`MAX_PRIORITY_TAGS`]: to be dropped.
    TooDeep,
}

/// Whether the stack takes tags of this type off.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_TAG || ethertype == ETHERTYPE_PROVIDER_TAG
}

/// Whether a tag names no VLAN.
#[inline(always)]
pub const fn is_priority_only(tag: u16) -> bool {
    tag & VID == 0
}

/// Follows the tags of which the first lies `start` octets into the frame, right behind its type.
#[inline(always)]
pub fn behind_tags(frame: &impl Octets, start: usize) -> Behind {
    let mut at = start;
    for _ in 0..MAX_PRIORITY_TAGS {
        let Some([tag_high, tag_low, high, low]) = frame.octets::<TAG_OCTETS>(at) else {
            return Behind::Other;
        };
        if !is_priority_only(u16::from_be_bytes([tag_high, tag_low])) {
            return Behind::Other;
        }
        at += TAG_OCTETS;
        match u16::from_be_bytes([high, low]) {
            ETHERTYPE_IPV4 => return Behind::Packet(Version::V4, at),
            ETHERTYPE_IPV6 => return Behind::Packet(Version::V6, at),
            ethertype if is_tag(ethertype) => {}
            _ => return Behind::Other,
        }
    }
    Behind::TooDeep
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the first tag lies in the tests' frames.
    const START: usize = 14;
    const PPPOE: u16 = 0x8864;
    const OLD_PROVIDER_TAG: u16 = 0x9100;

    /// A frame whose first tag's type has been read: each tag's VID and priority, and what follows it.
    #[track_caller]
    fn check(tags: &[(u16, u16)], expect: Behind) {
        let mut frame = vec![0; START];
        for (tag, following) in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend(following.to_be_bytes());
        }
        assert_eq!(behind_tags(&&frame[..], START), expect, "{tags:04x?}");
    }

    #[test]
    fn tags_of_vid_0_are_followed_to_the_packet() {
        check(&[(0, ETHERTYPE_IPV4)], Behind::Packet(Version::V4, 18));
        check(&[(0xf000, ETHERTYPE_IPV6)], Behind::Packet(Version::V6, 18));
        let two = [(0, ETHERTYPE_PROVIDER_TAG), (0x6000, ETHERTYPE_IPV4)];
        check(&two, Behind::Packet(Version::V4, 22));
        let mut most = vec![(0, ETHERTYPE_TAG); MAX_PRIORITY_TAGS - 1];
        most.push((0, ETHERTYPE_IPV6));
        check(&most, Behind::Packet(Version::V6, START + 4 * MAX_PRIORITY_TAGS));
    }

    #[test]
    fn one_tag_more_than_is_followed_is_too_deep() {
        let tags = [(0, ETHERTYPE_TAG); MAX_PRIORITY_TAGS + 1];
        check(&tags, Behind::TooDeep);
        // Whatever would have followed it.
        check(&tags[..MAX_PRIORITY_TAGS], Behind::TooDeep);
    }

    #[test]
    fn the_first_tag_of_a_vlan_makes_it_the_vlans() {
        check(&[(7, ETHERTYPE_IPV4)], Behind::Other);
        check(&[(0, ETHERTYPE_TAG), (0xe001, ETHERTYPE_IPV4)], Behind::Other);
        check(&[(0, ETHERTYPE_TAG), (7, ETHERTYPE_TAG), (0, ETHERTYPE_IPV4)], Behind::Other);
    }

    #[test]
    fn what_is_no_packet_or_ends_early_is_left_alone() {
        for ethertype in [0x0806, PPPOE, OLD_PROVIDER_TAG] {
            check(&[(0, ethertype)], Behind::Other);
        }
        check(&[(0, ETHERTYPE_TAG)], Behind::Other);
        assert_eq!(behind_tags(&&[0u8; START + 3][..], START), Behind::Other);
    }
}
