//! Names over time: answers, outages, limits, restarts.

use std::collections::BTreeSet;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn of(names: &[&str]) -> Names {
    let mut table = Names::default();
    table.set(&names.iter().map(|name| domain(name)).collect::<Vec<_>>(), &BTreeSet::new());
    table
}

fn found(ttl: u32, addresses: &[&str]) -> Lookup<Addresses> {
    Lookup::Found(Addresses { addresses: addresses.iter().map(|text| ip(text)).collect(), ttl })
}

fn question(name: &str, family: Family) -> Question {
    Question { name: name.to_owned(), family }
}

/// Asks what is due, answers each question, and judges; the questions, and the changes as text.
fn step(
    names: &mut Names,
    now: Moment,
    answer: impl Fn(&Question) -> Lookup<Addresses>,
) -> (Vec<Question>, Vec<String>) {
    let mut asked = Vec::new();
    while let Some(question) = names.ask(now) {
        names.answered(&question, answer(&question), now);
        asked.push(question);
    }
    (asked, changes(names, now))
}

fn changes(names: &mut Names, now: Moment) -> Vec<String> {
    let surroundings = Surroundings::new([ip("203.0.113.1")], [], [ip("10.0.0.25")]);
    names.judge(&surroundings, now).iter().map(shown).collect()
}

fn shown(change: &Change) -> String {
    let mut text = change.name.clone();
    change.added.iter().for_each(|address| text += &format!(" +{address}"));
    change.removed.iter().for_each(|address| text += &format!(" -{address}"));
    change.refused.iter().for_each(|(address, why)| text += &format!(" !{address} ({why})"));
    text
}

/// An answer for IPv4; there is none for IPv6.
fn v4(answer: Lookup<Addresses>) -> impl Fn(&Question) -> Lookup<Addresses> {
    move |question| match question.family {
        Family::V4 => answer.clone(),
        Family::V6 => Lookup::Absent,
    }
}

fn outage(_: &Question) -> Lookup<Addresses> {
    Lookup::Unavailable("timed out".to_owned())
}

/// A server of an incoming domain that is written by its name: whatever its addresses are, they don't bypass.
#[test]
fn what_leads_to_a_server_that_is_written_by_name_does_not_bypass() {
    let mut names = Names::default();
    let question = |name: &str| Question { name: name.to_owned(), family: Family::V4 };
    let answer =
        |address: &str| Lookup::Found(Addresses { addresses: vec![address.parse().unwrap()], ttl: 300 });
    let guarded = BTreeSet::from(["exchange.test"]);
    assert_eq!(names.set(&[], &guarded), []);
    assert!(names.is_empty(), "nothing bypasses: nobody is asked");
    names.set(&[domain("a.test"), domain("b.test")], &guarded);
    for (name, address) in [("a.test", "198.51.100.1"), ("b.test", "198.51.100.2")] {
        names.answered(&question(name), answer(address), at(0));
    }
    names.judge(&Surroundings::default(), at(0));
    assert_eq!(names.bypassed(), BTreeSet::new(), "what the server's addresses are isn't known yet");
    assert_eq!(names.status()[1].refused[0].1, Refusal::ServersUnknown.to_string());
    names.answered(&question("exchange.test"), answer("198.51.100.2"), at(0));
    names.answered(&Question { family: Family::V6, ..question("exchange.test") }, Lookup::Absent, at(0));
    let surroundings = Surroundings::new([], [], names.guarded());
    names.judge(&surroundings, at(0));
    assert_eq!(names.bypassed(), BTreeSet::from(["198.51.100.1".parse().unwrap()]));
    let status = names.status();
    assert_eq!(status.iter().map(|status| status.name.as_str()).collect::<Vec<_>>(), ["a.test", "b.test"]);
    assert_eq!(status[1].refused[0].1, Refusal::IncomingServer.to_string());
    // One that was bypassed and becomes a server bypasses no more.
    let changes = names.set(&[domain("b.test")], &BTreeSet::from(["a.test"]));
    assert_eq!(changes.len(), 1);
    assert_eq!((names.bypassed(), names.guarded().len()), (BTreeSet::new(), 1));
}

#[test]
fn addresses_bypass_by_their_ttl_within_a_minute_and_a_day() {
    for (ttl, hold) in [(0, 60), (60, 60), (300, 300), (86_400, 86_400), (u32::MAX, 86_400)] {
        let mut names = of(&["a.test"]);
        let (asked, told) = step(&mut names, at(10), v4(found(ttl, &["192.0.2.1"])));
        assert_eq!(asked.len(), 2);
        assert_eq!(told, ["a.test +192.0.2.1"]);
        names.answered(&question("a.test", Family::V6), found(u32::MAX, &[]), at(10));
        assert_eq!(names.next_due(), Some(at(10 + hold)), "a TTL of {ttl}");
        assert_eq!(names.ask(at(9 + hold)), None);
        let (asked, told) = step(&mut names, at(10 + hold), v4(found(ttl, &["192.0.2.2"])));
        assert!(asked.contains(&question("a.test", Family::V4)));
        assert_eq!(told, ["a.test +192.0.2.2 -192.0.2.1"]);
    }
}

#[test]
fn an_outage_is_no_absence() {
    let mut names = of(&["a.test"]);
    step(&mut names, at(0), v4(found(300, &["192.0.2.1"])));
    let kept_until = 300 + KEPT_WITHOUT_ANSWER.as_secs();
    let mut now = 300;
    while now < kept_until {
        let (asked, told) = step(&mut names, at(now), outage);
        assert!(!asked.is_empty() && told.is_empty(), "at {now}: {told:?}");
        let status = &names.status()[0];
        assert_eq!((status.addresses.len(), status.trouble.as_deref()), (1, Some("timed out")));
        assert_eq!(status.problem, None);
        now += 60;
    }
    assert_eq!(step(&mut names, at(kept_until), outage).1, ["a.test -192.0.2.1"]);
    let problem = "no name server answers, so nothing bypasses by it: timed out";
    assert_eq!(names.status()[0].problem.as_deref(), Some(problem));
    let back = step(&mut names, at(kept_until + 60), v4(found(300, &["192.0.2.1"])));
    assert_eq!(back.1, ["a.test +192.0.2.1"]);
    assert_eq!(names.status()[0].problem, None);
    // An answer that there is none is one.
    assert_eq!(step(&mut names, at(kept_until + 360), |_| Lookup::Absent).1, ["a.test -192.0.2.1"]);
    let problem = "it has no address, so nothing bypasses by it";
    assert_eq!(names.status()[0].problem.as_deref(), Some(problem));
}

#[test]
fn the_families_fail_each_by_itself() {
    let mut names = of(&["a.test"]);
    let both = |question: &Question| match question.family {
        Family::V4 => found(60, &["192.0.2.1"]),
        Family::V6 => found(60, &["2001:db8::1"]),
    };
    assert_eq!(step(&mut names, at(0), both).1, ["a.test +192.0.2.1 +2001:db8::1"]);
    let half = |question: &Question| match question.family {
        Family::V4 => found(60, &["192.0.2.2"]),
        Family::V6 => outage(question),
    };
    assert_eq!(step(&mut names, at(60), half).1, ["a.test +192.0.2.2 -192.0.2.1"]);
    // Addresses of the other family are no answer.
    assert_eq!(
        step(&mut names, at(120), |_| found(60, &["2001:db8::2"])).1,
        ["a.test +2001:db8::2 -192.0.2.2 -2001:db8::1"]
    );
}

#[test]
fn forbidden_addresses_never_bypass() {
    let mut names = of(&["a.test"]);
    let evil = found(60, &["127.0.0.1", "203.0.113.1", "10.0.0.25", "192.0.2.1"]);
    let expect = "a.test +192.0.2.1 !10.0.0.25 (the server of an incoming domain) !127.0.0.1 (loopback) \
                  !203.0.113.1 (an address of this host)";
    assert_eq!(step(&mut names, at(0), v4(evil.clone())).1, [expect]);
    assert_eq!(names.bypassed(), [ip("192.0.2.1")].into());
    // What was told isn't told again.
    assert_eq!(step(&mut names, at(60), v4(evil)).1, [""; 0]);
    // An address that becomes ours bypasses no more, whenever that is.
    let ours = Surroundings::new([ip("192.0.2.1")], [], []);
    let told: Vec<String> = names.judge(&ours, at(61)).iter().map(shown).collect();
    let expect = "a.test +10.0.0.25 +203.0.113.1 -192.0.2.1 !192.0.2.1 (an address of this host)";
    assert_eq!(told, [expect]);
    let mut names = of(&["b.test"]);
    step(&mut names, at(0), |_| found(60, &["127.0.0.1", "::1"]));
    let problem = "none of its addresses may bypass: 127.0.0.1 (loopback), ::1 (loopback)";
    assert_eq!(names.status()[0].problem.as_deref(), Some(problem));
}

#[test]
fn a_name_has_few_addresses_whatever_is_answered() {
    let many = |question: &Question| {
        let address = |n: u16| match question.family {
            Family::V4 => IpAddr::from([192, 0, (n >> 8) as u8 + 10, n as u8]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n + 1]),
        };
        // In another order each time.
        let addresses = if question.name == "a.test" {
            (0..1_000).map(address).collect::<Vec<_>>()
        } else {
            (0..1_000).rev().map(address).collect()
        };
        Lookup::Found(Addresses { addresses, ttl: 60 })
    };
    let mut names = of(&["a.test", "b.test"]);
    step(&mut names, at(0), many);
    let status = names.status();
    assert_eq!(status[0].addresses, status[1].addresses);
    assert_eq!(status[0].addresses.iter().filter(|address| address.is_ipv4()).count(), MAX_ADDRESSES / 2);
    assert_eq!(status[0].addresses.len(), MAX_ADDRESSES);
    assert_eq!(status[0].refused.len(), 2 * MAX_ANSWERED - MAX_ADDRESSES);
    assert_eq!(names.answers().len(), 2 * MAX_ANSWERED);
    let text = listed(status[0].refused.iter().map(|(address, why)| (address, why)));
    assert_eq!(text.matches("(one too many)").count(), 16);
    assert!(text.ends_with(" and 96 more"), "{text}");
    assert_eq!(step(&mut names, at(60), many).1, [""; 0], "what comes first changes nothing");
}

#[test]
fn names_come_and_go() {
    let mut names = of(&["a.test", "b.test"]);
    step(&mut names, at(0), v4(found(300, &["192.0.2.1"])));
    let told: Vec<String> =
        names.set(&[domain("b.test"), domain("c.test")], &BTreeSet::new()).iter().map(shown).collect();
    assert_eq!(told, ["a.test -192.0.2.1"]);
    assert_eq!(names.bypassed(), [ip("192.0.2.1")].into(), "it is b.test's, too");
    let (asked, _) = step(&mut names, at(1), v4(found(300, &["192.0.2.3"])));
    assert_eq!(asked, [question("c.test", Family::V4), question("c.test", Family::V6)]);
    // An answer to what nobody asks any more.
    names.answered(&question("a.test", Family::V4), found(300, &["192.0.2.9"]), at(2));
    assert_eq!(changes(&mut names, at(2)), [""; 0]);
    names.ask_again();
    assert_eq!(step(&mut names, at(3), v4(found(300, &["192.0.2.4"]))).0.len(), 4);
    names.set(&[], &BTreeSet::new());
    assert!(names.is_empty() && names.bypassed().is_empty() && names.next_due().is_none());
}

#[test]
fn a_question_is_under_way_once() {
    let mut names = of(&["a.test"]);
    assert!(names.ask(at(0)).is_some() && names.ask(at(0)).is_some());
    names.ask_again();
    assert_eq!((names.ask(at(0)), names.next_due()), (None, None));
    names.lost("the resolver ended", at(5));
    assert_eq!(names.next_due(), Some(at(65)));
    let problem = "no name server answers, so nothing bypasses by it: the resolver ended";
    assert_eq!(names.status()[0].problem.as_deref(), Some(problem));
}

#[test]
fn a_restart_without_a_name_server_keeps_what_was_known() {
    let mut before = of(&["a.test", "b.test"]);
    step(&mut before, at(100), v4(found(3_600, &["192.0.2.1", "127.0.0.1"])));
    let remembered = before.remembered();
    assert_eq!(remembered.len(), 2);
    let mut after = of(&["a.test", "c.test"]);
    after.recall(remembered.clone(), at(200));
    let told = "a.test +192.0.2.1 !127.0.0.1 (loopback)";
    assert_eq!(changes(&mut after, at(200)), [told]);
    // It is asked for at once, and what it had been kept for ends when it would have.
    assert_eq!(step(&mut after, at(200), outage).0.len(), 4);
    let end = at(3_700) + KEPT_WITHOUT_ANSWER;
    assert_eq!(step(&mut after, end - at(1), outage).1, [""; 0]);
    assert_eq!(step(&mut after, end, outage).1, ["a.test -192.0.2.1"]);
    // What is remembered is judged by today's limits.
    let mut odd = remembered;
    odd[0].until = u64::MAX;
    odd[0].addresses.push(ip("2001:db8::1"));
    let mut after = of(&["a.test"]);
    after.recall(odd, at(200));
    assert_eq!(changes(&mut after, at(200)), [told]);
    assert_eq!(changes(&mut after, at(200) + MAX_HOLD + KEPT_WITHOUT_ANSWER + HOUR), ["a.test -192.0.2.1"]);
}
