//! Bans: clients that are kept out until a time. The kernel itself stops obeying a ban that has ended; what
//! is left of it here goes when it is lifted, when its place is needed, and at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use mailguard_common::maps::{ACTION_DROP, ACTION_RESET, Ban, HAS_BANS, MAX_BANS, MAX_RULES, RuleValue, map};
use mailguard_core::config::Config;
use mailguard_core::config::model::BlacklistAction;
use mailguard_core::subscriber::Subscriber;
use serde::{Deserialize, Serialize};

use super::super::{Datapath, now_ns};
use super::{DatapathError, MapUse, RuleMaps, host_key, take_map};

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanStatus {
    /// Who.
    pub client: Subscriber,
    /// For how long it goes on.
    pub left: Duration,
    /// Packets that were refused.
    pub packets: u64,
    /// How long ago the last of them came; none came: absent.
    pub last: Option<Duration>,
}

/// The open map and what it holds.
pub(super) struct Bans {
    map: HashMap<MapData, [u8; 16], Ban>,
    installed: BTreeMap<Subscriber, Ban>,
}

impl Bans {
    /// Opens the map of the loaded object and reads what it holds.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let map: HashMap<MapData, [u8; 16], Ban> = take_map(ebpf, map::BANS)?;
        let mut installed = BTreeMap::new();
        for item in map.iter() {
            let (address, ban) = item.map_err(DatapathError::map(map::BANS))?;
            installed.insert(Ipv6Addr::from(address).into(), ban);
        }
        Ok(Self { map, installed })
    }

    /// The numbers of their counters.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.installed.values().map(|ban| ban.value.rule)
    }

    pub(super) fn len(&self) -> usize {
        self.installed.len()
    }

    /// [`HAS_BANS`] if there are any.
    pub(super) fn populated(&self) -> u32 {
        if self.installed.is_empty() { 0 } else { HAS_BANS }
    }

    pub(super) fn usage(&self) -> MapUse {
        MapUse { name: map::BANS.to_owned(), entries: self.len(), limit: MAX_BANS as usize }
    }

    fn insert(&mut self, client: Subscriber, ban: Ban) -> Result<(), DatapathError> {
        self.map.insert(host_key(client.first()), ban, 0).map_err(DatapathError::map(map::BANS))?;
        self.installed.insert(client, ban);
        Ok(())
    }
}

impl RuleMaps {
    /// Bans these clients until then, CLOCK_MONOTONIC: all, or none when there are too many. One that is
    /// banned already keeps its counter.
    fn ban(&mut self, bans: &BTreeMap<Subscriber, u64>, action: u32) -> Result<(), DatapathError> {
        let new = bans.keys().filter(|client| !self.bans.installed.contains_key(client)).count();
        if self.check_room(new).is_err() {
            self.remove_ended(now_ns())?;
            self.check_room(bans.keys().filter(|client| !self.bans.installed.contains_key(client)).count())?;
        }
        for (client, until_ns) in bans {
            let known = self.bans.installed.get(client).map(|ban| ban.value.rule);
            let rule = known.map_or_else(|| self.new_number(), Ok)?;
            let ban = Ban { until_ns: *until_ns, value: RuleValue { rule, action } };
            if let Err(error) = self.bans.insert(*client, ban) {
                if known.is_none() {
                    self.release(rule);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn check_room(&self, new: usize) -> Result<(), DatapathError> {
        let (bans, limit) = (self.bans.len() + new, MAX_BANS as usize);
        if bans > limit {
            return Err(DatapathError::TooMany { list: "bans", entries: bans, limit });
        }
        if new > self.free.len() {
            let limit = MAX_RULES as usize;
            let entries = limit - self.free.len() + new;
            return Err(DatapathError::TooMany { list: "all rules and bans", entries, limit });
        }
        Ok(())
    }

    /// Ends the bans of these clients; returns how many were banned.
    fn lift(&mut self, clients: &[Subscriber]) -> Result<usize, DatapathError> {
        let mut lifted = 0;
        for client in clients {
            let Some(ban) = self.bans.installed.get(client).copied() else { continue };
            self.bans.map.remove(&host_key(client.first())).map_err(DatapathError::map(map::BANS))?;
            self.bans.installed.remove(client);
            self.release(ban.value.rule);
            lifted += 1;
        }
        Ok(lifted)
    }

    /// Removes bans that have ended.
    pub(in super::super) fn remove_ended(&mut self, now_ns: u64) -> Result<(), DatapathError> {
        let ended = self.bans.installed.iter().filter(|(_, ban)| ban.until_ns <= now_ns);
        let ended: Vec<Subscriber> = ended.map(|(client, _)| *client).collect();
        self.lift(&ended).map(|_| ())
    }

    /// Has all bans do this from now on.
    pub(in super::super) fn set_ban_action(&mut self, action: u32) -> Result<(), DatapathError> {
        let others = self.bans.installed.iter().filter(|(_, ban)| ban.value.action != action);
        let others: Vec<(Subscriber, Ban)> = others.map(|(client, ban)| (*client, *ban)).collect();
        for (client, ban) in others {
            self.bans.insert(client, Ban { value: RuleValue { action, ..ban.value }, ..ban })?;
        }
        Ok(())
    }

    /// The bans in force, in the order of addresses.
    fn bans(&self, now_ns: u64) -> Result<Vec<BanStatus>, DatapathError> {
        let in_force = self.bans.installed.iter().filter(|(_, ban)| ban.until_ns > now_ns);
        let mut hits = self.hits.reader();
        let status = |(client, ban): (&Subscriber, &Ban)| {
            let hits = hits.of(ban.value.rule, now_ns)?;
            Ok(BanStatus {
                client: *client,
                left: Duration::from_nanos(ban.until_ns - now_ns),
                packets: hits.map_or(0, |(packets, _)| packets),
                last: hits.map(|(_, ago)| ago),
            })
        };
        in_force.map(status).collect()
    }
}

impl Datapath {
    /// Keeps new connections of each client out for this long from now, whatever was said of it before: all
    /// of them, or none when there are too many. An IPv6 client is its whole network; of several times for
    /// one the longest counts. Open sessions go on, bypassed clients pass.
    pub fn ban(&mut self, bans: &[(IpAddr, Duration)]) -> Result<(), DatapathError> {
        let now = now_ns();
        let mut until = BTreeMap::new();
        for (client, left) in bans {
            let end = now.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
            let longest = until.entry(Subscriber::of(*client)).or_insert(end);
            *longest = end.max(*longest);
        }
        let banned = self.rules.ban(&until, self.ban_action);
        self.note_bans()?;
        banned
    }

    /// Lets these clients in again; returns how many of them were banned.
    pub fn lift(&mut self, clients: &[IpAddr]) -> Result<usize, DatapathError> {
        let clients: BTreeSet<Subscriber> = clients.iter().map(|client| Subscriber::of(*client)).collect();
        let lifted = self.rules.lift(&clients.into_iter().collect::<Vec<_>>());
        self.note_bans()?;
        lifted
    }

    /// The bans in force, in the order of addresses.
    pub fn bans(&self) -> Result<Vec<BanStatus>, DatapathError> {
        self.rules.bans(now_ns())
    }

    /// Tells the programs whether they need look.
    fn note_bans(&mut self) -> Result<(), DatapathError> {
        let before = self.settings.get().populated;
        let populated = (before & !HAS_BANS) | self.rules.bans.populated();
        if populated == before {
            return Ok(());
        }
        self.settings.change(|settings| settings.populated = populated)
    }
}

/// What is done to a banned client's packets: what is done to a blacklisted one's. SMTP has no say in it.
pub(in super::super) fn ban_action(config: &Config) -> u32 {
    match config.kernel.blacklist_action {
        BlacklistAction::Reset => ACTION_RESET,
        BlacklistAction::Drop | BlacklistAction::Reject => ACTION_DROP,
    }
}
