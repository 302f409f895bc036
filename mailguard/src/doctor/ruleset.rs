//! A firewall's chains, whichever program wrote them, and the way of a packet to port 25 through them. Pure.
//!
//! What can't be known (addresses, rates, sets by name) is neither true nor false: a rule that only perhaps drops is
//! an administrator's list of unwanted clients, one that only perhaps accepts is a hole in what is accepted.

use std::ops::RangeInclusive;

use mailguard_common::layout::{PACKET_MARK, SMTP_PORT};

use crate::intercept::Family;

/// Jumps within jumps that are followed: the kernel allows no more (NFT_JUMP_STACK_SIZE).
const MAX_JUMPS: usize = 16;
/// Rules that are looked at for one packet; what comes after is taken for silent.
const MAX_RULES: usize = 1_000_000;

/// Who keeps a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    Nft,
    /// `iptables-legacy` or `iptables-nft`, without the `ip`: `ip6tables` differs.
    Iptables {
        variant: &'static str,
        family: Family,
    },
}

/// A table of chains that can jump to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) keeper: Keeper,
    /// `inet`, `ip` or `ip6`.
    pub(super) family: String,
    pub(super) name: String,
    pub(super) chains: Vec<Chain>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Where the kernel enters it: `prerouting`, `input` and others; absent for chains that are only jumped to.
    pub(super) hook: Option<String>,
    /// Its policy is drop.
    pub(super) drops: bool,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// As its program would show it, more or less.
    pub(super) text: String,
    /// Number by which nft deletes it.
    pub(super) handle: Option<u64>,
    pub(super) conditions: Vec<Condition>,
    /// It gives the packet a mark without our bit.
    pub(super) loses_mark: bool,
    /// It sends the packet elsewhere: DNAT, REDIRECT, TPROXY.
    pub(super) redirects: bool,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) test: Test,
    pub(super) negated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// Names of the incoming interface; a last `*` stands for any rest.
    Interface(Vec<String>),
    Protocol(Vec<String>),
    Family(Family),
    /// Destination ports.
    Port(Vec<RangeInclusive<u16>>),
    Mark {
        mask: u32,
        value: u32,
    },
    /// States of the connection, in lower case.
    State(Vec<String>),
    /// Something that only a real packet can tell.
    Unknown,
    /// Of packets that go out, or aren't ours.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// A TCP segment to port 25.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) interface: &'a str,
    pub(super) family: Family,
    /// The kernel programs gave it to the proxy.
    pub(super) marked: bool,
    /// `new` or `established`.
    pub(super) state: &'a str,
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate<'a> {
    Accepted,
    /// By the rule; by the policy if there is none.
    Dropped(Option<&'a Rule>),
    /// So, too, but some packets may be accepted before.
    PerhapsDropped(Option<&'a Rule>),
}

/// The way of a packet.
#[derive(Debug)]
pub(super) struct Way<'a> {
    pub(super) fate: Fate<'a>,
    /// The first rule on it that takes our mark away.
    pub(super) mark_lost: Option<&'a Rule>,
    /// The first rule on it that sends it elsewhere.
    pub(super) redirected: Option<&'a Rule>,
}

#[derive(Default)]
struct Walk<'a> {
    perhaps_accepted: bool,
    mark_lost: Option<&'a Rule>,
    redirected: Option<&'a Rule>,
    rules: usize,
}

enum End<'a> {
    Accept,
    Drop(&'a Rule),
    /// The chain says nothing.
    Silent,
}

impl Table {
    /// Sends `packet` through the base chain `chain` of this table.
    pub(super) fn way<'a>(&'a self, chain: &'a Chain, packet: &Packet<'_>) -> Way<'a> {
        let mut walk = Walk::default();
        let dropped = match self.follow(chain, packet, 0, &mut walk) {
            End::Accept => None,
            End::Drop(rule) => Some(Some(rule)),
            End::Silent => chain.drops.then_some(None),
        };
        let fate = match dropped {
            None => Fate::Accepted,
            Some(by) if walk.perhaps_accepted => Fate::PerhapsDropped(by),
            Some(by) => Fate::Dropped(by),
        };
        Way { fate, mark_lost: walk.mark_lost, redirected: walk.redirected }
    }

    fn follow<'a>(
        &'a self,
        chain: &'a Chain,
        packet: &Packet<'_>,
        depth: usize,
        walk: &mut Walk<'a>,
    ) -> End<'a> {
        for rule in &chain.rules {
            walk.rules += 1;
            let holds = rule.holds(packet);
            if holds == Some(false) || walk.rules > MAX_RULES {
                continue;
            }
            if rule.loses_mark && packet.marked {
                walk.mark_lost.get_or_insert(rule);
            }
            if rule.redirects {
                walk.redirected.get_or_insert(rule);
            }
            let (end, leaves) = match &rule.action {
                Action::None => continue,
                Action::Accept => (End::Accept, true),
                Action::Drop => (End::Drop(rule), true),
                Action::Return => (End::Silent, true),
                Action::Jump(name) => (self.jump(name, packet, depth, walk), false),
                Action::Goto(name) => (self.jump(name, packet, depth, walk), true),
            };
            match (holds, end) {
                (None, End::Accept) => walk.perhaps_accepted = true,
                (Some(_), end) if leaves || !matches!(end, End::Silent) => return end,
                _ => {}
            }
        }
        End::Silent
    }

    fn jump<'a>(&'a self, name: &str, packet: &Packet<'_>, depth: usize, walk: &mut Walk<'a>) -> End<'a> {
        match self.chains.iter().find(|chain| chain.name == name) {
            Some(chain) if depth < MAX_JUMPS => self.follow(chain, packet, depth + 1, walk),
            _ => End::Silent,
        }
    }

    /// The families whose packets it sees.
    pub(super) fn families(&self) -> &'static [Family] {
        match self.family.as_str() {
            "inet" => &[Family::V4, Family::V6],
            "ip" => &[Family::V4],
            "ip6" => &[Family::V6],
            _ => &[],
        }
    }
}

impl Rule {
    fn holds(&self, packet: &Packet<'_>) -> Option<bool> {
        let mut all = Some(true);
        for condition in &self.conditions {
            match condition.holds(packet) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }
}

impl Condition {
    fn holds(&self, packet: &Packet<'_>) -> Option<bool> {
        self.test.holds(packet).map(|holds| holds != self.negated)
    }
}

impl Test {
    fn holds(&self, packet: &Packet<'_>) -> Option<bool> {
        Some(match self {
            Test::Interface(names) => names.iter().any(|name| match name.strip_suffix('*') {
                Some(beginning) => packet.interface.starts_with(beginning),
                None => packet.interface == name,
            }),
            Test::Protocol(names) => names.iter().any(|name| name == "tcp" || name == "6"),
            Test::Family(family) => packet.family == *family,
            Test::Port(ranges) => ranges.iter().any(|range| range.contains(&SMTP_PORT)),
            Test::State(states) => states.iter().any(|state| state == packet.state),
            Test::Mark { mask, value } => return mark_is(packet.marked, *mask, *value),
            Test::Unknown => return None,
            Test::Never => false,
        })
    }
}

/// Whether the mark of a packet is `value` under `mask`: only our bit of it is known.
fn mark_is(marked: bool, mask: u32, value: u32) -> Option<bool> {
    let known = mask & PACKET_MARK != 0;
    if known && (value & PACKET_MARK != 0) != marked {
        return Some(false);
    }
    (mask & !PACKET_MARK == 0).then_some(true)
}

/// Whether a mark that becomes `(mark & keep) ^ flip` has lost our bit.
pub(super) fn loses_bit(keep: u32, flip: u32) -> bool {
    ((PACKET_MARK & keep) ^ flip) & PACKET_MARK == 0
}
