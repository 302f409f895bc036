//! From a next hop to the addresses to try, in order (RFC 5321 §5.1), none of them ourselves.
//!
//! `core::route` has chosen the next hop; here the DNS is asked and `core::mx` decides. Connecting is `delivery`'s.

mod own;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::Domain;
use mailguard_core::mx::{self, Target};
use mailguard_core::route::{NextHop, NoRoute, SMTP_PORT};
use mailguard_core::smtp::client::loop_report;

pub use self::own::OwnListeners;
use crate::lookup::dns::Dns;

/// A server to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its name, where it was found by one.
    pub name: Option<Domain>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// `mx.example[192.0.2.1]:25`, as reports show it.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            f.write_str(name.as_str())?;
        }
        write!(f, "[{}]:{}", self.address.ip(), self.address.port())
    }
}

/// The name of the next hop in "Mail for ... loops back to myself".
pub fn destination_name(hop: &NextHop) -> String {
    match hop {
        NextHop::Address(address) => address.to_string(),
        NextHop::Host(name, _) | NextHop::Mx(name) => name.to_string(),
    }
}

/// The servers of `hop` in the order to try them. `own_name` is how we call ourselves in MX records.
pub async fn destinations(
    dns: &Dns,
    hop: &NextHop,
    own_name: &Domain,
    own: &OwnListeners,
) -> Result<Vec<Destination>, NoRoute> {
    match hop {
        NextHop::Address(address) => {
            without_ourselves(hop, vec![Destination { name: None, address: *address }], own)
        }
        NextHop::Host(name, port) => {
            let targets = mx::host_targets(name, dns.addresses(name).await, seed())?;
            without_ourselves(hop, with_port(targets, *port), own)
        }
        NextHop::Mx(domain) => {
            let exchangers = mx::exchangers(domain, dns.mx(domain).await, seed())?;
            let resolved = join_all(exchangers.into_iter().map(|exchanger| async {
                let addresses = addresses(dns, &exchanger.name).await;
                (exchanger, addresses)
            }))
            .await;
            let is_ours = |name: &Domain, address: Option<IpAddr>| match address {
                Some(address) => own.contains(SocketAddr::new(address, SMTP_PORT)),
                None => name == own_name,
            };
            Ok(with_port(mx::targets(domain, resolved, is_ours, seed())?, SMTP_PORT))
        }
    }
}

/// An MX must be a name (RFC 1035 §3.3.9); some write an address, which the DNS would be asked for in vain.
async fn addresses(dns: &Dns, name: &Domain) -> Lookup<Vec<IpAddr>> {
    match name.ascii().parse() {
        Ok(address) => Lookup::Found(vec![address]),
        Err(_) => dns.addresses(name).await,
    }
}

fn with_port(targets: Vec<Target>, port: u16) -> Vec<Destination> {
    targets
        .into_iter()
        .map(|target| Destination { name: target.name, address: SocketAddr::new(target.address, port) })
        .collect()
}

/// A next hop that an administrator or a client named: what of it is ourselves is left out, and if that is all
/// of it, mail would only come back (RFC 3463: 5.4.6).
fn without_ourselves(
    hop: &NextHop,
    mut destinations: Vec<Destination>,
    own: &OwnListeners,
) -> Result<Vec<Destination>, NoRoute> {
    destinations.retain(|destination| !own.contains(destination.address));
    if !destinations.is_empty() {
        return Ok(destinations);
    }
    let why = "mailguard itself listens there. Change the server of the [[incoming_domain]], the \
               [smarthost], or delivery.default";
    let report = loop_report(&destination_name(hop), "", why);
    Err(NoRoute { status: report.status, transient: false, reason: report.text })
}

/// Differs from call to call: the load is balanced, nothing is kept secret by it.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::dns_server::DnsServer;

    const ZONE: &[&str] = &[
        "d.test MX 20 b.test",
        "d.test MX 10 a.test",
        "a.test A 192.0.2.1",
        "a.test AAAA 2001:db8::1",
        "b.test A 192.0.2.2",
        "plain.test A 192.0.2.3",
        "ours.test MX 10 a.test",
        "ours.test MX 20 guard.test",
        "ours.test MX 30 b.test",
        "guard.test A 192.0.2.9",
        "own.test MX 10 other.test",
        "other.test A 192.0.2.9",
        "literal.test MX 10 192.0.2.4",
        "null.test MX 0 .",
        "down.test MX SERVFAIL",
        "relay.test A 192.0.2.5",
    ];

    fn mx(text: &str) -> NextHop {
        NextHop::Mx(Domain::parse(text).unwrap())
    }

    async fn resolve(hop: &NextHop) -> Result<String, (String, bool)> {
        let server = DnsServer::start(ZONE).await;
        let own =
            OwnListeners::new(vec!["192.0.2.9:25".parse().unwrap(), "127.0.0.1:10025".parse().unwrap()]);
        destinations(&Dns::new(&server.config()), hop, &Domain::parse("guard.test").unwrap(), &own)
            .await
            .map(|list| list.iter().map(Destination::to_string).collect::<Vec<_>>().join(" "))
            .map_err(|no| (no.status.to_string(), no.transient))
    }

    async fn check(hop: NextHop, expect: Result<&str, (&str, bool)>) {
        let expect = expect.map(str::to_owned).map_err(|(status, transient)| (status.to_owned(), transient));
        assert_eq!(resolve(&hop).await, expect, "{hop}");
    }

    #[tokio::test]
    async fn mail_exchangers() {
        check(mx("d.test"), Ok("a.test[2001:db8::1]:25 a.test[192.0.2.1]:25 b.test[192.0.2.2]:25")).await;
        check(mx("plain.test"), Ok("plain.test[192.0.2.3]:25")).await;
        check(mx("ours.test"), Ok("a.test[2001:db8::1]:25 a.test[192.0.2.1]:25")).await;
        check(mx("literal.test"), Ok("192.0.2.4[192.0.2.4]:25")).await;
        check(mx("own.test"), Err(("5.4.6", false))).await;
        check(mx("null.test"), Err(("5.1.10", false))).await;
        check(mx("no.test"), Err(("5.1.2", false))).await;
        check(mx("down.test"), Err(("4.4.3", true))).await;
    }

    #[tokio::test]
    async fn named_hosts_and_addresses() {
        let relay = |name, port| NextHop::Host(Domain::parse(name).unwrap(), port);
        check(relay("relay.test", 2525), Ok("relay.test[192.0.2.5]:2525")).await;
        check(relay("no.test", 25), Err(("4.4.4", true))).await;
        check(relay("guard.test", 25), Err(("5.4.6", false))).await;
        check(relay("guard.test", 26), Ok("guard.test[192.0.2.9]:26")).await;
        let address = |text: &str| NextHop::Address(text.parse().unwrap());
        check(address("192.0.2.7:25"), Ok("[192.0.2.7]:25")).await;
        check(address("[2001:db8::7]:25"), Ok("[2001:db8::7]:25")).await;
        check(address("127.0.0.1:10025"), Err(("5.4.6", false))).await;
    }
}
