//! The expressions that a rule compares, as tests.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::super::packet::{ACK, CWR, Condition, ECE, End, FIN, PSH, RST, SYN, Test, URG};
use super::super::ranges::{self, Ranges};
use super::{Reader, number, word};
use crate::intercept::Family;

impl<'a> Reader<'a> {
    /// A comparison, and what it implies of the packet: nft leaves out that `ip saddr` is of IPv4.
    pub(super) fn conditions(&self, value: &'a Value) -> Vec<Condition> {
        let (left, right) = (&value["left"], &value["right"]);
        let family = implied_family(left);
        let implied = family.map(|family| Condition::new(Test::Family(family)));
        let test = match word(value, "op") {
            "==" | "!=" => self.test(left, right, family),
            "in" => match left["payload"]["field"] == "flags" {
                true => self.flags(right).map_or(Test::Unknown, Test::AnyFlag),
                false => self.test(left, right, family),
            },
            operator => compared(left, operator, right).unwrap_or(Test::Unknown),
        };
        implied.into_iter().chain([Condition { test, negated: value["op"] == "!=" }]).collect()
    }

    /// That `left` is `right`, or one of it.
    pub(super) fn equal(&self, left: &'a Value, right: &'a Value) -> Vec<Condition> {
        let family = implied_family(left);
        let implied = family.map(|family| Condition::new(Test::Family(family)));
        implied.into_iter().chain([Condition::new(self.test(left, right, family))]).collect()
    }

    fn test(&self, left: &'a Value, right: &'a Value, family: Option<Family>) -> Test {
        if let Some(parts) = left["concat"].as_array() {
            return self.joined(parts, right);
        }
        if let Some([operand, mask]) = left["&"].as_array().map(Vec::as_slice) {
            return self.masked(operand, mask, right);
        }
        if let Some(key) = left["meta"]["key"].as_str() {
            return self.meta(key, right);
        }
        if let Some(fib) = left.get("fib") {
            return self.fib(fib, right);
        }
        if let Some(key) = left["ct"]["key"].as_str() {
            return self.ct(key, word(&left["ct"], "dir"), right, family);
        }
        if let Some(key) = left["socket"]["key"].as_str() {
            return self.socket(key, right);
        }
        // Mail comes without extension headers, and with options of its own.
        if left.get("exthdr").is_some() {
            return Test::Never;
        }
        self.payload(&left["payload"], right)
    }

    fn payload(&self, payload: &'a Value, right: &'a Value) -> Test {
        match (word(payload, "protocol"), word(payload, "field")) {
            ("tcp" | "th", "dport") => self.ports(right, End::Destination),
            ("tcp" | "th", "sport") => self.ports(right, End::Source),
            ("tcp", "flags") => self.flag_values(right, 0xff),
            ("ip" | "ip6", "saddr") => Test::Address(End::Source, self.addresses(right)),
            ("ip" | "ip6", "daddr") => Test::Address(End::Destination, self.addresses(right)),
            ("ip", "protocol") | ("ip6", "nexthdr") => {
                self.words(right).map_or(Test::Unknown, Test::Protocol)
            }
            ("ether", "saddr") => Test::SomeClients,
            (
                "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmpv6" | "igmp" | "esp" | "ah" | "comp"
                | "arp" | "vlan",
                _,
            ) => Test::Never,
            _ => Test::Unknown,
        }
    }

    /// `iifname . tcp dport { "lan0" . 25 }`
    fn joined(&self, parts: &'a [Value], right: &'a Value) -> Test {
        let Some(elements) = self.items(right) else { return Test::Unknown };
        let choice = |element: &'a Value| -> Option<Vec<Test>> {
            let values = plain(element)["concat"].as_array()?;
            let tests = parts.iter().zip(values).flat_map(|(part, value)| {
                let family = implied_family(part);
                family.map(Test::Family).into_iter().chain([self.test(part, value, family)])
            });
            Some(tests.collect())
        };
        elements.iter().map(choice).collect::<Option<_>>().map_or(Test::Unknown, Test::Any)
    }

    fn masked(&self, operand: &Value, mask: &'a Value, right: &'a Value) -> Test {
        let payload = &operand["payload"];
        match (word(&operand["meta"], "key"), word(payload, "field")) {
            ("mark", _) => match (number(mask), self.numbers(right)) {
                (Some(mask), Some(values)) => Test::Mark { mask, values },
                _ => Test::Unknown,
            },
            (_, "flags") if payload["protocol"] == "tcp" => match self.flags(mask) {
                Some(mask) => self.flag_values(right, mask),
                None => Test::Unknown,
            },
            // No fragment of another packet reaches a port.
            (_, "frag-off") if right == 0 => Test::Always,
            (_, "frag-off") => Test::Never,
            _ => Test::Unknown,
        }
    }

    fn meta(&self, key: &str, right: &'a Value) -> Test {
        match key {
            "iif" | "iifname" => self.words(right).map_or(Test::Unknown, Test::Incoming),
            "oif" | "oifname" => self.words(right).map_or(Test::Unknown, Test::Outgoing),
            "l4proto" => self.words(right).map_or(Test::Unknown, Test::Protocol),
            "mark" => match self.numbers(right) {
                Some(values) => Test::Mark { mask: u32::MAX, values },
                None => Test::Unknown,
            },
            "nfproto" if right == "ipv4" => Test::Family(Family::V4),
            "nfproto" if right == "ipv6" => Test::Family(Family::V6),
            "protocol" if right == "ip" => Test::Family(Family::V4),
            "protocol" if right == "ip6" => Test::Family(Family::V6),
            "pkttype" => self.words(right).map_or(Test::Unknown, Test::LinkType),
            "skuid" => self.numbers(right).map_or(Test::Unknown, Test::Owner),
            _ => Test::Unknown,
        }
    }

    fn fib(&self, fib: &Value, right: &'a Value) -> Test {
        let has = |name: &str| {
            fib["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == name))
                || fib["flags"] == name
        };
        let end = if has("saddr") { End::Source } else { End::Destination };
        match fib["result"].as_str() {
            Some("type") => self.words(right).map_or(Test::Unknown, |kinds| Test::Kind(end, kinds)),
            Some(_) if end == End::Source => match right {
                Value::Bool(true) => Test::WayBack(true),
                // Missing: no interface's number.
                Value::Bool(false) => Test::WayBack(false),
                _ if right == "0" || right == 0 => Test::WayBack(false),
                _ => Test::Unknown,
            },
            _ => Test::Unknown,
        }
    }

    fn ct(&self, key: &str, direction: &str, right: &'a Value, family: Option<Family>) -> Test {
        // In the direction of the answers both ends change places.
        let ends = if direction == "reply" { (End::Server, End::Client) } else { (End::Client, End::Server) };
        match key {
            "state" => self.words(right).map_or(Test::Unknown, Test::State),
            "direction" if right == "original" => Test::Reply(false),
            "direction" if right == "reply" => Test::Reply(true),
            "status" => match self.words(right) {
                // Whose addresses are changed isn't ours any more, which is told elsewhere.
                Some(words) if words.iter().all(|word| ["dnat", "snat"].contains(&word.as_str())) => {
                    Test::Never
                }
                _ => Test::Unknown,
            },
            "ip saddr" | "ip6 saddr" | "saddr" if family.is_some() => {
                Test::Address(ends.0, self.addresses(right))
            }
            "ip daddr" | "ip6 daddr" | "daddr" if family.is_some() => {
                Test::Address(ends.1, self.addresses(right))
            }
            "protocol" => self.words(right).map_or(Test::Unknown, Test::Protocol),
            "proto-src" => self.ports(right, ends.0),
            "proto-dst" => self.ports(right, ends.1),
            _ => Test::Unknown,
        }
    }

    fn socket(&self, key: &str, right: &Value) -> Test {
        match (key, right.as_u64()) {
            ("transparent", Some(1)) | ("wildcard", Some(0)) => Test::Socket,
            _ => Test::Unknown,
        }
    }

    fn words(&self, value: &'a Value) -> Option<Vec<String>> {
        let word = |value: &Value| match plain(value) {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        self.items(value)?.iter().map(word).collect()
    }

    fn ports(&self, value: &'a Value, end: End) -> Test {
        let ports = self.numbers(value).and_then(|numbers| {
            let port = |range: RangeInclusive<u32>| {
                Some(u16::try_from(*range.start()).ok()?..=u16::try_from(*range.end()).ok()?)
            };
            numbers.into_iter().map(port).collect()
        });
        ports.map_or(Test::Unknown, |ports| Test::Port(end, ports))
    }

    fn numbers(&self, value: &'a Value) -> Option<Vec<RangeInclusive<u32>>> {
        let one = |value: &Value| {
            let value = plain(value);
            match value["range"].as_array().map(Vec::as_slice) {
                Some([first, last]) => Some(number(first)?..=number(last)?),
                _ => number(value).map(|number| number..=number),
            }
        };
        self.items(value)?.iter().map(one).collect()
    }

    fn addresses(&self, value: &'a Value) -> Option<Ranges> {
        let address = |value: &Value| Some(ranges::number(value.as_str()?.parse().ok()?));
        let one = |value: &Value| -> Option<(u128, u128)> {
            let value = plain(value);
            if let Some([first, last]) = value["range"].as_array().map(Vec::as_slice) {
                return Some((address(first)?, address(last)?));
            }
            let text = match value.get("prefix") {
                Some(prefix) => format!("{}/{}", word(prefix, "addr"), prefix["len"].as_u64()?),
                None => value.as_str()?.to_owned(),
            };
            Ranges::of_networks([&ranges::network(&text)?]).iter().next()
        };
        self.items(value)?.iter().map(one).collect::<Option<Vec<_>>>().map(Ranges::new)
    }

    /// Flags that are set together: one, a list, or joined by `|`.
    fn flags(&self, value: &Value) -> Option<u8> {
        match value {
            Value::String(name) => Some(match name.as_str() {
                "fin" => FIN,
                "syn" => SYN,
                "rst" => RST,
                "psh" => PSH,
                "ack" => ACK,
                "urg" => URG,
                "ecn" | "ece" => ECE,
                "cwr" => CWR,
                _ => return None,
            }),
            Value::Number(number) => u8::try_from(number.as_u64()?).ok(),
            Value::Array(names) => names.iter().try_fold(0, |all, name| Some(all | self.flags(name)?)),
            Value::Object(_) => self.flags(value.get("|")?),
            _ => None,
        }
    }

    fn flag_values(&self, right: &'a Value, mask: u8) -> Test {
        let values = match right["set"].as_array() {
            Some(set) => set.iter().map(|value| self.flags(value)).collect(),
            None => self.flags(right).map(|flags| vec![flags]),
        };
        values.map_or(Test::Unknown, |values| Test::Flags { mask, values })
    }
}

/// An element without what is said about it: its counter, comment, lifetime.
fn plain(element: &Value) -> &Value {
    element.get("elem").and_then(|elem| elem.get("val")).unwrap_or(element)
}

/// `tcp dport > 24`; others are compared so with nothing that is known.
fn compared(left: &Value, operator: &str, right: &Value) -> Option<Test> {
    let end = match (word(&left["payload"], "protocol"), word(&left["payload"], "field")) {
        ("tcp" | "th", "dport") => End::Destination,
        ("tcp" | "th", "sport") => End::Source,
        _ => return None,
    };
    let port = u16::try_from(right.as_u64()?).ok()?;
    let range = match operator {
        "<" => 0..=port.checked_sub(1)?,
        "<=" => 0..=port,
        ">" => port.checked_add(1)?..=u16::MAX,
        ">=" => port..=u16::MAX,
        _ => return None,
    };
    Some(Test::Port(end, vec![range]))
}

/// Fields of one family.
fn implied_family(left: &Value) -> Option<Family> {
    let key = word(&left["ct"], "key").split(' ').next().unwrap_or_default();
    match word(&left["payload"], "protocol") {
        "ip" => Some(Family::V4),
        "ip6" => Some(Family::V6),
        _ if left.get("&").is_some() => implied_family(&left["&"][0]),
        _ if key == "ip" => Some(Family::V4),
        _ if key == "ip6" => Some(Family::V6),
        _ => None,
    }
}
