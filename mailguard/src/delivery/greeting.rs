//! Hears who a next hop says it is, before there is mail for it: connects, greets, takes leave. No login and
//! no message.

use std::sync::Arc;
use std::time::Duration;

use mailguard_core::config::Config;
use mailguard_core::config::model::{Smarthost, Tls};
use mailguard_core::outcome::Outcome;
use mailguard_core::route::Route;
use tokio::time::timeout;

use super::session::Session;
use super::{Delivery, LOOP, identity, reachable};
use crate::routing::LOOP_TO_BE_MENDED;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeted {
    /// A server answers, and isn't known to be ourselves.
    Another,
    /// It is ourselves, or calls itself as we do: how that is known, and what to change.
    Ourselves(String),
    /// Nobody answers: why.
    Nobody(String),
}

impl Delivery {
    /// Greets the servers of `route` in their order until one answers, for `patience` at most.
    pub async fn greet(&self, config: &Config, route: &Route, patience: Duration) -> Greeted {
        let silent = || Greeted::Nobody(format!("no greeting within {} seconds", patience.as_secs()));
        timeout(patience, self.greet_servers(config, &anonymous(route))).await.unwrap_or_else(|_| silent())
    }

    async fn greet_servers(&self, config: &Config, route: &Route) -> Greeted {
        let servers = match self.destinations(config, route).await.and_then(|found| reachable(found, route)) {
            Ok(servers) => servers,
            Err(none) => return heard(none.into()),
        };
        let identity = identity(&Self::terms(config));
        let mut last = Greeted::Nobody("it has no address".to_owned());
        for server in servers {
            last = match Session::open(&server, route, &identity, &self.trusts).await {
                Ok(mut session) => {
                    session.say_goodbye();
                    Greeted::Another
                }
                Err(outcome) => heard(outcome),
            };
            if !matches!(last, Greeted::Nobody(_)) {
                break;
            }
        }
        last
    }
}

/// The route without what the greeting doesn't need: a login, and encryption that begins after it.
fn anonymous(route: &Route) -> Route {
    let smarthost =
        route.smarthost.as_ref().map(|host| Arc::new(Smarthost { login: None, ..(**host).clone() }));
    let tls = if route.tls == Tls::Implicit { Tls::Implicit } else { Tls::Off };
    Route { smarthost, tls, ..route.clone() }
}

/// What it means that no session came about.
fn heard(outcome: Outcome) -> Greeted {
    let report = outcome.into_report();
    match report.reply {
        // Whoever refuses us has said something, and it wasn't our name.
        Some(_) => Greeted::Another,
        None if [LOOP, LOOP_TO_BE_MENDED].contains(&report.status) => Greeted::Ourselves(report.text),
        None => Greeted::Nobody(report.text),
    }
}
