//! The domains of reverse-path and forward-path: whether they are whole names (S4, `[spam_prevention]`). An incoming domain is
//! what the configuration says it is.

use crate::config::model::{IncomingDomain, SpamPrevention};
use crate::finding::{Check, Finding, Outcome};
use crate::mail::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::smtp::Refusal;

/// Judges the reverse-path as it is written. The null one has no domain.
pub fn judge_sender(
    prevention: &SpamPrevention,
    incoming: &[IncomingDomain],
    reverse_path: &ReversePath,
) -> Vec<Finding> {
    let mailbox = reverse_path.mailbox().filter(|_| prevention.reject_non_fqdn_sender);
    let unqualified = mailbox.and_then(|mailbox| unqualified(mailbox, incoming));
    let refusal = Refusal::SenderNotQualified;
    unqualified.map(|domain| not_qualified(Check::SenderDomain, domain, refusal)).into_iter().collect()
}

/// Judges the forward-path as it is written. The bare postmaster has no domain.
pub fn judge_recipient(
    prevention: &SpamPrevention,
    incoming: &[IncomingDomain],
    forward_path: &ForwardPath,
) -> Vec<Finding> {
    let mailbox = forward_path.mailbox().filter(|_| prevention.reject_non_fqdn_recipient);
    let unqualified = mailbox.and_then(|mailbox| unqualified(mailbox, incoming));
    let refusal = Refusal::RecipientNotQualified;
    unqualified.map(|domain| not_qualified(Check::RecipientDomain, domain, refusal)).into_iter().collect()
}

fn unqualified<'a>(mailbox: &'a Mailbox, incoming: &[IncomingDomain]) -> Option<&'a Domain> {
    let is_ours = |domain: &Domain| incoming.iter().any(|incoming| incoming.matches(domain));
    mailbox.domain().filter(|domain| !domain.is_fully_qualified() && !is_ours(domain))
}

fn not_qualified(check: Check, domain: &Domain, refusal: Refusal) -> Finding {
    Finding::new(check, Outcome::Refuse(refusal), format!("{domain} is not a fully qualified name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: SpamPrevention = SpamPrevention {
        reject_non_fqdn_recipient: true,
        reject_non_fqdn_sender: true,
        reject_non_fqdn_helo: true,
    };
    const NONE: SpamPrevention = SpamPrevention {
        reject_non_fqdn_recipient: false,
        reject_non_fqdn_sender: false,
        reject_non_fqdn_helo: false,
    };

    fn sender(path: &str) -> ReversePath {
        match path {
            "" => ReversePath::Null,
            path => ReversePath::Mailbox(Mailbox::parse(path).unwrap()),
        }
    }

    fn recipient(path: &str) -> ForwardPath {
        match path {
            "postmaster" => ForwardPath::Postmaster,
            path => ForwardPath::Mailbox(Mailbox::parse(path).unwrap()),
        }
    }

    fn incoming() -> [IncomingDomain; 1] {
        let domain = Domain::parse("inside").unwrap();
        [IncomingDomain { domain, subdomains: false, server: "192.0.2.25:25".parse().unwrap() }]
    }

    fn refusals(findings: &[Finding]) -> Vec<Refusal> {
        findings.iter().filter_map(|finding| finding.objection().cloned()).collect()
    }

    #[test]
    fn unqualified_domains_are_refused_where_that_is_asked_for() {
        let objection = Refusal::SenderNotQualified;
        for (path, refused) in [
            ("a@localhost", true),
            ("a@inside", false),
            ("a@b.example", false),
            ("a@[192.0.2.1]", false),
            ("", false),
        ] {
            let seen = refusals(&judge_sender(&ALL, &incoming(), &sender(path)));
            assert_eq!(seen, if refused { vec![objection.clone()] } else { vec![] }, "{path}");
            assert_eq!(judge_sender(&NONE, &incoming(), &sender(path)), [], "{path}");
        }
        let objection = Refusal::RecipientNotQualified;
        for (path, refused) in [
            ("a@localhost", true),
            ("a@inside", false),
            ("a@b.example", false),
            ("a@[192.0.2.1]", false),
            ("postmaster", false),
        ] {
            let seen = refusals(&judge_recipient(&ALL, &incoming(), &recipient(path)));
            assert_eq!(seen, if refused { vec![objection.clone()] } else { vec![] }, "{path}");
            assert_eq!(judge_recipient(&NONE, &incoming(), &recipient(path)), [], "{path}");
        }
    }
}
