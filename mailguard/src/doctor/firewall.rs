//! What nftables and iptables do with intercepted packets, with those to active zones, and with our answers.
//! Pure.
//!
//! An intercepted packet goes through the hooks prerouting and input like one that is meant for this machine,
//! but with its own addresses and our mark. The answers go through output and postrouting, and bear the
//! original destination.

use mailguard_common::maps::{PACKET_MARK, SOCKET_MARK};
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;

use super::facts;
use super::ground::Ground;
use super::interfaces::unread;
use super::journey::{IN, OUT, Sessions, Station, stations};
use super::ruleset::{Fate, Keeper, Rule, Table, Way};
use super::tool::{Said, Unread};
use super::{File, Finding, Severity, forward, interfaces_in, iptables, nftables};
use crate::intercept::Family;

/// Judges all chains.
pub(super) fn judge(config: &Config, file: &File<'_>, firewall: &facts::Firewall) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tables = tables(firewall, &mut findings);
    let (ground, unknown) = Ground::read(config, firewall);
    findings.extend(unknown.iter().map(|reason| unread("firewall", reason)));
    let (inward, outward) = (stations(&tables, IN), stations(&tables, OUT));
    let troubles = [ZoneMode::Transparent, ZoneMode::Active]
        .map(|mode| troubles(config, mode, firewall.user, &ground, &inward, &outward));
    for (number, station) in inward.iter().chain(&outward).enumerate() {
        for (troubles, marked) in troubles.iter().zip([true, false]) {
            let subject = Subject { station, marked, reply: number >= inward.len() };
            findings.extend(subject.judge(&troubles[number]));
        }
    }
    if findings.is_empty() {
        let chains = inward.len() + outward.len();
        let what = format!(
            "{chains} chains of nftables and iptables let mail in and answers out: none drops, redirects or unmarks it"
        );
        findings.push(Finding::ok("firewall", what));
    }
    findings.extend(forward::judge(config, file, &tables, &ground));
    findings
}

/// What a chain does to sessions.
#[derive(Debug, Clone, Default)]
struct Trouble<'a> {
    /// Whose packets are dropped.
    interfaces: Vec<&'a str>,
    /// By the rule, or the policy; whether for certain.
    dropped: Option<(Option<&'a Rule>, bool)>,
    unmarked: Option<(&'a Rule, bool)>,
    /// Seen from the interface.
    redirected: Option<(&'a str, &'a Rule)>,
}

/// What the chains of both directions do to the sessions of the zones in this mode, in their order.
fn troubles<'a>(
    config: &'a Config,
    mode: ZoneMode,
    user: Option<u32>,
    ground: &'a Ground,
    inward: &[Station<'a>],
    outward: &[Station<'a>],
) -> Vec<Trouble<'a>> {
    let mut troubles = vec![Trouble::default(); inward.len() + outward.len()];
    for interface in interfaces_in(config, mode).into_iter().map(|name| ground.real_name(name)) {
        for family in ground.families(interface) {
            let around = &ground.around(interface, family);
            let transparent = mode == ZoneMode::Transparent;
            let sessions = Sessions { interface, family, around, transparent, user };
            sessions.run(inward, outward, |reply, number, way| {
                let number = if reply { inward.len() + number } else { number };
                troubles[number].note(interface, way);
            });
        }
    }
    troubles
}

impl<'a> Trouble<'a> {
    fn note(&mut self, interface: &'a str, way: &Way<'a, '_>) {
        let drop = match way.fate {
            Fate::Accepted => None,
            Fate::Dropped(rule) => Some((rule, true)),
            Fate::PerhapsDropped(rule) => Some((rule, false)),
        };
        if drop.is_some() && !self.interfaces.contains(&interface) {
            self.interfaces.push(interface);
        }
        // What is certain is said first.
        self.dropped = match (self.dropped, drop) {
            (Some((_, false)), Some((_, true))) | (None, _) => drop,
            (known, _) => known,
        };
        self.unmarked = match (self.unmarked, way.mark_lost) {
            (Some((_, false)), Some((_, true))) | (None, _) => way.mark_lost,
            (known, _) => known,
        };
        self.redirected = self.redirected.or(way.redirected.map(|rule| (interface, rule)));
    }
}

/// The tables of all programs, each once; findings about those that can't be read.
fn tables(firewall: &facts::Firewall, findings: &mut Vec<Finding>) -> Vec<Table> {
    let mut tables = match read_nft(&firewall.nft, firewall.terse) {
        Ok(tables) => tables,
        Err(reason) => {
            findings.push(unread("firewall", &reason));
            Vec::new()
        }
    };
    let mut missing = None;
    for (variant, family, said) in &firewall.iptables {
        let text = match said {
            Ok(text) => text,
            // Where only nft is in use, nobody misses it: its list was read.
            Err(reason @ Unread::Missing { .. }) if *variant == "nft" => {
                missing = Some(reason);
                continue;
            }
            Err(reason) => {
                findings.push(unread("firewall", reason));
                continue;
            }
        };
        for table in iptables::parse(text, variant, *family) {
            let same = |other: &Table| other.family == table.family && other.name == table.name;
            let known = tables.iter().position(|other| other.keeper == Keeper::Nft && same(other));
            match known {
                // nft's own words are exact, unless they leave out what iptables alone can say.
                Some(known) if *variant == "nft" => {
                    if tables[known].needs_iptables {
                        tables[known] = table;
                    }
                }
                _ if *variant == "nft" && firewall.nft.is_ok() => {}
                _ => tables.push(table),
            }
        }
    }
    if let Some(reason) = missing
        && tables.iter().any(|table| table.needs_iptables)
    {
        findings.push(unread("firewall", reason));
    }
    tables
}

fn read_nft(said: &Said, terse: bool) -> Result<Vec<Table>, Unread> {
    let text = said.clone()?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let command = || "nft -j list ruleset".to_owned();
    nftables::parse(&text, terse).map_err(|reason| Unread::Failed { command: command(), reason })
}

/// `the chain input of nftables' table inet filter`
pub(super) fn name_of(station: &Station<'_>) -> String {
    let Table { keeper, family, name, .. } = station.table;
    let chain = &station.chain.name;
    match keeper {
        Keeper::Nft => format!("the chain {chain} of nftables' table {family} {name}"),
        Keeper::Iptables { .. } => format!("{}'s chain {chain} (table {name})", program_of(station.table)),
    }
}

fn program_of(table: &Table) -> String {
    match table.keeper {
        Keeper::Nft => "nft".to_owned(),
        Keeper::Iptables { variant, family: Family::V4 } => format!("iptables-{variant}"),
        Keeper::Iptables { variant, family: Family::V6 } => format!("ip6tables-{variant}"),
    }
}

/// A chain, and whose packets are sent through it.
struct Subject<'a> {
    station: &'a Station<'a>,
    /// Intercepted packets; else those to an active zone.
    marked: bool,
    /// Our answers to them.
    reply: bool,
}

impl Subject<'_> {
    /// At most one finding of each kind for all interfaces: the remedy is the same.
    fn judge(&self, trouble: &Trouble<'_>) -> Vec<Finding> {
        // Only there is it decided where a packet goes.
        let routes = self.station.hook() == "prerouting";
        let findings = [
            trouble.dropped.map(|(rule, certain)| self.drops(&trouble.interfaces, rule, certain)),
            trouble.unmarked.filter(|_| routes).map(|(rule, certain)| self.unmarks(rule, certain)),
            trouble.redirected.filter(|_| routes).map(|(interface, rule)| self.redirects(interface, rule)),
        ];
        findings.into_iter().flatten().collect()
    }

    /// The command that lets our packets pass this chain as they are, before its other rules.
    fn accept_command(&self, interface: &str) -> String {
        let Table { keeper, family, name, .. } = self.station.table;
        let chain = &self.station.chain.name;
        let mark = if self.reply { SOCKET_MARK } else { PACKET_MARK };
        let nft = |test: &str| format!("nft 'insert rule {family} {name} {chain} {test} accept'");
        let iptables =
            |test: &str| format!("{} -t {name} -I {chain} {test} -j ACCEPT", program_of(self.station.table));
        match (keeper, self.marked, self.reply) {
            (Keeper::Nft, true, _) => nft(&format!("meta mark & {mark:#x} == {mark:#x}")),
            (Keeper::Nft, false, false) => nft(&format!("iifname \"{interface}\" tcp dport 25")),
            (Keeper::Nft, false, true) => nft(&format!("oifname \"{interface}\" tcp sport 25")),
            (Keeper::Iptables { .. }, true, _) => iptables(&format!("-m mark --mark {mark:#x}/{mark:#x}")),
            (Keeper::Iptables { .. }, false, false) => iptables(&format!("-i {interface} -p tcp --dport 25")),
            (Keeper::Iptables { .. }, false, true) => iptables(&format!("-o {interface} -p tcp --sport 25")),
        }
    }

    fn drops(&self, interfaces: &[&str], rule: Option<&Rule>, certain: bool) -> Finding {
        let by = rule.map_or("its policy".to_owned(), |rule| format!("the rule \"{}\"", rule.text));
        let whose = match (self.marked, self.reply) {
            (true, false) => "intercepted packets (they carry the mark 0x10000000) from",
            (false, false) => "connections to port 25 of an active zone from",
            (true, true) => {
                "our answers to intercepted packets (they bear the original destination, and the mark \
                 0x20000000) to"
            }
            (false, true) => "our answers from port 25 of an active zone to",
        };
        let (may, severity) = match certain {
            true => ("drops", Severity::Error),
            false => ("may drop", Severity::Warning),
        };
        let what = format!("{} {may} {whose} {}, by {by}", name_of(self.station), interfaces.join(", "));
        let why = match (self.marked, certain) {
            (true, true) if self.reply => "They never reach the client: to clients, mail is dead.",
            (true, true) => "They never reach the proxy: to clients, mail is dead.",
            (false, true) => "Nobody talks to the proxy there.",
            (true, false) => {
                "Whether it does depends on what can't be told from here; where it does, mail is dead to clients."
            }
            (false, false) => {
                "Whether it does depends on what can't be told from here: right if only some are to send."
            }
        };
        let why = format!("{why} Put the rule into the firewall's own files, too.");
        // The mark is the same on all of them.
        let named = if self.marked { &interfaces[..1] } else { interfaces };
        let check = if self.reply { "output-firewall" } else { "input-firewall" };
        let finding = Finding::new(check, severity, what, why);
        named.iter().fold(finding, |finding, interface| finding.command(self.accept_command(interface)))
    }

    fn unmarks(&self, rule: &Rule, certain: bool) -> Finding {
        let (may, severity) = match certain {
            true => ("replaces", Severity::Error),
            false => ("may replace", Severity::Warning),
        };
        let what = format!("{} {may} our mark: \"{}\"", name_of(self.station), rule.text);
        let why = "The mark 0x10000000 is how intercepted packets find the way to the proxy; without it they are \
                   forwarded, and the connection breaks. Let them pass that chain first, in the firewall's own \
                   files too, or set only the bits that the rule needs (nft: meta mark set meta mark and … or …; \
                   iptables: --set-xmark VALUE/MASK, --restore-mark --mask).";
        Finding::new("firewall-mark", severity, what, why).command(self.accept_command(""))
    }

    fn redirects(&self, interface: &str, rule: &Rule) -> Finding {
        let what = format!(
            "{} sends port 25 elsewhere: \"{}\" (seen from {interface})",
            name_of(self.station),
            rule.text
        );
        if self.marked {
            let why = "It changes intercepted packets on their way to the proxy: connections break, or the proxy \
                       takes the new address for the original destination. Let them pass that chain first, in the \
                       firewall's own files too. Mail for a server behind the rule is then delivered to the address \
                       to which the client connected: name the server in [[incoming_domain]], or leave the address \
                       alone by bypass.to_ips.";
            return Finding::error("firewall-redirect", what, why).command(self.accept_command(interface));
        }
        let why = "What it catches doesn't come to the proxy and isn't filtered. For a published mail server: name \
                   it as server of its domain in [[incoming_domain]] and remove the rule; the proxy then \
                   takes its mail on the active zone.";
        let finding = Finding::warning("firewall-redirect", what, why);
        let Station { table, chain } = self.station;
        match (table.keeper, rule.handle) {
            (Keeper::Nft, Some(handle)) if chain.rules.contains(rule) => finding.command(format!(
                "nft delete rule {} {} {} handle {handle}",
                table.family, table.name, chain.name
            )),
            (Keeper::Iptables { .. }, _) => {
                let text = rule.text.replacen("-A ", "-D ", 1);
                finding.command(format!("{} -t {} {text}", program_of(table), table.name))
            }
            _ => finding,
        }
    }
}
