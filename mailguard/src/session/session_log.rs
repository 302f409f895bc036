//! What a session came to, for the mail log: one line when it is over, however it ends.
//!
//! A line costs a peer a connection and nothing else. So that nobody fills a disk, or hides behind what a log daemon drops when
//! it gets too much, those that brought neither a message nor a login are written at a bounded rate, and the rest is counted.

use std::sync::Arc;
use std::time::Instant;

use mailguard_core::config::model::ZoneKind;
use mailguard_core::mail::QueueId;
use mailguard_core::smtp::server::LoginRefused;

use super::{Limits, Peer};
use crate::mail_log::{self, Counts, SessionLine};
use crate::trace::{Record, TransactionResult};

/// Lines about sessions that brought nothing, at one time.
const MAX_IDLE_LINES: u32 = 1_000;
/// Such lines a second, after that.
const IDLE_LINES_A_SECOND: u32 = 100;

/// Says it when it is dropped.
#[derive(Debug)]
pub(super) struct SessionLog {
    id: QueueId,
    peer: Peer,
    zone: (String, ZoneKind),
    limits: Arc<Limits>,
    began: Instant,
    counts: Counts,
    /// How it ended.
    pub(super) end: &'static str,
    pub(super) encrypted: bool,
    /// What the client called itself.
    pub(super) helo: Option<String>,
    /// Who it had shown to be.
    pub(super) user: Option<String>,
}

impl SessionLog {
    pub(super) fn begin(id: QueueId, peer: Peer, zone: (&str, ZoneKind), limits: Arc<Limits>) -> Self {
        Self {
            id,
            peer,
            zone: (zone.0.to_owned(), zone.1),
            limits,
            began: super::now(),
            counts: Counts::default(),
            // Unless somebody says otherwise: the process didn't wait for it.
            end: "broken-off",
            encrypted: false,
            helo: None,
            user: None,
        }
    }

    /// A transaction ended so.
    pub(super) fn message(&mut self, record: &Record) {
        let count = match &record.result {
            TransactionResult::Accepted { .. } => &mut self.counts.taken,
            TransactionResult::Refused(reply) if mail_log::is_deferral(reply) => &mut self.counts.deferred,
            TransactionResult::Refused(_) => &mut self.counts.refused,
        };
        *count += 1;
        mail_log::message(self.id, record);
    }

    /// A transaction was given up by the client, and nothing of it had been refused.
    pub(super) fn abandoned(&mut self) {
        self.counts.abandoned += 1;
    }

    /// A login failed.
    pub(super) fn failed_login(&mut self, user: &str, why: LoginRefused) {
        self.counts.failed_logins += 1;
        mail_log::failed_login(self.id, self.peer.client.ip(), (&self.zone.0, self.zone.1), user, why);
    }
}

impl Drop for SessionLog {
    fn drop(&mut self) {
        let now = super::now();
        // A transaction that was begun and left costs a client nothing.
        if (Counts { abandoned: 0, ..self.counts.clone() }) == Counts::default() {
            match self.limits.idle_lines().take(now) {
                None => return,
                Some(0) => {}
                Some(unlisted) => mail_log::unlisted(unlisted),
            }
        }
        mail_log::session(&SessionLine {
            id: self.id,
            client: self.peer.client,
            destination: self.peer.destination,
            zone: (&self.zone.0, self.zone.1),
            lasted: now.saturating_duration_since(self.began),
            end: self.end,
            counts: &self.counts,
            encrypted: self.encrypted,
            helo: self.helo.as_deref(),
            user: self.user.as_deref(),
        });
    }
}

/// How many lines about sessions that brought nothing may still be written.
#[derive(Debug)]
pub(super) struct IdleLines {
    left: u32,
    /// Since when those of a second are owed.
    since: Option<Instant>,
    /// Sessions without a line since that was last said.
    unlisted: u64,
}

impl Default for IdleLines {
    fn default() -> Self {
        Self { left: MAX_IDLE_LINES, since: None, unlisted: 0 }
    }
}

impl IdleLines {
    /// Whether one may be written now, and how many sessions had none since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let seconds = now.saturating_duration_since(since).as_secs();
        if seconds > 0 {
            let owed = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(IDLE_LINES_A_SECOND);
            self.left = self.left.saturating_add(owed).min(MAX_IDLE_LINES);
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
    fn a_flood_of_sessions_that_bring_nothing_has_so_many_lines_and_is_counted() {
        let mut lines = IdleLines::default();
        let start = Instant::now();
        let written = (0..50_000).filter(|_| lines.take(start).is_some()).count();
        assert_eq!(written, MAX_IDLE_LINES as usize);
        let later = start + Duration::from_millis(1_500);
        assert_eq!(lines.take(later), Some(49_000), "those that have no line are told");
        assert_eq!((0..50_000).filter(|_| lines.take(later).is_some()).count(), 99);
        let much_later = start + Duration::from_secs(3_600);
        assert_eq!((0..50_000).filter(|_| lines.take(much_later).is_some()).count(), 1_000);
    }
}
