//! What others removed of the kernel side, how often it was put back, and how much of that is enough.
//!
//! Firewall scripts flush tables, systemd-networkd removes rules that aren't its own at each restart,
//! administrators try things. [`super::Datapath::verify`] looks and mends; here is what it says of it. Two
//! tools that undo each other's work must not do so as fast as they can: see [`MAX_MENDS_AT_EVENTS`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use super::TABLE;
use super::links::LOOK_EVERY;
use super::status::MendCount;
use crate::intercept::Family;

/// Mends at the kernel's word within [`MEND_WINDOW`]; with more of them somebody undoes each one, and only
/// every [`LOOK_EVERY`] something is mended.
const MAX_MENDS_AT_EVENTS: usize = 10;
/// The time that [`MAX_MENDS_AT_EVENTS`] and a part's place in the log are counted in.
const MEND_WINDOW: Duration = Duration::from_secs(60);
/// Parts whose mends are counted: interfaces may come and go by ever new names.
const MAX_COUNTED: usize = 512;

/// What makes us look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The kernel says that something changed.
    Event,
    /// A while has passed, or somebody asked.
    Look,
}

/// A part of the kernel side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Rule(Family, String),
    Route(Family),
    /// The TC program on an interface.
    Steer(String),
    /// Its place before all others there.
    First(String),
    /// The XDP program on an interface.
    Early(String),
    Reconnect,
    /// The pin of a map.
    Pin(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(family, interface) => write!(f, "the {} rule for {interface}", ip(*family)),
            Self::Route(family) => write!(f, "the {} route of table {}", ip(*family), TABLE),
            Self::Steer(interface) => write!(f, "the TC program on {interface}"),
            Self::First(interface) => write!(f, "the first place of the TC program on {interface}"),
            Self::Early(interface) => write!(f, "the XDP program on {interface}"),
            Self::Reconnect => f.write_str("the socket look-up program"),
            Self::Pin(map) => write!(f, "the pin of the map {map}"),
        }
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// What was mended, and what couldn't be.
#[derive(Debug, Default)]
pub(super) struct Mends {
    parts: BTreeMap<Part, Mended>,
    /// When it was last mended at the kernel's word, the oldest first.
    at_events: VecDeque<Instant>,
    missing: Vec<String>,
    /// Whether it has been said that somebody undoes our work.
    fight: bool,
}

#[derive(Debug)]
struct Mended {
    times: u64,
    last: Instant,
    /// When the log was last told.
    said: Instant,
}

impl Mends {
    /// Whether to mend what was found missing `now`.
    pub(super) fn may_mend(&mut self, occasion: Occasion, now: Instant) -> bool {
        while self.at_events.front().is_some_and(|first| now.duration_since(*first) >= MEND_WINDOW) {
            self.at_events.pop_front();
        }
        let may = occasion == Occasion::Look || self.at_events.len() < MAX_MENDS_AT_EVENTS;
        if occasion == Occasion::Event && may {
            self.at_events.push_back(now);
        }
        if self.at_events.is_empty() {
            self.fight = false;
        } else if !may && !std::mem::replace(&mut self.fight, true) {
            tracing::warn!(
                "another program removes what mailguard needs in the kernel again and again: from here on it is put back \
                 every {} s only. Find it (ip monitor rule route) and have it leave table {} alone; for \
                 systemd-networkd: ManageForeignRoutingPolicyRules=no, ManageForeignRoutes=no",
                LOOK_EVERY.as_secs(),
                TABLE
            );
        }
        may
    }

    /// `part` was missing and has been put back `now`. True when the log is to have it: each part once within
    /// [`MEND_WINDOW`].
    pub(super) fn count(&mut self, part: Part, now: Instant) -> bool {
        if let Some(mended) = self.parts.get_mut(&part) {
            mended.times += 1;
            mended.last = now;
            let due = now.duration_since(mended.said) >= MEND_WINDOW;
            if due {
                mended.said = now;
            }
            return due;
        }
        if self.parts.len() >= MAX_COUNTED {
            let oldest =
                self.parts.iter().min_by_key(|(_, mended)| mended.last).map(|(part, _)| part.clone());
            self.parts.remove(&oldest.unwrap_or_else(|| part.clone()));
        }
        self.parts.insert(part, Mended { times: 1, last: now, said: now });
        true
    }

    /// What is missing now. True when the log is to have it: anything, and something else than before.
    pub(super) fn set_missing(&mut self, missing: Vec<String>) -> bool {
        let news = !missing.is_empty() && missing != self.missing;
        self.missing = missing;
        news
    }

    /// What is missing now.
    pub(super) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// How often what was mended, as of `now`.
    pub(super) fn counts(&self, now: Instant) -> Vec<MendCount> {
        let count = |(part, mended): (&Part, &Mended)| MendCount {
            what: part.to_string(),
            times: mended.times,
            last_seconds_ago: now.duration_since(mended.last).as_secs(),
        };
        self.parts.iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(interface: &str) -> Part {
        Part::Rule(Family::V4, interface.to_owned())
    }

    #[test]
    fn a_fight_with_another_tool_is_slowed_down_to_the_looks() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut mends = Mends::default();
        let mended = (0..1_000).filter(|n| mends.may_mend(Occasion::Event, at(n * 20))).count();
        assert_eq!(mended, MAX_MENDS_AT_EVENTS);
        assert!(mends.may_mend(Occasion::Look, at(20_000)), "the look of every few seconds goes on mending");
        assert!(!mends.may_mend(Occasion::Event, at(20_001)), "which changes nothing for events");
        assert!(mends.may_mend(Occasion::Event, at(60_000)), "the first of them is a minute ago");
    }

    #[test]
    fn each_part_is_counted_and_logged_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut mends = Mends::default();
        let said = [0, 3, 6, 59, 60, 63].map(|second| mends.count(rule("lan0"), at(second)));
        assert_eq!(said, [true, false, false, false, true, false]);
        assert!(mends.count(Part::Route(Family::V6), at(63)), "another part");
        let counts: Vec<_> =
            mends.counts(at(65)).into_iter().map(|c| (c.what, c.times, c.last_seconds_ago)).collect();
        let expect =
            [("the IPv4 rule for lan0".to_owned(), 6, 2), ("the IPv6 route of table 2525".to_owned(), 1, 2)];
        assert_eq!(counts, expect);
    }

    #[test]
    fn counts_dont_grow_with_the_names_of_interfaces() {
        let start = Instant::now();
        let mut mends = Mends::default();
        for n in 0..=MAX_COUNTED as u64 {
            mends.count(rule(&format!("ppp{n}")), start + Duration::from_millis(n));
        }
        assert_eq!(mends.parts.len(), MAX_COUNTED);
        assert!(!mends.parts.contains_key(&rule("ppp0")), "the oldest is forgotten");
    }
}
