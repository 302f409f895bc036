//! Schedules by hand, and a simulation in which time is a number.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::config::model::Tls;
use crate::mail::Domain;
use crate::route::{NamedBy, NextHop, OriginalDestination};

const MINUTE: Duration = Duration::from_secs(60);
const POLICY: RetryPolicy = RetryPolicy {
    min: Duration::from_secs(300),
    max: Duration::from_secs(3600),
    give_up_after: Duration::from_secs(86_400),
};

fn hop(name: &str) -> Route {
    let next_hop = NextHop::Mx(Domain::parse(name).unwrap());
    Route {
        next_hop,
        outgoing: None,
        tls: Tls::Off,
        smarthost: None,
        named_by: NamedBy::Mail,
        original_destination: OriginalDestination::NotAsked,
    }
}

fn at(minutes: u64) -> UnixTime {
    UnixTime(minutes * 60_000_000)
}

/// What starts next, where each name is known at once and for a minute.
fn start<T>(schedule: &mut Schedule<T, ()>, now: UnixTime) -> Option<(Route, T)> {
    loop {
        while let Some(route) = schedule.poll_lookup() {
            schedule.looked_up(now, &route, (), now.plus(MINUTE));
        }
        let started = schedule.poll_start(now);
        // A name that is known no longer is asked for again.
        if started.is_some() || schedule.rooms.iter().all(|room| room.nameless.is_empty()) {
            return started.map(|start| (start.route, start.work));
        }
    }
}

#[test]
fn intervals_double_up_to_the_greatest() {
    for (failures, minutes) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (40, 60), (u32::MAX, 60)]
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
    let mut schedule = Schedule::<(), ()>::new(Limits { places: 1, per_hop: 1, lookups: 1 });
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
    let mut schedule = Schedule::new(Limits { places: 5, per_hop: 3, lookups: 9 });
    for work in 0..10 {
        schedule.enqueue(at(0), &hop("a.test"), work);
    }
    schedule.enqueue(at(0), &hop("b.test"), 10);
    let started: Vec<_> = std::iter::from_fn(|| start(&mut schedule, at(0))).map(|(_, work)| work).collect();
    assert_eq!(started, [0, 10, 1, 2]);
    schedule.finished(at(0), &hop("a.test"), Health::Answers, &POLICY);
    schedule.enqueue(at(0), &hop("c.test"), 11);
    schedule.enqueue(at(0), &hop("c.test"), 12);
    let started: Vec<_> = std::iter::from_fn(|| start(&mut schedule, at(0))).map(|(_, work)| work).collect();
    assert_eq!(started, [3, 11, 12], "the one that answered has taken its attempts along");
    assert_eq!(schedule.in_flight(), 6);
}

#[test]
fn a_next_hop_that_fails_rests_and_is_tried_with_one_attempt() {
    let dead = hop("dead.test");
    let mut schedule = Schedule::new(Limits { places: 10, per_hop: 2, lookups: 9 });
    for work in 0..4 {
        schedule.enqueue(at(0), &dead, work);
    }
    assert!(start(&mut schedule, at(0)).is_some() && start(&mut schedule, at(0)).is_some());
    assert_eq!(schedule.finished(at(1), &dead, Health::Fails, &POLICY), None, "another is under way");
    assert_eq!(start(&mut schedule, at(1)), None, "and no more are made until it says something");
    let back = schedule.finished(at(1), &dead, Health::Fails, &POLICY);
    assert_eq!(back, Some((at(6), VecDeque::from([2, 3]))));
    assert_eq!(schedule.enqueue(at(2), &dead, 2), Placed::BackingOff(at(6), 2));
    assert_eq!(schedule.enqueue(at(2), &hop("other.test"), 9), Placed::Waiting);
    assert_eq!(start(&mut schedule, at(2)), Some((hop("other.test"), 9)));

    for work in [2, 3] {
        assert_eq!(schedule.enqueue(at(6), &dead, work), Placed::Waiting);
    }
    assert_eq!(start(&mut schedule, at(6)), Some((dead.clone(), 2)));
    assert_eq!(start(&mut schedule, at(6)), None, "one attempt tells");
    let back = schedule.finished(at(6), &dead, Health::Fails, &POLICY);
    assert_eq!(back, Some((at(16), VecDeque::from([3]))), "twice as long");

    schedule.wake(&dead);
    for work in [2, 3, 4] {
        assert_eq!(schedule.enqueue(at(7), &dead, work), Placed::Waiting);
    }
    assert_eq!(start(&mut schedule, at(7)), Some((dead.clone(), 2)));
    assert_eq!(schedule.finished(at(7), &dead, Health::Answers, &POLICY), None);
    assert_eq!(start(&mut schedule, at(7)).map(|(_, work)| work), Some(3));
    assert_eq!(start(&mut schedule, at(7)).map(|(_, work)| work), Some(4), "back to its limit");
}

/// A server that serves four at once and turns away who comes beyond.
#[test]
fn a_server_that_takes_few_at_once_gets_few_and_does_not_rest() {
    const SERVES: usize = 4;
    const MESSAGES: usize = 1_000;
    let few = hop("few.test");
    let mut schedule = Schedule::new(Limits { places: 200, per_hop: 20, lookups: 9 });
    for work in 0..MESSAGES {
        assert_eq!(schedule.enqueue(at(0), &few, work), Placed::Waiting);
    }
    let (mut served, mut turned_away) = (0, 0);
    loop {
        let running = std::iter::from_fn(|| start(&mut schedule, at(0))).count();
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
        let limits = Limits { places: 6, per_hop: 3, lookups: 2 };
        let mut schedule = Schedule::new(limits);
        let mut returned: Vec<(Route, usize)> = Vec::new();
        let mut running: Vec<(Route, usize)> = Vec::new();
        let mut seen = HashSet::new();
        let (mut now, mut works) = (0, 0);
        for step in steps {
            match step {
                Step::Enqueue(which) => {
                    let mut to = hop(&format!("h{which}.test"));
                    if which == 0 {
                        to.named_by = NamedBy::Administrator;
                    }
                    if let Placed::BackingOff(until, work) = schedule.enqueue(at(now), &to, works) {
                        prop_assert!(until > at(now));
                        returned.push((to, work));
                    }
                    works += 1;
                }
                Step::Start => {
                    if let Some((to, work)) = start(&mut schedule, at(now)) {
                        prop_assert!(seen.insert(work), "{work} started twice");
                        running.push((to.clone(), work));
                        prop_assert!(running.len() <= STANDINGS * limits.places);
                        prop_assert!(schedule.rooms.iter().all(|room| room.in_flight <= limits.places));
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
        while let Some((to, work)) = start(&mut schedule, at(now)) {
            prop_assert!(seen.insert(work), "{work} started twice");
            schedule.finished(at(now), &to, Health::Answers, &POLICY);
        }
        prop_assert_eq!(seen.len(), works);
        prop_assert!(schedule.hops.values().all(|hop| hop.is_idle() && !hop.is_forgettable(limits)), "and nothing else");
        prop_assert_eq!(schedule.in_flight(), 0);
    }
}

/// The next hop that an administrator named, by its address.
fn inside() -> Route {
    let next_hop = NextHop::Address("10.0.0.25:25".parse().unwrap());
    Route { next_hop, named_by: NamedBy::Administrator, ..hop("unused.test") }
}

/// Those of the program.
const OUTAGE_LIMITS: Limits = Limits { places: 1_024, per_hop: 20, lookups: 1_024 };

/// What happens in an outage of the uplink, in seconds: connections to the others come about in none of them.
#[derive(Debug, Clone, Copy)]
struct Outage {
    /// Next hops that don't answer.
    dead: usize,
    /// Whether they had answered before.
    answered_before: bool,
    /// How long the name servers take for each of their names.
    names: u64,
    /// How long a connection is waited for.
    connection: u64,
}

/// Seconds that the mail of `route`, whose server answers in one, waits in the outage for its end.
fn waits(outage: Outage, route: &Route) -> u64 {
    let second = |n: u64| UnixTime(n * 1_000_000);
    let mut schedule = Schedule::new(OUTAGE_LIMITS);
    let forever = UnixTime::NEVER;
    let mut now = 1_000;
    if outage.answered_before {
        for number in 0..outage.dead {
            schedule.enqueue(second(now), &hop(&format!("d{number}.test")), number);
            let (to, _) = start(&mut schedule, second(now)).unwrap();
            schedule.finished(second(now), &to, Health::Answers, &POLICY);
        }
        now += 3_600;
    }
    for number in 0..outage.dead {
        schedule.enqueue(second(now), &hop(&format!("d{number}.test")), number);
    }
    // It comes when all others have taken what they get.
    let begin = now + 10;
    // When what ends: look-ups and attempts.
    let mut lookups: Vec<(u64, Route)> = Vec::new();
    let mut attempts: Vec<(u64, Route)> = Vec::new();
    loop {
        if now == begin {
            schedule.enqueue(second(now), route, outage.dead);
        }
        while let Some(to) = schedule.poll_lookup() {
            lookups.push((now + if to == *route { 0 } else { outage.names }, to));
        }
        for (_, to) in lookups.extract_if(.., |(ends, _)| *ends <= now) {
            schedule.looked_up(second(now), &to, (), forever);
        }
        while let Some(Start { route: to, .. }) = schedule.poll_start(second(now)) {
            attempts.push((now + if to == *route { 1 } else { outage.connection }, to));
        }
        now += 1;
        for (_, to) in attempts.extract_if(.., |(ends, _)| *ends <= now) {
            if to == *route {
                return now - begin;
            }
            schedule.finished(second(now), &to, Health::Fails, &POLICY);
        }
    }
}

#[test]
fn an_outage_of_the_uplink_holds_up_nobody_who_is_up() {
    for answered_before in [false, true] {
        for (names, connection) in [(0, 30), (20, 30), (20, 0)] {
            // More than there are places for.
            let outage = Outage { dead: 3_000, answered_before, names, connection };
            assert!(waits(outage, &inside()) <= 2, "{outage:?}");
            let outage = Outage { dead: 1_000, ..outage };
            assert!(waits(outage, &hop("new.test")) <= 2, "a new one: {outage:?}");
        }
    }
    // Nor do those that don't answer hold up one that did, before the outage and after it.
    let mut answers = hop("answers.test");
    answers.named_by = NamedBy::Administrator;
    let outage = Outage { dead: 3_000, answered_before: false, names: 20, connection: 30 };
    assert!(waits(outage, &answers) <= 2, "a smarthost by its name");
}

#[test]
fn who_answered_lately_has_places_of_its_own() {
    let mut schedule = Schedule::new(Limits { places: 4, per_hop: 2, lookups: 9 });
    let good = hop("good.test");
    schedule.enqueue(at(0), &good, 0);
    assert_eq!(start(&mut schedule, at(0)), Some((good.clone(), 0)));
    schedule.finished(at(0), &good, Health::Answers, &POLICY);
    for number in 1..9 {
        schedule.enqueue(at(1), &hop(&format!("new{number}.test")), number);
    }
    let new = std::iter::from_fn(|| start(&mut schedule, at(1))).count();
    assert_eq!(new, 4, "new ones have their places");
    schedule.enqueue(at(1), &good, 9);
    assert_eq!(start(&mut schedule, at(1)), Some((good.clone(), 9)));
    assert_eq!(schedule.finished(at(2), &good, Health::Fails, &POLICY), Some((at(7), VecDeque::new())));
    // It isn't among those that answer any more, nor among the new ones.
    schedule.enqueue(at(7), &good, 10);
    assert_eq!(start(&mut schedule, at(7)), Some((good, 10)), "those that failed have theirs");
    let far = hop("far.test");
    schedule.enqueue(at(7), &far, 11);
    assert_eq!(start(&mut schedule, at(7)), None);
}

#[test]
fn names_that_are_not_known_hold_up_no_address() {
    let mut schedule = Schedule::<_, ()>::new(Limits { places: 4, per_hop: 2, lookups: 3 });
    for number in 0..9 {
        schedule.enqueue(at(0), &hop(&format!("d{number}.test")), number);
    }
    let asked: Vec<_> = std::iter::from_fn(|| schedule.poll_lookup()).collect();
    assert_eq!(asked.len(), 3);
    assert_eq!(schedule.poll_start(at(0)), None);
    schedule.enqueue(at(0), &inside(), 9);
    assert_eq!(schedule.poll_lookup(), None, "an address needs none");
    let started = schedule.poll_start(at(0)).map(|start| (start.names, start.work));
    assert_eq!(started, Some((None, 9)));
    schedule.looked_up(at(0), &asked[1], (), at(1));
    assert_eq!(schedule.poll_start(at(0)).map(|start| start.work), Some(1));
    assert!(schedule.poll_lookup().is_some(), "the next one");
}
