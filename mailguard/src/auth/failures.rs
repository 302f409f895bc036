//! How often a client was wrong lately: who guesses passwords is sent away before the IMAP server is asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::network;

/// Wrong passwords of one client within [`WINDOW`]; after that it has to wait.
pub const MAX_FAILURES: u32 = 10;

/// How long a client's wrong passwords are counted, from the first of them.
const WINDOW: Duration = Duration::from_secs(600);

/// Most clients that are remembered.
const MAX_CLIENTS: usize = 65_536;

/// The count.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<IpAddr, Count>>);

#[derive(Debug)]
struct Count {
    since: Instant,
    failures: u32,
}

impl Failures {
    /// Whether this client may try, now.
    pub fn may_try(&self, client: IpAddr, now: Instant) -> bool {
        let counts = self.counts();
        counts.get(&network(client)).is_none_or(|count| {
            count.failures < MAX_FAILURES || now.saturating_duration_since(count.since) >= WINDOW
        })
    }

    /// Counts a wrong password.
    pub fn note(&self, client: IpAddr, now: Instant) {
        let mut counts = self.counts();
        if counts.len() >= MAX_CLIENTS {
            counts.retain(|_, count| now.saturating_duration_since(count.since) < WINDOW);
        }
        // From so many networks at one time, one more is nobody's guess.
        if counts.len() >= MAX_CLIENTS {
            return;
        }
        let count = counts.entry(network(client)).or_insert(Count { since: now, failures: 0 });
        if now.saturating_duration_since(count.since) >= WINDOW {
            *count = Count { since: now, failures: 0 };
        }
        count.failures = count.failures.saturating_add(1);
    }

    /// Forgets a client that was right.
    pub fn forgive(&self, client: IpAddr) {
        self.counts().remove(&network(client));
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_wrong_too_often_has_to_wait() {
        let failures = Failures::default();
        let (client, neighbour) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let other = "192.0.2.1".parse().unwrap();
        let start = Instant::now();
        for _ in 0..MAX_FAILURES {
            assert!(failures.may_try(client, start));
            failures.note(client, start);
        }
        assert!(!failures.may_try(client, start));
        assert!(!failures.may_try(neighbour, start), "of the same network");
        assert!(failures.may_try(other, start));
        assert!(failures.may_try(client, start + WINDOW));
        failures.note(client, start + WINDOW);
        assert!(failures.may_try(client, start + WINDOW), "counted anew");
        failures.forgive(client);
        assert!(failures.counts().is_empty());
    }
}
