//! What this host listens on for mail: a next hop that is one of these would bring it back.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use nix::ifaddrs::getifaddrs;

/// Addresses and ports of mailguard's own listeners.
#[derive(Debug, Clone, Default)]
pub struct OwnListeners {
    listeners: HashSet<SocketAddr>,
}

impl OwnListeners {
    /// The listeners of every zone that accepts mail. One on an unspecified address stands for each address
    /// of this host's interfaces, the loopback ones excepted: a local server may have those.
    pub fn new(listeners: Vec<SocketAddr>) -> Self {
        Self { listeners: listeners.into_iter().collect() }
    }

    /// The addresses of this host, now: those that the interfaces have, and those on which we listen.
    pub(super) fn here(&self) -> Here {
        let listeners = self.listeners.iter().map(|listener| (listener.ip().to_canonical(), 0));
        Here::of(addresses().chain(listeners))
    }

    /// Whether a connection to `address` would come back to us.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.covers(address, || Here::of(addresses()))
    }

    /// [`OwnListeners::contains`] for many questions: this host's addresses are looked at once.
    pub fn now(&self) -> impl Fn(SocketAddr) -> bool + '_ {
        let here = Here::of(addresses());
        move |address| self.covers(address, || &here)
    }

    fn covers<T: Borrow<Here>>(&self, destination: SocketAddr, here: impl Fn() -> T) -> bool {
        let address = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        if self.listeners.contains(&address) {
            return true;
        }
        let listens_everywhere = self.listeners.iter().any(|listener| {
            let covers = match listener.ip() {
                IpAddr::V4(ip) => ip.is_unspecified() && address.is_ipv4(),
                IpAddr::V6(ip) => ip.is_unspecified(),
            };
            covers && listener.port() == address.port()
        });
        listens_everywhere && here().borrow().has(destination)
    }
}

/// This host's addresses at one moment, each without a scope, and with it where it is good on one link only.
pub(super) struct Here(HashSet<(IpAddr, u32)>);

impl Here {
    fn of(addresses: impl Iterator<Item = (IpAddr, u32)>) -> Self {
        Self(addresses.flat_map(|(address, scope)| [(address, scope), (address, 0)]).collect())
    }

    /// Whether the address is one of this host's, on whatever port; the loopback ones excepted, which every
    /// host has. A link-local one on another link is another host's, though we may have the same.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        !ip.is_loopback() && self.0.contains(&(ip, scope(address)))
    }
}

/// The index of the interface on whose link the address is good.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
        _ => 0,
    }
}

/// The addresses of this host's interfaces, each with its scope. Interfaces that can't be listed have none:
/// the greeting will tell.
fn addresses() -> impl Iterator<Item = (IpAddr, u32)> {
    getifaddrs().into_iter().flatten().filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| (IpAddr::V4(v4.ip()), 0));
        let v6 = storage.as_sockaddr_in6().map(|&v6| SocketAddrV6::from(v6));
        v4.or(v6.map(|v6| (IpAddr::V6(*v6.ip()), scope(v6.into()))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listeners: &[&str], address: &str, expect: bool) {
        let own = OwnListeners::new(listeners.iter().map(|listener| listener.parse().unwrap()).collect());
        let address = address.parse().unwrap();
        assert_eq!(own.contains(address), expect, "{listeners:?} {address}");
        assert_eq!(own.now()(address), expect, "{listeners:?} {address}");
    }

    #[test]
    fn listeners() {
        check(&["192.0.2.9:25"], "192.0.2.9:25", true);
        check(&["192.0.2.9:25"], "[::ffff:192.0.2.9]:25", true);
        check(&["192.0.2.9:25"], "192.0.2.9:26", false);
        check(&["0.0.0.0:25"], "192.0.2.9:25", false);
        check(&["0.0.0.0:25", "[::]:25"], "127.0.0.1:25", false);
        check(&[], "192.0.2.9:25", false);
    }

    #[test]
    fn an_unspecified_listener_covers_the_addresses_of_the_host() {
        let interfaces = getifaddrs().unwrap();
        let v4 = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
        for ip in v4.filter(|ip| !ip.is_loopback()) {
            check(&["0.0.0.0:25"], &format!("{ip}:25"), true);
            check(&["[::]:25"], &format!("{ip}:25"), true);
            check(&["0.0.0.0:25"], &format!("{ip}:26"), false);
            assert!(OwnListeners::default().here().has((ip, 0).into()), "{ip}");
        }
    }

    #[test]
    fn a_link_local_address_on_another_link_is_another_hosts() {
        let here =
            Here::of([("fe80::1".parse().unwrap(), 3), ("2001:db8::1".parse().unwrap(), 0)].into_iter());
        for (address, expect) in [
            ("[fe80::1%3]:25", true),
            ("[fe80::1%4]:25", false),
            ("[fe80::1]:25", true),
            ("[fe80::2%3]:25", false),
            ("[2001:db8::1]:25", true),
        ] {
            assert_eq!(here.has(address.parse().unwrap()), expect, "{address}");
        }
    }
}
