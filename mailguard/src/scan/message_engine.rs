//! Engines that are asked about a whole message and have to be waited for: another program, over a socket.
//!
//! Each bounds its own time. What is here holds for all of them: one that hangs or panics is unavailable, and
//! what that counts as is derived from its check's family (core `disposition`).

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use mailguard_core::finding::{Check, Finding, Opinion};
use tokio::time::timeout;

use super::BUG;
use crate::spool::Body;

/// Longest wait for an engine, whatever its own limits are: half of what a client has to wait for the final
/// reply (RFC 5321, 4.5.3.2.6).
const MESSAGE_ENGINE_TIMEOUT: Duration = Duration::from_secs(300);

/// A content check that asks somebody. One serves all messages at once.
pub trait MessageEngine: Send + Sync {
    /// The name under which its findings stand.
    fn check(&self) -> Check;

    /// At least one finding. What goes wrong is a finding, too.
    fn ask<'a>(&'a self, message: &'a Body) -> BoxFuture<'a, Vec<Finding>>;
}

/// Its findings, or that it is unavailable.
pub(super) async fn ask(engine: &dyn MessageEngine, message: &Body) -> Vec<Finding> {
    let asked = AssertUnwindSafe(async { engine.ask(message).await }).catch_unwind();
    let cause = match timeout(MESSAGE_ENGINE_TIMEOUT, asked).await {
        Ok(Ok(findings)) => return findings,
        Ok(Err(_)) => BUG.to_owned(),
        Err(_) => format!("no answer within {} s", MESSAGE_ENGINE_TIMEOUT.as_secs()),
    };
    vec![Finding::new(engine.check(), Opinion::Unavailable(cause.clone()), cause)]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mailguard_core::finding::Threat;

    use super::super::tests::{findings, scanner_of_files};
    use super::*;

    /// What it does when it is asked.
    enum Script {
        Finds(&'static str),
        Hangs,
        Panics,
    }

    impl MessageEngine for Script {
        fn check(&self) -> Check {
            Check::Signatures
        }

        fn ask<'a>(&'a self, message: &'a Body) -> BoxFuture<'a, Vec<Finding>> {
            async move {
                match self {
                    Script::Finds(name) => {
                        let found = Opinion::Found(Threat::Virus((*name).to_owned()));
                        vec![Finding::new(self.check(), found, format!("{} octets", message.octets()))]
                    }
                    Script::Hangs => std::future::pending().await,
                    Script::Panics => panic!("as scripted"),
                }
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_or_panics_is_unavailable() {
        let body = Body::Memory(Bytes::from_static(b"\r\nx"));
        for (script, expect) in [
            (Script::Finds("Worm"), "found: virus Worm"),
            (Script::Hangs, "unavailable: no answer within 300 s"),
            (Script::Panics, "unavailable: a check failed on this message; the log says more"),
        ] {
            let findings = ask(&script, &body).await;
            let opinions: Vec<String> = findings.iter().map(|finding| finding.opinion.to_string()).collect();
            assert_eq!(opinions, [expect]);
            assert!(findings.iter().all(|finding| finding.check == Check::Signatures));
        }
    }

    #[tokio::test]
    async fn engines_that_are_asked_stand_beside_those_that_compute() {
        let mut scanner = scanner_of_files();
        scanner.message_engines.push(Box::new(Script::Finds("Worm")));
        let seen = findings(&scanner, "\nx").await;
        assert_eq!(seen, ["files: pass (1 part, nothing found)", "signatures: found: virus Worm (3 octets)"]);
    }
}
