//! Which servers take a domain's mail, in which order (RFC 5321 §5.1, RFC 7505 for the null MX).
//!
//! Pure: `routing` brings what the DNS said and a seed for the order among equals; `delivery` tries what
//! comes out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::model::MailServer;
use crate::lookup::Lookup;
use crate::mail::Domain;
use crate::reach;
use crate::route::NoRoute;
use crate::smtp::client::loop_report;
use crate::smtp::{Detail, EnhancedStatus};

/// Most mail exchangers of a domain that are looked at, the preferred first.
pub const MAX_EXCHANGERS: usize = 16;

/// Most addresses tried in one attempt: with each taking the whole time for a connection, it still ends.
pub const MAX_TARGETS: usize = 20;

/// One MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxRecord {
    /// Lower is tried first.
    pub preference: u16,
    /// The host's name; `.` in a null MX.
    pub exchange: String,
}

/// A mail exchanger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchanger {
    /// Lower is tried first.
    pub preference: u16,
    /// The host.
    pub name: Domain,
}

/// An address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host that has it, absent where only the address is known.
    pub name: Option<Domain>,
    /// The address.
    pub address: IpAddr,
}

/// Whether the records say that the domain takes no mail (RFC 7505 §3).
pub fn is_null(records: &[MxRecord]) -> bool {
    matches!(records, [only] if only.exchange == ".")
}

/// The mail exchangers of `domain` in the order to try them. Without MX records it is the domain itself.
pub fn exchangers(
    domain: &Domain,
    records: Lookup<Vec<MxRecord>>,
    seed: u64,
) -> Result<Vec<Exchanger>, NoRoute> {
    let records = match records {
        Lookup::Unavailable(cause) => return Err(lookup_failed(format!("MX of {domain}: {cause}"))),
        Lookup::Absent => return Ok(vec![Exchanger { preference: 0, name: domain.clone() }]),
        Lookup::Found(records) => records,
    };
    if is_null(&records) {
        return Err(never(Detail::DESTINATION_NULL_MX, format!("{domain} takes no mail: it has a null MX")));
    }
    let mut by_preference: BTreeMap<u16, Vec<Domain>> = BTreeMap::new();
    for record in records {
        if let Ok(name) = Domain::parse(&record.exchange) {
            by_preference.entry(record.preference).or_default().push(name);
        }
    }
    if by_preference.is_empty() {
        return Err(never(Detail::UNABLE_TO_ROUTE, format!("no MX record of {domain} names a host")));
    }
    let mut order = Vec::new();
    for (preference, mut names) in by_preference {
        // The DNS turns the order of answers; the seed must meet the same list each time.
        names.sort();
        names.dedup();
        shuffle(&mut names, seed ^ u64::from(preference));
        order.extend(names.into_iter().map(|name| Exchanger { preference, name }));
    }
    order.truncate(MAX_EXCHANGERS);
    Ok(order)
}

/// The addresses of `exchangers` in the order to try them, less ourselves and whatever isn't preferred to us,
/// and less those that the DNS must not lead to. `is_ours` recognises this host by name or address.
pub fn targets(
    domain: &Domain,
    mut exchangers: Vec<(Exchanger, Lookup<Vec<IpAddr>>)>,
    is_ours: impl Fn(&Domain, Option<IpAddr>) -> bool,
    seed: u64,
) -> Result<Vec<Target>, NoRoute> {
    // They were looked up once for many attempts: equals take turns all the same.
    shuffle(&mut exchangers, seed);
    exchangers.sort_by_key(|(exchanger, _)| exchanger.preference);
    let own_preference = exchangers
        .iter()
        .filter(|(exchanger, addresses)| {
            let by_address = match addresses {
                Lookup::Found(list) => list.iter().any(|address| is_ours(&exchanger.name, Some(*address))),
                Lookup::Absent | Lookup::Unavailable(_) => false,
            };
            by_address || is_ours(&exchanger.name, None)
        })
        .map(|(exchanger, _)| exchanger.preference)
        .min();
    let mut found = Vec::new();
    let (mut failure, mut misled) = (None, None);
    for (exchanger, addresses) in exchangers {
        if own_preference.is_some_and(|own| exchanger.preference >= own) {
            continue;
        }
        match addresses {
            Lookup::Found(mut addresses) => {
                addresses.retain(|&address| match reach::unfit(address) {
                    Some(kind) => {
                        misled = Some(format!("{} is {address}, {kind}", exchanger.name));
                        false
                    }
                    None => true,
                });
                let name = Some(exchanger.name);
                found.extend(
                    in_turn(addresses, seed)
                        .into_iter()
                        .map(|address| Target { name: name.clone(), address }),
                );
            }
            Lookup::Absent => {}
            Lookup::Unavailable(cause) => {
                failure.get_or_insert(format!("address of {}: {cause}", exchanger.name));
            }
        }
    }
    found.truncate(MAX_TARGETS);
    match (found.is_empty(), failure, own_preference, misled) {
        (false, ..) => Ok(found),
        (true, Some(failure), ..) => Err(lookup_failed(failure)),
        (true, None, Some(_), _) => Err(own_domain(domain)),
        (true, None, None, Some(misled)) => Err(never(
            Detail::BAD_DESTINATION_SYSTEM,
            format!("{domain}: {misled}: mail goes there only where the configuration says so"),
        )),
        (true, None, None, None) => Err(never(
            Detail::BAD_DESTINATION_SYSTEM,
            format!("{domain} doesn't exist, or no host with an address takes its mail"),
        )),
    }
}

/// The addresses of a host that isn't found by MX, in the order to try them.
pub fn host_targets(
    name: &Domain,
    addresses: Lookup<Vec<IpAddr>>,
    seed: u64,
) -> Result<Vec<Target>, NoRoute> {
    match addresses {
        Lookup::Found(addresses) if !addresses.is_empty() => Ok(in_turn(addresses, seed)
            .into_iter()
            .take(MAX_TARGETS)
            .map(|address| Target { name: Some(name.clone()), address })
            .collect()),
        // A name that the administrator wrote: a mistake there must not bounce mail.
        Lookup::Found(_) | Lookup::Absent => Err(NoRoute {
            status: EnhancedStatus::transient(Detail::UNABLE_TO_ROUTE),
            reason: format!("{name} has no address: correct the name or its DNS entry"),
        }),
        Lookup::Unavailable(cause) => Err(lookup_failed(format!("address of {name}: {cause}"))),
    }
}

/// A server that the configuration names among others, and the port where it listens.
pub type ServerTarget = (Target, u16);

/// The addresses of `servers` in the order to try them, `addresses` being what the DNS says of each. Where
/// they take turns the seed says with whom it begins. One that the DNS doesn't know is as one that is away.
pub fn server_targets(
    servers: &[MailServer],
    addresses: &[Lookup<Vec<IpAddr>>],
    balance: bool,
    seed: u64,
) -> Result<Vec<ServerTarget>, NoRoute> {
    let first = match usize::try_from(seed % servers.len().max(1) as u64) {
        Ok(first) if balance => first,
        _ => 0,
    };
    let mut resolved: Vec<_> = servers.iter().zip(addresses).collect();
    let first = first.min(resolved.len());
    resolved.rotate_left(first);
    let (mut found, mut missing) = (Vec::new(), None);
    for (server, addresses) in resolved {
        match server {
            MailServer::Address(address) => {
                found.push((Target { name: None, address: address.ip() }, address.port()));
            }
            MailServer::Host(name, port) => match host_targets(name, addresses.clone(), seed) {
                Ok(targets) => found.extend(targets.into_iter().map(|target| (target, *port))),
                Err(none) => missing = missing.or(Some(none)),
            },
        }
    }
    found.truncate(MAX_TARGETS);
    match missing {
        Some(none) if found.is_empty() => Err(none),
        _ => Ok(found),
    }
}

/// Both families in turn, so that one without a way costs one wait, not all; IPv6 first (RFC 6724).
fn in_turn(addresses: Vec<IpAddr>, seed: u64) -> Vec<IpAddr> {
    let (mut v6, mut v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    for family in [&mut v6, &mut v4] {
        family.sort();
        family.dedup();
        shuffle(family, seed);
    }
    let mut order = Vec::with_capacity(v6.len() + v4.len());
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    loop {
        let pair = (v6.next(), v4.next());
        if pair == (None, None) {
            return order;
        }
        order.extend(pair.0);
        order.extend(pair.1);
    }
}

/// Fisher and Yates, with the SplitMix64 sequence of `seed`: balances load, keeps no secret.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for last in (1..items.len()).rev() {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        items.swap(last, ((mixed ^ (mixed >> 31)) % (last as u64 + 1)) as usize);
    }
}

fn own_domain(domain: &Domain) -> NoRoute {
    let why = "this host is its best mail exchanger. Set an [[incoming_domain]] for it, or change its MX";
    let report = loop_report(domain.as_str(), None, why);
    NoRoute { status: report.status, reason: report.text }
}

fn never(detail: Detail, reason: String) -> NoRoute {
    NoRoute { status: EnhancedStatus::permanent(detail), reason }
}

fn lookup_failed(reason: String) -> NoRoute {
    NoRoute { status: EnhancedStatus::transient(Detail::DIRECTORY_SERVER_FAILURE), reason }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn records(list: &[(u16, &str)]) -> Lookup<Vec<MxRecord>> {
        let record = |(preference, name): &(u16, &str)| MxRecord {
            preference: *preference,
            exchange: (*name).to_owned(),
        };
        Lookup::Found(list.iter().map(record).collect())
    }

    fn names(list: &[(u16, &str)], seed: u64) -> Vec<String> {
        let found = exchangers(&domain("d.test"), records(list), seed).unwrap();
        found.iter().map(|exchanger| exchanger.name.ascii().to_owned()).collect()
    }

    #[test]
    fn preference_comes_first_and_equals_are_shuffled() {
        let list = [(20, "c.test."), (10, "a.test."), (10, "b.test."), (30, "d.test."), (10, "B.test.")];
        let orders: HashSet<Vec<String>> = (0..32).map(|seed| names(&list, seed)).collect();
        let expect = [["a.test", "b.test", "c.test", "d.test"], ["b.test", "a.test", "c.test", "d.test"]];
        assert_eq!(orders, expect.iter().map(|order| order.map(str::to_owned).to_vec()).collect());
        let mut turned = list;
        turned.reverse();
        assert_eq!(names(&list, 7), names(&turned, 7));
    }

    #[test]
    fn servers_that_are_named_in_their_order_or_in_turn() {
        let address = |text: &str| MailServer::Address(text.parse().unwrap());
        let servers =
            [address("10.0.0.1:25"), MailServer::Host(domain("mx.test"), 26), address("[2001:db8::3]:27")];
        let known = |answer| [Lookup::Absent, answer, Lookup::Absent];
        let found = || known(Lookup::Found(vec!["10.0.0.2".parse().unwrap()]));
        let order = |addresses: &[Lookup<Vec<IpAddr>>], balance, seed| {
            let targets = server_targets(&servers, addresses, balance, seed).unwrap();
            let shown = targets.iter().map(|(target, port)| format!("{} {port}", target.address));
            shown.collect::<Vec<_>>().join(", ")
        };
        for seed in 0..9 {
            assert_eq!(order(&found(), false, seed), "10.0.0.1 25, 10.0.0.2 26, 2001:db8::3 27");
        }
        assert_eq!(order(&found(), true, 4), "10.0.0.2 26, 2001:db8::3 27, 10.0.0.1 25");
        assert_eq!(order(&found(), true, 5), "2001:db8::3 27, 10.0.0.1 25, 10.0.0.2 26");
        // What the DNS doesn't know, or can't say, is away.
        for away in [Lookup::Absent, Lookup::Unavailable("timeout".to_owned())] {
            assert_eq!(order(&known(away), false, 0), "10.0.0.1 25, 2001:db8::3 27");
        }
        let nobody = server_targets(&servers[1..2], &[Lookup::Absent], true, 0).unwrap_err();
        assert_eq!((nobody.status.to_string(), nobody.status.is_transient()), ("4.4.4".to_owned(), true));
    }

    #[test]
    fn domains_without_usable_mx() {
        let status = |answer| {
            exchangers(&domain("d.test"), answer, 0)
                .map_err(|no| (no.status.to_string(), no.status.is_transient()))
        };
        let itself = vec![Exchanger { preference: 0, name: domain("d.test") }];
        assert_eq!(status(Lookup::Absent), Ok(itself));
        assert_eq!(status(records(&[(0, ".")])), Err(("5.1.10".to_owned(), false)));
        assert_eq!(status(records(&[(0, "not a name.")])), Err(("5.4.4".to_owned(), false)));
        assert_eq!(status(Lookup::Unavailable("timeout".into())), Err(("4.4.3".to_owned(), true)));
        // A null MX beside others is a mistake of theirs that changes nothing.
        assert_eq!(names(&[(0, "."), (10, "a.test.")], 0), ["a.test"]);
    }

    #[test]
    fn endless_mx_lists_are_cut() {
        let many: Vec<String> = (0..100).map(|n| format!("mx{n}.test")).collect();
        let list: Vec<(u16, &str)> =
            many.iter().enumerate().map(|(n, name)| (n as u16, name.as_str())).collect();
        assert_eq!(names(&list, 0), &many[..MAX_EXCHANGERS]);
    }

    /// `hosts`: preference, name, addresses; "?" is an outage. We are me.test and 192.0.2.9.
    fn check(hosts: &[(u16, &str, &[&str])], expect: Result<&[&str], (&str, bool)>) {
        let hosts = hosts.iter().map(|(preference, name, addresses)| {
            let addresses = match addresses {
                [] => Lookup::Absent,
                ["?"] => Lookup::Unavailable("timeout".to_owned()),
                list => Lookup::Found(list.iter().map(|address| address.parse().unwrap()).collect()),
            };
            (Exchanger { preference: *preference, name: domain(name) }, addresses)
        });
        let ours = |name: &Domain, address: Option<IpAddr>| {
            *name == domain("me.test") || address == Some("192.0.2.9".parse().unwrap())
        };
        let got = targets(&domain("d.test"), hosts.collect(), ours, 0);
        let got = got
            .map(|list| list.iter().map(|target| target.address.to_string()).collect::<Vec<_>>())
            .map_err(|no| (no.status.to_string(), no.status.is_transient()));
        let expect = expect
            .map(|list| list.iter().map(|address| (*address).to_owned()).collect())
            .map_err(|(status, transient)| (status.to_owned(), transient));
        assert_eq!(got, expect);
    }

    #[test]
    fn addresses_in_order() {
        check(
            &[(10, "a.test", &["192.0.2.1"]), (20, "b.test", &["192.0.2.2"])],
            Ok(&["192.0.2.1", "192.0.2.2"]),
        );
        check(&[(10, "a.test", &["192.0.2.1", "2001:db8::1"])], Ok(&["2001:db8::1", "192.0.2.1"]));
        check(&[(10, "a.test", &[]), (20, "b.test", &["192.0.2.2"])], Ok(&["192.0.2.2"]));
        check(&[(10, "a.test", &["?"]), (20, "b.test", &["192.0.2.2"])], Ok(&["192.0.2.2"]));
        check(&[(10, "a.test", &["?"]), (20, "b.test", &[])], Err(("4.4.3", true)));
        check(&[(10, "a.test", &[]), (20, "b.test", &[])], Err(("5.1.2", false)));
    }

    #[test]
    fn ourselves_and_what_is_not_preferred_to_us_is_left_out() {
        check(
            &[
                (10, "a.test", &["192.0.2.1"]),
                (20, "me.test", &["192.0.2.3"]),
                (20, "c.test", &["192.0.2.4"]),
                (30, "d.test", &["192.0.2.5"]),
            ],
            Ok(&["192.0.2.1"]),
        );
        check(
            &[(10, "a.test", &["192.0.2.1"]), (20, "b.test", &["192.0.2.8", "192.0.2.9"])],
            Ok(&["192.0.2.1"]),
        );
        check(&[(10, "me.test", &[]), (20, "b.test", &["192.0.2.2"])], Err(("5.4.6", false)));
        check(&[(10, "b.test", &["192.0.2.9"])], Err(("5.4.6", false)));
        check(&[(5, "a.test", &["?"]), (10, "me.test", &["192.0.2.9"])], Err(("4.4.3", true)));
    }

    #[test]
    fn the_dns_leads_to_no_loopback() {
        check(&[(10, "a.test", &["127.0.0.1"])], Err(("5.1.2", false)));
        check(&[(10, "a.test", &["::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])], Err(("5.1.2", false)));
        check(&[(10, "a.test", &["127.0.0.1", "192.0.2.1"])], Ok(&["192.0.2.1"]));
        check(&[(10, "a.test", &["0.0.0.0"]), (20, "b.test", &["192.0.2.2"])], Ok(&["192.0.2.2"]));
        check(&[(10, "a.test", &["127.0.0.1"]), (20, "b.test", &["?"])], Err(("4.4.3", true)));
    }

    #[test]
    fn hosts_that_an_administrator_named() {
        let status =
            |answer| host_targets(&domain("relay.test"), answer, 0).map_err(|no| no.status.to_string());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let target = Target { name: Some(domain("relay.test")), address };
        assert_eq!(status(Lookup::Found(vec![address])), Ok(vec![target]));
        assert_eq!(status(Lookup::Absent), Err("4.4.4".to_owned()));
        assert_eq!(status(Lookup::Found(vec![])), Err("4.4.4".to_owned()));
        assert_eq!(status(Lookup::Unavailable("timeout".into())), Err("4.4.3".to_owned()));
    }
}
