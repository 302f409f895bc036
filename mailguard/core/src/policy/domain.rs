//! The domains of reverse-path and forward-path: whether they are whole names, and whether mail could go there (S4,
//! `[spam_prevention]`).
//!
//! What the DNS says comes in as a [`Standing`]; [`sender_in_question`] and [`recipient_in_question`] say whether it is needed at
//! all.

use crate::config::model::{IncomingDomain, SpamPrevention};
use crate::finding::{Check, Finding, Outcome};
use crate::mail::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::smtp::{DomainFault, Refusal};

/// What the DNS says of a domain as one that mail goes to (RFC 5321 §5.1, RFC 7505).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
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
pub fn judge_sender(prevention: &SpamPrevention, reverse_path: &ReversePath) -> Vec<Finding> {
    let unqualified =
        reverse_path.mailbox().filter(|_| prevention.reject_non_fqdn_sender).and_then(unqualified);
    let refusal = Refusal::SenderDomain(DomainFault::NotQualified);
    unqualified.map(|domain| not_qualified(Check::SenderDomain, domain, refusal)).into_iter().collect()
}

/// Judges the forward-path as it is written. The bare postmaster has no domain.
pub fn judge_recipient(prevention: &SpamPrevention, forward_path: &ForwardPath) -> Vec<Finding> {
    let unqualified =
        forward_path.mailbox().filter(|_| prevention.reject_non_fqdn_recipient).and_then(unqualified);
    let refusal = Refusal::RecipientDomain(DomainFault::NotQualified);
    unqualified.map(|domain| not_qualified(Check::RecipientDomain, domain, refusal)).into_iter().collect()
}

fn unqualified(mailbox: &Mailbox) -> Option<&Domain> {
    mailbox.domain().filter(|domain| !domain.is_fully_qualified())
}

fn not_qualified(check: Check, domain: &Domain, refusal: Refusal) -> Finding {
    Finding::new(check, Outcome::Refuse(refusal), format!("{domain} is not a fully qualified name"))
}

/// The domain of the reverse-path, if the DNS is to be asked about it.
pub fn sender_in_question<'a>(
    prevention: &SpamPrevention,
    reverse_path: &'a ReversePath,
) -> Option<&'a Domain> {
    reverse_path.mailbox().filter(|_| prevention.reject_unknown_sender_domain)?.domain()
}

/// The domain of the forward-path, if the DNS is to be asked about it: never about an incoming domain, whose server the
/// configuration names.
pub fn recipient_in_question<'a>(
    prevention: &SpamPrevention,
    incoming: &[IncomingDomain],
    forward_path: &'a ForwardPath,
) -> Option<&'a Domain> {
    let domain = forward_path.mailbox().filter(|_| prevention.reject_unknown_recipient_domain)?.domain()?;
    (!incoming.iter().any(|incoming| incoming.matches(domain))).then_some(domain)
}

/// Judges what the DNS says of the reverse-path's domain.
pub fn judge_sender_standing(domain: &Domain, standing: &Standing) -> Finding {
    stands(Check::SenderDomain, domain, standing, Refusal::SenderDomain)
}

/// Judges what the DNS says of the forward-path's domain.
pub fn judge_recipient_standing(domain: &Domain, standing: &Standing) -> Finding {
    stands(Check::RecipientDomain, domain, standing, Refusal::RecipientDomain)
}

fn stands(
    check: Check,
    domain: &Domain,
    standing: &Standing,
    refusal: fn(DomainFault) -> Refusal,
) -> Finding {
    let (outcome, reason) = match standing {
        Standing::TakesMail => (Outcome::Pass, format!("{domain} takes mail")),
        Standing::Unknown => (
            Outcome::Refuse(refusal(DomainFault::Unknown)),
            format!("{domain} has neither a mail exchanger nor an address"),
        ),
        Standing::NullMx => (
            Outcome::Refuse(refusal(DomainFault::NullMx)),
            format!("{domain} has a null MX: it takes no mail"),
        ),
        Standing::Unavailable(cause) => (
            Outcome::Defer(refusal(DomainFault::Unavailable)),
            format!("nobody can tell whether {domain} exists: {cause}"),
        ),
    };
    Finding::new(check, outcome, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: SpamPrevention = SpamPrevention {
        reject_non_fqdn_recipient: true,
        reject_non_fqdn_sender: true,
        reject_non_fqdn_helo: true,
        reject_unknown_recipient_domain: true,
        reject_unknown_sender_domain: true,
    };
    const NONE: SpamPrevention = SpamPrevention {
        reject_non_fqdn_recipient: false,
        reject_non_fqdn_sender: false,
        reject_non_fqdn_helo: false,
        reject_unknown_recipient_domain: false,
        reject_unknown_sender_domain: false,
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

    fn refusals(findings: &[Finding]) -> Vec<Refusal> {
        findings.iter().filter_map(|finding| finding.objection().cloned()).collect()
    }

    #[test]
    fn unqualified_domains_are_refused_where_that_is_asked_for() {
        let objection = Refusal::SenderDomain(DomainFault::NotQualified);
        for (path, refused) in
            [("a@localhost", true), ("a@b.example", false), ("a@[192.0.2.1]", false), ("", false)]
        {
            let seen = refusals(&judge_sender(&ALL, &sender(path)));
            assert_eq!(seen, if refused { vec![objection.clone()] } else { vec![] }, "{path}");
            assert_eq!(judge_sender(&NONE, &sender(path)), [], "{path}");
        }
        let objection = Refusal::RecipientDomain(DomainFault::NotQualified);
        for (path, refused) in
            [("a@localhost", true), ("a@b.example", false), ("a@[192.0.2.1]", false), ("postmaster", false)]
        {
            let seen = refusals(&judge_recipient(&ALL, &recipient(path)));
            assert_eq!(seen, if refused { vec![objection.clone()] } else { vec![] }, "{path}");
            assert_eq!(judge_recipient(&NONE, &recipient(path)), [], "{path}");
        }
    }

    #[test]
    fn the_dns_is_asked_about_domains_of_others_only() {
        let incoming = [IncomingDomain {
            domain: Domain::parse("here.example").unwrap(),
            subdomains: false,
            server: "192.0.2.25:25".parse().unwrap(),
        }];
        let name = |domain: Option<&Domain>| domain.map(|domain| domain.to_string());
        for (path, asked) in [("a@b.example", Some("b.example")), ("a@[192.0.2.1]", None), ("", None)] {
            assert_eq!(name(sender_in_question(&ALL, &sender(path))).as_deref(), asked, "{path}");
            assert_eq!(sender_in_question(&NONE, &sender(path)), None, "{path}");
        }
        for (path, asked) in [
            ("a@b.example", Some("b.example")),
            ("a@here.example", None),
            ("a@sub.here.example", Some("sub.here.example")),
            ("a@[192.0.2.1]", None),
            ("postmaster", None),
        ] {
            let seen = recipient(path);
            assert_eq!(name(recipient_in_question(&ALL, &incoming, &seen)).as_deref(), asked, "{path}");
            assert_eq!(recipient_in_question(&NONE, &incoming, &seen), None, "{path}");
        }
    }

    #[test]
    fn an_outage_is_no_answer() {
        let domain = Domain::parse("b.example").unwrap();
        for (standing, sender, recipient) in [
            (Standing::TakesMail, None, None),
            (Standing::Unknown, Some("550 5.1.8"), Some("550 5.1.2")),
            (Standing::NullMx, Some("550 5.7.27"), Some("556 5.1.10")),
            (Standing::Unavailable("no server".to_owned()), Some("450 4.1.8"), Some("450 4.1.2")),
        ] {
            let reply = |finding: Finding| finding.objection().map(|refusal| refusal.reply("x").to_string());
            for (seen, expect) in [
                (reply(judge_sender_standing(&domain, &standing)), sender),
                (reply(judge_recipient_standing(&domain, &standing)), recipient),
            ] {
                assert_eq!(
                    seen.as_deref().map(|seen| &seen[..expect.map_or(0, str::len)]),
                    expect,
                    "{standing:?}"
                );
            }
        }
    }
}
