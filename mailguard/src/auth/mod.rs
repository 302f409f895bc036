//! Whether a client of SMTP AUTH is who it says it is: the IMAP server is asked (S7, `[imap_auth]`).
//!
//! `imap` makes one login; here is how many there may be at one time, and how often a client may be wrong.

mod failures;
mod imap;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mailguard_core::config::model::{ImapAuth, SmarthostAddress};
use mailguard_core::credentials::Credentials;
use mailguard_core::imap::Verdict;
use mailguard_core::lookup::Lookup;
use mailguard_core::smtp::server::LoginRefused;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use failures::Failures;
pub use imap::ImapError;

use crate::lookup::dns::{Asker, Dns};

/// How long a login waits for one of those under way to end.
const WAIT_FOR_TURN: Duration = Duration::from_secs(10);

/// Asks the IMAP server of one `[imap_auth]` section.
pub struct Authenticator {
    config: ImapAuth,
    server: imap::Server,
    under_way: Semaphore,
    /// The outage that was last warned of, and isn't over.
    outage: Mutex<Option<String>>,
}

impl Authenticator {
    /// An error says what is wrong with `ca_file`.
    pub fn new(config: &ImapAuth) -> Result<Self, ImapError> {
        let under_way = Semaphore::new(config.daemons);
        Ok(Self {
            config: config.clone(),
            server: imap::Server::new(config)?,
            under_way,
            outage: Mutex::default(),
        })
    }

    /// The section that this one is for.
    pub fn config(&self) -> &ImapAuth {
        &self.config
    }

    /// Whether name and password are right. Waits for its turn, and for the server.
    pub async fn check(&self, dns: &Dns, credentials: Credentials) -> Result<(), LoginRefused> {
        let Ok(Ok(_turn)) = timeout(WAIT_FOR_TURN, self.under_way.acquire()).await else {
            tracing::debug!(daemons = self.config.daemons, "a login found all others under way");
            return Err(LoginRefused::Unavailable);
        };
        match self.ask(dns, credentials).await {
            Verdict::Accepted => {
                self.note_outage(None);
                Ok(())
            }
            Verdict::Refused => {
                self.note_outage(None);
                Err(LoginRefused::Wrong)
            }
            Verdict::Unavailable(cause) => {
                self.note_outage(Some(cause));
                Err(LoginRefused::Unavailable)
            }
        }
    }

    /// Warns of an outage, once as long as it lasts.
    fn note_outage(&self, cause: Option<String>) {
        let mut last = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != cause {
            match &cause {
                Some(cause) => tracing::warn!(cause, "the IMAP server can't be asked"),
                None => tracing::info!("the IMAP server can be asked again"),
            }
            *last = cause;
        }
    }

    async fn ask(&self, dns: &Dns, credentials: Credentials) -> Verdict {
        let addresses = match &self.config.server {
            SmarthostAddress::Ip(address) => vec![*address],
            SmarthostAddress::Name(name) => match dns.addresses(Asker::Session, name).await {
                Lookup::Found(addresses) => addresses,
                Lookup::Absent => return Verdict::Unavailable(format!("{name} has no address")),
                Lookup::Unavailable(cause) => return Verdict::Unavailable(cause),
            },
        };
        self.server.log_in(&addresses, credentials).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn logins_wait_for_their_turn_and_then_for_another_time() {
        let text = r#"imap_auth = { enabled = true, port = 1, tls = "off", daemons = 2 }"#;
        let config = mailguard_core::testing::config(text);
        let authenticator = Authenticator::new(config.imap_auth.as_ref().unwrap()).unwrap();
        let dns = Dns::new(&config.dns);
        let credentials = Credentials { user: "alice".to_owned(), password: "secret".to_owned() };
        let turns = authenticator.under_way.acquire_many(2).await.unwrap();
        let began = tokio::time::Instant::now();
        let waited = authenticator.check(&dns, credentials.clone()).await;
        assert_eq!(waited, Err(LoginRefused::Unavailable));
        assert_eq!(began.elapsed(), WAIT_FOR_TURN);
        assert_eq!(*authenticator.outage.lock().unwrap(), None, "the server isn't to blame");
        drop(turns);
        // Nobody listens there.
        assert_eq!(authenticator.check(&dns, credentials).await, Err(LoginRefused::Unavailable));
        let outage = authenticator.outage.lock().unwrap().clone();
        assert!(outage.is_some_and(|cause| cause.starts_with("127.0.0.1:1: ")));
    }
}
