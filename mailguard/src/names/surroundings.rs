//! What is around this host: its addresses, those of its networks that stand for every host, the servers of
//! incoming domains.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use mailguard_core::config::Config;
use mailguard_core::config::model::MailServer;
use mailguard_core::names::Surroundings;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::SockaddrStorage;

use crate::datapath::{self, Delivery};

/// What was seen of this host.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    own: Vec<IpAddr>,
    broadcast: Vec<IpAddr>,
    /// The answers that the kernel was asked about.
    seen: BTreeSet<IpAddr>,
}

impl Host {
    /// Looks around, with these answers in mind.
    pub(super) fn look(answers: BTreeSet<IpAddr>) -> io::Result<Self> {
        let interfaces: Vec<InterfaceAddress> = getifaddrs()?.collect();
        let mut own: Vec<IpAddr> = interfaces.iter().filter_map(|i| ip(i.address.as_ref()?)).collect();
        let mut broadcast: Vec<IpAddr> = interfaces.iter().flat_map(ends_of_network).collect();
        let asked: Vec<IpAddr> = answers.iter().copied().collect();
        let deliveries = datapath::deliveries(&asked).map_err(io::Error::other)?;
        for (address, delivery) in asked.into_iter().zip(deliveries) {
            match delivery {
                Delivery::Here => own.push(address),
                Delivery::Everybody => broadcast.push(address),
                Delivery::Elsewhere => {}
            }
        }
        Ok(Self { own, broadcast, seen: answers })
    }

    /// What no name may lead to. What the kernel wasn't asked about counts as ours until it was.
    pub(super) fn surroundings(&self, servers: &[IpAddr], answers: &BTreeSet<IpAddr>) -> Surroundings {
        let own = self.own.iter().chain(answers.difference(&self.seen));
        Surroundings::new(own.copied(), self.broadcast.iter().copied(), servers.iter().copied())
    }
}

/// The servers of incoming domains that are written by their addresses.
pub(super) fn servers(config: &Config) -> Vec<IpAddr> {
    let servers = config.incoming_domains.iter().flat_map(|incoming| &incoming.servers);
    let addresses = servers.filter_map(|server| match server {
        MailServer::Address(address) => Some(address.ip()),
        MailServer::Host(..) => None,
    });
    addresses.collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
    v4.or(v6)
}

/// The first and the last address of an interface's IPv4 network: both stand for every host of it (RFC 919
/// §7).
fn ends_of_network(interface: &InterfaceAddress) -> Vec<IpAddr> {
    let (Some(address), Some(netmask)) = (&interface.address, &interface.netmask) else { return Vec::new() };
    match (ip(address), ip(netmask)) {
        (Some(IpAddr::V4(address)), Some(IpAddr::V4(netmask))) => ends(address, netmask),
        _ => Vec::new(),
    }
}

fn ends(address: Ipv4Addr, netmask: Ipv4Addr) -> Vec<IpAddr> {
    let (address, mask) = (address.to_bits(), netmask.to_bits());
    // Networks of two addresses and of one have neither (RFC 3021).
    if mask.leading_ones() >= 31 {
        return Vec::new();
    }
    [address & mask, address | !mask].map(|end| IpAddr::V4(Ipv4Addr::from_bits(end))).into()
}

#[cfg(test)]
mod tests {
    use mailguard_core::names::Refusal;

    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn this_host_knows_its_own_addresses() {
        let own: BTreeSet<IpAddr> = getifaddrs().unwrap().filter_map(|i| ip(i.address.as_ref()?)).collect();
        let others = set(&["203.0.113.77", "203.0.113.78", "203.0.113.79"]);
        let [server, other, new] = others.iter().copied().collect::<Vec<_>>()[..] else { panic!("three") };
        let host = Host::look(own.iter().copied().chain([server, other]).collect()).unwrap();
        let surroundings = host.surroundings(&[server], &set(&["203.0.113.78", "203.0.113.79"]));
        assert!(own.iter().all(|address| surroundings.judge(*address).is_err()), "{own:?}");
        assert_eq!(surroundings.judge(server), Err(Refusal::IncomingServer));
        assert_eq!(surroundings.judge(other), Ok(()));
        assert_eq!(surroundings.judge(new), Err(Refusal::Ours), "nobody has looked yet");
    }

    #[test]
    fn both_ends_of_a_network_are_everybody() {
        let ends = |address: &str, netmask: &str| ends(address.parse().unwrap(), netmask.parse().unwrap());
        assert_eq!(
            ends("10.1.2.3", "255.255.255.0"),
            ["10.1.2.0", "10.1.2.255"].map(|end| end.parse::<IpAddr>().unwrap())
        );
        assert_eq!(ends("10.1.2.3", "255.255.255.254"), [] as [IpAddr; 0]);
        assert_eq!(ends("10.1.2.3", "255.255.255.255"), [] as [IpAddr; 0]);
    }
}
