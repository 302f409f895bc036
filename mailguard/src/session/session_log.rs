//! What a session came to, for the mail log: a line for each message and recipient that was refused, for each message that was taken and each login
//! that failed, and one for itself when it is over, however it ends.
//!
//! Lines about a session that has brought nothing yet cost its client nothing: `cheap_lines` bounds them.

use std::sync::Arc;
use std::time::Instant;

use mailguard_core::config::model::ZoneKind;
use mailguard_core::mail::QueueId;
use mailguard_core::origin::Origin;
use mailguard_core::smtp::server::LoginRefused;

use super::{Limits, Peer};
use crate::mail_log::{self, Cheap, Counts, SessionLine};
use crate::trace::{Record, TransactionResult};

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
        for refused in &record.refused_recipients {
            if self.has_line(Cheap::Recipient, record) {
                mail_log::recipient(self.id, record, refused);
            }
        }
        if self.has_line(Cheap::Message, record) {
            mail_log::message(self.id, record);
        }
    }

    /// Whether there is a line about what `record` tells.
    fn has_line(&self, what: Cheap, record: &Record) -> bool {
        let is_known = matches!(&record.origin, Origin::Client(client) if client.user.is_some());
        is_known || self.is_listed(what)
    }

    /// Whether there is a line, for which this session has paid by a message or which still finds room among those that cost
    /// nothing.
    fn is_listed(&self, what: Cheap) -> bool {
        if self.counts.taken > 0 {
            return true;
        }
        let unlisted = self.limits.cheap_lines().take(what, super::now());
        match unlisted {
            None => return false,
            Some(0) => {}
            Some(unlisted) => mail_log::unlisted(what, unlisted),
        }
        true
    }

    /// A transaction was given up by the client, and nothing of it had been refused.
    pub(super) fn abandoned(&mut self) {
        self.counts.abandoned += 1;
    }

    /// A login failed.
    pub(super) fn failed_login(&mut self, user: &str, why: LoginRefused) {
        self.counts.failed_logins += 1;
        if !self.is_listed(Cheap::Login) {
            return;
        }
        mail_log::failed_login(self.id, self.peer.client.ip(), (&self.zone.0, self.zone.1), user, why);
    }
}

impl Drop for SessionLog {
    fn drop(&mut self) {
        if self.user.is_none() && !self.is_listed(Cheap::Session) {
            return;
        }
        let now = super::now();
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

#[cfg(test)]
mod tests {
    use mailguard_core::disposition::Disposition;
    use mailguard_core::language::ENGLISH;
    use mailguard_core::mail::{ForwardPath, UnixTime};
    use mailguard_core::smtp::Refusal;

    use super::*;
    use crate::spool::fixture::client;
    use crate::trace::RefusedRecipient;

    fn record(refused: usize, result: TransactionResult) -> Record {
        let reply = Refusal::RelayDenied.reply(QueueId(2), ENGLISH);
        Record {
            id: QueueId(2),
            at: UnixTime(0),
            origin: client("red"),
            reverse_path: None,
            recipients: Vec::new(),
            refused_recipients: vec![RefusedRecipient { recipient: ForwardPath::Postmaster, reply }; refused],
            subject: String::new(),
            size: 0,
            findings: Vec::new(),
            result,
            attempts: Vec::new(),
        }
    }

    /// However many connections somebody opens, and whatever is refused in them.
    #[test]
    fn who_brings_nothing_causes_a_bounded_number_of_lines() {
        let log = mailguard_core::testing::config("log.level = \"error\"").log;
        let (heard, _guard) = crate::process::heard_log(&log);
        let events = || {
            let text = String::from_utf8(std::mem::take(&mut *heard.lock().unwrap())).unwrap();
            let of = |event: &str| text.matches(&format!(" event={event} ")).count();
            [of("recipient"), of("message"), of("login"), of("session")]
        };
        let limits = Arc::new(Limits::default());
        let peer = Peer {
            client: "192.0.2.1:4".parse().unwrap(),
            destination: "192.0.2.2:25".parse().unwrap(),
            destination_is_ours: true,
            zone: 0,
        };
        let begin = || SessionLog::begin(QueueId(1), peer, ("red", ZoneKind::Red), limits.clone());
        let refused = || TransactionResult::Refused(Refusal::RelayDenied.reply(QueueId(2), ENGLISH));
        for _ in 0..1_100 {
            let mut session = begin();
            session.message(&record(3, refused()));
            session.failed_login("alice", LoginRefused::Wrong);
        }
        let [recipients, messages, logins, sessions] = events();
        assert!((400..500).contains(&recipients), "{recipients}");
        assert!((500..600).contains(&messages) && (500..600).contains(&logins), "{messages} {logins}");
        assert!((1_000..1_100).contains(&sessions), "{sessions}");
        // One that brought a message isn't among them.
        let mut session = begin();
        session
            .message(&record(50, TransactionResult::Accepted { dispositions: vec![Disposition::Deliver] }));
        session.message(&record(50, refused()));
        drop(session);
        assert_eq!(events(), [100, 2, 0, 1]);
    }
}
