//! Who may send from each zone: the tries of [`map::ALLOW4`] and [`map::ALLOW6`].

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mailguard_common::maps::{RuleValue, ZONE_BITS, map, zone_key4, zone_key6};

use super::super::DatapathError;
use super::super::object::take_map;

/// Octets of a zone's number in a key.
const ZONE_OCTETS: usize = ZONE_BITS as usize / 8;

/// The open tries.
pub(super) struct Senders {
    four: LpmTrie<MapData, [u8; 12], RuleValue>,
    six: LpmTrie<MapData, [u8; 24], RuleValue>,
}

impl Senders {
    /// Opens the tries of the loaded object.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self { four: take_map(ebpf, map::ALLOW4)?, six: take_map(ebpf, map::ALLOW6)? })
    }

    /// Says this of the clients of `zone` in `net`.
    pub(super) fn insert(&mut self, zone: u64, net: &IpNet, value: RuleValue) -> Result<(), MapError> {
        match net {
            IpNet::V4(net) => self.four.insert(&key4(zone, net), value, 0),
            IpNet::V6(net) => self.six.insert(&key6(zone, net), value, 0),
        }
    }

    /// Says nothing of them any more.
    pub(super) fn remove(&mut self, zone: u64, net: &IpNet) -> Result<(), MapError> {
        match net {
            IpNet::V4(net) => self.four.remove(&key4(zone, net)),
            IpNet::V6(net) => self.six.remove(&key6(zone, net)),
        }
    }

    /// All that is said: of which zone and whom.
    pub(super) fn read(&self) -> Result<Vec<(u64, IpNet, RuleValue)>, MapError> {
        let mut found = Vec::new();
        for item in self.four.iter() {
            let (key, value) = item?;
            let data: [u8; 12] = key.data();
            let address: [u8; 4] = std::array::from_fn(|at| data[ZONE_OCTETS + at]);
            let net = Ipv4Net::new(Ipv4Addr::from(address), length(key.prefix_len()));
            found.extend(net.ok().map(|net| (zone(&data), net.into(), value)));
        }
        for item in self.six.iter() {
            let (key, value) = item?;
            let data: [u8; 24] = key.data();
            let address: [u8; 16] = std::array::from_fn(|at| data[ZONE_OCTETS + at]);
            let net = Ipv6Net::new(Ipv6Addr::from(address), length(key.prefix_len()));
            found.extend(net.ok().map(|net| (zone(&data), net.into(), value)));
        }
        Ok(found)
    }
}

fn key4(zone: u64, net: &Ipv4Net) -> Key<[u8; 12]> {
    Key::new(ZONE_BITS + u32::from(net.prefix_len()), zone_key4(zone, net.network().octets()))
}

fn key6(zone: u64, net: &Ipv6Net) -> Key<[u8; 24]> {
    Key::new(ZONE_BITS + u32::from(net.prefix_len()), zone_key6(zone, net.network().octets()))
}

/// The length of the network's own prefix.
fn length(of_key: u32) -> u8 {
    of_key.saturating_sub(ZONE_BITS) as u8
}

fn zone(key: &[u8]) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|at| key[at]))
}
