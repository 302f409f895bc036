//! What is allowed in a configuration, and probably not what is meant: what `check` warns of. Pure.

use std::collections::{BTreeMap, HashSet};

use super::error::{ConfigError, Problem};
use super::model::{AddressPattern, Config, Direction};
use super::value::{Data, Value};
use crate::mail::Domain;

/// Warnings of one kind: enough to see what is wrong.
pub const MAX_WARNINGS: usize = 20;

/// What an administrator should look at. `root` is the tree that `config` was made from.
pub fn doubts(config: &Config, root: &Value) -> Vec<ConfigError> {
    subdomains_elsewhere(config, root)
}

/// On a list or a route a bare domain covers its subdomains; as an incoming domain it doesn't. Where both
/// stand, one of them is rarely meant so.
fn subdomains_elsewhere(config: &Config, root: &Value) -> Vec<ConfigError> {
    let incoming = config.incoming_domains.iter();
    let with_subdomains: HashSet<&Domain> =
        incoming.filter(|incoming| incoming.subdomains).map(|incoming| &incoming.domain).collect();
    let mut keys: BTreeMap<&Domain, Vec<&str>> = BTreeMap::new();
    for (key, domain) in covering(config) {
        let keys = keys.entry(domain).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let exact = config.incoming_domains.iter().enumerate().filter(|(_, incoming)| !incoming.subdomains);
    let doubtful = exact.filter_map(|(index, incoming)| {
        let domain = &incoming.domain;
        let elsewhere = keys.get(domain).filter(|_| !with_subdomains.contains(domain))?;
        let what = format!(
            "\"{domain}\" is that domain only here, and covers its subdomains, too, in {}",
            elsewhere.join(", ")
        );
        let remedy = format!(
            "if mail for its subdomains is to be taken as well, add an [[incoming_domain]] with domain = \".{domain}\""
        );
        let place = match root.get("incoming_domain").map(|tables| &tables.data) {
            Some(Data::Array(tables)) => tables.get(index).and_then(|table| table.get("domain")),
            _ => None,
        };
        Some(ConfigError {
            key: format!("incoming_domain[{index}].domain"),
            place: place.map_or(root.place, |value| value.place),
            problem: Problem::Conflict { what, remedy },
        })
    });
    doubtful.take(MAX_WARNINGS).collect()
}

/// Every bare domain that covers its subdomains, with the key where it stands.
fn covering(config: &Config) -> impl Iterator<Item = (&'static str, &Domain)> {
    let access = &config.access;
    let patterns = [
        ("access.whitelist_senders", &access.whitelist_senders),
        ("access.blacklist_senders", &access.blacklist_senders),
        ("access.whitelist_recipients", &access.whitelist_recipients),
        ("access.blacklist_recipients", &access.blacklist_recipients),
        ("spam.greylist.whitelist_recipients", &config.greylist.whitelist_recipients),
    ];
    let patterns =
        patterns.into_iter().flat_map(|(key, list)| list.iter().map(move |pattern| (key, pattern)));
    let domains = patterns.filter_map(|(key, pattern)| match pattern {
        AddressPattern::Domain(domain) => Some((key, domain)),
        AddressPattern::Mailbox(_) => None,
    });
    let names = [
        ("access.whitelist_clients", &access.whitelist_client_names),
        ("access.blacklist_clients", &access.blacklist_client_names),
    ];
    let names = names.into_iter().flat_map(|(key, list)| list.iter().map(move |name| (key, name)));
    let routes = config.domain_routes.iter().map(|route| {
        let key = match route.direction {
            Direction::Sender => "a [[domain_route]] for senders",
            Direction::Recipient => "a [[domain_route]] for recipients",
        };
        (key, &route.domain)
    });
    domains.chain(names).chain(routes)
}
