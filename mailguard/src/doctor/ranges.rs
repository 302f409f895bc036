//! Sets of addresses as ranges of numbers, IPv4 and IPv6 each by themselves. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use crate::intercept::Family;

/// First and last numbers of ranges: in order, and a gap between any two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// They may come in any order and overlap; one that ends before it begins holds nothing.
    pub(super) fn new(ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut sorted: Vec<(u128, u128)> =
            ranges.into_iter().filter(|(first, last)| first <= last).collect();
        sorted.sort_unstable();
        let mut apart: Vec<(u128, u128)> = Vec::new();
        for (first, last) in sorted {
            match apart.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => apart.push((first, last)),
            }
        }
        Self(apart)
    }

    /// Every address of the family.
    pub(super) fn all(family: Family) -> Self {
        Self(vec![(0, last_address(family))])
    }

    /// These networks, of one family.
    pub(super) fn of_networks<'a>(networks: impl IntoIterator<Item = &'a IpNet>) -> Self {
        Self::new(networks.into_iter().map(|net| (number(net.network()), number(net.broadcast()))))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().copied()
    }

    pub(super) fn contains(&self, number: u128) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&number))
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self::new(self.iter().chain(other.iter()))
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self::new(
            self.iter().flat_map(|(first, last)| other.iter().map(move |(a, b)| (first.max(a), last.min(b)))),
        )
    }

    /// What isn't in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut gaps = Vec::new();
        let mut next = Some(0);
        for (first, last) in other.iter() {
            if let Some(begin) = next
                && begin < first
            {
                gaps.push((begin, first - 1));
            }
            next = last.checked_add(1);
        }
        gaps.extend(next.map(|begin| (begin, u128::MAX)));
        self.intersection(&Self(gaps))
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        other.without(self).is_empty()
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// As the fewest networks.
    pub(super) fn networks(&self, family: Family) -> Vec<IpNet> {
        let networks = |(first, last): (u128, u128)| -> Vec<IpNet> {
            match (address(first, family), address(last, family)) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    Ipv4Subnets::new(first, last, 0).map(IpNet::from).collect()
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    Ipv6Subnets::new(first, last, 0).map(IpNet::from).collect()
                }
                _ => Vec::new(),
            }
        };
        self.iter().flat_map(networks).collect()
    }
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, family: Family) -> IpAddr {
    match family {
        // Ranges of IPv4 end where it does.
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

fn last_address(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    }
}

/// An address or network as programs print one: `10.0.0.1`, `10.0.0.0/8`, `10.0.0.0/255.0.0.0`.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let Some((address, length)) = text.split_once('/') else {
        return Some(IpNet::from(text.parse::<IpAddr>().ok()?));
    };
    let address: IpAddr = address.parse().ok()?;
    let net = match (address, length.parse::<u8>(), length.parse::<IpAddr>()) {
        (_, Ok(length), _) => IpNet::new(address, length).ok()?,
        (IpAddr::V4(address), _, Ok(IpAddr::V4(mask))) => Ipv4Net::with_netmask(address, mask).ok()?.into(),
        (IpAddr::V6(address), _, Ok(IpAddr::V6(mask))) => Ipv6Net::with_netmask(address, mask).ok()?.into(),
        _ => return None,
    };
    Some(net.trunc())
}

/// Addresses that no host of the Internet has, the private ones not among them.
pub(super) fn special(family: Family) -> Ranges {
    listed(match family {
        Family::V4 => &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"],
        Family::V6 => &["::/127", "fe80::/10", "ff00::/8"],
    })
}

/// Addresses of private networks (RFC 1918, 6598, 4193).
pub(super) fn private(family: Family) -> Ranges {
    listed(match family {
        Family::V4 => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"],
        Family::V6 => &["fc00::/7"],
    })
}

fn listed(texts: &[&str]) -> Ranges {
    Ranges::of_networks(&texts.iter().filter_map(|text| network(text)).collect::<Vec<_>>())
}
