//! Who counts as one client where clients are counted: sessions (S12), wrong passwords (S7).
//!
//! In IPv4 an address. In IPv6 whoever has one address has a whole /64 (RFC 4291 §2.5.4, RFC 6177), and could come from another
//! one each time. Lists of the configuration name addresses and networks as they stand; they don't come here.

use std::net::{IpAddr, Ipv6Addr};

/// Bits of an IPv6 address that its owner can't choose.
const IPV6_CLIENT_BITS: u32 = 64;

/// The first address of the client's network. An IPv4 address in IPv6's clothes (`::ffff:192.0.2.1`) is an IPv4 one.
pub fn client_network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (u128::BITS - IPV6_CLIENT_BITS))).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_clients_are_a_network_and_ipv4_clients_an_address() {
        for (client, network) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.2", "192.0.2.2"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("fe80::1", "fe80::"),
        ] {
            assert_eq!(
                client_network(client.parse().unwrap()),
                network.parse::<IpAddr>().unwrap(),
                "{client}"
            );
        }
    }
}
