//! Whether a change of a list would make it stand for everybody: one network of every address does, and so do
//! two halves, or the pieces that are left when one more closes the last gap. Only an explicit word makes
//! such a change. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use mailguard_core::config::Config;

use super::lists::EditList;

/// The hosts of IPv4, from and to: without "this network", the loopback, multicast and what is reserved (RFC
/// 6890).
const HOSTS4: [(Ipv4Addr, Ipv4Addr); 2] = [
    (Ipv4Addr::new(1, 0, 0, 0), Ipv4Addr::new(126, 255, 255, 255)),
    (Ipv4Addr::new(128, 0, 0, 0), Ipv4Addr::new(223, 255, 255, 255)),
];
/// Those of IPv6: what is given out for use in the Internet (RFC 4291 §2.4).
const HOSTS6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0x3fff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
);

/// The family of which the change makes the list, with the lists that work as one with it, hold every host.
pub(super) fn newly_everybody(before: &Config, after: &Config, list: EditList) -> Option<&'static str> {
    let (before, after) = (networks(before, list), networks(after, list));
    let every4 = HOSTS4.iter().flat_map(|&(first, last)| Ipv4Subnets::new(first, last, 0)).map(IpNet::V4);
    let every6 = Ipv6Subnets::new(HOSTS6.0, HOSTS6.1, 0).map(IpNet::V6);
    let families = [("IPv4", every4.collect::<Vec<_>>()), ("IPv6", every6.collect())];
    let newly = |every: &[IpNet]| covers(&after, every) && !covers(&before, every);
    families.into_iter().find(|(_, every)| newly(every)).map(|(family, _)| family)
}

/// What the list holds together with those that the kernel asks as one, in as few networks as possible.
fn networks(config: &Config, list: EditList) -> Vec<IpNet> {
    let (bypass, access) = (&config.bypass, &config.access);
    let networks = match list {
        EditList::BypassFromSubnet | EditList::BypassFromIp => with(&bypass.from_subnets, &bypass.from_ips),
        EditList::BypassToSubnet | EditList::BypassToIp => with(&bypass.to_subnets, &bypass.to_ips),
        EditList::BlacklistClient => access.blacklist_clients.clone(),
        EditList::BypassFromMac
        | EditList::BypassToName
        | EditList::BlacklistSender
        | EditList::BlacklistRecipient
        | EditList::RblIp
        | EditList::RblDomain => Vec::new(),
    };
    IpNet::aggregate(&networks)
}

fn with(networks: &[IpNet], addresses: &[std::net::IpAddr]) -> Vec<IpNet> {
    networks.iter().copied().chain(addresses.iter().copied().map(IpNet::from)).collect()
}

/// Whether each of `every` is in one of `networks`, which have no two that would make one.
fn covers(networks: &[IpNet], every: &[IpNet]) -> bool {
    every.iter().all(|part| networks.iter().any(|network| network.contains(part)))
}
