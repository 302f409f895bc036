//! The packets of a session at port 25, and the base chains that each passes on its way, in the kernel's
//! order. Pure.

use mailguard_common::maps::{PACKET_MARK, SOCKET_MARK};

use super::ground::Surroundings;
use super::packet::{ACK, Holds, Mark, Owner, Packet, Place, SYN};
use super::ruleset::{Chain, Table, Way};
use crate::intercept::Family;

/// Chains before this priority don't know of connections yet (NF_IP_PRI_CONNTRACK).
const TRACKED_FROM: i64 = -200;

/// The hooks of a packet to this machine.
pub(super) const IN: &[&str] = &["ingress", "prerouting", "input"];
/// Of an answer from it.
pub(super) const OUT: &[&str] = &["output", "postrouting", "egress"];
/// Of one that is forwarded.
pub(super) const THROUGH: &[&str] = &["ingress", "prerouting", "forward", "postrouting", "egress"];

/// A base chain on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Station<'a> {
    pub(super) table: &'a Table,
    pub(super) chain: &'a Chain,
}

impl Station<'_> {
    pub(super) fn hook(&self) -> &str {
        self.chain.hook.as_deref().unwrap_or_default()
    }
}

/// The base chains at these hooks, in order.
pub(super) fn stations<'a>(tables: &'a [Table], hooks: &[&str]) -> Vec<Station<'a>> {
    let place = |station: &Station<'_>| hooks.iter().position(|hook| *hook == station.hook());
    let all = tables.iter().flat_map(|table| table.chains.iter().map(move |chain| Station { table, chain }));
    let mut stations: Vec<Station<'a>> = all.filter(|station| place(station).is_some()).collect();
    stations.sort_by_key(|station| (place(station), station.chain.priority));
    stations
}

/// Sends the packet through all of `stations`: each is judged as if those before had let it pass. The packet
/// at the end, with its mark and its connection's state.
pub(super) fn travel<'a, 'p>(
    stations: &[Station<'a>],
    packet: Packet<'p>,
    mut at: impl FnMut(usize, &Way<'a, 'p>),
) -> Packet<'p> {
    let mut packet = packet;
    for (number, station) in stations.iter().enumerate() {
        let seen = seen(&packet, station);
        if !station.table.families().contains(&packet.family) || station.chain.at(&seen) == Holds::No {
            continue;
        }
        let way = station.table.way(station.chain, &seen);
        at(number, &way);
        if way.packet.state == "untracked" {
            packet.state = "untracked";
        }
        // A lost mark is told once.
        packet.mark = match packet.steered && way.mark_lost.is_some() {
            true => packet.mark,
            false => way.packet.mark,
        };
    }
    packet
}

/// What a chain at this hook sees of it.
fn seen<'p>(packet: &Packet<'p>, station: &Station<'_>) -> Packet<'p> {
    let hook = station.hook();
    let mut seen = *packet;
    if matches!(hook, "ingress" | "prerouting" | "input") {
        seen.outgoing = None;
    }
    let early =
        hook == "ingress" || matches!(hook, "prerouting" | "output") && station.chain.priority < TRACKED_FROM;
    if early && seen.state != "untracked" {
        seen.state = "invalid";
    }
    // Forwarded packets pass there, too.
    if let Place::Anywhere { possible, .. } = seen.server
        && matches!(hook, "ingress" | "prerouting" | "postrouting" | "egress" | "forward")
    {
        seen.server = Place::Anywhere { possible, meant: true };
    }
    seen
}

/// Whose sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sessions<'a> {
    pub(super) interface: &'a str,
    pub(super) family: Family,
    pub(super) around: &'a Surroundings,
    /// Intercepted ones; else those with an active zone's own address.
    pub(super) transparent: bool,
    /// The mail user's number.
    pub(super) user: Option<u32>,
}

impl<'a> Sessions<'a> {
    fn packet(&self) -> Packet<'a> {
        let (client, server) = match self.transparent {
            true => (
                Place::Among(&self.around.clients),
                Place::Anywhere { possible: &self.around.beyond, meant: false },
            ),
            false => (
                Place::Anywhere { possible: &self.around.strangers, meant: true },
                Place::Here(&self.around.own),
            ),
        };
        Packet {
            family: self.family,
            incoming: Some(self.interface),
            outgoing: None,
            client,
            server,
            reply: false,
            mark: Mark::of(if self.transparent { PACKET_MARK } else { 0 }),
            state: "new",
            flags: SYN,
            steered: self.transparent,
            owner: Owner::Unknown,
            routed: !self.around.clients.is_empty(),
        }
    }

    /// Sends the segments of a session to and fro: the handshake, and data.
    pub(super) fn run<'s>(
        &self,
        inward: &[Station<'s>],
        outward: &[Station<'s>],
        mut at: impl FnMut(bool, usize, &Way<'s, '_>),
    ) {
        let owners = [Owner::User(0), self.user.map_or(Owner::Unknown, Owner::User)];
        let mut state = "new";
        for (owner, flags) in owners.into_iter().zip([SYN, ACK]) {
            let packet = Packet { state, flags, ..self.packet() };
            let came = travel(inward, packet, |number, way| at(false, number, way));
            // Half a connection is none to connection tracking.
            let tracked = came.state != "untracked" && state != "invalid";
            let reply = Packet {
                incoming: None,
                outgoing: Some(self.interface),
                reply: true,
                mark: Mark::of(if self.transparent { SOCKET_MARK } else { 0 }),
                state: if tracked { "established" } else { "invalid" },
                flags: flags | ACK,
                steered: false,
                owner,
                ..packet
            };
            let went = travel(outward, reply, |number, way| at(true, number, way));
            state = if tracked && went.state != "untracked" { "established" } else { "invalid" };
        }
    }
}
