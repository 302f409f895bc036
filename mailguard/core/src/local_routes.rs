//! Which addresses are this host's, by what the kernel's local table says: the addresses of its interfaces,
//! and the networks that an administrator routes here (`ip route add local 192.0.2.0/24 dev lo`). Asked for
//! each connection that comes in.
//!
//! The longest prefix decides, as in the kernel. An address that is good on one link only (RFC 4291 §2.5.6)
//! is ours on the link of the interface that has it. Listing the routes, and noticing that they change, is
//! `datapath`'s.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Routes that are kept, at most: some hundred octets each. A host with more of them isn't known, rather than
/// known in part.
pub const MAX_LOCAL_ROUTES: usize = 16_384;

/// A route of the kernel's local table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRoute {
    /// Where it leads to.
    pub network: IpNet,
    /// Index of the interface that it names.
    pub interface: u32,
    /// Whether it ends here. One that doesn't is an exception from a shorter one.
    pub here: bool,
}

/// More routes than are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's local table has more than {MAX_LOCAL_ROUTES} routes (ip route show table local)")]
pub struct TooManyRoutes;

/// All of them, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalRoutes {
    v4: Networks,
    v6: Networks,
}

/// Those of one family, the longest prefixes first: first addresses, each with the link on which it is good,
/// if there only.
type Networks = BTreeMap<Reverse<u8>, HashMap<(IpAddr, u32), bool>>;

impl LocalRoutes {
    /// In the kernel's order: of two routes for one network it takes the first.
    pub fn new(routes: impl IntoIterator<Item = LocalRoute>) -> Result<Self, TooManyRoutes> {
        let mut all = Self::default();
        for (count, LocalRoute { network, interface, here }) in routes.into_iter().enumerate() {
            if count >= MAX_LOCAL_ROUTES {
                return Err(TooManyRoutes);
            }
            let networks = match network {
                IpNet::V4(_) => &mut all.v4,
                IpNet::V6(_) => &mut all.v6,
            };
            let same_length = networks.entry(Reverse(network.prefix_len())).or_default();
            same_length.entry((network.network(), link(network.addr(), interface))).or_insert(here);
        }
        Ok(all)
    }

    /// Whether what is sent to `address` has arrived here. A link-local one whose link isn't known leads
    /// nowhere from here: no router passes on what is sent to it, so it was meant for us.
    pub fn has(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let scope = match address {
            SocketAddr::V6(v6) => link(ip, v6.scope_id()),
            SocketAddr::V4(_) => 0,
        };
        let networks = match ip {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(v6) if v6.is_unicast_link_local() && scope == 0 => return true,
            IpAddr::V6(_) => &self.v6,
        };
        let found = networks.iter().find_map(|(&Reverse(length), same_length)| {
            let network = IpNet::new(ip, length).ok()?.network();
            same_length.get(&(network, scope)).copied()
        });
        found.unwrap_or(false)
    }
}

/// The link on which an address is good, where that is one only.
fn link(address: IpAddr, interface: u32) -> u32 {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => interface,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(network: &str, interface: u32, here: bool) -> LocalRoute {
        LocalRoute { network: network.parse().unwrap(), interface, here }
    }

    /// A host with addresses on the loopback (1) and on interface 2, a link-local one on 3 too, and networks
    /// routed here.
    fn host() -> LocalRoutes {
        let here = [
            ("127.0.0.0/8", 1),
            ("192.0.2.1/32", 2),
            ("203.0.113.0/24", 1),
            ("::1/128", 1),
            ("2001:db8:1::1/128", 2),
            ("2001:db8:9::/64", 1),
            ("fe80::1/128", 2),
            ("fe80::1/128", 3),
            ("fe80::2/128", 2),
        ];
        let here = here.map(|(network, interface)| route(network, interface, true));
        let elsewhere = [route("203.0.113.128/25", 4, false), route("127.0.0.0/8", 4, false)];
        LocalRoutes::new(here.into_iter().chain(elsewhere)).unwrap()
    }

    #[test]
    fn what_the_local_table_says_is_ours_by_the_longest_prefix() {
        let host = host();
        for (address, expect) in [
            ("127.0.0.1:25", true),
            ("127.3.2.1:25", true),
            ("192.0.2.1:25", true),
            ("192.0.2.1:0", true),
            ("192.0.2.2:25", false),
            ("[::ffff:192.0.2.1]:25", true),
            ("[::ffff:192.0.2.2]:25", false),
            ("203.0.113.9:25", true),
            ("203.0.113.200:25", false),
            ("203.0.114.9:25", false),
            ("[::1]:25", true),
            ("[::c000:201]:25", false),
            ("[2001:db8:1::1]:25", true),
            ("[2001:db8:1::1%7]:25", true),
            ("[2001:db8:1::2]:25", false),
            ("[2001:db8:9::77]:25", true),
        ] {
            assert_eq!(host.has(address.parse().unwrap()), expect, "{address}");
        }
    }

    #[test]
    fn a_link_local_address_is_ours_on_its_link() {
        let host = host();
        for (address, expect) in [
            ("[fe80::1%2]:25", true),
            ("[fe80::1%3]:25", true),
            ("[fe80::1%4]:25", false),
            ("[fe80::2%2]:25", true),
            ("[fe80::2%3]:25", false),
            ("[fe80::77%2]:25", false),
            ("[fe80::77]:25", true),
        ] {
            assert_eq!(host.has(address.parse().unwrap()), expect, "{address}");
        }
    }

    #[test]
    fn a_network_routed_here_as_a_whole_spares_the_other_family() {
        let host = LocalRoutes::new([route("::/0", 1, true)]).unwrap();
        assert!(host.has("[2001:db8::1]:25".parse().unwrap()));
        assert!(!host.has("192.0.2.1:25".parse().unwrap()));
        assert!(!host.has("[::ffff:192.0.2.1]:25".parse().unwrap()));
        assert!(!LocalRoutes::default().has("127.0.0.1:25".parse().unwrap()));
    }

    #[test]
    fn so_many_routes_and_no_more() {
        let routes = |count: usize| {
            (0..count as u32)
                .map(|number| route(&format!("{}/32", std::net::Ipv4Addr::from(number)), 1, true))
        };
        let all = LocalRoutes::new(routes(MAX_LOCAL_ROUTES)).unwrap();
        let last = std::net::Ipv4Addr::from(MAX_LOCAL_ROUTES as u32 - 1);
        assert!(all.has((last, 25).into()));
        assert_eq!(LocalRoutes::new(routes(MAX_LOCAL_ROUTES + 1)), Err(TooManyRoutes), "not known in part");
    }
}
