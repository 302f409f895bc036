//! A packet of a session at port 25, as far as it is known before it comes, and what the tests of a
//! firewall's rules say of it. Pure.
//!
//! A test holds, doesn't, or can't be decided from here. One that holds for listed hosts only is told apart:
//! a rule that drops those is an administrator's list of unwanted clients.

use std::ops::RangeInclusive;

use mailguard_common::maps::{PACKET_MARK, SMTP_PORT};

use super::ranges::{Ranges, private, special};
use crate::intercept::Family;

/// The ports from which clients connect.
const CLIENT_PORTS: RangeInclusive<u16> = 1_024..=65_535;

/// TCP's flags (RFC 9293, section 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const ECE: u8 = 0x40;
pub(super) const CWR: u8 = 0x80;

/// Whether something is true of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    No,
    Yes,
    /// Of some hosts' packets: they are listed.
    Listed,
    /// It can't be told from here.
    Undecided,
}

impl Holds {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// Both. What doesn't hold decides; a list makes few of what it is joined with.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, other) => other,
            (Self::Listed, _) | (_, Self::Listed) => Self::Listed,
            (Self::Undecided, _) => Self::Undecided,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, other) => other,
            (Self::Undecided, _) | (_, Self::Undecided) => Self::Undecided,
            (Self::Listed, _) => Self::Listed,
        }
    }
}

/// Where one end of a session is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// At one of these addresses, which is known; empty: nothing is known of it.
    Among(&'a Ranges),
    /// At any of these, which are no list but the wide world. `meant`: what a rule drops by a list of them
    /// was meant to be dropped, interception or not.
    Anywhere { possible: &'a Ranges, meant: bool },
    /// A host of the Internet that nobody's rules name.
    Nowhere,
    /// At this address: all tests say the same of it and its neighbours.
    At(u128),
    /// At one of this machine's own addresses, of which these are the interface's.
    Here(&'a Ranges),
}

/// The owner of the socket that sends or takes a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    User(u32),
    Unknown,
}

/// A packet's mark: the bits that are known, and their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) known: u32,
    pub(super) value: u32,
}

/// What a rule does to it: mark = (mark & keep) ^ flip, and `unknown` bits become something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewMark {
    pub(super) keep: u32,
    pub(super) flip: u32,
    pub(super) unknown: u32,
}

impl Mark {
    pub(super) fn of(value: u32) -> Self {
        Self { known: u32::MAX, value }
    }

    pub(super) fn changed(self, new: NewMark) -> Self {
        let known = (self.known | !new.keep) & !new.unknown;
        Self { known, value: ((self.value & new.keep) ^ new.flip) & known }
    }

    /// This or that.
    pub(super) fn or(self, other: Self) -> Self {
        let known = self.known & other.known & !(self.value ^ other.value);
        Self { known, value: self.value & known }
    }

    fn is(self, mask: u32, values: &[RangeInclusive<u32>]) -> Holds {
        if mask & !self.known == 0 {
            return Holds::of(values.iter().any(|range| range.contains(&(self.value & mask))));
        }
        let seen = mask & self.known;
        let possible = |range: &RangeInclusive<u32>| {
            range.start() != range.end() || range.start() & seen == self.value & seen
        };
        if values.iter().any(possible) { Holds::Undecided } else { Holds::No }
    }
}

impl NewMark {
    /// Whether our bit goes.
    pub(super) fn loses_ours(self) -> bool {
        ((PACKET_MARK & self.keep) ^ self.flip) & PACKET_MARK == 0
    }
}

/// A TCP segment of a session at port 25.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) family: Family,
    /// Where it came in, and goes out; none if it doesn't.
    pub(super) incoming: Option<&'a str>,
    pub(super) outgoing: Option<&'a str>,
    pub(super) client: Place<'a>,
    pub(super) server: Place<'a>,
    /// From the server to the client.
    pub(super) reply: bool,
    pub(super) mark: Mark,
    /// The connection's, in iptables' words in lower case: `new`, `established`, `invalid`, `untracked`.
    pub(super) state: &'a str,
    /// TCP's.
    pub(super) flags: u8,
    /// The kernel programs gave it to a transparent socket.
    pub(super) steered: bool,
    pub(super) owner: Owner,
    /// The interface has routes, so that the way back is known.
    pub(super) routed: bool,
}

/// The end of a session that a test looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
    /// Of the first packet.
    Client,
    Server,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) test: Test,
    pub(super) negated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// Names of the interface; a last `*` stands for any rest.
    Incoming(Vec<String>),
    Outgoing(Vec<String>),
    Protocol(Vec<String>),
    Family(Family),
    Port(End, Vec<RangeInclusive<u16>>),
    /// Addresses; none if they can't be read or change by themselves.
    Address(End, Option<Ranges>),
    /// What the address is to the routing tables: `local`, `unicast`.
    Kind(End, Vec<String>),
    /// There is, or isn't, a way back by the interface that it came in by.
    WayBack(bool),
    Mark {
        mask: u32,
        values: Vec<RangeInclusive<u32>>,
    },
    /// States of the connection, in lower case.
    State(Vec<String>),
    /// It goes from the server to the client, or the other way.
    Reply(bool),
    Flags {
        mask: u8,
        values: Vec<u8>,
    },
    /// Any of these flags.
    AnyFlag(u8),
    /// A transparent socket is there for it.
    Socket,
    /// User numbers.
    Owner(Vec<RangeInclusive<u32>>),
    /// Sent to this machine's own link address, or to many: `unicast`, `multicast`.
    LinkType(Vec<String>),
    /// Something of the client's that only a real one can tell.
    SomeClients,
    /// All tests of one of these.
    Any(Vec<Vec<Test>>),
    Unknown,
    /// Of every packet of ours.
    Always,
    /// Of none.
    Never,
}

impl Condition {
    pub(super) fn new(test: Test) -> Self {
        Self { test, negated: false }
    }

    pub(super) fn holds(&self, packet: &Packet<'_>) -> Holds {
        match (self.test.holds(packet, self.negated), self.negated) {
            (holds, false) => holds,
            (Holds::Yes, true) => Holds::No,
            (Holds::No, true) => Holds::Yes,
            // All but a few listed ones: it could be anybody.
            (Holds::Listed | Holds::Undecided, true) => Holds::Undecided,
        }
    }
}

impl Test {
    fn holds(&self, packet: &Packet<'_>, negated: bool) -> Holds {
        let named = |names: &[String], interface: Option<&str>| {
            Holds::of(interface.is_some_and(|interface| {
                names.iter().any(|name| match name.strip_suffix('*') {
                    Some(beginning) => interface.starts_with(beginning),
                    None => interface == name,
                })
            }))
        };
        let has = |list: &[String], words: &[&str]| list.iter().any(|word| words.contains(&word.as_str()));
        match self {
            Test::Incoming(names) => named(names, packet.incoming),
            Test::Outgoing(names) => named(names, packet.outgoing),
            Test::Protocol(names) => Holds::of(has(names, &["tcp", "6", "all", "0"])),
            Test::Family(family) => Holds::of(packet.family == *family),
            Test::Port(end, ranges) => packet.port(*end, ranges),
            Test::Address(end, ranges) => packet.address(*end, ranges.as_ref(), negated),
            Test::Kind(end, kinds) => packet.kind(*end, kinds),
            Test::WayBack(there) if packet.routed && packet.incoming.is_some() => Holds::of(*there),
            Test::WayBack(_) | Test::Unknown => Holds::Undecided,
            Test::Mark { mask, values } => packet.mark.is(*mask, values),
            Test::State(states) => Holds::of(has(states, &[packet.state])),
            Test::Reply(reply) => Holds::of(packet.reply == *reply),
            Test::Flags { mask, values } => Holds::of(values.contains(&(packet.flags & mask))),
            Test::AnyFlag(flags) => Holds::of(packet.flags & flags != 0),
            Test::Socket if packet.steered => Holds::Yes,
            Test::Socket => Holds::Undecided,
            Test::Owner(users) => match packet.owner {
                Owner::User(user) => Holds::of(users.iter().any(|range| range.contains(&user))),
                Owner::Unknown => Holds::Undecided,
            },
            Test::LinkType(types) => Holds::of(has(types, &["unicast", "host"])),
            Test::SomeClients => Holds::Listed,
            Test::Any(choices) => choices.iter().fold(Holds::No, |any, tests| {
                any.or(tests.iter().fold(Holds::Yes, |all, test| all.and(test.holds(packet, negated))))
            }),
            Test::Always => Holds::Yes,
            Test::Never => Holds::No,
        }
    }
}

impl<'a> Packet<'a> {
    fn is_client(&self, end: End) -> bool {
        match end {
            End::Source => !self.reply,
            End::Destination => self.reply,
            End::Client => true,
            End::Server => false,
        }
    }

    fn place(&self, end: End) -> Place<'a> {
        if self.is_client(end) { self.client } else { self.server }
    }

    fn port(&self, end: End, ranges: &[RangeInclusive<u16>]) -> Holds {
        if !self.is_client(end) {
            return Holds::of(ranges.iter().any(|range| range.contains(&SMTP_PORT)));
        }
        let wide = |range: &RangeInclusive<u16>| (u128::from(*range.start()), u128::from(*range.end()));
        let (tested, possible) = (Ranges::new(ranges.iter().map(wide)), Ranges::new([wide(&CLIENT_PORTS)]));
        match (tested.covers(&possible), tested.meets(&possible)) {
            (true, _) => Holds::Yes,
            (_, false) => Holds::No,
            _ => Holds::Undecided,
        }
    }

    fn address(&self, end: End, ranges: Option<&Ranges>, negated: bool) -> Holds {
        let some = match self.place(end) {
            Place::Anywhere { meant: false, .. } | Place::At(_) | Place::Nowhere => Holds::Undecided,
            _ => Holds::Listed,
        };
        let Some(ranges) = ranges else { return some };
        let within = |possible: &Ranges| match (ranges.covers(possible), ranges.meets(possible)) {
            (true, _) if !possible.is_empty() => Holds::Yes,
            (_, false) if !possible.is_empty() => Holds::No,
            _ => some,
        };
        match self.place(end) {
            Place::Among(known) | Place::Here(known) if known.is_empty() => {
                if ranges.covers(&Ranges::all(self.family)) { Holds::Yes } else { some }
            }
            Place::Among(known) | Place::Here(known) => within(known),
            Place::Anywhere { possible, .. } => {
                let public = possible.without(&private(self.family));
                // What spares private addresses only hits the Internet.
                if negated { within(&public) } else { within(possible) }
            }
            Place::At(number) => Holds::of(ranges.contains(number)),
            Place::Nowhere => {
                let unnamed = special(self.family).union(&private(self.family));
                Holds::of(ranges.covers(&Ranges::all(self.family).without(&unnamed)))
            }
        }
    }

    fn kind(&self, end: End, kinds: &[String]) -> Holds {
        let has = |kind: &str| kinds.iter().any(|other| other == kind);
        match self.place(end) {
            Place::Here(_) => Holds::of(has("local")),
            _ if has("unicast") => Holds::Yes,
            // So IPv6 calls what no route leads to; IPv4 looks for what is local only.
            _ if self.family == Family::V6 && has("unreachable") => Holds::Undecided,
            _ => Holds::No,
        }
    }
}
