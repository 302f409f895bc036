//! TC ingress: gives packets of our sessions to their sockets and new connections to the zone's listener,
//! carries out the blacklist where XDP didn't, and leaves everything else alone.
//!
//! The port is looked at before any map, by direct access; only a packet to port 25 costs more than that.
//! What isn't ours is always "next": another program's turn, never an acceptance.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_skb_set_tunnel_key};
use mailguard_common::decide::{PacketVerdict, by_lists, by_rules, without_proxy};
use mailguard_common::maps::{
    BYPASSED, INTERFACE_CHECKS, INTERFACE_SERVES, Interface, NEAR_INTERFACES, PACKET_MARK, Reason,
    Reconnection, Settings, Tuple, listener_index,
};
use mailguard_common::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Flow, Parsed, Version, parse};
use mailguard_common::tags::{Behind, behind_tags, is_priority_only, is_tag};

use crate::home::is_away;
use crate::lookups::{Maps, Sender};
use crate::maps::{CONFIG, IFACES_FAR, IFACES_NEAR, SCRATCH, TWSYN};
use crate::reset::reset;
use crate::sockets::{
    Found, Offered, Purpose, find_v4, find_v6, has_listener, offer, offer_answer_v4, offer_answer_v6,
};
use crate::stats::{count, report};
use crate::view::{Direct, ETHERNET_HEADER, Loaded, begins_with_packet, ethernet_source, link_header};

/// The rest of the chain decides.
const NEXT: i32 = TC_ACT_UNSPEC;
/// To the socket that was assigned.
const TAKEN: i32 = TC_ACT_OK as i32;
const DROP: i32 = TC_ACT_SHOT as i32;

/// `skb->pkt_type` of a frame that is addressed to this host.
const PACKET_HOST: u32 = 0;

/// The program.
#[inline(always)]
pub(crate) fn steer(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is valid while the program runs.
    let protocol = unsafe { (*skb).protocol as u16 };
    let mut flow = MaybeUninit::uninit();
    let parsed = match u16::from_be(protocol) {
        ETHERTYPE_IPV4 => untagged(skb, Version::V4, &mut flow),
        ETHERTYPE_IPV6 => untagged(skb, Version::V6, &mut flow),
        ethertype if is_tag(ethertype) => tagged(skb, &mut flow),
        _ => return NEXT,
    };
    match parsed {
        Parsed::Other | Parsed::Short => NEXT,
        parsed => concerned(skb, parsed, &flow),
    }
}

/// Reads the packet of a frame without a tag, or with the one that was taken off it.
#[inline(always)]
fn untagged(skb: *mut __sk_buff, version: Version, flow: &mut MaybeUninit<Flow>) -> Parsed {
    let frame = linear(skb);
    let start = match link_header(skb, &frame) {
        0 if begins_with_packet(&frame) => 0,
        0 | ETHERNET_HEADER => ETHERNET_HEADER,
        other => return parse_behind_more(skb, version, other as u32, flow),
    };
    let parsed = parse_linear(skb, start, version, flow);
    if parsed == Parsed::Short { parse_loaded(skb, version, start as u32, flow) } else { parsed }
}

/// Reads the packet of a frame with a tag behind the one that was taken off it. Where that one names a VLAN,
/// `concerned` will see it.
#[inline(always)]
fn tagged(skb: *mut __sk_buff, flow: &mut MaybeUninit<Flow>) -> Parsed {
    let start = link_header(skb, &linear(skb));
    match behind_tags(&Loaded { skb }, start) {
        Behind::Packet(version, start) => parse_behind_more(skb, version, start as u32, flow),
        Behind::TooDeep => Parsed::DeepTags,
        Behind::Other => Parsed::Other,
    }
}

/// The linear part of the packet.
#[inline(always)]
fn linear(skb: *mut __sk_buff) -> Direct {
    // SAFETY: the context is valid while the program runs.
    let (data, end, length) =
        unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len as usize) };
    Direct { data, end, length }
}

// Not inlined, for the stack's sake: all frames of a chain of calls share 512 octets, kernels before 6.8
// round each frame up to 32, and the entry point's is part of every chain.

#[inline(never)]
fn parse_linear(skb: *mut __sk_buff, start: usize, version: Version, flow: &mut MaybeUninit<Flow>) -> Parsed {
    parse(&linear(skb), start, version, flow)
}

// For headers outside the linear part, or behind other headers.

#[inline(never)]
fn parse_loaded_v4(skb: *mut __sk_buff, start: u32, flow: &mut MaybeUninit<Flow>) -> Parsed {
    parse(&Loaded { skb }, start as usize, Version::V4, flow)
}

#[inline(never)]
fn parse_loaded_v6(skb: *mut __sk_buff, start: u32, flow: &mut MaybeUninit<Flow>) -> Parsed {
    parse(&Loaded { skb }, start as usize, Version::V6, flow)
}

#[inline(always)]
fn parse_loaded(skb: *mut __sk_buff, version: Version, start: u32, flow: &mut MaybeUninit<Flow>) -> Parsed {
    match version {
        Version::V4 => parse_loaded_v4(skb, start, flow),
        Version::V6 => parse_loaded_v6(skb, start, flow),
    }
}

/// Reads a packet behind more than an Ethernet header: tags, or the header of another link layer.
#[inline(never)]
fn parse_behind_more(
    skb: *mut __sk_buff,
    version: Version,
    start: u32,
    flow: &mut MaybeUninit<Flow>,
) -> Parsed {
    let parsed = parse_loaded(skb, version, start, flow);
    // SAFETY: only a number is written, into a flow that was written or that nobody reads.
    unsafe { (*flow.as_mut_ptr()).plain = 0 };
    parsed
}

/// A packet that may be ours, or that hides whether it is.
#[inline(never)]
fn concerned(skb: *mut __sk_buff, parsed: Parsed, flow: &MaybeUninit<Flow>) -> i32 {
    // SAFETY: the context is valid while the program runs.
    let (kind, tagged, tag, ifindex, length) =
        unsafe { ((*skb).pkt_type, (*skb).vlan_present, (*skb).vlan_tci, (*skb).ifindex, (*skb).len) };
    // A tagged frame is the VLAN interface's; one that was only overheard is nobody's.
    if kind != PACKET_HOST || (tagged != 0 && !is_priority_only(tag as u16)) {
        return NEXT;
    }
    let Some(settings) = CONFIG.get(0) else { return NEXT };
    if settings.armed == 0 || is_away(skb.cast(), settings) {
        return NEXT;
    }
    let Some(interface) = interface(ifindex) else { return NEXT };
    let reason = match parsed {
        Parsed::TinyFragment => Reason::TinyFragmentDropped,
        Parsed::OverlayFragment => Reason::OverlayFragmentDropped,
        Parsed::LongChain => Reason::HeaderChainDropped,
        Parsed::DeepTags => Reason::TagStackDropped,
        _ => {
            let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return NEXT };
            // SAFETY: the packet's flow was written, as `parsed` says; the slot is this CPU's own while the
            // program runs. Read back from there the flow's fields are plain numbers to the verifier, which
            // then has one state to follow instead of one for each way here.
            let flow = unsafe {
                core::ptr::copy_nonoverlapping(flow.as_ptr(), scratch, 1);
                &*scratch
            };
            if parsed == Parsed::PathMtu {
                return path_mtu(skb, interface, flow);
            }
            return smtp(skb, settings, interface, flow);
        }
    };
    if !interface.has(INTERFACE_CHECKS) {
        return NEXT;
    }
    count(reason, None, length);
    DROP
}

#[inline(always)]
fn interface(index: u32) -> Option<Interface> {
    if index < NEAR_INTERFACES {
        return IFACES_NEAR.get(index).copied();
    }
    // SAFETY: entries change only when zones do; a value read meanwhile is the old or the new zone's.
    unsafe { IFACES_FAR.get(index) }.copied()
}

#[inline(always)]
fn find(skb: *mut __sk_buff, flow: &Flow, purpose: Purpose) -> Found {
    if flow.is_ipv6() { find_v6(skb, flow, purpose) } else { find_v4(skb, flow, purpose) }
}

/// An ICMP message about one of our packets: its destination is an address that we only stand in for.
#[inline(always)]
fn path_mtu(skb: *mut __sk_buff, interface: Interface, flow: &Flow) -> i32 {
    if interface.has(INTERFACE_SERVES) && find(skb, flow, Purpose::Look) == Found::Ours {
        mark(skb);
        count(Reason::PathMtu, None, length(skb));
    }
    NEXT
}

/// A packet to port 25.
#[inline(always)]
fn smtp(skb: *mut __sk_buff, settings: &Settings, interface: Interface, flow: &Flow) -> i32 {
    let maps = Maps { frame: Frame { skb, ethernet: interface.ethernet != 0 } };
    match by_lists(flow, settings, interface, &maps) {
        Some(PacketVerdict::Reset(reason, rule)) => return answer(skb, interface, flow, reason, rule),
        Some(verdict) => return refused(skb, flow, verdict),
        None => {}
    }
    let mut reconnects = false;
    if interface.has(INTERFACE_SERVES) {
        match find(skb, flow, Purpose::Deliver) {
            Found::Ours => return taken(skb, Reason::Session),
            Found::Refused => return refused(skb, flow, PacketVerdict::Drop(Reason::AssignFailed, None)),
            Found::Foreign => {
                return refused(skb, flow, PacketVerdict::Next(Some(Reason::OtherSocket), None));
            }
            Found::TimeWait if flow.is_syn() => reconnects = true,
            Found::TimeWait => return to_closed(skb, flow),
            Found::None => {}
        }
    }
    match by_rules(flow, settings, interface, &maps) {
        PacketVerdict::Intercept => intercept(skb, settings, interface, flow, reconnects),
        PacketVerdict::AskListener => ask_listener(skb, interface, flow),
        verdict => {
            if reconnects && matches!(verdict, PacketVerdict::Next(..)) {
                note(flow, BYPASSED);
                go_around_closed(skb);
            }
            refused(skb, flow, verdict)
        }
    }
}

/// Answers a SYN with a RST.
#[inline(always)]
fn answer(skb: *mut __sk_buff, interface: Interface, flow: &Flow, reason: Reason, rule: u32) -> i32 {
    // Before the rewriting: the length counted is the SYN's.
    refuse(skb, flow, reason, Some(rule));
    // With options between the headers the checksum's place is another, and with tags the Ethernet header's
    // end: dropped, as good an answer.
    if flow.plain == 0 { DROP } else { reset(skb, flow, interface.ethernet != 0).unwrap_or(DROP) }
}

/// A packet that isn't a SYN, for a closed session that the kernel remembers, unless a new connection of the
/// same tuple has been let pass meanwhile.
#[inline(never)]
fn to_closed(skb: *mut __sk_buff, flow: &Flow) -> i32 {
    // SAFETY: no arguments, no effects; a note that is replaced meanwhile yields another's, never invalid
    // memory.
    let bypassed = unsafe {
        let now = bpf_ktime_get_ns();
        TWSYN.get(&tuple(flow)).is_some_and(|note| note.bypassed_at(now))
    };
    if bypassed {
        go_around_closed(skb);
    } else if find(skb, flow, Purpose::DeliverToClosed) == Found::Ours {
        return taken(skb, Reason::Session);
    }
    refused(skb, flow, PacketVerdict::Next(Some(Reason::OlderFlow), None))
}

/// Has the stack route a packet without looking for its socket before (net.ipv4.ip_early_demux): it would
/// find the closed session, and drops what it is to forward and has a socket for. A packet that has a route
/// already isn't looked at; the key of a tunnel, which nobody asks for, is kept in the place of one until the
/// packet gets its own.
#[inline(never)]
fn go_around_closed(skb: *mut __sk_buff) {
    // The shortest of the forms that the helper takes: a tunnel's number, and an IPv4 address.
    let key = [0u64];
    // SAFETY: the helper reads eight octets. If it fails, the packet fares as it would have.
    unsafe { bpf_skb_set_tunnel_key(skb, key.as_ptr().cast_mut().cast(), 8, 0) };
}

/// Client and server of the flow.
#[inline(always)]
fn tuple(flow: &Flow) -> Tuple {
    Tuple {
        source: flow.source,
        destination: flow.destination,
        source_port: flow.source_port,
        padding: [0; 2],
    }
}

/// Notes what the new connection over a closed one is for.
#[inline(never)]
fn note(flow: &Flow, listener: u32) -> bool {
    // SAFETY: no arguments, no effects.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    TWSYN.insert(&tuple(flow), Reconnection { at_ns, listener, padding: 0 }, 0).is_ok()
}

/// A new connection: to the zone's listener.
#[inline(always)]
fn intercept(
    skb: *mut __sk_buff,
    settings: &Settings,
    interface: Interface,
    flow: &Flow,
    reconnects: bool,
) -> i32 {
    let index = listener_index(interface.slot, flow.is_ipv6());
    if reconnects && has_listener(index) && reconnect(skb, flow, index) {
        return taken(skb, Reason::Reconnected);
    }
    match offer(skb, index) {
        Offered::Taken => taken(skb, Reason::Intercepted),
        Offered::Refused => refused(skb, flow, PacketVerdict::Drop(Reason::AssignFailed, None)),
        Offered::Nobody | Offered::NotMine => refused(skb, flow, without_proxy(settings)),
    }
}

/// Gives a SYN to the TIME_WAIT socket that it met, with a note for the kernel's look-up of a listener that
/// follows.
#[inline(never)]
fn reconnect(skb: *mut __sk_buff, flow: &Flow, index: u32) -> bool {
    if note(flow, index) && find(skb, flow, Purpose::DeliverToClosed) == Found::Ours {
        return true;
    }
    // The closed connection has just been forgotten: an ordinary SYN. The note would be wrong later.
    let _ = TWSYN.remove(&tuple(flow));
    false
}

/// Neither a session nor a SYN: the answer to a SYN cookie, or a flow that never was ours.
#[inline(always)]
fn ask_listener(skb: *mut __sk_buff, interface: Interface, flow: &Flow) -> i32 {
    let index = listener_index(interface.slot, flow.is_ipv6());
    let (start, transport) = (u32::from(flow.network), u32::from(flow.transport));
    let offered = if flow.is_ipv6() {
        offer_answer_v6(skb, start, transport, index)
    } else {
        offer_answer_v4(skb, start, transport, index)
    };
    match offered {
        Offered::Taken => taken(skb, Reason::CookieAnswer),
        Offered::Refused => refused(skb, flow, PacketVerdict::Drop(Reason::AssignFailed, None)),
        Offered::Nobody | Offered::NotMine => {
            refused(skb, flow, PacketVerdict::Next(Some(Reason::OlderFlow), None))
        }
    }
}

/// It has a socket: only now marked, so that no packet without one is ever delivered here.
#[inline(always)]
fn taken(skb: *mut __sk_buff, reason: Reason) -> i32 {
    mark(skb);
    count(reason, None, length(skb));
    TAKEN
}

/// The frame that is decided about.
struct Frame {
    skb: *mut __sk_buff,
    ethernet: bool,
}

impl Sender for Frame {
    #[inline(always)]
    fn mac(&self) -> Option<[u8; 6]> {
        if !self.ethernet {
            return None;
        }
        Some(ethernet_source(self.skb)?.0)
    }
}

/// Not assigned: dropped or left alone.
#[inline(always)]
fn refused(skb: *mut __sk_buff, flow: &Flow, verdict: PacketVerdict) -> i32 {
    let (reason, rule, answer) = match verdict {
        PacketVerdict::Drop(reason, rule) => (reason, rule, DROP),
        PacketVerdict::Next(Some(reason), rule) => (reason, rule, NEXT),
        _ => return NEXT,
    };
    refuse(skb, flow, reason, rule);
    answer
}

/// Counts and reports a packet that isn't delivered.
#[inline(always)]
fn refuse(skb: *mut __sk_buff, flow: &Flow, reason: Reason, rule: Option<u32>) {
    count(reason, rule, length(skb));
    // SAFETY: the context is valid while the program runs.
    report(reason, flow, unsafe { (*skb).ifindex });
}

#[inline(always)]
fn length(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*skb).len }
}

#[inline(always)]
fn mark(skb: *mut __sk_buff) {
    // SAFETY: as above; the mark may be written.
    unsafe { (*skb).mark |= PACKET_MARK };
}
