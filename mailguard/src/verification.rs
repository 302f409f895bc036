//! Recipient verification: asks the servers of incoming domains about recipients, and remembers what they
//! said.
//!
//! `session` asks, at RCPT. What follows from a server's words is left to
//! `mailguard_core::policy::check::verification`, the conversation with it to `delivery`. Whoever asks about
//! the same recipient meanwhile waits for the same answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailguard_core::config::Config;
use mailguard_core::finding::{Finding, Opinion};
use mailguard_core::mail::ForwardPath;
use mailguard_core::outcome::Report;
use mailguard_core::policy::check::verification::{ProbeResult, judge};
use mailguard_core::route::{NextHop, Route};
use mailguard_core::smtp::{Detail, EnhancedStatus, Severity};
use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::warn;

use crate::delivery::Delivery;

/// Questions that one server is asked at one time; more wait for their turn.
pub const MAX_QUESTIONS_A_SERVER: usize = 8;

/// Longest wait for a turn.
pub const TURN_TIME: Duration = Duration::from_secs(10);

/// Recipients remembered: about 20 MiB with the longest addresses.
const MAX_REMEMBERED: u64 = 20_000;

/// For how long a recipient that was taken is taken.
const TAKEN_TIME: Duration = Duration::from_secs(3600);

/// For how long one that was refused is refused: a new mailbox should be seen soon.
const REFUSED_TIME: Duration = Duration::from_secs(600);

/// For how long nobody asks again about whom there was no answer, nor a server that was gone: the clients
/// that wait for it hold their places.
const UNANSWERED_TIME: Duration = Duration::from_secs(30);

/// Verifies recipients.
pub struct Verification {
    delivery: Arc<Delivery>,
    known: Cache<(NextHop, ForwardPath), Finding>,
    /// Servers that can't be asked, and why.
    gone: Cache<NextHop, Report>,
    /// Servers of which the log said a while ago that they object to us.
    objecting: Cache<NextHop, ()>,
    turns: Mutex<HashMap<NextHop, Arc<Semaphore>>>,
}

impl Verification {
    /// Knows nothing yet.
    pub fn new(delivery: Arc<Delivery>) -> Self {
        // Names that somebody tries out must not keep those out that are asked about again and again.
        let known = Cache::builder().eviction_policy(EvictionPolicy::lru()).max_capacity(MAX_REMEMBERED);
        Self {
            delivery,
            known: known.expire_after(AsLongAsItHolds).build(),
            gone: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(UNANSWERED_TIME).build(),
            objecting: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(UNANSWERED_TIME).build(),
            turns: Mutex::default(),
        }
    }

    /// Whether the servers of `route` take mail for `forward_path`: what is remembered, or what it says now.
    /// Who asks for what another one has asked for already waits for that answer.
    pub async fn verify(&self, config: &Config, route: &Route, forward_path: &ForwardPath) -> Finding {
        let server = &route.next_hop;
        let asked = async {
            let word = self.ask(config, route, forward_path).await;
            if let ProbeResult::Unreachable(report) = &word {
                self.gone.insert(server.clone(), report.clone()).await;
            }
            let finding = judge(forward_path, &word);
            if objects(&word, &finding) && self.objecting.get(server).await.is_none() {
                self.objecting.insert(server.clone(), ()).await;
                warn!(%server, reason = finding.reason, "a server doesn't say whom it knows");
            }
            finding
        };
        self.known.get_with((server.clone(), forward_path.clone()), asked).await
    }

    /// Forgets everything: another configuration may ask in another way.
    pub fn forget(&self) {
        self.known.invalidate_all();
        self.gone.invalidate_all();
    }

    async fn ask(&self, config: &Config, route: &Route, forward_path: &ForwardPath) -> ProbeResult {
        let server = &route.next_hop;
        if let Some(report) = self.gone.get(server).await {
            return ProbeResult::Unknown(report);
        }
        // A crowd before a server's door says nothing of the server.
        let Ok(_turn) = timeout(TURN_TIME, self.turn(server)).await else {
            return ProbeResult::Unknown(crowded(server));
        };
        if let Some(report) = self.gone.get(server).await {
            return ProbeResult::Unknown(report);
        }
        self.delivery.verify(config, route, forward_path).await
    }

    async fn turn(&self, server: &NextHop) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Who waits or asks holds one, too.
            turns.retain(|_, turns| Arc::strong_count(turns) > 1);
            turns
                .entry(server.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(MAX_QUESTIONS_A_SERVER)))
                .clone()
        };
        turns.acquire_owned().await.ok()
    }
}

struct AsLongAsItHolds;

impl Expiry<(NextHop, ForwardPath), Finding> for AsLongAsItHolds {
    fn expire_after_create(
        &self,
        _: &(NextHop, ForwardPath),
        finding: &Finding,
        _: Instant,
    ) -> Option<Duration> {
        Some(holds_for(finding))
    }
}

/// Whether the server refuses for good, and for something else than the recipient: that needs somebody's
/// hand.
fn objects(word: &ProbeResult, finding: &Finding) -> bool {
    let (ProbeResult::Accepted(report)
    | ProbeResult::Rejected(report)
    | ProbeResult::Unknown(report)
    | ProbeResult::Unreachable(report)) = word;
    let permanent = report.reply.as_ref().is_some_and(|reply| reply.code.severity() == Severity::Permanent);
    permanent && matches!(finding.opinion, Opinion::Defer(_))
}

fn holds_for(finding: &Finding) -> Duration {
    match finding.opinion {
        Opinion::Pass => TAKEN_TIME,
        Opinion::Refuse(_) => REFUSED_TIME,
        _ => UNANSWERED_TIME,
    }
}

fn crowded(server: &NextHop) -> Report {
    Report::about(
        EnhancedStatus::transient(Detail::SYSTEM_CONGESTION),
        server.to_string(),
        format!(
            "{MAX_QUESTIONS_A_SERVER} others ask {server} already, and no turn came in {} seconds",
            TURN_TIME.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mailguard_core::config::model::MailServer;
    use mailguard_core::mail::Mailbox;
    use mailguard_core::route;
    use mailguard_core::smtp::{Reply, ReplyCode};

    use super::*;
    use crate::delivery::scripted::ScriptedServer;
    use crate::spool::fixture;

    /// A server that is asked once for each of these replies, about u0, u1 and so on.
    async fn server(replies: &[&str]) -> ScriptedServer {
        let scripts: Vec<String> = replies
            .iter()
            .enumerate()
            .map(|(number, reply)| {
                format!(
                    "S: 220 mx.test ESMTP\nC: EHLO mailguard.test\nS: 250-mx.test\nS: 250 PIPELINING\n\
                     C: MAIL FROM:<>\nC: RCPT TO:<u{number}@here.test>\nS: 250 ok\nS: {reply}\nC: QUIT"
                )
            })
            .collect();
        let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
        ScriptedServer::start("127.0.0.1:0", &scripts).await
    }

    fn verification() -> (Verification, Config) {
        let folder = tempfile::tempdir().unwrap();
        (Verification::new(Arc::new(Delivery::default())), fixture::config(folder.path()))
    }

    fn to(config: &Config, server: SocketAddr) -> Route {
        route::to_servers(config, &[MailServer::Address(server)], false)
    }

    fn user(number: usize) -> ForwardPath {
        ForwardPath::Mailbox(Mailbox::parse(&format!("u{number}@here.test")).unwrap())
    }

    fn said(finding: &Finding) -> String {
        finding.objection().map_or("taken".to_owned(), ToString::to_string)
    }

    #[tokio::test]
    async fn a_server_is_asked_once() {
        let server = server(&["550 5.1.1 nobody", "250 2.1.5 ok"]).await;
        let (verification, config) = verification();
        let ask = |number: usize| {
            let (verification, config) = (&verification, &config);
            async move { said(&verification.verify(config, &to(config, server.address), &user(number)).await) }
        };
        for _ in 0..3 {
            let unknown = || "Recipient unknown".to_owned();
            assert_eq!(tokio::join!(ask(0), ask(0)), (unknown(), unknown()));
            assert_eq!(ask(1).await, "taken");
        }
        assert_eq!((server.seen(), server.scripts_left()), (vec![], 0));
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_left_alone_for_a_while() {
        let server = ScriptedServer::start("127.0.0.1:0", &["! close", "S: 220 mx.test ESMTP"]).await;
        let (verification, config) = verification();
        for number in 0..3 {
            let finding = verification.verify(&config, &to(&config, server.address), &user(number)).await;
            assert_eq!(said(&finding), "Recipient can't be verified now, try later");
        }
        assert_eq!(server.scripts_left(), 1);
    }

    /// Timers are wound forward: the server takes connections and says nothing.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_is_waited_for_a_bounded_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (verification, config) = verification();
        let begin = tokio::time::Instant::now();
        let asked = (0..3 * MAX_QUESTIONS_A_SERVER).map(|number| {
            let (verification, config) = (&verification, &config);
            let address = listener.local_addr().unwrap();
            async move { said(&verification.verify(config, &to(config, address), &user(number)).await) }
        });
        let answers = futures::future::join_all(asked).await;
        let unverified = "Recipient can't be verified now, try later";
        assert!(answers.iter().all(|answer| answer == unverified), "{answers:?}");
        assert!(begin.elapsed() < 3 * TURN_TIME, "{:?}", begin.elapsed());
        listener.set_nonblocking(true).unwrap();
        let connections = std::iter::from_fn(|| listener.accept().ok()).count();
        assert!(connections <= MAX_QUESTIONS_A_SERVER, "{connections}");
    }

    #[tokio::test]
    async fn a_crowd_before_its_door_does_not_make_a_server_gone() {
        let (verification, config) = verification();
        let server = server(&["250 2.1.5 ok", "250 2.1.5 ok"]).await;
        let hop = NextHop::Address(server.address);
        let turns: Vec<_> =
            futures::future::join_all((0..MAX_QUESTIONS_A_SERVER).map(|_| verification.turn(&hop))).await;
        tokio::time::pause();
        let late = verification.verify(&config, &to(&config, server.address), &user(1)).await;
        tokio::time::resume();
        assert_eq!(said(&late), "Recipient can't be verified now, try later");
        drop(turns);
        assert_eq!(
            said(&verification.verify(&config, &to(&config, server.address), &user(0)).await),
            "taken"
        );
        // Known until it is forgotten.
        assert_eq!(verification.verify(&config, &to(&config, server.address), &user(1)).await, late);
        verification.forget();
        assert_eq!(
            said(&verification.verify(&config, &to(&config, server.address), &user(1)).await),
            "taken"
        );
    }

    #[test]
    fn a_refusal_holds_shorter_than_a_welcome_and_an_outage_shortest() {
        let holds = |word: ProbeResult| holds_for(&judge(&user(0), &word));
        let report = crowded(&NextHop::Address("127.0.0.1:25".parse().unwrap()));
        let no_such_user =
            Reply::new(ReplyCode::MAILBOX_UNAVAILABLE, Detail::BAD_DESTINATION_MAILBOX, "no such user");
        let refused =
            Report { status: EnhancedStatus::new(5, 1, 1), reply: Some(no_such_user), ..report.clone() };
        assert_eq!(
            [
                holds(ProbeResult::Accepted(report.clone())),
                holds(ProbeResult::Rejected(refused)),
                holds(ProbeResult::Unreachable(report))
            ],
            [TAKEN_TIME, REFUSED_TIME, UNANSWERED_TIME]
        );
    }
}
