//! The rule maps: what the kernel holds, and the way from there to what it should hold.
//!
//! The maps are the truth: an earlier run's entries are read back, numbers of their counters included, so
//! that a restart loses neither a rule nor its count. A change touches the entries that differ, additions
//! first.

mod bans;
mod hits;
mod hosts;
mod senders;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mailguard_common::maps::{
    ACTION_ALLOW, ACTION_BYPASS, ACTION_DROP, ACTION_INTERCEPT, ACTION_RESET, HAS_ALLOW4, HAS_ALLOW6,
    HAS_BLACKLIST_HOSTS4, HAS_BLACKLIST_HOSTS6, HAS_BLACKLIST4, HAS_BLACKLIST6, HAS_BYPASS_DST4,
    HAS_BYPASS_DST6, HAS_BYPASS_MAC, HAS_BYPASS_SRC4, HAS_BYPASS_SRC6, MAX_ALLOW, MAX_BLACKLIST,
    MAX_BLACKLIST6, MAX_BYPASS, MAX_RULES, RuleValue, map, zone_number,
};
use mailguard_common::packet::mapped;
use mailguard_core::rule_key::RuleKey;
use mailguard_core::rules::{BypassRule, ClientRule, Rules, SenderRule};

use super::kernel_settings::KernelSettings;
use super::object::take_map;
use super::{DatapathError, MapUse, RuleCount, now_ns};
pub use bans::BanStatus;
use bans::Bans;
pub(super) use bans::ban_action;
use hits::RuleHits;
use hosts::Hosts;
use senders::Senders;

/// Attempts to add an entry while the kernel is short of memory for a moment.
const INSERT_ATTEMPTS: usize = 5;

/// Which of the configuration's lists an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    /// `access.blacklist_clients`, and exceptions from it.
    Client(IpNet),
    /// `bypass.from_subnets` and `from_ips`.
    BypassFrom(IpNet),
    /// `bypass.to_subnets` and `to_ips`.
    BypassTo(IpNet),
    /// `bypass.from_macs`.
    BypassMac([u8; 6]),
    /// `zone.allow_clients` of the zone with this number, and all others.
    Sender(u64, IpNet),
}

/// Which map an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MapSlot {
    BlacklistHosts4,
    BlacklistHosts6,
    Blacklist4,
    Blacklist6,
    BypassFrom4,
    BypassFrom6,
    BypassTo4,
    BypassTo6,
    BypassMac,
    Senders4,
    Senders6,
}

type Trie4 = LpmTrie<MapData, [u8; 4], RuleValue>;
type Trie6 = LpmTrie<MapData, [u8; 16], RuleValue>;

/// The open maps and what they hold.
pub(super) struct RuleMaps {
    hosts: (Hosts, HashMap<MapData, [u8; 16], RuleValue>),
    /// IPv4 addresses whose bucket was full: they are among the networks.
    bucket_overflow: BTreeSet<Ipv4Addr>,
    clients: (Trie4, Trie6),
    from: (Trie4, Trie6),
    to: (Trie4, Trie6),
    macs: HashMap<MapData, [u8; 6], RuleValue>,
    senders: Senders,
    /// The zones of `senders`, by their numbers.
    zones: BTreeMap<u64, String>,
    /// What is to be removed from there when no interface is in its zone of before any more.
    old: Vec<Entry>,
    bans: Bans,
    hits: RuleHits,
    installed: BTreeMap<Entry, RuleValue>,
    /// Numbers that neither an entry nor a ban has.
    free: BTreeSet<u32>,
}

impl MapSlot {
    const ALL: [MapSlot; 11] = [
        MapSlot::BlacklistHosts4,
        MapSlot::BlacklistHosts6,
        MapSlot::Blacklist4,
        MapSlot::Blacklist6,
        MapSlot::BypassFrom4,
        MapSlot::BypassFrom6,
        MapSlot::BypassTo4,
        MapSlot::BypassTo6,
        MapSlot::BypassMac,
        MapSlot::Senders4,
        MapSlot::Senders6,
    ];

    /// What an administrator calls the entries that it holds.
    const fn list(self) -> &'static str {
        match self {
            MapSlot::BlacklistHosts4 => "access.blacklist_clients (IPv4 addresses)",
            MapSlot::BlacklistHosts6 => "access.blacklist_clients (IPv6 addresses)",
            MapSlot::Blacklist4 => "access.blacklist_clients (IPv4 networks)",
            MapSlot::Blacklist6 => "access.blacklist_clients (IPv6 networks)",
            MapSlot::BypassFrom4 => "bypass.from_ips and bypass.from_subnets (IPv4)",
            MapSlot::BypassFrom6 => "bypass.from_ips and bypass.from_subnets (IPv6)",
            MapSlot::BypassTo4 => "bypass.to_ips and bypass.to_subnets (IPv4)",
            MapSlot::BypassTo6 => "bypass.to_ips and bypass.to_subnets (IPv6)",
            MapSlot::BypassMac => "bypass.from_macs",
            MapSlot::Senders4 => "zone.allow_clients (IPv4)",
            MapSlot::Senders6 => "zone.allow_clients (IPv6)",
        }
    }

    /// Name of the map, entries it can hold, its `HAS_` bit.
    const fn facts(self) -> (&'static str, u32, u32) {
        match self {
            MapSlot::BlacklistHosts4 => (map::BLACKLIST_HOSTS4, MAX_BLACKLIST, HAS_BLACKLIST_HOSTS4),
            MapSlot::BlacklistHosts6 => (map::BLACKLIST_HOSTS6, MAX_BLACKLIST6, HAS_BLACKLIST_HOSTS6),
            MapSlot::Blacklist4 => (map::BLACKLIST4, MAX_BLACKLIST, HAS_BLACKLIST4),
            MapSlot::Blacklist6 => (map::BLACKLIST6, MAX_BLACKLIST6, HAS_BLACKLIST6),
            MapSlot::BypassFrom4 => (map::BYPASS_SRC4, MAX_BYPASS, HAS_BYPASS_SRC4),
            MapSlot::BypassFrom6 => (map::BYPASS_SRC6, MAX_BYPASS, HAS_BYPASS_SRC6),
            MapSlot::BypassTo4 => (map::BYPASS_DST4, MAX_BYPASS, HAS_BYPASS_DST4),
            MapSlot::BypassTo6 => (map::BYPASS_DST6, MAX_BYPASS, HAS_BYPASS_DST6),
            MapSlot::BypassMac => (map::BYPASS_MAC, MAX_BYPASS, HAS_BYPASS_MAC),
            MapSlot::Senders4 => (map::ALLOW4, MAX_ALLOW, HAS_ALLOW4),
            MapSlot::Senders6 => (map::ALLOW6, MAX_ALLOW, HAS_ALLOW6),
        }
    }
}

impl Entry {
    /// The name by which it is counted; `zones` are their names by their numbers.
    fn key(&self, zones: &BTreeMap<u64, String>) -> RuleKey {
        match self {
            Entry::Client(clients) => RuleKey::blacklist_client(*clients),
            Entry::BypassFrom(sources) => RuleKey::bypass_from(*sources),
            Entry::BypassTo(destinations) => RuleKey::bypass_to(*destinations),
            Entry::BypassMac(source) => RuleKey::bypass_from_mac(*source),
            Entry::Sender(zone, clients) => {
                RuleKey::allow_clients(zones.get(zone).map(String::as_str), *clients)
            }
        }
    }

    /// The IPv4 address that it blacklists, if it is one.
    fn host4(&self) -> Option<Ipv4Addr> {
        match self {
            Entry::Client(IpNet::V4(net)) if net.prefix_len() == 32 => Some(net.addr()),
            _ => None,
        }
    }

    fn home(&self) -> MapSlot {
        match self {
            // A single address goes where it is found quickest.
            Entry::Client(IpNet::V4(_)) if self.host4().is_some() => MapSlot::BlacklistHosts4,
            Entry::Client(IpNet::V6(net)) if net.prefix_len() == 128 => MapSlot::BlacklistHosts6,
            Entry::Client(IpNet::V4(_)) => MapSlot::Blacklist4,
            Entry::Client(IpNet::V6(_)) => MapSlot::Blacklist6,
            Entry::BypassFrom(IpNet::V4(_)) => MapSlot::BypassFrom4,
            Entry::BypassFrom(IpNet::V6(_)) => MapSlot::BypassFrom6,
            Entry::BypassTo(IpNet::V4(_)) => MapSlot::BypassTo4,
            Entry::BypassTo(IpNet::V6(_)) => MapSlot::BypassTo6,
            Entry::BypassMac(_) => MapSlot::BypassMac,
            Entry::Sender(_, IpNet::V4(_)) => MapSlot::Senders4,
            Entry::Sender(_, IpNet::V6(_)) => MapSlot::Senders6,
        }
    }

    /// The zone that an interface must be in for it to count, if it is of one.
    fn zone(&self) -> Option<u64> {
        match self {
            Entry::Sender(zone, _) => Some(*zone),
            _ => None,
        }
    }
}

/// Whether an action keeps anybody out.
fn refuses(action: u32) -> bool {
    action == ACTION_DROP || action == ACTION_RESET
}

/// The entries that `rules` mean, with their actions.
fn entries(rules: &Rules) -> BTreeMap<Entry, u32> {
    let clients = rules.clients.iter().map(|(net, rule)| {
        let action = match rule {
            ClientRule::Drop => ACTION_DROP,
            ClientRule::Reset => ACTION_RESET,
            ClientRule::Allow => ACTION_ALLOW,
        };
        (Entry::Client(*net), action)
    });
    let action = |rule: &BypassRule| match rule {
        BypassRule::Bypass => ACTION_BYPASS,
        BypassRule::Intercept => ACTION_INTERCEPT,
    };
    let from = rules.bypass_from.iter().map(|(net, rule)| (Entry::BypassFrom(*net), action(rule)));
    let to = rules.bypass_to.iter().map(|(net, rule)| (Entry::BypassTo(*net), action(rule)));
    let macs = rules.bypass_macs.iter().map(|mac| (Entry::BypassMac(*mac), ACTION_BYPASS));
    let senders = rules.senders.iter().flat_map(|(zone, nets)| {
        let zone = zone_number(zone);
        nets.iter().map(move |(net, rule)| {
            let action = match rule {
                SenderRule::Allow => ACTION_ALLOW,
                SenderRule::Drop => ACTION_DROP,
                SenderRule::Reset => ACTION_RESET,
            };
            (Entry::Sender(zone, *net), action)
        })
    });
    clients.chain(from).chain(to).chain(macs).chain(senders).collect()
}

/// Whether the maps can hold these entries at one time, with so many bans.
fn check_limits<'a>(entries: impl Iterator<Item = &'a Entry>, bans: usize) -> Result<(), DatapathError> {
    let mut counts: BTreeMap<MapSlot, usize> = BTreeMap::new();
    for entry in entries {
        *counts.entry(entry.home()).or_default() += 1;
    }
    for (home, count) in &counts {
        let (_, limit, _) = home.facts();
        if *count > limit as usize {
            return Err(DatapathError::TooMany { list: home.list(), entries: *count, limit: limit as usize });
        }
    }
    let (total, limit) = (counts.values().sum::<usize>() + bans, MAX_RULES as usize);
    if total > limit {
        return Err(DatapathError::TooMany { list: "all rules and bans", entries: total, limit });
    }
    Ok(())
}

fn populated<'a>(entries: impl Iterator<Item = &'a Entry>) -> u32 {
    entries.map(|entry| entry.home().facts().2).fold(0, |bits, bit| bits | bit)
}

impl RuleMaps {
    /// Opens the maps of the loaded object and reads what they hold.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let mut maps = Self {
            hosts: (Hosts::new(ebpf)?, take_map(ebpf, map::BLACKLIST_HOSTS6)?),
            bucket_overflow: BTreeSet::new(),
            clients: (take_map(ebpf, map::BLACKLIST4)?, take_map(ebpf, map::BLACKLIST6)?),
            from: (take_map(ebpf, map::BYPASS_SRC4)?, take_map(ebpf, map::BYPASS_SRC6)?),
            to: (take_map(ebpf, map::BYPASS_DST4)?, take_map(ebpf, map::BYPASS_DST6)?),
            macs: take_map(ebpf, map::BYPASS_MAC)?,
            senders: Senders::new(ebpf)?,
            zones: BTreeMap::new(),
            old: Vec::new(),
            bans: Bans::new(ebpf)?,
            hits: RuleHits::new(ebpf)?,
            installed: BTreeMap::new(),
            free: (0..MAX_RULES).collect(),
        };
        maps.read_back()?;
        Ok(maps)
    }

    /// The rules that decided about any packet.
    pub(super) fn counts(&self) -> Result<Vec<RuleCount>, DatapathError> {
        let (mut rules, mut hits, now_ns) = (Vec::new(), self.hits.reader(), now_ns());
        for (entry, value) in &self.installed {
            if let Some((packets, ago)) = hits.of(value.rule, now_ns)? {
                let (key, last_hit_seconds_ago) = (entry.key(&self.zones), ago.as_secs());
                rules.push(RuleCount { key, packets, last_hit_seconds_ago });
            }
        }
        Ok(rules)
    }

    /// How full the maps are.
    pub(super) fn usage(&self) -> Vec<MapUse> {
        let entries = |home| self.installed.keys().filter(|entry| entry.home() == home).count();
        let usage = |home: &MapSlot| {
            let (name, limit, _) = home.facts();
            MapUse { name: name.to_owned(), entries: entries(*home), limit: limit as usize }
        };
        MapSlot::ALL.iter().map(usage).chain([self.bans.usage()]).collect()
    }

    /// Makes the maps hold `rules` and no others, but for those of zones, of which
    /// [`RuleMaps::remove_old_zones`] removes what is over. Returns how many entries were added or changed,
    /// and removed. What lets somebody in comes before what keeps others out, and goes after it. A list that
    /// became empty is skipped by the programs, by the bits in `settings`.
    pub(super) fn replace(
        &mut self,
        rules: &Rules,
        settings: &KernelSettings,
    ) -> Result<(usize, usize), DatapathError> {
        let target = entries(rules);
        check_limits(target.keys(), self.bans.len())?;
        let changed = |(entry, action): (&Entry, &u32)| {
            let same = self.installed.get(entry).is_some_and(|value| value.action == *action);
            (!same).then_some((*entry, *action))
        };
        let mut additions: Vec<_> = target.iter().filter_map(changed).collect();
        additions.sort_by_key(|(_, action)| refuses(*action));
        let mut removals: Vec<_> =
            self.installed.iter().filter(|(entry, _)| !target.contains_key(entry)).collect();
        removals.sort_by_key(|(_, value)| !refuses(value.action));
        let removals = removals.into_iter().map(|(entry, _)| *entry);
        let (old, removals) = removals.partition::<Vec<_>, _>(|entry| entry.zone().is_some());
        self.old = old;
        self.zones.extend(rules.senders.keys().map(|zone| (zone_number(zone), zone.clone())));
        let both =
            self.installed.keys().chain(target.keys().filter(|entry| !self.installed.contains_key(entry)));
        // Only lists so large that old and new don't fit together have a moment without either.
        let additions_first = check_limits(both, self.bans.len()).is_ok();

        settings.change(|settings| settings.populated |= populated(target.keys()))?;
        if !additions_first {
            self.remove_all(&removals)?;
        }
        for (entry, action) in &additions {
            self.add(*entry, *action)?;
        }
        if additions_first {
            self.remove_all(&removals)?;
        }
        self.say_populated(settings)?;
        Ok((additions.len(), removals.len()))
    }

    /// Removes what [`RuleMaps::replace`] left of zones; returns how many entries.
    pub(super) fn remove_old_zones(&mut self, settings: &KernelSettings) -> Result<usize, DatapathError> {
        let old = std::mem::take(&mut self.old);
        self.remove_all(&old)?;
        let used: BTreeSet<u64> = self.installed.keys().filter_map(Entry::zone).collect();
        self.zones.retain(|zone, _| used.contains(zone));
        self.say_populated(settings)?;
        Ok(old.len())
    }

    /// Tells the programs which maps they need look into.
    fn say_populated(&self, settings: &KernelSettings) -> Result<(), DatapathError> {
        let bucket_overflow = if self.bucket_overflow.is_empty() { 0 } else { HAS_BLACKLIST4 };
        let populated = populated(self.installed.keys()) | self.bans.populated() | bucket_overflow;
        settings.change(|settings| settings.populated = populated)
    }

    fn add(&mut self, entry: Entry, action: u32) -> Result<(), DatapathError> {
        let rule = match self.installed.get(&entry) {
            Some(value) => value.rule,
            None => self.new_number()?,
        };
        let value = RuleValue { rule, action };
        let mut attempt = self.insert(&entry, value);
        for _ in 1..INSERT_ATTEMPTS {
            if !attempt.as_ref().is_err_and(out_of_memory) {
                break;
            }
            attempt = self.insert(&entry, value);
        }
        if attempt.is_err() && !self.installed.contains_key(&entry) {
            self.release(rule);
        }
        attempt?;
        self.installed.insert(entry, value);
        Ok(())
    }

    /// A number with its counter at 0.
    fn new_number(&mut self) -> Result<u32, DatapathError> {
        let too_many = DatapathError::TooMany {
            list: "all rules and bans",
            entries: MAX_RULES as usize + 1,
            limit: MAX_RULES as usize,
        };
        let rule = self.free.pop_first().ok_or(too_many)?;
        let begun = self.hits.begin(rule);
        if begun.is_err() {
            self.release(rule);
        }
        begun.map(|()| rule)
    }

    /// Nobody has the number any more.
    fn release(&mut self, rule: u32) {
        self.hits.end(rule);
        self.free.insert(rule);
    }

    fn remove_all(&mut self, entries: &[Entry]) -> Result<(), DatapathError> {
        for entry in entries {
            self.delete(entry)?;
            if let Some(value) = self.installed.remove(entry) {
                self.release(value.rule);
            }
        }
        Ok(())
    }

    fn insert(&mut self, entry: &Entry, value: RuleValue) -> Result<(), DatapathError> {
        if let Some(address) = entry.host4() {
            return self.insert_host4(address, value);
        }
        let inserted = match entry {
            Entry::Client(net) if entry.home() == MapSlot::BlacklistHosts6 => {
                self.hosts.1.insert(host_key(net.addr()), value, 0)
            }
            Entry::Client(net) => insert_net(&mut self.clients, net, value),
            Entry::BypassFrom(net) => insert_net(&mut self.from, net, value),
            Entry::BypassTo(net) => insert_net(&mut self.to, net, value),
            Entry::BypassMac(mac) => self.macs.insert(mac, value, 0),
            Entry::Sender(zone, net) => self.senders.insert(*zone, net, value),
        };
        inserted.map_err(DatapathError::map(entry.home().facts().0))
    }

    fn insert_host4(&mut self, address: Ipv4Addr, value: RuleValue) -> Result<(), DatapathError> {
        if !self.bucket_overflow.contains(&address) && self.hosts.0.insert(address, value)? {
            return Ok(());
        }
        let net = IpNet::from(IpAddr::from(address));
        insert_net(&mut self.clients, &net, value).map_err(DatapathError::map(map::BLACKLIST4))?;
        self.bucket_overflow.insert(address);
        Ok(())
    }

    fn delete(&mut self, entry: &Entry) -> Result<(), DatapathError> {
        if let Some(address) = entry.host4()
            && !self.bucket_overflow.contains(&address)
        {
            return self.hosts.0.remove(address);
        }
        let deleted = match entry {
            Entry::Client(net) if entry.home() == MapSlot::BlacklistHosts6 => {
                self.hosts.1.remove(&host_key(net.addr()))
            }
            Entry::Client(net) => remove_net(&mut self.clients, net),
            Entry::BypassFrom(net) => remove_net(&mut self.from, net),
            Entry::BypassTo(net) => remove_net(&mut self.to, net),
            Entry::BypassMac(mac) => self.macs.remove(mac),
            Entry::Sender(zone, net) => self.senders.remove(*zone, net),
        };
        deleted.map_err(DatapathError::map(entry.home().facts().0))?;
        if let Some(address) = entry.host4() {
            self.bucket_overflow.remove(&address);
        }
        Ok(())
    }

    fn read_back(&mut self) -> Result<(), DatapathError> {
        let mut found: Vec<(Entry, RuleValue)> = Vec::new();
        for (address, value) in self.hosts.0.read()? {
            found.push((Entry::Client(IpAddr::from(address).into()), value));
        }
        for item in self.hosts.1.iter() {
            let (address, value) = item.map_err(DatapathError::map(map::BLACKLIST_HOSTS6))?;
            found.push((Entry::Client(IpAddr::from(Ipv6Addr::from(address)).into()), value));
        }
        for item in self.macs.iter() {
            let (mac, value) = item.map_err(DatapathError::map(map::BYPASS_MAC))?;
            found.push((Entry::BypassMac(mac), value));
        }
        let mut networks = Vec::new();
        read_nets(&self.clients, Entry::Client, &mut networks)
            .map_err(DatapathError::map(map::BLACKLIST4))?;
        self.bucket_overflow = networks.iter().filter_map(|(entry, _)| entry.host4()).collect();
        found.append(&mut networks);
        read_nets(&self.from, Entry::BypassFrom, &mut found).map_err(DatapathError::map(map::BYPASS_SRC4))?;
        read_nets(&self.to, Entry::BypassTo, &mut found).map_err(DatapathError::map(map::BYPASS_DST4))?;
        let senders = self.senders.read().map_err(DatapathError::map(map::ALLOW4))?;
        found.extend(senders.into_iter().map(|(zone, net, value)| (Entry::Sender(zone, net), value)));
        for number in self.bans.numbers() {
            self.free.remove(&number);
        }
        for (entry, value) in found {
            self.free.remove(&value.rule);
            self.installed.insert(entry, value);
        }
        Ok(())
    }
}

/// Tries take their nodes from pools that run empty for a moment and refill by themselves.
fn out_of_memory(error: &DatapathError) -> bool {
    let DatapathError::Map { error: MapError::SyscallError(error), .. } = error else { return false };
    error.io_error.raw_os_error() == Some(nix::libc::ENOMEM)
}

fn host_key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn insert_net(maps: &mut (Trie4, Trie6), net: &IpNet, value: RuleValue) -> Result<(), MapError> {
    match net {
        IpNet::V4(net) => maps.0.insert(&key4(net), value, 0),
        IpNet::V6(net) => maps.1.insert(&key6(net), value, 0),
    }
}

fn remove_net(maps: &mut (Trie4, Trie6), net: &IpNet) -> Result<(), MapError> {
    match net {
        IpNet::V4(net) => maps.0.remove(&key4(net)),
        IpNet::V6(net) => maps.1.remove(&key6(net)),
    }
}

fn key4(net: &Ipv4Net) -> Key<[u8; 4]> {
    Key::new(net.prefix_len().into(), net.network().octets())
}

fn key6(net: &Ipv6Net) -> Key<[u8; 16]> {
    Key::new(net.prefix_len().into(), net.network().octets())
}

fn read_nets(
    maps: &(Trie4, Trie6),
    entry: fn(IpNet) -> Entry,
    found: &mut Vec<(Entry, RuleValue)>,
) -> Result<(), MapError> {
    for item in maps.0.iter() {
        let (key, value) = item?;
        let net = Ipv4Net::new(Ipv4Addr::from(key.data()), key.prefix_len() as u8);
        found.extend(net.ok().map(|net| (entry(net.into()), value)));
    }
    for item in maps.1.iter() {
        let (key, value) = item?;
        let net = Ipv6Net::new(Ipv6Addr::from(key.data()), key.prefix_len() as u8);
        found.extend(net.ok().map(|net| (entry(net.into()), value)));
    }
    Ok(())
}
