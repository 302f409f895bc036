//! Content checks: what a message holds, once its data is complete and before its final reply.
//!
//! `session` hands the body in and gets findings; what becomes of the message, `core::disposition` decides. The
//! engines are pure code over octets; here stands what keeps them from taking the machine: small messages are
//! scanned where they are, large ones on threads for blocking work, as many octets at once as [`MAX_OCTETS`] allows.

mod examine;
pub mod files;
pub mod virus;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mailguard_core::config::Config;
use mailguard_core::config::model::{Files, Virus};
use mailguard_core::finding::{Check, Finding, Opinion};
use mailguard_core::mime::Limits;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use examine::Checks;
pub use examine::{MAX_THREATS, SCAN_TIMEOUT};
use files::BlockedFiles;
use virus::signatures::{RuleError, Signatures};

use crate::spool::Body;

/// Largest message that is scanned on the session's own thread, octets. It takes some 30 µs (4 KiB take 3), about
/// what a change of threads costs.
pub const INLINE_OCTETS: usize = 64 * 1024;

/// Octets of large messages that are scanned at one time. A scan holds the message and, decoded, less than as much
/// again at each level of nesting.
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
#[derive(Debug)]
pub struct Scanner {
    checks: Arc<Checks>,
    room: Arc<Semaphore>,
}

impl Scanner {
    /// The checks that the configuration asks for.
    pub fn new(config: &Config) -> Result<Self, ScanError> {
        Self::of_sections(&config.virus, &config.files, None)
    }

    /// The checks that the configuration asks for, with the rules of an earlier one where they are the same: many take
    /// seconds to compile.
    pub fn renewed(config: &Config, before: (&Self, &Config)) -> Result<Self, ScanError> {
        let (before, old) = before;
        let same = old.virus.rules == config.virus.rules;
        let compiled = before.checks.signatures.as_ref().filter(|_| same);
        Self::of_sections(&config.virus, &config.files, compiled)
    }

    fn of_sections(virus: &Virus, files: &Files, compiled: Option<&Signatures>) -> Result<Self, ScanError> {
        let signatures = match compiled {
            _ if !virus.signatures => None,
            Some(compiled) => Some(compiled.clone()),
            None => Some(Signatures::compile(&virus.rules)?),
        };
        let checks = Checks {
            files: files.enabled.then(|| BlockedFiles::new(&files.extensions)),
            signatures,
            limits: Limits {
                max_depth: files.max_depth,
                max_entries: files.max_entries,
                max_unpacked: files.max_unpacked,
            },
        };
        Ok(Self { checks: Arc::new(checks), room: Arc::new(Semaphore::new(MAX_OCTETS as usize)) })
    }

    /// Scans a message: at least one finding of each enabled check. Waits while too much is being scanned. What
    /// goes wrong is a finding too.
    pub async fn scan(&self, body: &Body) -> Vec<Finding> {
        match body {
            Body::Memory(octets) if octets.len() <= INLINE_OCTETS => self.scan_here(octets),
            _ => self.scan_on_thread(body.clone()).await,
        }
    }

    /// A panic is a bug of ours or of an engine; the message must not get through by it.
    fn scan_here(&self, message: &[u8]) -> Vec<Finding> {
        let examined = catch_unwind(AssertUnwindSafe(|| self.checks.examine(message)));
        examined.unwrap_or_else(|_| self.unavailable(BUG))
    }

    async fn scan_on_thread(&self, body: Body) -> Vec<Finding> {
        let octets = u32::try_from(body.octets()).unwrap_or(MAX_OCTETS).clamp(MIN_LARGE_OCTETS, MAX_OCTETS);
        let Ok(room) = self.room.clone().acquire_many_owned(octets).await else {
            return self.unavailable("shutting down");
        };
        let checks = self.checks.clone();
        let work = move || {
            // Until the work has ended, whether or not somebody still waits for it.
            let _room = room;
            match body {
                Body::Memory(octets) => Ok(checks.examine(&octets)),
                Body::File(file) => std::fs::read(file.path()).map(|octets| checks.examine(&octets)),
            }
        };
        match spawn_blocking(work).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(error)) => self.unavailable(&format!("the message can't be read back: {error}")),
            Err(_) => self.unavailable(BUG),
        }
    }

    fn unavailable(&self, cause: &str) -> Vec<Finding> {
        let enabled = [
            (Check::Files, self.checks.files.is_some()),
            (Check::Signatures, self.checks.signatures.is_some()),
        ];
        let checks = enabled.into_iter().filter_map(|(check, enabled)| enabled.then_some(check));
        checks.map(|check| Finding::new(check, Opinion::Unavailable(cause.to_owned()), cause)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use mailguard_core::testing::TestConfig;

    use super::*;
    use crate::spool::SPILL_OCTETS;
    use crate::store::body::BodyDirectory;

    /// The EICAR test file, put together here so that no scanner takes this file for it.
    pub(crate) fn eicar() -> String {
        [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-", "TEST-FILE!$H+H*"].concat()
    }

    fn base64(octets: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in octets.chunks(3) {
            let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(*three.get(i).unwrap_or(&0)));
            for i in 0..4 {
                let digit = char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]);
                text.push(if i > three.len() { '=' } else { digit });
            }
        }
        text
    }

    fn scanner(files: bool, signatures: bool, rules: &[(&str, &str)]) -> Scanner {
        let said = TestConfig::default().with(&format!(
            "virus.signatures.enabled = {signatures}
            files.enabled = {files}
            files.extensions = [\"exe\", \"com\"]
            files.limits = {{ max_depth = 2, max_entries = 100, max_unpacked = \"16MB\" }}"
        ));
        let said = rules.iter().fold(said, |said, (path, text)| said.with_rules(path, text));
        Scanner::new(&said.resolve()).unwrap()
    }

    /// The findings as `check: outcome (reason)`.
    async fn findings(scanner: &Scanner, message: &str) -> Vec<String> {
        let body = Body::Memory(Bytes::from(message.replace('\n', "\r\n")));
        let findings = scanner.scan(&body).await;
        findings.iter().map(|f| format!("{}: {} ({})", f.check, f.opinion, f.reason)).collect()
    }

    #[track_caller]
    fn assert_findings(seen: &[String], expect: &[&str]) {
        assert_eq!(seen, expect);
    }

    #[tokio::test]
    async fn findings_of_whole_messages() {
        let scanner = scanner(true, true, &[]);
        let check = async |message: &str, expect: &[&str]| {
            assert_findings(&findings(&scanner, message).await, expect)
        };
        check(
            "Subject: x\n\nhello",
            &["files: pass (1 part, nothing found)", "signatures: pass (1 part, nothing found)"],
        )
        .await;
        let nested = "Content-Type: message/rfc822\n\n";
        check(
            &format!("{nested}{nested}{nested}\n"),
            &[
                "files: found: blocked file (beyond the limits) (handled as blocked: nested deeper than files.limits.max_depth)",
                "signatures: pass (3 parts, nothing found)",
            ],
        )
        .await;
        check(
            &format!(
                "Content-Disposition: attachment; filename=a.exe\nContent-Transfer-Encoding: base64\n\n{}",
                base64(eicar().as_bytes())
            ),
            &[
                "files: found: blocked file a.exe (extension .exe of \"a.exe\")",
                "signatures: found: virus EICAR_Test_File (rule EICAR_Test_File matches \"a.exe\")",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn a_virus_is_found_wherever_it_stands() {
        let (plain, encoded) = (eicar(), base64(eicar().as_bytes()));
        let qp = plain.replace('=', "=3D").replace('E', "=45");
        let scanner = scanner(false, true, &[]);
        for message in [
            format!("Subject: {plain}\n\n"),
            format!("\n{plain}"),
            format!("Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n{encoded}"),
            format!("Content-Transfer-Encoding: quoted-printable\n\n{qp}"),
            format!("Content-Transfer-Encoding: x-unknown\n\n{encoded}"),
            format!(
                "Content-Type: multipart/mixed; boundary=a; boundary=b\n\n--b\nContent-Transfer-Encoding: base64\n\n{encoded}\n--b--"
            ),
            format!("Content-Type: message/rfc822\n\nContent-Transfer-Encoding: base64\n\n{encoded}"),
            format!(
                "Content-Type: multipart/mixed; boundary=a\n\n--a--\nContent-Transfer-Encoding: base64\n\n{encoded}"
            ),
        ] {
            let seen = findings(&scanner, &message).await;
            assert_eq!(seen.len(), 1, "{message}");
            assert!(seen[0].starts_with("signatures: found: virus EICAR_Test_File"), "{message}: {seen:?}");
        }
    }

    #[tokio::test]
    async fn large_messages_are_scanned_alike() {
        let filling = "filling of a large message\n".repeat(INLINE_OCTETS / 10);
        let scanner =
            scanner(true, true, &[("own.yar", "rule Own { strings: $a = \"the end\" condition: $a }")]);
        let seen = findings(&scanner, &format!("Content-Type: a; name=a.com\n\n{filling}the end")).await;
        let expect = [
            "files: found: blocked file a.com (extension .com of \"a.com\")",
            "signatures: found: virus Own (rule Own matches \"a.com\")",
        ];
        assert_findings(&seen, &expect);
    }

    #[tokio::test]
    async fn a_body_in_a_file_is_scanned_and_one_that_is_gone_is_not_passed() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = BodyDirectory::new(directory.path().to_owned()).writer(1);
        writer.push(b"Content-Type: a; name=a.com\r\n\r\n").await.unwrap();
        writer.push(&b"filling\r\n".repeat(SPILL_OCTETS / 8)).await.unwrap();
        writer.push(eicar().as_bytes()).await.unwrap();
        let body = writer.finish().await.unwrap();
        let scanner = scanner(true, true, &[]);
        let outcomes =
            async || scanner.scan(&body).await.into_iter().map(|f| f.opinion.to_string()).collect::<Vec<_>>();
        assert_eq!(outcomes().await, ["found: blocked file a.com", "found: virus EICAR_Test_File"]);
        let Body::File(file) = &body else { panic!("a large body in memory") };
        std::fs::remove_file(file.path()).unwrap();
        for outcome in outcomes().await {
            assert!(outcome.starts_with("unavailable: the message can't be read back"), "{outcome}");
        }
    }

    #[tokio::test]
    async fn beyond_the_limits_a_virus_scan_alone_is_not_complete() {
        let nested = "Content-Type: message/rfc822\n\n".repeat(3);
        let seen = findings(&scanner(false, true, &[]), &nested).await;
        assert_findings(
            &seen,
            &["signatures: unavailable: not scanned to its end: nested deeper than files.limits.max_depth \
               (not scanned to its end: nested deeper than files.limits.max_depth)"],
        );
    }

    #[tokio::test]
    async fn what_is_not_enabled_says_nothing() {
        assert_findings(&findings(&scanner(false, false, &[]), "\nx").await, &[]);
    }

    #[test]
    fn rules_that_did_not_change_are_not_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::spool::fixture::config(folder.path());
        config.virus.signatures = true;
        config.virus.rules = vec![("/a.yar".into(), "rule A { condition: true }".to_owned())];
        let first = Scanner::new(&config).unwrap();
        let same_rules = |scanner: &Scanner| {
            let rules = scanner.checks.signatures.as_ref().zip(first.checks.signatures.as_ref());
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
        assert!(Scanner::renewed(&other, (&first, &config)).unwrap().checks.signatures.is_none());
    }
}
