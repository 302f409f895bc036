//! Where mail goes, as an administrator names it: a domain, a next hop, or everything.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::config::model::MailServer;
use crate::config::syntax::MAIL_SERVER;
use crate::mail::{Domain, ForwardPath};
use crate::route::{NextHop, Route};

/// What `mailguard queue` steers by. Equal ones are written alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `all`
    All,
    /// `example.com`: recipients in the domain and its subdomains, and what goes by the smarthost of this
    /// name.
    Domain(Domain),
    /// `10.0.0.25`: what goes to this address because it is configured, or was the original destination.
    Address(IpAddr),
    /// `10.0.0.25:25`, `relay.example.net:587`, `mx:example.com`, `10.0.0.25:25,10.0.0.26:25`: one next hop,
    /// as lists show it.
    NextHop(NextHop),
}

/// A text that names no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no destination: expected a domain like \"example.com\", an address, a next hop as lists show it, or \"all\""
)]
pub struct NoDestination(String);

impl Destination {
    /// Whether mail for `recipient` by `route` goes there.
    pub fn covers(&self, recipient: &ForwardPath, route: &Route) -> bool {
        match self {
            Destination::All => true,
            Destination::Domain(domain) => {
                let to = recipient.mailbox().and_then(|mailbox| mailbox.domain());
                let by_name = names(&route.next_hop).any(|name| name == domain);
                by_name || to.is_some_and(|to| to.is_within(domain))
            }
            Destination::Address(address) => {
                let mut servers = addresses(&route.next_hop);
                servers.any(|server| server.ip() == *address)
            }
            Destination::NextHop(NextHop::Servers { servers: meant, .. }) => {
                matches!(&route.next_hop, NextHop::Servers { servers, .. } if servers == meant)
            }
            Destination::NextHop(next_hop) => route.next_hop == *next_hop,
        }
    }
}

/// The hosts that a next hop is, where it is written by name.
fn names(hop: &NextHop) -> impl Iterator<Item = &Domain> {
    let (one, several) = match hop {
        NextHop::Host(name, _) => (Some(name), &[][..]),
        NextHop::Servers { servers, .. } => (None, servers.as_slice()),
        NextHop::Address(_) | NextHop::Mx(_) => (None, &[][..]),
    };
    one.into_iter().chain(several.iter().filter_map(|server| match server {
        MailServer::Host(name, _) => Some(name),
        MailServer::Address(_) => None,
    }))
}

/// The addresses that a next hop is, where it is written by them.
fn addresses(hop: &NextHop) -> impl Iterator<Item = &SocketAddr> {
    let (one, several) = match hop {
        NextHop::Address(address) => (Some(address), &[][..]),
        NextHop::Servers { servers, .. } => (None, servers.as_slice()),
        NextHop::Host(..) | NextHop::Mx(_) => (None, &[][..]),
    };
    one.into_iter().chain(several.iter().filter_map(|server| match server {
        MailServer::Address(address) => Some(address),
        MailServer::Host(..) => None,
    }))
}

/// Whether two servers or more are named, each with its port.
fn several(text: &str) -> Option<Vec<MailServer>> {
    let server = |text: &str| (text.contains(':')).then(|| (MAIL_SERVER.parse)(text).ok()).flatten();
    text.contains(',').then(|| text.split(',').map(server).collect()).flatten()
}

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        if text == "all" {
            return Ok(Destination::All);
        }
        if let Ok(address) = text.parse() {
            return Ok(Destination::Address(address));
        }
        let domain = |text: &str| Domain::parse(text).map_err(|_| NoDestination(text.to_owned()));
        if let Some(name) = text.strip_prefix("mx:") {
            return Ok(Destination::NextHop(NextHop::Mx(domain(name)?)));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Destination::NextHop(NextHop::Address(address)));
        }
        if let Some(servers) = several(text) {
            return Ok(Destination::NextHop(NextHop::Servers { servers, balance: false }));
        }
        match text.rsplit_once(':').map(|(name, port)| (name, port.parse::<u16>())) {
            None => Ok(Destination::Domain(domain(text)?)),
            Some((name, Ok(port))) => Ok(Destination::NextHop(NextHop::Host(domain(name)?, port))),
            Some(_) => Err(NoDestination(text.to_owned())),
        }
    }
}

/// In A-labels and small letters.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::All => f.write_str("all"),
            Destination::Domain(domain) => f.write_str(domain.ascii()),
            Destination::Address(address) => address.fmt(f),
            Destination::NextHop(NextHop::Address(address)) => address.fmt(f),
            Destination::NextHop(NextHop::Host(name, port)) => write!(f, "{}:{port}", name.ascii()),
            Destination::NextHop(NextHop::Mx(domain)) => write!(f, "mx:{}", domain.ascii()),
            Destination::NextHop(NextHop::Servers { servers, .. }) => {
                let shown = servers.iter().map(|server| match server {
                    MailServer::Address(address) => address.to_string(),
                    MailServer::Host(name, port) => format!("{}:{port}", name.ascii()),
                });
                f.write_str(&shown.collect::<Vec<_>>().join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Tls;
    use crate::mail::Mailbox;
    use crate::route::{NamedBy, OriginalDestination};

    fn covers(destination: &str, recipient: &str, next_hop: NextHop) -> bool {
        let destination: Destination = destination.parse().unwrap();
        let route = Route {
            next_hop,
            outgoing: None,
            tls: Tls::Off,
            smarthost: None,
            named_by: NamedBy::Mail,
            original_destination: OriginalDestination::NotAsked,
        };
        destination.covers(&ForwardPath::Mailbox(Mailbox::parse(recipient).unwrap()), &route)
    }

    #[test]
    fn what_a_destination_covers() {
        let domain = |name: &str| Domain::parse(name).unwrap();
        let (mx, address) =
            (NextHop::Mx(domain("d.test")), NextHop::Address("192.0.2.1:25".parse().unwrap()));
        let relay = NextHop::Host(domain("relay.test"), 587);
        let servers = vec![
            MailServer::Address("192.0.2.2:25".parse().unwrap()),
            MailServer::Host(domain("mx.test"), 26),
        ];
        let several = NextHop::Servers { servers, balance: true };
        for (destination, next_hop, expect) in [
            ("all", &mx, true),
            ("d.test", &mx, true),
            ("D.TEST", &address, true),
            ("test", &relay, true),
            ("other.test", &mx, false),
            ("relay.test", &relay, true),
            ("relay.test:587", &relay, true),
            ("relay.test:25", &relay, false),
            ("mx:d.test", &mx, true),
            ("mx:D.Test", &mx, true),
            ("Relay.Test:587", &relay, true),
            ("mx:d.test", &relay, false),
            ("192.0.2.1", &address, true),
            ("192.0.2.1:25", &address, true),
            ("192.0.2.1:26", &address, false),
            ("192.0.2.2", &address, false),
            ("192.0.2.2", &several, true),
            ("192.0.2.1:25", &several, false),
            ("mx.test", &several, true),
            ("192.0.2.2:25,MX.test:26", &several, true),
            ("mx.test:26,192.0.2.2:25", &several, false),
        ] {
            assert_eq!(covers(destination, "a@d.test", next_hop.clone()), expect, "{destination} {next_hop}");
        }
    }

    #[test]
    fn texts() {
        for text in [
            "all",
            "example.com",
            "2001:db8::1",
            "[2001:db8::1]:25",
            "mx:example.com",
            "relay.example.net:587",
            "10.0.0.25:25,[2001:db8::1]:26,mx.example.net:25",
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
        for (text, expect) in
            [("Example.COM", "example.com"), ("mx:BÜCHER.example", "mx:xn--bcher-kva.example")]
        {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), expect);
        }
        for text in ["relay.test:abc", "", "a b", "mx:", ":25", "-", "a@b.c", "10.0.0.1:25,", "a,b"] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }
}
