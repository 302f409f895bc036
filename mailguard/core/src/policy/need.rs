//! What must be known before a recipient is answered: the queries that can be asked, and the facts that
//! answer them.
//!
//! A check that must ask is an [`AskingCheck`] in its file of [`check`](super::check): it says what it needs
//! for a subject, and what it thinks once that is known. [`stage::rcpt::needed`](super::stage::rcpt::needed)
//! has the order. Asking, and how long it takes, is left to the program.

use std::net::IpAddr;
use std::time::Duration;

use super::Trust;
use super::check::domain::MailDomainStatus;
use super::check::rbl::RblQuery;
use crate::config::Config;
use crate::finding::Finding;
use crate::lookup::Lookup;
use crate::mail::{Domain, ForwardPath, ReversePath};
use crate::rbl::Listing;
use crate::route::Route;

/// Most facts that are remembered for a whole transaction. One more is known for its recipient only, and
/// asked again.
pub const MAX_TRANSACTION_FACTS: usize = 1_000;

/// Why nobody can tell, where no answer came in time.
pub const NO_ANSWER_IN_TIME: &str = "no answer in time";

/// What can be asked of others, or of what is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The names of a client that lead back to its address.
    ClientNames(IpAddr),
    /// Whether mail could go to a domain.
    MailDomain(Domain),
    /// Whether a block list knows somebody.
    BlockList(RblQuery),
    /// Whether the servers at the end of a route take mail for a recipient.
    Verification(Box<Route>, ForwardPath),
    /// Whether client, sender and recipient were seen before. Asking is remembered.
    Greylist(IpAddr, ReversePath, ForwardPath),
}

/// The answer to a query, with what it is about as far as several can be known.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// To [`Query::ClientNames`].
    ClientNames(Lookup<Vec<Domain>>),
    /// To [`Query::MailDomain`].
    MailDomain(Domain, MailDomainStatus),
    /// To [`Query::BlockList`].
    BlockList(RblQuery, Listing),
    /// To [`Query::Verification`].
    Verification(Finding),
    /// To [`Query::Greylist`].
    Greylist(Finding),
}

impl Fact {
    /// Whether the DNS didn't say: who asked has waited in vain.
    pub fn is_outage(&self) -> bool {
        match self {
            Fact::ClientNames(found) => matches!(found, Lookup::Unavailable(_)),
            Fact::MailDomain(_, status) => matches!(status, MailDomainStatus::Unavailable(_)),
            Fact::BlockList(_, listing) => matches!(listing, Listing::Unusable(_)),
            // Not of the DNS.
            Fact::Verification(_) | Fact::Greylist(_) => false,
        }
    }
}

/// A query, and on what terms it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// What is asked.
    pub query: Query,
    /// Of whom.
    pub source: Source,
    /// Longest wait for this answer, where that is shorter than what the source has left of a transaction's
    /// time.
    pub within: Option<Duration>,
    /// For how long the answer is known.
    pub holds: Holds,
    /// What is known instead if no answer comes in time.
    pub unanswered: Fact,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The DNS. Time that brought an answer isn't counted: who names many domains waits longer than who names
    /// one.
    Dns,
    /// Servers of recipients.
    Server,
    /// What we remember ourselves.
    Store,
}

impl Source {
    /// Longest time that one transaction waits: for answers of the DNS that don't come, for servers all
    /// together, for each answer of a store.
    pub const fn time_of_transaction(self) -> Duration {
        match self {
            Source::Dns => Duration::from_secs(30),
            Source::Server => Duration::from_secs(120),
            Source::Store => Duration::from_secs(5),
        }
    }
}

/// For how long a fact is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// It is about the client.
    Session,
    /// Further recipients may need it.
    Transaction,
    /// The next recipient has its own.
    Recipient,
}

/// Whom an answer to RCPT is about, and by what it is judged.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The transaction's configuration.
    pub config: &'a Config,
    /// How far the client is trusted.
    pub trust: Trust,
    /// Its address.
    pub client: IpAddr,
    /// What it called itself, if that is a domain.
    pub helo: Option<Domain>,
    /// The sender.
    pub reverse_path: &'a ReversePath,
    /// The recipient.
    pub forward_path: &'a ForwardPath,
}

/// What is known in a session.
#[derive(Debug, Default)]
pub struct Known {
    session: Vec<Fact>,
    transaction: Vec<Fact>,
    recipient: Vec<Fact>,
}

impl Known {
    /// Takes note of an answer.
    pub fn learn(&mut self, fact: Fact, holds: Holds) {
        let facts = match holds {
            Holds::Session => &mut self.session,
            Holds::Transaction if self.transaction.len() < MAX_TRANSACTION_FACTS => &mut self.transaction,
            Holds::Transaction | Holds::Recipient => &mut self.recipient,
        };
        facts.push(fact);
    }

    /// Another transaction begins.
    pub fn next_transaction(&mut self) {
        self.transaction.clear();
        self.recipient.clear();
    }

    /// Another recipient is named.
    pub fn next_recipient(&mut self) {
        self.recipient.clear();
    }

    /// The first fact that this finds something in.
    pub(super) fn find<'a, T>(&'a self, look: impl FnMut(&'a Fact) -> Option<T>) -> Option<T> {
        self.session.iter().chain(&self.transaction).chain(&self.recipient).find_map(look)
    }
}

/// A check that must ask before it can judge.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskingCheck {
    /// What is still to be asked about this subject: nothing where all is known, or where the answer can't
    /// matter.
    pub(super) needs: fn(&Subject<'_>, &Known) -> Vec<Need>,
    /// What follows once nothing is to be asked any more; nothing where the answer can't matter.
    pub(super) judge: fn(&Subject<'_>, &Known) -> Option<Finding>,
    /// Whom the finding is about.
    pub(super) about: About,
}

/// Whom a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The client or the sender, whoever the recipient is.
    Sender,
    /// The recipient.
    Recipient,
}
