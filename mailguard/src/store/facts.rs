//! `facts.redb`: what we know and could do without, first of all the traces. Written in batches; a crash costs the
//! last fraction of a second.
//!
//! A trace is a row under the message's id, and the ids grow with time, so the id is the index by time, too. The
//! attempts of a message are rows of their own: adding one rewrites nothing. What the rows say is left to `trace`.
//! Bans are kept here, too; who bans waits for the commit. After a failed write the file is opened again by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mailguard_core::mail::QueueId;
use redb::{
    AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend, Table,
    TableDefinition, WriteTransaction,
};

use super::reopening::Reopening;
use super::schema::FACTS;
use super::writer::{Rows, WriteError, Writer};
use super::{OpenError, create_directory, open_backend, open_file, read_blocking};

/// Memory for redb's page cache, octets.
const CACHE_OCTETS: usize = 16 * 1024 * 1024;

/// The file's name in `state_dir`.
const FILE_NAME: &str = "facts.redb";

/// Nobody waits for a trace: its commits linger, so that they take few of the `fsync`s that the spool needs.
const LINGER: Duration = Duration::from_millis(200);

/// Most attempts kept of one message; beyond it the last is overwritten.
pub const MAX_ATTEMPTS: u32 = 10_000;

/// Rows that one sweep removes at most: what a commit of other jobs waits for it.
pub const SWEEP_ROWS: usize = 10_000;

/// What a row takes in the file beside its value, octets, roughly.
const ROW_OCTETS: u64 = 32;

/// Traces: id ▶ JSON.
const TRACES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("traces");
/// Attempts: id of the message and number of the attempt ▶ JSON.
const ATTEMPTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("attempts");
/// Bans: address as IPv6 has it ▶ JSON.
const BANS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("bans");
/// What the greylist has seen: a key of its own ▶ JSON.
const GREYLIST: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("greylist");
/// Running totals: name ▶ number.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
/// Octets of all traces and attempts.
const OCTETS_KEY: &str = "trace-octets";

/// The address of a client as IPv6 has it, and the JSON of its ban.
pub type BanRow = ([u8; 16], Vec<u8>);

/// A key of the greylist, and the JSON of what was seen.
pub type GreylistRow = (Vec<u8>, Vec<u8>);

/// One change.
#[derive(Debug)]
pub enum FactsOp {
    /// A trace begins.
    Trace(QueueId, Vec<u8>),
    /// Attempts were made: a message each, in the order in which they ended.
    Attempts(Vec<(QueueId, Vec<u8>)>),
    /// Everything before this id goes, and the oldest beyond so many octets: at most [`SWEEP_ROWS`] at a time.
    Sweep {
        /// The oldest id that stays.
        keep_from: QueueId,
        /// Octets that stay at most.
        max_octets: u64,
    },
    /// Clients are banned, or banned otherwise than before.
    Ban(Vec<BanRow>),
    /// Bans end.
    Lift(Vec<[u8; 16]>),
    /// Rows of the greylist change, or go where there is no row.
    Greylist(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// Nothing: who waits for it knows that everything handed in before can be read.
    Flush,
}

/// How many rows a job removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed(pub usize);

/// Why the file can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: reading failed ({cause})")]
pub struct ReadError {
    path: PathBuf,
    cause: String,
}

/// The database; clones are the same one.
#[derive(Debug, Clone)]
pub struct FactsDb {
    open: Reopening<FactRows>,
    path: Arc<PathBuf>,
}

impl FactsDb {
    /// Opens or creates the file in `state_dir`.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        create_directory(state_dir)?;
        Self::start(state_dir.join(FILE_NAME), |path| open_file(path, FACTS, CACHE_OCTETS))
    }

    /// The same on what `backend` gives each time; the name is for messages.
    pub fn open_on<B: StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        Self::start(PathBuf::from(FILE_NAME), move |path| open_backend(path, backend(), FACTS, CACHE_OCTETS))
    }

    fn start(
        path: PathBuf,
        open: impl Fn(&Path) -> Result<Database, OpenError> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let path = Arc::new(path);
        let of = path.clone();
        let open = Reopening::start(move || {
            let database = Arc::new(open(&of)?);
            create_tables(&database).map_err(|e| OpenError::redb(&of, e))?;
            let name = of.display().to_string();
            let writer = Writer::start(&name, database.clone(), FactRows, LINGER);
            Ok((database, writer.map_err(|e| OpenError::io(&of, e))?))
        })?;
        Ok(Self { open, path })
    }

    /// Hands a job in; waits only while too much is waiting.
    pub async fn post(&self, job: FactsOp) -> Result<(), WriteError> {
        let octets = job.octets();
        self.open.writer().post(job, octets).await
    }

    /// Hands a job in and waits for its commit.
    pub async fn submit(&self, job: FactsOp) -> Result<Removed, WriteError> {
        let octets = job.octets();
        self.open.writer().submit(job, octets).await
    }

    /// Why nothing is stored now, if that is so.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.open.writer().failure()
    }

    /// Writes what is queued and takes nothing more.
    pub async fn close(&self) {
        self.open.close().await;
    }

    /// Runs `look` on one consistent view, on a thread that may block.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&FactsSnapshot) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, ReadError> {
        let failed = |cause| ReadError { path: self.path.to_path_buf(), cause };
        let database = self.open.database();
        let database = database.ok_or_else(|| failed("it waits to be opened again".to_owned()))?;
        read_blocking(move || FactsSnapshot::of(&database).and_then(|view| look(&view))).await.map_err(failed)
    }
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TRACES)?;
    transaction.open_table(ATTEMPTS)?;
    transaction.open_table(BANS)?;
    transaction.open_table(GREYLIST)?;
    transaction.open_table(TOTALS)?;
    Ok(transaction.commit()?)
}

impl FactsOp {
    fn octets(&self) -> usize {
        match self {
            FactsOp::Trace(_, row) => row.len(),
            FactsOp::Attempts(rows) => rows.iter().map(|(_, row)| row.len()).sum(),
            FactsOp::Ban(rows) => rows.iter().map(|(client, row)| client.len() + row.len()).sum(),
            FactsOp::Lift(clients) => clients.len() * size_of::<[u8; 16]>(),
            FactsOp::Greylist(rows) => {
                rows.iter().map(|(key, row)| key.len() + row.as_ref().map_or(0, Vec::len)).sum()
            }
            FactsOp::Sweep { .. } | FactsOp::Flush => 0,
        }
    }
}

/// One consistent view.
pub struct FactsSnapshot {
    traces: ReadOnlyTable<u64, &'static [u8]>,
    attempts: ReadOnlyTable<(u64, u32), &'static [u8]>,
    bans: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    greylist: ReadOnlyTable<&'static [u8], &'static [u8]>,
    totals: ReadOnlyTable<&'static str, u64>,
}

impl FactsSnapshot {
    fn of(database: &Database) -> Result<Self, redb::Error> {
        let reading = database.begin_read()?;
        Ok(Self {
            traces: reading.open_table(TRACES)?,
            attempts: reading.open_table(ATTEMPTS)?,
            bans: reading.open_table(BANS)?,
            greylist: reading.open_table(GREYLIST)?,
            totals: reading.open_table(TOTALS)?,
        })
    }

    /// Shows the traces from `oldest` on, newest first, until `visit` says that it is enough.
    pub fn newest_first(
        &self,
        oldest: QueueId,
        mut visit: impl FnMut(QueueId, &[u8]) -> Result<bool, redb::Error>,
    ) -> Result<(), redb::Error> {
        for row in self.traces.range(oldest.0..)?.rev() {
            let (id, row) = row?;
            if !visit(QueueId(id.value()), row.value())? {
                break;
            }
        }
        Ok(())
    }

    /// The trace of one message.
    pub fn trace(&self, id: QueueId) -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(self.traces.get(id.0)?.map(|row| row.value().to_vec()))
    }

    /// The attempts of one message, in the order in which they ended.
    pub fn attempts(&self, id: QueueId) -> Result<Vec<Vec<u8>>, redb::Error> {
        let rows = self.attempts.range((id.0, 0)..=(id.0, u32::MAX))?;
        rows.map(|row| Ok(row?.1.value().to_vec())).collect()
    }

    /// All bans, those that have ended too, in the order of addresses.
    pub fn bans(&self) -> Result<Vec<BanRow>, redb::Error> {
        let row = |row: Result<_, redb::StorageError>| {
            let (client, row): (AccessGuard<'_, &[u8; 16]>, AccessGuard<'_, &[u8]>) = row?;
            Ok((*client.value(), row.value().to_vec()))
        };
        self.bans.range::<&[u8; 16]>(..)?.map(row).collect()
    }

    /// All rows of the greylist.
    pub fn greylist(&self) -> Result<Vec<GreylistRow>, redb::Error> {
        let row = |row: Result<_, redb::StorageError>| {
            let (key, row): (AccessGuard<'_, &[u8]>, AccessGuard<'_, &[u8]>) = row?;
            Ok((key.value().to_vec(), row.value().to_vec()))
        };
        self.greylist.range::<&[u8]>(..)?.map(row).collect()
    }

    /// Octets of all traces and attempts.
    pub fn octets(&self) -> Result<u64, redb::Error> {
        Ok(self.totals.get(OCTETS_KEY)?.map_or(0, |total| total.value()))
    }
}

/// What the writer does.
struct FactRows;

/// The tables open in one transaction.
struct Open<'t> {
    traces: Table<'t, u64, &'static [u8]>,
    attempts: Table<'t, (u64, u32), &'static [u8]>,
    bans: Table<'t, &'static [u8; 16], &'static [u8]>,
    greylist: Table<'t, &'static [u8], &'static [u8]>,
    octets: u64,
}

impl Rows for FactRows {
    type Job = FactsOp;
    type Answer = Removed;

    fn apply(
        &mut self,
        transaction: &WriteTransaction,
        jobs: Vec<FactsOp>,
    ) -> Result<Vec<Removed>, redb::Error> {
        let mut totals = transaction.open_table(TOTALS)?;
        let octets = totals.get(OCTETS_KEY)?.map_or(0, |total| total.value());
        let mut open = Open {
            traces: transaction.open_table(TRACES)?,
            attempts: transaction.open_table(ATTEMPTS)?,
            bans: transaction.open_table(BANS)?,
            greylist: transaction.open_table(GREYLIST)?,
            octets,
        };
        let answers = jobs.into_iter().map(|job| open.apply(job)).collect::<Result<Vec<_>, _>>()?;
        totals.insert(OCTETS_KEY, open.octets)?;
        Ok(answers)
    }

    /// Few commits are what makes it cheap.
    fn quick_repair(&self) -> bool {
        true
    }

    fn committed(&mut self) {}

    const AFTER_A_FAILURE: &'static str =
        "nothing is stored until the file could be opened again, which is tried";
}

fn size(row: &[u8]) -> u64 {
    row.len() as u64 + ROW_OCTETS
}

impl Open<'_> {
    fn apply(&mut self, job: FactsOp) -> Result<Removed, redb::Error> {
        match job {
            FactsOp::Trace(id, row) => {
                self.octets += size(&row);
                let replaced = self.traces.insert(id.0, row.as_slice())?.map_or(0, |old| size(old.value()));
                self.octets -= replaced;
            }
            FactsOp::Attempts(rows) => {
                for (id, row) in rows {
                    self.attempt(id, &row)?;
                }
            }
            FactsOp::Sweep { keep_from, max_octets } => return self.sweep(keep_from, max_octets),
            FactsOp::Ban(rows) => {
                for (client, row) in rows {
                    self.bans.insert(&client, row.as_slice())?;
                }
            }
            FactsOp::Lift(clients) => {
                for client in clients {
                    self.bans.remove(&client)?;
                }
            }
            FactsOp::Greylist(rows) => {
                for (key, row) in rows {
                    match row {
                        Some(row) => drop(self.greylist.insert(key.as_slice(), row.as_slice())?),
                        None => drop(self.greylist.remove(key.as_slice())?),
                    }
                }
            }
            FactsOp::Flush => {}
        }
        Ok(Removed(0))
    }

    fn attempt(&mut self, id: QueueId, row: &[u8]) -> Result<(), redb::Error> {
        let last = self.attempts.range((id.0, 0)..=(id.0, u32::MAX))?.next_back();
        let number = last.transpose()?.map_or(0, |(key, _)| (key.value().1 + 1).min(MAX_ATTEMPTS - 1));
        self.octets += size(row);
        let replaced = self.attempts.insert((id.0, number), row)?.map_or(0, |old| size(old.value()));
        self.octets -= replaced;
        Ok(())
    }

    /// Removes whole traces, oldest first, as many as the bounds ask for and [`SWEEP_ROWS`] allows.
    fn sweep(&mut self, keep_from: QueueId, max_octets: u64) -> Result<Removed, redb::Error> {
        let mut removed = 0;
        while removed < SWEEP_ROWS {
            let trace = self.traces.first()?.map(|(id, _)| id.value());
            let attempt = self.attempts.first()?.map(|(key, _)| key.value().0);
            let Some(oldest) = trace.into_iter().chain(attempt).min() else { break };
            if oldest >= keep_from.0 && self.octets <= max_octets {
                break;
            }
            if let Some(row) = self.traces.remove(oldest)? {
                self.octets = self.octets.saturating_sub(size(row.value()));
                removed += 1;
            }
            let attempts = (oldest, 0)..=(oldest, u32::MAX);
            let (octets, removed_attempts) = (&mut self.octets, &mut removed);
            self.attempts.retain_in(attempts, |_, row| {
                *octets = octets.saturating_sub(size(row));
                *removed_attempts += 1;
                false
            })?;
        }
        Ok(Removed(removed))
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::store::lossy::{ENOSPC, LossyDisk};

    fn facts() -> FactsDb {
        FactsDb::open_on(InMemoryBackend::new).unwrap()
    }

    fn row(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    /// Ids of the traces, newest first.
    async fn ids(facts: &FactsDb, oldest: u64) -> Vec<u64> {
        facts.submit(FactsOp::Flush).await.unwrap();
        let look = move |view: &FactsSnapshot| {
            let mut ids = Vec::new();
            view.newest_first(QueueId(oldest), |id, _| {
                ids.push(id.0);
                Ok(true)
            })?;
            Ok(ids)
        };
        facts.read(look).await.unwrap()
    }

    #[tokio::test]
    async fn traces_come_newest_first_with_their_attempts_in_order() {
        let facts = facts();
        for id in [5, 7, 6] {
            facts.post(FactsOp::Trace(QueueId(id), row("x"))).await.unwrap();
        }
        let attempts = [(6, "a"), (7, "b"), (6, "c")].map(|(id, text)| (QueueId(id), row(text)));
        facts.post(FactsOp::Attempts(attempts.to_vec())).await.unwrap();
        assert_eq!(ids(&facts, 6).await, [7, 6]);
        let six = facts.read(|view| view.attempts(QueueId(6))).await.unwrap();
        assert_eq!(six, [row("a"), row("c")]);
    }

    #[tokio::test]
    async fn sweeps_remove_the_oldest_and_no_more_than_allowed() {
        let facts = facts();
        for id in 0..10 {
            facts.post(FactsOp::Trace(QueueId(id), row("0123456789"))).await.unwrap();
            facts.post(FactsOp::Attempts(vec![(QueueId(id), row("0123456789"))])).await.unwrap();
        }
        let sweep = async |keep_from, max_octets| {
            facts.submit(FactsOp::Sweep { keep_from: QueueId(keep_from), max_octets }).await.unwrap()
        };
        assert_eq!(sweep(0, u64::MAX).await, Removed(0));
        assert_eq!(sweep(3, u64::MAX).await, Removed(6));
        assert_eq!(ids(&facts, 0).await, [9, 8, 7, 6, 5, 4, 3]);
        let two = 4 * (10 + ROW_OCTETS);
        assert_eq!(sweep(0, two).await, Removed(10));
        assert_eq!(ids(&facts, 0).await, [9, 8]);
        assert_eq!(facts.read(FactsSnapshot::octets).await.unwrap(), two);
        // An attempt without a trace doesn't stay for ever.
        facts.post(FactsOp::Attempts(vec![(QueueId(1), row("late"))])).await.unwrap();
        assert_eq!(sweep(8, u64::MAX).await, Removed(1));
        assert_eq!(sweep(u64::MAX, 0).await, Removed(4));
        assert_eq!(facts.read(FactsSnapshot::octets).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn bans_are_there_when_the_answer_is() {
        let facts = facts();
        let (one, other) = ([1; 16], [2; 16]);
        facts.submit(FactsOp::Ban(vec![(other, row("b")), (one, row("a"))])).await.unwrap();
        facts.submit(FactsOp::Ban(vec![(one, row("c"))])).await.unwrap();
        assert_eq!(facts.read(FactsSnapshot::bans).await.unwrap(), [(one, row("c")), (other, row("b"))]);
        facts.submit(FactsOp::Lift(vec![one, [3; 16]])).await.unwrap();
        assert_eq!(facts.read(FactsSnapshot::bans).await.unwrap(), [(other, row("b"))]);
    }

    #[tokio::test]
    async fn replaced_rows_count_once() {
        let facts = facts();
        for text in ["long long", "short"] {
            facts.post(FactsOp::Trace(QueueId(1), row(text))).await.unwrap();
        }
        facts.submit(FactsOp::Flush).await.unwrap();
        assert_eq!(facts.read(FactsSnapshot::octets).await.unwrap(), 5 + ROW_OCTETS);
    }

    #[tokio::test]
    async fn a_disk_that_was_full_once_costs_what_was_under_way_and_no_restart() {
        let disk = LossyDisk::default();
        let opened = disk.clone();
        let facts = FactsDb::open_on(move || opened.backend()).unwrap();
        facts.submit(FactsOp::Ban(vec![([1; 16], row("a"))])).await.unwrap();
        disk.fail_in(1, ENOSPC);
        assert!(facts.submit(FactsOp::Ban(vec![([2; 16], row("b"))])).await.is_err());
        assert!(facts.failure().is_some(), "said while it lasts");
        let again = async {
            while facts.failure().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), again).await.expect("opened again by itself");
        facts.submit(FactsOp::Ban(vec![([3; 16], row("c"))])).await.unwrap();
        assert_eq!(
            facts.read(FactsSnapshot::bans).await.unwrap(),
            [([1; 16], row("a")), ([3; 16], row("c"))]
        );
    }
}
