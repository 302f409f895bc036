//! What this host listens on for mail: a next hop that is one of these would bring it back.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;

/// Addresses and ports of mailguard's own listeners.
#[derive(Debug, Clone, Default)]
pub struct OwnListeners {
    listeners: HashSet<SocketAddr>,
}

impl OwnListeners {
    /// The listeners of every zone that accepts mail. One on an unspecified address stands for each address of
    /// this host's interfaces, the loopback ones excepted: a local server may have those.
    pub fn new(listeners: Vec<SocketAddr>) -> Self {
        Self { listeners: listeners.into_iter().collect() }
    }

    /// The addresses of this host, now: those that the interfaces have, and those on which we listen.
    pub(super) fn here(&self) -> Here {
        let listeners = self.listeners.iter().map(|listener| listener.ip().to_canonical());
        Here(addresses().into_iter().chain(listeners).collect())
    }

    /// Whether a connection to `address` would come back to us.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.covers(address, addresses)
    }

    /// [`OwnListeners::contains`] for many questions: this host's addresses are looked at once.
    pub fn now(&self) -> impl Fn(SocketAddr) -> bool + '_ {
        let here = addresses();
        move |address| self.covers(address, || &here)
    }

    fn covers<T: Borrow<HashSet<IpAddr>>>(&self, address: SocketAddr, here: impl Fn() -> T) -> bool {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
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
        listens_everywhere && !address.ip().is_loopback() && here().borrow().contains(&address.ip())
    }
}

/// This host's addresses at one moment.
pub(super) struct Here(HashSet<IpAddr>);

impl Here {
    /// Whether the address is one of this host's, on whatever port; the loopback ones excepted, which every host has.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !address.is_loopback() && self.0.contains(&address)
    }
}

/// The addresses of this host's interfaces. Interfaces that can't be listed have none: the greeting will tell.
pub(super) fn addresses() -> HashSet<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let storage = interface.address?;
            let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let v6 = storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
            v4.or(v6)
        })
        .collect()
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
            assert!(OwnListeners::default().here().has(ip.into()), "{ip}");
        }
    }
}
