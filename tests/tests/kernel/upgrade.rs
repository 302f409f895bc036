//! A new version over a running one: nobody escapes to the server meanwhile, and nobody is lost.

use mailguard::datapath::Hook;
use mailguard_tests::netns::{CLIENT4, CLIENT6, SERVER4, SERVER6};

use crate::firewall::{Answer, Callers, Firewall};

/// Restarts under load.
const RESTARTS: usize = 12;
/// Connections that a client makes at least while they go on.
const MIN_CONNECTIONS: usize = 20;

#[test]
fn connections_made_during_restarts_all_reach_the_proxy() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        let mut firewall = Firewall::idle(crate::firewall::ZONES);
        firewall.start_on(hook);
        let callers = Callers::start(&firewall.topology.client, [SERVER4.into(), SERVER6.into()]);
        for _ in 0..RESTARTS {
            firewall.stop();
            firewall.start_on(hook);
        }
        let answers = callers.finish();
        assert!(answers.len() >= MIN_CONNECTIONS, "{hook:?}: only {} connections", answers.len());
        let expect = [Answer::intercepted(CLIENT4, SERVER4), Answer::intercepted(CLIENT6, SERVER6)];
        let odd: Vec<_> = answers.iter().filter(|answer| !expect.contains(answer)).collect();
        assert!(odd.is_empty(), "{hook:?}: {} of {}: {odd:?}", odd.len(), answers.len());
    }
}
