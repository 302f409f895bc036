//! When which message is tried, and how many attempts run at once, in all and to one next hop.
//!
//! Pure: time is handed in, nothing is started here. `queue` does what it says: asks what is due, routes it,
//! puts it in line for its next hop, starts what may start, and reports how the next hop did. A next hop that
//! turns some away while it serves others gets as many at once as it serves, and one more now and then. One
//! that serves nobody rests as a whole and is then tried with one attempt; nothing in line for it holds up
//! anybody else. Nor do next hops that don't answer: those that an administrator named, those that answered
//! lately, new ones and failing ones have places of their own, names are looked up before a place is taken,
//! and there are as many places as an outage has victims (docs/adr/0016). (RFC 5321 §4.5.4.1: retries by next
//! hop, spaced out, given up after days.)

mod hop;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use crate::mail::{QueueId, UnixTime};
use crate::route::Route;

pub use self::hop::Standing;

use self::hop::{Hop, Names};

/// How many standings next hops have: each has [`Limits::places`] and [`Limits::lookups`] of its own.
pub const STANDINGS: usize = Standing::ALL.len();

/// Next hops that are remembered; beyond it those that rest no longer are forgotten.
const MAX_REMEMBERED_HOPS: usize = 10_000;

/// When to try again, and when no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After the first attempt.
    pub min: Duration,
    /// It doubles up to this.
    pub max: Duration,
    /// Given up so long after the message came.
    pub give_up_after: Duration,
}

impl RetryPolicy {
    /// How long to wait after so many failures in a row, at least one.
    pub fn interval(&self, failures: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).and_then(|n| self.min.checked_mul(n));
        doubled.unwrap_or(self.max).min(self.max)
    }

    /// The next attempt for what came at `received_at` and has failed `attempts` times, the last time at
    /// `now`; nothing when it is given up. The last attempt is made when the time is up, not an interval
    /// before.
    pub fn next(&self, received_at: UnixTime, attempts: u32, now: UnixTime) -> Option<UnixTime> {
        let end = received_at.plus(self.give_up_after);
        (now < end).then(|| now.plus(self.interval(attempts)).min(end))
    }
}

/// How many attempts run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// To next hops of one standing.
    pub places: usize,
    /// To one next hop.
    pub per_hop: usize,
    /// Next hops of one standing whose names are looked up.
    pub lookups: usize,
}

/// What an attempt said about the next hop itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered, whatever it said to this message.
    Answers,
    /// It didn't, or wants no mail now.
    Fails,
}

/// Where something in line went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed<T> {
    /// In line.
    Waiting,
    /// The next hop rests until then: it comes back.
    BackingOff(UnixTime, T),
}

/// An attempt to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start<T, N> {
    /// To which next hop.
    pub route: Route,
    /// What its names lead to; none: it is an address.
    pub names: Option<N>,
    /// How the next hop stands.
    pub standing: Standing,
    /// What.
    pub work: T,
}

/// Everything that waits. `T` is one attempt's worth of work, `N` what the DNS says of a next hop.
#[derive(Debug)]
pub struct Schedule<T, N> {
    limits: Limits,
    /// May hold times that `due` no longer says: those are skipped.
    times: BinaryHeap<Reverse<(UnixTime, QueueId)>>,
    due: HashMap<QueueId, UnixTime>,
    hops: HashMap<Route, Hop<T, N>>,
    /// One a standing.
    rooms: [Room; STANDINGS],
}

/// The places of one standing. The lines may hold next hops that stand otherwise by now: those are skipped.
#[derive(Debug, Default)]
struct Room {
    /// The next hops that could start an attempt, in turn.
    turn: VecDeque<Route>,
    in_flight: usize,
    /// The next hops whose names are to be looked up, in turn.
    nameless: VecDeque<Route>,
    lookups: usize,
}

impl<T, N: Clone> Schedule<T, N> {
    /// An empty schedule.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            times: BinaryHeap::new(),
            due: HashMap::new(),
            hops: HashMap::new(),
            rooms: Default::default(),
        }
    }

    /// Makes the message due at `at`, or keeps an earlier time.
    pub fn set_due(&mut self, id: QueueId, at: UnixTime) {
        if self.due.get(&id).is_none_or(|&earlier| at < earlier) {
            self.due.insert(id, at);
            self.times.push(Reverse((at, id)));
        }
    }

    /// The message isn't due any more.
    pub fn forget(&mut self, id: QueueId) {
        self.due.remove(&id);
    }

    /// When the message is due.
    pub fn due(&self, id: QueueId) -> Option<UnixTime> {
        self.due.get(&id).copied()
    }

    /// The next message that is due: it isn't any more.
    pub fn poll_due(&mut self, now: UnixTime) -> Option<QueueId> {
        while let Some(&Reverse((at, id))) = self.times.peek() {
            if at > now {
                return None;
            }
            self.times.pop();
            if self.due.get(&id) == Some(&at) {
                self.due.remove(&id);
                return Some(id);
            }
        }
        None
    }

    /// When [`Schedule::poll_due`] has something to say.
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.times.peek().map(|&Reverse((at, _))| at)
    }

    /// Puts work in line for its next hop, unless that rests.
    pub fn enqueue(&mut self, now: UnixTime, route: &Route, work: T) -> Placed<T> {
        if self.hops.len() >= MAX_REMEMBERED_HOPS {
            self.hops.retain(|_, hop| !hop.is_idle() || now < hop.backoff_until);
        }
        let hop = self.hops.entry(route.clone()).or_insert_with(|| Hop::new(route, self.limits));
        if now < hop.backoff_until {
            return Placed::BackingOff(hop.backoff_until, work);
        }
        hop.waiting.push_back(work);
        self.look_at(now, route);
        Placed::Waiting
    }

    /// The next hop whose names are to be looked up: it counts until [`Schedule::looked_up`].
    pub fn poll_lookup(&mut self) -> Option<Route> {
        for standing in Standing::ALL {
            let room = &mut self.rooms[standing as usize];
            while room.lookups < self.limits.lookups
                && let Some(route) = room.nameless.pop_front()
            {
                let Some(hop) = self.hops.get_mut(&route) else { continue };
                if !matches!(hop.names, Names::InLine) || hop.standing != standing {
                    continue;
                }
                if hop.waiting.is_empty() {
                    hop.names = Names::Unknown;
                    continue;
                }
                hop.names = Names::Asked(standing);
                room.lookups += 1;
                return Some(route);
            }
        }
        None
    }

    /// The names of a next hop lead to this, and that holds until `until`.
    pub fn looked_up(&mut self, now: UnixTime, route: &Route, names: N, until: UnixTime) {
        if let Some(hop) = self.hops.get_mut(route)
            && let Names::Asked(standing) = hop.names
        {
            self.rooms[standing as usize].lookups -= 1;
            hop.names = Names::Known(names, until);
        }
        self.look_at(now, route);
    }

    /// The next attempt to start: it counts as in flight until [`Schedule::finished`]. Next hops of one
    /// standing take turns.
    pub fn poll_start(&mut self, now: UnixTime) -> Option<Start<T, N>> {
        Standing::ALL.into_iter().find_map(|standing| self.poll_start_of(now, standing))
    }

    fn poll_start_of(&mut self, now: UnixTime, standing: Standing) -> Option<Start<T, N>> {
        while self.rooms[standing as usize].in_flight < self.limits.places {
            let route = self.rooms[standing as usize].turn.pop_front()?;
            let Some(hop) = self.hops.get_mut(&route) else { continue };
            if !hop.in_turn || hop.standing != standing {
                continue;
            }
            hop.in_turn = false;
            if matches!(hop.names, Names::Known(_, until) if until <= now) {
                hop.names = Names::Unknown;
            }
            let names = match &hop.names {
                Names::Known(names, _) => Some(names.clone()),
                Names::Needless => None,
                Names::Unknown | Names::InLine | Names::Asked(_) => {
                    self.look_at(now, &route);
                    continue;
                }
            };
            if !hop.may_start() {
                self.forget_hop(&route);
                continue;
            }
            let Some(work) = hop.waiting.pop_front() else { continue };
            hop.in_flight += 1;
            self.rooms[standing as usize].in_flight += 1;
            self.look_at(now, &route);
            return Some(Start { route, names, standing, work });
        }
        None
    }

    /// An attempt ended. When the next hop failed, and no other attempt is under way that may say otherwise,
    /// it rests now, and everything in line for it comes back, to be due when the rest is over.
    pub fn finished(
        &mut self,
        now: UnixTime,
        route: &Route,
        health: Health,
        policy: &RetryPolicy,
    ) -> Option<(UnixTime, VecDeque<T>)> {
        self.leaves(route);
        let hop = self.hops.get_mut(route)?;
        let mut sent_back = None;
        match health {
            Health::Answers => hop.answered(now, self.limits),
            // Attempts that began before the rest say nothing new.
            Health::Fails if now < hop.backoff_until => {}
            Health::Fails if hop.failures == 0 && hop.in_flight > 0 => hop.shrink(),
            Health::Fails => {
                hop.failures = hop.failures.saturating_add(1);
                // Of how many it serves at once this says nothing.
                (hop.allowed, hop.answers) = (self.limits.per_hop, 0);
                hop.backoff_until = now.plus(policy.interval(hop.failures));
                sent_back = Some((hop.backoff_until, std::mem::take(&mut hop.waiting)));
            }
        }
        self.look_at(now, route);
        self.forget_hop(route);
        sent_back
    }

    /// An attempt that [`Schedule::poll_start`] gave out wasn't made: it says nothing about the next hop.
    pub fn abandoned(&mut self, now: UnixTime, route: &Route) {
        self.leaves(route);
        self.look_at(now, route);
        self.forget_hop(route);
    }

    /// Ends the rest of a next hop, at an administrator's word.
    pub fn wake(&mut self, route: &Route) {
        if let Some(hop) = self.hops.get_mut(route) {
            hop.backoff_until = UnixTime(0);
        }
    }

    /// Whether the next hop failed, and no attempt at it is due yet.
    pub fn backs_off(&self, route: &Route, now: UnixTime) -> bool {
        self.hops.get(route).is_some_and(|hop| now < hop.backoff_until)
    }

    /// Attempts that run.
    pub fn in_flight(&self) -> usize {
        self.rooms.iter().map(|room| room.in_flight).sum()
    }

    /// An attempt gives its place back.
    fn leaves(&mut self, route: &Route) {
        if let Some(hop) = self.hops.get_mut(route) {
            hop.in_flight = hop.in_flight.saturating_sub(1);
            let room = &mut self.rooms[hop.standing as usize];
            room.in_flight = room.in_flight.saturating_sub(1);
        }
    }

    /// Puts a next hop in the line in which it belongs now.
    fn look_at(&mut self, now: UnixTime, route: &Route) {
        let Some(hop) = self.hops.get_mut(route) else { return };
        let standing = hop.judged(now);
        let there = &self.rooms[standing as usize];
        // Its attempts take their places along, if there is room: so there are never more in all than places.
        let moves = standing != hop.standing
            && (hop.in_flight == 0 || there.in_flight + hop.in_flight <= self.limits.places);
        if moves {
            self.rooms[hop.standing as usize].in_flight -= hop.in_flight;
            self.rooms[standing as usize].in_flight += hop.in_flight;
            hop.standing = standing;
        }
        let room = &mut self.rooms[hop.standing as usize];
        match hop.names {
            Names::Unknown if hop.may_start() => {
                hop.names = Names::InLine;
                room.nameless.push_back(route.clone());
            }
            Names::InLine if moves => room.nameless.push_back(route.clone()),
            Names::Unknown | Names::InLine | Names::Asked(_) => {}
            Names::Known(..) | Names::Needless => {
                if hop.in_turn && moves || !hop.in_turn && hop.may_start() {
                    hop.in_turn = true;
                    room.turn.push_back(route.clone());
                }
            }
        }
    }

    /// Forgets a next hop of which there is nothing to remember.
    fn forget_hop(&mut self, route: &Route) {
        if self.hops.get(route).is_some_and(|hop| hop.is_forgettable(self.limits)) {
            self.hops.remove(route);
        }
    }
}

#[cfg(test)]
mod tests;
