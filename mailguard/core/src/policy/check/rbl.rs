//! DNS block lists: what is asked about a client and a transaction, and what the answers come to (S9,
//! `[rbl]`).
//!
//! How a list is asked and what its codes mean is `crate::rbl`'s.

use std::net::IpAddr;

use super::access::{known_names, names_of};
use crate::config::model::Rbl;
use crate::finding::{Check, Finding, Opinion};
use crate::lookup::Lookup;
use crate::mail::{Domain, ReversePath};
use crate::policy::Trust;
use crate::policy::need::{
    About, AskingCheck, Fact, Holds, Known, NO_ANSWER_IN_TIME, Need, Query, Source, Subject,
};
use crate::rbl::{Listing, query_for_address, query_for_domain};
use crate::smtp::Refusal;

/// One question to one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RblQuery {
    /// The list.
    pub zone: String,
    /// Whom it is about, for people.
    pub subject: String,
    /// The name to look up.
    pub query: String,
}

/// The block lists, about unauthenticated clients of red zones.
pub(in crate::policy) const LISTS: AskingCheck = AskingCheck {
    needs: |subject, known| {
        let Some(rbl) = asked(subject) else { return Vec::new() };
        let names = names(rbl, known);
        let missing = names.is_none().then(|| Need { within: Some(rbl.timeout), ..names_of(subject.client) });
        let queries = of_subject(rbl, subject, names.unwrap_or_default()).into_iter();
        let unknown = queries.filter(|query| listing(known, query).is_none());
        missing.into_iter().chain(unknown.map(|query| need(rbl, query))).collect()
    },
    judge: |subject, known| {
        let rbl = asked(subject)?;
        let queries = of_subject(rbl, subject, names(rbl, known)?).into_iter();
        let answers = queries.map(|query| Some((listing(known, &query)?.clone(), query)));
        Some(judge(&answers.collect::<Option<Vec<_>>>()?))
    },
    about: About::Sender,
};

fn asked<'a>(subject: &Subject<'a>) -> Option<&'a Rbl> {
    subject.config.rbl.as_ref().filter(|_| subject.trust == Trust::Untrusted)
}

/// The client's names, once they are known, if they are needed at all.
fn names<'a>(rbl: &Rbl, known: &'a Known) -> Option<&'a [Domain]> {
    if rbl.domain_lists.is_empty() {
        return Some(&[]);
    }
    known_names(known).map(|names| match names {
        Lookup::Found(names) => names.as_slice(),
        Lookup::Absent | Lookup::Unavailable(_) => &[],
    })
}

fn of_subject(rbl: &Rbl, subject: &Subject<'_>, names: &[Domain]) -> Vec<RblQuery> {
    queries(rbl, subject.client, subject.reverse_path, subject.helo.as_ref(), names)
}

fn need(rbl: &Rbl, query: RblQuery) -> Need {
    Need {
        query: Query::BlockList(query.clone()),
        source: Source::Dns,
        within: Some(rbl.timeout),
        holds: Holds::Transaction,
        unanswered: Fact::BlockList(query, Listing::Unusable(NO_ANSWER_IN_TIME.to_owned())),
    }
}

fn listing<'a>(known: &'a Known, query: &RblQuery) -> Option<&'a Listing> {
    known.find(|fact| match fact {
        Fact::BlockList(asked, listing) if asked == query => Some(listing),
        _ => None,
    })
}

/// What is asked: the IP lists about the client, the domain lists about the domains of reverse-path, HELO and
/// client, each domain once.
pub fn queries(
    rbl: &Rbl,
    client: IpAddr,
    reverse_path: &ReversePath,
    helo: Option<&Domain>,
    names: &[Domain],
) -> Vec<RblQuery> {
    let by_address = rbl.ip_lists.iter().map(|zone| RblQuery {
        zone: zone.clone(),
        subject: client.to_string(),
        query: query_for_address(client, zone),
    });
    let mut domains: Vec<&Domain> = Vec::new();
    let sender = reverse_path.mailbox().and_then(|mailbox| mailbox.domain());
    for domain in sender.into_iter().chain(helo).chain(names) {
        if domain.is_fully_qualified() && !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let by_domain = rbl.domain_lists.iter().flat_map(|zone| {
        domains.iter().filter_map(move |domain| {
            let query = query_for_domain(domain, zone)?;
            Some(RblQuery { zone: zone.clone(), subject: domain.ascii().to_owned(), query })
        })
    });
    by_address.chain(by_domain).collect()
}

/// What the answers come to: the first list that knows the client or one of the domains refuses. A list that
/// can't be asked never blocks mail.
fn judge(answers: &[(Listing, RblQuery)]) -> Finding {
    let mut unusable = Vec::new();
    for (listing, asked) in answers {
        let RblQuery { zone, subject, .. } = asked;
        match listing {
            Listing::NotListed => {}
            Listing::Listed(meaning) => {
                let outcome = Opinion::Refuse(Refusal::BlockListed(zone.clone()));
                return Finding::new(Check::Rbl, outcome, format!("{zone} lists {subject}: {meaning}"));
            }
            Listing::Unusable(cause) => unusable.push(format!("{zone}: {cause}")),
        }
    }
    let asked = format!("no listing in {} answers", answers.len() - unusable.len());
    if unusable.is_empty() {
        Finding::new(Check::Rbl, Opinion::Pass, asked)
    } else {
        let cause = unusable.join("; ");
        Finding::new(Check::Rbl, Opinion::Unavailable(cause.clone()), format!("{asked}; {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Mailbox;
    use crate::testing::config;

    fn rbl() -> Rbl {
        let text = r#"rbl = { enabled = true, ip_lists = ["ip.example"], domain_lists = ["names.example"] }"#;
        config(text).rbl.unwrap()
    }

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn each_rbl_is_asked_about_what_it_knows() {
        let sender = ReversePath::Mailbox(Mailbox::parse("a@From.test").unwrap());
        let names = [domain("mx.client.test")];
        let ask = |reverse_path: &ReversePath, helo: &str| {
            let helo = Domain::parse(helo).ok();
            let client = "192.0.2.7".parse().unwrap();
            let queries = queries(&rbl(), client, reverse_path, helo.as_ref(), &names);
            queries.into_iter().map(|asked| asked.query).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            ask(&sender, "helo.test"),
            "7.2.0.192.ip.example from.test.names.example helo.test.names.example mx.client.test.names.example"
        );
        assert_eq!(
            ask(&ReversePath::Null, "MX.client.test"),
            "7.2.0.192.ip.example mx.client.test.names.example",
            "each domain once"
        );
        assert_eq!(ask(&ReversePath::Null, "laptop"), ask(&ReversePath::Null, "[192.0.2.7]"));
    }

    #[test]
    fn an_rbl_listing_refuses_and_an_rbl_outage_never_does() {
        let client = "192.0.2.7".parse().unwrap();
        let asked = queries(&rbl(), client, &ReversePath::Null, Some(&domain("helo.test")), &[]);
        let check = |listings: [Listing; 2], expect: &str, reason: &str| {
            let answers: Vec<_> = listings.into_iter().zip(asked.iter().cloned()).collect();
            let finding = judge(&answers);
            assert_eq!((finding.opinion.to_string().as_str(), finding.reason.as_str()), (expect, reason));
        };
        let listed = || Listing::Listed("spam source".to_owned());
        let down = || Listing::Unusable("timeout".to_owned());
        check([Listing::NotListed, Listing::NotListed], "pass", "no listing in 2 answers");
        check(
            [listed(), Listing::NotListed],
            "refuse: Listed by ip.example",
            "ip.example lists 192.0.2.7: spam source",
        );
        check(
            [down(), listed()],
            "refuse: Listed by names.example",
            "names.example lists helo.test: spam source",
        );
        check(
            [down(), Listing::NotListed],
            "unavailable: ip.example: timeout",
            "no listing in 1 answers; ip.example: timeout",
        );
        assert_eq!(judge(&[]).opinion, Opinion::Pass);
    }
}
