//! How often a client was wrong lately, and how many of its logins are under way: who guesses passwords is
//! sent away before the IMAP server is asked, and takes nobody else's turn.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mailguard_core::smtp::server::LoginRefused;
use mailguard_core::subscriber::Subscriber;

/// Wrong passwords of one client within [`WINDOW`]; after that it has to wait.
const MAX_FAILURES: u32 = 10;

/// Logins of one client that may be under way, or wait for their turn.
const MAX_UNDER_WAY: u32 = 10;

/// How long a client's wrong passwords are counted, from the first of them.
const WINDOW: Duration = Duration::from_secs(600);

/// Most clients that are remembered.
const MAX_CLIENTS: usize = 65_536;

/// The count.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<Subscriber, Count>>);

#[derive(Debug)]
struct Count {
    since: Instant,
    failures: u32,
    under_way: u32,
}

impl Count {
    fn is_over(&self, now: Instant) -> bool {
        self.under_way == 0 && now.saturating_duration_since(self.since) >= WINDOW
    }
}

impl Failures {
    /// Begins a login of this client: it counts as wrong until [`Failures::end`] says otherwise, so that many
    /// at one time are no way around the limit.
    pub fn begin(&self, client: IpAddr, now: Instant) -> Result<(), LoginRefused> {
        let mut counts = self.counts();
        let subscriber = Subscriber::of(client);
        if counts.len() >= MAX_CLIENTS && !counts.contains_key(&subscriber) {
            counts.retain(|_, count| !count.is_over(now));
            if counts.len() >= MAX_CLIENTS {
                return Err(LoginRefused::Unavailable);
            }
        }
        let new = Count { since: now, failures: 0, under_way: 0 };
        let count = counts.entry(subscriber).or_insert(new);
        if count.is_over(now) {
            *count = Count { since: now, failures: 0, under_way: 0 };
        }
        if count.failures >= MAX_FAILURES {
            return Err(LoginRefused::TooMany);
        }
        if count.under_way >= MAX_UNDER_WAY {
            return Err(LoginRefused::Unavailable);
        }
        (count.failures, count.under_way) = (count.failures + 1, count.under_way + 1);
        Ok(())
    }

    /// Ends a login. One that was right takes back its own count, and nobody else's.
    pub fn end(&self, client: IpAddr, was_wrong: bool) {
        let mut counts = self.counts();
        let subscriber = Subscriber::of(client);
        let Some(count) = counts.get_mut(&subscriber) else { return };
        count.under_way = count.under_way.saturating_sub(1);
        if !was_wrong {
            count.failures = count.failures.saturating_sub(1);
        }
        if (count.failures, count.under_way) == (0, 0) {
            counts.remove(&subscriber);
        }
    }

    /// Counts a login that was wrong without anybody being asked; an error if the client has to wait anyway.
    pub fn note_wrong(&self, client: IpAddr, now: Instant) -> Result<(), LoginRefused> {
        self.begin(client, now)?;
        self.end(client, true);
        Ok(())
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Subscriber, Count>> {
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
            assert_eq!(failures.begin(client, start), Ok(()));
            failures.end(client, true);
            // A login of one's own that is right makes up for no wrong one.
            if failures.begin(neighbour, start).is_ok() {
                failures.end(neighbour, false);
            }
        }
        assert_eq!(failures.begin(client, start), Err(LoginRefused::TooMany));
        assert_eq!(failures.begin(neighbour, start), Err(LoginRefused::TooMany), "of the same network");
        assert_eq!(failures.begin(other, start), Ok(()));
        failures.end(other, false);
        assert_eq!(failures.begin(client, start + WINDOW), Ok(()), "counted anew");
        failures.end(client, false);
        assert!(failures.counts().is_empty());
    }

    #[test]
    fn what_was_wrong_unasked_counts_too() {
        let failures = Failures::default();
        let (client, now) = ("192.0.2.1".parse().unwrap(), Instant::now());
        for _ in 0..MAX_FAILURES {
            assert_eq!(failures.note_wrong(client, now), Ok(()));
        }
        assert_eq!(failures.note_wrong(client, now), Err(LoginRefused::TooMany));
        assert_eq!(failures.begin(client, now), Err(LoginRefused::TooMany));
    }

    #[test]
    fn many_at_one_time_are_no_way_around_the_limit() {
        let failures = Failures::default();
        let (client, now) = ("192.0.2.1".parse().unwrap(), Instant::now());
        for _ in 0..MAX_UNDER_WAY {
            assert_eq!(failures.begin(client, now), Ok(()));
        }
        assert!(failures.begin(client, now).is_err());
        for _ in 0..MAX_UNDER_WAY {
            failures.end(client, false);
        }
        assert_eq!(failures.begin(client, now), Ok(()));
    }
}
