//! What is asked of the DNS for `policy::stage::rcpt`, when it says so: the client's names, the domains of sender and recipient, the
//! block lists. What is independent is asked at one time, and a transaction waits [`LOOKUP_TIME`] at most for answers that
//! don't come.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::{OptionFuture, join_all};
use mailguard_core::config::Config;
use mailguard_core::config::model::Rbl;
use mailguard_core::finding::{Finding, Opinion};
use mailguard_core::lookup::Lookup;
use mailguard_core::mail::{Domain, ForwardPath, ReversePath};
use mailguard_core::policy::check::domain::MailDomainStatus;
use mailguard_core::policy::stage::rcpt::Need;
use mailguard_core::policy::{self, Trust};
use mailguard_core::rbl::{Listing, interpret};
use tokio::time::{Instant, timeout};

use crate::lookup::dns::Dns;

/// Longest time that one transaction waits for answers of the DNS that don't come.
const LOOKUP_TIME: Duration = Duration::from_secs(30);

/// Most domains of recipients whose standing a transaction remembers.
pub(super) const MAX_REMEMBERED_DOMAINS: usize = 1_000;

/// The client's names, asked for once a session.
#[derive(Debug, Default)]
pub(super) struct ClientNames(Option<Lookup<Vec<Domain>>>);

/// What one transaction has asked.
#[derive(Debug)]
pub(super) struct Lookups {
    trust: Trust,
    asked_name: bool,
    asked_sender: bool,
    asked_lists: bool,
    /// Standings of recipients' domains.
    known: Vec<(Domain, MailDomainStatus)>,
    time_left: Duration,
}

/// Whom the questions are about.
pub(super) struct Subject<'a> {
    pub(super) client: IpAddr,
    pub(super) helo: Option<Domain>,
    pub(super) reverse_path: &'a ReversePath,
    pub(super) forward_path: &'a ForwardPath,
}

/// What was found, apart by whom it is about.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The client, or the sender: holds for the whole transaction.
    pub(super) about_sender: Vec<Finding>,
    pub(super) about_recipient: Vec<Finding>,
}

impl Found {
    pub(super) fn of_recipient(finding: Option<Finding>) -> Self {
        Self { about_sender: Vec::new(), about_recipient: finding.into_iter().collect() }
    }
}

impl Lookups {
    pub(super) fn new(trust: Trust) -> Self {
        Self {
            trust,
            asked_name: false,
            asked_sender: false,
            asked_lists: false,
            known: Vec::new(),
            time_left: LOOKUP_TIME,
        }
    }

    /// What can still be asked.
    pub(super) fn unasked(&self, config: &Config, subject: &Subject<'_>) -> Vec<Need> {
        let name = config.access.asks_for_names() && !self.asked_name;
        let dns = self.sender(config, subject).is_some()
            || self.recipient(config, subject).is_some_and(|domain| self.standing(domain).is_none())
            || self.lists(config).is_some();
        let needs = [(name, Need::ClientName), (dns, Need::Dns)];
        needs.into_iter().filter(|(unasked, _)| *unasked).map(|(_, need)| need).collect()
    }

    /// What is known of the recipient's domain from another recipient of the transaction.
    pub(super) fn remembered(&self, config: &Config, subject: &Subject<'_>) -> Option<Finding> {
        let domain = self.recipient(config, subject)?;
        Some(policy::check::domain::judge_recipient_standing(domain, self.standing(domain)?))
    }

    fn sender<'a>(&self, config: &Config, subject: &Subject<'a>) -> Option<&'a Domain> {
        let Config { spam_prevention, incoming_domains, .. } = config;
        policy::check::domain::sender_in_question(spam_prevention, incoming_domains, subject.reverse_path)
            .filter(|_| !self.asked_sender)
    }

    fn recipient<'a>(&self, config: &Config, subject: &Subject<'a>) -> Option<&'a Domain> {
        let Config { spam_prevention, incoming_domains, .. } = config;
        policy::check::domain::recipient_in_question(spam_prevention, incoming_domains, subject.forward_path)
    }

    fn standing(&self, domain: &Domain) -> Option<&MailDomainStatus> {
        self.known.iter().find(|(known, _)| known == domain).map(|(_, standing)| standing)
    }

    fn lists<'c>(&self, config: &'c Config) -> Option<&'c Rbl> {
        config.rbl.as_ref().filter(|_| self.trust == Trust::Untrusted && !self.asked_lists)
    }

    /// Asks for the client's names.
    pub(super) async fn ask_name(
        &mut self,
        config: &Config,
        dns: &Dns,
        names: &mut ClientNames,
        subject: &Subject<'_>,
    ) -> Found {
        self.asked_name = true;
        let began = Instant::now();
        let names = names.of(dns, subject.client, self.time_left).await;
        let unanswered = matches!(names, Lookup::Unavailable(_));
        let finding = policy::check::access::client_names(&config.access, subject.client, names);
        self.spend(unanswered, began);
        Found { about_sender: vec![finding], about_recipient: Vec::new() }
    }

    /// Asks about domains and at the block lists.
    pub(super) async fn ask_dns(
        &mut self,
        config: &Config,
        dns: &Dns,
        names: &mut ClientNames,
        subject: &Subject<'_>,
    ) -> Found {
        let (began, time) = (Instant::now(), self.time_left);
        let sender = self.sender(config, subject);
        let recipient = self.recipient(config, subject).filter(|domain| self.standing(domain).is_none());
        let lists = self.lists(config).map(|rbl| ask_lists(rbl, dns, names, subject, time));
        let (sender_standing, recipient_standing, answers) = tokio::join!(
            OptionFuture::from(sender.map(|domain| standing(dns, domain, time))),
            OptionFuture::from(recipient.map(|domain| standing(dns, domain, time))),
            OptionFuture::from(lists),
        );
        let mut found = Found::default();
        if let Some((domain, standing)) = sender.zip(sender_standing) {
            self.asked_sender = true;
            found.about_sender.push(policy::check::domain::judge_sender_standing(domain, &standing));
        }
        if let Some((domain, standing)) = recipient.zip(recipient_standing) {
            found.about_recipient.push(policy::check::domain::judge_recipient_standing(domain, &standing));
            if self.known.len() < MAX_REMEMBERED_DOMAINS {
                self.known.push((domain.clone(), standing));
            }
        }
        if let Some(finding) = answers {
            self.asked_lists = true;
            found.about_sender.push(finding);
        }
        let unanswered =
            |finding: &Finding| matches!(finding.opinion, Opinion::Unavailable(_) | Opinion::Defer(_));
        self.spend(found.about_sender.iter().chain(&found.about_recipient).any(unanswered), began);
        found
    }

    /// Time that brought an answer is not counted: who names many domains waits longer than who names one.
    fn spend(&mut self, unanswered: bool, since: Instant) {
        if unanswered {
            self.time_left = self.time_left.saturating_sub(since.elapsed());
        }
    }
}

impl ClientNames {
    async fn of(&mut self, dns: &Dns, client: IpAddr, time: Duration) -> &Lookup<Vec<Domain>> {
        let known = match self.0.take() {
            Some(known) => known,
            None => in_time(time, dns.names(client)).await,
        };
        self.0.insert(known)
    }
}

async fn standing(dns: &Dns, domain: &Domain, time: Duration) -> MailDomainStatus {
    let late = |_| MailDomainStatus::Unavailable(too_late());
    timeout(time, dns.standing(domain)).await.unwrap_or_else(late)
}

/// Asks every list at one time. The client's names are needed first where domains are asked about.
async fn ask_lists(
    rbl: &Rbl,
    dns: &Dns,
    names: &mut ClientNames,
    subject: &Subject<'_>,
    time: Duration,
) -> Finding {
    let time = time.min(rbl.timeout);
    let names = if rbl.domain_lists.is_empty() {
        &[][..]
    } else {
        match names.of(dns, subject.client, time).await {
            Lookup::Found(names) => names.as_slice(),
            Lookup::Absent | Lookup::Unavailable(_) => &[],
        }
    };
    let Subject { client, helo, reverse_path, .. } = subject;
    let queries = policy::check::rbl::queries(rbl, *client, reverse_path, helo.as_ref(), names);
    let asked = queries.into_iter().map(|query| async {
        let listing = ask_list(dns, &query.zone, &query.query, time).await;
        (query, listing)
    });
    policy::check::rbl::judge(&join_all(asked).await)
}

/// Asks one list about one name.
pub(crate) async fn ask_list(dns: &Dns, zone: &str, query: &str, time: Duration) -> Listing {
    interpret(zone, in_time(time, dns.codes(query)).await)
}

async fn in_time<T>(time: Duration, lookup: impl Future<Output = Lookup<T>>) -> Lookup<T> {
    timeout(time, lookup).await.unwrap_or_else(|_| Lookup::Unavailable(too_late()))
}

fn too_late() -> String {
    "no answer in time".to_owned()
}
