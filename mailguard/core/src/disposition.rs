//! From findings to what becomes of a message: pure, so that it is tested as a table and explained in a
//! trace.

use serde::{Deserialize, Serialize};

use crate::config::model::{Handling, ScannerFailure};
use crate::finding::{Family, Finding, Opinion, Threat};
use crate::mail::{Envelope, ForwardPath, Mailbox};
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

/// What becomes of a transaction: refused as a whole, or one disposition a recipient, in the envelope's
/// order.
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

/// Decides, recipient by recipient, each by the policy that holds for it. A refusal or deferral by any check
/// comes first, and a message that can't be decided upon for one recipient is deferred for all: there is no
/// partial refusal.
pub fn decide<'p>(
    envelope: &Envelope,
    findings: &[Finding],
    policy_for: impl Fn(&ForwardPath) -> &'p DispositionPolicy,
) -> Decision {
    if let Some(refusal) = findings.iter().find_map(Finding::objection) {
        return Decision::Refuse(refusal.clone());
    }
    let recipients = envelope.recipients.iter();
    let dispositions: Result<Vec<Disposition>, Refusal> =
        recipients.map(|recipient| policy_for(&recipient.forward_path).disposition(findings)).collect();
    dispositions.map_or_else(Decision::Refuse, Decision::Accept)
}

impl DispositionPolicy {
    /// What becomes of a message without objections: the weightiest threat whose handling isn't `pass`
    /// decides, virus before file. A check that could not be made defers the message where what it might have
    /// found would change that.
    fn disposition(&self, findings: &[Finding]) -> Result<Disposition, Refusal> {
        let handled = findings
            .iter()
            .filter_map(|finding| match &finding.opinion {
                Opinion::Found(threat) => Some((threat, self.handling(threat))),
                _ => None,
            })
            .filter(|(_, handling)| !matches!(handling, Handling::Pass))
            .min_by_key(|(threat, _)| *threat);
        let is_settled = matches!(handled, Some((Threat::Virus(_), _)));
        let is_missing = |finding: &Finding| matches!(finding.opinion, Opinion::Unavailable(_));
        let mut missing = findings.iter().filter(|finding| is_missing(finding));
        if !is_settled && missing.any(|finding| self.must_wait_for(finding.check.family())) {
            return Err(Refusal::ScannerFailed);
        }
        Ok(match handled {
            None | Some((_, Handling::Pass)) => Disposition::Deliver,
            Some((threat, Handling::Quarantine)) => Disposition::Quarantine(threat.clone()),
            Some((threat, Handling::Drop)) => Disposition::Discard(threat.clone()),
            Some((_, Handling::Redirect(address))) => Disposition::Redirect(address.clone()),
        })
    }

    /// What a check of this family counts as that couldn't be made: whether the message has to wait until it
    /// can.
    ///
    /// `on_scanner_failure` speaks of virus scanners only. A file check is waited for unless its finds are
    /// passed anyway. Spam engines add to one score: one that is away adds nothing and holds no mail up.
    fn must_wait_for(&self, family: Family) -> bool {
        match family {
            Family::Policy => true,
            Family::Files => self.files != Handling::Pass,
            Family::Virus => self.on_scanner_failure == ScannerFailure::Defer,
            Family::Spam => false,
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
    use crate::finding::Check;
    use crate::mail::{BodyType, Recipient, ReversePath};
    use crate::points::Points;

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
            "score" => (Check::Files, Opinion::Score(Points::from_hundredths(9_900))),
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
        assert_eq!(in_words(&decide(&envelope(1), &findings, |_| &policy)), expect);
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
        // Points alone decide nothing yet.
        check("score",            "quarantine",        "quarantine",   "deliver");
        check("score, file",      "quarantine",        "drop",         "discard (blocked file a.exe)");
    }

    fn policy(files: &str) -> DispositionPolicy {
        DispositionPolicy {
            virus: Handling::Quarantine,
            files: handling(files),
            on_scanner_failure: ScannerFailure::Defer,
        }
    }

    #[test]
    fn every_recipient_gets_the_same_by_the_same_policy() {
        let policy = policy("pass");
        let decision = decide(&envelope(3), &[finding("file")], |_| &policy);
        assert_eq!(in_words(&decision), "deliver, deliver, deliver");
    }

    #[test]
    fn each_recipient_has_the_disposition_of_its_own_policy() {
        let mut envelope = envelope(2);
        envelope.recipients[1] = Recipient::new(ForwardPath::Mailbox(Mailbox::parse("lab@a.test").unwrap()));
        let (strict, lax) = (policy("quarantine"), policy("pass"));
        let by_recipient = |path: &ForwardPath| if *path == ForwardPath::Postmaster { &strict } else { &lax };
        let decided = |word: &str| in_words(&decide(&envelope, &[finding(word)], by_recipient));
        assert_eq!(decided("file"), "quarantine (blocked file a.exe), deliver");
        assert_eq!(decided("virus"), "quarantine (virus Eicar), quarantine (virus Eicar)");
        // Nobody's is taken while one waits.
        assert_eq!(decided("no file check"), "refuse ScannerFailed");
    }

    #[test]
    fn what_a_check_that_fails_counts_as_is_its_familys() {
        let policy =
            |files: &str, on_scanner_failure| DispositionPolicy { on_scanner_failure, ..policy(files) };
        for (family, defer, pass) in [
            (Family::Policy, true, true),
            (Family::Files, true, false),
            (Family::Virus, true, false),
            (Family::Spam, false, false),
        ] {
            assert_eq!(policy("drop", ScannerFailure::Defer).must_wait_for(family), defer, "{family:?}");
            assert_eq!(policy("pass", ScannerFailure::Pass).must_wait_for(family), pass, "{family:?}");
        }
    }
}
