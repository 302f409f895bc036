//! Looking at a spool without serving mail: is everything there, and everything as files that any program can
//! read. For
//! `mailguard store`, while no daemon runs.
//!
//! Neither removes anything. Opening the database finishes what an unclean end left undone, as the next start
//! would, and a check repairs what fails its checksums: of a damaged disk, copy the file first.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mailguard_core::mail::QueueId;
use redb::{Database, ReadableTable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bodies::StoredBody;
use super::damaged::{Damaged, DamagedRecord, DamagedTable};
use super::messages::{MessageRecord, Messages};
use super::quarantine::{Quarantine, QuarantineRecord};
use super::{BODIES_NAME, CACHE_OCTETS, FILE_NAME, SpoolSnapshot};
use crate::store::body::BodyDirectory;
use crate::store::error::{OpenError, StoreError};
use crate::store::opening::{guarded, open_file, sync_directory};
use crate::store::schema::SPOOL;
use crate::store::stock::Stock;
use crate::store::table::StoredTable;

/// What a spool holds, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The database's file.
    pub database: PathBuf,
    /// Messages that wait.
    pub queue: Stock,
    /// Messages that are quarantined.
    pub quarantine: Stock,
    /// What can't be used, one line each; empty when all is well.
    pub problems: Vec<String>,
    /// Body files that no row names: the next start moves them to `bodies/lost`, or has done so.
    pub orphans: Vec<PathBuf>,
}

/// What became files.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Messages written, each as `ID.eml` with its envelope in `ID.json`.
    pub messages: u64,
    /// What couldn't be written whole, one line each.
    pub problems: Vec<String>,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The folder isn't ours to fill.
    #[error("{0}: isn't empty: name a new folder, or an empty one")]
    NotEmpty(PathBuf),
    /// A file can't be written.
    #[error("{path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The envelope of an exported message, as its `.json` says it.
#[derive(Serialize)]
struct Envelope<'a> {
    id: QueueId,
    /// `queue` or `quarantine`; one that is in both has two records.
    queue: Option<&'a MessageRecord>,
    quarantine: Option<&'a QuarantineRecord>,
    /// A row that can't be used, as it is.
    damaged: Vec<&'a DamagedRecord>,
}

/// What is known of one message.
struct Known {
    queue: Option<MessageRecord>,
    quarantine: Option<QuarantineRecord>,
    damaged: Vec<DamagedRecord>,
    /// None if they aren't there whole.
    octets: Option<Octets>,
}

impl Known {
    fn body(&self) -> Option<StoredBody> {
        let damaged = || self.damaged.iter().find_map(DamagedRecord::body);
        self.queue
            .as_ref()
            .map(|record| record.body)
            .or_else(|| self.quarantine.as_ref().map(|record| record.body))
            .or_else(damaged)
    }
}

/// A spool that was opened to be looked at.
struct Opened {
    database: Database,
    /// Number, length and path of each body file.
    files: BTreeMap<u64, (u64, PathBuf)>,
    path: PathBuf,
}

/// Looks at everything in the spool at `directory`.
pub fn check(directory: &Path) -> Result<Inspection, OpenError> {
    let mut opened = Opened::open(directory)?;
    let path = opened.path.clone();
    let mut inspection = Inspection { database: path.clone(), ..Inspection::default() };
    if !guarded(&path, || Ok(opened.database.check_integrity()?))? {
        inspection.problems.push("the database failed its checksums and was repaired".to_owned());
    }
    let mut named = Vec::new();
    let problems = &mut inspection.problems;
    let mut stocks = (Stock::default(), Stock::default());
    opened.each(problems, |id, known, problems| {
        for record in &known.damaged {
            problems.push(format!("{id}: can't be used: {}", record.cause));
        }
        if let Some(record) = &known.queue {
            stocks.0.add(record.body.octets());
        }
        if let Some(record) = &known.quarantine {
            stocks.1.add(record.body.octets());
        }
        let Some(stored) = known.body() else { return };
        if let StoredBody::File { number, .. } = stored {
            named.push(number);
        }
        if known.damaged.is_empty() && known.octets.is_none() {
            problems.push(format!(
                "{id}: its body of {} octets is missing or has another length",
                stored.octets()
            ));
        }
    })?;
    (inspection.queue, inspection.quarantine) = stocks;
    named.sort_unstable();
    let orphans = opened.files.iter().filter(|(number, _)| named.binary_search(number).is_err());
    inspection.orphans = orphans.map(|(_, (_, path))| path.clone()).collect();
    inspection.orphans.sort();
    Ok(inspection)
}

/// Writes every message of the spool at `directory` into the folder `to`. Of a database that can't be read
/// the body files are left, which are written without envelopes. Where there is nothing to write, or no leave
/// to, no folder is left behind.
pub fn export(directory: &Path, to: &Path) -> Result<Exported, ExportError> {
    // Before the folder is made: a spool that is in use, or isn't there, has nothing to put into it.
    let opened = match Opened::open(directory) {
        Err(error @ OpenError::Damaged { .. }) => Err(error),
        opened => Ok(opened?),
    };
    let bodies = directory.join(BODIES_NAME);
    let files = body_files(&BodyDirectory::new(bodies.clone())).map_err(|e| write_error(&bodies, e))?;
    let made = to.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists());
    let made: Vec<PathBuf> = made.map(Path::to_owned).collect();
    let exported = fill(to, opened, files);
    if exported.is_err() {
        // What was written stays: only folders that are empty can be removed so.
        for folder in made {
            let _ = fs::remove_dir(folder);
        }
    }
    exported
}

fn write_error(path: &Path, source: io::Error) -> ExportError {
    ExportError::Write { path: path.to_owned(), source }
}

/// Makes the folder and writes everything into it.
fn fill(
    to: &Path,
    opened: Result<Opened, OpenError>,
    files: BTreeMap<u64, (u64, PathBuf)>,
) -> Result<Exported, ExportError> {
    DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(|e| write_error(to, e))?;
    if fs::read_dir(to).map_err(|e| write_error(to, e))?.next().is_some() {
        return Err(ExportError::NotEmpty(to.to_owned()));
    }
    let mut exported = Exported::default();
    let mut written = HashSet::new();
    let outcome = opened.map_err(ExportError::from);
    match outcome.and_then(|opened| opened.export(to, &mut exported, &mut written)) {
        Ok(()) => {}
        Err(ExportError::Open(error @ OpenError::Damaged { .. })) => {
            exported.problems.push(error.to_string())
        }
        Err(error) => return Err(error),
    }
    // What no row names that can be read: without an envelope, but not lost.
    for (number, (_, from)) in files.into_iter().filter(|(number, _)| !written.contains(number)) {
        let name = to.join(format!("body-{number:016x}.eml"));
        copy(&from, &name).map_err(|e| write_error(&from, e))?;
        exported.problems.push(format!("{}: no envelope belongs to it", name.display()));
        exported.messages += 1;
    }
    sync_directory(to).map_err(|e| write_error(to, e))?;
    Ok(exported)
}

/// Number, length and path of each body file, those included that no row named at an earlier start.
fn body_files(bodies: &BodyDirectory) -> io::Result<BTreeMap<u64, (u64, PathBuf)>> {
    let lost = bodies
        .list_lost()?
        .into_iter()
        .map(|(number, octets)| (number, (octets, bodies.lost_path_of(number))));
    let named = bodies.list()?.into_iter().map(|(number, octets)| (number, (octets, bodies.path_of(number))));
    Ok(lost.chain(named).collect())
}

/// Where a message's octets are.
enum Octets {
    Row(Bytes),
    File(PathBuf),
}

impl Opened {
    fn open(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(FILE_NAME);
        // Opening one that isn't there would make it.
        fs::metadata(&path).map_err(|e| OpenError::io(&path, e))?;
        let database = open_file(&path, SPOOL, CACHE_OCTETS)?;
        let bodies = BodyDirectory::new(directory.join(BODIES_NAME));
        let files = body_files(&bodies).map_err(|e| OpenError::io(&directory.join(BODIES_NAME), e))?;
        Ok(Self { database, files, path })
    }

    /// Hands each message to `visit`, in the order of ids. What can't be read of one is a problem, and the
    /// next one follows.
    fn each(
        &self,
        problems: &mut Vec<String>,
        mut visit: impl FnMut(QueueId, Known, &mut Vec<String>),
    ) -> Result<(), OpenError> {
        let view = guarded(&self.path, || SpoolSnapshot::of(&self.database))?;
        for id in guarded(&self.path, || ids(&view))? {
            let known = self.known(&view, id, problems);
            visit(id, known, problems);
        }
        Ok(())
    }

    fn known(&self, view: &SpoolSnapshot, id: QueueId, problems: &mut Vec<String>) -> Known {
        let mut damaged = self.look(id, problems, || view.damaged_of(id));
        let queue = self.look(id, problems, || row::<Messages>(view, id));
        let quarantine = self.look(id, problems, || row::<Quarantine>(view, id));
        let queue = record(DamagedTable::Messages, queue, &mut damaged);
        let quarantine = record(DamagedTable::Quarantine, quarantine, &mut damaged);
        let mut known = Known { queue, quarantine, damaged, octets: None };
        known.octets = match known.body() {
            None => None,
            Some(StoredBody::File { number, octets }) => {
                let there = self.files.get(&number).filter(|(found, _)| *found == octets);
                there.map(|(_, path)| Octets::File(path.clone()))
            }
            Some(StoredBody::Row { octets }) => {
                let row = self.look(id, problems, || view.body(id));
                row.filter(|row| row.len() as u64 == octets).map(Octets::Row)
            }
        };
        known
    }

    /// What `look` finds; nothing, and a problem, where that can't be read.
    fn look<T: Default>(
        &self,
        id: QueueId,
        problems: &mut Vec<String>,
        look: impl FnOnce() -> Result<T, StoreError>,
    ) -> T {
        guarded(&self.path, look).unwrap_or_else(|error| {
            problems.push(format!("{id}: {error}"));
            T::default()
        })
    }

    /// `written` takes the numbers of the body files that became messages.
    fn export(
        &self,
        to: &Path,
        exported: &mut Exported,
        written: &mut HashSet<u64>,
    ) -> Result<(), ExportError> {
        let mut problems = std::mem::take(&mut exported.problems);
        let mut failure = None;
        let outcome = self.each(&mut problems, |id, known, problems| {
            if failure.is_some() {
                return;
            }
            let whole = known.octets.is_some();
            // A file of another length than its row says is written by itself.
            if let Some(StoredBody::File { number, .. }) = known.body().filter(|_| whole) {
                written.insert(number);
            }
            match write_message(to, id, &known) {
                Ok(()) if whole => exported.messages += 1,
                Ok(()) => problems.push(format!("{id}: without its body, which is missing")),
                Err(error) => failure = Some(error),
            }
        });
        exported.problems = problems;
        outcome?;
        failure.map_or(Ok(()), Err)
    }
}

/// The ids that anything is stored under, each once, in order.
fn ids(view: &SpoolSnapshot) -> Result<Vec<QueueId>, StoreError> {
    let mut ids = Vec::new();
    for table in [view.open::<Messages>()?, view.open::<Quarantine>()?] {
        for row in table.iter()? {
            ids.push(QueueId(row?.0.value()));
        }
    }
    for row in view.open::<Damaged>()?.iter()? {
        ids.push(QueueId(row?.0.value().0));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A row as it is.
fn row<T: StoredTable<Key = u64, Value = &'static [u8]>>(
    view: &SpoolSnapshot,
    id: QueueId,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(view.open::<T>()?.get(id.0)?.map(|row| row.value().to_vec()))
}

/// The record in a row; one that can't be read is put to the `damaged` ones, as the next start will do.
fn record<T: DeserializeOwned>(
    table: DamagedTable,
    row: Option<Vec<u8>>,
    damaged: &mut Vec<DamagedRecord>,
) -> Option<T> {
    let row = row?;
    let read = serde_json::from_slice(&row);
    read.map_err(|error| damaged.push(DamagedRecord::unreadable(table, &row, &error))).ok()
}

fn write_message(to: &Path, id: QueueId, known: &Known) -> Result<(), ExportError> {
    let name = |end: &str| to.join(format!("{id}.{end}"));
    let failed = |path: PathBuf| move |source| ExportError::Write { path, source };
    let Known { queue, quarantine, damaged, octets } = known;
    let envelope = Envelope {
        id,
        queue: queue.as_ref(),
        quarantine: quarantine.as_ref(),
        damaged: damaged.iter().collect(),
    };
    let json = serde_json::to_vec_pretty(&envelope).map_err(io::Error::other);
    let json = json.and_then(|json| write_all(&name("json"), &json));
    json.map_err(failed(name("json")))?;
    match octets {
        None => Ok(()),
        Some(Octets::Row(octets)) => write_all(&name("eml"), octets),
        Some(Octets::File(from)) => copy(from, &name("eml")),
    }
    .map_err(failed(name("eml")))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_all(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(octets)?;
    file.sync_all()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = create(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mailguard_core::disposition::Disposition;
    use mailguard_core::finding::Threat;

    use super::*;
    use crate::spool::fixture::{config, message, shared};
    use crate::spool::{IdMint, SPILL_OCTETS, Spool};
    use crate::store::spool::{SpoolDb, raw};

    /// A spool with a small message, a large one and one that is quarantined; their ids in this order.
    async fn filled(directory: &Path) -> [QueueId; 3] {
        let (db, _) = SpoolDb::open(directory).unwrap();
        let ids = std::sync::Arc::new(IdMint::above(0));
        let spool = Spool::new(db.clone(), shared(config(directory)), ids.clone());
        let named = [ids.mint(), ids.mint(), ids.mint()];
        for (number, id) in named.into_iter().enumerate() {
            let mut writer = spool.body_writer();
            let octets = if number == 1 { SPILL_OCTETS + 1 } else { 10 };
            writer.push(&vec![b'a' + number as u8; octets]).await.unwrap();
            let mut new = message(id, &["a@x.test"], writer.finish().await.unwrap());
            if number == 2 {
                new.dispositions = vec![Disposition::Quarantine(Threat::Virus("EICAR".to_owned()))];
            }
            spool.commit(new).await.unwrap();
        }
        drop(spool);
        db.close().await;
        named
    }

    #[tokio::test]
    async fn everything_is_there_and_becomes_files() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, out) = (folder.path().join("spool"), folder.path().join("out"));
        let ids = filled(&spool).await;
        let inspection = check(&spool).unwrap();
        assert_eq!((inspection.queue.messages, inspection.quarantine.messages), (2, 1));
        assert_eq!((inspection.problems.len(), inspection.orphans.len()), (0, 0), "{inspection:?}");
        let exported = export(&spool, &out).unwrap();
        assert_eq!((exported.messages, exported.problems.len()), (3, 0), "{exported:?}");
        for (number, id) in ids.into_iter().enumerate() {
            let eml = fs::read(out.join(format!("{id}.eml"))).unwrap();
            assert_eq!((eml[0], eml.len() > 10), (b'a' + number as u8, number == 1));
            let json: serde_json::Value =
                serde_json::from_slice(&fs::read(out.join(format!("{id}.json"))).unwrap()).unwrap();
            let table = if number == 2 { "quarantine" } else { "queue" };
            let sender = json[table]["envelope"]["reverse_path"].to_string();
            assert!(sender.contains("sender@green.test"), "{json}");
        }
        let mode = out.join(format!("{}.eml", ids[0])).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = export(&spool, &out).unwrap_err().to_string();
        assert!(again.ends_with("isn't empty: name a new folder, or an empty one"), "{again}");
        // Nothing was changed by looking.
        assert_eq!(check(&spool).unwrap(), inspection);
    }

    #[tokio::test]
    async fn what_is_missing_is_told_and_the_rest_is_exported() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, out) = (folder.path().join("spool"), folder.path().join("out"));
        let ids = filled(&spool).await;
        let large = fs::read_dir(spool.join(BODIES_NAME)).unwrap().next().unwrap().unwrap().path();
        let orphan = spool.join(BODIES_NAME).join("00000000000000ff");
        fs::write(&orphan, "half a mess").unwrap();
        fs::remove_file(&large).unwrap();
        let inspection = check(&spool).unwrap();
        assert!(inspection.problems[0].starts_with(&format!("{}: its body of", ids[1])), "{inspection:?}");
        assert_eq!((inspection.problems.len(), inspection.orphans), (1, vec![orphan.clone()]));
        let exported = export(&spool, &out).unwrap();
        // The two that are whole, and what was half received.
        assert_eq!((exported.messages, exported.problems.len()), (3, 2), "{exported:?}");
        assert!(out.join(format!("{}.json", ids[1])).exists(), "its envelope is left");
        assert!(orphan.exists(), "looking removes nothing");
    }

    /// Who goes back to an older version can take such messages along.
    #[tokio::test]
    async fn messages_of_another_version_are_exported_whole_before_and_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, out) = (folder.path().join("spool"), folder.path().join("out"));
        let [small, large, _] = filled(&spool).await;
        raw::change(&spool, |tables| {
            for id in [small, large] {
                let row = tables.take_message(id);
                tables.put_message(id, &row.replacen("\"Client\"", "\"Satellite\"", 1));
            }
        });
        for round in ["before", "after"] {
            let inspection = check(&spool).unwrap();
            assert_eq!((inspection.problems.len(), inspection.orphans.len()), (2, 0), "{inspection:?}");
            for problem in &inspection.problems {
                assert!(problem.contains("another version of mailguard wrote it"), "{round}: {problem}");
                assert!(!problem.contains("damaged"), "{round}: {problem}");
            }
            let out = out.join(round);
            assert_eq!(
                export(&spool, &out).unwrap(),
                Exported { messages: 3, problems: Vec::new() },
                "{round}"
            );
            for (id, octet, octets) in [(small, b'a', 10), (large, b'b', SPILL_OCTETS + 1)] {
                assert_eq!(fs::read(out.join(format!("{id}.eml"))).unwrap(), vec![octet; octets], "{round}");
                let json = fs::read_to_string(out.join(format!("{id}.json"))).unwrap();
                assert!(json.contains("Satellite") && json.contains("sender@green.test"), "{round}: {json}");
            }
            let (db, recovered) = SpoolDb::open(&spool).unwrap();
            assert_eq!((recovered.queued.len(), recovered.damaged.len()), (0, 2));
            db.close().await;
        }
    }

    #[tokio::test]
    async fn a_body_that_was_cut_off_is_exported_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, out) = (folder.path().join("spool"), folder.path().join("out"));
        filled(&spool).await;
        let large = fs::read_dir(spool.join(BODIES_NAME)).unwrap().next().unwrap().unwrap().path();
        OpenOptions::new().write(true).open(&large).unwrap().set_len(1000).unwrap();
        assert_eq!(check(&spool).unwrap().problems.len(), 1);
        let exported = export(&spool, &out).unwrap();
        let name = format!("body-{}.eml", large.file_name().unwrap().display());
        assert_eq!((exported.messages, fs::read(out.join(name)).unwrap().len()), (3, 1000));
    }

    #[tokio::test]
    async fn of_a_damaged_database_the_body_files_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, out) = (folder.path().join("spool"), folder.path().join("out"));
        filled(&spool).await;
        fs::write(spool.join(FILE_NAME), vec![0x5a; 20_000]).unwrap();
        let error = check(&spool).unwrap_err().to_string();
        assert!(error.contains("spool.redb: damaged"), "{error}");
        let exported = export(&spool, &out).unwrap();
        assert_eq!((exported.messages, &exported.problems[0]), (1, &error));
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_spool_that_is_in_use_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&folder.path().join("absent")).unwrap_err().to_string().contains("spool.redb"));
        assert!(!folder.path().join("absent").exists());
        let (_db, _) = SpoolDb::open(folder.path()).unwrap();
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }

    #[tokio::test]
    async fn an_export_that_is_refused_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, out) = (folder.path().join("spool"), folder.path().join("rescued"));
        let deep = out.join("today");
        let absent = folder.path().join("absent");
        let unwritable = Path::new("/proc/rescued/today");
        for to in [&out, &deep] {
            assert!(export(&absent, to).unwrap_err().to_string().contains("spool.redb"));
            assert!(!out.exists(), "nothing to export");
        }
        filled(&spool).await;
        let error = export(&spool, unwritable).unwrap_err();
        assert!(matches!(error, ExportError::Write { .. }), "{error:?}");
        let (_db, _) = SpoolDb::open(&spool).unwrap();
        for to in [&out, &deep] {
            assert!(export(&spool, to).unwrap_err().to_string().contains("in use by another process"));
            assert!(!out.exists(), "the daemon runs");
        }
        // Somebody's own folder stays, and what is in it.
        fs::create_dir(&out).unwrap();
        fs::write(out.join("precious"), "").unwrap();
        assert!(export(&spool, &out).is_err());
        assert!(out.join("precious").exists());
    }
}
