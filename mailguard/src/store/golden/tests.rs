//! Every table has its golden file, and databases made of golden rows are opened and read whole. How keys and
//! values of which types come out of such a file is written out here: redb stores the types' names, too, so
//! that another type is another table.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::Path;

use std::ops::ControlFlow;

use mailguard_core::mail::QueueId;
use redb::{Database, ReadableDatabase, TableDefinition, TableHandle, WriteTransaction};
use tempfile::TempDir;

use super::*;
use crate::store::StoreError;
use crate::store::facts::traces::{Found, Visitor, Wanted};
use crate::store::facts::{self, FactsDb};
use crate::store::spool::{self, DamagedRecord, MessageRecord, QuarantineRecord, SpoolDb, StoredBody};
use crate::store::table::Listed;

/// A golden key of two numbers.
fn pair(key: &str) -> (u64, u32) {
    let (id, number) = key.split_once('/').unwrap();
    (id.parse().unwrap(), number.parse().unwrap())
}

fn address(key: &str) -> Ipv6Addr {
    key.parse().unwrap()
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|c| *c != b' ').collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn ids(golden: &Golden) -> Vec<QueueId> {
    golden.rows().iter().map(|row| QueueId(row.key.parse().unwrap())).collect()
}

/// A database of golden rows: every table that is listed, and what it says of its version.
fn write(path: &Path, folder: &str, tables: &[Listed]) {
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    write_table(&writing, "meta", ("&str", "u64"), &Golden::of(folder, "meta"));
    for table in tables {
        let (key, value) = (table.types)();
        write_table(&writing, table.name, (key.name(), value.name()), &Golden::of(folder, table.name));
    }
    writing.commit().unwrap();
}

/// Golden rows in a table whose keys and values are of these types, as redb names them and stores their
/// names.
fn write_table(writing: &WriteTransaction, name: &str, types: (&str, &str), golden: &Golden) {
    macro_rules! insert {
        ($key:ty, $value:ty, |$row:ident| $k:expr, $v:expr) => {{
            let mut table = writing.open_table(TableDefinition::<$key, $value>::new(name)).unwrap();
            for $row in golden.rows() {
                table.insert($k, $v).unwrap();
            }
        }};
    }
    match types {
        ("&str", "u64") => insert!(&str, u64, |row| row.key, row.row.parse::<u64>().unwrap()),
        ("u64", "&[u8]") => insert!(u64, &[u8], |row| row.key.parse::<u64>().unwrap(), row.row.as_bytes()),
        ("(u64,u8)", "&[u8]") => {
            insert!((u64, u8), &[u8], |row| (pair(row.key).0, pair(row.key).1 as u8), row.row.as_bytes());
        }
        ("(u64,u32)", "&[u8]") => insert!((u64, u32), &[u8], |row| pair(row.key), row.row.as_bytes()),
        ("[u8;16]", "&[u8]") => {
            insert!(&[u8; 16], &[u8], |row| &address(row.key).octets(), row.row.as_bytes());
        }
        ("&[u8]", "&[u8]") => insert!(&[u8], &[u8], |row| octets(row.key).as_slice(), row.row.as_bytes()),
        other => panic!("{name}: no golden key or row was of the types {other:?} before"),
    }
}

#[test]
fn each_row_of_the_spool_is_read_and_written_as_it_stands() {
    MESSAGES.check::<MessageRecord>(&[]);
    QUARANTINE.check::<QuarantineRecord>(&[]);
    DAMAGED.check::<DamagedRecord>(&[]);
}

/// The tables that are in the file, and those that have a golden file.
#[track_caller]
fn check_tables(database: &Path, folder: &str) {
    let opened = Database::open(database).unwrap();
    let reading = opened.begin_read().unwrap();
    let tables: BTreeSet<String> =
        reading.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/golden").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files: BTreeSet<String> =
        files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(tables, files, "tables of {}, and files in {}", database.display(), folder.display());
}

#[tokio::test]
async fn every_table_has_its_golden_file() {
    let directory = TempDir::new().unwrap();
    SpoolDb::open(directory.path()).unwrap().0.close().await;
    FactsDb::open(directory.path()).unwrap().close().await;
    check_tables(&directory.path().join("spool.redb"), "spool");
    check_tables(&directory.path().join("facts.redb"), "facts");
}

/// Body files as these rows name them.
fn make_body_files(directory: &Path) {
    let body = |row: &GoldenRow| {
        let value: serde_json::Value = serde_json::from_str(&row.row).unwrap();
        serde_json::from_value(value["body"].clone()).unwrap()
    };
    fs::create_dir(directory.join("bodies")).unwrap();
    for row in MESSAGES.rows().iter().chain(&QUARANTINE.rows()) {
        if let StoredBody::File { number, octets } = body(row) {
            let file = fs::File::create(directory.join(format!("bodies/{number:016x}"))).unwrap();
            file.set_len(octets).unwrap();
        }
    }
}

#[tokio::test]
async fn a_spool_of_golden_rows_is_opened_and_nothing_is_put_aside() {
    let directory = TempDir::new().unwrap();
    write(&directory.path().join("spool.redb"), "spool", spool::TABLES);
    make_body_files(directory.path());
    let (db, recovered) = SpoolDb::open(directory.path()).unwrap();
    let queued: Vec<QueueId> = recovered.queued.iter().map(|(id, _)| *id).collect();
    assert_eq!(queued, ids(&MESSAGES));
    let damaged: Vec<_> = recovered.damaged.iter().map(|(id, record)| (id.0, record.table as u32)).collect();
    assert_eq!(damaged, DAMAGED.rows().iter().map(|row| pair(row.key)).collect::<Vec<_>>());
    let paused = Golden::of("spool", "paused");
    assert_eq!(recovered.paused, paused.rows().iter().map(|row| row.key).collect::<Vec<_>>());
    let entries = db.quarantine(None, usize::MAX, |_, _| true).await.unwrap().rows;
    assert_eq!(entries.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids(&QUARANTINE));
    for GoldenRow { key, row, .. } in Golden::of("spool", "bodies").rows() {
        let stored = StoredBody::Row { octets: row.len() as u64 };
        let body = db.body(QueueId(key.parse().unwrap()), stored).await.unwrap();
        assert_eq!(body.head(usize::MAX).await.unwrap(), row.as_bytes());
    }
}

/// The rows of traces, and of their attempts as they are written today.
#[derive(Default)]
struct Traces {
    traces: Vec<(String, String)>,
    attempts: Vec<Vec<String>>,
}

impl Visitor for Traces {
    fn visit(&mut self, found: &Found<'_>) -> Result<ControlFlow<()>, StoreError> {
        self.traces.push((found.id.0.to_string(), String::from_utf8_lossy(found.row).into_owned()));
        let attempts = found.attempts()?.into_iter();
        self.attempts.push(attempts.map(|found| json(&found.record.unwrap())).collect());
        Ok(ControlFlow::Continue(()))
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

#[tokio::test]
async fn facts_of_golden_rows_are_opened_and_read() {
    let directory = TempDir::new().unwrap();
    write(&directory.path().join("facts.redb"), "facts", facts::TABLES);
    let db = FactsDb::open(directory.path()).unwrap();
    let rows = |golden: &Golden| -> Vec<(String, String)> {
        golden.rows().into_iter().map(|row| (row.key.to_owned(), row.row)).collect()
    };
    let Traces { mut traces, mut attempts } =
        db.traces(Wanted::Since(QueueId(0)), Traces::default()).await.unwrap();
    traces.reverse();
    attempts.reverse();
    assert_eq!(traces, rows(&TRACES));
    let expect: Vec<String> = ATTEMPTS.rows().into_iter().map(|row| row.again.unwrap_or(row.row)).collect();
    assert_eq!(attempts.concat(), expect);
    let bans = db.bans().await.unwrap().into_iter();
    let bans: Vec<_> = bans.map(|(key, row)| (key.to_string(), json(&row.unwrap()))).collect();
    assert_eq!(bans, rows(&BANS));
    let greylist = db.greylist().await.unwrap().into_iter();
    let keys: Vec<Vec<u8>> = greylist.map(|(key, row)| row.map(|_| key).expect("it can be read")).collect();
    assert_eq!(keys, GREYLIST.rows().into_iter().map(|row| octets(row.key)).collect::<Vec<_>>());
    let octets_of_traces = db.trace_octets().await.unwrap().to_string();
    assert_eq!(rows(&Golden::of("facts", "totals")), [("trace-octets".to_owned(), octets_of_traces)]);
}

/// What a new database says of itself is what these files say.
#[tokio::test]
async fn the_version_of_new_databases_is_the_golden_one() {
    let directory = TempDir::new().unwrap();
    SpoolDb::open(directory.path()).unwrap().0.close().await;
    FactsDb::open(directory.path()).unwrap().close().await;
    for (name, golden) in
        [("spool.redb", Golden::of("spool", "meta")), ("facts.redb", Golden::of("facts", "meta"))]
    {
        let database = Database::open(directory.path().join(name)).unwrap();
        let meta =
            database.begin_read().unwrap().open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
        for GoldenRow { key, row, .. } in golden.rows() {
            assert_eq!(meta.get(key).unwrap().unwrap().value().to_string(), row, "{name}");
        }
    }
}
