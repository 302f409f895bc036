//! What `nft -j list ruleset` prints, as chains of rules. Pure. The format: libnftables-json(5).

mod matches;
mod text;

use std::collections::HashMap;

use serde_json::Value;

use super::packet::{Condition, NewMark, Test};
use super::ruleset::{Action, Chain, Keeper, Rule, Table};
use crate::intercept::Family;

/// Family, table and name of a set or map.
type Place<'a> = (&'a str, &'a str, &'a str);
/// The elements of those that stay as they are.
type Sets<'a> = HashMap<Place<'a>, &'a [Value]>;

/// The tables, or what is wrong with the text. `terse`: it was printed without the elements of sets.
pub(super) fn parse(text: &str, terse: bool) -> Result<Vec<Table>, String> {
    let root: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let objects = root["nftables"].as_array().ok_or("no list \"nftables\"")?;
    let of = |kind: &'static str| objects.iter().filter_map(move |object| object.get(kind));
    let mut tables: Vec<Table> = Vec::new();
    for chain in of("chain") {
        let (family, name) = (word(chain, "family").to_owned(), word(chain, "table").to_owned());
        let new = base(chain);
        match tables.iter_mut().find(|table| table.family == family && table.name == name) {
            Some(table) => table.chains.push(new),
            None => tables.push(Table {
                keeper: Keeper::Nft,
                family,
                name,
                chains: vec![new],
                needs_iptables: false,
            }),
        }
    }
    let sets = if terse { Sets::new() } else { of("set").chain(of("map")).filter_map(fixed).collect() };
    for rule in of("rule") {
        let (family, table) = (word(rule, "family"), word(rule, "table"));
        let table = tables.iter_mut().find(|known| known.family == family && known.name == table);
        let Some(table) = table else { continue };
        table.needs_iptables |= statements(rule).any(|(key, _)| key == "xt");
        if let Some(chain) = table.chains.iter_mut().find(|known| known.name == word(rule, "chain")) {
            chain.rules.extend(Reader { sets: &sets, object: rule }.rules());
        }
    }
    Ok(tables)
}

fn base(chain: &Value) -> Chain {
    let devices = match &chain["dev"] {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(names) => Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    };
    Chain {
        name: word(chain, "name").to_owned(),
        hook: chain["hook"].as_str().map(str::to_owned),
        priority: chain["prio"].as_i64().unwrap_or(0),
        nat: chain["type"] == "nat",
        devices,
        drops: chain["policy"] == "drop",
        rules: Vec::new(),
    }
}

/// A set that doesn't change by itself, and its elements.
fn fixed(set: &Value) -> Option<(Place<'_>, &[Value])> {
    let flag = |flag: &Value| flag == "dynamic" || flag == "timeout";
    let changes = match &set["flags"] {
        Value::Array(flags) => flags.iter().any(flag),
        one => flag(one),
    };
    let elements = set["elem"].as_array().map(Vec::as_slice).unwrap_or_default();
    (!changes && set.get("timeout").is_none())
        .then(|| ((word(set, "family"), word(set, "table"), word(set, "name")), elements))
}

fn word<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

fn statements(rule: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let list = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|statement| statement.as_object()?.iter().next())
        .map(|(key, value)| (key.as_str(), value))
}

/// Reads one rule.
struct Reader<'a> {
    sets: &'a Sets<'a>,
    /// The rule.
    object: &'a Value,
}

impl<'a> Reader<'a> {
    /// A rule; one for each entry of a verdict map in it.
    fn rules(&self) -> Vec<Rule> {
        let mut rule = Rule { handle: self.object["handle"].as_u64(), ..Rule::new(text::of(self.object)) };
        for (key, value) in statements(self.object) {
            match key {
                "match" => rule.conditions.extend(self.conditions(value)),
                "mangle" if value["key"]["meta"]["key"] == "mark" => {
                    rule.mark = Some(new_mark(&value["value"]));
                }
                // Only iptables can read what it sets.
                "xt" if ["MARK", "CONNMARK"].contains(&word(value, "name")) => rule.mark = Some(OTHER_MARK),
                "notrack" => rule.untracks = true,
                "dnat" | "redirect" | "tproxy" => rule.redirects = true,
                "reject" => rule.conditions.extend(reject_family(value)),
                // They let some packets pass, or we can't read them.
                "limit" | "quota" | "ct count" | "connlimit" | "meter" => {
                    rule.conditions.push(Condition::new(Test::Unknown));
                }
                "set" if value["stmt"].as_array().is_some_and(|statements| !statements.is_empty()) => {
                    rule.conditions.push(Condition::new(Test::Unknown));
                }
                "xt" if value["type"] != "target" => rule.conditions.push(Condition::new(Test::Unknown)),
                "vmap" => return self.branches(&rule, value),
                _ => {}
            }
            if let Some(action) = verdict(key, value) {
                rule.action = action;
            }
        }
        vec![rule]
    }

    fn branches(&self, rule: &Rule, map: &Value) -> Vec<Rule> {
        let Some(entries) = self.items(&map["data"]) else {
            return vec![Rule { action: Action::Anything, ..rule.clone() }];
        };
        let branch = |entry: &Value| {
            let (key, value) = entry.get(1)?.as_object()?.iter().next()?;
            let mut branch = Rule { action: verdict(key, value)?, ..rule.clone() };
            branch.conditions.extend(self.equal(&map["key"], entry.get(0)?));
            Some(branch)
        };
        entries.iter().filter_map(branch).collect()
    }

    /// One value, a list or a set, as a list. None for a set that changes by itself.
    fn items(&self, value: &'a Value) -> Option<&'a [Value]> {
        match value {
            Value::Array(items) => Some(items),
            Value::Object(_) if value.get("set").is_some() => self.items(&value["set"]),
            Value::String(name) if name.starts_with('@') => {
                let place = (word(self.object, "family"), word(self.object, "table"), &name[1..]);
                self.sets.get(&place).copied()
            }
            one => Some(std::slice::from_ref(one)),
        }
    }
}

fn verdict(key: &str, value: &Value) -> Option<Action> {
    Some(match key {
        "accept" | "dnat" | "redirect" => Action::Accept,
        "drop" | "reject" | "fwd" => Action::Drop,
        "queue" => match value["flags"] == "bypass"
            || value["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "bypass"))
        {
            // A program of the administrator's decides, and where there is none they pass.
            true => Action::Accept,
            false => Action::Anything,
        },
        "synproxy" => Action::Anything,
        "xt" if value["type"] == "target" => match word(value, "name") {
            "REJECT" | "TARPIT" => Action::Drop,
            "MARK" | "CONNMARK" => Action::None,
            name => super::iptables::target_of(name),
        },
        "return" => Action::Return,
        "jump" => Action::Jump(word(value, "target").to_owned()),
        "goto" => Action::Goto(word(value, "target").to_owned()),
        _ => return None,
    })
}

/// `reject with icmp …` implies the family, and nft leaves it out.
fn reject_family(reject: &Value) -> Option<Condition> {
    let family = match reject["type"].as_str()? {
        "icmp" => Family::V4,
        "icmpv6" => Family::V6,
        _ => return None,
    };
    Some(Condition::new(Test::Family(family)))
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// A mark that has nothing to do with the old one and can't be known.
const OTHER_MARK: NewMark = NewMark { keep: 0, flip: 0, unknown: u32::MAX };

/// What a mark becomes.
fn new_mark(value: &Value) -> NewMark {
    if let Some(flip) = number(value) {
        return NewMark { keep: 0, flip, unknown: 0 };
    }
    if value["meta"]["key"] == "mark" {
        return NewMark { keep: u32::MAX, flip: 0, unknown: 0 };
    }
    let Some((operator, operands)) = value.as_object().and_then(|object| object.iter().next()) else {
        return OTHER_MARK;
    };
    let (Some(first), Some(second)) = (operands.get(0), operands.get(1)) else { return OTHER_MARK };
    let (old, Some(operand)) = (new_mark(first), number(second)) else { return OTHER_MARK };
    let NewMark { keep, flip, unknown } = old;
    match operator.as_str() {
        "&" => NewMark { keep: keep & operand, flip: flip & operand, unknown: unknown & operand },
        "|" => {
            NewMark { keep: keep & !operand, flip: flip & !operand | operand, unknown: unknown & !operand }
        }
        "^" => NewMark { keep, flip: flip ^ operand, unknown },
        _ => OTHER_MARK,
    }
}
