//! Which server gets a recipient's mail next: a pure decision of configuration and origin.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::model::{
    DefaultRoute, Direction, DomainRoute, IncomingDomain, MailServer, OutgoingAddress, RouteSmarthost,
    Smarthost, SmarthostAddress, Tls,
};
use crate::mail::{Domain, ForwardPath, Host, Mailbox, ReversePath};
use crate::origin::Origin;
use crate::smtp::{Detail, EnhancedStatus};

/// The standard SMTP port.
pub const SMTP_PORT: u16 = 25;

/// Where to connect, before any name is looked up. Messages for equal next hops share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NextHop {
    /// This address and port.
    #[serde(rename = "address")]
    Address(SocketAddr),
    /// The addresses of this name (A, AAAA), this port.
    #[serde(rename = "host")]
    Host(Domain, u16),
    /// The mail exchangers of this domain (RFC 5321 §5.1).
    #[serde(rename = "mx")]
    Mx(Domain),
    /// These servers: the next one when one is away.
    #[serde(rename = "servers")]
    Servers {
        /// Two at least, in their order.
        #[serde(rename = "servers")]
        servers: Vec<MailServer>,
        /// Each message begins with another one.
        #[serde(rename = "balance")]
        balance: bool,
    },
}

impl NextHop {
    /// These servers, one at least.
    fn of_servers(servers: &[MailServer], balance: bool) -> Self {
        match servers {
            [MailServer::Address(address)] => NextHop::Address(*address),
            [MailServer::Host(name, port)] => NextHop::Host(name.clone(), *port),
            several => NextHop::Servers { servers: several.to_vec(), balance },
        }
    }

    /// Whether several servers take turns.
    pub fn is_balanced(&self) -> bool {
        matches!(self, NextHop::Servers { balance: true, .. })
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::Address(address) => address.fmt(f),
            NextHop::Host(name, port) => write!(f, "{name}:{port}"),
            NextHop::Mx(domain) => write!(f, "mx:{domain}"),
            NextHop::Servers { servers, .. } => {
                for (index, server) in servers.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{server}")?;
                }
                Ok(())
            }
        }
    }
}

/// How to get to a next hop. Messages with equal routes share connections, and wait together while it fails.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to.
    pub next_hop: NextHop,
    /// Where connections come from; none: the system chooses.
    pub outgoing: Option<OutgoingAddress>,
    /// How connections are encrypted.
    pub tls: Tls,
    /// The smarthost that the next hop is: whom it trusts and who we are to it.
    pub smarthost: Option<Arc<Smarthost>>,
    /// Who chose the next hop.
    pub named_by: NamedBy,
    /// What the original destination has to do with it.
    pub original_destination: OriginalDestination,
}

/// What part the original destination has, where `delivery.default` leads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginalDestination {
    /// None, or there is no other way.
    NotAsked,
    /// It is the next hop. What it defers goes to the exchangers of its domain from then on.
    First,
    /// It has deferred the mail: it is tried once more behind all exchangers.
    Last(SocketAddr),
}

/// Whose word a next hop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NamedBy {
    /// It stands in the configuration: the server of an incoming domain, or a smarthost.
    Administrator,
    /// A recipient's domain or address literal, or the original destination: anybody's word. It leads to no
    /// address that is ours or means none ([`crate::reach`]).
    Mail,
}

/// Mail that has no way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoute {
    /// For the report. A transient one: a change of configuration mends it.
    pub status: EnhancedStatus,
    /// What to change, in one line.
    pub reason: String,
}

/// A decision and how it came about, one line a rule in the order in which they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The rules.
    pub steps: Vec<String>,
    /// What comes of them.
    pub route: Result<Route, NoRoute>,
}

/// The rules that speak for a message's way, as far as they were asked.
struct Rules<'a> {
    recipient: &'a Mailbox,
    /// The address stands in the configuration: no client has connected to a server for it.
    is_ours: bool,
    incoming: Option<&'a IncomingDomain>,
    by_sender: Option<&'a DomainRoute>,
    by_recipient: Option<&'a DomainRoute>,
}

/// Chooses: the incoming domain's server, else the domain route (a recipient's wins over a sender's, and the
/// one that wins holds whole), else the smarthost, else `delivery.default`. `deferred`: an attempt for this
/// recipient has failed, so that the original destination isn't the only server to be asked.
pub fn route(
    config: &Config,
    sender: &ReversePath,
    recipient: &ForwardPath,
    origin: &Origin,
    deferred: bool,
) -> Result<Route, NoRoute> {
    Ok(rules(config, sender, recipient)?.route(config, origin, deferred))
}

/// As [`route`] for a first attempt, with the reasons.
pub fn explain(
    config: &Config,
    sender: &ReversePath,
    recipient: &ForwardPath,
    origin: &Origin,
) -> Explanation {
    match rules(config, sender, recipient) {
        Ok(rules) => {
            let route = rules.route(config, origin, false);
            Explanation { steps: rules.steps(config, sender, &route), route: Ok(route) }
        }
        Err(none) => Explanation { steps: Vec::new(), route: Err(none) },
    }
}

fn rules<'a>(
    config: &'a Config,
    sender: &ReversePath,
    recipient: &'a ForwardPath,
) -> Result<Rules<'a>, NoRoute> {
    let is_ours = *recipient == ForwardPath::Postmaster;
    let recipient = match recipient {
        ForwardPath::Mailbox(mailbox) => mailbox,
        ForwardPath::Postmaster => config.postmaster.as_ref().ok_or_else(|| NoRoute {
            status: EnhancedStatus::transient(Detail::INCORRECTLY_CONFIGURED),
            reason: "mail for <postmaster> has no address: set `postmaster` or an [[incoming_domain]]"
                .to_owned(),
        })?,
    };
    let rule = |direction, mailbox: Option<&Mailbox>| {
        mailbox.and_then(Mailbox::domain).and_then(|domain| config.domain_route(direction, domain))
    };
    Ok(Rules {
        recipient,
        is_ours,
        incoming: recipient.domain().and_then(|domain| config.incoming_domain(domain)),
        by_sender: rule(Direction::Sender, sender.mailbox()),
        by_recipient: rule(Direction::Recipient, Some(recipient)),
    })
}

impl Rules<'_> {
    fn domain_route(&self) -> Option<&DomainRoute> {
        self.by_recipient.or(self.by_sender)
    }

    fn route(&self, config: &Config, origin: &Origin, deferred: bool) -> Route {
        if let Some(incoming) = self.incoming {
            return to_incoming(config, incoming);
        }
        let rule = self.domain_route();
        let outgoing = rule.and_then(|rule| rule.outgoing.clone());
        let smarthost = match rule.map(|rule| &rule.smarthost) {
            Some(RouteSmarthost::Own(own)) => Some(own),
            Some(RouteSmarthost::Without) => None,
            Some(RouteSmarthost::General) | None => config.smarthost.as_ref(),
        };
        match smarthost {
            Some(smarthost) => by_smarthost(smarthost, outgoing),
            None if self.is_ours => by_mail(config, by_domain(self.recipient), outgoing),
            None => by_default(config, self.recipient, origin, deferred, outgoing),
        }
    }

    fn steps(&self, config: &Config, sender: &ReversePath, route: &Route) -> Vec<String> {
        let domain = &self.recipient.host;
        if let Some(incoming) = self.incoming {
            let dot = if incoming.subdomains { "." } else { "" };
            let mut steps = vec![format!("incoming domain \"{dot}{}\" takes {domain}", incoming.domain)];
            steps.extend(match &route.next_hop {
                NextHop::Servers { balance: true, .. } => Some("its servers are taken in turn".to_owned()),
                NextHop::Servers { balance: false, .. } => {
                    Some("the next one of its servers is tried when one is away".to_owned())
                }
                _ => None,
            });
            return steps;
        }
        let mut steps = vec![format!("no incoming domain takes {domain}")];
        for (direction, whose, rule) in [
            (Direction::Sender, sender.to_string(), self.by_sender),
            (Direction::Recipient, self.recipient.to_string(), self.by_recipient),
        ] {
            steps.push(match rule {
                Some(rule) if direction == Direction::Sender && self.by_recipient.is_some() => {
                    format!("{direction} route \"{}\" holds {whose}, but a recipient route wins", rule.domain)
                }
                Some(rule) => format!("{direction} route \"{}\" holds {whose}", rule.domain),
                None => format!("no {direction} route holds {whose}"),
            });
        }
        steps.push(match (&route.smarthost, self.domain_route().map(|rule| &rule.smarthost)) {
            (Some(_), Some(RouteSmarthost::Own(_))) => "the route has a smarthost of its own".to_owned(),
            (None, Some(RouteSmarthost::Without)) => "the route excepts it from the smarthost".to_owned(),
            (Some(_), _) => "the smarthost takes what has none of its own".to_owned(),
            (None, _) => "there is no smarthost".to_owned(),
        });
        if route.smarthost.is_none() {
            steps.push(match (config.delivery.default, &route.next_hop) {
                (DefaultRoute::Mx, _) => "delivery.default: by the domain's mail exchangers".to_owned(),
                (DefaultRoute::OriginalDestination, NextHop::Mx(_)) => {
                    "delivery.default: to the original destination; by mail exchangers where that was \
                     this host, and after a first deferral there"
                        .to_owned()
                }
                (DefaultRoute::OriginalDestination, _) => {
                    "delivery.default: to the original destination".to_owned()
                }
            });
        }
        steps
    }
}

/// To a smarthost.
pub(crate) fn by_smarthost(smarthost: &Arc<Smarthost>, outgoing: Option<OutgoingAddress>) -> Route {
    let next_hop = match &smarthost.host {
        SmarthostAddress::Name(name) => NextHop::Host(name.clone(), smarthost.port),
        SmarthostAddress::Ip(address) => NextHop::Address(SocketAddr::new(*address, smarthost.port)),
    };
    let (tls, named_by) = (smarthost.tls, NamedBy::Administrator);
    let original_destination = OriginalDestination::NotAsked;
    Route { next_hop, outgoing, tls, smarthost: Some(smarthost.clone()), named_by, original_destination }
}

/// To the servers of an incoming domain.
pub fn to_incoming(config: &Config, incoming: &IncomingDomain) -> Route {
    to_servers(config, &incoming.servers, incoming.balance)
}

/// To some of them.
pub fn to_servers(config: &Config, servers: &[MailServer], balance: bool) -> Route {
    let named_by = NamedBy::Administrator;
    Route { named_by, ..by_mail(config, NextHop::of_servers(servers, balance), None) }
}

/// To a next hop that is no smarthost. What a domain says of its own encryption belongs here.
fn by_mail(config: &Config, next_hop: NextHop, outgoing: Option<OutgoingAddress>) -> Route {
    let (tls, named_by, original_destination) =
        (config.delivery.tls, NamedBy::Mail, OriginalDestination::NotAsked);
    Route { next_hop, outgoing, tls, smarthost: None, named_by, original_destination }
}

/// To where `delivery.default` says.
fn by_default(
    config: &Config,
    mailbox: &Mailbox,
    origin: &Origin,
    deferred: bool,
    outgoing: Option<OutgoingAddress>,
) -> Route {
    let original_destination = match (config.delivery.default, origin) {
        (DefaultRoute::OriginalDestination, Origin::Client(client)) if !client.destination_is_local => {
            Some(client.destination)
        }
        _ => None,
    };
    let Some(original_destination) = original_destination else {
        return by_mail(config, by_domain(mailbox), outgoing);
    };
    let (next_hop, original_destination) = match (by_domain(mailbox), deferred) {
        // A literal has no exchangers.
        (NextHop::Address(_) | NextHop::Host(..) | NextHop::Servers { .. }, _) => {
            (NextHop::Address(original_destination), OriginalDestination::NotAsked)
        }
        (NextHop::Mx(_), false) => (NextHop::Address(original_destination), OriginalDestination::First),
        (exchangers @ NextHop::Mx(_), true) => (exchangers, OriginalDestination::Last(original_destination)),
    };
    Route { original_destination, ..by_mail(config, next_hop, outgoing) }
}

fn by_domain(mailbox: &Mailbox) -> NextHop {
    match &mailbox.host {
        Host::Domain(domain) => NextHop::Mx(domain.clone()),
        Host::Literal(literal) => NextHop::Address(SocketAddr::new(literal.0, SMTP_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::ZoneKind;
    use crate::origin::ClientOrigin;
    use crate::testing::config;

    /// Nothing is said of routes.
    fn defaults() -> Config {
        config("")
    }

    /// The servers in one text, `,` between.
    fn incoming(domain: &str, servers: &str) -> IncomingDomain {
        let servers: Vec<&str> = servers.split(',').collect();
        let text = format!("incoming_domain = [{{ domain = {domain:?}, server = {servers:?} }}]");
        config(&text).incoming_domains.remove(0)
    }

    fn with_smarthost(host: &str) -> Config {
        config(&format!(
            "smarthost = {{ enabled = true, address = {host:?}, port = 587, tls = \"required\" }}"
        ))
    }

    fn original(mut config: Config) -> Config {
        config.delivery.default = DefaultRoute::OriginalDestination;
        config
    }

    fn connected_to(destination: &str, destination_is_local: bool) -> Origin {
        Origin::Client(ClientOrigin {
            zone: "green".to_owned(),
            kind: ZoneKind::Green,
            client: "192.0.2.1".parse().unwrap(),
            destination: destination.parse().unwrap(),
            destination_is_local,
            helo: "client.test".to_owned(),
            user: None,
        })
    }

    /// The next hop for `recipient`, `-` for the bare postmaster; or the status code of there being none.
    fn check(config: &Config, recipient: &str, origin: &Origin, expect: &str) {
        let path = match recipient {
            "-" => ForwardPath::Postmaster,
            address => ForwardPath::Mailbox(Mailbox::parse(address).unwrap()),
        };
        let got = match route(config, &ReversePath::Null, &path, origin, false) {
            Ok(route) => route.next_hop.to_string(),
            Err(no) => {
                format!("{} {}", if no.status.is_transient() { "deferred" } else { "failed" }, no.status)
            }
        };
        assert_eq!(got, expect, "{recipient}");
    }

    #[test]
    fn without_a_rule_by_mx() {
        let remote = connected_to("198.51.100.7:25", false);
        check(&defaults(), "a@d.test", &remote, "mx:d.test");
        check(&defaults(), "a@[192.0.2.5]", &remote, "192.0.2.5:25");
        check(&defaults(), "a@[IPv6:2001:db8::5]", &remote, "[2001:db8::5]:25");
        check(&defaults(), "a@d.test", &Origin::Internal, "mx:d.test");
    }

    #[test]
    fn to_the_original_destination() {
        let config = original(defaults());
        check(&config, "a@d.test", &connected_to("198.51.100.7:25", false), "198.51.100.7:25");
        check(&config, "a@[192.0.2.5]", &connected_to("198.51.100.7:25", false), "198.51.100.7:25");
        check(&config, "a@d.test", &connected_to("192.0.2.9:25", true), "mx:d.test");
        check(&config, "a@d.test", &Origin::Internal, "mx:d.test");
    }

    #[test]
    fn what_the_original_destination_deferred_goes_to_the_exchangers() {
        let remote = connected_to("198.51.100.7:25", false);
        let way = |config: &Config, recipient: &str, origin: &Origin, deferred| {
            let path = ForwardPath::Mailbox(Mailbox::parse(recipient).unwrap());
            let route = route(config, &ReversePath::Null, &path, origin, deferred).unwrap();
            (route.next_hop.to_string(), route.original_destination)
        };
        let config = original(defaults());
        let server = "198.51.100.7:25".parse().unwrap();
        let to = |hop: &str, original_destination| (hop.to_owned(), original_destination);
        assert_eq!(
            way(&config, "a@d.test", &remote, false),
            to("198.51.100.7:25", OriginalDestination::First)
        );
        assert_eq!(
            way(&config, "a@d.test", &remote, true),
            to("mx:d.test", OriginalDestination::Last(server))
        );
        for deferred in [false, true] {
            // A literal has no exchangers; who wants the exchangers, or connected to ourselves, has no other
            // server.
            let literal = way(&config, "a@[192.0.2.5]", &remote, deferred);
            assert_eq!(literal, to("198.51.100.7:25", OriginalDestination::NotAsked));
            for (config, origin) in [
                (&defaults(), &remote),
                (&config, &connected_to("192.0.2.9:25", true)),
                (&config, &Origin::Internal),
            ] {
                assert_eq!(
                    way(config, "a@d.test", origin, deferred),
                    to("mx:d.test", OriginalDestination::NotAsked)
                );
            }
            let mut named = original(with_smarthost("192.0.2.200"));
            assert_eq!(
                way(&named, "a@d.test", &remote, deferred),
                to("192.0.2.200:587", OriginalDestination::NotAsked)
            );
            named.incoming_domains = vec![incoming("d.test", "192.0.2.10:25")];
            assert_eq!(
                way(&named, "a@d.test", &remote, deferred),
                to("192.0.2.10:25", OriginalDestination::NotAsked)
            );
        }
    }

    #[test]
    fn the_exchangers_after_a_deferral_are_told() {
        let (_, steps) = explained(&original(defaults()), "", "a@d.test");
        assert!(
            steps.last().is_some_and(|step| step.ends_with("and after a first deferral there")),
            "{steps:?}"
        );
    }

    #[test]
    fn a_smarthost_takes_what_is_not_incoming() {
        let remote = connected_to("198.51.100.7:25", false);
        let named = with_smarthost("relay.test");
        let numbered = with_smarthost("2001:db8::1");
        check(&named, "a@d.test", &remote, "relay.test:587");
        check(&numbered, "a@[192.0.2.5]", &remote, "[2001:db8::1]:587");
        check(&original(named), "a@d.test", &remote, "relay.test:587");
    }

    #[test]
    fn incoming_domains_come_first_and_the_longest_wins() {
        let mut config = original(with_smarthost("192.0.2.200"));
        config.incoming_domains = vec![
            incoming(".d.test", "192.0.2.11:25"),
            incoming("d.test", "192.0.2.10:26"),
            incoming(".b.d.test", "192.0.2.12:25"),
            incoming("a.b.d.test", "[2001:db8::13]:25"),
        ];
        let remote = connected_to("198.51.100.7:25", false);
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
    fn an_incoming_domain_has_one_server_or_several() {
        let mut config = defaults();
        config.incoming_domains = vec![
            incoming("one.test", "mx.test:2525"),
            incoming("two.test", "10.0.0.1,[2001:db8::2]:26,mx.test"),
        ];
        check(&config, "x@one.test", &Origin::Internal, "mx.test:2525");
        check(&config, "x@two.test", &Origin::Internal, "10.0.0.1:25,[2001:db8::2]:26,mx.test:25");
        config.incoming_domains[1].balance = true;
        let (route, steps) = explained(&config, "", "x@two.test");
        assert_eq!(steps, ["incoming domain \"two.test\" takes two.test", "its servers are taken in turn"]);
        assert!(!route.is_empty());
    }

    #[test]
    fn the_bare_postmaster_goes_where_the_configured_one_does() {
        let remote = connected_to("192.0.2.9:25", true);
        let nobody = defaults();
        check(&nobody, "-", &remote, "deferred 4.3.5");
        let mut somebody = config("postmaster = \"boss@d.test\"");
        check(&somebody, "-", &remote, "mx:d.test");
        check(&original(somebody.clone()), "-", &connected_to("198.51.100.7:25", false), "mx:d.test");
        somebody.incoming_domains = vec![incoming("d.test", "192.0.2.10:25")];
        check(&somebody, "-", &remote, "192.0.2.10:25");
    }

    /// A route in the configuration's words.
    fn rule(direction: &str, domain: &str, more: &str) -> DomainRoute {
        let text = format!("[[domain_route]]\ndirection = \"{direction}\"\ndomain = \"{domain}\"\n{more}");
        config(&text).domain_routes.remove(0)
    }

    /// `next hop from interface`, and the steps.
    fn explained(config: &Config, sender: &str, recipient: &str) -> (String, Vec<String>) {
        let sender = match sender {
            "" => ReversePath::Null,
            address => ReversePath::Mailbox(Mailbox::parse(address).unwrap()),
        };
        let recipient = ForwardPath::Mailbox(Mailbox::parse(recipient).unwrap());
        let Explanation { steps, route } = explain(config, &sender, &recipient, &Origin::Internal);
        let route = route.unwrap();
        let from = route.outgoing.map_or("anywhere".to_owned(), |outgoing| outgoing.to_string());
        (format!("{} from {from}", route.next_hop), steps)
    }

    #[test]
    fn a_recipient_route_wins_over_a_sender_route_and_holds_whole() {
        let own = "outgoing_address = \"wan1\"
            smarthost = { address = \"by-sender.test\", port = 587, tls = \"required\" }";
        let none = "outgoing_address = \"wan3\"\nsmarthost.enabled = false";
        let mut config = with_smarthost("192.0.2.200");
        config.domain_routes = vec![
            rule("sender", "s.test", own),
            rule("sender", "deep.s.test", "outgoing_address = \"wan2\""),
            rule("recipient", "r.test", ""),
            rule("recipient", "direct.r.test", none),
        ];
        config.incoming_domains = vec![incoming("in.r.test", "192.0.2.10:25")];
        let check = |sender: &str, recipient: &str, expect: &str| {
            assert_eq!(explained(&config, sender, recipient).0, expect, "{sender} to {recipient}");
        };
        check("a@x.test", "b@y.test", "192.0.2.200:587 from anywhere");
        check("a@s.test", "b@y.test", "by-sender.test:587 from wan1");
        check("a@c.s.test", "b@y.test", "by-sender.test:587 from wan1");
        check("a@deep.s.test", "b@y.test", "192.0.2.200:587 from wan2");
        // Neither the sender route's address nor its smarthost is left once a recipient route holds.
        check("a@s.test", "b@r.test", "192.0.2.200:587 from anywhere");
        check("a@s.test", "b@direct.r.test", "mx:direct.r.test from wan3");
        check("a@s.test", "b@in.r.test", "192.0.2.10:25 from anywhere");
        check("", "b@y.test", "192.0.2.200:587 from anywhere");
    }

    #[test]
    fn each_rule_that_is_read_is_told() {
        let mut config = defaults();
        config.domain_routes = vec![rule("sender", "s.test", ""), rule("recipient", "r.test", "")];
        assert_eq!(
            explained(&config, "a@s.test", "b@c.r.test").1,
            [
                "no incoming domain takes c.r.test",
                "sender route \"s.test\" holds <a@s.test>, but a recipient route wins",
                "recipient route \"r.test\" holds b@c.r.test",
                "there is no smarthost",
                "delivery.default: by the domain's mail exchangers",
            ]
        );
        config.incoming_domains = vec![incoming(".r.test", "192.0.2.10:25")];
        assert_eq!(explained(&config, "", "b@c.r.test").1, ["incoming domain \".r.test\" takes c.r.test"]);
    }
}
