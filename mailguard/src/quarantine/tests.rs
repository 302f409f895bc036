//! What is quarantined is found, shown safely, released, deleted, and not kept for ever.

use std::path::Path;

use mailguard_core::disposition::Disposition;
use tempfile::TempDir;

use super::*;
use crate::spool::fixture::{client, config, mailbox, message, shared};
use crate::spool::{IdMint, NewMessage, SPILL_OCTETS, Spool};
use crate::store::spool::RecipientState;

const DAY: Duration = Duration::from_secs(86_400);

struct House {
    spool: Spool,
    db: SpoolDb,
    ids: Arc<IdMint>,
    quarantine: QuarantineHandle,
}

fn open(directory: &Path) -> House {
    let (db, recovered) = SpoolDb::open(directory).unwrap();
    let config = shared(config(directory));
    let ids = Arc::new(IdMint::above(recovered.greatest));
    let spool = Spool::new(db.clone(), config.clone(), ids.clone());
    let quarantine = QuarantineHandle::new(db.clone(), config);
    House { spool, db, ids, quarantine }
}

impl House {
    /// Quarantines what `change` makes of a message to this recipient.
    async fn quarantine(
        &self,
        recipient: &str,
        threat: Threat,
        change: impl FnOnce(&mut NewMessage),
    ) -> QueueId {
        let id = self.ids.mint();
        let mut new = message(id, &[recipient], Body::Memory("Subject: x\r\n\r\ntext\r\n".into()));
        new.dispositions = vec![Disposition::Quarantine(threat)];
        change(&mut new);
        *self.spool.commit(new).await.unwrap().get()
    }
}

fn virus() -> Threat {
    Threat::Virus("EICAR".to_owned())
}

fn file() -> Threat {
    Threat::File("setup.exe".to_owned())
}

#[tokio::test]
async fn lists_are_narrowed_and_paged() {
    let directory = TempDir::new().unwrap();
    let house = open(directory.path());
    let a = house.quarantine("a@x.test", virus(), |_| {}).await;
    let b = house.quarantine("Bob@y.test", file(), |new| new.origin = client("red")).await;
    let c = house.quarantine("c@y.test", file(), |_| {}).await;
    let check = async |text: Option<&str>, after, limit, expect: &[QueueId], next: Option<QueueId>| {
        let filter = Filter { text: text.map(str::to_owned) };
        let listing = house.quarantine.list(filter, after, limit).await.unwrap();
        let ids: Vec<_> = listing.rows.iter().map(|(id, _)| *id).collect();
        assert_eq!((ids.as_slice(), listing.next), (expect, next), "{text:?} behind {after:?}");
    };
    check(None, None, 10, &[a, b, c], None).await;
    check(None, None, 2, &[a, b], Some(b)).await;
    check(None, Some(b), 2, &[c], None).await;
    check(Some("eicar"), None, 10, &[a], None).await;
    check(Some("SETUP.exe"), None, 1, &[b], Some(b)).await;
    check(Some("bob@Y"), None, 10, &[b], None).await;
    check(Some("sender@green"), None, 10, &[a, b, c], None).await;
    check(Some("192.0.2.1"), None, 10, &[a, b, c], None).await;
    check(Some(&c.to_string().to_lowercase()), None, 10, &[c], None).await;
    check(Some("nothing"), None, 10, &[], None).await;
    assert_eq!(house.quarantine.ids().await.unwrap(), [a, b, c]);
}

#[tokio::test]
async fn what_is_shown_is_harmless_and_what_is_kept_is_as_received() {
    let directory = TempDir::new().unwrap();
    let house = open(directory.path());
    let octets = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX: \x1b[2J\r\n\r\nred \x1b[31m\r\n".to_vec();
    let id = house.quarantine("a@x.test", file(), |new| new.body = Body::Memory(octets.clone().into())).await;
    let shown = house.quarantine.show(id).await.unwrap().unwrap();
    assert_eq!(shown.subject, "Grüße");
    assert_eq!(shown.header, "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nX: ?[2J\n");
    assert_eq!(shown.text, "red ?[31m\n");
    let kept = house.quarantine.body(id).await.unwrap().unwrap();
    assert_eq!(kept.head(usize::MAX).await.unwrap(), octets);
    for (octets, header, text) in [(&b""[..], "", ""), (b"no end", "no end", ""), (b"\r\nx", "", "x")] {
        let id = house.quarantine("a@x.test", file(), |new| new.body = Body::Memory(octets.into())).await;
        let shown = house.quarantine.show(id).await.unwrap().unwrap();
        assert_eq!((shown.header.as_str(), shown.text.as_str()), (header, text), "{octets:?}");
    }
    assert!(house.quarantine.show(QueueId(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_release_goes_to_the_queue_and_a_virus_only_when_confirmed() {
    let directory = TempDir::new().unwrap();
    let house = open(directory.path());
    let (bad, exe) = (
        house.quarantine("a@x.test", virus(), |_| {}).await,
        house.quarantine("b@x.test", file(), |_| {}).await,
    );
    let released = house.quarantine.release(&[bad, exe, QueueId(1)], None, false).await.unwrap();
    let expect = [Released::NeedsConfirmation, Released::Queued, Released::Absent];
    assert_eq!(released.iter().map(|(_, released)| *released).collect::<Vec<_>>(), expect);
    let other = mailbox("admin@y.test");
    let released = house.quarantine.release(&[bad], Some(&other), true).await.unwrap();
    assert_eq!(released, [(bad, Released::Queued)]);
    assert_eq!(house.quarantine.stock(), Stock::default());
    for (id, address) in [(exe, "<b@x.test>"), (bad, "<admin@y.test>")] {
        let record = house.db.message(id).await.unwrap().unwrap();
        assert_eq!(record.destination(mailguard_core::mail::RecipientIndex::new(0)).to_string(), address);
        assert!(house.db.body(id, record.body).await.is_ok());
    }
    let handed: Vec<_> = house.db.intake().drain().into_iter().map(|committed| committed.id).collect();
    assert_eq!(handed, [exe, bad]);
}

#[tokio::test]
async fn a_release_joins_those_who_still_wait() {
    let directory = TempDir::new().unwrap();
    let house = open(directory.path());
    let id = house.ids.mint();
    let mut new = message(id, &["a@x.test", "b@x.test"], Body::Memory("x".into()));
    new.dispositions[1] = Disposition::Quarantine(file());
    house.spool.commit(new).await.unwrap();
    house.quarantine.release(&[id], None, false).await.unwrap();
    let record = house.db.message(id).await.unwrap().unwrap();
    let waiting: Vec<_> = record.queued().map(|(index, _)| record.destination(index).to_string()).collect();
    assert_eq!(waiting, ["<a@x.test>", "<b@x.test>"]);
    assert!(
        matches!(record.states[1], RecipientState::Ended(_)),
        "its first place stays as the trace tells it"
    );
    assert_eq!(house.db.queue_stock(), Stock { messages: 1, octets: 1 });
}

#[tokio::test]
async fn entries_expire_by_their_age_and_take_their_file_along() {
    let directory = TempDir::new().unwrap();
    let house = open(directory.path());
    let mut writer = house.spool.body_writer();
    writer.push(&vec![b'x'; SPILL_OCTETS + 1]).await.unwrap();
    let big = writer.finish().await.unwrap();
    let start = UnixTime(1_000_000);
    house.quarantine("a@x.test", file(), |new| (new.body, new.received_at) = (big, start)).await;
    let young = house.quarantine("b@x.test", file(), |new| new.received_at = start.plus(DAY)).await;
    for (age, removed) in [(DAY * 15, 0), (DAY * 15 + Duration::from_secs(1), 1), (DAY * 16, 0)] {
        assert_eq!(house.quarantine.expire(start.plus(age)).await.unwrap(), removed, "after {age:?}");
    }
    assert_eq!(house.quarantine.ids().await.unwrap(), [young]);
    house.db.close().await;
    assert_eq!(std::fs::read_dir(directory.path().join("bodies")).unwrap().count(), 0);
}
