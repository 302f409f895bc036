//! One message under examination: the walk, the checks that each part is shown to, and the findings they add up to.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mailguard_core::finding::{Check, Finding, Opinion, Threat};
use mailguard_core::mime::{self, Limits, Part, Summary};

use super::files::BlockedFiles;
use super::virus::signatures::Signatures;

/// Longest time in which new parts of one message are still shown to the virus engines.
pub const SCAN_TIMEOUT: Duration = Duration::from_secs(60);

/// Most threats recorded of one check and message; any of them decides.
pub const MAX_THREATS: usize = 16;

/// Longest name in a finding, characters.
const MAX_NAME_CHARACTERS: usize = 120;

/// What the parts are shown to.
#[derive(Debug, Clone)]
pub(super) struct Checks {
    pub(super) files: Option<BlockedFiles>,
    pub(super) signatures: Option<Signatures>,
    pub(super) limits: Limits,
}

impl Checks {
    /// Walks the message and gives at least one finding a check.
    pub(super) fn examine(&self, message: &[u8]) -> Vec<Finding> {
        let mut files = Tally::default();
        let mut viruses = Tally::default();
        let deadline = Instant::now() + SCAN_TIMEOUT;
        let summary = mime::walk(message, self.limits, &mut |part| {
            if let Some(blocked) = &self.files {
                files.see_file(blocked, part);
            }
            if let Some(signatures) = &self.signatures
                && !part.is_container
            {
                let place = || {
                    part.names.first().map_or_else(|| "a part".to_owned(), |n| format!("\"{}\"", shown(n)))
                };
                viruses.see_virus(signatures, part.content, deadline, place);
            }
            ControlFlow::Continue(())
        });
        if let Some(signatures) = &self.signatures {
            viruses.see_virus(signatures, message, deadline, || "the message".to_owned());
        }
        let mut findings = Vec::with_capacity(2);
        if self.files.is_some() {
            findings.append(&mut files.file_findings(&summary));
        }
        if self.signatures.is_some() {
            findings.append(&mut viruses.virus_findings(&summary, self.files.is_some()));
        }
        findings
    }
}

/// What one check has come to so far.
#[derive(Default)]
struct Tally {
    threats: Vec<(Threat, String)>,
    failure: Option<String>,
}

impl Tally {
    fn add(&mut self, threat: Threat, reason: String) {
        if self.threats.len() < MAX_THREATS && !self.threats.iter().any(|(known, _)| *known == threat) {
            self.threats.push((threat, reason));
        }
    }

    fn see_file(&mut self, blocked: &BlockedFiles, part: &Part<'_>) {
        if let Some(found) = blocked.check(part) {
            self.add(Threat::File(shown(&found.name)), found.reason);
        }
    }

    fn see_virus(
        &mut self,
        signatures: &Signatures,
        content: &[u8],
        deadline: Instant,
        place: impl Fn() -> String,
    ) {
        if self.failure.is_some() {
            return;
        }
        if Instant::now() >= deadline {
            self.failure = Some(format!("the message took longer than {} s", SCAN_TIMEOUT.as_secs()));
            return;
        }
        match signatures.scan(content) {
            Ok(names) => {
                for name in names {
                    let reason = format!("rule {name} matches {}", place());
                    self.add(Threat::Virus(name), reason);
                }
            }
            Err(timeout) => self.failure = Some(timeout.to_string()),
        }
    }

    fn file_findings(mut self, summary: &Summary) -> Vec<Finding> {
        if let Some(limit) = summary.exceeded {
            let reason = format!("handled as blocked: {limit}");
            self.threats.truncate(MAX_THREATS - 1);
            self.add(Threat::File("(beyond the limits)".to_owned()), reason);
        }
        self.findings(Check::Files, summary)
    }

    /// `limits_block`: the file check takes care of messages beyond the limits.
    fn virus_findings(mut self, summary: &Summary, limits_block: bool) -> Vec<Finding> {
        if let Some(limit) = summary.exceeded
            && !limits_block
        {
            self.failure.get_or_insert_with(|| format!("not scanned to its end: {limit}"));
        }
        self.findings(Check::Signatures, summary)
    }

    fn findings(self, check: Check, summary: &Summary) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .threats
            .into_iter()
            .map(|(threat, reason)| Finding::new(check, Opinion::Found(threat), reason))
            .collect();
        if let Some(cause) = self.failure {
            findings.push(Finding::new(check, Opinion::Unavailable(cause.clone()), cause));
        }
        if findings.is_empty() {
            findings.push(Finding::new(check, Opinion::Pass, nothing_found(summary)));
        }
        findings
    }
}

/// `12 parts, nothing found`, and where readers differ, how it was read.
fn nothing_found(summary: &Summary) -> String {
    use std::fmt::Write as _;
    let plural = if summary.parts == 1 { "part" } else { "parts" };
    let mut text = format!("{} {plural}, nothing found", summary.parts);
    for (index, ambiguity) in summary.ambiguities.iter().enumerate() {
        // Writing to a String can't fail.
        let _ = write!(text, "{}{ambiguity}", if index == 0 { "; read in each way: " } else { ", " });
    }
    text
}

/// A name as findings show it: of a long one the beginning and the end, where the extension stands.
fn shown(name: &str) -> String {
    let length = name.chars().count();
    if length <= MAX_NAME_CHARACTERS {
        return name.to_owned();
    }
    let half = MAX_NAME_CHARACTERS / 2;
    let (head, tail) = (name.chars().take(half), name.chars().skip(length - half + 1));
    head.chain(['…']).chain(tail).collect()
}
