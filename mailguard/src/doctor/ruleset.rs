//! A firewall's chains, whichever program wrote them, and the way of a packet through them. Pure.
//!
//! A rule that can't be decided may do what it says or not: the way divides, and both ends count.

use super::packet::{Condition, Holds, NewMark, Packet};
use crate::intercept::Family;

/// Jumps within jumps that are followed: the kernel allows no more (NFT_JUMP_STACK_SIZE).
const MAX_JUMPS: usize = 16;
/// Rules that are looked at for one packet in one chain; past it nothing is claimed of what comes after.
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
    /// `inet`, `ip`, `ip6` or `netdev`.
    pub(super) family: String,
    pub(super) name: String,
    pub(super) chains: Vec<Chain>,
    /// It holds what only iptables can read.
    pub(super) needs_iptables: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Where the kernel enters it: `prerouting`, `input` and others; absent for chains that are only jumped
    /// to.
    pub(super) hook: Option<String>,
    /// Chains of a hook are entered in the order of these.
    pub(super) priority: i64,
    /// It sees the first packet of a connection only.
    pub(super) nat: bool,
    /// The interfaces at whose ingress or egress it is, where that is known.
    pub(super) devices: Option<Vec<String>>,
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
    /// The packet's mark changes.
    pub(super) mark: Option<NewMark>,
    /// Connection tracking leaves it out.
    pub(super) untracks: bool,
    /// It sends the packet elsewhere: DNAT, REDIRECT, TPROXY.
    pub(super) redirects: bool,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// A program decides, or a verdict that can't be read: any of these.
    Anything,
}

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate<'a> {
    Accepted,
    /// By the rule; by the policy if there is none.
    Dropped(Option<&'a Rule>),
    /// So, too, but some packets may be accepted.
    PerhapsDropped(Option<&'a Rule>),
}

/// The way of a packet.
#[derive(Debug)]
pub(super) struct Way<'a, 'p> {
    pub(super) fate: Fate<'a>,
    /// The packet behind it, with its mark and state.
    pub(super) packet: Packet<'p>,
    /// The first rule on it that takes our mark away, and whether it does so to every packet.
    pub(super) mark_lost: Option<(&'a Rule, bool)>,
    /// The first rule on it that sends it elsewhere.
    pub(super) redirected: Option<&'a Rule>,
}

/// How a chain can end for a packet.
#[derive(Debug, Default, Clone, Copy)]
struct Ends<'a> {
    accept: bool,
    drop: Option<&'a Rule>,
    /// The chain says nothing.
    silent: bool,
}

struct Walk<'a, 'p> {
    packet: Packet<'p>,
    mark_lost: Option<(&'a Rule, bool)>,
    redirected: Option<&'a Rule>,
    rules: usize,
}

impl Rule {
    /// One that does nothing yet.
    pub(super) fn new(text: String) -> Self {
        Self {
            text,
            handle: None,
            conditions: Vec::new(),
            mark: None,
            untracks: false,
            redirects: false,
            action: Action::None,
        }
    }

    fn holds(&self, packet: &Packet<'_>) -> Holds {
        let mut all = Holds::Yes;
        for condition in &self.conditions {
            all = all.and(condition.holds(packet));
            if all == Holds::No {
                break;
            }
        }
        all
    }
}

impl Table {
    /// Sends `packet` through the base chain `chain` of this table.
    pub(super) fn way<'a, 'p>(&'a self, chain: &'a Chain, packet: &Packet<'p>) -> Way<'a, 'p> {
        let mut walk = Walk { packet: *packet, mark_lost: None, redirected: None, rules: 0 };
        let ends = match chain.nat && (packet.reply || packet.state != "new") {
            true => Ends { accept: true, ..Ends::default() },
            false => self.follow(chain, Holds::Yes, 0, &mut walk),
        };
        let accepted = ends.accept || ends.silent && !chain.drops;
        let by = match ends.drop {
            Some(rule) => Some(Some(rule)),
            None => (ends.silent && chain.drops).then_some(None),
        };
        let fate = match by {
            None => Fate::Accepted,
            // Of a chain at one interface's ingress it may not be known which.
            Some(by) if accepted || chain.at(packet) == Holds::Undecided => Fate::PerhapsDropped(by),
            Some(by) => Fate::Dropped(by),
        };
        Way { fate, packet: walk.packet, mark_lost: walk.mark_lost, redirected: walk.redirected }
    }

    /// `certain`: whether each packet comes here.
    fn follow<'a>(
        &'a self,
        chain: &'a Chain,
        certain: Holds,
        depth: usize,
        walk: &mut Walk<'a, '_>,
    ) -> Ends<'a> {
        let mut ends = Ends::default();
        for rule in &chain.rules {
            walk.rules += 1;
            if walk.rules > MAX_RULES {
                return Ends { accept: true, drop: ends.drop.or(Some(rule)), silent: true };
            }
            let holds = rule.holds(&walk.packet);
            if holds == Holds::No {
                continue;
            }
            walk.change(rule, certain.and(holds));
            let (own, leaves) = self.ends_of(rule, certain.and(holds), depth, walk);
            ends.accept |= own.accept;
            // Whom a list names is meant.
            if holds != Holds::Listed {
                ends.drop = ends.drop.or(own.drop);
            }
            ends.silent |= own.silent && leaves;
            let goes_on = own.silent && !leaves;
            if holds == Holds::Yes && !goes_on {
                return ends;
            }
        }
        Ends { silent: true, ..ends }
    }

    /// How the rule can end where it holds, and whether its silence leaves the chain.
    fn ends_of<'a>(
        &'a self,
        rule: &'a Rule,
        certain: Holds,
        depth: usize,
        walk: &mut Walk<'a, '_>,
    ) -> (Ends<'a>, bool) {
        let silent = Ends { silent: true, ..Ends::default() };
        let jump = |name: &str, walk: &mut Walk<'a, '_>| match self.chains.iter().find(|c| c.name == name) {
            Some(chain) if depth < MAX_JUMPS => self.follow(chain, certain, depth + 1, walk),
            _ => silent,
        };
        match &rule.action {
            Action::None => (silent, false),
            Action::Accept => (Ends { accept: true, ..Ends::default() }, true),
            Action::Drop => (Ends { drop: Some(rule), ..Ends::default() }, true),
            Action::Return => (silent, true),
            Action::Jump(name) => (jump(name, walk), false),
            Action::Goto(name) => (jump(name, walk), true),
            Action::Anything => (Ends { accept: true, drop: Some(rule), silent: true }, false),
        }
    }

    /// The families whose packets it sees.
    pub(super) fn families(&self) -> &'static [Family] {
        match self.family.as_str() {
            "inet" | "netdev" => &[Family::V4, Family::V6],
            "ip" => &[Family::V4],
            "ip6" => &[Family::V6],
            _ => &[],
        }
    }
}

impl Chain {
    /// Whether the packet passes the interface that it is at.
    pub(super) fn at(&self, packet: &Packet<'_>) -> Holds {
        if !matches!(self.hook.as_deref(), Some("ingress" | "egress")) {
            return Holds::Yes;
        }
        let ingress = self.hook.as_deref() == Some("ingress");
        let interface = if ingress { packet.incoming } else { packet.outgoing };
        match (&self.devices, interface) {
            (Some(devices), Some(interface)) if devices.iter().any(|device| device == interface) => {
                Holds::Yes
            }
            (Some(_), _) => Holds::No,
            (None, _) => Holds::Undecided,
        }
    }
}

impl<'a> Walk<'a, '_> {
    /// Does to the packet what the rule does.
    fn change(&mut self, rule: &'a Rule, certain: Holds) {
        if let Some(new) = rule.mark {
            let changed = self.packet.mark.changed(new);
            if self.packet.steered && new.loses_ours() {
                self.mark_lost.get_or_insert((rule, certain == Holds::Yes));
            }
            self.packet.mark = match certain {
                Holds::Yes => changed,
                _ => self.packet.mark.or(changed),
            };
        }
        if rule.untracks && certain == Holds::Yes {
            self.packet.state = "untracked";
        }
        if rule.redirects {
            self.redirected.get_or_insert(rule);
        }
    }
}
