//! What `iptables-save` prints, as chains of rules. Pure. The words: iptables-extensions(8).

mod options;

use super::packet::{Condition, NewMark};
use super::ruleset::{Action, Chain, Keeper, Rule, Table};
use crate::intercept::Family;

/// iptables' tables and where among nftables' chains they come (linux/netfilter_ipv4.h), nat's before
/// routing.
const PRIORITIES: &[(&str, i64)] =
    &[("raw", -300), ("mangle", -150), ("nat", -100), ("filter", 0), ("security", 50)];

/// Targets that let the packet go on as it is.
const HARMLESS: &[&str] = &[
    "LOG",
    "NFLOG",
    "ULOG",
    "TCPMSS",
    "TOS",
    "DSCP",
    "TTL",
    "HL",
    "CLASSIFY",
    "CHECKSUM",
    "SET",
    "AUDIT",
    "SECMARK",
    "CONNSECMARK",
    "ECN",
    "TCPOPTSTRIP",
    "TRACE",
    "IDLETIMER",
    "LED",
    "RATEEST",
    "TEE",
    "CT",
    "NOTRACK",
    "MASQUERADE",
    "SNAT",
];

/// The tables of one family as the variant (`legacy`, `nft`) keeps them.
pub(super) fn parse(text: &str, variant: &'static str, family: Family) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table {
                keeper: Keeper::Iptables { variant, family },
                family: if family == Family::V4 { "ip" } else { "ip6" }.to_owned(),
                name: name.to_owned(),
                chains: Vec::new(),
                needs_iptables: false,
            });
            continue;
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            table.chains.push(base(&table.name, chain));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let chain = table.chains.iter_mut().find(|chain| words.first() == Some(&chain.name));
            if let Some(chain) = chain {
                chain.rules.push(parse_rule(rule, &words[1..]));
            }
        }
    }
    for table in &mut tables {
        resolve(table);
    }
    tables
}

/// `INPUT DROP [0:0]`; chains of the administrator's own have no policy, `-`.
fn base(table: &str, line: &str) -> Chain {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let priority = PRIORITIES.iter().find(|(name, _)| *name == table).map_or(0, |(_, priority)| *priority);
    Chain {
        name: name.to_owned(),
        hook: (!rest.starts_with('-')).then(|| name.to_ascii_lowercase()),
        priority,
        nat: table == "nat",
        drops: rest.starts_with("DROP"),
        ..Chain::default()
    }
}

/// What a target does that isn't a chain.
pub(super) fn target_of(name: &str) -> Action {
    if HARMLESS.contains(&name) { Action::None } else { Action::Anything }
}

/// Targets look like chains, and are those only that the table hasn't.
fn resolve(table: &mut Table) {
    let names: Vec<String> = table.chains.iter().map(|chain| chain.name.clone()).collect();
    for rule in table.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        if let Action::Jump(name) = &rule.action
            && !names.contains(name)
        {
            rule.action = target_of(name);
        }
    }
}

/// Words apart at blanks, what stands in double quotes whole.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn parse_rule(text: &str, words: &[String]) -> Rule {
    let mut rule = Rule::new(format!("-A {text}"));
    let mut negated = false;
    let mut module = "";
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(option) = words.next() {
        if option == "!" {
            negated = true;
            continue;
        }
        // The values of an option end where the next option begins, but a comment may say anything.
        let mut values = Vec::new();
        if option == "--comment" {
            values.extend(words.next());
        }
        while let Some(value) = words.next_if(|next| !next.starts_with('-') && *next != "!") {
            values.push(value);
        }
        let value = values.first().copied().unwrap_or_default();
        match option {
            "-m" => {
                module = value;
                rule.conditions.extend(options::module(value).map(Condition::new));
            }
            "-j" | "-g" => {
                target(&mut rule, option, value, &words.by_ref().map(str::to_owned).collect::<Vec<_>>());
            }
            _ if option == "--invert" && module == "rpfilter" => {
                if let Some(last) = rule.conditions.last_mut() {
                    last.negated = true;
                }
            }
            _ => {
                let test = options::test(module, option, &values);
                rule.conditions.extend(test.map(|test| Condition { test, negated }));
            }
        }
        negated = false;
    }
    rule
}

/// `VALUE` or `VALUE/MASK`.
fn masked(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn target(rule: &mut Rule, option: &str, name: &str, options: &[String]) {
    let has = |key: &str| options.iter().any(|option| option == key);
    let value = |key: &str| {
        let at = options.iter().position(|option| option == key)?;
        options.get(at + 1).map(String::as_str)
    };
    rule.action = match name {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" | "TARPIT" => Action::Drop,
        "RETURN" => Action::Return,
        // A program of the administrator's decides, and where there is none they pass.
        "NFQUEUE" if has("--queue-bypass") => Action::Accept,
        "NFQUEUE" | "QUEUE" => Action::Anything,
        "DNAT" | "REDIRECT" | "TPROXY" | "NETMAP" => {
            rule.redirects = true;
            Action::Accept
        }
        "MARK" => {
            // As saved: mark = (mark & !mask) ^ value.
            rule.mark = value("--set-xmark").and_then(masked).map(|(flip, mask)| NewMark {
                keep: !mask,
                flip,
                unknown: 0,
            });
            Action::None
        }
        "CONNMARK" => {
            if has("--restore-mark") {
                let mask = value("--nfmask").and_then(number).unwrap_or(u32::MAX);
                rule.mark = Some(NewMark { keep: !mask, flip: 0, unknown: mask });
            }
            Action::None
        }
        "NOTRACK" => {
            rule.untracks = true;
            Action::None
        }
        "CT" => {
            rule.untracks = has("--notrack");
            Action::None
        }
        _ if option == "-g" => Action::Goto(name.to_owned()),
        // A chain, or a target of another name.
        name => Action::Jump(name.to_owned()),
    };
}
