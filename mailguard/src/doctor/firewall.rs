//! What nftables and iptables do with intercepted packets, and with those to active zones. Pure.
//!
//! An intercepted packet goes through the hooks prerouting and input like one that is meant for this machine, but
//! with its own addresses and our mark.

use mailguard_common::layout::PACKET_MARK;
use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneMode;

use super::facts;
use super::interfaces::unread;
use super::ruleset::{Chain, Fate, Keeper, Packet, Rule, Table, Way};
use super::tool::{Said, Unread};
use super::{Finding, Severity, interfaces_in, iptables, nftables};
use crate::intercept::Family;

/// The states that a connection goes through; each of its packets must pass.
const STATES: [&str; 2] = ["new", "established"];

/// Judges all chains.
pub(super) fn judge(config: &Config, firewall: &facts::Firewall) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tables = tables(firewall, &mut findings);
    let mut chains = 0;
    for table in &tables {
        let entered = |chain: &&Chain| matches!(chain.hook.as_deref(), Some("prerouting" | "input"));
        for chain in table.chains.iter().filter(entered) {
            chains += 1;
            for (mode, marked) in [(ZoneMode::Transparent, true), (ZoneMode::Active, false)] {
                let subject = Subject { table, chain, marked };
                findings.extend(subject.judge(&interfaces_in(config, mode)));
            }
        }
    }
    if findings.is_empty() {
        let what = format!(
            "{chains} chains of nftables and iptables let mail in: none drops, redirects or unmarks it"
        );
        findings.push(Finding::ok("firewall", what));
    }
    findings
}

/// The tables of all programs, each once; findings about those that can't be read.
fn tables(firewall: &facts::Firewall, findings: &mut Vec<Finding>) -> Vec<Table> {
    let mut tables = match read_nft(&firewall.nft) {
        Ok(tables) => tables,
        Err(reason) => {
            findings.push(unread("firewall", &reason));
            Vec::new()
        }
    };
    let nft = firewall.nft.as_deref().unwrap_or_default();
    for (variant, family, said) in &firewall.iptables {
        let text = match said {
            Ok(text) => text,
            // Where only nft is in use, nobody misses it: its list was read.
            Err(Unread::Missing { .. }) if *variant == "nft" => continue,
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
                    if nftables::needs_iptables(nft, &tables[known]) {
                        tables[known] = table;
                    }
                }
                _ if *variant == "nft" && firewall.nft.is_ok() => {}
                _ => tables.push(table),
            }
        }
    }
    tables
}

fn read_nft(said: &Said) -> Result<Vec<Table>, Unread> {
    let text = said.clone()?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let command = || "nft -j list ruleset".to_owned();
    nftables::parse(&text).map_err(|reason| Unread::Failed { command: command(), reason })
}

/// A chain, and whose packets are sent through it.
struct Subject<'a> {
    table: &'a Table,
    chain: &'a Chain,
    /// Intercepted packets; else those to an active zone.
    marked: bool,
}

impl<'a> Subject<'a> {
    /// At most one finding of each kind for all `interfaces`: the remedy is the same.
    fn judge(&self, interfaces: &[&str]) -> Vec<Finding> {
        let (mut dropped, mut unmarked, mut redirected) = (None, None, None);
        let mut cut_off: Vec<&str> = Vec::new();
        for &interface in interfaces {
            for &family in self.table.families() {
                for state in STATES {
                    let packet = Packet { interface, family, marked: self.marked, state };
                    let Way { fate, mark_lost, redirected: to } = self.table.way(self.chain, &packet);
                    let drop = match fate {
                        Fate::Accepted => None,
                        Fate::Dropped(rule) => Some((rule, true)),
                        Fate::PerhapsDropped(rule) => Some((rule, false)),
                    };
                    if drop.is_some() && !cut_off.contains(&interface) {
                        cut_off.push(interface);
                    }
                    dropped = dropped.or(drop);
                    unmarked = unmarked.or(mark_lost);
                    redirected = redirected.or(to.map(|rule| (interface, rule)));
                }
            }
        }
        let findings = [
            dropped.map(|(rule, certain)| self.drops(&cut_off, rule, certain)),
            unmarked.map(|rule| self.unmarks(rule)),
            redirected.map(|(interface, rule)| self.redirects(interface, rule)),
        ];
        findings.into_iter().flatten().collect()
    }

    fn name(&self) -> String {
        let Table { keeper, family, name, .. } = self.table;
        let chain = &self.chain.name;
        match keeper {
            Keeper::Nft => format!("the chain {chain} of nftables' table {family} {name}"),
            Keeper::Iptables { .. } => format!("{}'s chain {chain} (table {name})", self.program()),
        }
    }

    fn program(&self) -> String {
        match self.table.keeper {
            Keeper::Nft => "nft".to_owned(),
            Keeper::Iptables { variant, family: Family::V4 } => format!("iptables-{variant}"),
            Keeper::Iptables { variant, family: Family::V6 } => format!("ip6tables-{variant}"),
        }
    }

    /// The command that lets our packets pass this chain as they are, before its other rules.
    fn accept_command(&self, interface: &str) -> String {
        let Table { keeper, family, name, .. } = self.table;
        let chain = &self.chain.name;
        let mark = PACKET_MARK;
        match (keeper, self.marked) {
            (Keeper::Nft, true) => {
                format!("nft 'insert rule {family} {name} {chain} meta mark & {mark:#x} == {mark:#x} accept'")
            }
            (Keeper::Nft, false) => {
                format!(
                    "nft 'insert rule {family} {name} {chain} iifname \"{interface}\" tcp dport 25 accept'"
                )
            }
            (Keeper::Iptables { .. }, true) => {
                format!(
                    "{} -t {name} -I {chain} -m mark --mark {mark:#x}/{mark:#x} -j ACCEPT",
                    self.program()
                )
            }
            (Keeper::Iptables { .. }, false) => {
                format!("{} -t {name} -I {chain} -i {interface} -p tcp --dport 25 -j ACCEPT", self.program())
            }
        }
    }

    fn drops(&self, interfaces: &[&str], rule: Option<&Rule>, certain: bool) -> Finding {
        let by = rule.map_or("its policy".to_owned(), |rule| format!("the rule \"{}\"", rule.text));
        let whose = match self.marked {
            true => "intercepted packets (they carry the mark 0x10000000)",
            false => "connections to port 25 of an active zone",
        };
        let (may, severity) = match certain {
            true => ("drops", Severity::Error),
            false => ("may drop", Severity::Warning),
        };
        let what = format!("{} {may} {whose} from {}, by {by}", self.name(), interfaces.join(", "));
        let why = match (self.marked, certain) {
            (true, true) => "They never reach the proxy: to clients, mail is dead.",
            (true, false) => {
                "Only those reach the proxy that a rule before accepts, which can't be told from here."
            }
            (false, true) => "Nobody reaches the proxy there.",
            (false, false) => "Only those reach it that a rule before accepts: right if that is meant.",
        };
        let why = format!("{why} Put the rule into the firewall's own files, too.");
        // The mark is the same on all of them.
        let named = if self.marked { &interfaces[..1] } else { interfaces };
        let finding = Finding::new("input-firewall", severity, what, why);
        named.iter().fold(finding, |finding, interface| finding.command(self.accept_command(interface)))
    }

    fn unmarks(&self, rule: &Rule) -> Finding {
        let what = format!("{} replaces our mark: \"{}\"", self.name(), rule.text);
        let why = "The mark 0x10000000 is how intercepted packets find the way to the proxy; without it they are \
                   forwarded, and the connection breaks. Let them pass that chain first, in the firewall's own \
                   files too, or set only the bits that the rule needs (nft: meta mark set meta mark and … or …; \
                   iptables: --set-xmark VALUE/MASK, --restore-mark --mask).";
        Finding::error("firewall-mark", what, why).command(self.accept_command(""))
    }

    fn redirects(&self, interface: &str, rule: &Rule) -> Finding {
        let what =
            format!("{} sends port 25 elsewhere: \"{}\" (seen from {interface})", self.name(), rule.text);
        if self.marked {
            let why = "It changes intercepted packets on their way to the proxy: connections break, or the proxy \
                       takes the new address for the one that was dialled. Let them pass that chain first, in the \
                       firewall's own files too. Mail for a server behind the rule is then delivered to the address \
                       that the client dialled: name the server in [[incoming_domain]], or leave the address \
                       alone by bypass.to_ips.";
            return Finding::error("firewall-redirect", what, why).command(self.accept_command(interface));
        }
        let why = "What it catches doesn't come to the proxy and isn't filtered. For a published mail server: name \
                   it as server of its domain in [[incoming_domain]] and remove the rule; the proxy then \
                   takes its mail on the active zone.";
        let finding = Finding::warning("firewall-redirect", what, why);
        let Table { family, name, .. } = self.table;
        match (self.table.keeper, rule.handle) {
            (Keeper::Nft, Some(handle)) if self.chain.rules.contains(rule) => finding
                .command(format!("nft delete rule {family} {name} {} handle {handle}", self.chain.name)),
            (Keeper::Iptables { .. }, _) => {
                let text = rule.text.replacen("-A ", "-D ", 1);
                finding.command(format!("{} -t {name} {text}", self.program()))
            }
            _ => finding,
        }
    }
}
