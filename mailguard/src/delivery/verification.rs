//! Asks a server whether it would take a message for a recipient: null reverse-path, RCPT, no DATA.

use std::time::Duration;

use mailguard_core::config::Config;
use mailguard_core::mail::{BodyType, Envelope, ForwardPath, Recipient, ReversePath};
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::policy::check::verification::ProbeResult;
use mailguard_core::route::Route;
use mailguard_core::smtp::client::{Ending, Transaction};
use mailguard_core::smtp::{Detail, EnhancedStatus};
use tokio::time::{Instant, timeout, timeout_at};

use super::session::{Session, SessionAge};
use super::{Delivery, Terms, identity, waiting_session};

/// How long a server has for connection and greeting: many look the client up in the DNS first.
const OPENING_TIME: Duration = Duration::from_secs(15);

/// How long all servers of a next hop have for that, and the DNS for their names.
const ALL_OPENING_TIME: Duration = Duration::from_secs(45);

/// How long it has for its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

impl Delivery {
    /// Asks the servers of `route` about `recipient`, the next one where one is away. The reverse-path is
    /// null, as that of a message that must not be answered (RFC 5321 §4.5.5).
    pub async fn verify(&self, config: &Config, route: &Route, recipient: &ForwardPath) -> ProbeResult {
        let terms = Self::terms(config);
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient::new(recipient.clone())],
            body: BodyType::SevenBit,
            smtputf8: false,
            dsn_return: None,
            envelope_id: None,
        };
        if let Some(session) = waiting_session(&self.probe_pool, route, None)
            && let Some(word) = self.ask(route, session, SessionAge::Waited, &envelope).await
        {
            return word;
        }
        match self.open(config, &terms, route).await {
            Err(report) => ProbeResult::Unreachable(report),
            Ok(session) => self
                .ask(route, session, SessionAge::New, &envelope)
                .await
                .unwrap_or_else(|| ProbeResult::Unknown(silent(&route.next_hop))),
        }
    }

    /// A session to the first server that has one for us; else what the first of them said.
    async fn open(&self, config: &Config, terms: &Terms<'_>, route: &Route) -> Result<Session, Report> {
        let until = Instant::now() + ALL_OPENING_TIME;
        let found = timeout_at(until, self.destinations(config, route)).await;
        let destinations = match found {
            Ok(found) => found.map_err(|no_route| Outcome::from(no_route).into_report())?,
            Err(_) => return Err(silent(&route.next_hop)),
        };
        let mut failure = None;
        for destination in destinations {
            let identity = identity(terms);
            let opening = Session::open(&destination, route, &identity, &self.trusts);
            let moment = until.min(Instant::now() + OPENING_TIME);
            let report = match timeout_at(moment, opening).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(outcome)) => outcome.into_report(),
                Err(_) => silent(&destination),
            };
            failure.get_or_insert(report);
            if Instant::now() >= until {
                break;
            }
        }
        Err(failure.unwrap_or_else(|| silent(&route.next_hop)))
    }

    /// Asks by this session; nothing if it gave no answer, or one that had waited has come to its end.
    async fn ask(
        &self,
        route: &Route,
        mut session: Session,
        age: SessionAge,
        envelope: &Envelope,
    ) -> Option<ProbeResult> {
        let recipients: Vec<_> = envelope.recipients.iter().collect();
        let question = Transaction { envelope, recipients: &recipients, content: None };
        let conclusion = timeout(ANSWER_TIME, session.send(&question, None)).await.ok()?;
        if age == SessionAge::Waited && conclusion.ending != Ending::Settled {
            return None;
        }
        let word = match conclusion.outcomes.into_iter().next()? {
            Outcome::Delivered(report) | Outcome::Relayed(report) => ProbeResult::Accepted(report),
            Outcome::Failed(report) => ProbeResult::Rejected(report),
            Outcome::Deferred(report) => ProbeResult::Unknown(report),
        };
        // A server that has refused counts: the next one in this session might not be heard.
        let kept = matches!(word, ProbeResult::Accepted(_)) && session.is_ready();
        let over = if kept { self.probe_pool.put(route, session) } else { Some(session) };
        if let Some(mut session) = over {
            session.say_goodbye();
        }
        Some(word)
    }
}

/// The report of a server that didn't answer in time.
fn silent(server: impl std::fmt::Display) -> Report {
    Report::about(
        EnhancedStatus::transient(Detail::NO_ANSWER_FROM_HOST),
        server.to_string(),
        format!("no answer of {server} in time"),
    )
}
