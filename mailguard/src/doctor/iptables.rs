//! What `iptables-save` prints, as chains of rules. Pure. The words: iptables-extensions(8).

use std::ops::RangeInclusive;

use super::ruleset::{Action, Chain, Condition, Keeper, Rule, Table, Test, loses_bit};
use crate::intercept::Family;

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
            });
            continue;
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let (name, rest) = chain.split_once(' ').unwrap_or((chain, ""));
            // Chains of the administrator's own have no policy, `-`.
            let hook = (!rest.starts_with('-')).then(|| name.to_ascii_lowercase());
            let drops = rest.starts_with("DROP");
            table.chains.push(Chain { name: name.to_owned(), hook, drops, rules: Vec::new() });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let chain = table.chains.iter_mut().find(|chain| words.first() == Some(&chain.name));
            if let Some(chain) = chain {
                chain.rules.push(parse_rule(rule, &words[1..]));
            }
        }
    }
    tables
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
    let mut rule = Rule {
        text: format!("-A {text}"),
        handle: None,
        conditions: Vec::new(),
        loses_mark: false,
        redirects: false,
        action: Action::None,
    };
    let mut negated = false;
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(option) = words.next() {
        if option == "!" {
            negated = true;
            continue;
        }
        // Each option has one value, or none if the next word is an option again.
        let value = words.next_if(|next| !next.starts_with('-') && *next != "!").unwrap_or_default();
        match option {
            // It names what the options after it belong to.
            "-m" => {
                if matches!(value, "limit" | "hashlimit" | "connlimit" | "statistic" | "recent" | "string") {
                    rule.conditions.push(Condition { test: Test::Unknown, negated: false });
                }
                continue;
            }
            "-j" | "-g" => {
                target(&mut rule, option, value, &words.by_ref().map(str::to_owned).collect::<Vec<_>>());
            }
            "--comment" => {}
            _ => rule.conditions.push(Condition { test: test(option, value), negated }),
        }
        negated = false;
    }
    rule
}

fn test(option: &str, value: &str) -> Test {
    let list = |value: &str| value.split(',').map(str::to_ascii_lowercase).collect::<Vec<_>>();
    match option {
        "-i" => Test::Interface(vec![match value.strip_suffix('+') {
            Some(beginning) => format!("{beginning}*"),
            None => value.to_owned(),
        }]),
        "-o" => Test::Never,
        "-p" => Test::Protocol(vec![value.to_owned()]),
        "--dport" | "--dports" => ports(value).map_or(Test::Unknown, Test::Port),
        "--ctstate" | "--state" => Test::State(list(value)),
        "--mark" => match masked(value) {
            Some((value, mask)) => Test::Mark { mask, value },
            None => Test::Unknown,
        },
        _ => Test::Unknown,
    }
}

fn ports(value: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |item: &str| {
        let (first, last) = item.split_once(':').unwrap_or((item, item));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    value.split(',').map(range).collect()
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
    let value = |key: &str| {
        let at = options.iter().position(|option| option == key)?;
        options.get(at + 1).map(String::as_str)
    };
    rule.action = match name {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" => Action::Drop,
        "RETURN" => Action::Return,
        // A program of the administrator's decides: as good as accepted, for all we know.
        "NFQUEUE" => Action::Accept,
        "DNAT" | "REDIRECT" | "TPROXY" => {
            rule.redirects = true;
            Action::Accept
        }
        "MARK" => {
            // As saved: mark = (mark & !mask) ^ value.
            let new = value("--set-xmark").and_then(masked);
            rule.loses_mark = new.is_some_and(|(value, mask)| loses_bit(!mask, value));
            Action::None
        }
        "CONNMARK" => {
            if options.iter().any(|option| option == "--restore-mark") {
                // A new connection's own mark is 0.
                let mask = value("--nfmask").and_then(number).unwrap_or(u32::MAX);
                rule.loses_mark = loses_bit(!mask, 0);
            }
            Action::None
        }
        _ if option == "-g" => Action::Goto(name.to_owned()),
        // LOG, TCPMSS and others of iptables' own look like chains, which aren't there.
        name => Action::Jump(name.to_owned()),
    };
}
