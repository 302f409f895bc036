//! Recipient verification (S11): whether the server of an incoming domain would take mail for a recipient,
//! before we do. Mail for nobody is refused while its sender still listens, and no report goes to a forged
//! address.
//!
//! Asking, and for how long an answer holds, is left to the program.

use crate::config::Config;
use crate::finding::{Check, Finding, Opinion};
use crate::mail::ForwardPath;
use crate::outcome::Report;
use crate::policy::need::{About, AskingCheck, Fact, Holds, Known, Need, Query, Source, Subject};
use crate::route::{self, Route};
use crate::smtp::{EnhancedStatus, Refusal, ReplyCode};

/// Most octets of a server's words in a reason.
const MAX_REASON_OCTETS: usize = 256;

/// What the servers of an incoming domain say of the forward-path.
pub(in crate::policy) const RECIPIENT: AskingCheck = AskingCheck {
    needs: |Subject { config, forward_path, .. }, known| {
        let route = servers_in_question(config, forward_path).filter(|_| verified(known).is_none());
        let need = route.map(|route| Need {
            query: Query::Verification(Box::new(route), (*forward_path).clone()),
            source: Source::Server,
            within: None,
            holds: Holds::Recipient,
            unanswered: Fact::Verification(no_time_left(forward_path)),
        });
        need.into_iter().collect()
    },
    judge: |_, known| verified(known).cloned(),
    about: About::Recipient,
};

/// The way to the servers to ask about this recipient, if any are to be asked. The bare postmaster is always
/// here.
fn servers_in_question(config: &Config, forward_path: &ForwardPath) -> Option<Route> {
    let mailbox = forward_path.mailbox().filter(|_| config.server.verify_recipients)?;
    config.incoming_domain(mailbox.domain()?).map(|incoming| route::to_incoming(config, incoming))
}

fn verified(known: &Known) -> Option<&Finding> {
    known.find(|fact| match fact {
        Fact::Verification(finding) => Some(finding),
        _ => None,
    })
}

/// The finding of a transaction that has waited for too many servers.
fn no_time_left(forward_path: &ForwardPath) -> Finding {
    let seconds = Source::Server.time_of_transaction().as_secs();
    let reason =
        format!("not asked about {forward_path}: this transaction has waited {seconds} seconds for others");
    Finding::new(Check::RecipientVerification, Opinion::Defer(Refusal::RecipientUnverified), reason)
}

/// What was learnt about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// The server takes mail for it.
    Accepted(Report),
    /// The server refused for good, in reply to RCPT.
    Rejected(Report),
    /// The server was asked, and nothing was learnt.
    Unknown(Report),
    /// There is no server to ask.
    Unreachable(Report),
}

/// Judges what was learnt. Not every refusal says that there is no such mailbox: many servers keep what they
/// think of the client, or of the null reverse-path, for RCPT.
pub fn judge(forward_path: &ForwardPath, word: &ProbeResult) -> Finding {
    let (outcome, reason) = match word {
        ProbeResult::Accepted(report) => {
            (Opinion::Pass, format!("{} takes {forward_path}: {}", report.server(), said(report)))
        }
        ProbeResult::Rejected(report) if is_about_mailbox(report) => (
            Opinion::Refuse(Refusal::RecipientUnknown),
            format!("{} refuses {forward_path}: {}", report.server(), said(report)),
        ),
        ProbeResult::Rejected(report) => (
            Opinion::Defer(Refusal::RecipientUnverified),
            format!("{} objects to us, not to {forward_path}: {}", report.server(), said(report)),
        ),
        ProbeResult::Unknown(report) | ProbeResult::Unreachable(report) => (
            Opinion::Defer(Refusal::RecipientUnverified),
            format!("nobody can tell whether {forward_path} exists: {}", said(report)),
        ),
    };
    Finding::new(Check::RecipientVerification, outcome, reason)
}

/// Whether a refusal says that mail for this address will never be taken: by its enhanced status code (RFC
/// 3463 §3.2, the sender's address excepted; 5.2.1: the mailbox is disabled), else by its reply code.
fn is_about_mailbox(report: &Report) -> bool {
    let Some(reply) = &report.reply else { return false };
    let EnhancedStatus { subject, detail, .. } = report.status;
    match (subject, detail) {
        (1, 7 | 8) => false,
        (1, _) | (2, 1) => true,
        (0, 0) => {
            [ReplyCode::MAILBOX_UNAVAILABLE, ReplyCode::USER_NOT_LOCAL, ReplyCode::MAILBOX_NAME_NOT_ALLOWED]
                .contains(&reply.code)
        }
        _ => false,
    }
}

fn said(report: &Report) -> &str {
    &report.text[..report.text.floor_char_boundary(MAX_REASON_OCTETS)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::ENGLISH;
    use crate::mail::Mailbox;
    use crate::smtp::Reply;

    fn report(text: &str) -> Report {
        let (code, rest) = text.split_once(' ').unwrap();
        let code = ReplyCode::new(code.parse().unwrap()).unwrap();
        let status: Option<EnhancedStatus> = rest.split(' ').next().unwrap().parse().ok();
        let reply = Reply { code, status, lines: vec![rest.to_owned()] };
        Report {
            status: status.unwrap_or(EnhancedStatus::new(5, 0, 0)),
            remote: Some("[192.0.2.25]:25".to_owned()),
            reply: Some(reply),
            text: text.to_owned(),
            transfer: Default::default(),
        }
    }

    fn check(word: ProbeResult, reply: &str, reason: &str) {
        let path = ForwardPath::Mailbox(Mailbox::parse("u@here.example").unwrap());
        let finding = judge(&path, &word);
        let said = finding
            .objection()
            .map_or("accepted".to_owned(), |refusal| refusal.reply(1, ENGLISH).to_string());
        assert_eq!(said, reply, "{word:?}");
        assert!(finding.reason.starts_with(reason), "{}", finding.reason);
    }

    const UNKNOWN: &str = "550 5.1.1 Recipient unknown (ref 1)";
    const UNVERIFIED: &str = "450 4.1.1 Recipient can't be verified now, try later (ref 1)";

    #[test]
    fn verify_recipients_tells_the_client_what_the_server_said() {
        check(
            ProbeResult::Accepted(report("250 2.1.5 ok")),
            "accepted",
            "[192.0.2.25]:25 takes <u@here.example>: 250",
        );
        for text in
            ["550 5.1.1 no such user", "550 5.1.10 none", "550 5.2.1 disabled", "550 no such user", "553 who"]
        {
            let reason = format!("[192.0.2.25]:25 refuses <u@here.example>: {text}");
            check(ProbeResult::Rejected(report(text)), UNKNOWN, &reason);
        }
        let nothing = "nobody can tell whether <u@here.example> exists: 450 4.2.0 later";
        check(ProbeResult::Unknown(report("450 4.2.0 later")), UNVERIFIED, nothing);
        check(ProbeResult::Unreachable(report("450 4.2.0 later")), UNVERIFIED, nothing);
    }

    #[test]
    fn verify_recipients_takes_what_a_server_thinks_of_us_for_no_word_about_the_recipient() {
        for text in [
            "554 5.7.1 Client host rejected",
            "550 5.7.1 <>: Sender address rejected",
            "550 5.1.8 sender domain not found",
            "504 5.5.2 need a fully qualified hostname",
            "552 5.2.2 mailbox full",
            "554 no mail from you",
        ] {
            check(
                ProbeResult::Rejected(report(text)),
                UNVERIFIED,
                "[192.0.2.25]:25 objects to us, not to <u@here.example>",
            );
        }
        let own = Report { reply: None, ..report("550 5.1.1 needs SMTPUTF8") };
        check(ProbeResult::Rejected(own), UNVERIFIED, "[192.0.2.25]:25 objects to us");
    }
}
