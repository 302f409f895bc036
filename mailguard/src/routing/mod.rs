//! From a next hop to the addresses to try, in order (RFC 5321 §5.1), none of them ourselves.
//!
//! `core::route` has chosen the next hop; here the DNS is asked, before an attempt has its place, and
//! `core::mx` decides. Where anybody's word may lead to is decided here and in `core::reach`. Connecting is
//! `delivery`'s.

mod own;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use mailguard_core::config::model::MailServer;
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::Domain;
use mailguard_core::mx::{self, Exchanger, MAX_TARGETS, Target};
use mailguard_core::reach;
use mailguard_core::route::{NamedBy, NextHop, NoRoute, OriginalDestination, Route, SMTP_PORT};
use mailguard_core::smtp::client::loop_report;
use mailguard_core::smtp::{Detail, EnhancedStatus};
use tokio::time::{Instant, timeout_at};

use self::own::Here;
pub use self::own::OwnListeners;
use crate::lookup::dns::{Asker, Dns};

/// How long all names of a next hop may take: what is missing then counts as an outage of the DNS.
pub const LOOKUP_TIME: Duration = Duration::from_secs(30);

/// Hosts of a next hop whose addresses are asked for at one time.
pub const HOSTS_AT_ONCE: usize = 2;

/// As 5.4.6, "routing loop detected", where a change of configuration mends it (RFC 3463 §3.5).
pub const LOOP_TO_BE_MENDED: EnhancedStatus = EnhancedStatus::transient(Detail::ROUTING_LOOP);

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
        match self.address {
            SocketAddr::V4(v4) => write!(f, "[{}]:{}", v4.ip(), v4.port()),
            // With its scope, if it has one.
            v6 @ SocketAddr::V6(_) => v6.fmt(f),
        }
    }
}

/// The name of the next hop in "Mail for ... loops back to myself".
pub fn destination_name(hop: &NextHop) -> String {
    match hop {
        NextHop::Address(address) => address.to_string(),
        NextHop::Host(name, _) | NextHop::Mx(name) => name.to_string(),
        NextHop::Servers { .. } => hop.to_string(),
    }
}

/// What the DNS says of a next hop: looked up once for many attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// The addresses of a host.
    Host(Lookup<Vec<IpAddr>>),
    /// The addresses of each of several servers.
    Servers(Vec<Lookup<Vec<IpAddr>>>),
    /// The mail exchangers of a domain and their addresses; or why there are none.
    Exchangers(Result<Vec<Resolved>, NoRoute>),
}

/// A mail exchanger and its addresses.
pub type Resolved = (Exchanger, Lookup<Vec<IpAddr>>);

/// Asks the DNS about `hop`, for [`LOOKUP_TIME`] at most. Nothing is to be asked about an address.
pub async fn look_up(dns: &Dns, hop: &NextHop) -> Option<Names> {
    let until = Instant::now() + LOOKUP_TIME;
    Some(match hop {
        NextHop::Address(_) => return None,
        NextHop::Host(name, _) => Names::Host(addresses(dns, name, until).await),
        NextHop::Servers { servers, .. } => {
            let found = stream::iter(servers.clone()).map(|server| async move {
                match server {
                    MailServer::Address(address) => Lookup::Found(vec![address.ip()]),
                    MailServer::Host(name, _) => addresses(dns, &name, until).await,
                }
            });
            Names::Servers(found.buffered(HOSTS_AT_ONCE).collect().await)
        }
        NextHop::Mx(domain) => {
            let records = in_time(until, dns.mx(Asker::Mail, domain)).await;
            let exchangers = match mx::exchangers(domain, records, seed()) {
                Ok(exchangers) => exchangers,
                Err(none) => return Some(Names::Exchangers(Err(none))),
            };
            let resolved = stream::iter(exchangers).map(|exchanger| async move {
                let addresses = addresses(dns, &exchanger.name, until).await;
                (exchanger, addresses)
            });
            Names::Exchangers(Ok(resolved.buffered(HOSTS_AT_ONCE).collect().await))
        }
    })
}

async fn in_time<T>(until: Instant, lookup: impl Future<Output = Lookup<T>>) -> Lookup<T> {
    let late = || Lookup::Unavailable(format!("no answer within {} seconds", LOOKUP_TIME.as_secs()));
    timeout_at(until, lookup).await.unwrap_or_else(|_| late())
}

/// An MX must be a name (RFC 1035 §3.3.9); some write an address, which the DNS would be asked for in vain.
async fn addresses(dns: &Dns, name: &Domain, until: Instant) -> Lookup<Vec<IpAddr>> {
    match name.ascii().parse() {
        Ok(address) => Lookup::Found(vec![address]),
        Err(_) => in_time(until, dns.addresses(Asker::Mail, name)).await,
    }
}

/// The servers of a route in the order to try them. `names` is what [`look_up`] gave, `own_name` how we call
/// ourselves in MX records. The original destination comes behind the exchangers: what it deferred must not
/// fail because they, or the DNS, know no other.
pub fn destinations(
    route: &Route,
    names: Option<&Names>,
    own_name: &Domain,
    own: &OwnListeners,
) -> Result<Vec<Destination>, NoRoute> {
    let found = destinations_of_hop(route, names, own_name, own);
    let OriginalDestination::Last(address) = route.original_destination else { return found };
    let original_destination = Route { next_hop: NextHop::Address(address), ..route.clone() };
    match (found, destinations_of_hop(&original_destination, None, own_name, own)) {
        (Ok(mut servers), Ok(last)) => {
            servers.truncate(MAX_TARGETS - 1);
            if !servers.iter().any(|server| server.address == address) {
                servers.extend(last);
            }
            Ok(servers)
        }
        (found, last) => found.or_else(|none| last.map_err(|_| none)),
    }
}

fn destinations_of_hop(
    route: &Route,
    names: Option<&Names>,
    own_name: &Domain,
    own: &OwnListeners,
) -> Result<Vec<Destination>, NoRoute> {
    let hop = &route.next_hop;
    match (hop, names) {
        (NextHop::Address(address), _) => {
            if route.named_by == NamedBy::Mail {
                reachable_by_mail(*address, &own.here())?;
            }
            without_ourselves(route, vec![Destination { name: None, address: *address }], own)
        }
        (NextHop::Host(name, port), Some(Names::Host(addresses))) => {
            let targets = mx::host_targets(name, addresses.clone(), seed())?;
            without_ourselves(route, with_port(targets, *port), own)
        }
        (NextHop::Mx(domain), Some(Names::Exchangers(exchangers))) => {
            let here = own.here();
            let is_ours = |name: &Domain, address: Option<IpAddr>| match address {
                Some(address) => here.has(SocketAddr::new(address, 0)),
                None => name == own_name,
            };
            Ok(with_port(mx::targets(domain, exchangers.clone()?, is_ours, seed())?, SMTP_PORT))
        }
        (NextHop::Servers { servers, balance }, Some(Names::Servers(addresses))) => {
            let targets = mx::server_targets(servers, addresses, *balance, seed())?;
            let found = targets.into_iter().map(|(target, port)| with_port(vec![target], port));
            without_ourselves(route, found.flatten().collect(), own)
        }
        (NextHop::Host(..) | NextHop::Mx(_) | NextHop::Servers { .. }, _) => Err(NoRoute {
            status: EnhancedStatus::transient(Detail::DIRECTORY_SERVER_FAILURE),
            reason: format!("{hop} wasn't looked up"),
        }),
    }
}

/// Whether anybody's word may lead to this address. A link-local one leads there only with its link, and that
/// only a client's connection gives: one that it reaches without us, too.
fn reachable_by_mail(address: SocketAddr, here: &Here) -> Result<(), NoRoute> {
    if let Some(kind) = reach::unfit(address.ip()).filter(|_| !is_on_a_known_link(address)) {
        let reason =
            format!("{} is {kind}: mail goes there only where the configuration says so", address.ip());
        return Err(NoRoute { status: EnhancedStatus::permanent(Detail::BAD_DESTINATION_SYSTEM), reason });
    }
    if here.has(address) {
        let why =
            "it is an address of this host. Set an [[incoming_domain]] or a [[domain_route]] for its mail";
        let report = loop_report(&address.to_string(), None, why);
        return Err(NoRoute { status: report.status, reason: report.text });
    }
    Ok(())
}

fn is_on_a_known_link(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() != 0)
}

fn with_port(targets: Vec<Target>, port: u16) -> Vec<Destination> {
    targets
        .into_iter()
        .map(|target| Destination { name: target.name, address: SocketAddr::new(target.address, port) })
        .collect()
}

/// A next hop that is named by its host or address: what of it is ourselves is left out, and if that is all
/// of it, mail would only come back. Where an administrator named it, it waits until he has mended that.
fn without_ourselves(
    route: &Route,
    mut destinations: Vec<Destination>,
    own: &OwnListeners,
) -> Result<Vec<Destination>, NoRoute> {
    destinations.retain(|destination| !own.contains(destination.address));
    if !destinations.is_empty() {
        return Ok(destinations);
    }
    let why = "mailguard itself listens there. Change the server of the [[incoming_domain]], the \
               [smarthost], or delivery.default";
    let report = loop_report(&destination_name(&route.next_hop), None, why);
    let status = match route.named_by {
        NamedBy::Administrator => LOOP_TO_BE_MENDED,
        NamedBy::Mail => report.status,
    };
    Err(NoRoute { status, reason: report.text })
}

/// Differs from call to call: the load is balanced, nothing is kept secret by it.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use mailguard_core::config::model::Tls;
    use mailguard_core::config::syntax::MAIL_SERVER;

    use super::*;
    use crate::lookup::dns_server::DnsServer;

    const ZONE: &[&str] = &[
        "d.test MX 20 b.test",
        "d.test MX 10 a.test",
        "a.test A 192.0.2.1",
        "a.test AAAA 2001:db8::1",
        "b.test A 203.0.113.2",
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
        "local.test A 127.0.0.1",
        "to-local.test MX 10 local.test",
        "mapped.test AAAA ::ffff:127.0.0.1",
        "literal-local.test MX 10 127.0.0.1",
        "half-local.test MX 10 local.test",
        "half-local.test MX 20 a.test",
    ];

    fn mx(text: &str) -> NextHop {
        NextHop::Mx(Domain::parse(text).unwrap())
    }

    async fn resolve(
        hop: &NextHop,
        named_by: NamedBy,
        original_destination: OriginalDestination,
    ) -> Result<String, (String, bool)> {
        let server = DnsServer::start(ZONE).await;
        let own =
            OwnListeners::new(vec!["192.0.2.9:25".parse().unwrap(), "127.0.0.1:10025".parse().unwrap()]);
        let names = look_up(&Dns::new(&server.config()), hop).await;
        let outgoing = None;
        let route = Route {
            next_hop: hop.clone(),
            outgoing,
            tls: Tls::Off,
            smarthost: None,
            named_by,
            original_destination,
        };
        destinations(&route, names.as_ref(), &Domain::parse("guard.test").unwrap(), &own)
            .map(|list| list.iter().map(Destination::to_string).collect::<Vec<_>>().join(" "))
            .map_err(|no| (no.status.to_string(), no.status.is_transient()))
    }

    async fn check_by(named_by: NamedBy, hop: NextHop, expect: Result<&str, (&str, bool)>) {
        let expect = expect.map(str::to_owned).map_err(|(status, transient)| (status.to_owned(), transient));
        assert_eq!(
            resolve(&hop, named_by, OriginalDestination::NotAsked).await,
            expect,
            "{hop} by {named_by:?}"
        );
    }

    async fn check(hop: NextHop, expect: Result<&str, (&str, bool)>) {
        check_by(NamedBy::Mail, hop, expect).await;
    }

    #[tokio::test]
    async fn the_original_destination_is_tried_behind_the_exchangers_and_alone_where_there_are_none() {
        for (domain, original_destination, expect) in [
            ("plain.test", "198.51.100.7:25", Ok("plain.test[192.0.2.3]:25 [198.51.100.7]:25")),
            ("plain.test", "192.0.2.3:25", Ok("plain.test[192.0.2.3]:25")),
            // No such domain, a null MX, an MX that is us, no DNS.
            ("no.test", "198.51.100.7:25", Ok("[198.51.100.7]:25")),
            ("null.test", "198.51.100.7:25", Ok("[198.51.100.7]:25")),
            ("own.test", "198.51.100.7:25", Ok("[198.51.100.7]:25")),
            ("down.test", "198.51.100.7:25", Ok("[198.51.100.7]:25")),
            // What mail may not lead to stays so.
            ("plain.test", "127.0.0.1:25", Ok("plain.test[192.0.2.3]:25")),
            ("no.test", "127.0.0.1:25", Err(("5.1.2".to_owned(), false))),
        ] {
            let got = resolve(
                &mx(domain),
                NamedBy::Mail,
                OriginalDestination::Last(original_destination.parse().unwrap()),
            )
            .await;
            assert_eq!(got, expect.map(str::to_owned), "{domain} by {original_destination}");
        }
    }

    #[tokio::test]
    async fn mail_exchangers() {
        check(mx("d.test"), Ok("a.test[2001:db8::1]:25 a.test[192.0.2.1]:25 b.test[203.0.113.2]:25")).await;
        check(mx("plain.test"), Ok("plain.test[192.0.2.3]:25")).await;
        check(mx("ours.test"), Ok("a.test[2001:db8::1]:25 a.test[192.0.2.1]:25")).await;
        check(mx("literal.test"), Ok("192.0.2.4[192.0.2.4]:25")).await;
        check(mx("own.test"), Err(("5.4.6", false))).await;
        check(mx("null.test"), Err(("5.1.10", false))).await;
        check(mx("no.test"), Err(("5.1.2", false))).await;
        check(mx("down.test"), Err(("4.4.3", true))).await;
    }

    #[tokio::test]
    async fn several_servers_in_their_order_less_ourselves() {
        let servers = |text: &str| {
            let servers = text.split(' ').map(|server| (MAIL_SERVER.parse)(server).unwrap()).collect();
            NextHop::Servers { servers, balance: false }
        };
        for (hop, expect) in [
            ("10.0.0.1 relay.test:26", Ok("[10.0.0.1]:25 relay.test[192.0.2.5]:26")),
            ("no.test 10.0.0.1 127.0.0.1:26", Ok("[10.0.0.1]:25 [127.0.0.1]:26")),
            ("guard.test 10.0.0.1", Ok("[10.0.0.1]:25")),
            ("guard.test 192.0.2.9", Err(("4.4.6", true))),
            ("no.test no.test:26", Err(("4.4.4", true))),
        ] {
            check_by(NamedBy::Administrator, servers(hop), expect).await;
        }
    }

    #[tokio::test]
    async fn named_hosts_and_addresses() {
        let relay = |name, port| NextHop::Host(Domain::parse(name).unwrap(), port);
        let address = |text: &str| NextHop::Address(text.parse().unwrap());
        for (hop, expect) in [
            (relay("relay.test", 2525), Ok("relay.test[192.0.2.5]:2525")),
            (relay("no.test", 25), Err(("4.4.4", true))),
            (relay("guard.test", 25), Err(("4.4.6", true))),
            (relay("guard.test", 26), Ok("guard.test[192.0.2.9]:26")),
            (relay("local.test", 26), Ok("local.test[127.0.0.1]:26")),
            (address("192.0.2.7:25"), Ok("[192.0.2.7]:25")),
            (address("127.0.0.1:25"), Ok("[127.0.0.1]:25")),
            (address("127.0.0.1:10025"), Err(("4.4.6", true))),
        ] {
            check_by(NamedBy::Administrator, hop, expect).await;
        }
        check(address("192.0.2.7:25"), Ok("[192.0.2.7]:25")).await;
        check(address("[2001:db8::7]:25"), Ok("[2001:db8::7]:25")).await;
        check(address("192.0.2.9:25"), Err(("5.4.6", false))).await;
    }

    /// Anybody can write these; they would lead to what trusts whoever is local.
    #[tokio::test]
    async fn mail_leads_to_no_loopback_and_to_no_address_of_ours() {
        for literal in [
            "127.0.0.1:25",
            "127.8.8.8:25",
            "[::1]:25",
            "[::ffff:127.0.0.1]:25",
            "[64:ff9b::7f00:1]:25",
            "0.0.0.0:25",
            "[::]:25",
            "169.254.1.1:25",
            "[fe80::1]:25",
            "224.0.0.1:25",
            "255.255.255.255:25",
        ] {
            check(NextHop::Address(literal.parse().unwrap()), Err(("5.1.2", false))).await;
        }
        // The link is known: a client's connection came by it.
        check(NextHop::Address("[fe80::1%7]:25".parse().unwrap()), Ok("[fe80::1%7]:25")).await;
        check(NextHop::Address("[::1%7]:25".parse().unwrap()), Err(("5.1.2", false))).await;
        check(NextHop::Address("[ff02::1%7]:25".parse().unwrap()), Err(("5.1.2", false))).await;
        check(mx("local.test"), Err(("5.1.2", false))).await;
        check(mx("to-local.test"), Err(("5.1.2", false))).await;
        check(mx("mapped.test"), Err(("5.1.2", false))).await;
        check(mx("literal-local.test"), Err(("5.1.2", false))).await;
        check(mx("half-local.test"), Ok("a.test[2001:db8::1]:25 a.test[192.0.2.1]:25")).await;
        for ours in ["192.0.2.9:25", "192.0.2.9:2525", "[::ffff:192.0.2.9]:25"] {
            check(NextHop::Address(ours.parse().unwrap()), Err(("5.4.6", false))).await;
        }
    }
}
