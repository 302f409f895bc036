//! What the options of iptables' modules test.

use std::ops::RangeInclusive;

use super::super::packet::{ACK, CWR, ECE, End, FIN, PSH, RST, SYN, Test, URG};
use super::super::ranges::{self, Ranges};
use super::{masked, number};

/// What a module tests by itself, its options apart; one that isn't known may test anything.
pub(super) fn module(name: &str) -> Option<Test> {
    Some(match name {
        "tcp" | "multiport" | "comment" | "conntrack" | "state" | "mark" | "connmark" | "addrtype"
        | "iprange" | "set" | "pkttype" | "mac" | "owner" | "physdev" => return None,
        "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmp6" | "ipv6-icmp" | "esp" | "ah" | "frag"
        | "rt" | "hbh" | "dst" | "mh" => Test::Never,
        "rpfilter" => Test::WayBack(true),
        "socket" => Test::Socket,
        _ => Test::Unknown,
    })
}

/// What an option of the module tests; none if nothing.
pub(super) fn test(module: &str, option: &str, values: &[&str]) -> Option<Test> {
    let value = values.first().copied().unwrap_or_default();
    let list = || value.split(',').map(str::to_ascii_lowercase).collect::<Vec<_>>();
    let ports = |end| ports(value).map_or(Test::Unknown, |ports| Test::Port(end, ports));
    Some(match (module, option) {
        (_, "-i") => Test::Incoming(vec![interface(value)]),
        (_, "-o") => Test::Outgoing(vec![interface(value)]),
        (_, "-p") => Test::Protocol(vec![value.to_owned()]),
        (_, "-s") => Test::Address(End::Source, network(value)),
        (_, "-d") => Test::Address(End::Destination, network(value)),
        // Fragments: no packet that has a port.
        (_, "-f") => Test::Never,
        (_, "--comment") | ("addrtype", "--limit-iface-in" | "--limit-iface-out") => return None,
        ("rpfilter" | "socket", _) => return None,
        ("tcp" | "multiport", "--dport" | "--dports") => ports(End::Destination),
        ("tcp" | "multiport", "--sport" | "--sports") => ports(End::Source),
        ("multiport", "--ports") => Test::Any(vec![vec![ports(End::Source)], vec![ports(End::Destination)]]),
        ("tcp", "--tcp-flags") => match (flags(value), values.get(1).and_then(|value| flags(value))) {
            (Some(mask), Some(flags)) => Test::Flags { mask, values: vec![flags] },
            _ => Test::Unknown,
        },
        ("conntrack" | "state", "--ctstate" | "--state") => Test::State(list()),
        ("conntrack", "--ctdir") => Test::Reply(value == "REPLY"),
        ("conntrack", "--ctorigsrc") => Test::Address(End::Client, network(value)),
        ("conntrack", "--ctorigdst") => Test::Address(End::Server, network(value)),
        ("mark", "--mark") => match masked(value) {
            Some((value, mask)) => Test::Mark { mask, values: vec![value..=value] },
            None => Test::Unknown,
        },
        ("addrtype", "--src-type") => Test::Kind(End::Source, list()),
        ("addrtype", "--dst-type") => Test::Kind(End::Destination, list()),
        ("iprange", "--src-range") => Test::Address(End::Source, range(value)),
        ("iprange", "--dst-range") => Test::Address(End::Destination, range(value)),
        // What stands in ipset's sets isn't in this list.
        ("set", "--match-set") => match values.get(1).copied().unwrap_or_default() {
            "src" => Test::Address(End::Source, None),
            "dst" => Test::Address(End::Destination, None),
            _ => Test::Unknown,
        },
        ("pkttype", "--pkt-type") => Test::LinkType(list()),
        ("mac", "--mac-source") => Test::SomeClients,
        ("owner", "--uid-owner") => users(value).map_or(Test::Unknown, |users| Test::Owner(vec![users])),
        ("owner", "--socket-exists") => Test::Always,
        // What is routed is no bridge's.
        ("physdev", "--physdev-is-bridged") => Test::Never,
        _ => Test::Unknown,
    })
}

/// `eth+` is any interface whose name begins so.
fn interface(value: &str) -> String {
    match value.strip_suffix('+') {
        Some(beginning) => format!("{beginning}*"),
        None => value.to_owned(),
    }
}

fn network(value: &str) -> Option<Ranges> {
    Some(Ranges::of_networks([&ranges::network(value)?]))
}

/// `FIRST-LAST`
fn range(value: &str) -> Option<Ranges> {
    let (first, last) = value.split_once('-')?;
    Some(Ranges::new([(ranges::number(first.parse().ok()?), ranges::number(last.parse().ok()?))]))
}

fn users(value: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    Some(number(first)?..=number(last)?)
}

fn ports(value: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |item: &str| {
        let (first, last) = item.split_once(':').unwrap_or((item, item));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    value.split(',').map(range).collect()
}

/// `FIN,SYN`, `NONE`, `ALL`
fn flags(value: &str) -> Option<u8> {
    value.split(',').try_fold(0, |all, name| {
        Some(
            all | match name {
                "FIN" => FIN,
                "SYN" => SYN,
                "RST" => RST,
                "PSH" => PSH,
                "ACK" => ACK,
                "URG" => URG,
                "ECE" => ECE,
                "CWR" => CWR,
                "ALL" => FIN | SYN | RST | PSH | ACK | URG,
                "NONE" => 0,
                _ => return None,
            },
        )
    })
}
