//! The one thread of a database that writes: whatever waits when a commit begins goes into that commit.
//!
//! It stands between everything that stores and redb. A job is answered only after the `fsync` of the commit
//! that holds it. A failed write or `fsync` ends the writer for good: what the disk holds afterwards is
//! unknown, so nothing more is taken, and nothing is tried a second time, until the process starts anew and
//! recovers. What the jobs are and which rows they touch is left to the database's [`Rows`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use redb::{Database, WriteTransaction};
use tokio::sync::{Semaphore, oneshot};

use super::error::{StoreError, WriteError};

/// Octets of jobs that may wait for their commit or be in it; beyond that whoever submits waits.
pub(super) const MAX_WAITING_OCTETS: u32 = 64 * 1024 * 1024;

/// Octets of waiting jobs at which a commit no longer lingers.
const LINGER_OCTETS: usize = MAX_WAITING_OCTETS as usize / 2;

/// What the smallest job counts for in [`MAX_WAITING_OCTETS`]: this bounds the number of jobs, too.
const MIN_JOB_OCTETS: u32 = 1024;

/// What a database does with its jobs. Two databases, two implementations; redb is fixed for both.
pub(super) trait Rows: Send + 'static {
    /// What is said of the store when a write failed.
    const AFTER_A_FAILURE: &'static str =
        "nothing more is stored until a restart, which recovers what was acknowledged";

    /// One unit of work: all of it is in the database after a crash, or none.
    type Job: Send + 'static;
    /// What the submitter is told after the `fsync`.
    type Answer: Send + 'static;

    /// Applies the jobs in their order and answers each, in the same order. An error is a failure of the
    /// store itself and ends the writer; what a job asked for in vain is said in its answer.
    fn apply(
        &mut self,
        transaction: &WriteTransaction,
        jobs: Vec<Self::Job>,
    ) -> Result<Vec<Self::Answer>, StoreError>;

    /// Whether the commit that follows also stores which pages are free: it takes longer, and opening after
    /// an unclean end needn't read all rows (docs/adr/0001).
    fn quick_repair(&self) -> bool;

    /// Called after the `fsync` and before the answers, on the writer's thread.
    fn committed(&mut self);
}

/// The sending end; clones share the thread. The thread ends, everything queued written, with the last clone
/// or by [`Writer::close`].
pub(super) struct Writer<R: Rows> {
    shared: Arc<Shared<R>>,
    /// Counts the clones: the thread holds only `shared`.
    _alive: Arc<Alive<R>>,
}

impl<R: Rows> Clone for Writer<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), _alive: self._alive.clone() }
    }
}

impl<R: Rows> fmt::Debug for Writer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

struct Alive<R: Rows>(Arc<Shared<R>>);

impl<R: Rows> Drop for Alive<R> {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Shared<R: Rows> {
    name: String,
    queue: Mutex<Queue<R>>,
    arrived: Condvar,
    room: Semaphore,
    failure: OnceLock<Arc<str>>,
}

struct Queue<R: Rows> {
    waiting: Vec<Waiting<R>>,
    octets: usize,
    ending: bool,
    ended: Option<oneshot::Sender<()>>,
}

struct Waiting<R: Rows> {
    job: R::Job,
    answer: Option<oneshot::Sender<R::Answer>>,
}

impl<R: Rows> Writer<R> {
    /// Starts the thread. `name` is the database's file, for messages. The first job of a commit waits
    /// `linger` for company: zero where somebody waits for the answer.
    pub(super) fn start(
        name: &str,
        database: Arc<Database>,
        rows: R,
        linger: Duration,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            queue: Mutex::new(Queue { waiting: Vec::new(), octets: 0, ending: false, ended: None }),
            arrived: Condvar::new(),
            room: Semaphore::new(MAX_WAITING_OCTETS as usize),
            failure: OnceLock::new(),
        });
        let thread_shared = shared.clone();
        thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(&thread_shared, database, rows, linger))?;
        Ok(Self { _alive: Arc::new(Alive(shared.clone())), shared })
    }

    /// Hands a job in and waits until it is on disk. `octets` is roughly what the job holds in memory. The
    /// job is done even when the caller stops waiting.
    pub(super) async fn submit(&self, job: R::Job, octets: usize) -> Result<R::Answer, WriteError> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(job, octets, Some(sender)).await?;
        receiver.await.map_err(|_| self.shared.refusal())
    }

    /// Hands a job in and doesn't wait for the disk: for what may be repeated after a crash.
    pub(super) async fn post(&self, job: R::Job, octets: usize) -> Result<(), WriteError> {
        self.enqueue(job, octets, None).await
    }

    /// The database's file, for messages.
    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    /// Why nothing is taken any more, if that is so.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.shared.failure.get().cloned()
    }

    /// Writes what is queued and ends the thread; jobs handed in later are refused.
    pub(super) async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut queue = self.shared.lock();
            if queue.ending {
                return;
            }
            queue.ended = Some(sender);
        }
        self.shared.end();
        // The thread drops the sender or uses it: either way it has ended.
        let _ = receiver.await;
    }

    async fn enqueue(
        &self,
        job: R::Job,
        octets: usize,
        answer: Option<oneshot::Sender<R::Answer>>,
    ) -> Result<(), WriteError> {
        let octets =
            u32::try_from(octets).unwrap_or(MAX_WAITING_OCTETS).clamp(MIN_JOB_OCTETS, MAX_WAITING_OCTETS);
        self.shared.room.acquire_many(octets).await.map_err(|_| self.shared.refusal())?.forget();
        let mut queue = self.shared.lock();
        if queue.ending {
            return Err(self.shared.refusal());
        }
        queue.waiting.push(Waiting { job, answer });
        queue.octets += octets as usize;
        let wake = queue.waiting.len() == 1 || queue.octets >= LINGER_OCTETS;
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }
}

impl<R: Rows> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, Queue<R>> {
        // No code that can panic runs under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self) -> WriteError {
        self.failure.get().cloned().map_or(WriteError::Closed, WriteError::Failed)
    }

    fn end(&self) {
        self.lock().ending = true;
        self.arrived.notify_one();
    }

    /// The next batch: everything that waits. None: the end.
    fn take(&self, linger: Duration) -> Option<(Vec<Waiting<R>>, usize)> {
        let mut queue = self.lock();
        while queue.waiting.is_empty() {
            if queue.ending {
                return None;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if !linger.is_zero() && !queue.ending {
            let still_open = |queue: &mut Queue<R>| !queue.ending && queue.octets < LINGER_OCTETS;
            queue = self
                .arrived
                .wait_timeout_while(queue, linger, still_open)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Some((std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.octets)))
    }

    fn fail(&self, cause: &str) {
        let text = format!("{}: writing failed ({cause}); {}", self.name, R::AFTER_A_FAILURE);
        tracing::error!(store = self.name, "{text}");
        // Only this thread sets it, and ends right after.
        let _ = self.failure.set(text.into());
        let mut queue = self.lock();
        queue.ending = true;
        queue.waiting.clear();
        drop(queue);
        self.room.close();
    }
}

fn run<R: Rows>(shared: &Shared<R>, database: Arc<Database>, mut rows: R, linger: Duration) {
    while let Some((batch, octets)) = shared.take(linger) {
        let (jobs, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.job, w.answer)).unzip();
        // redb panics on pages that were altered under it; that must end as any other failure does.
        let outcome = catch_unwind(AssertUnwindSafe(|| commit(&database, &mut rows, jobs)));
        match outcome {
            Ok(Ok(answers)) => {
                tell(waiting, answers);
                shared.room.add_permits(octets);
            }
            // `waiting` is dropped after this: who waits finds the failure noted when he wakes.
            Ok(Err(error)) => shared.fail(&error.to_string()),
            Err(_) => shared.fail(&StoreError::panicked().to_string()),
        }
    }
    // Before the one who waits in `close` goes on: the file is released when he does.
    drop(rows);
    drop(database);
    if let Some(ended) = shared.lock().ended.take() {
        let _ = ended.send(());
    }
}

fn commit<R: Rows>(
    database: &Database,
    rows: &mut R,
    jobs: Vec<R::Job>,
) -> Result<Vec<R::Answer>, StoreError> {
    let mut transaction = database.begin_write()?;
    let answers = rows.apply(&transaction, jobs)?;
    transaction.set_quick_repair(rows.quick_repair());
    transaction.commit()?;
    rows.committed();
    Ok(answers)
}

fn tell<A>(waiting: Vec<Option<oneshot::Sender<A>>>, answers: Vec<A>) {
    for (waiting, answer) in waiting.into_iter().zip(answers) {
        if let Some(waiting) = waiting {
            // Whoever stopped waiting has no use for the answer; the job is done all the same.
            let _ = waiting.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use redb::{ReadableDatabase, ReadableTable, TableDefinition};

    use super::*;
    use crate::store::lossy::{EIO, ENOSPC, LossyDisk};
    use crate::store::opening::open_backend;
    use crate::store::schema::FACTS;

    const NUMBERS: TableDefinition<'_, u64, u64> = TableDefinition::new("numbers");
    const AT_ONCE: Duration = Duration::ZERO;

    /// Stores each number under itself, tells how many were in its commit, and waits at a gate if there is
    /// one.
    struct Numbers {
        gate: Option<mpsc::Receiver<()>>,
    }

    impl Rows for Numbers {
        type Job = u64;
        type Answer = usize;

        fn apply(
            &mut self,
            transaction: &WriteTransaction,
            jobs: Vec<u64>,
        ) -> Result<Vec<usize>, StoreError> {
            if let Some(gate) = &self.gate {
                gate.recv().unwrap();
            }
            let mut table = transaction.open_table(NUMBERS)?;
            for &number in &jobs {
                table.insert(number, number)?;
            }
            Ok(vec![jobs.len(); jobs.len()])
        }

        fn quick_repair(&self) -> bool {
            false
        }

        fn committed(&mut self) {}
    }

    fn open(disk: &LossyDisk) -> Arc<Database> {
        Arc::new(open_backend("test.redb".as_ref(), disk.backend(), FACTS, 1 << 20).unwrap())
    }

    fn stored(database: &Database) -> Vec<u64> {
        let reading = database.begin_read().unwrap();
        let Ok(table) = reading.open_table(NUMBERS) else { return Vec::new() };
        table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
    }

    #[tokio::test]
    async fn what_waits_when_a_commit_begins_shares_it() {
        let (open_gate, gate) = mpsc::channel();
        let disk = LossyDisk::default();
        let writer = Writer::start("test.redb", open(&disk), Numbers { gate: Some(gate) }, AT_ONCE).unwrap();
        let submit = |number| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.submit(number, 0).await.unwrap() })
        };
        let first = submit(0);
        while !writer.shared.lock().waiting.is_empty()
            || writer.shared.room.available_permits() == MAX_WAITING_OCTETS as usize
        {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (1..=20).map(submit).collect();
        while writer.shared.lock().waiting.len() < 20 {
            tokio::task::yield_now().await;
        }
        open_gate.send(()).unwrap();
        open_gate.send(()).unwrap();
        assert_eq!(first.await.unwrap(), 1);
        for answer in rest {
            assert_eq!(answer.await.unwrap(), 20);
        }
    }

    #[tokio::test]
    async fn a_failed_operation_ends_it_and_is_never_retried() {
        for errno in [ENOSPC, EIO] {
            for operation in 1.. {
                let disk = LossyDisk::default();
                let database = open(&disk);
                let writer = Writer::start("test.redb", database, Numbers { gate: None }, AT_ONCE).unwrap();
                assert_eq!(writer.submit(1, 0).await, Ok(1));
                let before = disk.operations();
                disk.fail_in(operation, errno);
                let answer = writer.submit(2, 0).await;
                if answer.is_ok() {
                    // The failure comes after all that a commit does.
                    assert!(operation > 1 && disk.operations() - before < operation);
                    break;
                }
                let failure = writer.failure().expect("a failure is remembered");
                assert!(failure.contains("test.redb"), "{failure}");
                assert_eq!(answer, Err(WriteError::Failed(failure.clone())));
                assert_eq!(writer.submit(3, 0).await, Err(WriteError::Failed(failure)));
                let found = stored(&open(&disk.after_power_cut(|| false)));
                assert!(found == [1] || found == [1, 2], "{found:?}");
            }
        }
    }

    #[tokio::test]
    async fn closing_writes_what_is_queued() {
        let disk = LossyDisk::default();
        let database = open(&disk);
        let writer = Writer::start("test.redb", database, Numbers { gate: None }, AT_ONCE).unwrap();
        for number in 0..50 {
            writer.post(number, 0).await.unwrap();
        }
        writer.close().await;
        assert_eq!(writer.submit(50, 0).await, Err(WriteError::Closed));
        assert_eq!(stored(&open(&disk.after_power_cut(|| false))), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_below_ends_it_too() {
        let (open_gate, gate) = mpsc::channel();
        drop(open_gate);
        let writer =
            Writer::start("test.redb", open(&LossyDisk::default()), Numbers { gate: Some(gate) }, AT_ONCE)
                .unwrap();
        assert!(matches!(writer.submit(1, 0).await, Err(WriteError::Failed(_))));
    }
}
