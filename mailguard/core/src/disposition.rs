//! From findings to what becomes of a message: pure, so that it is tested as a table and explained in a trace.

use serde::{Deserialize, Serialize};

use crate::config::model::{Handling, ScannerFailure};
use crate::finding::{Finding, Outcome, Threat};
use crate::mail::{Envelope, Mailbox};
use crate::smtp::Refusal;

/// What becomes of the message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disposition {
    /// Goes to the recipient.
    Deliver,
    /// Withheld; kept for the administrator.
    Quarantine(Threat),
    /// Goes to this address instead.
    Redirect(Mailbox),
    /// Goes nowhere; the trace remains.
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

/// Decides. A refusal or deferral by any check comes first, then a check that could not be made, then the
/// weightiest threat whose handling isn't `pass`: virus before file.
pub fn decide(policy: &DispositionPolicy, envelope: &Envelope, findings: &[Finding]) -> Decision {
    if let Some(refusal) = findings.iter().find_map(Finding::objection) {
        return Decision::Refuse(refusal.clone());
    }
    let unavailable = findings.iter().any(|finding| matches!(finding.outcome, Outcome::Unavailable(_)));
    if unavailable && policy.on_scanner_failure == ScannerFailure::Defer {
        return Decision::Refuse(Refusal::ScannerFailed);
    }
    let handled = findings
        .iter()
        .filter_map(|finding| match &finding.outcome {
            Outcome::Found(threat) => Some((threat, policy.handling(threat))),
            _ => None,
        })
        .filter(|(_, handling)| !matches!(handling, Handling::Pass))
        .min_by_key(|(threat, _)| *threat);
    let disposition = match handled {
        None | Some((_, Handling::Pass)) => Disposition::Deliver,
        Some((threat, Handling::Quarantine)) => Disposition::Quarantine(threat.clone()),
        Some((threat, Handling::Drop)) => Disposition::Discard(threat.clone()),
        Some((_, Handling::Redirect(address))) => Disposition::Redirect(address.clone()),
    };
    Decision::Accept(vec![disposition; envelope.recipients.len()])
}

impl DispositionPolicy {
    fn handling(&self, threat: &Threat) -> &Handling {
        match threat {
            Threat::Virus(_) => &self.virus,
            Threat::File(_) => &self.files,
        }
    }
}
