//! Spool and queue over disks that fail and forget, in many rounds of chance: whatever is acknowledged comes
//! to one end for each recipient.
//!
//! `cargo xtask crash` plays many of them: `MAILGUARD_ROUNDS`, from the seed `MAILGUARD_FIRST` on. One round
//! is repeated by its seed: `MAILGUARD_SEED=17 cargo nextest run -p mailguard failing_disks`.

use super::*;
use crate::spool::CommitError;
use crate::store::lossy::ENOSPC;

/// Rounds unless the environment says otherwise.
const ROUNDS: u64 = 40;

/// Messages of a round.
const MESSAGES: u64 = 24;

/// Most operations of the disk before the fault, roughly what a round makes.
const OPERATIONS: u64 = 160;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Outcomes by the first letter of the address: `g`ood, `b`ad, `l`ate: at the second attempt.
fn fate(_: &str, address: &str, before: usize) -> Outcome {
    match address.as_bytes().get(1) {
        Some(b'b') => failed(),
        Some(b'l') if before == 0 => deferred(),
        _ => delivered(),
    }
}

/// A message's octets: every fourth is large enough for a file of its own.
async fn body(house: &House, which: u64) -> Result<Body, CommitError> {
    let octets = if which.is_multiple_of(4) { SPILL_OCTETS + 1 } else { 100 };
    let mut writer = house.spool.body_writer();
    writer.push(format!("Subject: {which}\r\n\r\n").as_bytes()).await?;
    writer.push(&vec![b'x'; octets]).await?;
    Ok(writer.finish().await?)
}

/// Commits one message with a recipient of each fate; every other one comes from a zone without reports.
async fn commit(house: &House, which: u64) -> Result<QueueId, CommitError> {
    let id = house.ids.mint();
    let recipients = [format!("g{which}@x.test"), format!("b{which}@y.test"), format!("l{which}@z.test")];
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    let mut new = message(id, &recipients, body(house, which).await?);
    new.received_at = UnixTime(house.now.load(Ordering::SeqCst));
    new.envelope.reverse_path = ReversePath::Mailbox(mailbox(&format!("sender{which}@green.test")));
    if which % 2 == 1 {
        new.origin = client("red");
    }
    Ok(*house.spool.commit(new).await?.get())
}

/// How often each address got a message.
fn count(house: &House, into: &mut BTreeMap<String, u64>) {
    for sent in house.deliver.sent.lock().unwrap().iter() {
        for recipient in &sent.message.envelope.recipients {
            *into.entry(recipient.forward_path.to_string()).or_default() += 1;
        }
    }
}

async fn round(seed: u64) {
    let mut chance = Chance(seed);
    let directory = TempDir::new().unwrap();
    let (disk, files) = (LossyDisk::default(), LossyFiles::default());
    let quick_repair = if chance.below(2) == 0 { 0 } else { u64::MAX };
    let opened = SpoolDb::open_on(directory.path(), disk.backend(), files.clone(), quick_repair).unwrap();
    let house = House::on(directory.path(), opened, 0, fate);
    let errno = if chance.below(2) == 0 { ENOSPC } else { EIO };
    let operation = 1 + chance.below(OPERATIONS);
    match chance.below(4) {
        0 => files.fail_in(1 + chance.below(30), errno),
        1 => disk.fail_half_way_in(operation, errno),
        2 => disk.fail_in(operation, errno),
        // Nothing fails; the power is cut while all is under way.
        _ => {}
    }
    let mut acknowledged = Vec::new();
    let cut_after = 1 + chance.below(MESSAGES);
    for which in 0..cut_after {
        if commit(&house, which).await.is_ok() {
            acknowledged.push(which);
        }
        if chance.below(3) == 0 {
            house.pass(6 * MINUTE);
            tokio::task::yield_now().await;
        }
    }
    // The files first: nothing is removed any more that what is left of the database names.
    files.switch_off();
    files.cut_power();
    let left = disk.after_power_cut(|| chance.below(3) == 0);
    let now = house.now.load(Ordering::SeqCst);
    // What is sent after the cut isn't in what is left, and is sent again: counted here it harms nobody.
    let mut arrived = BTreeMap::new();
    count(&house, &mut arrived);
    // What runs on after the cut is of another world.
    let House { queue, .. } = house;
    queue.shared.stopping.send_replace(true);
    drop(queue);

    let recovered = SpoolDb::open_on(directory.path(), left, LossyFiles::default(), quick_repair).unwrap();
    assert!(recovered.1.damaged.is_empty(), "{:?}", recovered.1.damaged);
    let house = House::on(directory.path(), recovered, now, fate);
    house.drain().await;
    count(&house, &mut arrived);
    let quarantined = house.db.quarantine(None, usize::MAX, |_, _| true).await.unwrap().rows;
    let quarantined: Vec<String> = quarantined
        .iter()
        .flat_map(|(_, record)| &record.envelope.recipients)
        .map(|recipient| recipient.forward_path.to_string())
        .collect();
    for which in acknowledged {
        let times = |address: &str| arrived.get(&format!("<{address}>")).copied().unwrap_or(0);
        assert!(times(&format!("g{which}@x.test")) >= 1, "{which} is lost");
        assert!(times(&format!("l{which}@z.test")) >= 2, "{which} is lost, late");
        let reports = times(&format!("sender{which}@green.test"));
        let kept = quarantined.iter().filter(|address| **address == format!("<b{which}@y.test>")).count();
        let ends = if which % 2 == 1 { (reports == 0, kept == 1) } else { (reports >= 1, kept == 0) };
        assert_eq!(ends, (true, true), "{which}: {reports} reports, {kept} quarantined");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_recipient_comes_to_one_end_over_failing_disks() {
    if let Some(seed) = number("MAILGUARD_SEED") {
        return round(seed).await;
    }
    let first = number("MAILGUARD_FIRST").unwrap_or(1);
    for seed in first..first + number("MAILGUARD_ROUNDS").unwrap_or(ROUNDS) {
        if let Err(error) = tokio::spawn(round(seed)).await {
            panic!("the round of seed {seed} fails; again: MAILGUARD_SEED={seed}: {error}");
        }
    }
}
