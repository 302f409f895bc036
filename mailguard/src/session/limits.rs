//! How many sessions there may be, in all and of one client (S12), and who goes when they are too many.
//!
//! A client is its network (`core::subscriber`). Zones that aren't red have a reserve that red ones can't
//! take. At the limit the oldest session that hasn't introduced itself yet is ended to make room; `driver`
//! tells its client so, and ends by itself those that are silent for long while sessions are getting scarce
//! ([`Admission::is_scarce`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mailguard_core::config::Config;
use mailguard_core::config::model::{Server, ZoneKind};
use mailguard_core::smtp::{Detail, Reply, ReplyCode};
use mailguard_core::subscriber::Subscriber;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Of `server.max_sessions`: one in so many is kept for zones that aren't red.
const RESERVE_SHARE: usize = 10;

/// Percent of `server.max_sessions` from which on sessions are scarce.
const SCARCE_PERCENT: usize = 75;

/// Sessions that were ended to make room and whose clients are still being told so. With more, none is ended.
pub const MAX_LEAVING: usize = 256;

/// Connections that are told at one time that there is no session for them; further ones are closed without a
/// word.
pub const MAX_REJECTING: usize = 256;

/// How long after the last client without a place `status` calls that a problem, and the least time between
/// two lines of the log about it.
const SHORTAGE_TIME: Duration = Duration::from_secs(60);

/// The count of sessions.
#[derive(Debug)]
pub struct Limits {
    counts: Mutex<Counts>,
    turned_away: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        let turned_away = Arc::new(Semaphore::new(MAX_REJECTING));
        Self { counts: Mutex::default(), turned_away }
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// By their number: the oldest comes first.
    open: BTreeMap<u64, Open>,
    /// Those of red zones that haven't introduced themselves.
    silent_red: BTreeSet<u64>,
    /// Those of other zones.
    silent_others: BTreeSet<u64>,
    /// Open ones of red zones.
    red: usize,
    /// Ended to make room, and not gone yet: counted nowhere else.
    leaving: usize,
    last: u64,
    /// Clients with at least one session.
    clients: HashMap<Subscriber, usize>,
    shortage: Shortage,
}

#[derive(Debug)]
struct Open {
    began: Instant,
    client: Subscriber,
    red: bool,
    /// Ends it, as long as it is silent.
    dismiss: Option<oneshot::Sender<()>>,
}

/// What became of clients since there was no place for one.
#[derive(Debug, Clone, Copy, Default)]
struct Shortage {
    last: Option<Instant>,
    told: Option<Instant>,
    /// Since it was told.
    turned_away: u64,
    /// Since it was told.
    ended: u64,
}

/// Why there is no session for a client now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// `server.max_sessions`
    #[error("Too many sessions, try again later")]
    Total,
    /// `server.max_sessions_per_client`
    #[error("Too many sessions from your address, try again later")]
    Client,
}

impl LimitReached {
    /// As the log says it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            LimitReached::Total => "too-many-sessions",
            LimitReached::Client => "too-many-of-client",
        }
    }

    /// The reply in the banner's place.
    pub fn reply(&self) -> Reply {
        let detail = match self {
            LimitReached::Total => Detail::NOT_ACCEPTING_MESSAGES,
            LimitReached::Client => Detail::OTHER_SECURITY,
        };
        Reply::new(ReplyCode::NOT_AVAILABLE, detail, self.to_string())
    }
}

/// A session that is counted as long as this lives.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    number: u64,
    dismissed: Option<oneshot::Receiver<()>>,
}

impl Admission {
    /// The client has introduced itself: it isn't ended to make room any more.
    pub(super) fn introduced(&self) {
        let mut counts = self.limits.counts();
        counts.silent_red.remove(&self.number);
        counts.silent_others.remove(&self.number);
        if let Some(open) = counts.open.get_mut(&self.number) {
            open.dismiss = None;
        }
    }

    /// Waits until the session has to make room; for ever once its client has introduced itself.
    pub(super) fn dismissal(&mut self) -> impl Future<Output = ()> + use<> {
        let dismissed = self.dismissed.take();
        async {
            let told = match dismissed {
                Some(dismissed) => dismissed.await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether few places are left: a client has less time for its first words then.
    pub(super) fn is_scarce(&self, server: &Server) -> bool {
        self.limits.counts().open.len() * 100 >= server.max_sessions * SCARCE_PERCENT
    }
}

impl Limits {
    /// Counts a session of `client` from a zone of this kind, if there is room for it or can be made.
    pub fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        kind: ZoneKind,
        config: &Config,
    ) -> Result<Admission, LimitReached> {
        let (client, red) = (Subscriber::of(client), kind == ZoneKind::Red);
        let mut counts = self.counts();
        // First: who has too many ends nobody else's.
        let of_client = counts.clients.get(&client).copied().unwrap_or(0);
        if of_client >= config.server.max_sessions_per_client {
            return Err(LimitReached::Client);
        }
        let made_room = counts.make_room(red, config);
        let (turned_away, ended) = made_room.map_or((1, 0), |ended| (0, ended));
        let news = counts.shortage.note(turned_away, ended);
        let admitted = made_room.map(|_| self.count(&mut counts, client, red));
        drop(counts);
        if let Some(Shortage { turned_away, ended, .. }) = news {
            let max_sessions = config.server.max_sessions;
            tracing::warn!(
                max_sessions,
                turned_away,
                ended,
                "sessions are at their limit: connections are turned away, or silent sessions ended for them"
            );
        }
        admitted
    }

    fn count(self: &Arc<Self>, counts: &mut Counts, client: Subscriber, red: bool) -> Admission {
        let (dismiss, dismissed) = oneshot::channel();
        counts.last += 1;
        let number = counts.last;
        counts.open.insert(number, Open { began: Instant::now(), client, red, dismiss: Some(dismiss) });
        *counts.clients.entry(client).or_default() += 1;
        if red {
            counts.red += 1;
            counts.silent_red.insert(number);
        } else {
            counts.silent_others.insert(number);
        }
        Admission { limits: self.clone(), number, dismissed: Some(dismissed) }
    }

    /// A place among those that are told that they are refused, as long as it is held.
    pub fn may_reject(&self) -> Option<OwnedSemaphorePermit> {
        self.turned_away.clone().try_acquire_owned().ok()
    }

    /// How many sessions there are now.
    pub fn sessions(&self) -> usize {
        let counts = self.counts();
        counts.open.len() + counts.leaving
    }

    /// How old the oldest of them is.
    pub fn oldest_session(&self) -> Option<Duration> {
        self.counts().open.first_key_value().map(|(_, open)| open.began.elapsed())
    }

    /// What `status` says while clients find no place.
    pub fn problem(&self, server: &Server) -> Option<String> {
        let counts = self.counts();
        let lately = counts.shortage.last.is_some_and(|last| now().duration_since(last) < SHORTAGE_TIME);
        (lately || counts.open.len() >= server.max_sessions).then(|| {
            format!(
                "sessions are at their limit ({} open, of red zones {}; server.max_sessions = {}): clients are turned away \
                 with 421. Ban those who hold them (mailguard ban), lower server.max_sessions_per_client or raise \
                 server.max_sessions",
                counts.open.len(),
                counts.red,
                server.max_sessions
            )
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Ends silent sessions until there is a place for one more, and returns how many.
    fn make_room(&mut self, red: bool, config: &Config) -> Result<u64, LimitReached> {
        let mut ended = 0;
        while self.is_full(red, config) {
            if self.leaving >= MAX_LEAVING || !self.dismiss_oldest(red) {
                return Err(LimitReached::Total);
            }
            ended += 1;
        }
        Ok(ended)
    }

    fn is_full(&self, red: bool, config: &Config) -> bool {
        let max = config.server.max_sessions;
        let others = config.zones.iter().any(|zone| zone.kind != ZoneKind::Red);
        let reserve = if others { max / RESERVE_SHARE } else { 0 };
        self.open.len() >= max || (red && self.red >= max - reserve)
    }

    /// A red newcomer ends none of another zone's.
    fn dismiss_oldest(&mut self, red: bool) -> bool {
        let oldest = self.silent_red.first().or_else(|| self.silent_others.first().filter(|_| !red)).copied();
        let Some(open) = oldest.and_then(|number| self.remove(number)) else { return false };
        self.leaving += 1;
        // One whose task has ended already makes room just the same.
        let _ = open.dismiss.map(|dismiss| dismiss.send(()));
        true
    }

    fn remove(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        self.silent_red.remove(&number);
        self.silent_others.remove(&number);
        self.red -= usize::from(open.red);
        if let Some(count) = self.clients.get_mut(&open.client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&open.client);
            }
        }
        Some(open)
    }
}

impl Shortage {
    /// What the log should say now, if it is time for that.
    fn note(&mut self, turned_away: u64, ended: u64) -> Option<Shortage> {
        if (turned_away, ended) == (0, 0) {
            return None;
        }
        let now = now();
        self.last = Some(now);
        self.turned_away += turned_away;
        self.ended += ended;
        if self.told.is_some_and(|told| now.duration_since(told) < SHORTAGE_TIME) {
            return None;
        }
        let news = *self;
        *self = Shortage { last: Some(now), told: Some(now), ..Shortage::default() };
        Some(news)
    }
}

/// The runtime's clock, which tests can wind.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        if counts.remove(self.number).is_none() {
            counts.leaving -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use mailguard_core::config::model::ZoneKind::{Green, Red};

    use super::*;

    fn config(max_sessions: usize, max_sessions_per_client: usize) -> Config {
        let mut config = crate::spool::fixture::config(std::path::Path::new("/nowhere"));
        config.server.max_sessions = max_sessions;
        config.server.max_sessions_per_client = max_sessions_per_client;
        config
    }

    /// An address of a client of its own.
    fn client(number: usize) -> IpAddr {
        format!("2001:db8:0:{number:x}::1").parse().unwrap()
    }

    fn admit(limits: &Arc<Limits>, client: IpAddr, kind: ZoneKind, config: &Config) -> Admission {
        let admitted = limits.admit(client, kind, config).unwrap();
        admitted.introduced();
        admitted
    }

    fn is_dismissed(admission: &mut Admission) -> bool {
        use futures::FutureExt;
        Box::pin(admission.dismissal()).now_or_never().is_some()
    }

    #[test]
    fn sessions_are_counted_while_they_last() {
        let config = config(3, 2);
        let limits = Arc::new(Limits::default());
        let [v4, v6, other] = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let first = admit(&limits, v4, Red, &config);
        let second = admit(&limits, v4, Red, &config);
        assert_eq!(limits.admit(v4, Red, &config).unwrap_err(), LimitReached::Client);
        assert_eq!(limits.problem(&config.server), None);
        let third = admit(&limits, v6, Red, &config);
        assert_eq!(limits.admit(other, Red, &config).unwrap_err(), LimitReached::Total);
        drop(second);
        assert!(limits.admit(v4, Red, &config).is_ok(), "counted no longer once it is dropped");
        let age = limits.oldest_session().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert!(limits.oldest_session().unwrap() > age, "the first is the oldest");
        drop(first);
        assert!(limits.oldest_session().is_some());
        drop(third);
        assert_eq!((limits.sessions(), limits.oldest_session()), (0, None));
        assert!(limits.counts().clients.is_empty(), "clients without a session are forgotten");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let config = config(100, 2);
        let limits = Arc::new(Limits::default());
        let at = |text: &str| limits.admit(text.parse().unwrap(), Red, &config);
        let _held = [at("2001:db8::1").unwrap(), at("2001:db8::ffff:1").unwrap()];
        assert_eq!(at("2001:db8::2").unwrap_err(), LimitReached::Client);
        let _others =
            [at("2001:db8:0:1::1").unwrap(), at("192.0.2.1").unwrap(), at("::ffff:192.0.2.1").unwrap()];
        assert_eq!(at("192.0.2.1").unwrap_err(), LimitReached::Client, "the mapped form is the same client");
    }

    #[test]
    fn at_the_limit_the_oldest_silent_session_makes_room() {
        let config = config(3, 50);
        let limits = Arc::new(Limits::default());
        let _talks = admit(&limits, client(0), Red, &config);
        let mut older = limits.admit(client(1), Red, &config).unwrap();
        let mut younger = limits.admit(client(2), Red, &config).unwrap();
        let newcomer = admit(&limits, client(3), Red, &config);
        assert!(is_dismissed(&mut older) && !is_dismissed(&mut younger));
        assert!(limits.problem(&config.server).is_some_and(|problem| problem.contains("max_sessions = 3")));
        younger.introduced();
        assert_eq!(limits.admit(client(4), Red, &config).unwrap_err(), LimitReached::Total);
        assert_eq!(limits.sessions(), 4, "who is still being told is not gone");
        drop((older, newcomer));
        assert_eq!(limits.sessions(), 2);
        assert!(limits.admit(client(4), Red, &config).is_ok());
    }

    #[test]
    fn red_zones_can_not_take_the_reserve_of_the_others() {
        let config = config(20, 50);
        let limits = Arc::new(Limits::default());
        let mut red: Vec<_> = (0..18).map(|number| admit(&limits, client(number), Red, &config)).collect();
        assert_eq!(limits.admit(client(30), Red, &config).unwrap_err(), LimitReached::Total);
        let mut green: Vec<_> = (0..2).map(|_| limits.admit(client(31), Green, &config).unwrap()).collect();
        assert_eq!(limits.admit(client(32), Red, &config).unwrap_err(), LimitReached::Total);
        assert!(!green.iter_mut().any(is_dismissed), "a red newcomer ends no session of a green zone");
        green.clear();
        // The others may take all there is.
        red.clear();
        let green: Vec<_> = (0..20).map(|_| admit(&limits, client(31), Green, &config)).collect();
        assert!(limits.admit(client(32), Green, &config).is_err());
        drop(green);
        assert!(limits.counts().clients.is_empty());
    }

    #[test]
    fn a_red_zone_alone_has_every_session() {
        let mut config = config(20, 50);
        config.zones.retain(|zone| zone.kind == Red);
        let limits = Arc::new(Limits::default());
        let all: Vec<_> = (0..20).map(|_| admit(&limits, client(1), Red, &config)).collect();
        assert_eq!(limits.sessions(), all.len());
    }

    #[test]
    fn those_that_are_being_told_are_bounded() {
        let config = config(1, 50);
        let limits = Arc::new(Limits::default());
        let mut held = Vec::new();
        for number in 0..=MAX_LEAVING {
            held.push(limits.admit(client(number), Red, &config).unwrap());
        }
        assert_eq!(limits.admit(client(999), Red, &config).unwrap_err(), LimitReached::Total);
        drop(held);
        assert_eq!(limits.sessions(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_is_told_once_a_minute_and_a_problem_as_long_as_it_lasts() {
        let mut shortage = Shortage::default();
        assert!(shortage.note(0, 0).is_none());
        assert!(shortage.note(1, 0).is_some());
        assert!(shortage.note(1, 0).is_none() && shortage.note(0, 2).is_none());
        tokio::time::advance(SHORTAGE_TIME).await;
        let news = shortage.note(1, 0).unwrap();
        assert_eq!((news.turned_away, news.ended), (2, 2));
        let config = config(1, 50);
        let limits = Arc::new(Limits::default());
        let held = admit(&limits, client(1), Red, &config);
        assert!(limits.admit(client(2), Red, &config).is_err());
        drop(held);
        assert!(limits.problem(&config.server).is_some());
        tokio::time::advance(SHORTAGE_TIME).await;
        assert_eq!(limits.problem(&config.server), None);
    }
}
