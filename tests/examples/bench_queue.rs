//! What a long queue costs: `cargo xtask bench queue`. Fills a spool with messages that wait for a later
//! time, opens it as a start does, and compares the way of new messages through it with that through an empty
//! one. One JSON object is printed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use mailguard::config::{Source, parse_and_validate};
use mailguard::queue::{AttemptObserver, Deliver, Outgoing, Queue, QueueContext, Reached};
use mailguard::routing::Names;
use mailguard::spool::{Body, IdMint, NewMessage, Spool};
use mailguard::store::spool::{Accept, MessageRecord, Queued, RecipientState, SpoolDb, SpoolOp, StoredBody};
use mailguard_core::attempt::Attempted;
use mailguard_core::config::Config;
use mailguard_core::disposition::Disposition;
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::{
    BodyType, Envelope, ForwardPath, Mailbox, QueueId, Recipient, ReversePath, UnixTime,
};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::{NextHop, Route};
use mailguard_core::smtp::EnhancedStatus;
use mailguard_tests::memory;
use serde_json::json;

/// Octets of each message that waits.
const OCTETS: usize = 2_000;
/// Messages handed in at a time while the spool is filled.
const FILL_BATCH: usize = 2_000;
/// New messages whose way is timed.
const NEW_MESSAGES: usize = 4_000;
/// Of them at a time.
const NEW_AT_ONCE: usize = 20;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let waiting: usize = arguments.next().context("how many messages wait")?.parse()?;
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if waiting > 0 {
        runtime.block_on(fill(folder.path(), waiting))?;
    }
    let before = memory::of_tree(nix::unistd::getpid())?.resident;
    let start = Instant::now();
    let (db, recovered) = SpoolDb::open(folder.path())?;
    let opened = start.elapsed();
    if recovered.queued.len() != waiting {
        bail!("{} of {waiting} messages were found", recovered.queued.len());
    }
    let config = config(folder.path())?;
    let measured = runtime.block_on(async move {
        let house = House::open(db, &recovered, config);
        drop(recovered);
        let started = start.elapsed();
        let held = memory::of_tree(nix::unistd::getpid())?.resident.saturating_sub(before);
        let rate = house.pass(NEW_MESSAGES).await?;
        house.close().await;
        anyhow::Ok(json!({
            "waiting": waiting, "open_seconds": opened.as_secs_f64(), "start_seconds": started.as_secs_f64(),
            "memory_kib": held, "new_messages_a_second": rate,
        }))
    })?;
    println!("{measured}");
    Ok(())
}

fn config(folder: &Path) -> Result<Config> {
    let text = format!(
        "state_dir = \"{}\"\nmin_free_disk = \"1MB\"\nhostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"lan\"]\nmode = \"active\"\n",
        folder.display()
    );
    parse_and_validate(&Source::of_text("mailguard.toml", text)).map_err(|errors| anyhow::anyhow!("{errors}"))
}

fn envelope(number: usize) -> Result<Envelope> {
    let mailbox = |text: &str| Mailbox::parse(text).map_err(|error| anyhow::anyhow!("{error}"));
    Ok(Envelope {
        reverse_path: ReversePath::Mailbox(mailbox("bench@client.example.test")?),
        recipients: vec![Recipient::new(ForwardPath::Mailbox(mailbox(&format!(
            "user{number}@domain{}.example.test",
            number % 1_000
        ))?))],
        body: BodyType::SevenBit,
        smtputf8: false,
        dsn_return: None,
        envelope_id: None,
    })
}

/// Messages that were tried once and are due tomorrow.
async fn fill(folder: &Path, waiting: usize) -> Result<()> {
    let (db, _) = SpoolDb::open(folder)?;
    let now = UnixTime::from(SystemTime::now());
    let body = Body::Memory(Bytes::from(vec![b'x'; OCTETS]));
    let mut state = Queued::first(None, now.plus(Duration::from_secs(86_400)));
    state.attempts = 1;
    for first in (0..waiting).step_by(FILL_BATCH) {
        let mut jobs = Vec::new();
        for number in first..waiting.min(first + FILL_BATCH) {
            let states = vec![RecipientState::Queued(state.clone())];
            let record =
                MessageRecord::new(Origin::Internal, envelope(number)?, now, StoredBody::of(&body), states);
            let accept = Accept {
                id: QueueId(now.0 + number as u64),
                message: Some(record.row()?),
                quarantine: None,
                body: body.clone(),
                handover: None,
            };
            jobs.push(db.submit(SpoolOp::Accept(Box::new(accept))));
        }
        for done in join_all(jobs).await {
            done?;
        }
    }
    db.close().await;
    Ok(())
}

struct Taker;

impl Deliver for Taker {
    fn look_up<'a>(&'a self, _: &'a Arc<Config>, _: &'a NextHop) -> BoxFuture<'a, Option<Names>> {
        async { Some(Names::Host(Lookup::Absent)) }.boxed()
    }

    fn reach<'a>(
        &'a self,
        _config: &'a Arc<Config>,
        _route: &'a Route,
        _names: Option<&'a Names>,
    ) -> BoxFuture<'a, Result<Box<dyn Reached + 'a>, Outcome>> {
        async { Ok(Box::new(Taker) as Box<dyn Reached + 'a>) }.boxed()
    }
}

impl Reached for Taker {
    fn send<'a>(self: Box<Self>, message: &'a Outgoing) -> BoxFuture<'a, Vec<Outcome>>
    where
        Self: 'a,
    {
        let taken = || Outcome::Delivered(Report::ours(EnhancedStatus::new(2, 0, 0), "taken"));
        let outcomes = message.envelope.recipients.iter().map(|_| taken()).collect();
        async move { outcomes }.boxed()
    }
}

struct Nobody;

impl AttemptObserver for Nobody {
    fn attempted(&self, _: Vec<Attempted>) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn noticed(&self, _: QueueId, _: QueueId) {}
}

struct House {
    db: SpoolDb,
    queue: Queue,
    spool: Spool,
    ids: Arc<IdMint>,
}

impl House {
    fn open(db: SpoolDb, recovered: &mailguard::store::spool::Recovered, config: Config) -> Self {
        let config = Arc::new(ArcSwap::from_pointee(config));
        let ids = Arc::new(IdMint::above(recovered.greatest));
        let surroundings = QueueContext {
            db: db.clone(),
            config: config.clone(),
            ids: ids.clone(),
            deliver: Arc::new(Taker),
            observer: Arc::new(Nobody),
        };
        let queue = Queue::start(surroundings, recovered);
        let spool = Spool::new(db.clone(), config, ids.clone());
        Self { db, queue, spool, ids }
    }

    /// New messages a second, from commit to the end of their rows.
    async fn pass(&self, messages: usize) -> Result<f64> {
        let waiting = self.db.queue_stock().messages;
        let start = Instant::now();
        for first in (0..messages).step_by(NEW_AT_ONCE) {
            let commits = (first..first + NEW_AT_ONCE).map(|number| self.commit(number));
            for done in join_all(commits).await {
                done?;
            }
        }
        while self.db.queue_stock().messages > waiting {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(messages as f64 / start.elapsed().as_secs_f64())
    }

    async fn commit(&self, number: usize) -> Result<()> {
        let message = NewMessage {
            id: self.ids.mint(),
            origin: Origin::Internal,
            envelope: envelope(number)?,
            dispositions: vec![Disposition::Deliver],
            body: Body::Memory(Bytes::from(vec![b'x'; OCTETS])),
            received_at: UnixTime::from(SystemTime::now()),
        };
        self.spool.commit(message).await?;
        Ok(())
    }

    async fn close(self) {
        self.queue.stop().await;
        self.db.close().await;
    }
}
