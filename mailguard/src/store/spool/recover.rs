//! What is done before the spool is used: every row is looked at, what can't be used is put aside and
//! reported, and body files that no row names are moved into a folder of their own. None is removed but those
//! that were never acknowledged.
//!
//! Normally there is nothing to put aside: rows are transactional, files are on disk before their rows. It is
//! for disks that lied and hands that slipped, and for rows of another version, which aren't damaged. A row
//! that was put aside comes back by itself when its missing file does, or a version that can read it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use mailguard_core::mail::{QueueId, UnixTime};
use redb::{Database, ReadableTable, WriteTransaction};
use serde::de::DeserializeOwned;

use super::bodies::StoredBody;
use super::damaged::{self, Damaged, DamagedRecord, DamagedTable};
use super::messages::{MessageRecord, Messages};
use super::ops::RECORD_OCTETS;
use super::paused::{self, Paused};
use super::quarantine::{Quarantine, QuarantineRecord};
use crate::store::body::BodyDirectory;
use crate::store::error::{OpenError, StoreError};
use crate::store::stock::Stock;
use crate::store::table::{OpenTable, StoredTable};

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The messages that wait, and when each is due.
    pub queued: Vec<(QueueId, UnixTime)>,
    /// How much waits.
    pub queue_stock: Stock,
    /// How much is quarantined.
    pub quarantine_stock: Stock,
    /// Octets of rows, roughly: records, and bodies that aren't files.
    pub row_octets: u64,
    /// The greatest number in use, for ids and body files: new ones are above it.
    pub greatest: u64,
    /// Rows that can't be used, from now and from earlier starts.
    pub damaged: Vec<(QueueId, DamagedRecord)>,
    /// Body files that were being received at an unclean end, removed now.
    pub orphans: usize,
    /// Body files that no row names, moved to `bodies/lost` now.
    pub lost: usize,
    /// Destinations at which no attempts are made.
    pub paused: Vec<String>,
}

/// Looks at everything in `database` and `bodies`; `path` is for messages only.
pub(super) fn recover(
    path: &Path,
    database: &Database,
    bodies: &BodyDirectory,
) -> Result<Recovered, OpenError> {
    let io = |e| OpenError::io(path, e);
    let (files, lost) = (bodies.list().map_err(io)?, bodies.list_lost().map_err(io)?);
    let mut search =
        Search { files: files.into_iter().collect(), lost: lost.into_iter().collect(), ..Search::default() };
    let numbers = search.files.keys().chain(search.lost.keys());
    search.recovered.greatest = numbers.copied().max().unwrap_or(0);
    search.run(database).map_err(|e| OpenError::of(path, e))?;
    for (id, damaged) in &search.recovered.damaged {
        tracing::error!(%id, cause = damaged.cause, "a stored message can't be used and is kept aside");
    }
    search.recovered.orphans = bodies.remove_new().map_err(io)?;
    let again = |number: &u64| !search.files.contains_key(number) && search.lost.contains_key(number);
    let again: Vec<u64> = search.named.iter().copied().filter(again).collect();
    bodies.find_again(&again).map_err(io)?;
    let unnamed: Vec<u64> =
        search.files.keys().copied().filter(|number| !search.named.contains(number)).collect();
    // A full disk must not keep mail from being served: they stay where they are.
    match bodies.lose(&unnamed) {
        Ok(()) if unnamed.is_empty() => {}
        Ok(()) => {
            tracing::error!(files = unnamed.len(), folder = %bodies.lost().display(), "message bodies that no row names are kept aside");
        }
        Err(error) => tracing::error!(%error, "message bodies that no row names can't be moved aside"),
    }
    search.recovered.lost = unnamed.len();
    Ok(search.recovered)
}

#[derive(Default)]
struct Search {
    /// Number and length of each body file.
    files: HashMap<u64, u64>,
    /// The same of those that no row named at an earlier start.
    lost: HashMap<u64, u64>,
    /// Numbers of the body files that rows name.
    named: HashSet<u64>,
    recovered: Recovered,
}

impl Search {
    fn run(&mut self, database: &Database) -> Result<(), StoreError> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        let changed = self.tables(&transaction)?;
        if changed {
            transaction.commit()?
        } else {
            transaction.abort()?
        }
        Ok(())
    }

    /// Whether anything was written.
    fn tables(&mut self, transaction: &WriteTransaction) -> Result<bool, StoreError> {
        self.recovered.paused = paused::all(&transaction.open_table(Paused::definition())?)?;
        let mut aside = transaction.open_table(Damaged::definition())?;
        let returned = self.bring_back(transaction, &mut aside)?;
        let mut bad = Vec::new();
        self.look::<Messages, MessageRecord>(transaction, DamagedTable::Messages, &mut bad)?;
        self.look::<Quarantine, QuarantineRecord>(transaction, DamagedTable::Quarantine, &mut bad)?;
        let changed = returned || !bad.is_empty();
        for (id, record) in &bad {
            damaged::put(&mut aside, *id, record)?;
        }
        for (id, record) in damaged::all(&aside)? {
            self.recovered.greatest = self.recovered.greatest.max(id.0);
            if let Some(body) = record.body() {
                self.name(body);
            }
            self.recovered.damaged.push((id, record));
        }
        Ok(changed)
    }

    /// Moves rows back that can be used again: the missing file is there, or this version can read what an
    /// older one couldn't.
    fn bring_back(
        &self,
        transaction: &WriteTransaction,
        aside: &mut OpenTable<'_, Damaged>,
    ) -> Result<bool, StoreError> {
        let mut back = Vec::new();
        for row in aside.iter()? {
            let (key, row) = row?;
            let (id, table) = key.value();
            let record = DamagedRecord::stored(table, row.value());
            if record.is_readable() && record.body().is_some_and(|body| self.is_there(body)) {
                back.push(((id, table), record));
            }
        }
        for (key @ (id, _), record) in &back {
            let table = match record.table {
                DamagedTable::Messages => Messages::definition(),
                DamagedTable::Quarantine => Quarantine::definition(),
            };
            transaction.open_table(table)?.insert(id, record.row.as_bytes())?;
            aside.remove(key)?;
            tracing::info!(id = %QueueId(*id), "a message that was kept aside is used again");
        }
        Ok(!back.is_empty())
    }

    /// Looks at each row of a table; the bad ones move to `bad`.
    fn look<T: StoredTable<Key = u64, Value = &'static [u8]>, R: DeserializeOwned + Row>(
        &mut self,
        transaction: &WriteTransaction,
        table: DamagedTable,
        bad: &mut Vec<(QueueId, DamagedRecord)>,
    ) -> Result<(), StoreError> {
        let mut rows = transaction.open_table(T::definition())?;
        let before = bad.len();
        for row in rows.iter()? {
            let (key, value) = row?;
            let id = key.value();
            self.recovered.greatest = self.recovered.greatest.max(id);
            let record = match serde_json::from_slice::<R>(value.value()) {
                Err(error) => {
                    let record = DamagedRecord::unreadable(table, value.value(), &error);
                    if let Some(body) = record.body() {
                        self.name(body);
                    }
                    record
                }
                Ok(record) if !self.is_there(record.body()) => {
                    self.name(record.body());
                    DamagedRecord::of(table, value.value(), missing_cause(record.body()))
                }
                Ok(record) => {
                    self.name(record.body());
                    record.note(QueueId(id), &mut self.recovered);
                    continue;
                }
            };
            bad.push((QueueId(id), record));
        }
        for (id, _) in &bad[before..] {
            rows.remove(id.0)?;
        }
        Ok(())
    }

    fn name(&mut self, body: StoredBody) {
        if let StoredBody::File { number, .. } = body {
            self.named.insert(number);
            self.recovered.greatest = self.recovered.greatest.max(number);
        }
    }

    fn is_there(&self, body: StoredBody) -> bool {
        match body {
            // In the same transaction as its record.
            StoredBody::Row { .. } => true,
            StoredBody::File { number, octets } => {
                self.files.get(&number).or_else(|| self.lost.get(&number)) == Some(&octets)
            }
        }
    }
}

fn missing_cause(body: StoredBody) -> String {
    match body {
        StoredBody::Row { .. } => "its body is missing".to_owned(),
        StoredBody::File { number, octets } => format!(
            "its body file bodies/{number:016x} of {octets} octets is missing or has another length: restore the file \
             and restart, or remove the message"
        ),
    }
}

/// What recovery wants to know of a row.
trait Row {
    fn body(&self) -> StoredBody;
    fn note(&self, id: QueueId, recovered: &mut Recovered);
}

/// What a body that isn't a file weighs, with its record.
fn weight(body: StoredBody) -> u64 {
    match body {
        StoredBody::Row { octets } => octets + RECORD_OCTETS,
        StoredBody::File { .. } => 0,
    }
}

impl Row for MessageRecord {
    fn body(&self) -> StoredBody {
        self.body
    }

    fn note(&self, id: QueueId, recovered: &mut Recovered) {
        recovered.row_octets += weight(self.body);
        recovered.queue_stock.add(self.body.octets());
        let due = if self.on_hold { UnixTime::NEVER } else { self.due().unwrap_or(self.received_at) };
        recovered.queued.push((id, due));
    }
}

impl Row for QuarantineRecord {
    fn body(&self) -> StoredBody {
        self.body
    }

    fn note(&self, id: QueueId, recovered: &mut Recovered) {
        // The queue is read first, in order; a body that both need is there once.
        if recovered.queued.binary_search_by_key(&id, |(queued, _)| *queued).is_err() {
            recovered.row_octets += weight(self.body);
        }
        recovered.quarantine_stock.add(self.body.octets());
    }
}
