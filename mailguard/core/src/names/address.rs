//! Which addresses may bypass because the DNS gives them for a name. What it answers is the word of whoever
//! writes the zone: an address that leads to this host, to a mail server behind it, or to more than one host,
//! never bypasses, however it is dressed. Pure.
//!
//! Addresses that hold an IPv4 address: RFC 4291 §2.5.5 (compatible, mapped), RFC 7915 (translated), RFC 6052
//! and RFC 8215 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP). A NAT64 prefix of a network's
//! own can't be told from any other.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address of a name doesn't bypass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is an address of this host.
    Ours,
    /// It leads back to whoever dials it.
    Loopback,
    /// 0.0.0.0/8 and "::": no host.
    Unspecified,
    /// Good on one link only.
    LinkLocal,
    /// More than one host.
    Multicast,
    /// Every host.
    Broadcast,
    /// The server of an incoming domain.
    IncomingServer,
    /// The name of such a server has no answer yet: it could be this one's.
    ServersUnknown,
    /// The name has as many as count already.
    TooMany,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Ours => "an address of this host",
            Refusal::Loopback => "loopback",
            Refusal::Unspecified => "no host's address",
            Refusal::LinkLocal => "link-local",
            Refusal::Multicast => "multicast",
            Refusal::Broadcast => "broadcast",
            Refusal::IncomingServer => "the server of an incoming domain",
            Refusal::ServersUnknown => {
                "perhaps the server of an incoming domain, whose name has no answer yet"
            }
            Refusal::TooMany => "one too many",
        })
    }
}

/// What no name may lead to, besides the addresses that are special everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    own: BTreeSet<IpAddr>,
    broadcast: BTreeSet<IpAddr>,
    servers: BTreeSet<IpAddr>,
}

impl Surroundings {
    /// `own`: addresses of this host; `broadcast`: those of its networks; `servers`: incoming domains'.
    pub fn new(
        own: impl IntoIterator<Item = IpAddr>,
        broadcast: impl IntoIterator<Item = IpAddr>,
        servers: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        // A server that is reached through NAT64 is the same server at its IPv4 address.
        let every = |address: IpAddr| std::iter::once(address).chain(held(address).map(IpAddr::V4));
        Self {
            own: own.into_iter().flat_map(every).collect(),
            broadcast: broadcast.into_iter().collect(),
            servers: servers.into_iter().flat_map(every).collect(),
        }
    }

    /// Whether `address` may bypass.
    pub fn judge(&self, address: IpAddr) -> Result<(), Refusal> {
        self.judge_plain(address)?;
        held(address).try_for_each(|inner| self.judge_plain(IpAddr::V4(inner)))
    }

    fn judge_plain(&self, address: IpAddr) -> Result<(), Refusal> {
        let special = match address {
            IpAddr::V4(address) => special_v4(address),
            IpAddr::V6(address) => special_v6(address),
        };
        match special {
            Some(refusal) => Err(refusal),
            None if self.own.contains(&address) => Err(Refusal::Ours),
            None if self.broadcast.contains(&address) => Err(Refusal::Broadcast),
            None if self.servers.contains(&address) => Err(Refusal::IncomingServer),
            None => Ok(()),
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Refusal> {
    match address {
        _ if address.octets()[0] == 0 => Some(Refusal::Unspecified),
        _ if address.is_loopback() => Some(Refusal::Loopback),
        _ if address.is_link_local() => Some(Refusal::LinkLocal),
        _ if address.is_multicast() => Some(Refusal::Multicast),
        _ if address.is_broadcast() => Some(Refusal::Broadcast),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<Refusal> {
    match address {
        _ if address.is_unspecified() => Some(Refusal::Unspecified),
        _ if address.is_loopback() => Some(Refusal::Loopback),
        _ if address.is_unicast_link_local() => Some(Refusal::LinkLocal),
        _ if address.is_multicast() => Some(Refusal::Multicast),
        _ => None,
    }
}

/// The IPv4 addresses that an address of IPv6 holds, by every way that is known.
fn held(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let mut found = Vec::new();
    if let IpAddr::V6(address) = address {
        held_in(address.octets(), &mut found);
    }
    found.into_iter()
}

fn held_in(octets: [u8; 16], found: &mut Vec<Ipv4Addr>) {
    const NAT64: [u8; 12] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    const NAT64_LOCAL: [u8; 6] = [0, 0x64, 0xff, 0x9b, 0, 1];
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    const TRANSLATED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
    const COMPATIBLE: [u8; 12] = [0; 12];
    const SIX_TO_FOUR: [u8; 2] = [0x20, 0x02];
    const TEREDO: [u8; 4] = [0x20, 0x01, 0, 0];
    const ISATAP: [[u8; 4]; 2] = [[0, 0, 0x5e, 0xfe], [2, 0, 0x5e, 0xfe]];
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let last = at([12, 13, 14, 15]);
    if [NAT64, MAPPED, TRANSLATED, COMPATIBLE].iter().any(|prefix| octets.starts_with(prefix))
        || ISATAP.iter().any(|mark| octets[8..12] == *mark)
    {
        found.push(last);
    }
    if octets.starts_with(&SIX_TO_FOUR) {
        found.push(at([2, 3, 4, 5]));
    }
    if octets.starts_with(&TEREDO) {
        found.push(Ipv4Addr::from(last.octets().map(|octet| !octet)));
    }
    if octets.starts_with(&NAT64_LOCAL) {
        // By any prefix within it (RFC 6052 §2.2): what stands where another length has its address begins
        // with zeros.
        let before = found.len();
        let places = [[12, 13, 14, 15], [6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]];
        found.extend(places.map(at).into_iter().filter(|inner| inner.octets()[0] != 0));
        if found.len() == before {
            found.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn surroundings() -> Surroundings {
        Surroundings::new(
            addresses(&["203.0.113.1", "2001:db8:9::1", "10.1.0.1"]),
            addresses(&["10.1.0.255"]),
            addresses(&["10.0.0.25", "2001:db8:9::25", "64:ff9b::198.51.100.25"]),
        )
    }

    #[track_caller]
    fn check(refusal: Option<Refusal>, texts: &[&str]) {
        for address in addresses(texts) {
            assert_eq!(surroundings().judge(address).err(), refusal, "{address}");
        }
    }

    #[test]
    fn no_name_leads_to_us_to_a_server_behind_us_or_to_many() {
        check(None, &["203.0.113.2", "10.1.0.2", "2001:db8:9::2", "192.168.1.25", "fd00::25"]);
        check(Some(Refusal::Ours), &["203.0.113.1", "2001:db8:9::1", "10.1.0.1"]);
        check(Some(Refusal::Loopback), &["127.0.0.1", "127.255.255.254", "::1"]);
        check(Some(Refusal::Unspecified), &["0.0.0.0", "0.1.2.3", "::"]);
        check(Some(Refusal::LinkLocal), &["169.254.0.1", "fe80::1", "febf::1"]);
        check(Some(Refusal::Multicast), &["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"]);
        check(Some(Refusal::Broadcast), &["255.255.255.255", "10.1.0.255"]);
        check(Some(Refusal::IncomingServer), &["10.0.0.25", "2001:db8:9::25"]);
    }

    #[test]
    fn what_an_address_holds_is_judged_too() {
        // 127.0.0.1, each time.
        check(
            Some(Refusal::Loopback),
            &[
                "::ffff:127.0.0.1",
                "::ffff:0:127.0.0.1",
                "::127.0.0.1",
                "64:ff9b::127.0.0.1",
                "64:ff9b:1::127.0.0.1",
                "64:ff9b:1:7f00:0:100::",
                "64:ff9b:1:7f:0:1::",
                "64:ff9b:1:0:7f:0:100:0",
                "2002:7f00:1::1",
                "2001:0:c000:201:0:ffff:80ff:fffe",
                "2001:db8::5efe:127.0.0.1",
                "2001:db8::200:5efe:127.0.0.1",
            ],
        );
        check(Some(Refusal::Ours), &["2002:cb00:7101::25", "::ffff:203.0.113.1", "64:ff9b::10.1.0.1"]);
        check(Some(Refusal::IncomingServer), &["64:ff9b::10.0.0.25", "2002:a00:19::1", "198.51.100.25"]);
        check(Some(Refusal::Broadcast), &["64:ff9b::255.255.255.255", "::ffff:10.1.0.255"]);
        check(Some(Refusal::LinkLocal), &["64:ff9b::169.254.169.254"]);
        check(Some(Refusal::Multicast), &["2002:e000:1::1"]);
        check(Some(Refusal::Unspecified), &["64:ff9b:1::", "64:ff9b:1::0.0.0.1", "64:ff9b::0.0.0.0", "::2"]);
        check(None, &["64:ff9b::198.51.100.7", "64:ff9b:1::198.51.100.7", "2002:c633:6407::1"]);
    }
}
