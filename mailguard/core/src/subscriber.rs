//! Whom bans, limits and counts take for one: an IPv4 address, or the 64-bit network of an IPv6 one, for
//! whoever has one address there can have them all (RFC 6177, RFC 7421).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bits of an IPv6 address that are the network's.
pub const IPV6_NETWORK_BITS: u8 = 64;

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(IpAddr);

/// A text is neither an address nor a subscriber's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address like 192.0.2.7 or 2001:db8::7, or an IPv6 network of 64 bits like 2001:db8::/64")]
pub struct NoSubscriber;

impl Subscriber {
    /// The subscriber that has this address, never an IPv4 address in IPv6's clothes.
    pub fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & (u128::MAX << (128 - IPV6_NETWORK_BITS));
                Self(Ipv6Addr::from_bits(network).into())
            }
        }
    }

    /// The address, or the first one of the network.
    pub fn first(self) -> IpAddr {
        self.0
    }

    /// All addresses.
    pub fn network(self) -> IpNet {
        match self.0 {
            IpAddr::V4(v4) => IpNet::from(IpAddr::from(v4)),
            IpAddr::V6(v6) => IpNet::new_assert(v6.into(), IPV6_NETWORK_BITS),
        }
    }
}

impl From<IpAddr> for Subscriber {
    fn from(client: IpAddr) -> Self {
        Self::of(client)
    }
}

impl From<Ipv4Addr> for Subscriber {
    fn from(client: Ipv4Addr) -> Self {
        Self::of(client.into())
    }
}

impl From<Ipv6Addr> for Subscriber {
    fn from(client: Ipv6Addr) -> Self {
        Self::of(client.into())
    }
}

impl fmt::Display for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => fmt::Display::fmt(&v4, f),
            IpAddr::V6(_) => fmt::Display::fmt(&self.network(), f),
        }
    }
}

impl FromStr for Subscriber {
    type Err = NoSubscriber;

    fn from_str(text: &str) -> Result<Self, NoSubscriber> {
        if let Ok(client) = text.parse::<IpAddr>() {
            return Ok(Self::of(client));
        }
        let network: IpNet = text.parse().map_err(|_| NoSubscriber)?;
        let subscriber = Self::of(network.addr());
        if subscriber.network() == network { Ok(subscriber) } else { Err(NoSubscriber) }
    }
}

impl Serialize for Subscriber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subscriber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        let subscriber = text.parse::<Subscriber>();
        assert_eq!(subscriber.map(|subscriber| subscriber.to_string()).ok().as_deref(), expect, "{text}");
    }

    #[test]
    fn an_ipv6_address_is_its_network() {
        check("192.0.2.7", Some("192.0.2.7"));
        check("192.0.2.7/32", Some("192.0.2.7"));
        check("::ffff:192.0.2.7", Some("192.0.2.7"));
        check("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::/64"));
        check("2001:db8:1:2::/64", Some("2001:db8:1:2::/64"));
        for wrong in ["2001:db8:1:2::/63", "2001:db8:1:2::1/64", "2001:db8::1/128", "192.0.2.0/24", "mx", ""]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn two_addresses_of_a_network_are_one_subscriber() {
        let of = |text: &str| Subscriber::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1").network().to_string(), "192.0.2.1/32");
    }

    #[test]
    fn it_is_stored_as_it_is_shown() {
        for text in ["\"192.0.2.7\"", "\"2001:db8::/64\""] {
            let subscriber: Subscriber = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&subscriber).unwrap(), text);
        }
    }
}
