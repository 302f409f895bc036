//! Policy routing: whether our rules come before all that could send intercepted packets elsewhere. Pure;
//! reads what `ip rule show` and `ip route show table 2525` print, in the words in which `ip` takes it again.

use mailguard_common::maps::PACKET_MARK;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;

use super::facts::Routing;
use super::interfaces::unread;
use super::{Finding, interfaces_in};
use crate::datapath::{PRIORITY, TABLE};
use crate::intercept::Family;

/// A rule: its priority, and the words after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    priority: u32,
    words: Vec<&'a str>,
}

/// Judges both families.
pub(super) fn judge(config: &Config, routing: &[Routing]) -> Vec<Finding> {
    let interfaces = interfaces_in(config, ZoneMode::Transparent);
    if interfaces.is_empty() {
        return Vec::new();
    }
    routing.iter().flat_map(|family| judge_family(family, &interfaces)).collect()
}

fn judge_family(routing: &Routing, interfaces: &[&str]) -> Vec<Finding> {
    let ip = if routing.family == Family::V4 { "ip -4" } else { "ip -6" };
    let mut findings = Vec::new();
    match &routing.rules {
        Ok(text) => {
            let rules: Vec<Rule<'_>> = text.lines().filter_map(rule).collect();
            findings.extend(local_rule(ip, &rules));
            findings.extend(rules_in_front(ip, &rules, interfaces));
        }
        Err(reason) => findings.push(unread("policy-rules", reason)),
    }
    match &routing.routes {
        Ok(text) => findings.extend(routes(ip, text)),
        Err(reason) => findings.push(unread("policy-routes", reason)),
    }
    if findings.is_empty() {
        let what = format!("{ip}: no rule stands before or beside ours, and table {TABLE} is ours alone");
        findings.push(Finding::ok("policy-routing", what));
    }
    findings
}

pub(super) fn rule(line: &str) -> Option<Rule<'_>> {
    let (priority, words) = line.split_once(':')?;
    // What isn't there now is marked so.
    let words = words.split_whitespace().filter(|word| !word.starts_with('[')).collect();
    Some(Rule { priority: priority.trim().parse().ok()?, words })
}

impl<'a> Rule<'a> {
    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        let at = self.words.iter().position(|word| *word == key)?;
        self.words.get(at + 1).copied()
    }

    pub(super) fn is_ours(&self) -> bool {
        self.value("lookup").and_then(|table| table.parse().ok()) == Some(TABLE)
            && self.value("fwmark").and_then(mark) == Some((PACKET_MARK, PACKET_MARK))
    }

    fn is_local(&self) -> bool {
        self.value("lookup") == Some("local")
    }

    /// Whether it could decide about a packet of ours to port 25 that came in by one of `interfaces`.
    fn may_catch(&self, interfaces: &[&str]) -> bool {
        let inverted = self.words.first() == Some(&"not");
        let other_mark = self
            .value("fwmark")
            .and_then(mark)
            .is_some_and(|(value, mask)| mask & PACKET_MARK != 0 && value & PACKET_MARK == 0);
        let other = other_mark
            || self.value("iif").is_some_and(|name| !interfaces.contains(&name))
            // On the way in no rule with a way out matches.
            || self.value("oif").is_some()
            || self.value("ipproto").is_some_and(|protocol| protocol != "tcp" && protocol != "6")
            || self.value("dport").is_some_and(|ports| !holds_smtp(ports));
        let silent = self.is_local() || self.words.contains(&"nop");
        !silent && (inverted || !other)
    }

    /// Whether it looks at nothing that differs among the packets of an interface of ours.
    fn catches_all(&self) -> bool {
        self.words.first() == Some(&"from")
            && self.value("from") == Some("all")
            && !["to", "fwmark", "tos", "uidrange", "sport"].iter().any(|key| self.words.contains(key))
    }
}

/// `0x1/0xff`, or `0x1` for all of the mark.
fn mark(text: &str) -> Option<(u32, u32)> {
    // Nothing is printed as `0`, all else in hexadecimal.
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

fn holds_smtp(ports: &str) -> bool {
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&mailguard_common::maps::SMTP_PORT),
        _ => true,
    }
}

fn local_rule(ip: &str, rules: &[Rule<'_>]) -> Option<Finding> {
    if rules.iter().any(Rule::is_local) {
        return None;
    }
    let finding = Finding::error(
        "policy-local",
        format!("{ip}: no rule looks up the table local"),
        "Nothing that is meant for this machine reaches it, the answers to our own deliveries included.",
    );
    Some(finding.command(format!("{ip} rule add priority 0 lookup local")))
}

fn rules_in_front(ip: &str, rules: &[Rule<'_>], interfaces: &[&str]) -> Vec<Finding> {
    let mut taken: Vec<u32> = rules.iter().map(|rule| rule.priority).collect();
    let front = rules.iter().filter(|rule| rule.priority <= PRIORITY && !rule.is_ours());
    let mut findings = Vec::new();
    for rule in front.filter(|rule| rule.may_catch(interfaces)) {
        let text = rule.words.join(" ");
        // They keep their order among themselves.
        let free = (PRIORITY + 1..).find(|priority| !taken.contains(priority)).unwrap_or(PRIORITY + 1);
        taken.push(free);
        let what = format!(
            "{ip}: the rule \"{}: {text}\" stands before ours, or beside, at {PRIORITY}",
            rule.priority
        );
        let why = "Intercepted packets that it catches go its way and never reach the proxy: it must come later. \
                   Change it where it is made, too.";
        let finding = match rule.catches_all() {
            true => Finding::error("policy-rule", what, why),
            false => Finding::warning("policy-rule", what, why),
        };
        findings.push(finding.command(format!(
            "{ip} rule add {text} priority {free} && {ip} rule del {text} priority {}",
            rule.priority
        )));
    }
    findings
}

/// What is in our table and isn't ours.
fn routes(ip: &str, text: &str) -> Vec<Finding> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let foreign =
        lines.filter(|words| !words.is_empty() && !words.starts_with(&["local", "default", "dev", "lo"]));
    let finding = |words: Vec<&str>| {
        let route = kept(&words);
        Finding::error(
            "policy-table",
            format!("{ip}: table {TABLE} holds the route \"{route}\", which isn't ours"),
            "Intercepted packets to these addresses follow it and never reach the proxy. The table is mailguard's: \
             let whoever added it use another number.",
        )
        .command(format!("{ip} route del {route} table {TABLE}"))
    };
    foreign.map(finding).collect()
}

/// The words that name a route; the rest is about its state.
fn kept(words: &[&str]) -> String {
    let mut kept = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        match *word {
            "via" | "dev" | "metric" => {
                kept.extend([Some(*word), words.next().copied()].into_iter().flatten())
            }
            _ if kept.is_empty()
                || ["unicast", "blackhole", "unreachable", "prohibit", "local"].contains(&kept[0])
                    && kept.len() == 1 =>
            {
                kept.push(*word);
            }
            _ => {}
        }
    }
    kept.join(" ")
}
