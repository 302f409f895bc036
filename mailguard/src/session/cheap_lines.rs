//! How many lines of the mail log clients may cause that have brought neither a message nor a login. Such a
//! line costs them a connection, or less. So that nobody fills a disk, or hides behind what a log daemon
//! drops when it gets too much, they are written at a bounded rate, and the rest is counted. Each kind has a
//! bound of its own: a flood of one hides nothing of another.

use std::time::Instant;

use crate::mail_log::Cheap;

/// How many lines there may be of one kind.
#[derive(Debug, Clone, Copy)]
struct Bound {
    at_once: u32,
    a_second: u32,
}

const fn bound(what: Cheap) -> Bound {
    match what {
        Cheap::Session => Bound { at_once: 1_000, a_second: 100 },
        Cheap::Message => Bound { at_once: 500, a_second: 50 },
        Cheap::Recipient => Bound { at_once: 400, a_second: 40 },
        Cheap::Login => Bound { at_once: 500, a_second: 50 },
    }
}

/// Of what comes faster journald drops everything, errors and audit, too: by default 10,000 lines of a unit
/// in 30 seconds.
const JOURNAL: (u32, u32) = (10_000, 30);

const _: () = {
    let all = [Cheap::Session, Cheap::Message, Cheap::Recipient, Cheap::Login];
    let (mut lines, mut next) = (0, 0);
    while next < all.len() {
        let Bound { at_once, a_second } = bound(all[next]);
        // Each second one more may say how many there weren't.
        lines += at_once + (a_second + 1) * JOURNAL.1;
        next += 1;
    }
    assert!(lines <= JOURNAL.0);
};

/// What may still be written.
#[derive(Debug)]
pub(super) struct CheapLines {
    sessions: Lines,
    messages: Lines,
    recipients: Lines,
    logins: Lines,
}

#[derive(Debug)]
struct Lines {
    bound: Bound,
    left: u32,
    /// Since when those of a second are owed.
    since: Option<Instant>,
    /// How many weren't written since that was last said.
    unlisted: u64,
}

impl Default for CheapLines {
    fn default() -> Self {
        let lines = |what| {
            let bound = bound(what);
            Lines { bound, left: bound.at_once, since: None, unlisted: 0 }
        };
        Self {
            sessions: lines(Cheap::Session),
            messages: lines(Cheap::Message),
            recipients: lines(Cheap::Recipient),
            logins: lines(Cheap::Login),
        }
    }
}

impl CheapLines {
    /// Whether one may be written now, and how many were not since the last one.
    pub(super) fn take(&mut self, what: Cheap, now: Instant) -> Option<u64> {
        let lines = match what {
            Cheap::Session => &mut self.sessions,
            Cheap::Message => &mut self.messages,
            Cheap::Recipient => &mut self.recipients,
            Cheap::Login => &mut self.logins,
        };
        lines.take(now)
    }
}

impl Lines {
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let seconds = now.saturating_duration_since(since).as_secs();
        if seconds > 0 {
            let owed = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(self.bound.a_second);
            self.left = self.left.saturating_add(owed).min(self.bound.at_once);
            self.since = Some(now);
        }
        if self.left == 0 {
            self.unlisted += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.unlisted))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_what_costs_nothing_has_so_many_lines_and_is_counted() {
        let mut lines = CheapLines::default();
        let start = Instant::now();
        for what in [Cheap::Session, Cheap::Message, Cheap::Recipient, Cheap::Login] {
            let Bound { at_once, a_second } = bound(what);
            let mut flood = |now| (0..50_000).filter(|_| lines.take(what, now).is_some()).count() as u32;
            assert_eq!(flood(start), at_once, "a flood of one kind takes nothing from another");
            let later = start + Duration::from_millis(1_500);
            assert_eq!(flood(later), a_second);
            assert_eq!(flood(start + Duration::from_secs(3_600)), at_once);
        }
    }

    #[test]
    fn those_without_a_line_are_told_once() {
        let mut lines = CheapLines::default();
        let start = Instant::now();
        while lines.take(Cheap::Login, start).is_some() {}
        for _ in 0..9 {
            assert_eq!(lines.take(Cheap::Login, start), None);
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(lines.take(Cheap::Login, later), Some(10));
        assert_eq!(lines.take(Cheap::Login, later), Some(0));
    }
}
