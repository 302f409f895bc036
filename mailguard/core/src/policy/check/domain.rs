//! The domains of reverse-path and forward-path: whether they are whole names, and whether mail could go
//! there (S4, `[spam_prevention]`). An incoming domain is what the configuration says it is, and the DNS
//! isn't asked about it.
//!
//! What the DNS says comes in as a [`MailDomainStatus`].

use crate::config::Config;
use crate::finding::{Check, Finding, Opinion};
use crate::mail::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::policy::need::{
    About, AskingCheck, Fact, Holds, Known, NO_ANSWER_IN_TIME, Need, Query, Source, Subject,
};
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

/// What the DNS says of the reverse-path's domain.
pub(in crate::policy) const SENDER: AskingCheck = AskingCheck {
    needs: |subject, known| needs(sender_in_question(subject), known),
    judge: |subject, known| {
        let domain = sender_in_question(subject)?;
        Some(stands(Check::SenderDomain, domain, status(known, domain)?, Refusal::SenderDomain))
    },
    about: About::Sender,
};

/// What the DNS says of the forward-path's domain.
pub(in crate::policy) const RECIPIENT: AskingCheck = AskingCheck {
    needs: |subject, known| needs(recipient_in_question(subject), known),
    judge: |subject, known| {
        let domain = recipient_in_question(subject)?;
        Some(stands(Check::RecipientDomain, domain, status(known, domain)?, Refusal::RecipientDomain))
    },
    about: About::Recipient,
};

/// Judges the reverse-path as it is written. The null one has no domain.
pub(in crate::policy) fn sender(config: &Config, reverse_path: &ReversePath) -> Option<Finding> {
    let mailbox = reverse_path.mailbox().filter(|_| config.spam_prevention.reject_non_fqdn_sender)?;
    let refusal = Refusal::SenderDomain(DomainFault::NotQualified);
    Some(not_qualified(Check::SenderDomain, unqualified(config, mailbox)?, refusal))
}

/// Judges the forward-path as it is written. The bare postmaster has no domain.
pub(in crate::policy) fn recipient(config: &Config, forward_path: &ForwardPath) -> Option<Finding> {
    let mailbox = forward_path.mailbox().filter(|_| config.spam_prevention.reject_non_fqdn_recipient)?;
    let refusal = Refusal::RecipientDomain(DomainFault::NotQualified);
    Some(not_qualified(Check::RecipientDomain, unqualified(config, mailbox)?, refusal))
}

fn unqualified<'a>(config: &Config, mailbox: &'a Mailbox) -> Option<&'a Domain> {
    others(config, mailbox).filter(|domain| !domain.is_fully_qualified())
}

/// The domain, unless it is an incoming one.
fn others<'a>(config: &Config, mailbox: &'a Mailbox) -> Option<&'a Domain> {
    mailbox.domain().filter(|domain| config.incoming_domain(domain).is_none())
}

fn not_qualified(check: Check, domain: &Domain, refusal: Refusal) -> Finding {
    Finding::new(check, Opinion::Refuse(refusal), format!("{domain} is not a fully qualified name"))
}

/// The domain of the reverse-path, if the DNS is to be asked about it.
fn sender_in_question<'a>(subject: &Subject<'a>) -> Option<&'a Domain> {
    let asks = subject.config.spam_prevention.reject_unknown_sender_domain;
    others(subject.config, subject.reverse_path.mailbox().filter(|_| asks)?)
}

/// The domain of the forward-path, if the DNS is to be asked about it.
fn recipient_in_question<'a>(subject: &Subject<'a>) -> Option<&'a Domain> {
    let asks = subject.config.spam_prevention.reject_unknown_recipient_domain;
    others(subject.config, subject.forward_path.mailbox().filter(|_| asks)?)
}

fn needs(domain: Option<&Domain>, known: &Known) -> Vec<Need> {
    let unknown = domain.filter(|domain| status(known, domain).is_none());
    let need = unknown.map(|domain| Need {
        query: Query::MailDomain(domain.clone()),
        source: Source::Dns,
        within: None,
        holds: Holds::Transaction,
        unanswered: Fact::MailDomain(
            domain.clone(),
            MailDomainStatus::Unavailable(NO_ANSWER_IN_TIME.to_owned()),
        ),
    });
    need.into_iter().collect()
}

fn status<'a>(known: &'a Known, domain: &Domain) -> Option<&'a MailDomainStatus> {
    known.find(|fact| match fact {
        Fact::MailDomain(of, status) if of == domain => Some(status),
        _ => None,
    })
}

fn stands(
    check: Check,
    domain: &Domain,
    status: &MailDomainStatus,
    refusal: fn(DomainFault) -> Refusal,
) -> Finding {
    let (outcome, reason) = match status {
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
    use crate::policy::Trust;
    use crate::testing;

    /// Everything is refused, or nothing; mail for "inside" comes in.
    fn refusing(everything: bool) -> Config {
        testing::config(&format!(
            r#"incoming_domain = [{{ domain = "inside", server = "192.0.2.25" }}]
            [spam_prevention]
            reject_non_fqdn_recipient = {everything}
            reject_non_fqdn_sender = {everything}
            reject_unknown_recipient_domain = {everything}
            reject_unknown_sender_domain = {everything}"#
        ))
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

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn unqualified_domains_are_refused_where_that_is_asked_for() {
        for (path, refused) in [
            ("a@localhost", true),
            ("a@inside", false),
            ("a@b.example", false),
            ("a@[192.0.2.1]", false),
            ("", false),
            ("postmaster", false),
        ] {
            let refusal = |finding: Option<Finding>| finding.and_then(|finding| finding.objection().cloned());
            if path != "postmaster" {
                let expect = refused.then_some(Refusal::SenderDomain(DomainFault::NotQualified));
                assert_eq!(refusal(super::sender(&refusing(true), &sender(path))), expect, "{path}");
                assert_eq!(super::sender(&refusing(false), &sender(path)), None, "{path}");
            }
            if !path.is_empty() {
                let expect = refused.then_some(Refusal::RecipientDomain(DomainFault::NotQualified));
                assert_eq!(refusal(super::recipient(&refusing(true), &recipient(path))), expect, "{path}");
                assert_eq!(super::recipient(&refusing(false), &recipient(path)), None, "{path}");
            }
        }
    }

    /// What is asked about sender and recipient, and what is found, when this is known.
    fn check(
        config: &Config,
        (reverse_path, forward_path): (&ReversePath, &ForwardPath),
        known: &Known,
    ) -> [(Vec<Query>, Option<Finding>); 2] {
        let client = "192.0.2.1".parse().unwrap();
        let subject =
            Subject { config, trust: Trust::Trusted, client, helo: None, reverse_path, forward_path };
        [SENDER, RECIPIENT].map(|AskingCheck { needs, judge, .. }| {
            let needs = needs(&subject, known);
            (needs.into_iter().map(|need| need.query).collect(), judge(&subject, known))
        })
    }

    #[test]
    fn the_dns_is_asked_about_domains_of_others_only() {
        let nothing = || [(vec![], None), (vec![], None)];
        for (path, asked) in [
            ("a@b.example", Some("b.example")),
            ("a@inside", None),
            ("a@sub.inside", Some("sub.inside")),
            ("a@[192.0.2.1]", None),
        ] {
            let paths = (&sender(path), &recipient(path));
            let queries: Vec<_> = asked.map(|name| Query::MailDomain(domain(name))).into_iter().collect();
            let expect = [(queries.clone(), None), (queries, None)];
            assert_eq!(check(&refusing(true), paths, &Known::default()), expect, "{path}");
            assert_eq!(check(&refusing(false), paths, &Known::default()), nothing(), "{path}");
        }
        let paths = (&ReversePath::Null, &ForwardPath::Postmaster);
        assert_eq!(check(&refusing(true), paths, &Known::default()), nothing());
    }

    #[test]
    fn what_the_dns_says_decides() {
        for (status, sender_codes, recipient_codes) in [
            (MailDomainStatus::TakesMail, None, None),
            (MailDomainStatus::Unknown, Some("550 5.1.8"), Some("550 5.1.2")),
            (MailDomainStatus::NullMx, Some("550 5.7.27"), Some("556 5.1.10")),
            (MailDomainStatus::Unavailable("timeout".to_owned()), Some("450 4.1.8"), Some("450 4.1.2")),
        ] {
            let mut known = Known::default();
            known.learn(Fact::MailDomain(domain("b.example"), status.clone()), Holds::Transaction);
            let paths = (&sender("a@b.example"), &recipient("c@b.example"));
            let found = check(&refusing(true), paths, &known).map(|(queries, finding)| {
                assert_eq!(queries, [], "{status:?}");
                let finding = finding.unwrap();
                finding.objection().map(Refusal::codes).map(|(code, status)| format!("{code} {status}"))
            });
            assert_eq!(found.each_ref().map(Option::as_deref), [sender_codes, recipient_codes], "{status:?}");
        }
    }
}
