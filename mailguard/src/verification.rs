//! Recipient verification: asks the servers of incoming domains about recipients, and remembers what they said.
//!
//! `session` asks, at RCPT. What follows from a server's words is left to `mailguard_core::policy::verification`, the
//! conversation with it to `delivery`. Whoever asks about the same recipient meanwhile waits for the same answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mailguard_core::config::Config;
use mailguard_core::finding::{self, Finding};
use mailguard_core::mail::ForwardPath;
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::policy::verification::judge;
use mailguard_core::route::NextHop;
use mailguard_core::smtp::EnhancedStatus;
use moka::Expiry;
use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::delivery::Delivery;

/// Longest wait for a server's word, its greeting included.
pub const VERIFICATION_TIME: Duration = Duration::from_secs(20);

/// Questions that one server is asked at one time; more wait.
pub const MAX_QUESTIONS_A_SERVER: usize = 8;

/// Recipients remembered: about 20 MiB with the longest addresses.
const MAX_REMEMBERED: u64 = 20_000;

/// For how long a recipient that was taken is taken.
const TAKEN_TIME: Duration = Duration::from_secs(6 * 3600);

/// For how long one that was refused is refused: a new mailbox should be seen soon.
const REFUSED_TIME: Duration = Duration::from_secs(600);

/// For how long nobody asks again who had no answer, nor a server that was gone: the clients that wait for it hold their
/// places.
const UNANSWERED_TIME: Duration = Duration::from_secs(30);

/// Verifies recipients.
pub struct Verification {
    delivery: Arc<Delivery>,
    known: Cache<(SocketAddr, ForwardPath), Finding>,
    /// Servers that can't be asked, and why.
    gone: Cache<SocketAddr, Report>,
    turns: Mutex<HashMap<SocketAddr, Arc<Semaphore>>>,
}

impl Verification {
    /// Knows nothing yet.
    pub fn new(delivery: Arc<Delivery>) -> Self {
        Self {
            delivery,
            known: Cache::builder().max_capacity(MAX_REMEMBERED).expire_after(AsLongAsItHolds).build(),
            gone: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(UNANSWERED_TIME).build(),
            turns: Mutex::default(),
        }
    }

    /// Whether `server` takes mail for `forward_path`. Comes back within [`VERIFICATION_TIME`], or shortly after that
    /// where another one had asked already.
    pub async fn verify(&self, config: &Config, server: SocketAddr, forward_path: &ForwardPath) -> Finding {
        let asked = async {
            let word = timeout(VERIFICATION_TIME, self.ask(config, server, forward_path)).await;
            let word = word.unwrap_or_else(|_| too_late(server));
            if word.blames_next_hop() {
                self.gone.insert(server, word.report().clone()).await;
            }
            judge(forward_path, &word)
        };
        self.known.get_with((server, forward_path.clone()), asked).await
    }

    async fn ask(&self, config: &Config, server: SocketAddr, forward_path: &ForwardPath) -> Outcome {
        let _turn = self.turn(server).await;
        // Learnt while we waited.
        if let Some(report) = self.gone.get(&server).await {
            return Outcome::Deferred(report);
        }
        self.delivery.verify(config, &NextHop::Address(server), forward_path).await
    }

    async fn turn(&self, server: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Who waits or asks holds one, too.
            turns.retain(|_, turns| Arc::strong_count(turns) > 1);
            turns.entry(server).or_insert_with(|| Arc::new(Semaphore::new(MAX_QUESTIONS_A_SERVER))).clone()
        };
        turns.acquire_owned().await.ok()
    }
}

struct AsLongAsItHolds;

impl Expiry<(SocketAddr, ForwardPath), Finding> for AsLongAsItHolds {
    fn expire_after_create(
        &self,
        _: &(SocketAddr, ForwardPath),
        finding: &Finding,
        _: Instant,
    ) -> Option<Duration> {
        Some(holds_for(finding))
    }
}

fn holds_for(finding: &Finding) -> Duration {
    match finding.outcome {
        finding::Outcome::Pass => TAKEN_TIME,
        finding::Outcome::Refuse(_) => REFUSED_TIME,
        _ => UNANSWERED_TIME,
    }
}

fn too_late(server: SocketAddr) -> Outcome {
    let seconds = VERIFICATION_TIME.as_secs();
    Outcome::Deferred(Report {
        status: EnhancedStatus::new(4, 4, 1),
        remote: server.to_string(),
        reply: None,
        text: format!("no answer of {server} within {seconds} seconds"),
    })
}

#[cfg(test)]
mod tests {
    use mailguard_core::mail::Mailbox;

    use super::*;
    use crate::delivery::scripted::ScriptedServer;
    use crate::spool::fixture;

    /// A server that is asked about as many recipients as there are replies, in one session.
    async fn server(replies: &[&str]) -> ScriptedServer {
        let opening = "S: 220 mx.test ESMTP\nC: EHLO mailguard.test\nS: 250-mx.test|250 PIPELINING\n";
        let mut script = opening.to_owned();
        for (number, reply) in replies.iter().enumerate() {
            let reset = if number > 0 { "C: RSET\n" } else { "" };
            let answers = if number > 0 { "250 ok|250 ok" } else { "250 ok" };
            script +=
                &format!("{reset}C: MAIL FROM:<>\nC: RCPT TO:<u{number}@here.test>\nS: {answers}|{reply}\n");
        }
        ScriptedServer::start("127.0.0.1:0", &[&script]).await
    }

    fn verification() -> (Verification, Config) {
        let folder = tempfile::tempdir().unwrap();
        (Verification::new(Arc::new(Delivery::default())), fixture::config(folder.path()))
    }

    fn user(number: usize) -> ForwardPath {
        ForwardPath::Mailbox(Mailbox::parse(&format!("u{number}@here.test")).unwrap())
    }

    fn said(finding: &Finding) -> String {
        finding.objection().map_or("taken".to_owned(), ToString::to_string)
    }

    #[tokio::test]
    async fn a_server_is_asked_once() {
        let server = server(&["250 2.1.5 ok", "550 5.1.1 nobody"]).await;
        let (verification, config) = verification();
        let ask = |number: usize| {
            let (verification, config) = (&verification, &config);
            async move { said(&verification.verify(config, server.address, &user(number)).await) }
        };
        for _ in 0..3 {
            assert_eq!(tokio::join!(ask(0), ask(0)), ("taken".to_owned(), "taken".to_owned()));
            assert_eq!(ask(1).await, "Recipient unknown");
        }
        assert_eq!((server.seen(), server.scripts_left()), (vec![], 0));
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_left_alone_for_a_while() {
        let server = ScriptedServer::start("127.0.0.1:0", &["close", "S: 220 mx.test ESMTP"]).await;
        let (verification, config) = verification();
        for number in 0..3 {
            let finding = verification.verify(&config, server.address, &user(number)).await;
            assert_eq!(said(&finding), "Recipient can't be verified now, try later");
        }
        assert_eq!(server.scripts_left(), 1);
    }

    /// Timers are wound forward: no server takes part.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_is_waited_for_a_bounded_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (verification, config) = verification();
        let begin = tokio::time::Instant::now();
        let asked = (0..3 * MAX_QUESTIONS_A_SERVER).map(|number| {
            let (verification, config) = (&verification, &config);
            let address = listener.local_addr().unwrap();
            async move { said(&verification.verify(config, address, &user(number)).await) }
        });
        let answers = futures::future::join_all(asked).await;
        assert!(
            answers.iter().all(|answer| answer == "Recipient can't be verified now, try later"),
            "{answers:?}"
        );
        assert!(begin.elapsed() < 2 * VERIFICATION_TIME, "{:?}", begin.elapsed());
        listener.set_nonblocking(true).unwrap();
        let connections = std::iter::from_fn(|| listener.accept().ok()).count();
        assert!(connections <= MAX_QUESTIONS_A_SERVER, "{connections}");
    }

    #[test]
    fn a_refusal_holds_shorter_than_a_welcome_and_an_outage_shortest() {
        let holds = |outcome: Outcome| holds_for(&judge(&user(0), &outcome));
        let Outcome::Deferred(report) = too_late("127.0.0.1:25".parse().unwrap()) else { panic!() };
        let (taken, refused) = (Outcome::Delivered(report.clone()), Outcome::Failed(report.clone()));
        assert_eq!(
            [holds(taken), holds(refused), holds(Outcome::Deferred(report))],
            [TAKEN_TIME, REFUSED_TIME, UNANSWERED_TIME]
        );
    }
}
