//! Every table has its golden file, and databases made of golden rows are opened and read whole. The types of keys and values are
//! written out here once more: redb stores them, too.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

use mailguard_core::mail::QueueId;
use redb::{Database, ReadableDatabase, TableDefinition, TableHandle, WriteTransaction};
use tempfile::TempDir;

use super::*;
use crate::store::facts::FactsDb;
use crate::store::record::{DamagedRecord, MessageRecord, QuarantineRecord, StoredBody};
use crate::store::spool_db::SpoolDb;

/// A golden key of two numbers.
fn pair(key: &str) -> (u64, u32) {
    let (id, number) = key.split_once('/').unwrap();
    (id.parse().unwrap(), number.parse().unwrap())
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|c| *c != b' ').collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn ids(golden: &Golden) -> Vec<QueueId> {
    golden.rows().iter().map(|row| QueueId(row.key.parse().unwrap())).collect()
}

fn write(path: &Path, rows: impl FnOnce(&WriteTransaction)) {
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    rows(&writing);
    writing.commit().unwrap();
}

fn write_numbers(writing: &WriteTransaction, table: &str, golden: &Golden) {
    let mut table = writing.open_table(TableDefinition::<&str, u64>::new(table)).unwrap();
    for GoldenRow { key, row, .. } in golden.rows() {
        table.insert(key, row.parse::<u64>().unwrap()).unwrap();
    }
}

fn write_by_id(writing: &WriteTransaction, table: &str, golden: &Golden) {
    let mut table = writing.open_table(TableDefinition::<u64, &[u8]>::new(table)).unwrap();
    for GoldenRow { key, row, .. } in golden.rows() {
        table.insert(key.parse::<u64>().unwrap(), row.as_bytes()).unwrap();
    }
}

fn write_spool(path: &Path) {
    write(path, |writing| {
        write_numbers(writing, "meta", &SPOOL_META);
        write_numbers(writing, "paused", &PAUSED);
        write_by_id(writing, "messages", &MESSAGES);
        write_by_id(writing, "bodies", &BODIES);
        write_by_id(writing, "quarantine", &QUARANTINE);
        let mut damaged = writing.open_table(TableDefinition::<(u64, u8), &[u8]>::new("damaged")).unwrap();
        for GoldenRow { key, row, .. } in DAMAGED.rows() {
            let (id, table) = pair(key);
            damaged.insert((id, table as u8), row.as_bytes()).unwrap();
        }
    });
}

fn write_facts(path: &Path) {
    write(path, |writing| {
        write_numbers(writing, "meta", &FACTS_META);
        write_numbers(writing, "totals", &TOTALS);
        write_by_id(writing, "traces", &TRACES);
        let mut attempts = writing.open_table(TableDefinition::<(u64, u32), &[u8]>::new("attempts")).unwrap();
        for GoldenRow { key, row, .. } in ATTEMPTS.rows() {
            attempts.insert(pair(key), row.as_bytes()).unwrap();
        }
        let mut bans = writing.open_table(TableDefinition::<&[u8; 16], &[u8]>::new("bans")).unwrap();
        for GoldenRow { key, row, .. } in BANS.rows() {
            bans.insert(&key.parse::<Ipv6Addr>().unwrap().octets(), row.as_bytes()).unwrap();
        }
        let mut greylist = writing.open_table(TableDefinition::<&[u8], &[u8]>::new("greylist")).unwrap();
        for GoldenRow { key, row, .. } in GREYLIST.rows() {
            greylist.insert(octets(key).as_slice(), row.as_bytes()).unwrap();
        }
    });
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
    write_spool(&directory.path().join("spool.redb"));
    make_body_files(directory.path());
    let (db, recovered) = SpoolDb::open(directory.path()).unwrap();
    let queued: Vec<QueueId> = recovered.queued.iter().map(|(id, _)| *id).collect();
    assert_eq!(queued, ids(&MESSAGES));
    let damaged: Vec<_> = recovered.damaged.iter().map(|(id, record)| (id.0, record.table as u32)).collect();
    assert_eq!(damaged, DAMAGED.rows().iter().map(|row| pair(row.key)).collect::<Vec<_>>());
    assert_eq!(recovered.paused, PAUSED.rows().iter().map(|row| row.key).collect::<Vec<_>>());
    let listed = db.read(|view| view.quarantine(None)?.collect::<Result<Vec<_>, _>>()).await.unwrap();
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids(&QUARANTINE));
    for GoldenRow { key, row, .. } in BODIES.rows() {
        let id = QueueId(key.parse().unwrap());
        let body = db.read(move |view| view.body(id)).await.unwrap();
        assert_eq!(body.as_deref(), Some(row.as_bytes()));
    }
}

#[tokio::test]
async fn facts_of_golden_rows_are_opened_and_read() {
    let directory = TempDir::new().unwrap();
    write_facts(&directory.path().join("facts.redb"));
    let db = FactsDb::open(directory.path()).unwrap();
    let read = db.read(|view| {
        let mut traces = Vec::new();
        view.newest_first(QueueId(0), |id, row| {
            traces.push((id.0.to_string(), String::from_utf8_lossy(row).into_owned()));
            Ok(true)
        })?;
        traces.reverse();
        let attempts: Vec<Vec<u8>> =
            ids(&TRACES).into_iter().flat_map(|id| view.attempts(id).unwrap()).collect();
        Ok((traces, attempts, view.bans()?, view.greylist()?, view.octets()?))
    });
    let (traces, attempts, bans, greylist, octets_of_traces) = read.await.unwrap();
    let rows = |golden: &Golden| -> Vec<(String, String)> {
        golden.rows().into_iter().map(|row| (row.key.to_owned(), row.row)).collect()
    };
    assert_eq!(traces, rows(&TRACES));
    assert_eq!(attempts, ATTEMPTS.rows().into_iter().map(|row| row.row.into_bytes()).collect::<Vec<_>>());
    let address = |key: [u8; 16]| Ipv6Addr::from(key).to_string();
    let bans: Vec<_> =
        bans.into_iter().map(|(key, row)| (address(key), String::from_utf8(row).unwrap())).collect();
    assert_eq!(bans, rows(&BANS));
    let expect = GREYLIST.rows().into_iter().map(|row| (octets(row.key), row.row.into_bytes()));
    assert_eq!(greylist, expect.collect::<Vec<_>>());
    assert_eq!(rows(&TOTALS), [("trace-octets".to_owned(), octets_of_traces.to_string())]);
}

/// What a new database says of itself is what these files say.
#[tokio::test]
async fn the_version_of_new_databases_is_the_golden_one() {
    let directory = TempDir::new().unwrap();
    SpoolDb::open(directory.path()).unwrap().0.close().await;
    FactsDb::open(directory.path()).unwrap().close().await;
    for (name, golden) in [("spool.redb", SPOOL_META), ("facts.redb", FACTS_META)] {
        let database = Database::open(directory.path().join(name)).unwrap();
        let meta =
            database.begin_read().unwrap().open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
        for GoldenRow { key, row, .. } in golden.rows() {
            assert_eq!(meta.get(key).unwrap().unwrap().value().to_string(), row, "{name}");
        }
    }
}
