//! How many sessions there may be, in all and of one client (S12).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mailguard_core::config::model::Server;
use mailguard_core::smtp::{EnhancedStatus, Reply, ReplyCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The count of sessions.
#[derive(Debug)]
pub struct Limits {
    counts: Mutex<Counts>,
    turned_away: Arc<Semaphore>,
}

/// Connections that are told at one time that there is no session for them; further ones are closed without a word.
pub const MAX_TURNED_AWAY: usize = 256;

impl Default for Limits {
    fn default() -> Self {
        Self { counts: Mutex::default(), turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)) }
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// When each session began, by its number: the oldest comes first.
    began: BTreeMap<u64, Instant>,
    last: u64,
    /// Clients with at least one session.
    clients: HashMap<IpAddr, usize>,
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
    /// The reply in the banner's place.
    pub fn reply(&self) -> Reply {
        let status = match self {
            LimitReached::Total => EnhancedStatus::new(4, 3, 2),
            LimitReached::Client => EnhancedStatus::new(4, 7, 0),
        };
        Reply::new(ReplyCode::NOT_AVAILABLE, status, self.to_string())
    }
}

/// A session that is counted as long as this lives.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    number: u64,
    client: IpAddr,
}

impl Limits {
    /// Counts a session of `client`, if there is room for it.
    pub fn admit(self: &Arc<Self>, client: IpAddr, server: &Server) -> Result<Admission, LimitReached> {
        let mut counts = self.counts();
        if counts.began.len() >= server.max_sessions {
            return Err(LimitReached::Total);
        }
        let of_client = counts.clients.get(&client).copied().unwrap_or(0);
        if of_client >= server.max_sessions_per_client {
            return Err(LimitReached::Client);
        }
        counts.last += 1;
        let number = counts.last;
        counts.began.insert(number, Instant::now());
        counts.clients.insert(client, of_client + 1);
        Ok(Admission { limits: self.clone(), number, client })
    }

    /// A place among those that are told that they are refused, as long as it is held.
    pub fn turn_away(&self) -> Option<OwnedSemaphorePermit> {
        self.turned_away.clone().try_acquire_owned().ok()
    }

    /// How many sessions there are now.
    pub fn sessions(&self) -> usize {
        self.counts().began.len()
    }

    /// How old the oldest of them is.
    pub fn oldest_session(&self) -> Option<Duration> {
        self.counts().began.first_key_value().map(|(_, began)| began.elapsed())
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        counts.began.remove(&self.number);
        if let Some(count) = counts.clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_while_they_last() {
        let mut config = crate::spool::fixture::config(std::path::Path::new("/nowhere"));
        config.server.max_sessions = 3;
        config.server.max_sessions_per_client = 2;
        let limits = Arc::new(Limits::default());
        let admit = |client: &str| limits.admit(client.parse().unwrap(), &config.server);
        let first = admit("192.0.2.1").unwrap();
        let second = admit("192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), LimitReached::Client);
        let third = admit("2001:db8::1").unwrap();
        assert_eq!(admit("192.0.2.2").unwrap_err(), LimitReached::Total);
        drop(second);
        assert!(admit("192.0.2.1").is_ok(), "counted no longer once it is dropped");
        let age = limits.oldest_session().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert!(limits.oldest_session().unwrap() > age, "the first is the oldest");
        drop(first);
        assert!(limits.oldest_session().is_some());
        drop(third);
        assert_eq!((limits.sessions(), limits.oldest_session()), (0, None));
        assert!(limits.counts().clients.is_empty(), "clients without a session are forgotten");
    }
}
