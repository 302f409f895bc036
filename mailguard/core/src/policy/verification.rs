//! Recipient verification (S11): whether the server of an incoming domain would take mail for a recipient, before we
//! do. Mail for nobody is refused while its sender still listens, and no report goes to a forged address.
//!
//! Asking, and for how long an answer holds, is left to the program.

use std::net::SocketAddr;

use crate::config::Config;
use crate::finding::{self, Check, Finding};
use crate::mail::ForwardPath;
use crate::outcome::Outcome;
use crate::smtp::Refusal;

/// Most octets of a server's words in a reason.
const MAX_REASON_OCTETS: usize = 256;

/// The server to ask about this recipient, if one is to be asked. The bare postmaster is always here.
pub fn server_in_question(config: &Config, forward_path: &ForwardPath) -> Option<SocketAddr> {
    let mailbox = forward_path.mailbox().filter(|_| config.server.verify_recipients)?;
    config.incoming_domain(mailbox.domain()?).map(|incoming| incoming.server)
}

/// Judges what the server said of the recipient: `Delivered` is that it takes it, `Failed` that it never will.
pub fn judge(forward_path: &ForwardPath, word: &Outcome) -> Finding {
    let text = &word.report().text;
    let text = &text[..text.floor_char_boundary(MAX_REASON_OCTETS)];
    let (outcome, reason) = match word {
        Outcome::Delivered(report) | Outcome::Relayed(report) => {
            (finding::Outcome::Pass, format!("{} takes {forward_path}: {text}", report.remote))
        }
        Outcome::Failed(report) => (
            finding::Outcome::Refuse(Refusal::RecipientUnknown),
            format!("{} refuses {forward_path}: {text}", report.remote),
        ),
        Outcome::Deferred(_) => (
            finding::Outcome::Defer(Refusal::RecipientUnverified),
            format!("nobody can tell whether {forward_path} exists: {text}"),
        ),
    };
    Finding::new(Check::RecipientVerification, outcome, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::ENGLISH;
    use crate::mail::Mailbox;
    use crate::outcome::Report;
    use crate::smtp::EnhancedStatus;

    #[test]
    fn what_the_server_said_is_what_the_client_hears() {
        let path = ForwardPath::Mailbox(Mailbox::parse("u@here.example").unwrap());
        let report = Report {
            status: EnhancedStatus::new(5, 1, 1),
            remote: "[192.0.2.25]:25".to_owned(),
            reply: None,
            text: "550 5.1.1 no such user".to_owned(),
        };
        for (word, reply, reason) in [
            (
                Outcome::Delivered(report.clone()),
                "accepted",
                "[192.0.2.25]:25 takes <u@here.example>: 550 5.1.1 no such user",
            ),
            (
                Outcome::Failed(report.clone()),
                "550 5.1.1 Recipient unknown (ref 1)",
                "[192.0.2.25]:25 refuses <u@here.example>: 550 5.1.1 no such user",
            ),
            (
                Outcome::Deferred(report),
                "450 4.1.1 Recipient can't be verified now, try later (ref 1)",
                "nobody can tell whether <u@here.example> exists: 550 5.1.1 no such user",
            ),
        ] {
            let finding = judge(&path, &word);
            let said = finding
                .objection()
                .map_or("accepted".to_owned(), |refusal| refusal.reply(1, ENGLISH).to_string());
            assert_eq!((said.trim_end(), finding.reason.as_str()), (reply, reason));
        }
    }
}
