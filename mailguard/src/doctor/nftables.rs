//! What `nft -j list ruleset` prints, as chains of rules. Pure. The format: libnftables-json(5).

use std::ops::RangeInclusive;

use serde_json::Value;

use super::ruleset::{Action, Chain, Condition, Keeper, Rule, Table, Test, loses_bit};
use crate::intercept::Family;

/// The tables, or what is wrong with the text.
pub(super) fn parse(text: &str) -> Result<Vec<Table>, String> {
    let root: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let objects = root["nftables"].as_array().ok_or("no list \"nftables\"")?;
    let mut tables: Vec<Table> = Vec::new();
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        let (family, name) = (word(chain, "family"), word(chain, "table"));
        let new = Chain {
            name: word(chain, "name"),
            hook: chain["hook"].as_str().map(str::to_owned),
            drops: chain["policy"] == "drop",
            rules: Vec::new(),
        };
        match tables.iter_mut().find(|table| table.family == family && table.name == name) {
            Some(table) => table.chains.push(new),
            None => tables.push(Table { keeper: Keeper::Nft, family, name, chains: vec![new] }),
        }
    }
    for rule in objects.iter().filter_map(|object| object.get("rule")) {
        let (family, table, chain) = (word(rule, "family"), word(rule, "table"), word(rule, "chain"));
        let table = tables.iter_mut().find(|known| known.family == family && known.name == table);
        let chain = table.and_then(|table| table.chains.iter_mut().find(|known| known.name == chain));
        if let Some(chain) = chain {
            chain.rules.extend(rules(rule));
        }
    }
    Ok(tables)
}

/// Whether `table` holds what only iptables can read.
pub(super) fn needs_iptables(text: &str, table: &Table) -> bool {
    let Ok(root) = serde_json::from_str::<Value>(text) else { return false };
    let objects = root["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    objects.iter().filter_map(|object| object.get("rule")).any(|rule| {
        rule["family"] == table.family.as_str()
            && rule["table"] == table.name.as_str()
            && statements(rule).any(|(key, _)| key == "xt")
    })
}

fn word(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

fn statements(rule: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let list = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|statement| statement.as_object()?.iter().next())
        .map(|(key, value)| (key.as_str(), value))
}

/// A rule; one for each entry of a verdict map in it.
fn rules(object: &Value) -> Vec<Rule> {
    let mut rule = Rule {
        text: text_of(object),
        handle: object["handle"].as_u64(),
        conditions: Vec::new(),
        loses_mark: false,
        redirects: false,
        action: Action::None,
    };
    for (key, value) in statements(object) {
        match key {
            "match" => rule.conditions.push(condition(value)),
            "mangle" if value["key"]["meta"]["key"] == "mark" => {
                rule.loses_mark |= new_mark(&value["value"]).is_none_or(|(keep, flip)| loses_bit(keep, flip));
            }
            "dnat" | "redirect" | "tproxy" => rule.redirects = true,
            "reject" => rule.conditions.extend(reject_family(value)),
            // They let some packets pass, or we can't read them.
            "limit" | "quota" | "ct count" | "xt" => {
                rule.conditions.push(Condition { test: Test::Unknown, negated: false });
            }
            "vmap" => return branches(&rule, value),
            _ => {}
        }
        if let Some(action) = verdict(key, value) {
            rule.action = action;
        }
    }
    vec![rule]
}

fn verdict(key: &str, value: &Value) -> Option<Action> {
    Some(match key {
        // A program of the administrator's decides about what is queued: as good as accepted, for all we know.
        "accept" | "queue" | "dnat" | "redirect" => Action::Accept,
        "drop" | "reject" => Action::Drop,
        "return" => Action::Return,
        "jump" => Action::Jump(word(value, "target")),
        "goto" => Action::Goto(word(value, "target")),
        _ => return None,
    })
}

fn branches(rule: &Rule, map: &Value) -> Vec<Rule> {
    let entries = map["data"]["set"].as_array().map(Vec::as_slice).unwrap_or_default();
    let branch = |entry: &Value| {
        let (key, value) = entry.get(1)?.as_object()?.iter().next()?;
        let test = test(&map["key"], entry.get(0)?);
        let mut branch = Rule { action: verdict(key, value)?, ..rule.clone() };
        branch.conditions.push(Condition { test, negated: false });
        Some(branch)
    };
    entries.iter().filter_map(branch).collect()
}

/// `reject with icmp …` implies the family, and nft leaves it out.
fn reject_family(reject: &Value) -> Option<Condition> {
    let family = match reject["type"].as_str()? {
        "icmp" => Family::V4,
        "icmpv6" => Family::V6,
        _ => return None,
    };
    Some(Condition { test: Test::Family(family), negated: false })
}

fn condition(value: &Value) -> Condition {
    let (left, right) = (&value["left"], &value["right"]);
    match value["op"].as_str() {
        Some("==" | "in") => Condition { test: test(left, right), negated: false },
        Some("!=") => Condition { test: test(left, right), negated: true },
        _ => Condition { test: Test::Unknown, negated: false },
    }
}

fn test(left: &Value, right: &Value) -> Test {
    if let Some([operand, mask]) = left["&"].as_array().map(Vec::as_slice) {
        return match (operand["meta"]["key"].as_str(), number(mask), number(right)) {
            (Some("mark"), Some(mask), Some(value)) => Test::Mark { mask, value },
            _ => Test::Unknown,
        };
    }
    if let Some(key) = left["meta"]["key"].as_str() {
        return meta(key, right);
    }
    if left["ct"]["key"] == "state" {
        return words(right).map_or(Test::Unknown, Test::State);
    }
    let payload = &left["payload"];
    match (payload["protocol"].as_str(), payload["field"].as_str()) {
        (Some("tcp" | "th"), Some("dport")) => ports(right).map_or(Test::Unknown, Test::Port),
        (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr")) => {
            words(right).map_or(Test::Unknown, Test::Protocol)
        }
        (
            Some("udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmpv6" | "igmp" | "esp" | "ah" | "arp"),
            _,
        ) => Test::Never,
        _ => Test::Unknown,
    }
}

fn meta(key: &str, right: &Value) -> Test {
    match key {
        "iif" | "iifname" => words(right).map_or(Test::Unknown, Test::Interface),
        // At these hooks the way out isn't known: such rules match nothing.
        "oif" | "oifname" => Test::Never,
        "l4proto" => words(right).map_or(Test::Unknown, Test::Protocol),
        "mark" => number(right).map_or(Test::Unknown, |value| Test::Mark { mask: u32::MAX, value }),
        "nfproto" if right == "ipv4" => Test::Family(Family::V4),
        "nfproto" if right == "ipv6" => Test::Family(Family::V6),
        "protocol" if right == "ip" => Test::Family(Family::V4),
        "protocol" if right == "ip6" => Test::Family(Family::V6),
        _ => Test::Unknown,
    }
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// One value, a list or an anonymous set, as a list. None for a set by name: it can change.
fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        Value::Object(_) if value.get("set").is_some() => value["set"].as_array().map(Vec::as_slice),
        Value::String(name) if name.starts_with('@') => None,
        one => Some(std::slice::from_ref(one)),
    }
}

fn words(value: &Value) -> Option<Vec<String>> {
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    items(value)?.iter().map(word).collect()
}

fn ports(value: &Value) -> Option<Vec<RangeInclusive<u16>>> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let range = |value: &Value| match value["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => Some(port(first)?..=port(last)?),
        _ => port(value).map(|port| port..=port),
    };
    items(value)?.iter().map(range).collect()
}

/// The new mark as `(mark & keep) ^ flip`; none if it has nothing to do with the old one.
fn new_mark(value: &Value) -> Option<(u32, u32)> {
    if let Some(value) = number(value) {
        return Some((0, value));
    }
    if value["meta"]["key"] == "mark" {
        return Some((u32::MAX, 0));
    }
    let (operator, operands) = value.as_object()?.iter().next()?;
    let (keep, flip) = new_mark(operands.get(0)?)?;
    let operand = number(operands.get(1)?)?;
    match operator.as_str() {
        "&" => Some((keep & operand, flip & operand)),
        "|" => Some((keep & !operand, flip & !operand | operand)),
        "^" => Some((keep, flip ^ operand)),
        _ => None,
    }
}

/// A rule for people: its matches and statements in short.
fn text_of(rule: &Value) -> String {
    let words = statements(rule).filter_map(|(key, value)| match key {
        "counter" => None,
        "match" => {
            Some(format!("{} {} {}", short(&value["left"]), word(value, "op"), short(&value["right"])))
        }
        "mangle" => Some(format!("{} set {}", short(&value["key"]), short(&value["value"]))),
        _ if value.is_null() => Some(key.to_owned()),
        _ => Some(format!("{key} {}", short(value))),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(","),
        Value::Object(fields) => match fields.iter().next() {
            Some((key, Value::Array(operands))) if operands.len() == 2 && key != "set" && key != "range" => {
                format!("{} {key} {}", short(&operands[0]), short(&operands[1]))
            }
            Some((key, inner)) if fields.len() == 1 && key != "key" && inner.get("key").is_some() => {
                format!("{key} {}", word(inner, "key"))
            }
            _ => fields.values().map(short).collect::<Vec<_>>().join(" "),
        },
        other => other.to_string(),
    }
}
