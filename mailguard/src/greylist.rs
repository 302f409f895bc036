//! The greylist: which triplets and client networks were seen, in memory for the answer at RCPT, and in
//! `facts.redb` for the time after a restart (RFC 6647).
//!
//! `session` asks, about unauthenticated clients of red zones while `spam.greylist.enabled` is set. What
//! follows from what was seen is left to `mailguard_core::policy::check::greylist`, the rows' table to
//! `store`. Rows are written in batches and nobody waits for them: a crash costs the last ones, and so
//! somebody a second wait.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use mailguard_core::config::model::Greylist as Settings;
use mailguard_core::finding::{Check, Finding, Opinion};
use mailguard_core::mail::{ForwardPath, ReversePath, UnixTime};
use mailguard_core::policy::check::greylist::{self, Judgement, KnownClient, Seen, Triplet};
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::store::ReadError;
use crate::store::facts::FactsDb;
use crate::store::facts::greylist::{GreylistRow, Keys, network};

/// Triplets remembered at most: about 40 MiB with usual addresses, 200 MiB with none but the longest.
pub const MAX_TRIPLETS: usize = 200_000;

/// Client networks remembered at most: about 20 MiB.
pub const MAX_CLIENTS: usize = 100_000;

/// Triplets of one client network that wait, at most: who names more recipients than that is told to come
/// again, and isn't remembered.
pub const MAX_WAITING_OF_NETWORK: u32 = 2_000;

/// How often rows that are over are forgotten.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(300);

/// Rows that maintenance removes in one go, at most: what a recipient waits for it.
const MAX_REMOVED_AT_ONCE: usize = 10_000;

const FULL: &str = "the greylist is full";

/// A key of the store, shared by a row and its place in the order.
type Key = Arc<[u8]>;
/// A row of the store, or that it goes.
type Change = (Vec<u8>, Option<GreylistRow>);

/// Greylists; clones are the same one.
#[derive(Clone)]
pub struct Greylist(Arc<Inner>);

struct Inner {
    facts: FactsDb,
    /// Held until a change is handed to the store, so that both see the changes in one order.
    lists: Mutex<Lists>,
}

impl Greylist {
    /// Reads what the store holds.
    pub async fn open(facts: FactsDb) -> Result<Self, ReadError> {
        Self::open_within(facts, MAX_TRIPLETS, MAX_CLIENTS).await
    }

    async fn open_within(facts: FactsDb, triplets: usize, clients: usize) -> Result<Self, ReadError> {
        let mut lists = Lists { triplets: Table::new(triplets), clients: Table::new(clients) };
        let rows = facts.greylist().await?.into_iter();
        let strays = rows
            .filter(|(key, row)| !row.is_some_and(|row| lists.load(key, row)))
            .map(|(key, _)| (key, None));
        let strays: Vec<Change> = strays.collect();
        if !strays.is_empty() {
            warn!(rows = strays.len(), "rows of the greylist are of another version or too many: forgotten");
        }
        let greylist = Self(Arc::new(Inner { facts, lists: Mutex::new(lists) }));
        greylist.post(strays).await;
        Ok(greylist)
    }

    /// Judges a recipient at RCPT: passes, or defers with the seconds left. Returns when what changed is
    /// queued, not when it is on disk.
    pub async fn judge(
        &self,
        settings: &Settings,
        client: IpAddr,
        reverse_path: &ReversePath,
        forward_path: &ForwardPath,
        now: UnixTime,
    ) -> Finding {
        if let Some(reason) = greylist::is_exempt(settings, client, forward_path) {
            return Finding::new(Check::Greylist, Opinion::Pass, reason);
        }
        let triplet = Triplet::new(client, reverse_path, forward_path);
        let keys = Keys::of(&triplet);
        let mut lists = self.0.lists.lock().await;
        let (known, seen) = (lists.clients.rows.get(&*keys.client), lists.triplets.rows.get(&*keys.triplet));
        let judgement = greylist::judge(settings, now, known, seen);
        match lists.remember(&keys, settings, now, &judgement) {
            Ok(changes) => {
                self.post(changes).await;
                judgement.finding(&triplet, now)
            }
            // It waits among its own kind.
            Err(Refused::Crowded) => judgement.finding(&triplet, now),
            // Who isn't remembered would be deferred for ever.
            Err(Refused::Full) => greylist::unavailable(FULL),
        }
    }

    /// Forgets what is over. A task of its own.
    pub async fn run_maintenance(self, config: Arc<ArcSwap<Config>>) {
        let mut ticks = tokio::time::interval(MAINTENANCE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.remove_expired(&config.load_full().greylist, SystemTime::now().into()).await;
        }
    }

    /// Forgets what is over at this time.
    pub async fn remove_expired(&self, settings: &Settings, now: UnixTime) {
        loop {
            let mut lists = self.0.lists.lock().await;
            let changes = lists.forget(settings, now);
            let done = changes.len() < MAX_REMOVED_AT_ONCE;
            self.post(changes).await;
            if done {
                return;
            }
        }
    }

    async fn post(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            // The writer has said in the log why it takes nothing more; memory still knows.
            let _lost = self.0.facts.change_greylist(changes).await.is_err();
        }
    }
}

/// Why a row isn't remembered.
#[derive(Debug)]
enum Refused {
    /// No row may go for a new one.
    Full,
    /// The client's network has too many that wait.
    Crowded,
}

/// What the store holds, by the same keys.
struct Lists {
    triplets: Table<Seen>,
    clients: Table<KnownClient>,
}

impl Lists {
    /// Takes a row of the store; false if it is one too many.
    fn load(&mut self, key: &[u8], row: GreylistRow) -> bool {
        match row {
            GreylistRow::Triplet(seen) => self.triplets.load(key, seen),
            GreylistRow::Client(client) => self.clients.load(key, client),
        }
    }

    fn remember(
        &mut self,
        keys: &Keys,
        settings: &Settings,
        now: UnixTime,
        judgement: &Judgement,
    ) -> Result<Vec<Change>, Refused> {
        // One that still waits as it was told is not put out: in a flood everybody would wait for ever.
        let gave_up = |seen: &Seen| !seen.is_waiting(settings, now);
        match *judgement {
            Judgement::Defer { store, .. } => self.triplets.put(&keys.triplet, store, gave_up),
            Judgement::Pass { store, client, .. } => {
                let mut changes = self.clients.put(&keys.client, client, |_| true)?;
                if let Some(seen) = store {
                    changes.extend(self.triplets.put(&keys.triplet, seen, gave_up)?);
                }
                Ok(changes)
            }
        }
    }

    /// Removes rows that are over, at most [`MAX_REMOVED_AT_ONCE`].
    fn forget(&mut self, settings: &Settings, now: UnixTime) -> Vec<Change> {
        let mut changes = self.triplets.remove_if(MAX_REMOVED_AT_ONCE, |seen| seen.is_over(settings, now));
        let left = MAX_REMOVED_AT_ONCE - changes.len();
        changes.extend(self.clients.remove_if(left, |client| client.is_over(settings, now)));
        changes
    }
}

/// What a table holds.
trait Row: Copy + PartialEq + Into<GreylistRow> {
    /// The row with the earliest time goes when there is no room. None: it stays.
    fn may_go(&self) -> Option<UnixTime>;
}

impl Row for Seen {
    fn may_go(&self) -> Option<UnixTime> {
        self.passed.is_none().then_some(self.first)
    }
}

impl Row for KnownClient {
    fn may_go(&self) -> Option<UnixTime> {
        Some(self.last)
    }
}

/// Rows, never more than `capacity`.
struct Table<R> {
    rows: HashMap<Key, R>,
    /// Rows that may go, by client network.
    of_network: HashMap<Key, u32>,
    /// The rows that may go, in the order in which they do.
    order: BTreeSet<(UnixTime, Key)>,
    capacity: usize,
}

impl<R: Row> Table<R> {
    fn new(capacity: usize) -> Self {
        Self { rows: HashMap::new(), of_network: HashMap::new(), order: BTreeSet::new(), capacity }
    }

    fn load(&mut self, key: &[u8], row: R) -> bool {
        let has_room = self.rows.len() < self.capacity;
        if has_room {
            self.insert(key, row);
        }
        has_room
    }

    /// Remembers a row, if need be in place of the first that may go, if that one really may. Returns what is
    /// to be written: nothing if nothing changed.
    fn put(&mut self, key: &[u8], row: R, really: impl Fn(&R) -> bool) -> Result<Vec<Change>, Refused> {
        let mut changes = Vec::new();
        match self.rows.get(key) {
            Some(old) if *old == row => return Ok(changes),
            None if row.may_go().is_some() && self.waiting(key) >= MAX_WAITING_OF_NETWORK => {
                return Err(Refused::Crowded);
            }
            None if self.rows.len() >= self.capacity => changes.push(self.make_room(really)?),
            _ => {}
        }
        self.insert(key, row);
        changes.push((key.to_vec(), Some(row.into())));
        Ok(changes)
    }

    /// Rows of the key's network that may go.
    fn waiting(&self, key: &[u8]) -> u32 {
        self.of_network.get(network(key)).copied().unwrap_or(0)
    }

    fn make_room(&mut self, really: impl Fn(&R) -> bool) -> Result<Change, Refused> {
        let (_, key) = self.order.first().ok_or(Refused::Full)?;
        if !self.rows.get(key).is_some_and(really) {
            return Err(Refused::Full);
        }
        let key = key.clone();
        Ok(self.remove(&key))
    }

    fn insert(&mut self, key: &[u8], row: R) {
        let old = self.rows.get_key_value(key).map(|(key, old)| (key.clone(), old.may_go()));
        let (key, time) = old.unwrap_or_else(|| (Key::from(key), None));
        if let Some(time) = time {
            self.leave_order(time, &key);
        }
        if let Some(time) = row.may_go() {
            self.order.insert((time, key.clone()));
            *self.of_network.entry(Key::from(network(&key))).or_insert(0) += 1;
        }
        self.rows.insert(key, row);
    }

    fn remove(&mut self, key: &Key) -> Change {
        if let Some(time) = self.rows.remove(key).and_then(|row| row.may_go()) {
            self.leave_order(time, key);
        }
        (key.to_vec(), None)
    }

    fn leave_order(&mut self, time: UnixTime, key: &Key) {
        self.order.remove(&(time, key.clone()));
        if let Some(count) = self.of_network.get_mut(network(key)) {
            *count -= 1;
            if *count == 0 {
                self.of_network.remove(network(key));
            }
        }
    }

    fn remove_if(&mut self, at_most: usize, is_over: impl Fn(&R) -> bool) -> Vec<Change> {
        let over = self.rows.iter().filter(|(_, row)| is_over(row)).map(|(key, _)| key.clone());
        let over: Vec<Key> = over.take(at_most).collect();
        over.iter().map(|key| self.remove(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mailguard_core::mail::Mailbox;
    use tempfile::TempDir;

    use super::*;

    const WAIT: &str = "first seen 0 s ago, 300 s left";
    const KNOWN: &str = "client network 192.0.2.0/24 is known since 2001-09-09T01:51:40Z";

    fn mailbox(name: &str) -> Mailbox {
        Mailbox::parse(name).unwrap()
    }

    /// 300 s, two hours, a day.
    fn settings() -> Settings {
        let text = r#"
            [spam.greylist]
            enabled = true
            delay = "300s"
            retry_window = "2h"
            remember = "1d"
            whitelist_recipients = ["abuse@here.example"]
        "#;
        mailguard_core::testing::config(text).greylist
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime((1_000_000_000 + seconds) * 1_000_000)
    }

    /// The greylist of a directory, with room for so many triplets and clients.
    struct House {
        facts: FactsDb,
        greylist: Greylist,
    }

    async fn open(directory: &Path, triplets: usize, clients: usize) -> House {
        let facts = FactsDb::open(directory).unwrap();
        let greylist = Greylist::open_within(facts.clone(), triplets, clients).await.unwrap();
        House { facts, greylist }
    }

    impl House {
        /// As after a restart.
        async fn reopen(self, directory: &Path, triplets: usize, clients: usize) -> House {
            let House { facts, greylist } = self;
            facts.close().await;
            drop((greylist, facts));
            open(directory, triplets, clients).await
        }

        /// One recipient: seconds since the start, client, sender, and what is said.
        async fn check(&self, seconds: u64, client: &str, sender: &str, expect: &str) {
            let to = ForwardPath::Mailbox(mailbox("u@here.example"));
            self.check_to(seconds, client, sender, &to, expect).await;
        }

        async fn check_to(&self, seconds: u64, client: &str, sender: &str, to: &ForwardPath, expect: &str) {
            let from = ReversePath::Mailbox(mailbox(sender));
            let (settings, client) = (settings(), client.parse().unwrap());
            let finding = self.greylist.judge(&settings, client, &from, to, at(seconds)).await;
            assert_eq!(finding.check, Check::Greylist);
            assert_eq!(finding.reason, expect, "{seconds} {client} {sender}");
            let fits = match finding.opinion {
                Opinion::Defer(_) => expect.ends_with(" left"),
                Opinion::Unavailable(_) => expect == FULL,
                _ => true,
            };
            assert!(fits, "{:?} {expect}", finding.opinion);
        }

        async fn remove_expired(&self, seconds: u64) {
            self.greylist.remove_expired(&settings(), at(seconds)).await;
        }

        /// How many triplets and clients there are: in memory, and as many in the store.
        async fn count(&self) -> (usize, usize) {
            self.facts.flush().await.unwrap();
            let stored = self.facts.greylist().await.unwrap().len();
            let lists = self.greylist.0.lists.lock().await;
            let (triplets, clients) = (lists.triplets.rows.len(), lists.clients.rows.len());
            assert_eq!(triplets + clients, stored);
            let waiting = lists.triplets.rows.values().filter(|seen| seen.passed.is_none()).count();
            assert_eq!((waiting, clients), (lists.triplets.order.len(), lists.clients.order.len()));
            (triplets, clients)
        }
    }

    #[tokio::test]
    async fn a_client_that_comes_again_is_known_and_its_network_too() {
        let directory = TempDir::new().unwrap();
        let house = open(directory.path(), 10, 10).await;
        house.check(0, "192.0.2.1", "a@x.example", WAIT).await;
        house.check(120, "192.0.2.2", "a@x.example", "first seen 120 s ago, 180 s left").await;
        house.check(120, "192.0.2.2", "b@x.example", WAIT).await;
        assert_eq!(house.count().await, (2, 0));
        house.check(300, "192.0.2.1", "a@x.example", "came again after 300 s").await;
        house.check(301, "192.0.2.3", "b@x.example", KNOWN).await;
        house.check(302, "192.0.2.4", "c@x.example", KNOWN).await;
        house.check(303, "192.0.2.5", "a@x.example", "known since 2001-09-09T01:51:40Z").await;
        house.check(303, "192.0.3.1", "a@x.example", WAIT).await;
        assert_eq!(house.count().await, (3, 1));
        let exempt = ForwardPath::Mailbox(mailbox("abuse@here.example"));
        let reason = "the recipient is exempt from greylisting";
        house.check_to(304, "198.51.100.1", "a@x.example", &exempt, reason).await;
        assert_eq!(house.count().await, (3, 1));
    }

    #[tokio::test]
    async fn a_restart_changes_nothing() {
        let directory = TempDir::new().unwrap();
        let house = open(directory.path(), 10, 10).await;
        house.check(0, "192.0.2.1", "a@x.example", WAIT).await;
        house.check(0, "192.0.3.1", "a@x.example", WAIT).await;
        house.check(300, "192.0.2.1", "a@x.example", "came again after 300 s").await;
        let house = house.reopen(directory.path(), 10, 10).await;
        assert_eq!(house.count().await, (2, 1));
        house.check(301, "192.0.2.1", "a@x.example", "known since 2001-09-09T01:51:40Z").await;
        house.check(301, "192.0.2.1", "b@x.example", KNOWN).await;
        house.check(310, "192.0.3.1", "a@x.example", "came again after 310 s").await;
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten() {
        let directory = TempDir::new().unwrap();
        let house = open(directory.path(), 10, 10).await;
        house.check(0, "192.0.2.1", "a@x.example", WAIT).await;
        house.check(300, "192.0.2.1", "a@x.example", "came again after 300 s").await;
        house.check(300, "192.0.3.1", "a@x.example", WAIT).await;
        for (seconds, left) in
            [(7_500, (2, 1)), (7_501, (1, 1)), (300 + 86_400, (1, 1)), (301 + 86_400, (0, 0))]
        {
            house.remove_expired(seconds).await;
            assert_eq!(house.count().await, left, "{seconds}");
        }
        house.check(301 + 86_400, "192.0.2.1", "a@x.example", WAIT).await;
    }

    #[tokio::test]
    async fn a_full_list_forgets_who_gave_up_and_else_lets_pass() {
        let directory = TempDir::new().unwrap();
        let house = open(directory.path(), 2, 1).await;
        house.check(0, "192.0.2.1", "a@x.example", WAIT).await;
        house.check(1, "192.0.3.1", "a@x.example", WAIT).await;
        house.check(2, "192.0.4.1", "a@x.example", FULL).await;
        assert_eq!(house.count().await, (2, 0));
        // The first has had its time.
        house.check(300, "192.0.4.1", "a@x.example", WAIT).await;
        house.check(301, "192.0.3.1", "a@x.example", "came again after 300 s").await;
        assert_eq!(house.count().await, (2, 1));
        // The client that was longest away goes; a triplet that came through stays.
        house.check(601, "192.0.4.1", "a@x.example", "came again after 301 s").await;
        house.check(601, "192.0.3.1", "b@x.example", FULL).await;
        house.check(602, "192.0.3.1", "a@x.example", "known since 2001-09-09T01:51:41Z").await;
        assert_eq!(house.count().await, (2, 1));
    }

    #[tokio::test]
    async fn one_network_does_not_fill_the_list() {
        let directory = TempDir::new().unwrap();
        let house = open(directory.path(), 5_000, 10).await;
        for number in 0..MAX_WAITING_OF_NETWORK {
            // Letters: numbers are all the same sender.
            let letters: String =
                format!("{number}").chars().map(|digit| char::from(digit as u8 + 49)).collect();
            house.check(0, "192.0.2.1", &format!("{letters}@x.example"), WAIT).await;
        }
        let full = house.count().await;
        house.check(0, "192.0.2.2", "more@x.example", WAIT).await;
        assert_eq!(house.count().await, full, "deferred, and not remembered");
        house.check(0, "192.0.3.1", "more@x.example", WAIT).await;
        assert_eq!(house.count().await, (full.0 + 1, full.1), "of another network");
    }

    #[tokio::test]
    async fn strange_rows_and_too_many_go() {
        let directory = TempDir::new().unwrap();
        let house = open(directory.path(), 3, 3).await;
        for client in ["192.0.2.1", "192.0.3.1", "192.0.4.1"] {
            house.check(0, client, "a@x.example", WAIT).await;
        }
        let strange = [vec![], vec![0], vec![1, 1], vec![7]].map(|key| (key, Some(b"{}".to_vec())));
        house.facts.store_greylist_rows(strange.to_vec()).await;
        let house = house.reopen(directory.path(), 2, 3).await;
        assert_eq!(house.count().await, (2, 0));
    }
}
