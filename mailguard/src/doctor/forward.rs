//! The administrator's own rules about who may reach port 25 through this machine: what forwards no longer
//! sees a connection that the proxy takes over, so `allow_clients` must say the same. Pure.
//!
//! The addresses are cut where any rule's test of a source begins or ends: within a piece, all rules say the
//! same of each address, and one packet a piece shows who passes.

use mailguard_core::config::Config;
use mailguard_core::config::model::{Zone, ZoneMode};

use super::firewall::name_of;
use super::ground::{Ground, Surroundings};
use super::journey::{Station, THROUGH, stations, travel};
use super::packet::{End, Mark, Owner, Packet, Place, SYN, Test};
use super::ranges::{self, Ranges};
use super::ruleset::{Fate, Table};
use super::{File, Finding};
use crate::intercept::Family;

/// Pieces of the address space that are tried one by one.
const MAX_PIECES: usize = 2_000;
/// Rules that a finding names.
const MAX_NAMED_RULES: usize = 5;
/// Networks that a line for the configuration may hold; more are left to the administrator.
const MAX_LINE_NETWORKS: usize = 64;
/// Networks that a sentence names.
const MAX_NAMED_NETWORKS: usize = 4;

/// Judges each transparent zone.
pub(super) fn judge(config: &Config, file: &File<'_>, tables: &[Table], ground: &Ground) -> Vec<Finding> {
    let way = stations(tables, THROUGH);
    let zones = config.zones.iter().filter(|zone| zone.mode == ZoneMode::Transparent);
    zones.flat_map(|zone| judge_zone(zone, file, &way, ground)).collect()
}

/// Whom the chains let through from one interface, in one family.
#[derive(Debug, Default)]
struct View {
    family: Option<Family>,
    passes: Ranges,
    blocked: Ranges,
    /// It can't be told of these.
    unsure: Ranges,
    /// Whose packets come from there; empty: nothing is known.
    clients: Ranges,
    /// Their networks.
    networks: Ranges,
    /// Who passes is named: an address that no rule names doesn't.
    named_only: bool,
    /// What blocks, and what may.
    rules: Vec<String>,
    /// There were more pieces than could be tried.
    incomplete: bool,
}

impl View {
    fn of_clients(&self, ranges: &Ranges) -> Ranges {
        if self.clients.is_empty() { ranges.clone() } else { ranges.intersection(&self.clients) }
    }

    fn blocks(&self) -> bool {
        !self.of_clients(&self.blocked).is_empty()
    }

    fn may_block(&self) -> bool {
        self.incomplete || !self.of_clients(&self.unsure).is_empty()
    }

    /// Who is to be allowed, so that the same hosts send as without us.
    fn allowed(&self) -> Ranges {
        match self.named_only || self.networks.is_empty() {
            true => self.passes.clone(),
            false => self.passes.intersection(&self.networks),
        }
    }
}

fn judge_zone(zone: &Zone, file: &File<'_>, way: &[Station<'_>], ground: &Ground) -> Vec<Finding> {
    let views: Vec<View> = zone
        .interfaces
        .iter()
        .flat_map(|interface| {
            let interface = ground.real_name(interface);
            let families = ground.families(interface);
            families.into_iter().map(move |family| (interface, family))
        })
        .map(|(interface, family)| view(way, interface, family, ground))
        .collect();
    let (blocks, may_block) = (views.iter().any(View::blocks), views.iter().any(View::may_block));
    let name = &zone.name;
    if !blocks && !may_block {
        let what = format!("zone {name}: no forward chain keeps its clients from port 25");
        return vec![Finding::ok("forward-clients", what)];
    }
    match &zone.allow_clients {
        None => vec![unanswered(zone, file, &views, blocks)],
        Some(allowed) => {
            let more = stricter(allowed, &views);
            if more.is_empty() {
                let what =
                    format!("zone {name}: allow_clients answers what the forward chains say of port 25");
                return vec![Finding::ok("forward-clients", what)];
            }
            let what = format!(
                "zone {name}: allow_clients allows {more}, whom the forward chains keep from port 25: {}",
                rules(&views)
            );
            let why = "They send through the proxy, and are stopped where mail passes it by (bypass, \
                       on_proxy_down). If they aren't to send at all, take them out of allow_clients.";
            vec![Finding::warning("forward-clients", what, why)]
        }
    }
}

/// No `allow_clients`: everybody may send.
fn unanswered(zone: &Zone, file: &File<'_>, views: &[View], blocks: bool) -> Finding {
    let (name, rules) = (&zone.name, rules(views));
    let why = "The proxy takes these connections over and makes its own, which those rules never see: every host of the \
               zone sends.";
    if !blocks {
        let what = format!(
            "zone {name}: forward chains may keep clients from port 25, and allow_clients is absent: {rules}"
        );
        let why = format!(
            "{why} It can't be told from here whom they mean: say it in the zone by allow_clients = [\"ADDRESS\", …], \
             then `mailguard reload`."
        );
        return Finding::warning("forward-clients", what, why);
    }
    let what = format!(
        "zone {name}: forward chains keep clients from port 25, and no allow_clients says so: {rules}"
    );
    let networks = allowed(views);
    if networks.len() > MAX_LINE_NETWORKS {
        let why = format!(
            "{why} Say in the zone who may send, by allow_clients = [\"ADDRESS\", …]; the rules come to {} networks.",
            networks.len()
        );
        return Finding::error("forward-clients", what, why);
    }
    let list: Vec<String> = networks.iter().map(|network| format!("\"{network}\"")).collect();
    let line = format!("allow_clients = [{}]", list.join(", "));
    let unsure = match views.iter().any(View::may_block) {
        true => " (some rules can't be decided from here: check the line)",
        false => "",
    };
    let why = format!("{why} Add to the zone: {line}{unsure}, then `mailguard reload`.");
    let finding = Finding::error("forward-clients", what, why);
    match file.add_to_zone(name, &line) {
        Some(command) => finding.command(command),
        None => finding,
    }
}

/// The networks of all views together. A family that nobody restricts is allowed whole.
fn allowed(views: &[View]) -> Vec<String> {
    let mut networks = Vec::new();
    for family in [Family::V4, Family::V6] {
        let of_family: Vec<&View> = views.iter().filter(|view| view.family == Some(family)).collect();
        let ranges = match of_family.iter().any(|view| view.blocks()) {
            true => of_family.iter().fold(Ranges::default(), |all, view| all.union(&view.allowed())),
            false if of_family.is_empty() => continue,
            false => Ranges::all(family),
        };
        networks.extend(ranges.networks(family).iter().map(shown));
    }
    networks
}

/// A host without its prefix's length.
fn shown(network: &ipnet::IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Whom `allow_clients` allows and the chains block, in words.
fn stricter(list: &[ipnet::IpNet], views: &[View]) -> String {
    let mut networks: Vec<String> = Vec::new();
    for view in views {
        let Some(family) = view.family else { continue };
        let list =
            Ranges::of_networks(list.iter().filter(|net| net.addr().is_ipv4() == (family == Family::V4)));
        let more = list.intersection(&view.blocked);
        networks.extend(more.networks(family).iter().map(shown));
    }
    networks.dedup();
    let rest = networks.len().saturating_sub(MAX_NAMED_NETWORKS);
    networks.truncate(MAX_NAMED_NETWORKS);
    let more = if rest > 0 { format!(" and {rest} networks more") } else { String::new() };
    format!("{}{more}", networks.join(", "))
}

fn rules(views: &[View]) -> String {
    let mut named: Vec<&str> = Vec::new();
    for rule in views.iter().flat_map(|view| &view.rules) {
        if !named.contains(&rule.as_str()) {
            named.push(rule);
        }
    }
    let rest = named.len().saturating_sub(MAX_NAMED_RULES);
    named.truncate(MAX_NAMED_RULES);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    format!("{}{more}", named.join("; "))
}

fn view(way: &[Station<'_>], interface: &str, family: Family, ground: &Ground) -> View {
    let around = ground.around(interface, family);
    let sources = sources(way);
    let mut pieces = pieces(family, &sources);
    let (clients, networks) = (around.clients.clone(), around.networks.clone());
    let mut view = View { family: Some(family), clients, networks, ..View::default() };
    if pieces.len() > MAX_PIECES {
        pieces.retain(|piece| around.clients.meets(&Ranges::new([*piece])));
        view.incomplete = around.clients.is_empty() || pieces.len() > MAX_PIECES;
        pieces.truncate(MAX_PIECES);
    }
    let ways_out = ground.ways_out(interface);
    let mut blocked: Vec<(u128, u128)> = Vec::new();
    let (mut passes, mut unsure) = (Vec::new(), Vec::new());
    for piece in pieces {
        let place = Place::At(piece.0);
        match verdict(way, interface, family, &around, place, &ways_out) {
            Verdict::Passes => passes.push(piece),
            Verdict::Unsure(rule) => {
                unsure.push(piece);
                view.note(&piece, rule);
            }
            Verdict::Blocked(rule) => {
                view.named_only |= !sources.contains(piece.0);
                blocked.push(piece);
                view.note(&piece, rule);
            }
        }
    }
    let real = Ranges::all(family).without(&ranges::special(family));
    (view.passes, view.blocked, view.unsure) = (
        Ranges::new(passes).intersection(&real),
        Ranges::new(blocked).intersection(&real),
        Ranges::new(unsure).intersection(&real),
    );
    view
}

impl View {
    /// Notes a rule that concerns clients.
    fn note(&mut self, piece: &(u128, u128), rule: String) {
        let concerns = self.clients.is_empty() || self.clients.meets(&Ranges::new([*piece]));
        if concerns && !self.rules.contains(&rule) {
            self.rules.push(rule);
        }
    }
}

/// What becomes of a connection.
enum Verdict {
    Passes,
    /// By the rule, in words.
    Blocked(String),
    Unsure(String),
}

/// Over the best way out.
fn verdict(
    way: &[Station<'_>],
    interface: &str,
    family: Family,
    around: &Surroundings,
    client: Place<'_>,
    ways_out: &[&str],
) -> Verdict {
    let outgoing: Vec<Option<&str>> = match ways_out {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    let mut worst_of_best = None;
    for outgoing in outgoing {
        let packet = Packet {
            family,
            incoming: Some(interface),
            outgoing,
            client,
            server: Place::Nowhere,
            reply: false,
            mark: Mark::of(0),
            state: "new",
            flags: SYN,
            steered: false,
            owner: Owner::Unknown,
            routed: !around.clients.is_empty(),
        };
        match through(way, packet) {
            Verdict::Passes => return Verdict::Passes,
            unsure @ Verdict::Unsure(_) => worst_of_best = Some(unsure),
            blocked @ Verdict::Blocked(_) => {
                worst_of_best.get_or_insert(blocked);
            }
        }
    }
    worst_of_best.unwrap_or(Verdict::Passes)
}

/// Where it is forwarded; what is dropped before is dropped with us in between, too.
fn through(way: &[Station<'_>], packet: Packet<'_>) -> Verdict {
    let mut verdict = Verdict::Passes;
    travel(way, packet, |number, passed| {
        let station = &way[number];
        if !matches!(station.hook(), "forward" | "postrouting" | "egress") {
            return;
        }
        let (rule, certain) = match passed.fate {
            Fate::Accepted => return,
            Fate::Dropped(rule) => (rule, true),
            Fate::PerhapsDropped(rule) => (rule, false),
        };
        let by = rule.map_or("its policy is drop".to_owned(), |rule| format!("\"{}\"", rule.text));
        let text = format!("{}: {by}", name_of(station));
        verdict = match (&verdict, certain) {
            (Verdict::Blocked(_), _) => return,
            (_, true) => Verdict::Blocked(text),
            (Verdict::Unsure(_), false) => return,
            (Verdict::Passes, false) => Verdict::Unsure(text),
        };
    });
    verdict
}

/// All addresses that a rule's test of the source names.
fn sources(way: &[Station<'_>]) -> Sources {
    let mut sources = Sources::default();
    let mut seen: Vec<*const Table> = Vec::new();
    for station in way {
        // The chains that are jumped to belong to it.
        let table: *const Table = station.table;
        if seen.contains(&table) {
            continue;
        }
        seen.push(table);
        let rules = station.table.chains.iter().flat_map(|chain| &chain.rules);
        for condition in rules.flat_map(|rule| &rule.conditions) {
            sources.add(&condition.test);
        }
    }
    sources.bounds.sort_unstable();
    sources.bounds.dedup();
    sources
}

/// Ranges of sources, of both families: where one has no address in another's range, a cut too many does no
/// harm.
#[derive(Default)]
struct Sources {
    ranges: Vec<(u128, u128)>,
    /// Where a piece begins.
    bounds: Vec<u128>,
}

impl Sources {
    fn add(&mut self, test: &Test) {
        match test {
            Test::Address(End::Source | End::Client, Some(ranges)) => {
                for (first, last) in ranges.iter() {
                    self.ranges.push((first, last));
                    self.bounds.extend([Some(first), last.checked_add(1)].into_iter().flatten());
                }
            }
            Test::Any(choices) => choices.iter().flatten().for_each(|test| self.add(test)),
            _ => {}
        }
    }

    fn contains(&self, address: u128) -> bool {
        self.ranges.iter().any(|(first, last)| (first..=last).contains(&&address))
    }
}

fn pieces(family: Family, sources: &Sources) -> Vec<(u128, u128)> {
    let Some((first, end)) = Ranges::all(family).iter().next() else { return Vec::new() };
    let mut begins = vec![first];
    begins.extend(sources.bounds.iter().copied().filter(|bound| (first + 1..=end).contains(bound)));
    let ends = begins.iter().skip(1).map(|next| next - 1).chain([end]).collect::<Vec<_>>();
    begins.into_iter().zip(ends).collect()
}
