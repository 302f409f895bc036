//! The session's facts: what policy needs to know is asked here, each query in an arm of [`LookUps`], and bounded in time.
//!
//! What is needed, and what follows from an answer, is core `policy`'s. What is needed at one time is asked at one time.

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
