//! Which server gets a recipient's mail next: a pure decision of configuration and origin.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::model::{DefaultRoute, SmarthostAddress};
use crate::mail::{Domain, ForwardPath, Host, Mailbox};
use crate::origin::Origin;
use crate::smtp::EnhancedStatus;

/// The standard SMTP port.
pub const SMTP_PORT: u16 = 25;

/// Where to connect, before any name is looked up. Messages for equal next hops share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// This address and port.
    Address(SocketAddr),
    /// The addresses of this name (A, AAAA), this port.
    Host(Domain, u16),
    /// The mail exchangers of this domain (RFC 5321 §5.1).
    Mx(Domain),
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::Address(address) => address.fmt(f),
            NextHop::Host(name, port) => write!(f, "{name}:{port}"),
            NextHop::Mx(domain) => write!(f, "mx:{domain}"),
        }
    }
}

/// A next hop and the rule that chose it, in one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub next_hop: NextHop,
    /// Why.
    pub reason: String,
}

/// Mail that has no way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoute {
    /// For the report.
    pub status: EnhancedStatus,
    /// Transient: a change of configuration mends it.
    pub transient: bool,
    /// What to change, in one line.
    pub reason: String,
}

/// Chooses: the incoming domain's server, else the smarthost, else `delivery.default`.
pub fn route(config: &Config, recipient: &ForwardPath, origin: &Origin) -> Result<Route, NoRoute> {
    let mailbox = match recipient {
        ForwardPath::Mailbox(mailbox) => mailbox,
        ForwardPath::Postmaster => config.postmaster.as_ref().ok_or_else(|| NoRoute {
            status: EnhancedStatus::new(4, 3, 5),
            transient: true,
            reason: "mail for <postmaster> has no address: set `postmaster` or an [[incoming_domain]]"
                .to_owned(),
        })?,
    };
    if let Some(incoming) = mailbox.domain().and_then(|domain| config.incoming_domain(domain)) {
        let reason = format!("incoming domain {}", incoming.domain);
        return Ok(Route { next_hop: NextHop::Address(incoming.server), reason });
    }
    if let Some(smarthost) = &config.smarthost {
        let next_hop = match &smarthost.host {
            SmarthostAddress::Name(name) => NextHop::Host(name.clone(), smarthost.port),
            SmarthostAddress::Ip(address) => NextHop::Address(SocketAddr::new(*address, smarthost.port)),
        };
        return Ok(Route { next_hop, reason: "smarthost".to_owned() });
    }
    Ok(default_route(config.delivery.default, mailbox, origin))
}

fn default_route(default: DefaultRoute, mailbox: &Mailbox, origin: &Origin) -> Route {
    if let (DefaultRoute::OriginalDestination, Origin::Client(client)) = (default, origin)
        && !client.destination_is_ours
    {
        let reason = "the original destination".to_owned();
        return Route { next_hop: NextHop::Address(client.destination), reason };
    }
    match &mailbox.host {
        Host::Domain(domain) => {
            Route { next_hop: NextHop::Mx(domain.clone()), reason: format!("mail exchangers of {domain}") }
        }
        Host::Literal(literal) => {
            Route { next_hop: literal_hop(literal.0), reason: "address literal".to_owned() }
        }
    }
}

fn literal_hop(address: IpAddr) -> NextHop {
    NextHop::Address(SocketAddr::new(address, SMTP_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{IncomingDomain, Smarthost, ZoneKind};
    use crate::config::{Data, Entry, Place, Value, resolve};
    use crate::origin::ClientOrigin;

    const PLACE: Place = Place { text: 0, start: 0, end: 0 };

    fn value(data: Data) -> Value {
        Value { place: PLACE, data }
    }

    fn table(entries: Vec<(&str, Value)>) -> Value {
        let entry = |(key, value): (&str, Value)| Entry { key: key.to_owned(), key_place: PLACE, value };
        value(Data::Table(entries.into_iter().map(entry).collect()))
    }

    /// One zone and nothing else said.
    fn defaults() -> Config {
        let text = |text: &str| value(Data::Text(text.to_owned()));
        let zone = table(vec![
            ("name", text("green")),
            ("kind", text("green")),
            ("interfaces", value(Data::Array(vec![text("eth0")]))),
            ("mode", text("active")),
        ]);
        let root = table(vec![("hostname", text("guard.test")), ("zone", value(Data::Array(vec![zone])))]);
        resolve(&root, crate::config::resolve::NamedFiles::default()).unwrap()
    }

    fn incoming(domain: &str, server: &str) -> IncomingDomain {
        let subdomains = domain.starts_with('.');
        let domain = Domain::parse(domain.trim_start_matches('.')).unwrap();
        IncomingDomain { domain, subdomains, server: server.parse().unwrap() }
    }

    fn with_smarthost(host: SmarthostAddress) -> Config {
        Config { smarthost: Some(Smarthost { host, port: 587 }), ..defaults() }
    }

    fn original(mut config: Config) -> Config {
        config.delivery.default = DefaultRoute::OriginalDestination;
        config
    }

    fn dialled(destination: &str, destination_is_ours: bool) -> Origin {
        Origin::Client(ClientOrigin {
            zone: "green".to_owned(),
            kind: ZoneKind::Green,
            client: "192.0.2.1".parse().unwrap(),
            destination: destination.parse().unwrap(),
            destination_is_ours,
            helo: "client.test".to_owned(),
        })
    }

    /// The next hop for `recipient`, `-` for the bare postmaster; or the status code of there being none.
    fn check(config: &Config, recipient: &str, origin: &Origin, expect: &str) {
        let path = match recipient {
            "-" => ForwardPath::Postmaster,
            address => ForwardPath::Mailbox(Mailbox::parse(address).unwrap()),
        };
        let got = match route(config, &path, origin) {
            Ok(route) => route.next_hop.to_string(),
            Err(no) => format!("{} {}", if no.transient { "deferred" } else { "failed" }, no.status),
        };
        assert_eq!(got, expect, "{recipient}");
    }

    #[test]
    fn without_a_rule_by_mx() {
        let remote = dialled("198.51.100.7:25", false);
        check(&defaults(), "a@d.test", &remote, "mx:d.test");
        check(&defaults(), "a@[192.0.2.5]", &remote, "192.0.2.5:25");
        check(&defaults(), "a@[IPv6:2001:db8::5]", &remote, "[2001:db8::5]:25");
        check(&defaults(), "a@d.test", &Origin::Own, "mx:d.test");
    }

    #[test]
    fn to_where_the_client_had_dialled() {
        let config = original(defaults());
        check(&config, "a@d.test", &dialled("198.51.100.7:25", false), "198.51.100.7:25");
        check(&config, "a@[192.0.2.5]", &dialled("198.51.100.7:25", false), "198.51.100.7:25");
        check(&config, "a@d.test", &dialled("192.0.2.9:25", true), "mx:d.test");
        check(&config, "a@d.test", &Origin::Own, "mx:d.test");
    }

    #[test]
    fn a_smarthost_takes_what_is_not_incoming() {
        let remote = dialled("198.51.100.7:25", false);
        let named = with_smarthost(SmarthostAddress::Name(Domain::parse("relay.test").unwrap()));
        let numbered = with_smarthost(SmarthostAddress::Ip("2001:db8::1".parse().unwrap()));
        check(&named, "a@d.test", &remote, "relay.test:587");
        check(&numbered, "a@[192.0.2.5]", &remote, "[2001:db8::1]:587");
        check(&original(named), "a@d.test", &remote, "relay.test:587");
    }

    #[test]
    fn incoming_domains_come_first_and_the_longest_wins() {
        let mut config = original(with_smarthost(SmarthostAddress::Ip("192.0.2.200".parse().unwrap())));
        config.incoming_domains = vec![
            incoming(".d.test", "192.0.2.11:25"),
            incoming("d.test", "192.0.2.10:26"),
            incoming(".b.d.test", "192.0.2.12:25"),
            incoming("a.b.d.test", "[2001:db8::13]:25"),
        ];
        let remote = dialled("198.51.100.7:25", false);
        for (recipient, expect) in [
            ("x@d.test", "192.0.2.10:26"),
            ("x@D.TEST", "192.0.2.10:26"),
            ("x@c.d.test", "192.0.2.11:25"),
            ("x@b.d.test", "192.0.2.11:25"),
            ("x@c.b.d.test", "192.0.2.12:25"),
            ("x@a.b.d.test", "[2001:db8::13]:25"),
            ("x@notd.test", "192.0.2.200:587"),
            ("x@test", "192.0.2.200:587"),
        ] {
            check(&config, recipient, &remote, expect);
        }
    }

    #[test]
    fn the_bare_postmaster_goes_where_the_configured_one_does() {
        let remote = dialled("192.0.2.9:25", true);
        let nobody = Config { postmaster: None, ..defaults() };
        check(&nobody, "-", &remote, "deferred 4.3.5");
        let mut somebody = Config { postmaster: Some(Mailbox::parse("boss@d.test").unwrap()), ..defaults() };
        check(&somebody, "-", &remote, "mx:d.test");
        somebody.incoming_domains = vec![incoming("d.test", "192.0.2.10:25")];
        check(&somebody, "-", &remote, "192.0.2.10:25");
    }
}
