//! Who is banned, why and until when: kept in `facts.redb` by the clock on the wall, and put in force in the
//! kernel by the datapath process. The kernel ends a ban by itself, on time, whether anybody is there or not.
//! An IPv6 client is banned with its whole network; hosts of it that are whitelisted are let in by the
//! kernel.
//!
//! `late` is what couldn't be stored yet. `asked` is the other end: what the datapath process lets a mail
//! process have, whatever this room says there.

mod asked;
mod late;

pub use asked::{BanRefused, is_whitelisted, may_ban, own_addresses};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use mailguard_common::maps::MAX_BANS;
use mailguard_core::config::Config;
use mailguard_core::config::resolve::MAX_BAN_SECONDS;
use mailguard_core::mail::UnixTime;
use mailguard_core::subscriber::Subscriber;
use tokio::sync::{Mutex, Notify};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::datapath::BanStatus;
use crate::store::facts::FactsDb;
use crate::store::facts::bans::{BanRecord as Record, StoredBan, ban_key};
use crate::store::{ReadError, WriteError};
use late::Late;

/// Clients in one request to the kernel side.
pub const MAX_CLIENTS: usize = 4_096;
/// How often bans that have ended are forgotten.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(60);
/// How long a ban by hand is when nobody says, and `ban_after_abuse` is zero.
const DEFAULT_TIME: Duration = Duration::from_secs(3_600);
/// The reason of a ban that the kernel knows, and the store doesn't.
const ONLY_IN_KERNEL: &str = "unknown: the store doesn't have it";
/// Longest reason, characters.
const MAX_REASON_CHARACTERS: usize = 100;

/// What comes of a ban.
pub type Result<T> = std::result::Result<T, BanError>;
type Records = BTreeMap<Subscriber, Record>;

/// The kernel side, which keeps clients out.
pub trait KernelBans: Send + Sync + 'static {
    /// Keeps these clients out for so long: all, or none. At most [`MAX_CLIENTS`].
    fn ban(&self, clients: Vec<(IpAddr, Duration)>) -> BoxFuture<'_, Result<()>>;

    /// Whom it keeps out.
    fn banned(&self) -> BoxFuture<'_, Result<Vec<BanStatus>>>;

    /// It is forgotten that these were banned, whom an administrator had let in again.
    fn forgotten(&self, clients: Vec<Subscriber>) -> BoxFuture<'_, ()>;
}

/// Why a client isn't banned, or who is isn't known.
#[derive(Debug, thiserror::Error)]
pub enum BanError {
    /// For no time, or longer than a ban lasts.
    #[error("a ban lasts 1s to {}d; for good: mailguard blacklist add client", MAX_BAN_SECONDS / 86_400)]
    Time,
    /// The reason is a story.
    #[error("a reason has at most {MAX_REASON_CHARACTERS} characters")]
    Reason,
    /// The administrator said never of these.
    #[error("{0}: on access.whitelist_clients, which is never banned; nobody was")]
    Whitelisted(String),
    /// As many are banned as can be.
    #[error("{MAX_BANS} clients are banned, more is not possible")]
    Full,
    /// The kernel side doesn't do it.
    #[error("{0}")]
    Refused(String),
    /// The kernel side can't do it.
    #[error("{0}")]
    Failed(String),
    /// The kernel side isn't there, or doesn't answer.
    #[error("{0}")]
    Unavailable(String),
    /// The store doesn't take it.
    #[error(transparent)]
    Store(#[from] WriteError),
}

/// A client that is banned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub client: Subscriber,
    /// Since when.
    pub since: UnixTime,
    /// Until when.
    pub until: UnixTime,
    /// For how long it goes on.
    pub left: Duration,
    /// Why.
    pub reason: String,
    /// Packets that the kernel refused.
    pub packets: u64,
    /// When the last of them came; none: none came.
    pub last: Option<UnixTime>,
}

/// Bans clients; clones are the same one.
#[derive(Clone)]
pub struct Bans(Arc<Inner>);

struct Inner {
    facts: FactsDb,
    kernel: Arc<dyn KernelBans>,
    config: Arc<ArcSwap<Config>>,
    /// What the store holds or is to hold, at most [`MAX_BANS`]. Held over each change, so that store and
    /// kernel go together.
    records: Mutex<Records>,
    /// What couldn't be stored yet. Locked within `records`.
    late: Mutex<Late>,
    changed: Notify,
}

fn now() -> UnixTime {
    SystemTime::now().into()
}

fn addresses<T: ToString>(clients: &[T]) -> String {
    clients.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// The same ban as long as `other`, if that is longer.
fn lengthen(record: &mut Record, other: Record) {
    if other.until > record.until {
        *record = Record { since: record.since, ..other };
    }
}

/// The records of the store's rows, and the addresses of those of single IPv6 addresses.
fn read(rows: Vec<StoredBan>) -> (Records, Vec<Ipv6Addr>) {
    let (mut records, mut old) = (Records::new(), Vec::new());
    for (address, row) in rows {
        let client = Subscriber::from(address);
        // No mail for want of a ban would be worse.
        match row {
            Ok(record) => {
                lengthen(records.entry(client).or_insert_with(|| record.clone()), record);
                if address != ban_key(client) {
                    old.push(address);
                }
            }
            Err(error) => warn!(%client, %error, "a ban can't be read and isn't kept up"),
        }
    }
    (records, old)
}

/// Rows of single IPv6 addresses, which earlier versions banned, become those of their networks.
async fn rename(facts: &FactsDb, records: &Records, old: Vec<Ipv6Addr>) {
    let renamed = async {
        facts.ban(records).await?;
        facts.lift(old).await
    };
    if let Err(error) = renamed.await {
        warn!(%error, "bans of single IPv6 addresses can't be stored as those of their networks");
    }
}

impl Bans {
    /// Reads what the store holds.
    pub async fn open(
        facts: FactsDb,
        kernel: Arc<dyn KernelBans>,
        config: Arc<ArcSwap<Config>>,
    ) -> std::result::Result<Self, ReadError> {
        let (records, old) = read(facts.bans().await?);
        if !old.is_empty() {
            rename(&facts, &records, old).await;
        }
        let (records, changed) = (Mutex::new(records), Notify::new());
        Ok(Self(Arc::new(Inner { facts, kernel, config, records, late: Mutex::default(), changed })))
    }

    /// Makes the kernel's bans those of the store: it has none after a start of the machine. One that only
    /// the kernel knows is kept: nothing here lets anybody in.
    pub async fn restore(&self) {
        let mut records = self.0.records.lock().await;
        let restored = async {
            self.forget(&mut records).await?;
            let now = now();
            for ban in self.in_kernel().await? {
                let record =
                    || Record { reason: ONLY_IN_KERNEL.to_owned(), since: now, until: now.plus(ban.left) };
                records.entry(ban.client).or_insert_with(record);
            }
            self.install_in_kernel(&records).await
        };
        match restored.await {
            Ok(()) => info!(bans = records.len(), "bans are in force"),
            Err(error) => warn!(%error, "bans of earlier can't be put in force"),
        }
    }

    /// Forgets bans that have ended, and those of clients that became whitelisted. A task of its own.
    pub async fn run_maintenance(self) {
        let mut ticks = tokio::time::interval(MAINTENANCE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.changed.notified() => {}
            }
            let mut records = self.0.records.lock().await;
            if let Err(error) = self.forget(&mut records).await {
                warn!(%error, "bans can't be lifted");
            }
            self.store_late(&records).await;
        }
    }

    /// The configuration is another one.
    pub fn config_changed(&self) {
        self.0.changed.notify_one();
    }

    async fn forget(&self, records: &mut Records) -> Result<()> {
        let (config, now) = (self.0.config.load_full(), now());
        let white = records.keys().filter(|client| is_whitelisted(&config, client.network()));
        let white: Vec<Subscriber> = white.copied().collect();
        if !white.is_empty() {
            info!(clients = addresses(&white), "whitelisted clients are no longer banned");
        }
        let ended = records.iter().filter(|(_, record)| record.until <= now).map(|(client, _)| *client);
        let gone: BTreeSet<Subscriber> = ended.chain(white).collect();
        self.remove(records, &gone.into_iter().collect::<Vec<_>>()).await
    }

    /// Bans a client that made too many errors, if the configuration says so.
    pub async fn after_abuse(&self, client: IpAddr, reason: String) {
        let config = self.0.config.load_full();
        let time = config.kernel.ban_after_abuse;
        if time.is_zero() {
            return;
        }
        if is_whitelisted(&config, client.to_canonical().into()) {
            info!(%client, reason, "a whitelisted client isn't banned");
            return;
        }
        let banned = Subscriber::of(client);
        match self.add(vec![client], time, reason.clone()).await {
            Ok(_) => warn!(%client, %banned, seconds = time.as_secs(), reason, "banned"),
            Err(error) => warn!(%client, reason, %error, "a client can't be banned"),
        }
    }

    /// Bans clients as an administrator wishes: all of them, or none.
    pub async fn add_by_admin(
        &self,
        clients: Vec<IpAddr>,
        seconds: Option<u64>,
        reason: Option<String>,
    ) -> Result<Vec<Ban>> {
        let abuse = self.0.config.load().kernel.ban_after_abuse;
        let default = if abuse.is_zero() { DEFAULT_TIME } else { abuse };
        let seconds = seconds.unwrap_or(default.as_secs());
        if !(1..=MAX_BAN_SECONDS).contains(&seconds) {
            return Err(BanError::Time);
        }
        let reason = reason.unwrap_or_else(|| "by hand".to_owned());
        if reason.chars().count() > MAX_REASON_CHARACTERS {
            return Err(BanError::Reason);
        }
        let rows = self.add(clients, Duration::from_secs(seconds), reason.clone()).await?;
        for row in &rows {
            info!(client = %row.client, seconds = row.left.as_secs(), reason, "banned by hand");
        }
        Ok(rows)
    }

    /// Bans clients, or lengthens their bans: in the kernel first, which may refuse; returns when both have
    /// it.
    async fn add(&self, clients: Vec<IpAddr>, time: Duration, reason: String) -> Result<Vec<Ban>> {
        let mut records = self.0.records.lock().await;
        let config = self.0.config.load_full();
        let white: BTreeSet<IpAddr> = clients.iter().map(IpAddr::to_canonical).collect();
        let white: Vec<IpAddr> =
            white.into_iter().filter(|client| is_whitelisted(&config, (*client).into())).collect();
        if !white.is_empty() {
            return Err(BanError::Whitelisted(addresses(&white)));
        }
        let clients: BTreeSet<Subscriber> = clients.into_iter().map(Subscriber::of).collect();
        let now = now();
        let record = |client: &Subscriber| {
            let old = records.get(client).filter(|record| record.until > now);
            let until = old.map_or(now, |record| record.until).max(now.plus(time));
            let since = old.map_or(now, |record| record.since);
            (*client, Record { reason: reason.clone(), since, until })
        };
        let clients: Vec<Subscriber> = clients.into_iter().collect();
        let new: Records = clients.iter().map(record).collect();
        let added = new.keys().filter(|client| !records.contains_key(client)).count();
        if records.len() + added > MAX_BANS as usize {
            self.forget(&mut records).await?;
        }
        let added = new.keys().filter(|client| !records.contains_key(client)).count();
        if records.len() + added > MAX_BANS as usize {
            return Err(BanError::Full);
        }
        self.install_in_kernel(&new).await?;
        // The kernel keeps them: whoever is banned stays out.
        let stored = self.store(&new).await;
        self.0.late.lock().await.banned(&clients, stored.is_ok());
        if let Err(error) = stored {
            warn!(%error, clients = addresses(&clients), "a ban is in force, but can't be stored now: until it is, a start of the machine ends it");
        }
        let rows = new.iter().map(|(client, record)| row(*client, record, None, now)).collect();
        records.extend(new);
        Ok(rows)
    }

    /// Forgets that these clients were banned: an administrator lifted it, and the datapath process has let
    /// them in.
    pub async fn forget_lifted(&self, clients: Vec<Subscriber>) {
        let mut records = self.0.records.lock().await;
        match self.remove(&mut records, &clients).await {
            Ok(()) => {
                self.0.kernel.forgotten(clients).await;
            }
            // The datapath process says it again to the next mail process, too.
            Err(error) => {
                warn!(%error, "bans that were lifted can't be taken out of the store now");
                if self.0.late.lock().await.lifted(&clients) {
                    forget(&mut records, &clients);
                }
            }
        }
    }

    /// Who is banned, in the order of addresses.
    pub async fn list(&self) -> Result<Vec<Ban>> {
        let records = self.0.records.lock().await;
        let kernel = self.in_kernel().await?.into_iter().map(|ban| (ban.client, ban));
        let kernel: BTreeMap<Subscriber, BanStatus> = kernel.collect();
        let now = now();
        // One that root has lifted isn't in force, known to be lifted here or not yet.
        let in_force =
            records.iter().filter(|(client, record)| record.until > now && kernel.contains_key(client));
        Ok(in_force.map(|(client, record)| row(*client, record, kernel.get(client), now)).collect())
    }

    /// Takes bans out of the store, so that none comes back. In the kernel they have ended, or the datapath
    /// process ended them.
    async fn remove(&self, records: &mut Records, clients: &[Subscriber]) -> Result<()> {
        if clients.is_empty() {
            return Ok(());
        }
        self.0.facts.lift(clients.iter().copied().map(ban_key)).await?;
        forget(records, clients);
        Ok(())
    }

    /// Stores what couldn't be stored when it was done.
    async fn store_late(&self, records: &Records) {
        let mut late = self.0.late.lock().await;
        let lifts = late.lifts();
        if !lifts.is_empty() {
            if self.0.facts.lift(lifts.iter().copied().map(ban_key)).await.is_err() {
                return;
            }
            late.lifts_are_stored();
            info!(lifts = lifts.len(), "lifted bans are out of the store now");
            self.0.kernel.forgotten(lifts).await;
        }
        let bans = late.bans(records);
        if bans.is_empty() || self.store(&bans).await.is_ok() {
            late.bans_are_stored();
            if !bans.is_empty() {
                info!(bans = bans.len(), "bans are stored that couldn't be when they began");
            }
        }
    }

    async fn store(&self, records: &Records) -> Result<()> {
        Ok(self.0.facts.ban(records).await?)
    }

    async fn install_in_kernel(&self, records: &Records) -> Result<()> {
        let now = now();
        let bans: Vec<(IpAddr, Duration)> =
            records.iter().map(|(client, record)| (client.first(), record.until.since(now))).collect();
        for part in bans.chunks(MAX_CLIENTS) {
            self.0.kernel.ban(part.to_vec()).await?;
        }
        Ok(())
    }

    async fn in_kernel(&self) -> Result<Vec<BanStatus>> {
        self.0.kernel.banned().await
    }
}

fn forget(records: &mut Records, clients: &[Subscriber]) {
    let gone: BTreeSet<&Subscriber> = clients.iter().collect();
    records.retain(|client, _| !gone.contains(client));
}

fn row(client: Subscriber, record: &Record, kernel: Option<&BanStatus>, now: UnixTime) -> Ban {
    Ban {
        client,
        since: record.since,
        until: record.until,
        left: record.until.since(now),
        reason: record.reason.clone(),
        packets: kernel.map_or(0, |ban| ban.packets),
        last: kernel.and_then(|ban| ban.last).map(|ago| now.minus(ago)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::UnreadableRow;

    /// A kernel that keeps everybody out whom it is asked to, or refuses whatever it is asked.
    struct Kernel {
        refuses: bool,
    }

    const CLIENT: &str = "192.0.2.7";

    impl KernelBans for Kernel {
        fn ban(&self, _: Vec<(IpAddr, Duration)>) -> BoxFuture<'_, Result<()>> {
            Box::pin(async {
                if self.refuses { Err(BanError::Refused("no room".to_owned())) } else { Ok(()) }
            })
        }

        fn banned(&self) -> BoxFuture<'_, Result<Vec<BanStatus>>> {
            let client = CLIENT.parse().unwrap();
            let status = BanStatus { client, left: Duration::from_secs(60), packets: 7, last: None };
            Box::pin(async { Ok(vec![status]) })
        }

        fn forgotten(&self, _: Vec<Subscriber>) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
    }

    async fn opened(facts: &FactsDb, folder: &Path, refuses: bool) -> Bans {
        let config = Arc::new(ArcSwap::from_pointee(crate::spool::fixture::config(folder)));
        Bans::open(facts.clone(), Arc::new(Kernel { refuses }), config).await.unwrap()
    }

    #[tokio::test]
    async fn a_ban_is_stored_if_the_kernel_takes_it_and_not_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let facts = FactsDb::open(folder.path()).unwrap();
        let clients = || vec![CLIENT.parse().unwrap()];
        let bans = opened(&facts, folder.path(), true).await;
        let refused = bans.add_by_admin(clients(), None, None).await.unwrap_err();
        assert_eq!(refused.to_string(), "no room");
        let bans = opened(&facts, folder.path(), false).await;
        assert_eq!(bans.list().await.unwrap(), []);
        let added = bans.add_by_admin(clients(), Some(60), None).await.unwrap();
        assert_eq!((added.len(), added[0].left), (1, Duration::from_secs(60)));
        let listed = opened(&facts, folder.path(), false).await.list().await.unwrap();
        assert_eq!((listed.len(), &*listed[0].reason, listed[0].packets), (1, "by hand", 7));
    }

    #[test]
    fn bans_of_single_ipv6_addresses_become_one_of_their_network() {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let row = |reason: &str, since, until| {
            let (reason, since, until) = (reason.to_owned(), UnixTime(since), UnixTime(until));
            Ok(Record { reason, since, until })
        };
        let rows = vec![
            (address("::ffff:192.0.2.7"), row("four", 1, 9)),
            (address("2001:db8::1"), row("short", 2, 5)),
            (address("2001:db8::2"), row("long", 3, 8)),
            (address("2001:db8::3"), row("shorter", 4, 6)),
            (address("2001:db8:0:1::"), row("a network", 5, 7)),
            (address("2001:db8:0:2::1"), Err(UnreadableRow::OtherVersion("a word".to_owned()))),
        ];
        let (records, old) = read(rows);
        let shown: Vec<_> = records
            .iter()
            .map(|(client, record)| {
                format!("{client} {} {:?} {:?}", record.reason, record.since, record.until)
            })
            .collect();
        let expect = |client, reason, since, until| {
            format!("{client} {reason} {:?} {:?}", UnixTime(since), UnixTime(until))
        };
        let expect = [
            expect("192.0.2.7", "four", 1, 9),
            expect("2001:db8::/64", "long", 2, 8),
            expect("2001:db8:0:1::/64", "a network", 5, 7),
        ];
        assert_eq!(shown, expect);
        assert_eq!(old.len(), 3, "the row of another version stays for it");
        assert!(records.keys().all(|client| Subscriber::from(ban_key(*client)) == *client));
    }
}
