//! Content checks: what a message holds, once its data is complete and before its final reply.
//!
//! `session` hands the body in and gets findings; what becomes of the message, `core::disposition` decides.
//! The engines that compute are the crate `mailguard-scan`'s: pure code over octets. Here stands what keeps
//! them from taking the machine: small messages are scanned where they are, large ones on threads for
//! blocking work, as many octets at once as [`MAX_OCTETS`] allows. Beside them stand the engines that have to
//! be asked ([`MessageEngine`]).

mod message_engine;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use futures::future::{join, join_all};
use mailguard_core::config::Config;
use mailguard_core::finding::{Finding, Opinion};
use mailguard_scan::{Engines, RuleError, Signatures};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub use message_engine::MessageEngine;

use crate::spool::Body;

/// Largest message that is scanned on the session's own thread, octets. It takes some 30 µs (4 KiB take 3),
/// about what a change of threads costs.
pub const INLINE_OCTETS: usize = 64 * 1024;

/// Octets of large messages that are scanned at one time. A scan holds the message and, decoded, less than as
/// much again at each level of nesting.
pub const MAX_OCTETS: u32 = 128 * 1024 * 1024;

/// What a large message counts for at least in [`MAX_OCTETS`]: bounds how many threads work at one time.
const MIN_LARGE_OCTETS: u32 = 16 * 1024 * 1024;

/// What the administrator is told of a panic; its own text is in the log.
const BUG: &str = "a check failed on this message; the log says more";

/// Why a scanner can't be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A YARA rule.
    #[error("virus.signatures.rules_dir: {0}")]
    Rule(#[from] RuleError),
}

/// The checks of one configuration. A reload makes a new one.
pub struct Scanner {
    engines: Arc<Engines>,
    message_engines: Vec<Box<dyn MessageEngine>>,
    signatures: Option<Signatures>,
    room: Arc<Semaphore>,
}

impl Scanner {
    /// The checks that the configuration asks for.
    pub fn new(config: &Config) -> Result<Self, ScanError> {
        Self::with_rules(config, None)
    }

    /// The checks that the configuration asks for, with the rules of an earlier one where they are the same:
    /// many take seconds to compile.
    pub fn renewed(config: &Config, before: (&Self, &Config)) -> Result<Self, ScanError> {
        let (before, old) = before;
        let same = old.virus.rules == config.virus.rules;
        Self::with_rules(config, before.signatures.as_ref().filter(|_| same))
    }

    fn with_rules(config: &Config, compiled: Option<&Signatures>) -> Result<Self, ScanError> {
        let signatures = match compiled {
            _ if !config.virus.signatures => None,
            Some(compiled) => Some(compiled.clone()),
            None => Some(Signatures::compile(&config.virus.rules)?),
        };
        let engines = Engines::new(config, signatures.as_ref());
        // A line for each that the configuration asks for.
        let message_engines = Vec::new();
        Ok(Self { signatures, ..Self::of(engines, message_engines) })
    }

    fn of(engines: Engines, message_engines: Vec<Box<dyn MessageEngine>>) -> Self {
        Self {
            engines: Arc::new(engines),
            message_engines,
            signatures: None,
            room: Arc::new(Semaphore::new(MAX_OCTETS as usize)),
        }
    }

    /// Scans a message: at least one finding of each enabled check. Waits while too much is being scanned.
    /// What goes wrong is a finding too.
    pub async fn scan(&self, body: &Body) -> Vec<Finding> {
        let asked = self.message_engines.iter().map(|engine| message_engine::ask(engine.as_ref(), body));
        let (mut findings, asked) = join(self.scan_parts(body), join_all(asked)).await;
        findings.extend(asked.into_iter().flatten());
        findings
    }

    async fn scan_parts(&self, body: &Body) -> Vec<Finding> {
        match body {
            Body::Memory(octets) if octets.len() <= INLINE_OCTETS => self.scan_here(octets),
            _ => self.scan_on_thread(body.clone()).await,
        }
    }

    /// A panic is a bug of ours or of an engine; the message must not get through by it.
    fn scan_here(&self, message: &[u8]) -> Vec<Finding> {
        let scanned = catch_unwind(AssertUnwindSafe(|| scan_in_time(&self.engines, message)));
        scanned.unwrap_or_else(|_| self.unavailable(BUG))
    }

    async fn scan_on_thread(&self, body: Body) -> Vec<Finding> {
        let octets = u32::try_from(body.octets()).unwrap_or(MAX_OCTETS).clamp(MIN_LARGE_OCTETS, MAX_OCTETS);
        let Ok(room) = self.room.clone().acquire_many_owned(octets).await else {
            return self.unavailable("shutting down");
        };
        let engines = self.engines.clone();
        let work = move || {
            // Until the work has ended, whether or not somebody still waits for it.
            let _room = room;
            match body {
                Body::Memory(octets) => Ok(scan_in_time(&engines, &octets)),
                Body::File(file) => std::fs::read(file.path()).map(|octets| scan_in_time(&engines, &octets)),
            }
        };
        match spawn_blocking(work).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(error)) => self.unavailable(&format!("the message can't be read back: {error}")),
            Err(_) => self.unavailable(BUG),
        }
    }

    fn unavailable(&self, cause: &str) -> Vec<Finding> {
        let checks = self.engines.checks();
        checks.map(|check| Finding::new(check, Opinion::Unavailable(cause.to_owned()), cause)).collect()
    }
}

fn scan_in_time(engines: &Engines, message: &[u8]) -> Vec<Finding> {
    let began = Instant::now();
    engines.scan(message, &|time| began.elapsed() >= time)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mailguard_core::finding::Check;
    use mailguard_core::mime::{Limits, Part, Summary};
    use mailguard_core::testing::TestConfig;
    use mailguard_scan::{BlockedFiles, PartEngine, Tally};

    use super::*;
    use crate::spool::SPILL_OCTETS;
    use crate::store::body::BodyDirectory;

    const OWN: (&str, &str) = ("own.yar", "rule Own { strings: $a = \"the end\" condition: $a }");

    fn config(files: bool, rules: &[(&str, &str)]) -> Config {
        let said = TestConfig::default().with(&format!(
            "virus.signatures.enabled = {}
            files.enabled = {files}
            files.extensions = [\"com\"]",
            !rules.is_empty()
        ));
        rules.iter().fold(said, |said, (path, text)| said.with_rules(path, text)).resolve()
    }

    pub(super) fn scanner_of_files() -> Scanner {
        Scanner::new(&config(true, &[])).unwrap()
    }

    /// The findings as `check: opinion (reason)`.
    pub(super) async fn findings(scanner: &Scanner, message: &str) -> Vec<String> {
        let body = Body::Memory(Bytes::from(message.replace('\n', "\r\n")));
        let findings = scanner.scan(&body).await;
        findings.iter().map(|f| format!("{}: {} ({})", f.check, f.opinion, f.reason)).collect()
    }

    #[tokio::test]
    async fn large_messages_are_scanned_alike() {
        let scanner = Scanner::new(&config(true, &[OWN])).unwrap();
        for filling in ["", &"filling of a large message\n".repeat(INLINE_OCTETS / 10)] {
            let seen = findings(&scanner, &format!("Content-Type: a; name=a.com\n\n{filling}the end")).await;
            let expect = [
                "files: found: blocked file a.com (extension .com of \"a.com\")",
                "signatures: found: virus Own (rule Own matches \"a.com\")",
            ];
            assert_eq!(seen, expect);
        }
    }

    #[tokio::test]
    async fn a_body_in_a_file_is_scanned_and_one_that_is_gone_is_not_passed() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = BodyDirectory::new(directory.path().to_owned()).writer(1);
        writer.push(b"Content-Type: a; name=a.com\r\n\r\n").await.unwrap();
        writer.push(&b"filling\r\n".repeat(SPILL_OCTETS / 8)).await.unwrap();
        writer.push(b"the end").await.unwrap();
        let body = writer.finish().await.unwrap();
        let scanner = Scanner::new(&config(true, &[OWN])).unwrap();
        let opinions =
            async || scanner.scan(&body).await.into_iter().map(|f| f.opinion.to_string()).collect::<Vec<_>>();
        assert_eq!(opinions().await, ["found: blocked file a.com", "found: virus Own"]);
        let Body::File(file) = &body else { panic!("a large body in memory") };
        std::fs::remove_file(file.path()).unwrap();
        for opinion in opinions().await {
            assert!(opinion.starts_with("unavailable: the message can't be read back"), "{opinion}");
        }
    }

    #[tokio::test]
    async fn what_is_not_enabled_says_nothing() {
        assert_eq!(findings(&Scanner::new(&config(false, &[])).unwrap(), "\nx").await, [""; 0]);
    }

    /// An engine with a bug.
    struct Panics;

    impl PartEngine for Panics {
        fn check(&self) -> Check {
            Check::Signatures
        }

        fn begin(&self) -> Box<dyn Tally + '_> {
            Box::new(Panics)
        }
    }

    impl Tally for Panics {
        fn part(&mut self, _: &Part<'_>) {
            panic!("as scripted");
        }

        fn finish(self: Box<Self>, _: &Summary) -> Vec<Finding> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn a_panic_of_one_engine_leaves_no_check_passed() {
        let limits = Limits { max_depth: 1, max_entries: 9, max_unpacked: 1 << 30, max_ratio: 1 };
        let files = BlockedFiles::new(&["com".to_owned()]);
        let scanner = Scanner::of(Engines::of(vec![Box::new(files), Box::new(Panics)], limits), Vec::new());
        for message in ["\nx", &format!("\n{}", "x".repeat(INLINE_OCTETS))] {
            let expect =
                [Check::Files, Check::Signatures].map(|check| format!("{check}: unavailable: {BUG} ({BUG})"));
            assert_eq!(findings(&scanner, message).await, expect);
        }
    }

    #[test]
    fn rules_that_did_not_change_are_not_compiled_again() {
        let config = config(false, &[("/a.yar", "rule A { condition: true }")]);
        let first = Scanner::new(&config).unwrap();
        let same_rules = |scanner: &Scanner| {
            let rules = scanner.signatures.as_ref().zip(first.signatures.as_ref());
            rules.is_some_and(|(one, other)| one.are(other))
        };
        let mut other = config.clone();
        other.files.enabled = !other.files.enabled;
        assert!(same_rules(&Scanner::renewed(&other, (&first, &config)).unwrap()));
        other.virus.rules[0].1.push(' ');
        assert!(!same_rules(&Scanner::renewed(&other, (&first, &config)).unwrap()));
        other.virus.rules[0].1.push('}');
        assert!(Scanner::renewed(&other, (&first, &config)).is_err(), "they are looked at");
        other.virus.signatures = false;
        assert!(Scanner::renewed(&other, (&first, &config)).unwrap().signatures.is_none());
    }
}
