//! The thread with a resolver and a clock of the test's: answers, silence, death, nonsense.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use mailguard_core::lookup::Lookup;
use mailguard_core::mail::Domain;
use mailguard_core::names::{Addresses, Family, Names};

use super::*;
use crate::names::frames::Answer;
use crate::names::surroundings::Host;

/// What a resolver does with a question.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    AnswersAndDies,
    IsSilent,
    Dies,
    AnswersSomethingElse,
    CannotBeAsked,
}

struct Fake {
    manner: Manner,
    heard: Arc<Mutex<Heard>>,
    asked: mpsc::Sender<String>,
    dead: bool,
}

impl Ask for Fake {
    fn ask(&mut self, id: u32, question: Question) -> io::Result<()> {
        let Question { name, family } = question;
        self.asked.send(format!("{name} {family:?}")).unwrap();
        let addresses = match family {
            Family::V4 => vec!["192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            Family::V6 => vec!["2001:db8::1".parse().unwrap()],
        };
        let answer = Answer::of(Lookup::Found(Addresses { addresses, ttl: 300 }));
        if self.dead {
            return Ok(());
        }
        self.dead = matches!(self.manner, Manner::Dies | Manner::AnswersAndDies);
        let said = match self.manner {
            Manner::Answers => vec![Said::Answer(FromResolver { id, answer })],
            Manner::AnswersAndDies => {
                vec![Said::Answer(FromResolver { id, answer }), Said::Ended("killed".to_owned())]
            }
            Manner::AnswersSomethingElse => vec![Said::Answer(FromResolver { id: id + 100, answer })],
            Manner::Dies => vec![Said::Ended("killed".to_owned())],
            Manner::IsSilent => Vec::new(),
            Manner::CannotBeAsked => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        // Whoever is asked speaks for itself: the worker that asks waits for nobody.
        let heard = self.heard.clone();
        thread::spawn(move || said.into_iter().all(|said| heard.lock().unwrap()(said)));
        Ok(())
    }
}

/// A thread at work, seen from outside.
struct Scene {
    state: Arc<Mutex<State>>,
    wake: SyncSender<Input>,
    seconds: Arc<AtomicU64>,
    manner: Arc<Mutex<Option<Manner>>>,
    asked: mpsc::Receiver<String>,
    changed: mpsc::Receiver<BTreeSet<IpAddr>>,
    starts: Arc<AtomicU64>,
}

fn dns() -> DnsConfig {
    mailguard_core::testing::config("").dns
}

/// Starts a thread for one name. Its resolvers behave so; without a manner none can be started.
fn scene(manner: Option<Manner>) -> Scene {
    let mut names = Names::default();
    names.set(&[Domain::parse("a.test").unwrap()], &BTreeSet::new());
    let state = State {
        names,
        host: Host::default(),
        servers: Vec::new(),
        dns: dns(),
        adopted: true,
        told: Vec::new(),
    };
    let state = Arc::new(Mutex::new(state));
    let (wake, inbox) = mpsc::sync_channel(64);
    let (seconds, starts) = (Arc::new(AtomicU64::new(1_000)), Arc::new(AtomicU64::new(0)));
    let manner = Arc::new(Mutex::new(manner));
    let (note_asked, asked) = mpsc::channel();
    let (note_changed, changed) = mpsc::channel();
    let start = {
        let (manner, starts) = (manner.clone(), starts.clone());
        move |_: &DnsConfig, heard: Heard| {
            starts.fetch_add(1, Ordering::SeqCst);
            let manner = manner.lock().unwrap().ok_or(io::ErrorKind::PermissionDenied)?;
            Ok(Fake { manner, heard: Arc::new(Mutex::new(heard)), asked: note_asked.clone(), dead: false })
        }
    };
    let clock = {
        let seconds = seconds.clone();
        move || Duration::from_secs(seconds.load(Ordering::SeqCst))
    };
    let tell = {
        let state = state.clone();
        move || note_changed.send(lock(&state).names.bypassed()).is_ok()
    };
    let worker = Worker::new(state.clone(), wake.clone(), start, clock, tell, None);
    thread::spawn(move || worker.run(&inbox));
    Scene { state, wake, seconds, manner, asked, changed, starts }
}

impl Scene {
    fn later(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
        self.wake.send(Input::Adopted).unwrap();
    }

    fn set_manner(&self, manner: Manner) {
        *self.manner.lock().unwrap() = Some(manner);
    }

    /// Waits until the name's trouble holds these words.
    #[track_caller]
    fn wait_for_trouble(&self, words: &str) {
        for _ in 0..2_000 {
            let trouble = lock(&self.state).names.status()[0].trouble.clone();
            if trouble.is_some_and(|trouble| trouble.contains(words)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("{words}: {:?}", lock(&self.state).names.status());
    }

    /// Waits until both addresses bypass.
    #[track_caller]
    fn wait_for_addresses(&self) {
        let patience = Duration::from_secs(10);
        let expect: BTreeSet<IpAddr> = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).into();
        while self.changed.recv_timeout(patience).expect("a change") != expect {}
    }
}

#[test]
fn answers_are_judged_and_told() {
    let scene = scene(Some(Manner::Answers));
    scene.wait_for_addresses();
    assert_eq!(scene.asked.iter().take(2).collect::<Vec<_>>(), ["a.test V4", "a.test V6"]);
    let status = lock(&scene.state).names.status();
    assert_eq!(status[0].refused, [("127.0.0.1".parse().unwrap(), "loopback".to_owned())]);
    // Asked for again when its time is over, by the same resolver.
    scene.later(299);
    assert!(scene.asked.recv_timeout(Duration::from_millis(50)).is_err());
    scene.later(2);
    assert!(scene.asked.recv_timeout(Duration::from_secs(10)).is_ok());
    assert_eq!(scene.starts.load(Ordering::SeqCst), 1);
}

#[test]
fn a_resolver_that_fails_is_replaced_after_a_pause() {
    for (manner, trouble) in [
        (Manner::Dies, "killed"),
        (Manner::AnswersSomethingElse, "answers what it wasn't asked"),
        (Manner::CannotBeAsked, "can't be asked"),
        (Manner::IsSilent, "doesn't answer"),
    ] {
        let scene = scene(Some(manner));
        if manner == Manner::IsSilent {
            scene.asked.recv_timeout(Duration::from_secs(10)).unwrap();
            scene.later(31);
        }
        scene.wait_for_trouble(trouble);
        scene.set_manner(Manner::Answers);
        let starts = scene.starts.load(Ordering::SeqCst);
        scene.later(0);
        assert_eq!(scene.starts.load(Ordering::SeqCst), starts, "not before the pause is over");
        scene.later(70);
        scene.wait_for_addresses();
    }
}

#[test]
fn one_that_cannot_be_started_is_tried_at_growing_intervals() {
    let scene = scene(None);
    scene.wait_for_trouble("can't be started");
    for _ in 0..1_000 {
        scene.later(1);
    }
    let starts = scene.starts.load(Ordering::SeqCst);
    assert!(starts <= 12, "{starts} starts in 1,000 seconds");
    scene.set_manner(Manner::Answers);
    scene.later(400);
    scene.wait_for_addresses();
}

/// Whoever can crash it by an answer doesn't have it started without end by answering something else before.
#[test]
fn one_that_answers_and_dies_is_started_at_growing_intervals() {
    let scene = scene(Some(Manner::AnswersAndDies));
    let many: Vec<Domain> = (0..200).map(|n| Domain::parse(&format!("n{n}.test")).unwrap()).collect();
    lock(&scene.state).names.set(&many, &BTreeSet::new());
    for _ in 0..500 {
        scene.later(1);
        thread::sleep(Duration::from_millis(1));
    }
    let starts = scene.starts.load(Ordering::SeqCst);
    assert!(starts <= 12, "{starts} starts in 500 seconds");
}

#[test]
fn few_questions_are_under_way() {
    let scene = scene(Some(Manner::IsSilent));
    let many: Vec<Domain> = (0..200).map(|n| Domain::parse(&format!("n{n}.test")).unwrap()).collect();
    lock(&scene.state).names.set(&many, &BTreeSet::new());
    scene.later(0);
    let patience = Duration::from_secs(10);
    for _ in 0..MAX_UNDER_WAY {
        scene.asked.recv_timeout(patience).unwrap();
    }
    assert!(scene.asked.recv_timeout(Duration::from_millis(100)).is_err());
}
