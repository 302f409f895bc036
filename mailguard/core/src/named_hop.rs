//! The next hops that an administrator named, and which of them are ourselves by what the configuration says
//! alone. Mail for such a one comes back, and waits until somebody has mended that: better to be told before.
//!
//! What a server calls itself is heard by `delivery`, and only there: an address says nothing of it.

use std::fmt;
use std::net::SocketAddr;

use crate::config::model::{Config, HeloName, RouteSmarthost};
use crate::config::value::quoted;
use crate::config::{ConfigError, Data, Problem, Value};
use crate::mail::Domain;
use crate::route::{NextHop, Route, by_smarthost, to_servers};

/// Where the configuration names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Naming {
    /// `[smarthost]`
    Smarthost,
    /// The `[[domain_route]]` of this number has a smarthost of its own.
    DomainRoute(usize),
    /// The `[[incoming_domain]]` of this number, and the server of that number where it has several.
    IncomingDomain(usize, Option<usize>),
}

/// Its key path.
impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Naming::Smarthost => f.write_str("smarthost.address"),
            Naming::DomainRoute(index) => write!(f, "domain_route[{index}].smarthost.address"),
            Naming::IncomingDomain(index, None) => write!(f, "incoming_domain[{index}].server"),
            Naming::IncomingDomain(index, Some(number)) => {
                write!(f, "incoming_domain[{index}].server[{number}]")
            }
        }
    }
}

impl Naming {
    /// The value in the tree that the configuration was made from.
    fn value(self, root: &Value) -> Option<&Value> {
        let nth = |key, index: usize| match &root.get(key)?.data {
            Data::Array(tables) => tables.get(index),
            _ => None,
        };
        match self {
            Naming::Smarthost => root.at(&["smarthost", "address"]),
            Naming::DomainRoute(index) => nth("domain_route", index)?.at(&["smarthost", "address"]),
            Naming::IncomingDomain(index, number) => {
                let value = nth("incoming_domain", index)?.get("server")?;
                match (&value.data, number) {
                    (Data::Array(servers), Some(number)) => servers.get(number),
                    // A list of one, too: there is nobody else to be meant.
                    _ => Some(value),
                }
            }
        }
    }
}

/// Every next hop that `config` names, in its order, with the way there; each server of a list by itself.
pub fn named_hops(config: &Config) -> impl Iterator<Item = (Naming, Route)> + '_ {
    let general = config.smarthost.iter().map(|host| (Naming::Smarthost, by_smarthost(host, None)));
    let own = config.domain_routes.iter().enumerate().filter_map(|(index, rule)| match &rule.smarthost {
        RouteSmarthost::Own(host) => {
            Some((Naming::DomainRoute(index), by_smarthost(host, rule.outgoing.clone())))
        }
        RouteSmarthost::General | RouteSmarthost::Without => None,
    });
    let incoming = config.incoming_domains.iter().enumerate();
    let incoming = incoming.flat_map(move |(index, domain)| {
        domain.servers.iter().enumerate().map(move |(number, server)| {
            let number = (domain.servers.len() > 1).then_some(number);
            let route = to_servers(config, std::slice::from_ref(server), false);
            (Naming::IncomingDomain(index, number), route)
        })
    });
    general.chain(own).chain(incoming)
}

/// The names by which a server would be ourselves.
fn own_names(config: &Config) -> Vec<Domain> {
    let helo = match &config.delivery.helo_name {
        HeloName::Name(name) => Some(name),
        HeloName::AddressLiteral => None,
    };
    helo.into_iter().chain([&config.hostname]).cloned().collect()
}

/// The named hops that are ourselves: by an address on which we listen, or by our name. `root` is the tree
/// that `config` was made from.
pub fn ourselves(config: &Config, root: &Value, listens: impl Fn(SocketAddr) -> bool) -> Vec<ConfigError> {
    let own_names = own_names(config);
    let loops = named_hops(config).filter_map(|(naming, route)| {
        let problem = match &route.next_hop {
            NextHop::Address(address) if listens(*address) => by_address(*address),
            NextHop::Host(name, _) if own_names.contains(name) => by_name(name, config),
            _ => return None,
        };
        let place = naming.value(root).map_or(root.place, |value| value.place);
        Some(ConfigError { key: naming.to_string(), place, problem })
    });
    loops.collect()
}

fn by_address(address: SocketAddr) -> Problem {
    Problem::Invalid {
        found: format!("{address}, where mailguard itself listens"),
        accepted: "the address of the server that takes this mail on".to_owned(),
        remedy: Some(
            "the mail would come back to us; it waits instead until this is another server's".to_owned(),
        ),
    }
}

fn by_name(name: &Domain, config: &Config) -> Problem {
    let whose = if *name == config.hostname { "hostname" } else { "delivery.helo_name" };
    Problem::Invalid {
        found: format!("{}, which is our own {whose}", quoted(name.as_str())),
        accepted: "another server, which greets by another name than ours".to_owned(),
        remedy: Some(format!(
            "one that greets by our own name is taken for ourselves, and its mail waits: name the server that takes it on, or \
             give one of the two another name ({whose})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::named::NamedFiles;
    use crate::config::{Entry, Place, resolve};

    /// The place of the n-th text counts from 100.
    fn value(number: usize, data: Data) -> Value {
        Value { place: Place { text: 0, start: 100 + number, end: 101 + number }, data }
    }

    fn table(entries: Vec<(&str, Value)>) -> Value {
        let entry = |(key, value): (&str, Value)| {
            let key_place = Place { text: 0, start: 0, end: 0 };
            Entry { key: key.to_owned(), key_place, value }
        };
        value(0, Data::Table(entries.into_iter().map(entry).collect()))
    }

    fn text(number: usize, text: &str) -> Value {
        value(number, Data::Text(text.to_owned()))
    }

    fn tables(tables: Vec<Value>) -> Value {
        value(0, Data::Array(tables))
    }

    /// We are guard.test, say mail.test, and listen at 192.0.2.9:25. One smarthost, one of a route, one
    /// incoming domain.
    fn check(smarthost: &str, of_route: &str, server: &str, expect: &[(&str, usize, &str)]) {
        let zone = table(vec![
            ("name", text(0, "green")),
            ("kind", text(0, "green")),
            ("interfaces", value(0, Data::Array(vec![text(0, "eth0")]))),
            ("mode", text(0, "active")),
        ]);
        let plain = table(vec![("direction", text(0, "sender")), ("domain", text(0, "plain.test"))]);
        let route = table(vec![
            ("direction", text(0, "recipient")),
            ("domain", text(0, "route.test")),
            ("smarthost", table(vec![("address", text(2, of_route))])),
        ]);
        let incoming = table(vec![("domain", text(0, "in.test")), ("server", text(3, server))]);
        let list = value(0, Data::Array(vec![text(4, "192.0.2.10"), text(5, server)]));
        let several = table(vec![("domain", text(0, "list.test")), ("server", list)]);
        let general = vec![("enabled", value(0, Data::Boolean(true))), ("address", text(1, smarthost))];
        let root = table(vec![
            ("hostname", text(0, "guard.test")),
            ("zone", tables(vec![zone])),
            ("smarthost", table(general)),
            ("domain_route", tables(vec![plain, route])),
            ("incoming_domain", tables(vec![incoming, several])),
            ("delivery", table(vec![("helo_name", text(0, "bücher.test"))])),
        ]);
        let config = resolve(&root, NamedFiles::default()).unwrap();
        let found = ourselves(&config, &root, |address| address == "192.0.2.9:25".parse().unwrap());
        let expected: Vec<&str> = expect.iter().map(|(key, ..)| *key).collect();
        assert_eq!(found.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(), expected);
        for (error, (_, place, what)) in found.iter().zip(expect) {
            assert_eq!(error.place.start, 100 + place, "{error}");
            assert!(error.to_string().contains(what), "{error}");
            assert!(error.problem.remedy().is_some_and(|remedy| remedy.contains("waits")), "{error}");
        }
    }

    #[test]
    fn a_next_hop_is_ourselves_by_our_name_or_where_we_listen() {
        check("relay.test", "192.0.2.10", "192.0.2.9:26", &[]);
        check(
            "Guard.Test.",
            "xn--bcher-kva.TEST",
            "192.0.2.9",
            &[
                ("smarthost.address", 1, "\"Guard.Test\", which is our own hostname"),
                ("domain_route[1].smarthost.address", 2, "which is our own delivery.helo_name"),
                ("incoming_domain[0].server", 3, "192.0.2.9:25, where mailguard itself listens"),
                ("incoming_domain[1].server[1]", 5, "192.0.2.9:25, where mailguard itself listens"),
            ],
        );
        check(
            "192.0.2.9",
            "a.guard.test",
            "192.0.2.10",
            &[("smarthost.address", 1, "accepted: the address of the server")],
        );
        // What it calls itself isn't known by an address, nor whom a name leads to.
        check(
            "other.test",
            "BÜCHER.test",
            "192.0.2.10",
            &[("domain_route[1].smarthost.address", 2, "delivery.helo_name")],
        );
    }
}
