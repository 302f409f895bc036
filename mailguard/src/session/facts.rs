//! The session's facts: what policy needs to know is asked here, each query in an arm of [`LookUps`], and
//! bounded in time.
//!
//! What is needed, and what follows from an answer, is core `policy`'s. What is needed at one time is asked
//! at one time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, join_all};
use mailguard_core::config::Config;
use mailguard_core::policy::check::rbl::RblQuery;
use mailguard_core::policy::{Fact, Holds, Known, Need, Query, Source};
use mailguard_core::rbl::{Listing, interpret};
use tokio::time::{Instant, timeout};

use super::roles::Facts;
use crate::greylist::Greylist;
use crate::lookup::dns::{CurrentDns, Dns};
use crate::verification::Verification;

/// Facts that are looked up.
pub struct LookUps {
    /// The configuration in force, whose DNS is asked.
    pub config: Arc<ArcSwap<Config>>,
    /// What is made of its section.
    pub dns: Arc<CurrentDns>,
    /// Who asks servers about their recipients.
    pub verification: Arc<Verification>,
    /// Who remembers whom we saw.
    pub greylist: Greylist,
}

impl LookUps {
    async fn look_up(&self, config: &Config, query: &Query) -> Fact {
        let dns = || self.dns.get(&self.config.load().dns);
        match query {
            Query::ClientNames(client) => Fact::ClientNames(dns().names(*client).await),
            Query::MailDomain(domain) => Fact::MailDomain(domain.clone(), dns().standing(domain).await),
            Query::BlockList(asked) => Fact::BlockList(asked.clone(), ask_list(&dns(), asked).await),
            Query::Verification(route, recipient) => {
                Fact::Verification(self.verification.verify(config, route, recipient).await)
            }
            Query::Greylist(client, sender, recipient) => {
                let (settings, now) = (&config.greylist, SystemTime::now().into());
                Fact::Greylist(self.greylist.judge(settings, *client, sender, recipient, now).await)
            }
        }
    }
}

impl Facts for LookUps {
    fn ask<'a>(&'a self, config: &'a Config, query: &'a Query) -> BoxFuture<'a, Fact> {
        Box::pin(self.look_up(config, query))
    }
}

/// Asks one list about one name.
pub(crate) async fn ask_list(dns: &Dns, RblQuery { zone, query, .. }: &RblQuery) -> Listing {
    interpret(zone, dns.codes(query).await)
}

/// How long a transaction may still wait for others.
#[derive(Debug)]
pub(super) struct Patience {
    dns: Duration,
    servers: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { dns: Source::Dns.time_of_transaction(), servers: Source::Server.time_of_transaction() }
    }
}

impl Patience {
    fn left(&self, need: &Need) -> Duration {
        let left = match need.source {
            Source::Dns => self.dns,
            Source::Server => self.servers,
            Source::Store => need.source.time_of_transaction(),
        };
        need.within.map_or(left, |within| within.min(left))
    }

    /// What a round of needs of one source has taken of it.
    fn spend(&mut self, source: Source, waited: Duration) {
        match source {
            Source::Dns => self.dns = self.dns.saturating_sub(waited),
            Source::Server => self.servers = self.servers.saturating_sub(waited),
            Source::Store => {}
        }
    }
}

/// An answer, or what stands for one that didn't come in time.
struct Answered {
    fact: Fact,
    source: Source,
    holds: Holds,
    /// How long nobody else's answer came for it.
    waited: Duration,
}

/// Asks all of these at one time, and notes what was learned.
pub(super) async fn learn(
    facts: &dyn Facts,
    config: &Config,
    needs: Vec<Need>,
    patience: &mut Patience,
    known: &mut Known,
) {
    let asked = needs.into_iter().map(|need| {
        let time = patience.left(&need);
        ask(facts, config, need, time)
    });
    let answers = join_all(asked).await;
    for source in [Source::Dns, Source::Server, Source::Store] {
        let waited =
            answers.iter().filter(|answered| answered.source == source).map(|answered| answered.waited);
        patience.spend(source, waited.max().unwrap_or_default());
    }
    for Answered { fact, holds, .. } in answers {
        known.learn(fact, holds);
    }
}

async fn ask(facts: &dyn Facts, config: &Config, need: Need, time: Duration) -> Answered {
    let Need { query, source, holds, unanswered, .. } = need;
    let began = Instant::now();
    let fact = timeout(time, facts.ask(config, &query)).await.unwrap_or(unanswered);
    let counts = source != Source::Dns || fact.is_outage();
    let waited = if counts { began.elapsed() } else { Duration::ZERO };
    Answered { fact, source, holds, waited }
}

#[cfg(test)]
mod tests {
    use mailguard_core::mail::Domain;
    use mailguard_core::policy::NO_ANSWER_IN_TIME;
    use mailguard_core::policy::check::domain::MailDomainStatus;

    use super::*;

    /// Answers after so many seconds as the domain's first label says, and knows nothing of what is below
    /// `down`.
    struct Slow;

    impl Facts for Slow {
        fn ask<'a>(&'a self, _: &'a Config, query: &'a Query) -> BoxFuture<'a, Fact> {
            let Query::MailDomain(domain) = query else { panic!("{query:?} is asked") };
            let (seconds, zone) = domain.as_str().split_once('.').unwrap();
            let status = match zone {
                "down" => MailDomainStatus::Unavailable("SERVFAIL".to_owned()),
                _ => MailDomainStatus::TakesMail,
            };
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
                Fact::MailDomain(domain.clone(), status)
            })
        }
    }

    fn need(name: &str, source: Source, within: Option<u64>) -> Need {
        let domain = Domain::parse(name).unwrap();
        let unanswered = MailDomainStatus::Unavailable(NO_ANSWER_IN_TIME.to_owned());
        Need {
            query: Query::MailDomain(domain.clone()),
            source,
            within: within.map(Duration::from_secs),
            holds: Holds::Transaction,
            unanswered: Fact::MailDomain(domain, unanswered),
        }
    }

    /// How many seconds the transaction waits for all of these.
    async fn wait(needs: Vec<Need>, patience: &mut Patience) -> u64 {
        let began = Instant::now();
        let config = mailguard_core::testing::config("");
        learn(&Slow, &config, needs, patience, &mut Known::default()).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_waits_a_bounded_time_for_a_dns_that_is_down_and_not_for_one_that_answers() {
        let mut patience = Patience::default();
        for (name, within, waited) in [
            ("20.up", None, 20),
            ("20.up", None, 20),
            ("25.down", Some(5), 5),
            ("20.down", None, 20),
            ("25.up", None, 5),
            ("25.up", None, 0),
            ("0.up", None, 0),
        ] {
            let needs = vec![need(name, Source::Dns, within)];
            assert_eq!(wait(needs, &mut patience).await, waited, "{name}");
        }
        // Whoever else is asked has time of his own.
        assert_eq!(wait(vec![need("3.up", Source::Server, None)], &mut patience).await, 3);
        assert_eq!(wait(vec![need("9.up", Source::Store, None)], &mut patience).await, 5);
        assert_eq!(wait(vec![need("9.up", Source::Store, None)], &mut patience).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_needed_at_one_time_is_asked_at_one_time() {
        let needs = ["7.up", "9.down", "8.up"].map(|name| need(name, Source::Dns, None));
        let mut patience = Patience::default();
        assert_eq!(wait(needs.to_vec(), &mut patience).await, 9);
        assert_eq!(patience.dns, Duration::from_secs(21), "the longest wait that brought nothing counts");
    }
}
