//! Interfaces whose zone is transparent no longer: new connections go by them untouched, while packets of the
//! sessions that came in by them are still delivered. Which, and until when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long after its interface left a connection may become a session: it waits for the mail process, which
/// may be silent for a while.
const LATECOMERS: Duration = Duration::from_secs(20);
/// How long after the last session's end the kernel may have something to say to its client: the time that
/// TIME_WAIT lasts.
const LINGER: Duration = Duration::from_secs(60);

/// The interfaces, by their index.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    interfaces: BTreeMap<u32, Departure>,
}

#[derive(Debug)]
struct Departure {
    at: Instant,
    /// Since when no session is left that may have come in by it.
    over: Option<Instant>,
}

impl Leaving {
    /// These are leaving `now`, or have been leaving; others no longer.
    pub(super) fn replace(&mut self, indexes: impl Iterator<Item = u32>, now: Instant) {
        let mut before = std::mem::take(&mut self.interfaces);
        let mut departure = |index| before.remove(&index).unwrap_or(Departure { at: now, over: None });
        self.interfaces = indexes.map(|index| (index, departure(index))).collect();
    }

    /// Whether packets of sessions are still expected there.
    pub(super) fn contains(&self, index: u32) -> bool {
        self.interfaces.contains_key(&index)
    }

    /// The oldest session that is open `now` began at `oldest`; there is none if that is None. True when an
    /// interface has been left by its last session for [`LINGER`], and is forgotten.
    pub(super) fn note_oldest_session(&mut self, oldest: Option<Instant>, now: Instant) -> bool {
        let before = self.interfaces.len();
        self.interfaces.retain(|_, departure| {
            let last = departure.at + LATECOMERS;
            if now < last || oldest.is_some_and(|oldest| oldest <= last) {
                departure.over = None;
                return true;
            }
            now.duration_since(*departure.over.get_or_insert(now)) < LINGER
        });
        self.interfaces.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_kept_until_a_while_after_its_last_session() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut leaving = Leaving::default();
        leaving.replace([7].into_iter(), at(100));
        leaving.replace([7, 8].into_iter(), at(150));
        leaving.replace([7].into_iter(), at(151));
        assert!(!leaving.contains(8), "it steers again, or is gone");
        assert!(!leaving.note_oldest_session(None, at(119)), "a connection may be on its way");
        assert!(!leaving.note_oldest_session(Some(at(118)), at(900)), "its session is still open");
        assert!(!leaving.note_oldest_session(Some(at(121)), at(1_000)), "all that are open are younger");
        assert!(!leaving.note_oldest_session(Some(at(118)), at(1_030)), "one was overlooked");
        assert!(!leaving.note_oldest_session(Some(at(800)), at(1_040)));
        assert!(!leaving.note_oldest_session(None, at(1_099)));
        assert!(leaving.contains(7));
        assert!(leaving.note_oldest_session(Some(at(800)), at(1_100)));
        assert!(!leaving.contains(7));
        assert!(!leaving.note_oldest_session(None, at(2_000)), "once");
    }
}
