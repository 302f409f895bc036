//! The domains of reverse-path and forward-path: whether they are whole names, and whether mail could go there (S4,
//! `[spam_prevention]`). An incoming domain is what the configuration says it is, and the DNS isn't asked about it.
//!
//! What the DNS says comes in as a [`MailDomainStatus`]; [`sender_in_question`] and [`recipient_in_question`] say whether it is
//! needed at all.

use crate::config::model::{IncomingDomain, SpamPrevention};
use crate::finding::{Check, Finding, Opinion};
use crate::mail::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::smtp::{DomainFault, Refusal};

/// What the DNS says of a domain as one that mail goes to (RFC 5321 §5.1, RFC 7505).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailDomainStatus {
    /// It has a mail exchanger, or an address.
    TakesMail,
    /// It has neither.
    Unknown,
    /// It says that it takes no mail.
    NullMx,
    /// Nobody can tell now; why, in one line.
    Unavailable(String),
}

/// Judges the reverse-path as it is written. The null one has no domain.
pub fn judge_sender(
    prevention: &SpamPrevention,
    incoming: &[IncomingDomain],
    reverse_path: &ReversePath,
) -> Vec<Finding> {
    let mailbox = reverse_path.mailbox().filter(|_| prevention.reject_non_fqdn_sender);
    let unqualified = mailbox.and_then(|mailbox| unqualified(mailbox, incoming));
    let refusal = Refusal::SenderDomain(DomainFault::NotQualified);
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
    let refusal = Refusal::RecipientDomain(DomainFault::NotQualified);
    unqualified.map(|domain| not_qualified(Check::RecipientDomain, domain, refusal)).into_iter().collect()
}

fn unqualified<'a>(mailbox: &'a Mailbox, incoming: &[IncomingDomain]) -> Option<&'a Domain> {
    others(mailbox, incoming).filter(|domain| !domain.is_fully_qualified())
}

/// The domain, unless it is an incoming one.
fn others<'a>(mailbox: &'a Mailbox, incoming: &[IncomingDomain]) -> Option<&'a Domain> {
    mailbox.domain().filter(|domain| !incoming.iter().any(|incoming| incoming.matches(domain)))
}

fn not_qualified(check: Check, domain: &Domain, refusal: Refusal) -> Finding {
    Finding::new(check, Opinion::Refuse(refusal), format!("{domain} is not a fully qualified name"))
}

/// The domain of the reverse-path, if the DNS is to be asked about it.
pub fn sender_in_question<'a>(
    prevention: &SpamPrevention,
    incoming: &[IncomingDomain],
    reverse_path: &'a ReversePath,
) -> Option<&'a Domain> {
    let mailbox = reverse_path.mailbox().filter(|_| prevention.reject_unknown_sender_domain)?;
    others(mailbox, incoming)
}

/// The domain of the forward-path, if the DNS is to be asked about it.
pub fn recipient_in_question<'a>(
    prevention: &SpamPrevention,
    incoming: &[IncomingDomain],
    forward_path: &'a ForwardPath,
) -> Option<&'a Domain> {
    let mailbox = forward_path.mailbox().filter(|_| prevention.reject_unknown_recipient_domain)?;
    others(mailbox, incoming)
}

/// Judges what the DNS says of the reverse-path's domain.
pub fn judge_sender_standing(domain: &Domain, standing: &MailDomainStatus) -> Finding {
    stands(Check::SenderDomain, domain, standing, Refusal::SenderDomain)
}

/// Judges what the DNS says of the forward-path's domain.
pub fn judge_recipient_standing(domain: &Domain, standing: &MailDomainStatus) -> Finding {
    stands(Check::RecipientDomain, domain, standing, Refusal::RecipientDomain)
}

fn stands(
    check: Check,
    domain: &Domain,
    standing: &MailDomainStatus,
    refusal: fn(DomainFault) -> Refusal,
) -> Finding {
    let (outcome, reason) = match standing {
        MailDomainStatus::TakesMail => (Opinion::Pass, format!("{domain} takes mail")),
        MailDomainStatus::Unknown => (
            Opinion::Refuse(refusal(DomainFault::Unknown)),
            format!("{domain} has neither a mail exchanger nor an address"),
        ),
        MailDomainStatus::NullMx => (
            Opinion::Refuse(refusal(DomainFault::NullMx)),
            format!("{domain} has a null MX: it takes no mail"),
        ),
        MailDomainStatus::Unavailable(cause) => (
            Opinion::Defer(refusal(DomainFault::Unavailable)),
            format!("nobody can tell whether {domain} exists: {cause}"),
        ),
    };
    Finding::new(check, outcome, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    /// Everything is refused, or nothing.
    fn refusing(everything: bool) -> SpamPrevention {
        let text = format!(
            "[spam_prevention]
            reject_non_fqdn_recipient = {everything}
            reject_non_fqdn_sender = {everything}
            reject_unknown_recipient_domain = {everything}
            reject_unknown_sender_domain = {everything}"
        );
        config(&text).spam_prevention
    }

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

    fn incoming() -> Vec<IncomingDomain> {
        config(r#"incoming_domain = [{ domain = "inside", server = "192.0.2.25" }]"#).incoming_domains
    }

    fn refusals(findings: &[Finding]) -> Vec<Refusal> {
        findings.iter().filter_map(|finding| finding.objection().cloned()).collect()
    }

    #[test]
    fn unqualified_domains_are_refused_where_that_is_asked_for() {
        let (all, none) = (refusing(true), refusing(false));
        for (path, refused) in [
            ("a@localhost", true),
            ("a@inside", false),
            ("a@b.example", false),
            ("a@[192.0.2.1]", false),
            ("", false),
            ("postmaster", false),
        ] {
            let expect = |refusal| if refused { vec![refusal] } else { vec![] };
            if path != "postmaster" {
                let seen = refusals(&judge_sender(&all, &incoming(), &sender(path)));
                assert_eq!(seen, expect(Refusal::SenderDomain(DomainFault::NotQualified)), "{path}");
                assert_eq!(judge_sender(&none, &incoming(), &sender(path)), [], "{path}");
            }
            if !path.is_empty() {
                let seen = refusals(&judge_recipient(&all, &incoming(), &recipient(path)));
                assert_eq!(seen, expect(Refusal::RecipientDomain(DomainFault::NotQualified)), "{path}");
                assert_eq!(judge_recipient(&none, &incoming(), &recipient(path)), [], "{path}");
            }
        }
    }

    #[test]
    fn the_dns_is_asked_about_domains_of_others_only() {
        let (all, none) = (refusing(true), refusing(false));
        let name = |domain: Option<&Domain>| domain.map(|domain| domain.to_string());
        for (path, asked) in [
            ("a@b.example", Some("b.example")),
            ("a@inside", None),
            ("a@sub.inside", Some("sub.inside")),
            ("a@[192.0.2.1]", None),
        ] {
            let (from, to) = (sender(path), recipient(path));
            assert_eq!(name(sender_in_question(&all, &incoming(), &from)).as_deref(), asked, "{path}");
            assert_eq!(name(recipient_in_question(&all, &incoming(), &to)).as_deref(), asked, "{path}");
            assert_eq!(sender_in_question(&none, &incoming(), &from), None, "{path}");
            assert_eq!(recipient_in_question(&none, &incoming(), &to), None, "{path}");
        }
        assert_eq!(sender_in_question(&all, &incoming(), &ReversePath::Null), None);
        assert_eq!(recipient_in_question(&all, &incoming(), &ForwardPath::Postmaster), None);
    }

    #[test]
    fn what_the_dns_says_decides() {
        let domain = Domain::parse("b.example").unwrap();
        for (standing, sender, recipient) in [
            (MailDomainStatus::TakesMail, None, None),
            (MailDomainStatus::Unknown, Some("550 5.1.8"), Some("550 5.1.2")),
            (MailDomainStatus::NullMx, Some("550 5.7.27"), Some("556 5.1.10")),
            (MailDomainStatus::Unavailable("timeout".to_owned()), Some("450 4.1.8"), Some("450 4.1.2")),
        ] {
            let codes = |finding: Finding| {
                finding.objection().map(Refusal::codes).map(|(code, status)| format!("{code} {status}"))
            };
            assert_eq!(codes(judge_sender_standing(&domain, &standing)).as_deref(), sender, "{standing:?}");
            let seen = codes(judge_recipient_standing(&domain, &standing));
            assert_eq!(seen.as_deref(), recipient, "{standing:?}");
        }
    }
}
