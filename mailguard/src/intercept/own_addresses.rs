//! Whether an original destination is an address of this host: by a table that `datapath` keeps, without a
//! system call.
//!
//! Where there is no table, because the routes can't be listed or are too many, the kernel is asked each
//! time.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mailguard_core::local_routes::LocalRoutes;

/// The addresses of this host, as last seen. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct OwnAddresses(Arc<ArcSwapOption<LocalRoutes>>);

impl OwnAddresses {
    /// They are these now; without a table nothing is known of them.
    pub fn set(&self, routes: Option<LocalRoutes>) {
        self.0.store(routes.map(Arc::new));
    }

    /// Whether there is a table.
    pub fn are_known(&self) -> bool {
        self.0.load().is_some()
    }

    /// Whether anybody else has this to ask.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether `address` is one of them.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        match &*self.0.load() {
            Some(routes) => routes.has(address),
            None => ask_kernel(address),
        }
    }
}

/// Asks the kernel whether `address` is one of this host: only those can be bound to without privilege.
/// (Where the administrator has set net.ipv4.ip_nonlocal_bind all can; mail for the original destination then
/// takes the general route. Networks of IPv6 that are routed here can't.) A link-local one whose link isn't
/// known is ours, as in the table.
fn ask_kernel(mut address: SocketAddr) -> bool {
    address.set_port(0);
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => true,
        address => UdpSocket::bind(address).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use mailguard_core::local_routes::LocalRoute;

    use super::*;
    use crate::datapath;

    #[test]
    fn where_there_is_a_table_the_kernel_isnt_asked() {
        let own = OwnAddresses::default();
        let has = |address: &str| own.has(address.parse().unwrap());
        assert!(has("127.0.0.1:25") && !has("192.0.2.77:25"), "as the kernel says");
        let other = LocalRoute { network: "192.0.2.77/32".parse().unwrap(), interface: 1, here: true };
        own.set(Some(LocalRoutes::new([other]).unwrap()));
        assert!(!has("127.0.0.1:25") && has("192.0.2.77:25"), "as the table says");
        own.set(None);
        assert!(has("127.0.0.1:25") && !has("192.0.2.77:25"), "as the kernel says again");
    }

    #[test]
    fn local_addresses_are_told_from_others_with_a_table_and_without() {
        let (asking, knowing) = (OwnAddresses::default(), OwnAddresses::default());
        datapath::keep_own_addresses(&knowing);
        assert_eq!((asking.are_known(), knowing.are_known()), (false, true));
        for own in [asking, knowing] {
            let has = |address: &str| own.has(address.parse().unwrap());
            assert!(has("127.0.0.1:25"));
            assert!(has("127.3.2.1:25"), "the network is routed here");
            assert!(has("[::1]:25"));
            assert!(!has("192.0.2.77:25"));
            assert!(!has("[2001:db8:9::77]:25"));
            assert!(!has("[fe80::77%1]:25"), "somebody else's on this link");
            assert!(has("[fe80::77]:25"), "no link, no way to somebody else");
        }
    }
}
