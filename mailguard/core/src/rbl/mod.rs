//! DNS block lists (RFC 5782): how one is asked, and what its answer means. Which are asked is configuration;
//! what follows is `policy::check::rbl`'s.

mod catalogue;

use std::net::{IpAddr, Ipv4Addr};

use crate::lookup::Lookup;
use crate::mail::Domain;

pub use catalogue::{CATALOGUE, Codes, Kind, List};

use catalogue::ENDED_OPERATORS;

/// Longest name that can be looked up, octets (RFC 1035 §2.3.4, without the root).
const MAX_NAME_OCTETS: usize = 253;

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// It doesn't know who was asked about.
    NotListed,
    /// It does: what its code means, or the code.
    Listed(String),
    /// Its answer can't be used; why, in one line. Never taken for one of the others.
    Unusable(String),
}

/// The list with this zone.
pub fn find(zone: &str) -> Option<&'static List> {
    CATALOGUE.iter().find(|list| list.zone.eq_ignore_ascii_case(zone))
}

/// When and how the list with this zone ended: as the catalogue says of it or of one above it, or with its
/// operator.
pub fn retired(zone: &str) -> Option<&'static str> {
    let ended = CATALOGUE.iter().filter_map(|list| Some((list.zone, list.retired?)));
    let mut ended = ended.chain(ENDED_OPERATORS.iter().copied());
    ended.find(|(above, _)| is_at_or_below(zone, above)).map(|(_, how)| how)
}

fn is_at_or_below(zone: &str, above: &str) -> bool {
    let zone = zone.trim_end_matches('.').to_ascii_lowercase();
    zone.strip_suffix(above).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The lists of one family.
pub fn family(name: &str) -> impl Iterator<Item = &'static List> {
    CATALOGUE.iter().filter(move |list| list.family.eq_ignore_ascii_case(name))
}

/// The lists of a kind that "all" means: those that answer, are no part of another, and needn't be named.
pub fn living(kind: Kind) -> impl Iterator<Item = &'static List> {
    let meant = |list: &&List| list.retired.is_none() && list.part_of.is_none() && !list.by_name;
    CATALOGUE.iter().filter(move |list| list.kind == kind && meant(list))
}

/// The name that is looked up to ask about an address: its octets, or its nibbles, from the last to the first
/// (RFC 5782 §2.1, §2.4).
pub fn query_for_address(client: IpAddr, zone: &str) -> String {
    let reversed: Vec<String> = match client {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(u8::to_string).collect(),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            octets.iter().rev().map(|octet| format!("{:x}.{:x}", octet & 15, octet >> 4)).collect()
        }
    };
    format!("{}.{zone}", reversed.join("."))
}

/// The name that is looked up to ask about a domain (RFC 5782 §3); nothing where it would be too long.
pub fn query_for_domain(domain: &Domain, zone: &str) -> Option<String> {
    let name = format!("{}.{zone}", domain.ascii());
    (name.len() <= MAX_NAME_OCTETS).then_some(name)
}

/// What the addresses that a list answered with mean.
pub fn interpret(zone: &str, answer: Lookup<Vec<Ipv4Addr>>) -> Listing {
    let addresses = match answer {
        Lookup::Absent => return Listing::NotListed,
        Lookup::Unavailable(cause) => return Listing::Unusable(cause),
        Lookup::Found(addresses) => addresses,
    };
    let codes = find(zone).map_or(Codes::Any, |list| list.codes);
    let (mut meanings, mut problem) = (Vec::new(), None);
    for address in addresses {
        match address.octets() {
            // The list refuses to answer us (RFC 5782 §2.1 knows none; the large lists agree on these).
            [127, 255, 255, code] => problem = Some(format!("it answered with an error: {}", refusal(code))),
            [127, ..] => match codes.meaning(address) {
                Meaning::Listed(meaning) if !meanings.contains(&meaning) => meanings.push(meaning),
                Meaning::Error(why) => problem = Some(format!("it answered with an error: {why}")),
                Meaning::Listed(_) | Meaning::Nothing => {}
            },
            // A zone that is for sale answers everything with somebody's web server.
            _ => problem = Some(format!("it answered {address}, which is no code of a list")),
        }
    }
    match problem {
        _ if !meanings.is_empty() => Listing::Listed(meanings.join(", ")),
        Some(why) => Listing::Unusable(why),
        None => Listing::NotListed,
    }
}

fn refusal(code: u8) -> String {
    match code {
        252 => "the name is written wrongly".to_owned(),
        254 => "it doesn't answer public name servers: ask one of your own".to_owned(),
        255 => "too many queries".to_owned(),
        other => format!("127.255.255.{other}"),
    }
}

/// What one code means.
enum Meaning {
    Listed(String),
    Nothing,
    Error(&'static str),
}

impl Codes {
    fn meaning(self, address: Ipv4Addr) -> Meaning {
        let last = address.octets()[3];
        match self {
            Codes::Any => Meaning::Listed(address.to_string()),
            Codes::Values(known) => {
                let of = known.iter().filter(|(first, last_of, _)| (*first..=*last_of).contains(&last));
                of.map(|known| known.2)
                    .next()
                    .map_or(Meaning::Nothing, |text| Meaning::Listed(text.to_owned()))
            }
            // Both lists of this kind say so: the querier is blocked.
            Codes::Bits(_) if last & 1 == 1 => Meaning::Error("it doesn't answer this name server"),
            Codes::Bits(known) => {
                let set: Vec<&str> =
                    known.iter().filter(|(bit, _)| last & bit != 0).map(|(_, text)| *text).collect();
                if set.is_empty() { Meaning::Nothing } else { Meaning::Listed(set.join(", ")) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        for (index, list) in CATALOGUE.iter().enumerate() {
            let List { zone, homepage, retired, part_of, .. } = list;
            assert!(Domain::parse(zone).is_ok_and(|domain| domain.ascii() == *zone), "{zone}");
            assert!(CATALOGUE[..index].iter().all(|earlier| earlier.zone != *zone), "{zone} twice");
            assert!(homepage.starts_with("https://") || homepage.starts_with("http://"), "{zone}");
            assert!(retired.is_none_or(|why| !why.is_empty()), "{zone}");
            assert!(
                part_of.is_none_or(|whole| find(whole).is_some_and(|whole| whole.kind == list.kind)),
                "{zone}"
            );
            assert!(find(list.family).is_none(), "{zone}: a family is no list");
        }
        let kinds = [Kind::Ip, Kind::Domain].map(|kind| living(kind).count());
        assert!(kinds[0] >= 10 && kinds[1] >= 3, "{kinds:?}");
        assert!(CATALOGUE.iter().filter(|list| list.retired.is_none()).count() >= 15);
    }

    #[test]
    fn names_that_are_looked_up() {
        let ask = |address: &str| query_for_address(address.parse().unwrap(), "bad.example.com");
        assert_eq!(ask("192.0.2.99"), "99.2.0.192.bad.example.com");
        let nibbles = "d.c.b.a.4.3.2.1.f.f.0.0.e.e.0.0.d.d.0.0.c.c.0.0.b.b.0.0.1.0.0.2";
        assert_eq!(ask("2001:bb:cc:dd:ee:ff:1234:abcd"), format!("{nibbles}.bad.example.com"));
        let domain = |name: &str| Domain::parse(name).unwrap();
        let asked = query_for_domain(&domain("Bücher.example"), "names.example");
        assert_eq!(asked.as_deref(), Some("xn--bcher-kva.example.names.example"));
        let long = domain(&["a".repeat(60).as_str(); 4].join("."));
        assert_eq!(query_for_domain(&long, "names.example"), None);
    }

    /// Answers ("-": none, "!": an outage), and what they come to.
    fn check(zone: &str, answers: &str, expect: &str) {
        let answer = match answers {
            "-" => Lookup::Absent,
            "!" => Lookup::Unavailable("timeout".to_owned()),
            found => Lookup::Found(found.split(' ').map(|address| address.parse().unwrap()).collect()),
        };
        let seen = match interpret(zone, answer) {
            Listing::NotListed => "not listed".to_owned(),
            Listing::Listed(meaning) => format!("listed: {meaning}"),
            Listing::Unusable(why) => format!("unusable: {why}"),
        };
        assert_eq!(seen, expect, "{zone} {answers}");
    }

    #[test]
    fn all_leaves_out_parts_retired_lists_and_those_for_special_purposes() {
        for (zone, expect) in [
            ("zen.spamhaus.org", true),
            ("xbl.spamhaus.org", false),
            ("dnsbl-1.uceprotect.net", true),
            ("dnsbl-3.uceprotect.net", false),
            ("ips.backscatterer.org", false),
            ("recent.spam.dnsbl.sorbs.net", false),
        ] {
            assert!(find(zone).is_some(), "{zone}");
            assert_eq!(living(Kind::Ip).any(|list| list.zone == zone), expect, "{zone}");
        }
    }

    #[test]
    fn whatever_an_operator_that_has_ended_called_its_lists_is_over() {
        for zone in [
            "safe.dnsbl.sorbs.net",
            "relays.dnsbl.sorbs.net",
            "spam.dnsbl.sorbs.net",
            "zombie.dnsbl.sorbs.net",
            "rhsbl.sorbs.net",
            "rhsbl.dnsbl.sorbs.net",
            "safe.sorbs.net",
            "sorbs.net",
            "Problems.DNSBL.sorbs.net.",
            "dynablock.njabl.org",
            "tor.ahbl.org",
            "postmaster.rfc-ignorant.org",
            "unconfirmed.dsbl.org",
            "any.relays.ordb.org",
            "v4.ix.dnsbl.manitu.net",
        ] {
            assert!(retired(zone).is_some(), "{zone}");
        }
        for zone in ["zen.spamhaus.org", "notsorbs.net", "sorbs.net.example.com", "manitu.net", "own.example"]
        {
            assert_eq!(retired(zone), None, "{zone}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_answers_mean() {
        check("own.example",              "-",                     "not listed");
        check("own.example",              "!",                     "unusable: timeout");
        check("own.example",              "127.0.0.2",             "listed: 127.0.0.2");
        check("own.example",              "192.0.2.80",            "unusable: it answered 192.0.2.80, which is no code of a list");
        check("own.example",              "192.0.2.80 127.0.0.2",  "listed: 127.0.0.2");
        check("zen.spamhaus.org",         "127.0.0.4",             "listed: exploited host (XBL)");
        check("ZEN.spamhaus.org",         "127.0.0.2 127.0.0.3",   "listed: spam source (SBL), snowshoe spam source (CSS)");
        check("zen.spamhaus.org",         "127.255.255.254",       "unusable: it answered with an error: it doesn't answer public name servers: ask one of your own");
        check("zen.spamhaus.org",         "127.255.255.255",       "unusable: it answered with an error: too many queries");
        check("zen.spamhaus.org",         "127.0.0.99",            "not listed");
        check("zen.spamhaus.org",         "127.0.0.30",            "listed: botnet controller (BCL)");
        check("bl.mailspike.net",         "127.0.0.11",            "listed: very bad reputation");
        check("fresh.fmb.la",             "127.2.0.2",             "listed: registered in the last 7 days");
        check("multi.uribl.com",          "127.0.0.1",             "unusable: it answered with an error: it doesn't answer this name server");
        check("multi.uribl.com",          "127.0.0.2",             "listed: black");
        check("multi.surbl.org",          "127.0.0.80",            "listed: malware, abuse");
        check("hostkarma.junkemailfilter.com", "127.0.0.1",        "not listed");
        check("hostkarma.junkemailfilter.com", "127.0.0.2",        "listed: black");
    }
}
