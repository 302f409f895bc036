//! Sessions that wait for the next message to the same next hop.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailguard_core::route::Route;
use tokio::time::Instant;

use super::session::Session;

/// How long a session waits for the next message. Servers dislike to be kept waiting.
pub const IDLE_TIME: Duration = Duration::from_secs(10);

/// How old a session may be when it is used again: one that lasts would miss a change of the next hop's
/// servers.
pub const MAX_SESSION_TIME: Duration = Duration::from_secs(300);

/// Most waiting sessions of one next hop.
pub const MAX_IDLE_SESSIONS_A_HOP: usize = 32;

/// Most waiting sessions.
pub const MAX_IDLE_SESSIONS: usize = 512;

/// The waiting sessions.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    hops: HashMap<Route, Vec<Idle>>,
    total: usize,
}

#[derive(Debug)]
struct Idle {
    session: Session,
    since: Instant,
}

impl Pool {
    /// The session of `route` that was used last, of those to `server` if one is named: the others may then
    /// expire.
    pub(super) fn take(&self, route: &Route, server: Option<SocketAddr>) -> Option<Session> {
        let mut waiting = self.lock();
        let list = waiting.hops.get_mut(route)?;
        let fits = |idle: &Idle| server.is_none_or(|server| idle.session.address() == server);
        let idle = list.remove(list.iter().rposition(fits)?);
        waiting.total -= 1;
        Some(idle.session)
    }

    /// Keeps a session that is ready, or gives it back where it is too old or one too many.
    pub(super) fn put(&self, route: &Route, session: Session) -> Option<Session> {
        if session.opened().elapsed() > MAX_SESSION_TIME {
            return Some(session);
        }
        let mut waiting = self.lock();
        if waiting.total >= MAX_IDLE_SESSIONS {
            return Some(session);
        }
        let idle = Idle { session, since: Instant::now() };
        match waiting.hops.get_mut(route) {
            Some(list) if list.len() >= MAX_IDLE_SESSIONS_A_HOP => return Some(idle.session),
            Some(list) => list.push(idle),
            None => {
                waiting.hops.insert(route.clone(), vec![idle]);
            }
        }
        waiting.total += 1;
        None
    }

    /// Takes out the sessions that have waited since `since` or longer.
    pub(super) fn take_idle_since(&self, since: Instant) -> Vec<Session> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        waiting.hops.retain(|_, list| {
            taken.extend(list.extract_if(.., |idle| idle.since <= since).map(|idle| idle.session));
            !list.is_empty()
        });
        waiting.total -= taken.len();
        taken
    }

    /// A panic while the lock was held can't have left the counts wrong by more than a session.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
