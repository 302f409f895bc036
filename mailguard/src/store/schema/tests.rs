//! Databases of other versions: older ones come along, newer ones stay as they are, and neither passes for a
//! damaged one.

use std::fs;
use std::process::{Command, Output};

use mailguard_core::mail::QueueId;
use redb::backends::InMemoryBackend;
use redb::{MultimapTableDefinition, ReadableTable, TableHandle};
use tempfile::TempDir;

use super::*;
use crate::store::facts::FactsDb;
use crate::store::opening::open_backend;
use crate::store::spool::{DamagedRecord, SpoolDb, SpoolOp, StoredBody, inspect};
use crate::store::table::StoredTable;

const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
const WORDS: TableDefinition<'_, &str, u64> = TableDefinition::new("words");

/// Changes a closed database behind our back.
fn change(path: &Path, change: impl FnOnce(&WriteTransaction)) {
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    change(&writing);
    writing.commit().unwrap();
}

fn set_version(writing: &WriteTransaction, version: u64) {
    writing.open_table(META).unwrap().insert(VERSION_KEY, version).unwrap();
}

/// Opens the spool and closes it again: the rows that can't be used.
async fn open_spool(directory: &Path) -> Result<Vec<(QueueId, DamagedRecord)>, OpenError> {
    let (db, recovered) = SpoolDb::open(directory)?;
    db.close().await;
    Ok(recovered.damaged)
}

/// A folder with both databases, closed.
async fn both() -> TempDir {
    let directory = TempDir::new().unwrap();
    SpoolDb::open(directory.path()).unwrap().0.close().await;
    FactsDb::open(directory.path()).unwrap().close().await;
    directory
}

#[tokio::test]
async fn a_newer_database_is_refused_with_both_versions_and_its_file_stays_as_it_is() {
    let directory = both().await;
    let open = async |name: &str| match name {
        "spool.redb" => open_spool(directory.path()).await.map(drop),
        _ => FactsDb::open(directory.path()).map(drop),
    };
    for name in ["spool.redb", "facts.redb"] {
        let path = directory.path().join(name);
        change(&path, |writing| set_version(writing, 7));
        let before = fs::read(&path).unwrap();
        let error = open(name).await.expect_err(name);
        assert!(matches!(error, OpenError::Newer { found: 7, expected: 1, .. }), "{error:?}");
        let text = error.to_string();
        for part in [name, "version 7", "up to 1", "install the version that wrote it, or a newer one"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("damaged"), "{text}");
        assert!(fs::read(&path).unwrap() == before, "{name} was written to");
    }
    let out = directory.path().join("out");
    for error in [
        inspect::check(directory.path()).unwrap_err().to_string(),
        inspect::export(directory.path(), &out).unwrap_err().to_string(),
    ] {
        assert!(error.contains("a newer mailguard wrote it"), "{error}");
    }
    assert!(!out.exists());
    change(&directory.path().join("spool.redb"), |writing| set_version(writing, 1));
    open("spool.redb").await.expect("the version that wrote it opens it again");
}

/// Where the last process was killed the file must be repaired to be read.
#[test]
fn a_newer_database_is_refused_after_an_unclean_end_too() {
    let backend = crate::store::lossy::LossyDisk::default();
    let path = Path::new("spool.redb");
    let database = open_backend(path, backend.backend(), SPOOL, 1 << 20).unwrap();
    let writing = database.begin_write().unwrap();
    set_version(&writing, 2);
    writing.commit().unwrap();
    let error = open_backend(path, backend.after_power_cut(|| false).backend(), SPOOL, 1 << 20).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, expected: 1, .. }), "{error:?}");
}

fn note(writing: &WriteTransaction, word: &str) -> Result<(), StoreError> {
    let mut words = writing.open_table(WORDS)?;
    let place = words.iter()?.count() as u64;
    words.insert(word, place)?;
    Ok(())
}

fn fail(_: &WriteTransaction) -> Result<(), StoreError> {
    Err(StoreError::Damaged("a row that no step expects".to_owned()))
}

const OF_THREE_VERSIONS: Format = Format {
    steps: &[|writing| note(writing, "to the second"), |writing| note(writing, "to the third")],
    tables: &[],
};

/// A database of this version.
fn of_version(version: u64) -> Database {
    let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    let writing = database.begin_write().unwrap();
    set_version(&writing, version);
    writing.commit().unwrap();
    database
}

/// The steps that were taken, in their order.
fn steps_taken(database: &Database) -> Vec<String> {
    let Ok(words) = database.begin_read().unwrap().open_table(WORDS) else { return Vec::new() };
    let row = |row: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, u64>), _>| {
        let (word, place) = row.unwrap();
        (place.value(), word.value().to_owned())
    };
    let mut taken: Vec<_> = words.iter().unwrap().map(row).collect();
    taken.sort();
    taken.into_iter().map(|(_, word)| word).collect()
}

#[test]
fn an_older_database_is_brought_up_by_the_steps_that_it_lacks() {
    assert_eq!(OF_THREE_VERSIONS.version(), 3);
    for (from, expect) in [(1, vec!["to the second", "to the third"]), (2, vec!["to the third"]), (3, vec![])]
    {
        let database = of_version(from);
        OF_THREE_VERSIONS.bring_up("x.redb".as_ref(), &database).unwrap();
        assert_eq!(steps_taken(&database), expect, "from {from}");
        assert_eq!(version_of(&database).unwrap(), Found::Version(3));
        OF_THREE_VERSIONS.bring_up("x.redb".as_ref(), &database).unwrap();
        assert_eq!(steps_taken(&database), expect, "once only");
    }
    let new = open_backend("x.redb".as_ref(), InMemoryBackend::new(), OF_THREE_VERSIONS, 1 << 20).unwrap();
    assert_eq!((steps_taken(&new), version_of(&new).unwrap()), (vec![], Found::Version(3)));
}

#[test]
fn a_step_that_fails_leaves_the_database_as_it_was() {
    let format = Format { steps: &[|writing| note(writing, "to the second"), fail], tables: &[] };
    let database = of_version(1);
    assert!(format.bring_up("x.redb".as_ref(), &database).is_err());
    assert_eq!((steps_taken(&database), version_of(&database).unwrap()), (vec![], Found::Version(1)));
}

#[test]
fn a_database_that_says_no_version_is_none_of_ours_and_is_left_alone() {
    let strange = |version: Option<u64>| {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let writing = database.begin_write().unwrap();
        note(&writing, "somebody else's").unwrap();
        if let Some(version) = version {
            set_version(&writing, version);
        }
        writing.commit().unwrap();
        database
    };
    for (version, expect) in [(None, Found::Unsaid), (Some(0), Found::Version(0))] {
        let database = strange(version);
        let error = SPOOL.bring_up("x.redb".as_ref(), &database).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
        assert_eq!(version_of(&database).unwrap(), expect);
    }
}

/// Somebody's version that forgot to have a step, or a file as another redb writes it.
#[tokio::test]
async fn tables_of_other_types_are_another_version_and_not_damage() {
    let directory = both().await;
    let path = directory.path().join("spool.redb");
    change(&path, |writing| {
        writing.delete_table(MESSAGES).unwrap();
        writing.open_table(TableDefinition::<&str, u64>::new("messages")).unwrap();
    });
    let error = open_spool(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::OtherVersion { .. }), "{error:?}");
    assert!(error.to_string().contains("install the version that wrote it"), "{error}");
    change(&path, |writing| {
        writing.delete_table(TableDefinition::<&str, u64>::new("messages")).unwrap();
        writing.open_multimap_table(MultimapTableDefinition::<u64, &[u8]>::new("messages")).unwrap();
    });
    assert!(matches!(open_spool(directory.path()).await, Err(OpenError::OtherVersion { .. })));
    let newer = redb::Error::Corrupted("Expected file format version <= 3, found 4".to_owned());
    assert!(matches!(OpenError::of(&path, newer), OpenError::OtherVersion { .. }));
    let damage = redb::Error::Corrupted("checksum".to_owned());
    assert!(matches!(OpenError::of(&path, damage), OpenError::Damaged { .. }));
}

#[tokio::test]
async fn a_table_that_is_not_there_is_made_however_many_others_are() {
    const DAMAGED: TableDefinition<'_, (u64, u8), &[u8]> = TableDefinition::new("damaged");
    let directory = both().await;
    let path = directory.path().join("spool.redb");
    change(&path, |writing| {
        writing.delete_table(DAMAGED).unwrap();
        note(writing, "a table that this version doesn't know").unwrap();
    });
    let (db, _) = SpoolDb::open(directory.path()).unwrap();
    db.close().await;
    drop(db);
    let database = Database::open(&path).unwrap();
    let reading = database.begin_read().unwrap();
    let tables: Vec<String> = reading.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
    assert!(tables.contains(&"damaged".to_owned()) && tables.contains(&"words".to_owned()), "{tables:?}");
}

/// Who removes such a message gets the room back that it took.
async fn remove_with_its_body(directory: &Path, id: u64) {
    let id = QueueId(id);
    let (db, _) = SpoolDb::open(directory).unwrap();
    let stored = StoredBody::Row { octets: 1 };
    assert!(db.body(id, stored).await.is_ok());
    db.submit(SpoolOp::Remove(id)).await.unwrap();
    assert!(db.body(id, stored).await.is_err());
    db.close().await;
}

#[tokio::test]
async fn recovery_tells_a_row_of_another_version_from_a_damaged_one_and_keeps_both() {
    let directory = both().await;
    let rows = [
        (1, r#"{"origin":"Moon","body":{"row":{"octets":1}}}"#, "another version of mailguard wrote it"),
        (2, r#"{"sealed":"0123456789abcdef"}"#, "another version of mailguard wrote it"),
        (3, r#"{"origin":"Own","envel"#, "it is damaged"),
        (4, "\u{0}\u{0}\u{0}", "it is damaged"),
    ];
    change(&directory.path().join("spool.redb"), |writing| {
        let mut messages = writing.open_table(MESSAGES).unwrap();
        for (id, row, _) in rows {
            messages.insert(id, row.as_bytes()).unwrap();
        }
        writing.open_table(BODIES).unwrap().insert(1, b"x".as_slice()).unwrap();
    });
    let damaged = open_spool(directory.path()).await.unwrap();
    assert_eq!(damaged.len(), rows.len());
    remove_with_its_body(directory.path(), rows[0].0).await;
    for ((id, row, cause), (found, record)) in rows.into_iter().zip(damaged) {
        assert_eq!((found, record.row.as_str()), (QueueId(id), row));
        assert!(record.cause.contains(cause), "{}", record.cause);
        let is_of_another_version = record.cause.contains("newer one, is started");
        assert_eq!(is_of_another_version, !record.cause.contains("damaged"), "{}", record.cause);
    }
}

/// The number by which the package knows the stored format: it rises with either database's version.
fn packaged() -> String {
    (SPOOL.version() + FACTS.version() - 1).to_string()
}

fn package(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../package").join(name)
}

/// The package's first script, where a version is installed whose stored format has this number; none: one of
/// before.
fn preinst(action: &str, installed: Option<&str>) -> Output {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("usr/share/mailguard");
    fs::create_dir_all(&folder).unwrap();
    if let Some(number) = installed {
        fs::write(folder.join("stored-format"), number).unwrap();
    }
    let mut script = Command::new("sh");
    script.arg(package("preinst")).args([action, "9.0-1", "1.0-1"]).env("DPKG_ROOT", root.path());
    script.output().unwrap()
}

#[test]
fn a_package_is_refused_that_could_not_read_what_the_installed_one_stores() {
    assert_eq!(fs::read_to_string(package("stored-format")).unwrap().trim(), packaged());
    let script = fs::read_to_string(package("preinst")).unwrap();
    assert!(
        script.contains(&format!("\nREADS={}\n", packaged())),
        "preinst reads another format than the program"
    );
    for (action, installed) in [
        ("upgrade", None),
        ("upgrade", Some(packaged())),
        ("upgrade", Some("0\n".to_owned())),
        ("upgrade", Some("no number".to_owned())),
        ("install", Some("99\n".to_owned())),
        ("abort-upgrade", Some("99\n".to_owned())),
    ] {
        let output = preinst(action, installed.as_deref());
        assert!(output.status.success(), "{action} over {installed:?}: {output:?}");
    }
    let refused = preinst("upgrade", Some("99\n"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for part in ["9.0-1", "99", &packaged(), "mailguard store export"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// A table of a later version: its types, and a line in the list.
struct Numbers;

impl StoredTable for Numbers {
    const NAME: &'static str = "numbers";
    type Key = u64;
    type Value = u64;
}

/// One that was there before.
struct Words;

impl StoredTable for Words {
    const NAME: &'static str = "words";
    type Key = &'static str;
    type Value = u64;
}

#[test]
fn a_table_that_is_listed_later_is_made_beside_the_rows_of_the_others() {
    const EARLIER: Format = Format { steps: &[], tables: &[Listed::of::<Words>()] };
    const LATER: Format = Format { steps: &[], tables: &[Listed::of::<Words>(), Listed::of::<Numbers>()] };
    let path = Path::new("x.redb");
    let database = open_backend(path, InMemoryBackend::new(), EARLIER, 1 << 20).unwrap();
    let writing = database.begin_write().unwrap();
    note(&writing, "of an earlier version").unwrap();
    writing.commit().unwrap();
    assert!(Numbers::open(&database.begin_read().unwrap()).is_err());
    for _ in 0..2 {
        LATER.bring_up(path, &database).unwrap();
        let reading = database.begin_read().unwrap();
        assert_eq!(Numbers::open(&reading).unwrap().iter().unwrap().count(), 0);
        assert_eq!(steps_taken(&database), ["of an earlier version"]);
    }
    // A table is none of its name alone.
    let other = database.begin_write().unwrap();
    other.delete_table(Numbers::definition()).unwrap();
    other.open_table(TableDefinition::<&str, &str>::new(Numbers::NAME)).unwrap();
    other.commit().unwrap();
    assert!(matches!(LATER.bring_up(path, &database), Err(OpenError::OtherVersion { .. })));
}
