//! What was acknowledged survives: power cuts, failing disks, missing files, damaged stores.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mailguard_core::config::Config;
use mailguard_core::disposition::Disposition;
use mailguard_core::finding::Threat;
use mailguard_core::mail::QueueId;
use tempfile::TempDir;

use super::fixture::{config, mailbox, message, shared};
use super::*;
use crate::store::OpenError;
use crate::store::lossy::{EIO, ENOSPC, LossyDisk, LossyFiles};
use crate::store::spool::{DamagedRecord, Recovered, raw};
use crate::store::stock::Stock;

/// A message's octets, told apart by its id and longer than a page.
fn octets(id: QueueId) -> Vec<u8> {
    format!("Subject: {id}\r\n\r\n").repeat(400).into_bytes()
}

fn spool_on(db: SpoolDb, recovered: &Recovered, config: Config) -> Spool {
    Spool::new(db, shared(config), Arc::new(IdMint::above(recovered.greatest)))
}

/// Quick repair never and from the first octet on: every promise holds both ways.
const BOTH_WAYS: [u64; 2] = [u64::MAX, 0];

fn open(directory: &Path, disk: &LossyDisk) -> Result<(Spool, Recovered), OpenError> {
    open_with(directory, disk, BOTH_WAYS[0])
}

fn open_with(
    directory: &Path,
    disk: &LossyDisk,
    quick_repair_octets: u64,
) -> Result<(Spool, Recovered), OpenError> {
    let (db, recovered) =
        SpoolDb::open_on(directory, disk.backend(), LossyFiles::default(), quick_repair_octets)?;
    Ok((spool_on(db, &recovered, config(directory)), recovered))
}

async fn commit(spool: &Spool) -> Result<QueueId, CommitError> {
    let id = spool.ids.mint();
    let body = Body::Memory(octets(id).into());
    spool.commit(message(id, &["a@b.test"], body)).await.map(|receipt| *receipt.get())
}

/// A power cut: what had been acknowledged before it, and the disk after it.
struct Cut {
    acknowledged: Vec<QueueId>,
    disk: LossyDisk,
}

/// Commits from four sides at once and cuts the power at every acknowledgement (a copy of the disk; the
/// original goes on). Every third unsynced change survives the cut, each time another third.
async fn cuts(directory: &Path, disk: &LossyDisk, quick_repair_octets: u64) -> Vec<Cut> {
    let (spool, _) = open_with(directory, disk, quick_repair_octets).unwrap();
    let ledger = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let sides = (0..4).map(|_| {
        let (spool, disk, ledger) = (spool.clone(), disk.clone(), ledger.clone());
        tokio::spawn(async move {
            for _ in 0..8 {
                let id = commit(&spool).await.unwrap();
                let mut guard = ledger.lock().unwrap();
                let (acknowledged, cuts) = &mut *guard;
                acknowledged.push(id);
                let mut change = cuts.len();
                let disk = disk.after_power_cut(|| {
                    change += 1;
                    change % 3 == 0
                });
                cuts.push(Cut { acknowledged: acknowledged.clone(), disk });
            }
        })
    });
    for side in sides.collect::<Vec<_>>() {
        side.await.unwrap();
    }
    std::mem::take(&mut ledger.lock().unwrap().1)
}

/// How many acknowledged messages the store that a cut left can't give back, octet for octet.
async fn lost(directory: &Path, cut: &Cut) -> usize {
    let Ok((spool, recovered)) = open(directory, &cut.disk) else { return cut.acknowledged.len() };
    let queued: BTreeMap<_, _> = recovered.queued.into_iter().collect();
    let mut lost = 0;
    for &id in &cut.acknowledged {
        let Some(record) = spool.db.message(id).await.unwrap() else {
            lost += 1;
            continue;
        };
        let body = spool.db.body(id, record.body).await.unwrap().head(usize::MAX).await.unwrap();
        lost += usize::from(!queued.contains_key(&id) || body != octets(id));
    }
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_nothing_acknowledged() {
    let directory = TempDir::new().unwrap();
    for quick_repair_octets in BOTH_WAYS {
        let cuts = cuts(directory.path(), &LossyDisk::default(), quick_repair_octets).await;
        assert_eq!(cuts.len(), 32);
        for cut in &cuts {
            assert_eq!(lost(directory.path(), cut).await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_about_syncs_is_found_out() {
    let directory = TempDir::new().unwrap();
    let disk = LossyDisk::default();
    let (spool, _) = open(directory.path(), &disk).unwrap();
    // Its last writes must not be lies.
    spool.db.close().await;
    drop(spool);
    disk.lie();
    let cuts = cuts(directory.path(), &disk, BOTH_WAYS[0]).await;
    let mut sum = 0;
    for cut in &cuts {
        sum += lost(directory.path(), cut).await;
    }
    assert!(sum > 0, "the test above can't fail");
}

#[tokio::test]
async fn a_failing_disk_gives_no_receipt_and_stops_acceptance() {
    let directory = TempDir::new().unwrap();
    for (errno, quick_repair_octets) in [(ENOSPC, BOTH_WAYS[0]), (EIO, BOTH_WAYS[1])] {
        for operation in 1.. {
            let disk = LossyDisk::default();
            let (spool, _) = open_with(directory.path(), &disk, quick_repair_octets).unwrap();
            let first = commit(&spool).await.unwrap();
            let before = disk.operations();
            disk.fail_in(operation, errno);
            let second = commit(&spool).await;
            if disk.operations() - before < operation {
                break;
            }
            let refusal = second.expect_err("a receipt in spite of a failure").refusal();
            assert_eq!(refusal.codes().0.get(), 452);
            assert!(matches!(spool.storage_available(), Err(CommitError::Failed(_))));
            assert!(matches!(commit(&spool).await, Err(CommitError::Failed(_))));
            for survives in [false, true] {
                let cut = Cut { acknowledged: vec![first], disk: disk.after_power_cut(|| survives) };
                assert_eq!(lost(directory.path(), &cut).await, 0, "operation {operation}");
            }
        }
    }
}

/// A spool on real files.
fn on_files(directory: &Path) -> (Spool, Recovered) {
    let (db, recovered) = SpoolDb::open(directory).unwrap();
    (spool_on(db, &recovered, config(directory)), recovered)
}

fn body_files(directory: &Path) -> usize {
    fs::read_dir(directory.join("bodies")).unwrap().count()
}

async fn big_body(spool: &Spool) -> (Body, Vec<u8>) {
    let octets: Vec<u8> = (0..5 * 1024 * 1024_u32).map(|n| (n / 7) as u8).collect();
    let mut writer = spool.body_writer();
    for piece in octets.chunks(60_000) {
        writer.push(piece).await.unwrap();
    }
    assert_eq!(writer.octets(), octets.len() as u64);
    (writer.finish().await.unwrap(), octets)
}

#[tokio::test]
async fn a_big_body_is_a_file_that_lives_as_long_as_its_row() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = on_files(directory.path());
    let (body, octets) = big_body(&spool).await;
    let Body::File(file) = &body else { panic!("5 MiB in memory") };
    assert_eq!(fs::read(file.path()).unwrap(), octets);
    let id = spool.ids.mint();
    spool.commit(message(id, &["a@b.test"], body)).await.unwrap();
    drop(spool.db.intake().drain());
    spool.db.close().await;
    drop(spool);

    let (spool, recovered) = on_files(directory.path());
    assert_eq!((recovered.queued.len(), recovered.orphans, recovered.damaged.len()), (1, 0, 0));
    assert!(recovered.greatest >= id.0);
    let record = spool.db.message(id).await.unwrap().unwrap();
    assert_eq!(record.body.octets(), octets.len() as u64);
    assert_eq!(spool.db.body(id, record.body).await.unwrap().head(usize::MAX).await.unwrap(), octets);
    spool.db.submit(SpoolOp::Finish(id, record.body)).await.unwrap();
    spool.db.close().await;
    assert_eq!(body_files(directory.path()), 0);
}

#[tokio::test]
async fn a_body_that_is_not_committed_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = on_files(directory.path());
    let mut unfinished = spool.body_writer();
    unfinished.push(&vec![b'x'; SPILL_OCTETS + 1]).await.unwrap();
    let (finished, _) = big_body(&spool).await;
    assert_eq!(body_files(directory.path()), 2);
    drop((unfinished, finished));
    assert_eq!(body_files(directory.path()), 0);
    let mut small = spool.body_writer();
    small.push(&vec![b'x'; SPILL_OCTETS]).await.unwrap();
    assert!(matches!(small.finish().await.unwrap(), Body::Memory(octets) if octets.len() == SPILL_OCTETS));
}

#[tokio::test]
async fn recovery_keeps_what_no_row_names_and_puts_rows_without_file_aside() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = on_files(directory.path());
    let id = spool.ids.mint();
    let mut new = message(id, &["a@b.test", "c@d.test"], big_body(&spool).await.0);
    new.dispositions[1] = Disposition::Quarantine(Threat::Virus("EICAR".to_owned()));
    let Body::File(file) = new.body.clone() else { panic!("5 MiB in memory") };
    spool.commit(new).await.unwrap();
    spool.db.close().await;
    drop(spool);
    let bodies = directory.path().join("bodies");
    fs::write(bodies.join("00000000000000ff"), "orphan").unwrap();
    fs::write(bodies.join("00000000000000fe.new"), "half received").unwrap();
    fs::write(bodies.join("README"), "not ours").unwrap();
    let aside = directory.path().join("aside");
    fs::rename(file.path(), &aside).unwrap();

    for _ in 0..2 {
        let (spool, recovered) = on_files(directory.path());
        assert!(recovered.queued.is_empty());
        assert_eq!(recovered.damaged.len(), 2, "the message and its quarantine entry");
        for (damaged, record) in &recovered.damaged {
            assert_eq!(*damaged, id);
            assert!(record.cause.contains("restore the file"), "{}", record.cause);
        }
        assert!(!bodies.join("00000000000000ff").exists() && !bodies.join("00000000000000fe.new").exists());
        assert_eq!(fs::read(bodies.join("lost/00000000000000ff")).unwrap(), b"orphan");
        assert_eq!(spool.db.bodies().lost_stock().unwrap(), Stock { messages: 1, octets: 6 });
        assert!(bodies.join("README").exists());
        spool.db.close().await;
    }

    fs::rename(&aside, file.path()).unwrap();
    let (spool, recovered) = on_files(directory.path());
    assert_eq!((recovered.queued.len(), recovered.damaged.len()), (1, 0));
    let stock = Stock { messages: 1, octets: 5 * 1024 * 1024 };
    assert_eq!((spool.db.queue_stock(), spool.db.quarantine_stock()), (stock, stock));
    assert!(spool.db.quarantined(id).await.unwrap().is_some());
}

/// Rows of the table of damaged ones, as another version or a failing disk may leave them.
#[tokio::test]
async fn a_damaged_row_that_can_not_be_read_itself_stops_no_start_and_stays() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = on_files(directory.path());
    let id = spool.ids.mint();
    spool.commit(message(id, &["a@b.test"], big_body(&spool).await.0)).await.unwrap();
    drop(spool.db.intake().drain());
    spool.db.close().await;
    drop(spool);
    let (bytes, strange) = (b"\xff no row at all".as_slice(), b"{}".as_slice());
    raw::change(directory.path(), |tables| {
        let of_another_version = serde_json::json!({ "row": tables.take_message(id) }).to_string();
        tables.put_damaged(id, 0, of_another_version.as_bytes());
        tables.put_damaged(QueueId(7_000), 0, bytes);
        tables.put_damaged(QueueId(7_001), 9, strange);
    });
    for _ in 0..2 {
        let (spool, recovered) = on_files(directory.path());
        let queued: Vec<QueueId> = recovered.queued.iter().map(|(id, _)| *id).collect();
        assert_eq!(queued, [id], "what can be read of a row brings its message back");
        let read = |damaged: &[(QueueId, DamagedRecord)]| -> Vec<(u64, String)> {
            damaged.iter().map(|(id, record)| (id.0, record.row.clone())).collect()
        };
        let kept = [(7_000, "\u{fffd} no row at all".to_owned()), (7_001, "{}".to_owned())];
        assert_eq!(read(&recovered.damaged), kept);
        assert!(recovered.damaged[0].1.cause.contains("mailguard store export"), "{:?}", recovered.damaged);
        assert!(recovered.greatest >= 7_001, "no new message gets the id of a row that is kept");
        let shown = spool.db.damaged().await.unwrap();
        assert_eq!(read(&shown), kept, "status and store check see them");
        spool.db.close().await;
    }
    let (spool, _) = on_files(directory.path());
    for id in [7_000, 7_001] {
        let removed = spool.db.submit(SpoolOp::Remove(QueueId(id))).await.unwrap();
        assert!(matches!(removed, SpoolOpResult::Done), "{removed:?}");
    }
    spool.db.close().await;
    drop(spool);
    assert_eq!(on_files(directory.path()).1.damaged, []);
}

/// Who follows "move it away", and restores the database later, has lost nothing.
#[tokio::test]
async fn a_database_that_comes_back_finds_its_body_files() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = on_files(directory.path());
    let id = spool.ids.mint();
    let (body, octets) = big_body(&spool).await;
    spool.commit(message(id, &["a@b.test"], body)).await.unwrap();
    drop(spool.db.intake().drain());
    spool.db.close().await;
    drop(spool);
    let (database, aside) = (directory.path().join("spool.redb"), directory.path().join("aside"));
    fs::rename(&database, &aside).unwrap();
    let (spool, recovered) = on_files(directory.path());
    assert_eq!((recovered.queued.len(), recovered.lost), (0, 1));
    assert!(recovered.greatest > 0, "no new file gets the name of one that is kept");
    spool.db.close().await;
    drop(spool);
    fs::rename(&aside, &database).unwrap();
    let (spool, recovered) = on_files(directory.path());
    assert_eq!((recovered.queued.len(), recovered.lost, recovered.damaged.len()), (1, 0, 0));
    let record = spool.db.message(id).await.unwrap().unwrap();
    assert_eq!(spool.db.body(id, record.body).await.unwrap().head(usize::MAX).await.unwrap(), octets);
    assert_eq!(spool.db.bodies().lost_stock().unwrap(), Stock::default());
}

#[tokio::test]
async fn dispositions_become_rows() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = open(directory.path(), &LossyDisk::default()).unwrap();
    let virus = || Threat::Virus("EICAR".to_owned());
    let admin = || Disposition::Redirect(mailbox("admin@b.test"));
    let table: [(Vec<Disposition>, usize, usize); 5] = [
        (vec![Disposition::Deliver, Disposition::Deliver], 2, 0),
        (vec![Disposition::Deliver, Disposition::Quarantine(virus())], 1, 1),
        (vec![Disposition::Quarantine(virus()), Disposition::Quarantine(virus())], 0, 2),
        (vec![Disposition::Discard(virus()), Disposition::Discard(virus())], 0, 0),
        (vec![admin(), admin()], 1, 0),
    ];
    for (dispositions, queued, quarantined) in table {
        let id = spool.ids.mint();
        let mut new = message(id, &["a@b.test", "c@d.test"], Body::Memory("x".into()));
        new.dispositions = dispositions.clone();
        spool.commit(new).await.unwrap();
        let record = spool.db.message(id).await.unwrap();
        let entry = spool.db.quarantined(id).await.unwrap();
        assert_eq!(record.map_or(0, |record| record.queued().count()), queued, "{dispositions:?}");
        assert_eq!(entry.map_or(0, |entry| entry.quarantined.len()), quarantined, "{dispositions:?}");
        let handed: Vec<_> = spool.db.intake().drain().into_iter().map(|committed| committed.id).collect();
        assert_eq!(handed, if queued > 0 { vec![id] } else { vec![] }, "{dispositions:?}");
    }
}

#[tokio::test]
async fn limits_of_disk_and_quarantine_and_memory() {
    let directory = TempDir::new().unwrap();
    let (db, recovered) = SpoolDb::open(directory.path()).unwrap();
    let spool_with = |change: fn(&mut Config)| {
        let mut config = config(directory.path());
        change(&mut config);
        spool_on(db.clone(), &recovered, config)
    };
    assert_eq!(commit(&spool_with(|c| c.min_free_disk = u64::MAX)).await, Err(CommitError::Full));

    let small = spool_with(|c| c.quarantine.max_size = 10);
    let quarantined = |octets: usize| {
        let mut new = message(small.ids.mint(), &["a@b.test"], Body::Memory(vec![b'x'; octets].into()));
        new.dispositions = vec![Disposition::Quarantine(Threat::File("a.exe".to_owned()))];
        small.commit(new)
    };
    quarantined(6).await.unwrap();
    assert_eq!(quarantined(5).await, Err(CommitError::QuarantineFull));
    quarantined(4).await.unwrap();

    let cached = |spool: &Spool| spool.db.intake().drain().into_iter().map(|c| c.cached).collect::<Vec<_>>();
    commit(&small).await.unwrap();
    let share = small.budget.take(CACHED_OCTETS, u64::MAX).unwrap();
    commit(&small).await.unwrap();
    drop(share);
    commit(&small).await.unwrap();
    assert_eq!(cached(&small).iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
}

#[tokio::test]
async fn a_damaged_store_is_named_with_what_to_do() {
    let directory = TempDir::new().unwrap();
    let (spool, _) = on_files(directory.path());
    for _ in 0..50 {
        commit(&spool).await.unwrap();
    }
    spool.db.close().await;
    drop(spool);
    let file = directory.path().join("spool.redb");
    let whole = fs::read(&file).unwrap();
    let mut zeroed = whole.clone();
    zeroed[..4096].fill(0);
    for (what, octets) in [("truncated", &whole[..whole.len() / 3]), ("zeroed", &zeroed), ("text", b"hello")]
    {
        fs::write(&file, octets).unwrap();
        let error = SpoolDb::open(directory.path()).expect_err(what).to_string();
        assert!(error.contains("spool.redb: damaged"), "{what}: {error}");
        assert!(error.contains("restore it from a backup"), "{what}: {error}");
    }
    fs::write(&file, &whole).unwrap();
    let (_held, _) = on_files(directory.path());
    let error = SpoolDb::open(directory.path()).expect_err("opened twice").to_string();
    assert!(error.contains("another mailguard"), "{error}");
}

#[tokio::test]
async fn what_a_start_after_a_kill_would_read_is_counted_once_a_body() {
    let directory = TempDir::new().unwrap();
    let disk = LossyDisk::default();
    let (spool, _) = open(directory.path(), &disk).unwrap();
    let mixed = spool.ids.mint();
    let mut new = message(mixed, &["a@b.test", "c@d.test"], Body::Memory(vec![b'x'; 3000].into()));
    new.dispositions[1] = Disposition::Quarantine(Threat::Virus("EICAR".to_owned()));
    spool.commit(new).await.unwrap();
    let plain = spool.ids.mint();
    spool.commit(message(plain, &["a@b.test"], Body::Memory(vec![b'x'; 500].into()))).await.unwrap();
    spool.commit(message(spool.ids.mint(), &["a@b.test"], big_body(&spool).await.0)).await.unwrap();
    let read = || open(directory.path(), &disk.after_power_cut(|| false)).unwrap().1.row_octets;
    assert_eq!(read(), 3000 + 1024 + 500 + 1024);
    spool.db.submit(SpoolOp::Remove(plain)).await.unwrap();
    assert_eq!(read(), 3000 + 1024);
    spool.db.submit(SpoolOp::Expunge(vec![mixed])).await.unwrap();
    assert_eq!(read(), 3000 + 1024);
    spool.db.submit(SpoolOp::Remove(mixed)).await.unwrap();
    assert_eq!(read(), 0);
}

async fn commit_big(spool: &Spool) -> Result<QueueId, CommitError> {
    let id = spool.ids.mint();
    let mut writer = spool.body_writer();
    for piece in [vec![b'x'; SPILL_OCTETS + 1], vec![b'y'; 10]] {
        writer.push(&piece).await?;
    }
    let receipt = spool.commit(message(id, &["a@b.test"], writer.finish().await?)).await?;
    Ok(*receipt.get())
}

#[tokio::test]
async fn a_body_file_is_on_disk_with_its_name_before_its_row() {
    for (errno, refusal) in [(ENOSPC, Refusal::StorageFull), (EIO, Refusal::StorageFailed)] {
        for operation in 1.. {
            let directory = TempDir::new().unwrap();
            let (disk, files) = (LossyDisk::default(), LossyFiles::default());
            let (db, recovered) =
                SpoolDb::open_on(directory.path(), disk.backend(), files.clone(), u64::MAX).unwrap();
            let spool = spool_on(db, &recovered, config(directory.path()));
            files.fail_in(operation, errno);
            let outcome = commit_big(&spool).await;
            files.cut_power();
            let (_, recovered) = open(directory.path(), &disk.after_power_cut(|| true)).unwrap();
            assert!(recovered.damaged.is_empty(), "operation {operation}: {:?}", recovered.damaged);
            assert_eq!(recovered.queued.len(), usize::from(outcome.is_ok()), "operation {operation}");
            if files.operations() < operation {
                assert!(outcome.is_ok() && operation > 4);
                break;
            }
            assert_eq!(outcome.map_err(|error| error.refusal()), Err(refusal.clone()));
            assert_eq!(body_files(directory.path()), 0, "operation {operation}");
            assert!(commit_big(&spool).await.is_ok(), "the next message has its own file");
        }
    }
}
