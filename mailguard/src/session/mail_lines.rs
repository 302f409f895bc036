//! The mail log as a journal of sessions: a line for each message and recipient that was refused, for each
//! message that was taken and each login that failed, and one for each session that is over.
//!
//! Lines about a session that has brought nothing yet cost its client nothing: `cheap_lines` bounds them.

use std::future::ready;
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use mailguard_core::origin::Origin;
use mailguard_core::smtp::server::LoginRefused;

use super::cheap_lines::CheapLines;
use super::journal::{Journal, SessionSoFar};
use crate::mail_log::{self, Cheap, Counts, SessionLine};
use crate::trace::Record;

/// Writes the lines of all sessions.
#[derive(Debug, Default)]
pub struct MailLines {
    cheap: Mutex<CheapLines>,
}

impl MailLines {
    /// Whether there is a line about what `record` tells.
    fn has_line(&self, what: Cheap, counts: &Counts, record: &Record) -> bool {
        let is_known = matches!(&record.origin, Origin::Client(client) if client.user.is_some());
        is_known || self.is_listed(what, counts)
    }

    /// Whether there is a line, for which its session has paid by a message or which still finds room among
    /// those that cost nothing.
    fn is_listed(&self, what: Cheap, counts: &Counts) -> bool {
        if counts.taken > 0 {
            return true;
        }
        let unlisted = self.cheap.lock().unwrap_or_else(PoisonError::into_inner).take(what, super::now());
        match unlisted {
            None => return false,
            Some(0) => {}
            Some(unlisted) => mail_log::unlisted(what, unlisted),
        }
        true
    }
}

impl Journal for MailLines {
    fn transaction<'a>(&'a self, session: &'a SessionSoFar, record: &'a Record) -> BoxFuture<'a, ()> {
        for refused in &record.refused_recipients {
            if self.has_line(Cheap::Recipient, &session.counts, record) {
                mail_log::recipient(session.id, record, refused);
            }
        }
        if self.has_line(Cheap::Message, &session.counts, record) {
            mail_log::message(session.id, record);
        }
        Box::pin(ready(()))
    }

    fn failed_login(&self, session: &SessionSoFar, user: &str, why: LoginRefused) {
        let SessionSoFar { id, peer, zone, counts } = session;
        if self.is_listed(Cheap::Login, counts) {
            mail_log::failed_login(*id, peer.client.ip(), (&zone.0, zone.1), user, why);
        }
    }

    fn session(&self, ended: &SessionLine<'_>) {
        if ended.user.is_some() || self.is_listed(Cheap::Session, ended.counts) {
            mail_log::session(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mailguard_core::config::model::ZoneKind;
    use mailguard_core::disposition::Disposition;
    use mailguard_core::language::ENGLISH;
    use mailguard_core::mail::{ForwardPath, QueueId, UnixTime};
    use mailguard_core::smtp::Refusal;

    use super::*;
    use crate::session::Peer;
    use crate::session::journal::Journals;
    use crate::session::session_log::SessionLog;
    use crate::spool::fixture::client;
    use crate::trace::{RefusedRecipient, TransactionResult};

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
    #[tokio::test]
    async fn who_brings_nothing_causes_a_bounded_number_of_lines() {
        let log = mailguard_core::testing::config("log.level = \"error\"").log;
        let (heard, _guard) = crate::process::heard_log(&log);
        let events = || {
            let text = String::from_utf8(std::mem::take(&mut *heard.lock().unwrap())).unwrap();
            let of = |event: &str| text.matches(&format!(" event={event} ")).count();
            [of("recipient"), of("message"), of("login"), of("session")]
        };
        let journals = Arc::new(Journals::new(vec![Arc::new(MailLines::default())]));
        let peer = Peer {
            client: "192.0.2.1:4".parse().unwrap(),
            destination: "192.0.2.2:25".parse().unwrap(),
            destination_is_local: true,
            zone: 0,
        };
        let begin = || SessionLog::begin(QueueId(1), peer, ("red", ZoneKind::Red), journals.clone());
        let refused = || TransactionResult::Refused(Refusal::RelayDenied.reply(QueueId(2), ENGLISH));
        for _ in 0..1_100 {
            let mut session = begin();
            session.transaction(&record(3, refused())).await;
            session.failed_login("alice", LoginRefused::Wrong);
        }
        let [recipients, messages, logins, sessions] = events();
        assert!((400..500).contains(&recipients), "{recipients}");
        assert!((500..600).contains(&messages) && (500..600).contains(&logins), "{messages} {logins}");
        assert!((1_000..1_100).contains(&sessions), "{sessions}");
        // One that brought a message isn't among them.
        let mut session = begin();
        let taken = TransactionResult::Accepted { dispositions: vec![Disposition::Deliver] };
        session.transaction(&record(50, taken)).await;
        session.transaction(&record(50, refused())).await;
        drop(session);
        assert_eq!(events(), [100, 2, 0, 1]);
    }
}
