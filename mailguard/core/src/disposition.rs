//! From findings to what becomes of a message: pure, so that it is tested as a table and explained in a trace.

use serde::{Deserialize, Serialize};

use crate::config::model::{Handling, ScannerFailure};
use crate::finding::{Check, Finding, Opinion, Threat};
use crate::mail::{Envelope, Mailbox};
use crate::smtp::Refusal;

/// What becomes of the message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// Goes to the recipient.
    #[serde(rename = "deliver")]
    Deliver,
    /// Kept from its recipient, for the administrator.
    #[serde(rename = "quarantine")]
    Quarantine(Threat),
    /// Goes to this address instead.
    #[serde(rename = "redirect")]
    Redirect(Mailbox),
    /// Goes nowhere; the trace remains.
    #[serde(rename = "discard")]
    Discard(Threat),
}

/// What becomes of a transaction: refused as a whole, or one disposition a recipient, in the envelope's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The final reply is this refusal; nothing is kept.
    Refuse(Refusal),
    /// The final reply is 250 once all of this is on disk.
    Accept(Vec<Disposition>),
}

/// The part of the configuration that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispositionPolicy {
    /// `[virus] handling`
    pub virus: Handling,
    /// `[files] handling`
    pub files: Handling,
    /// `[virus] on_scanner_failure`
    pub on_scanner_failure: ScannerFailure,
}

/// Decides. A refusal or deferral by any check comes first, then the weightiest threat whose handling isn't `pass`:
/// virus before file.
///
/// A check that could not be made defers the message where what it might have found would change that.
/// `on_scanner_failure` speaks of virus scanners only: what another check can't decide is deferred, whatever is
/// configured, unless its finds are passed anyway.
pub fn decide(policy: &DispositionPolicy, envelope: &Envelope, findings: &[Finding]) -> Decision {
    if let Some(refusal) = findings.iter().find_map(Finding::objection) {
        return Decision::Refuse(refusal.clone());
    }
    let handled = findings
        .iter()
        .filter_map(|finding| match &finding.opinion {
            Opinion::Found(threat) => Some((threat, policy.handling(threat))),
            _ => None,
        })
        .filter(|(_, handling)| !matches!(handling, Handling::Pass))
        .min_by_key(|(threat, _)| *threat);
    let is_settled = matches!(handled, Some((Threat::Virus(_), _)));
    if !is_settled && findings.iter().any(|finding| policy.must_wait(finding)) {
        return Decision::Refuse(Refusal::ScannerFailed);
    }
    let disposition = match handled {
        None | Some((_, Handling::Pass)) => Disposition::Deliver,
        Some((threat, Handling::Quarantine)) => Disposition::Quarantine(threat.clone()),
        Some((threat, Handling::Drop)) => Disposition::Discard(threat.clone()),
        Some((_, Handling::Redirect(address))) => Disposition::Redirect(address.clone()),
    };
    Decision::Accept(vec![disposition; envelope.recipients.len()])
}

impl DispositionPolicy {
    /// Whether the message can't be decided upon because this check wasn't made.
    fn must_wait(&self, finding: &Finding) -> bool {
        if !matches!(finding.opinion, Opinion::Unavailable(_)) {
            return false;
        }
        match finding.check {
            Check::Signatures => self.on_scanner_failure == ScannerFailure::Defer,
            Check::Files => self.files != Handling::Pass,
            _ => true,
        }
    }

    fn handling(&self, threat: &Threat) -> &Handling {
        match threat {
            Threat::Virus(_) => &self.virus,
            Threat::File(_) => &self.files,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{BodyType, ForwardPath, Recipient, ReversePath};

    /// `quarantine`, `drop`, `pass` or an address to redirect to.
    fn handling(word: &str) -> Handling {
        match word {
            "quarantine" => Handling::Quarantine,
            "drop" => Handling::Drop,
            "pass" => Handling::Pass,
            address => Handling::Redirect(Mailbox::parse(address).unwrap()),
        }
    }

    fn finding(word: &str) -> Finding {
        let file = |name: &str| Opinion::Found(Threat::File(name.to_owned()));
        let virus = |name: &str| Opinion::Found(Threat::Virus(name.to_owned()));
        let (check, outcome) = match word {
            "clean" => (Check::Signatures, Opinion::Pass),
            "file" => (Check::Files, file("a.exe")),
            "virus" => (Check::Signatures, virus("Eicar")),
            "no virus scan" => (Check::Signatures, Opinion::Unavailable("timeout".to_owned())),
            "no file check" => (Check::Files, Opinion::Unavailable("unreadable".to_owned())),
            "allow" => (Check::SenderAccess, Opinion::Allow),
            "refuse" => (Check::MessageSize, Opinion::Refuse(Refusal::TooLarge(10))),
            "defer" => (Check::Limits, Opinion::Defer(Refusal::Busy)),
            other => panic!("no finding is called {other}"),
        };
        Finding::new(check, outcome, word)
    }

    fn envelope(recipients: usize) -> Envelope {
        let recipient = Recipient::new(ForwardPath::Postmaster);
        Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![recipient; recipients],
            body: BodyType::SevenBit,
            smtputf8: false,
            dsn_return: None,
            envelope_id: None,
        }
    }

    /// What becomes of each recipient, in words.
    fn in_words(decision: &Decision) -> String {
        match decision {
            Decision::Refuse(refusal) => format!("refuse {:?}", refusal),
            Decision::Accept(dispositions) => {
                let words = dispositions.iter().map(|disposition| match disposition {
                    Disposition::Deliver => "deliver".to_owned(),
                    Disposition::Quarantine(threat) => format!("quarantine ({threat})"),
                    Disposition::Redirect(address) => format!("to {address}"),
                    Disposition::Discard(threat) => format!("discard ({threat})"),
                });
                words.collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Findings of a message to one recipient; `[virus] handling / on_scanner_failure`; `[files] handling`.
    #[track_caller]
    fn check(findings: &str, virus: &str, files: &str, expect: &str) {
        let (virus, failure) = virus.split_once(" / ").unwrap_or((virus, "defer"));
        let policy = DispositionPolicy {
            virus: handling(virus),
            files: handling(files),
            on_scanner_failure: if failure == "pass" { ScannerFailure::Pass } else { ScannerFailure::Defer },
        };
        let findings: Vec<Finding> = findings.split(", ").map(finding).collect();
        assert_eq!(in_words(&decide(&policy, &envelope(1), &findings)), expect);
    }

    #[test]
    #[rustfmt::skip]
    fn what_becomes_of_a_message() {
        // findings               [virus]              [files]         what becomes of it
        check("clean",            "quarantine",        "quarantine",   "deliver");
        check("file",             "quarantine",        "quarantine",   "quarantine (blocked file a.exe)");
        check("file",             "quarantine",        "drop",         "discard (blocked file a.exe)");
        check("file",             "quarantine",        "pass",         "deliver");
        check("file",             "quarantine",        "it@a.test",    "to it@a.test");
        check("virus",            "quarantine",        "quarantine",   "quarantine (virus Eicar)");
        check("virus",            "drop",              "quarantine",   "discard (virus Eicar)");
        check("virus",            "pass",              "quarantine",   "deliver");
        check("virus",            "it@a.test",         "quarantine",   "to it@a.test");
        // Virus before file, whichever was found first, unless its handling is pass.
        check("file, virus",      "drop",              "quarantine",   "discard (virus Eicar)");
        check("virus, file",      "quarantine",        "drop",         "quarantine (virus Eicar)");
        check("file, virus",      "pass",              "quarantine",   "quarantine (blocked file a.exe)");
        check("file, virus",      "pass",              "pass",         "deliver");
        // A check that couldn't be made.
        check("no virus scan",        "quarantine / defer", "quarantine", "refuse ScannerFailed");
        check("no virus scan",        "quarantine / pass",  "quarantine", "deliver");
        check("no virus scan, file",  "quarantine / defer", "quarantine", "refuse ScannerFailed");
        check("no virus scan, file",  "quarantine / pass",  "quarantine", "quarantine (blocked file a.exe)");
        check("no virus scan, virus", "quarantine / pass",  "quarantine", "quarantine (virus Eicar)");
        check("no virus scan, virus", "quarantine / defer", "quarantine", "quarantine (virus Eicar)");
        check("no virus scan, virus", "pass / defer",       "quarantine", "refuse ScannerFailed");
        check("no file check",        "quarantine / pass",  "quarantine", "refuse ScannerFailed");
        check("no file check",        "quarantine / pass",  "pass",       "deliver");
        // Refusals come first. A whitelist never ends content checks.
        check("virus, refuse",    "quarantine",        "quarantine",   "refuse TooLarge(10)");
        check("file, defer",      "quarantine",        "drop",         "refuse Busy");
        check("allow, virus",     "quarantine",        "quarantine",   "quarantine (virus Eicar)");
    }

    #[test]
    fn every_recipient_gets_the_same() {
        let policy = DispositionPolicy {
            virus: Handling::Quarantine,
            files: Handling::Pass,
            on_scanner_failure: ScannerFailure::Defer,
        };
        let decision = decide(&policy, &envelope(3), &[finding("file")]);
        assert_eq!(in_words(&decision), "deliver, deliver, deliver");
    }
}
