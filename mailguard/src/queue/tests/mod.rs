//! The queue from commit to last outcome, with a delivery that does as it is told and a clock that is set by
//! hand.

mod faults;
mod notices;
mod orders;
mod outage;
mod scripted;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use mailguard_core::attempt::{Attempted, Consequence};
use mailguard_core::config::model::DefaultRoute;
use mailguard_core::disposition::Disposition;
use mailguard_core::finding::Threat;
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::ReversePath;
use mailguard_core::origin::Origin;
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::{NextHop, Route};
use mailguard_core::smtp::{Detail, EnhancedStatus, Reply, ReplyCode};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};

use self::scripted::{Scripted, Sent};
use super::*;
use crate::quarantine::QuarantineHandle;
use crate::spool::fixture::{client, config, mailbox, message, shared};
use crate::spool::{Body, NewMessage, SPILL_OCTETS, Spool};
use crate::store::lossy::{EIO, LossyDisk, LossyFiles};
use crate::store::spool::{Reason, SpoolOp};

const MINUTE: u64 = 60_000_000;

fn report(class: u8, answered: bool, text: &str) -> Report {
    let code = ReplyCode::new(u16::from(class) * 100 + 50).unwrap();
    Report {
        status: EnhancedStatus::of(code.severity(), Detail::UNDEFINED),
        remote: answered.then(|| "mx.test".to_owned()),
        reply: answered.then(|| Reply::new(code, Detail::UNDEFINED, text)),
        text: text.to_owned(),
        transfer: Default::default(),
    }
}

fn delivered() -> Outcome {
    Outcome::Delivered(report(2, true, "taken"))
}

fn deferred() -> Outcome {
    Outcome::Deferred(report(4, true, "busy"))
}

fn failed() -> Outcome {
    Outcome::Failed(report(5, true, "no such user"))
}

fn unreachable() -> Outcome {
    Outcome::Deferred(report(4, false, "connection refused"))
}

/// Where a message goes that only tells that the queue has come so far.
const SENTINEL: &str = "sentinel.test";

struct Notes {
    attempts: mpsc::UnboundedSender<Attempted>,
    sentinel: Arc<Notify>,
}

impl AttemptObserver for Notes {
    fn attempted(&self, attempted: Vec<Attempted>) -> BoxFuture<'_, ()> {
        for one in attempted {
            if one.recipient.to_string().contains(SENTINEL) {
                self.sentinel.notify_one();
                continue;
            }
            // A test that has seen enough has gone.
            let _ = self.attempts.send(one);
        }
        async {}.boxed()
    }

    fn noticed(&self, _: QueueId, _: QueueId) {}
}

/// Spool, queue and quarantine around a scripted delivery.
struct House {
    queue: Queue,
    spool: Spool,
    db: SpoolDb,
    ids: Arc<IdMint>,
    config: Arc<ArcSwap<Config>>,
    deliver: Arc<Scripted>,
    attempts: mpsc::UnboundedReceiver<Attempted>,
    sentinel: Arc<Notify>,
    now: Arc<AtomicU64>,
}

impl House {
    fn open(
        directory: &Path,
        now: u64,
        script: impl Fn(&str, &str, usize) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let (db, recovered) = SpoolDb::open(directory).unwrap();
        Self::on(directory, (db, recovered), now, script)
    }

    fn on(
        directory: &Path,
        (db, recovered): (SpoolDb, crate::store::spool::Recovered),
        now: u64,
        script: impl Fn(&str, &str, usize) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let config = shared(config(directory));
        let ids = Arc::new(IdMint::above(recovered.greatest));
        let deliver = Arc::new(Scripted {
            script: Box::new(script),
            tried: Mutex::default(),
            sent: Mutex::default(),
            dialling: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        let (notes, attempts) = mpsc::unbounded_channel();
        let sentinel = Arc::new(Notify::new());
        let notes = Notes { attempts: notes, sentinel: sentinel.clone() };
        let surroundings = QueueContext {
            db: db.clone(),
            config: config.clone(),
            ids: ids.clone(),
            deliver: deliver.clone(),
            observer: Arc::new(notes),
        };
        let now = Arc::new(AtomicU64::new(now));
        let clock = now.clone();
        let clock: Clock = Arc::new(move || UnixTime(clock.load(Ordering::SeqCst)));
        let queue = Queue::start_with(surroundings, &recovered, clock);
        let spool = Spool::new(db.clone(), config.clone(), ids.clone());
        Self { queue, spool, db, ids, config, deliver, attempts, sentinel, now }
    }

    /// Commits what `change` makes of a message to these recipients.
    async fn commit(&self, recipients: &[&str], change: impl FnOnce(&mut NewMessage)) -> QueueId {
        let id = self.ids.mint();
        let mut new = message(id, recipients, Body::Memory(format!("Subject: {id}\r\n\r\nx\r\n").into()));
        new.received_at = UnixTime(self.now.load(Ordering::SeqCst));
        change(&mut new);
        *self.spool.commit(new).await.unwrap().get()
    }

    async fn next(&mut self) -> Attempted {
        self.attempts.recv().await.unwrap()
    }

    fn pass(&self, time: u64) {
        self.now.fetch_add(time, Ordering::SeqCst);
        self.queue.shared.wake.notify_one();
    }

    fn configure(&self, change: impl FnOnce(&mut Config)) {
        let mut config = Config::clone(&self.config.load());
        change(&mut config);
        self.config.store(Arc::new(config));
    }

    /// From now on mail for the domain goes to 10.0.0.25.
    fn reroute(&self, domain: &str) {
        let text = format!("incoming_domain = [{{ domain = {domain:?}, server = \"10.0.0.25\" }}]");
        let route = mailguard_core::testing::config(&text).incoming_domains;
        self.configure(|config| config.incoming_domains.extend(route));
    }

    fn quarantine(&self) -> QuarantineHandle {
        QuarantineHandle::new(self.db.clone(), self.config.clone())
    }

    /// Waits until the queue has done what is due now, however long the machine takes for it: what comes
    /// after it goes through, and no attempt is under way.
    async fn settle(&self) {
        // What an attempt comes to may be due at once.
        for _ in 0..2 {
            self.commit(&[&format!("s@{SENTINEL}")], |_| {}).await;
            self.sentinel.notified().await;
            while self.queue.shared.lock().workers > 0 {
                tokio::task::yield_now().await;
            }
            // What was only posted is on disk when the answer to this comes.
            self.db.submit(SpoolOp::Expunge(Vec::new())).await.unwrap();
        }
    }

    /// Waits until nothing is queued, passing an hour at a time.
    async fn drain(&self) {
        while self.db.queue_stock().messages > 0 {
            self.pass(60 * MINUTE);
            self.settle().await;
        }
    }

    async fn close(self) {
        self.queue.stop().await;
        self.db.close().await;
    }
}

#[tokio::test]
async fn a_message_is_delivered_once_octet_for_octet_and_then_gone() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    let big: Vec<u8> = (0..SPILL_OCTETS * 3).map(|n| (n / 11) as u8).collect();
    let mut writer = house.spool.body_writer();
    writer.push(&big).await.unwrap();
    let big_body = writer.finish().await.unwrap();
    house.commit(&["a@x.test"], |new| new.body = Body::Memory("small".into())).await;
    assert_eq!(house.next().await.consequence, Consequence::Done);
    house.commit(&["a@x.test"], |new| new.body = big_body).await;
    assert_eq!(house.next().await.consequence, Consequence::Done);
    let sent: Vec<_> = house.deliver.sent.lock().unwrap().iter().map(|sent| sent.octets.to_vec()).collect();
    assert_eq!(sent, [b"small".to_vec(), big]);
    house.db.close().await;
    assert_eq!(house.db.queue_stock(), crate::store::stock::Stock::default());
    assert_eq!(std::fs::read_dir(directory.path().join("bodies")).unwrap().count(), 0);
}

#[tokio::test]
async fn retries_double_and_survive_a_restart() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| deferred());
    let id = house.commit(&["a@x.test"], |_| {}).await;
    assert_eq!(house.next().await.consequence, Consequence::Retry(UnixTime(5 * MINUTE)));
    house.pass(5 * MINUTE);
    assert_eq!(house.next().await.consequence, Consequence::Retry(UnixTime(15 * MINUTE)));
    house.close().await;

    let mut house = House::open(directory.path(), 6 * MINUTE, |_, _, _| delivered());
    house.pass(9 * MINUTE - 1);
    house.settle().await;
    assert!(house.deliver.sent.lock().unwrap().is_empty(), "not before its time");
    let listing = house.queue.handle().list(None, 10).await.unwrap();
    let (listed, record) = &listing.rows[0];
    assert_eq!((*listed, record.queued().next().unwrap().1.attempts), (id, 2));
    house.pass(1);
    assert_eq!(house.next().await.at, UnixTime(15 * MINUTE));
    house.close().await;
}

#[tokio::test]
async fn a_failure_is_reported_to_a_sender_of_a_zone_with_reports() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, address: &str, _| if address == "<bad@x.test>" { failed() } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    let id = house.commit(&["good@x.test", "bad@x.test"], |_| {}).await;
    let mut told = BTreeMap::new();
    for _ in 0..3 {
        let attempted = house.next().await;
        told.insert(attempted.recipient.to_string(), attempted.consequence);
    }
    let expect = [
        ("<bad@x.test>", Consequence::Report),
        ("<good@x.test>", Consequence::Done),
        ("<sender@green.test>", Consequence::Done),
    ];
    assert_eq!(told, expect.map(|(address, consequence)| (address.to_owned(), consequence)).into());
    let sent = house.deliver.sent.lock().unwrap().last().unwrap().clone();
    assert_eq!(sent.message.envelope.reverse_path, ReversePath::Null);
    assert_eq!(sent.message.origin, Origin::Internal);
    let text = String::from_utf8(sent.octets.to_vec()).unwrap();
    assert!(text.contains("bad@x.test") && !text.contains("good@x.test"), "{text}");
    assert!(text.contains(&format!("Subject: {id}")), "the message is returned: {text}");
    house.close().await;
}

#[tokio::test]
async fn who_wants_to_hear_of_success_hears_where_another_server_would_not_say_it() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, address: &str, _| match address {
        "<there@x.test>" => Outcome::Relayed(report(2, true, "taken")),
        _ => delivered(),
    };
    let mut house = House::open(directory.path(), 0, script);
    let id = house.commit(&["there@x.test"], |_| {}).await;
    // The report may have gone before we hear of what it is about.
    let mut seen = BTreeMap::new();
    for _ in 0..2 {
        let attempted = house.next().await;
        seen.insert(attempted.recipient.to_string(), attempted.consequence);
    }
    let expect = [("<sender@green.test>", Consequence::Done), ("<there@x.test>", Consequence::Report)];
    assert_eq!(seen, expect.map(|(address, consequence)| (address.to_owned(), consequence)).into());
    let sent = house.deliver.sent.lock().unwrap().last().unwrap().clone();
    assert_eq!(sent.message.envelope.reverse_path, ReversePath::Null);
    let text = String::from_utf8(sent.octets.to_vec()).unwrap();
    assert!(text.contains("Action: relayed\r\n") && text.contains("there@x.test"), "{text}");
    assert!(text.contains(&format!("Subject: {id}")) && !text.contains("message/rfc822"), "{text}");
    house.close().await;
}

#[tokio::test]
async fn a_failure_from_another_zone_is_quarantined_and_can_be_released() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, address: &str, _| if address == "<bad@x.test>" { failed() } else { delivered() };
    // A release is due at once by the clock of the world.
    let now = UnixTime::from(SystemTime::now()).plus(Duration::from_secs(60));
    let mut house = House::open(directory.path(), now.0, script);
    let id = house.commit(&["bad@x.test"], |new| new.origin = client("red")).await;
    assert_eq!(house.next().await.consequence, Consequence::Quarantine);
    assert_eq!(house.db.queue_stock().messages, 0);
    let entry = house.db.quarantined(id).await.unwrap().unwrap();
    assert!(matches!(&entry.quarantined[0].reason, Reason::Undeliverable(r) if r.text == "no such user"));
    let to = mailbox("admin@y.test");
    let released = house.quarantine().release(&[id], Some(&to), false).await.unwrap();
    assert_eq!(released, [(id, crate::quarantine::Released::Queued)]);
    let attempted = house.next().await;
    assert_eq!((attempted.id, attempted.recipient.to_string().as_str()), (id, "<admin@y.test>"));
    house.close().await;
}

#[tokio::test]
async fn what_waits_is_routed_by_the_configuration_of_the_moment() {
    let directory = TempDir::new().unwrap();
    let script = |hop: &str, _: &str, _| if hop.starts_with("mx:") { deferred() } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    house.commit(&["a@x.test"], |_| {}).await;
    assert_eq!(house.next().await.next_hop.unwrap().to_string(), "mx:x.test");
    house.reroute("x.test");
    house.pass(5 * MINUTE);
    assert_eq!(house.next().await.next_hop.unwrap().to_string(), "10.0.0.25:25");
    house.close().await;
}

#[tokio::test]
async fn mail_without_a_route_waits_and_says_what_to_change() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    let postmaster = mailguard_core::mail::ForwardPath::Postmaster;
    house.commit(&["a@x.test"], |new| new.envelope.recipients[0].forward_path = postmaster).await;
    let attempted = house.next().await;
    assert_eq!(attempted.next_hop, None);
    assert_eq!(attempted.consequence, Consequence::Retry(UnixTime(5 * MINUTE)));
    assert!(attempted.outcome.report().text.contains("set `postmaster`"), "{attempted:?}");
    house.close().await;
}

#[tokio::test]
async fn an_administrator_can_retry_now_and_remove() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, _: &str, before| if before == 0 { unreachable() } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    let handle = house.queue.handle();
    let id = house.commit(&["a@x.test"], |_| {}).await;
    assert_eq!(house.next().await.consequence, Consequence::Retry(UnixTime(5 * MINUTE)));
    assert!(handle.retry(id), "though the next hop rests");
    assert_eq!(house.next().await.consequence, Consequence::Done);
    assert!(!handle.retry(id));

    let id = house.commit(&["b@x.test"], |_| {}).await;
    house.next().await;
    let (_, text) = handle.show(id).await.unwrap().unwrap();
    assert!(text.starts_with(&format!("Subject: {id}\n")), "{text}");
    assert!(handle.remove(id).await.unwrap());
    assert!(!handle.remove(id).await.unwrap());
    assert!(handle.ids().is_empty());
    assert!(handle.show(id).await.unwrap().is_none());
    house.close().await;
}

#[tokio::test]
async fn a_body_stays_while_anybody_needs_it() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| delivered());
    let mut writer = house.spool.body_writer();
    writer.push(&vec![b'x'; SPILL_OCTETS + 1]).await.unwrap();
    let body = writer.finish().await.unwrap();
    let id = house
        .commit(&["a@x.test", "b@x.test"], |new| {
            new.body = body;
            new.dispositions[1] = Disposition::Quarantine(Threat::Virus("EICAR".to_owned()));
        })
        .await;
    assert_eq!(house.next().await.recipient.to_string(), "<a@x.test>");
    let files = || std::fs::read_dir(directory.path().join("bodies")).unwrap().count();
    assert_eq!(files(), 1);
    assert_eq!(house.quarantine().delete(vec![id]).await.unwrap(), 1);
    house.close().await;
    assert_eq!(files(), 0);
}

#[tokio::test]
async fn a_message_without_its_body_is_put_aside_and_shown() {
    let directory = TempDir::new().unwrap();
    let mut house = House::open(directory.path(), 0, |_, _, _| deferred());
    let mut writer = house.spool.body_writer();
    writer.push(&vec![b'x'; SPILL_OCTETS + 1]).await.unwrap();
    let body = writer.finish().await.unwrap();
    let Body::File(file) = body.clone() else { panic!("a big body in memory") };
    let id = house.commit(&["a@x.test"], |new| new.body = body).await;
    house.next().await;
    std::fs::remove_file(file.path()).unwrap();
    house.pass(5 * MINUTE);
    let handle = house.queue.handle();
    let damaged = loop {
        let damaged = handle.damaged().await.unwrap();
        if !damaged.is_empty() {
            break damaged;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(damaged[0].0, id);
    assert!(damaged[0].1.cause.contains("bodies/"), "{}", damaged[0].1.cause);
    assert!(handle.remove(id).await.unwrap());
    assert!(handle.damaged().await.unwrap().is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_mistake_in_a_delivery_is_a_deferral() {
    let directory = TempDir::new().unwrap();
    let script = |_: &str, _: &str, before| if before == 0 { panic!("a mistake") } else { delivered() };
    let mut house = House::open(directory.path(), 0, script);
    house.commit(&["a@x.test"], |_| {}).await;
    assert!(matches!(house.next().await.outcome, Outcome::Deferred(_)));
    house.pass(5 * MINUTE);
    assert_eq!(house.next().await.consequence, Consequence::Done);
    house.close().await;
}

/// The failed state and the report are one transaction: wherever the disk fails, one of them is found, and
/// never both.
#[tokio::test]
async fn a_message_or_its_report_is_there_after_a_crash() {
    let directory = TempDir::new().unwrap();
    for operation in 1.. {
        let disk = LossyDisk::default();
        let opened =
            SpoolDb::open_on(directory.path(), disk.backend(), LossyFiles::default(), u64::MAX).unwrap();
        let armed = disk.clone();
        let script = move |_: &str, address: &str, _| {
            if address == "<sender@green.test>" {
                return deferred();
            }
            armed.fail_in(operation, EIO);
            failed()
        };
        let mut house = House::on(directory.path(), opened, 0, script);
        let id = house.commit(&["a@x.test"], |_| {}).await;
        house.next().await;
        let broke = house.db.failure().is_some();
        for survives in [false, true] {
            let left = disk.after_power_cut(|| survives);
            let (_db, recovered) =
                SpoolDb::open_on(directory.path(), left, LossyFiles::default(), u64::MAX).unwrap();
            let queued: Vec<_> = recovered.queued.iter().map(|(queued, _)| *queued).collect();
            assert_eq!(queued.len(), 1, "operation {operation}: {queued:?}");
            assert!(broke || queued[0] != id, "operation {operation}");
        }
        house.close().await;
        if !broke {
            assert!(operation > 1);
            return;
        }
    }
}

/// Whatever the outcomes: every recipient is delivered, reported or quarantined, exactly once.
#[tokio::test]
async fn every_recipient_comes_to_one_end() {
    let directory = TempDir::new().unwrap();
    let script = |hop: &str, address: &str, before: usize| {
        let seed =
            address.bytes().fold(before as u32 + 7, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        match seed % 7 {
            _ if address == "<sender@green.test>" => delivered(),
            0 if hop == "mx:h0.test" => unreachable(),
            0..=2 => delivered(),
            3 => failed(),
            _ => deferred(),
        }
    };
    let house = House::open(directory.path(), 0, script);
    let mut expected = 0;
    for number in 0..120_usize {
        let addresses: Vec<_> =
            (0..number % 4 + 1).map(|n| format!("r{number}-{n}@h{}.test", (number + n) % 3)).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        expected += addresses.len();
        house
            .commit(&addresses, |new| new.origin = client(if number % 2 == 0 { "red" } else { "green" }))
            .await;
    }
    house.drain().await;
    let quarantined = house.db.quarantine(None, usize::MAX, |_, _| true).await.unwrap().rows;
    let quarantined: usize = quarantined.iter().map(|(_, record)| record.quarantined.len()).sum();
    // Every outcome has been noted and told when a stop returns.
    let House { queue, deliver, mut attempts, .. } = house;
    queue.stop().await;
    attempts.close();
    let reports =
        deliver.sent.lock().unwrap().iter().filter(|sent| sent.message.origin == Origin::Internal).count();
    let mut ends: BTreeMap<String, Vec<Consequence>> = BTreeMap::new();
    while let Some(attempted) = attempts.recv().await {
        let told = attempted.recipient.to_string() == "<sender@green.test>";
        if !told && !matches!(attempted.consequence, Consequence::Retry(_)) {
            ends.entry(attempted.recipient.to_string()).or_default().push(attempted.consequence);
        }
    }
    assert_eq!(ends.len(), expected);
    let count = |wanted| ends.values().filter(|end| **end == [wanted]).count();
    let table = [count(Consequence::Done), count(Consequence::Report), count(Consequence::Quarantine)];
    assert_eq!(table.iter().sum::<usize>(), expected, "{table:?}");
    assert_eq!(table[2], quarantined);
    assert!(table.iter().all(|&count| count > 0) && reports > 0, "{table:?}, {reports} reports");
}
