//! When which message is tried, and how many attempts run at once, in all and to one next hop.
//!
//! Pure: time is handed in, nothing is started here. `queue` does what it says: asks what is due, routes it, puts it
//! in line for its next hop, starts what may start, and reports how the next hop did. A next hop that turns some away while
//! it serves others gets as many at once as it serves, and one more now and then. One that serves nobody rests as a whole and
//! is then tried with one attempt; nothing in line for it holds up anybody else.
//! (RFC 5321 §4.5.4.1: retries by next hop, spaced out, given up after days.)

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use crate::mail::{QueueId, UnixTime};
use crate::route::Route;

/// Next hops whose failures are remembered; beyond it those that rested long enough are forgotten.
const MAX_REMEMBERED_HOPS: usize = 10_000;

/// So many attempts at a next hop that wants fewer at once must be answered, for each that it gets, before it gets one more.
const ANSWERS_BEFORE_MORE: usize = 10;

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

    /// The next attempt for what came at `received_at` and has failed `attempts` times, the last time at `now`;
    /// nothing when it is given up. The last attempt is made when the time is up, not an interval before.
    pub fn next(&self, received_at: UnixTime, attempts: u32, now: UnixTime) -> Option<UnixTime> {
        let end = received_at.plus(self.give_up_after);
        (now < end).then(|| now.plus(self.interval(attempts)).min(end))
    }
}

/// How many attempts run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub in_flight: usize,
    /// To one next hop.
    pub per_hop: usize,
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
    Resting(UnixTime, T),
}

/// Everything that waits. `T` is one attempt's worth of work.
#[derive(Debug)]
pub struct Schedule<T> {
    limits: Limits,
    /// May hold times that `due` no longer says: those are skipped.
    times: BinaryHeap<Reverse<(UnixTime, QueueId)>>,
    due: HashMap<QueueId, UnixTime>,
    hops: HashMap<Route, Hop<T>>,
    /// The next hops that could start an attempt, each once, in turn.
    turn: VecDeque<Route>,
    in_flight: usize,
}

#[derive(Debug)]
struct Hop<T> {
    waiting: VecDeque<T>,
    in_flight: usize,
    in_turn: bool,
    /// So many attempts at once, as it has shown.
    allowed: usize,
    /// Since `allowed` changed.
    answers: usize,
    /// In a row.
    failures: u32,
    rests_until: UnixTime,
}

impl<T> Hop<T> {
    fn new(limits: Limits) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
            in_turn: false,
            allowed: limits.per_hop,
            answers: 0,
            failures: 0,
            rests_until: UnixTime(0),
        }
    }

    /// Nothing waits or runs.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0 && !self.in_turn
    }

    /// One attempt tells whether a next hop that failed is back.
    fn may_start(&self) -> bool {
        let allowed = if self.failures > 0 { 1 } else { self.allowed };
        !self.waiting.is_empty() && self.in_flight < allowed
    }

    /// It answered.
    fn grow(&mut self, limits: Limits) {
        self.answers += 1;
        if self.allowed < limits.per_hop && self.answers >= ANSWERS_BEFORE_MORE * self.allowed {
            self.allowed += 1;
            self.answers = 0;
        }
    }

    /// It turned one away while others are under way.
    fn shrink(&mut self) {
        self.allowed = self.in_flight;
        self.answers = 0;
    }
}

impl<T> Schedule<T> {
    /// An empty schedule.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            times: BinaryHeap::new(),
            due: HashMap::new(),
            hops: HashMap::new(),
            turn: VecDeque::new(),
            in_flight: 0,
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
    pub fn enqueue(&mut self, now: UnixTime, next_hop: &Route, work: T) -> Placed<T> {
        if self.hops.len() >= MAX_REMEMBERED_HOPS {
            self.hops.retain(|_, hop| !hop.is_idle() || now < hop.rests_until);
        }
        let hop = self.hops.entry(next_hop.clone()).or_insert_with(|| Hop::new(self.limits));
        if now < hop.rests_until {
            return Placed::Resting(hop.rests_until, work);
        }
        hop.waiting.push_back(work);
        self.take_turn(next_hop);
        Placed::Waiting
    }

    /// The next attempt to start: it counts as in flight until [`Schedule::finished`]. Next hops take turns.
    pub fn poll_start(&mut self) -> Option<(Route, T)> {
        if self.in_flight >= self.limits.in_flight {
            return None;
        }
        while let Some(next_hop) = self.turn.pop_front() {
            let Some(hop) = self.hops.get_mut(&next_hop) else { continue };
            hop.in_turn = false;
            if !hop.may_start() {
                self.forget_hop(&next_hop);
                continue;
            }
            let Some(work) = hop.waiting.pop_front() else { continue };
            hop.in_flight += 1;
            self.in_flight += 1;
            self.take_turn(&next_hop);
            return Some((next_hop, work));
        }
        None
    }

    /// An attempt ended. When the next hop failed, and no other attempt is under way that may say otherwise, it rests now, and everything in line for it comes back, to be due
    /// when the rest is over.
    pub fn finished(
        &mut self,
        now: UnixTime,
        next_hop: &Route,
        health: Health,
        policy: &RetryPolicy,
    ) -> Option<(UnixTime, VecDeque<T>)> {
        let hop = self.hops.get_mut(next_hop)?;
        hop.in_flight = hop.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        let mut sent_back = None;
        match health {
            Health::Answers => {
                hop.failures = 0;
                hop.rests_until = UnixTime(0);
                hop.grow(self.limits);
            }
            // Attempts that began before the rest say nothing new.
            Health::Fails if now < hop.rests_until => {}
            Health::Fails if hop.failures == 0 && hop.in_flight > 0 => hop.shrink(),
            Health::Fails => {
                hop.failures = hop.failures.saturating_add(1);
                // Of how many it serves at once this says nothing.
                (hop.allowed, hop.answers) = (self.limits.per_hop, 0);
                hop.rests_until = now.plus(policy.interval(hop.failures));
                sent_back = Some((hop.rests_until, std::mem::take(&mut hop.waiting)));
            }
        }
        self.take_turn(next_hop);
        self.forget_hop(next_hop);
        sent_back
    }

    /// An attempt that [`Schedule::poll_start`] gave out wasn't made: it says nothing about the next hop.
    pub fn abandoned(&mut self, next_hop: &Route) {
        if let Some(hop) = self.hops.get_mut(next_hop) {
            hop.in_flight = hop.in_flight.saturating_sub(1);
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        self.take_turn(next_hop);
        self.forget_hop(next_hop);
    }

    /// Ends the rest of a next hop, at an administrator's word.
    pub fn wake(&mut self, next_hop: &Route) {
        if let Some(hop) = self.hops.get_mut(next_hop) {
            hop.rests_until = UnixTime(0);
        }
    }

    /// Whether the next hop failed, and no attempt at it is due yet.
    pub fn rests(&self, next_hop: &Route, now: UnixTime) -> bool {
        self.hops.get(next_hop).is_some_and(|hop| now < hop.rests_until)
    }

    /// Attempts that run.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn take_turn(&mut self, next_hop: &Route) {
        if let Some(hop) = self.hops.get_mut(next_hop)
            && !hop.in_turn
            && hop.may_start()
        {
            hop.in_turn = true;
            self.turn.push_back(next_hop.clone());
        }
    }

    /// Forgets a next hop of which there is nothing to remember.
    fn forget_hop(&mut self, next_hop: &Route) {
        if self
            .hops
            .get(next_hop)
            .is_some_and(|hop| hop.is_idle() && hop.failures == 0 && hop.allowed == self.limits.per_hop)
        {
            self.hops.remove(next_hop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Tls;
    use crate::mail::Domain;
    use crate::route::NextHop;

    const MINUTE: Duration = Duration::from_secs(60);
    const POLICY: RetryPolicy = RetryPolicy {
        min: Duration::from_secs(300),
        max: Duration::from_secs(3600),
        give_up_after: Duration::from_secs(86_400),
    };

    fn hop(name: &str) -> Route {
        let next_hop = NextHop::Mx(Domain::parse(name).unwrap());
        Route { next_hop, outgoing: None, tls: Tls::Off, smarthost: None }
    }

    fn at(minutes: u64) -> UnixTime {
        UnixTime(minutes * 60_000_000)
    }

    #[test]
    fn intervals_double_up_to_the_greatest() {
        for (failures, minutes) in
            [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (40, 60), (u32::MAX, 60)]
        {
            assert_eq!(POLICY.interval(failures), MINUTE * minutes, "after {failures}");
        }
    }

    #[test]
    fn the_last_attempt_is_made_when_the_time_is_up() {
        let day = 24 * 60;
        for (attempts, now, next) in [
            (1, 0, Some(5)),
            (2, 5, Some(15)),
            (9, 100, Some(160)),
            (9, day - 10, Some(day)),
            (9, day - 1, Some(day)),
            (9, day, None),
            (9, day + 1, None),
        ] {
            assert_eq!(POLICY.next(at(0), attempts, at(now)), next.map(at), "{attempts} at {now}");
        }
    }

    #[test]
    fn due_times_keep_the_earliest() {
        let mut schedule = Schedule::<()>::new(Limits { in_flight: 1, per_hop: 1 });
        schedule.set_due(QueueId(1), at(20));
        schedule.set_due(QueueId(2), at(10));
        schedule.set_due(QueueId(1), at(5));
        schedule.set_due(QueueId(1), at(7));
        schedule.set_due(QueueId(3), at(6));
        schedule.forget(QueueId(3));
        assert_eq!(schedule.poll_timeout(), Some(at(5)));
        assert_eq!(schedule.poll_due(at(4)), None);
        assert_eq!(schedule.poll_due(at(9)), Some(QueueId(1)));
        assert_eq!(schedule.poll_due(at(9)), None);
        assert_eq!(schedule.poll_due(at(30)), Some(QueueId(2)));
        assert_eq!(schedule.poll_due(at(30)), None);
        assert_eq!(schedule.poll_timeout(), None);
    }

    #[test]
    fn next_hops_take_turns_within_their_limits() {
        let mut schedule = Schedule::new(Limits { in_flight: 5, per_hop: 3 });
        for work in 0..10 {
            schedule.enqueue(at(0), &hop("a.test"), work);
        }
        schedule.enqueue(at(0), &hop("b.test"), 10);
        let started: Vec<_> = std::iter::from_fn(|| schedule.poll_start()).map(|(_, work)| work).collect();
        assert_eq!(started, [0, 10, 1, 2]);
        schedule.finished(at(0), &hop("a.test"), Health::Answers, &POLICY);
        schedule.enqueue(at(0), &hop("c.test"), 11);
        schedule.enqueue(at(0), &hop("c.test"), 12);
        let started: Vec<_> = std::iter::from_fn(|| schedule.poll_start()).map(|(_, work)| work).collect();
        assert_eq!(started, [3, 11]);
        assert_eq!(schedule.in_flight(), 5);
    }

    #[test]
    fn a_next_hop_that_fails_rests_and_is_tried_with_one_attempt() {
        let dead = hop("dead.test");
        let mut schedule = Schedule::new(Limits { in_flight: 10, per_hop: 2 });
        for work in 0..4 {
            schedule.enqueue(at(0), &dead, work);
        }
        assert!(schedule.poll_start().is_some() && schedule.poll_start().is_some());
        assert_eq!(schedule.finished(at(1), &dead, Health::Fails, &POLICY), None, "another is under way");
        assert_eq!(schedule.poll_start(), None, "and no more are made until it says something");
        let back = schedule.finished(at(1), &dead, Health::Fails, &POLICY);
        assert_eq!(back, Some((at(6), VecDeque::from([2, 3]))));
        assert_eq!(schedule.enqueue(at(2), &dead, 2), Placed::Resting(at(6), 2));
        assert_eq!(schedule.enqueue(at(2), &hop("other.test"), 9), Placed::Waiting);
        assert_eq!(schedule.poll_start(), Some((hop("other.test"), 9)));

        for work in [2, 3] {
            assert_eq!(schedule.enqueue(at(6), &dead, work), Placed::Waiting);
        }
        assert_eq!(schedule.poll_start(), Some((dead.clone(), 2)));
        assert_eq!(schedule.poll_start(), None, "one attempt tells");
        let back = schedule.finished(at(6), &dead, Health::Fails, &POLICY);
        assert_eq!(back, Some((at(16), VecDeque::from([3]))), "twice as long");

        schedule.wake(&dead);
        for work in [2, 3, 4] {
            assert_eq!(schedule.enqueue(at(7), &dead, work), Placed::Waiting);
        }
        assert_eq!(schedule.poll_start(), Some((dead.clone(), 2)));
        assert_eq!(schedule.finished(at(7), &dead, Health::Answers, &POLICY), None);
        assert_eq!(schedule.poll_start().map(|(_, work)| work), Some(3));
        assert_eq!(schedule.poll_start().map(|(_, work)| work), Some(4), "back to its limit");
    }

    /// A server that serves four at once and turns away who comes beyond.
    #[test]
    fn a_server_that_takes_few_at_once_gets_few_and_does_not_rest() {
        const SERVES: usize = 4;
        const MESSAGES: usize = 1_000;
        let few = hop("few.test");
        let mut schedule = Schedule::new(Limits { in_flight: 200, per_hop: 20 });
        for work in 0..MESSAGES {
            assert_eq!(schedule.enqueue(at(0), &few, work), Placed::Waiting);
        }
        let (mut served, mut turned_away) = (0, 0);
        loop {
            let running = std::iter::from_fn(|| schedule.poll_start()).count();
            if running == 0 {
                break;
            }
            for _ in SERVES..running {
                turned_away += 1;
                assert_eq!(schedule.finished(at(0), &few, Health::Fails, &POLICY), None, "it rests");
            }
            for _ in 0..running.min(SERVES) {
                served += 1;
                schedule.finished(at(0), &few, Health::Answers, &POLICY);
            }
        }
        assert_eq!(served + turned_away, MESSAGES);
        // Sixteen at the beginning, then one for each forty that are served.
        assert!((17..45).contains(&turned_away), "{turned_away} of {MESSAGES} were turned away");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enqueue(usize),
        Start,
        Finish(usize, bool),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_usize).prop_map(Step::Enqueue),
            Just(Step::Start),
            (0..8_usize, any::<bool>()).prop_map(|(which, fails)| Step::Finish(which, fails)),
            (0..20_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens: limits hold, a resting hop is left alone, every work is at one place, and all of it
        /// starts in the end.
        #[test]
        fn nothing_is_lost_started_twice_or_stuck(steps in proptest::collection::vec(step(), 0..200)) {
            let limits = Limits { in_flight: 6, per_hop: 3 };
            let mut schedule = Schedule::new(limits);
            let mut returned: Vec<(Route, usize)> = Vec::new();
            let mut running: Vec<(Route, usize)> = Vec::new();
            let mut seen = HashSet::new();
            let (mut now, mut works) = (0, 0);
            for step in steps {
                match step {
                    Step::Enqueue(which) => {
                        let to = hop(&format!("h{which}.test"));
                        if let Placed::Resting(until, work) = schedule.enqueue(at(now), &to, works) {
                            prop_assert!(until > at(now));
                            returned.push((to, work));
                        }
                        works += 1;
                    }
                    Step::Start => {
                        if let Some((to, work)) = schedule.poll_start() {
                            prop_assert!(seen.insert(work), "{work} started twice");
                            running.push((to.clone(), work));
                            prop_assert!(running.len() <= limits.in_flight);
                            prop_assert!(running.iter().filter(|(hop, _)| *hop == to).count() <= limits.per_hop);
                        }
                    }
                    Step::Finish(which, fails) if !running.is_empty() => {
                        let (to, _) = running.swap_remove(which % running.len());
                        let health = if fails { Health::Fails } else { Health::Answers };
                        if let Some((until, back)) = schedule.finished(at(now), &to, health, &POLICY) {
                            prop_assert!(until > at(now));
                            returned.extend(back.into_iter().map(|work| (to.clone(), work)));
                        }
                    }
                    Step::Finish(..) => {}
                    Step::Pass(minutes) => now += minutes,
                }
            }
            // Everybody recovers: all that was sent back or waits must get its turn.
            now += 10_000;
            for (to, _) in running.drain(..) {
                schedule.finished(at(now), &to, Health::Answers, &POLICY);
            }
            for (to, work) in returned {
                prop_assert_eq!(schedule.enqueue(at(now), &to, work), Placed::Waiting);
            }
            while let Some((to, work)) = schedule.poll_start() {
                prop_assert!(seen.insert(work), "{work} started twice");
                schedule.finished(at(now), &to, Health::Answers, &POLICY);
            }
            prop_assert_eq!(seen.len(), works);
            let is_remembered = |hop: &Hop<usize>| hop.failures > 0 || hop.allowed < limits.per_hop;
            prop_assert!(schedule.hops.values().all(|hop| hop.is_idle() && is_remembered(hop)), "and nothing else");
        }
    }
}
