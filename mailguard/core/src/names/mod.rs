//! `bypass.to_names`: which addresses bypass because the DNS gives them for a name. Pure: answers,
//! surroundings and time in, addresses, changes and questions out. Who asks, and what the kernel is told, is
//! the driver's.
//!
//! What the DNS answers is an attacker's word. So it is bounded in number and time, judged against
//! [`Surroundings`] that no answer changes, and each change is told. An outage isn't an answer: the last one
//! is kept for a day.
//!
//! Servers of incoming domains that are written by name are asked for beside them ([`guarded`]): what is
//! theirs doesn't bypass, whatever else leads there.

mod address;
mod budget;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use address::{Refusal, Surroundings};
pub use budget::Budget;

use crate::config::model::{IncomingDomain, MailServer};
use crate::lookup::Lookup;
use crate::mail::Domain;

/// Names.
pub const MAX_NAMES: usize = 256;
/// Addresses of one name that bypass.
pub const MAX_ADDRESSES: usize = 16;
/// Addresses of one answer that are looked at; the least of them, so that their order in it doesn't matter.
pub const MAX_ANSWERED: usize = 64;
/// Shortest time that an answer holds, whatever its TTL.
pub const MIN_HOLD: Duration = Duration::from_secs(60);
/// Longest time that it does.
pub const MAX_HOLD: Duration = Duration::from_secs(86_400);
/// How long "there is none" holds: short, so that a mistake that was mended is seen.
const ABSENT_HOLD: Duration = Duration::from_secs(300);
/// How long an answer is kept after it would have to be asked for again, while there is none.
pub const KEPT_WITHOUT_ANSWER: Duration = Duration::from_secs(86_400);
/// When a question that wasn't answered is asked again.
const RETRY: Duration = Duration::from_secs(60);

/// Time since the machine was started.
pub type Moment = Duration;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// A records.
    #[serde(rename = "V4")]
    V4,
    /// AAAA records.
    #[serde(rename = "V6")]
    V6,
}

impl Family {
    const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Whether `address` is of it.
    pub const fn has(self, address: &IpAddr) -> bool {
        matches!((self, address), (Family::V4, IpAddr::V4(_)) | (Family::V6, IpAddr::V6(_)))
    }
}

/// What the DNS is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Question {
    /// The name, in its ASCII form.
    #[serde(rename = "name")]
    pub name: String,
    /// Which of its addresses.
    #[serde(rename = "family")]
    pub family: Family,
}

/// What it gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// In no order.
    pub addresses: Vec<IpAddr>,
    /// The shortest TTL of the records that led to them, seconds.
    pub ttl: u32,
}

/// The names, what the DNS said of each, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct Names {
    entries: BTreeMap<String, Entry>,
}

/// A name.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// It stands in `bypass.to_names`.
    bypasses: bool,
    /// A server of an incoming domain is called so.
    guards: bool,
    halves: BTreeMap<Family, Half>,
    bypassed: BTreeSet<IpAddr>,
    refused: BTreeMap<IpAddr, Refusal>,
}

/// The addresses of one family.
#[derive(Debug, Clone, Default)]
struct Half {
    answered: BTreeSet<IpAddr>,
    /// How long that holds; nothing before the first answer.
    until: Option<Moment>,
    due: Moment,
    asked: bool,
    /// Why the last question has no answer.
    trouble: Option<String>,
}

/// What became different for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The name.
    pub name: String,
    /// These bypass from now on.
    pub added: Vec<IpAddr>,
    /// These no longer do.
    pub removed: Vec<IpAddr>,
    /// These were answered, and don't.
    pub refused: Vec<(IpAddr, Refusal)>,
}

/// A name, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameStatus {
    /// The name, in its ASCII form.
    pub name: String,
    /// What bypasses.
    pub addresses: Vec<IpAddr>,
    /// What was answered and doesn't, with the reason.
    pub refused: Vec<(IpAddr, String)>,
    /// Why the DNS gave no answer when it was asked last.
    pub trouble: Option<String>,
    /// Why the name has no effect.
    pub problem: Option<String>,
}

/// An answer, to be kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// What was asked.
    #[serde(rename = "question")]
    pub question: Question,
    /// What was answered.
    #[serde(rename = "addresses")]
    pub addresses: Vec<IpAddr>,
    /// How long it holds, seconds since the machine was started.
    #[serde(rename = "until")]
    pub until: u64,
}

/// The names of servers of incoming domains, in their ASCII form.
pub fn guarded(incoming: &[IncomingDomain]) -> BTreeSet<&str> {
    let servers = incoming.iter().flat_map(|incoming| &incoming.servers);
    let names = servers.filter_map(|server| match server {
        MailServer::Host(name, _) => Some(name.ascii()),
        MailServer::Address(_) => None,
    });
    names.collect()
}

impl Names {
    /// These are the names from now on: those that are new will be asked for, those that are gone bypass no
    /// more. What the names of `guarded` lead to doesn't bypass; where nothing else does, they aren't asked
    /// for.
    pub fn set(&mut self, names: &[Domain], guarded: &BTreeSet<&str>) -> Vec<Change> {
        let bypassing: BTreeSet<&str> = names.iter().take(MAX_NAMES).map(Domain::ascii).collect();
        let guarding: BTreeSet<&str> = match bypassing.is_empty() {
            true => BTreeSet::new(),
            false => guarded.iter().copied().take(MAX_NAMES).collect(),
        };
        for name in bypassing.union(&guarding) {
            self.entries.entry((*name).to_owned()).or_insert_with(|| Entry {
                halves: Family::ALL.map(|family| (family, Half::default())).into(),
                ..Entry::default()
            });
        }
        let mut changes = Vec::new();
        for (name, entry) in &mut self.entries {
            (entry.bypasses, entry.guards) =
                (bypassing.contains(name.as_str()), guarding.contains(name.as_str()));
            changes.extend(entry.let_go(name));
        }
        self.entries.retain(|_, entry| entry.bypasses || entry.guards);
        changes
    }

    /// Whether there is any name.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Has every question asked anew, whatever was answered; what was holds until then.
    pub fn ask_again(&mut self) {
        self.halves_mut().for_each(|(_, _, half)| half.due = Moment::ZERO);
    }

    /// The question that is due the longest at `now`. It is under way then, until [`Names::answered`] or
    /// [`Names::lost`].
    pub fn ask(&mut self, now: Moment) -> Option<Question> {
        let waiting = self.halves_mut().filter(|(_, _, half)| !half.asked && half.due <= now);
        let (name, family, half) = waiting.min_by_key(|(_, _, half)| half.due)?;
        half.asked = true;
        Some(Question { name: name.to_owned(), family })
    }

    /// When the next question is due, of those that aren't under way.
    pub fn next_due(&self) -> Option<Moment> {
        let halves = self.entries.values().flat_map(|entry| entry.halves.values());
        halves.filter(|half| !half.asked).map(|half| half.due).min()
    }

    /// Takes an answer. One to a question that nobody has is none.
    pub fn answered(&mut self, question: &Question, answer: Lookup<Addresses>, now: Moment) {
        let entry = self.entries.get_mut(&question.name);
        let Some(half) = entry.and_then(|entry| entry.halves.get_mut(&question.family)) else { return };
        half.asked = false;
        let (addresses, hold) = match answer {
            Lookup::Found(Addresses { addresses, ttl }) => {
                (addresses, Duration::from_secs(ttl.into()).clamp(MIN_HOLD, MAX_HOLD))
            }
            Lookup::Absent => (Vec::new(), ABSENT_HOLD),
            Lookup::Unavailable(cause) => {
                (half.trouble, half.due) = (Some(cause), now + RETRY);
                return;
            }
        };
        half.take(question.family, addresses, now + hold);
        half.due = now + hold;
    }

    /// Whoever was asked is gone: every question that is under way has no answer.
    pub fn lost(&mut self, cause: &str, now: Moment) {
        for (_, _, half) in self.halves_mut().filter(|(_, _, half)| half.asked) {
            half.asked = false;
            (half.trouble, half.due) = (Some(cause.to_owned()), now + RETRY);
        }
    }

    /// Every address that an answer in force holds: what [`Surroundings`] need to know about.
    pub fn answers(&self) -> BTreeSet<IpAddr> {
        let halves = self.entries.values().flat_map(|entry| entry.halves.values());
        halves.flat_map(|half| half.answered.iter().copied()).collect()
    }

    /// Every address that a guarded name leads to.
    pub fn guarded(&self) -> BTreeSet<IpAddr> {
        let guards = self.entries.values().filter(|entry| entry.guards);
        let halves = guards.flat_map(|entry| entry.halves.values());
        halves.flat_map(|half| half.answered.iter().copied()).collect()
    }

    /// Judges every answer, which bypasses anew only when the guarded names have theirs, lets go what was
    /// kept long enough, and says what became different.
    pub fn judge(&mut self, surroundings: &Surroundings, now: Moment) -> Vec<Change> {
        let known = self.entries.values().filter(|entry| entry.guards).all(Entry::is_answered);
        let judged = self.entries.iter_mut().map(|(name, entry)| entry.judge(name, surroundings, known, now));
        judged.flatten().collect()
    }

    /// What bypasses, of all names together.
    pub fn bypassed(&self) -> BTreeSet<IpAddr> {
        self.entries.values().flat_map(|entry| entry.bypassed.iter().copied()).collect()
    }

    /// Each name, as it is shown.
    pub fn status(&self) -> Vec<NameStatus> {
        let bypassing = self.entries.iter().filter(|(_, entry)| entry.bypasses);
        bypassing.map(|(name, entry)| entry.status(name)).collect()
    }

    /// What should survive a restart.
    pub fn remembered(&self) -> Vec<Remembered> {
        let mut remembered = Vec::new();
        for (name, entry) in &self.entries {
            for (family, half) in &entry.halves {
                // That a guarded name leads nowhere must be known, too.
                let kept = half.until.filter(|_| entry.guards || !half.answered.is_empty());
                let Some(until) = kept else { continue };
                remembered.push(Remembered {
                    question: Question { name: name.clone(), family: *family },
                    addresses: half.answered.iter().copied().collect(),
                    until: until.as_secs(),
                });
            }
        }
        remembered
    }

    /// Takes up what an earlier run remembered, as far as it is asked for still; it will be asked for anew.
    pub fn recall(&mut self, remembered: Vec<Remembered>, now: Moment) {
        for Remembered { question, addresses, until } in remembered {
            let entry = self.entries.get_mut(&question.name);
            let half = entry.and_then(|entry| entry.halves.get_mut(&question.family));
            if let Some(half) = half.filter(|half| half.until.is_none()) {
                half.take(question.family, addresses, Duration::from_secs(until).min(now + MAX_HOLD));
            }
        }
    }

    fn halves_mut(&mut self) -> impl Iterator<Item = (&str, Family, &mut Half)> {
        self.entries.iter_mut().flat_map(|(name, entry)| {
            entry.halves.iter_mut().map(|(family, half)| (name.as_str(), *family, half))
        })
    }
}

impl Half {
    fn take(&mut self, family: Family, addresses: Vec<IpAddr>, until: Moment) {
        let mut addresses: Vec<IpAddr> =
            addresses.into_iter().filter(|address| family.has(address)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_ANSWERED);
        self.answered = addresses.into_iter().collect();
        self.until = Some(until);
        self.trouble = None;
    }

    /// Lets go an answer that was kept long enough.
    fn forget_old(&mut self, now: Moment) {
        if self.until.is_some_and(|until| now >= until + KEPT_WITHOUT_ANSWER) {
            (self.answered, self.until) = (BTreeSet::new(), None);
        }
    }
}

impl Entry {
    /// What bypasses no more, if the name is no longer one that bypasses.
    fn let_go(&mut self, name: &str) -> Option<Change> {
        if self.bypasses {
            return None;
        }
        self.refused.clear();
        let removed: Vec<IpAddr> = std::mem::take(&mut self.bypassed).into_iter().collect();
        let change = Change { name: name.to_owned(), added: Vec::new(), removed, refused: Vec::new() };
        (!change.removed.is_empty()).then_some(change)
    }

    /// Whether both families have an answer.
    fn is_answered(&self) -> bool {
        self.halves.values().all(|half| half.until.is_some())
    }

    /// `known`: every guarded name has an answer.
    fn judge(&mut self, name: &str, surroundings: &Surroundings, known: bool, now: Moment) -> Option<Change> {
        self.halves.values_mut().for_each(|half| half.forget_old(now));
        if !self.bypasses {
            return None;
        }
        let (mut bypassed, mut refused) = (BTreeSet::new(), BTreeMap::new());
        for address in self.in_turn() {
            match surroundings.judge(address) {
                Err(refusal) => {
                    refused.insert(address, refusal);
                }
                Ok(()) if !known && !self.bypassed.contains(&address) => {
                    refused.insert(address, Refusal::ServersUnknown);
                }
                Ok(()) if bypassed.len() == MAX_ADDRESSES => {
                    refused.insert(address, Refusal::TooMany);
                }
                Ok(()) => {
                    bypassed.insert(address);
                }
            }
        }
        let change = Change {
            name: name.to_owned(),
            added: bypassed.difference(&self.bypassed).copied().collect(),
            removed: self.bypassed.difference(&bypassed).copied().collect(),
            refused: refused
                .iter()
                .filter(|(address, refusal)| self.refused.get(address) != Some(refusal))
                .map(|(address, refusal)| (*address, *refusal))
                .collect(),
        };
        (self.bypassed, self.refused) = (bypassed, refused);
        let none = change.added.is_empty() && change.removed.is_empty() && change.refused.is_empty();
        (!none).then_some(change)
    }

    /// What was answered, one family and the other by turns: many of one leave room for the other.
    fn in_turn(&self) -> Vec<IpAddr> {
        let mut families: Vec<_> = self.halves.values().map(|half| half.answered.iter()).collect();
        let mut addresses = Vec::new();
        loop {
            let before = addresses.len();
            addresses.extend(families.iter_mut().filter_map(|family| family.next().copied()));
            if addresses.len() == before {
                return addresses;
            }
        }
    }

    fn status(&self, name: &str) -> NameStatus {
        let trouble = self.halves.values().find_map(|half| half.trouble.clone());
        NameStatus {
            name: name.to_owned(),
            addresses: self.bypassed.iter().copied().collect(),
            refused: self.refused.iter().map(|(address, why)| (*address, why.to_string())).collect(),
            problem: self.problem(trouble.as_deref()),
            trouble,
        }
    }

    /// Why nothing bypasses by this name. Nothing is said before it was asked for.
    fn problem(&self, trouble: Option<&str>) -> Option<String> {
        if !self.bypassed.is_empty() {
            return None;
        }
        if let Some(cause) = trouble {
            return Some(format!("no name server answers, so nothing bypasses by it: {cause}"));
        }
        if !self.refused.is_empty() {
            return Some(format!("none of its addresses may bypass: {}", listed(&self.refused)));
        }
        let answered = self.halves.values().all(|half| half.until.is_some());
        answered.then(|| "it has no address, so nothing bypasses by it".to_owned())
    }
}

/// Refused addresses, each with the reason; the first few of them.
pub fn listed<'a>(refused: impl IntoIterator<Item = (&'a IpAddr, &'a (impl fmt::Display + 'a))>) -> String {
    /// Addresses that a line shows.
    const MOST: usize = 16;
    let mut refused = refused.into_iter().map(|(address, why)| format!("{address} ({why})"));
    let mut text = refused.by_ref().take(MOST).collect::<Vec<_>>().join(", ");
    match refused.count() {
        0 => {}
        more => text += &format!(" and {more} more"),
    }
    text
}

#[cfg(test)]
mod tests;
