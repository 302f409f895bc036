//! What an engine that looks for threats notes part by part, and the findings that it adds up to.

use mailguard_core::finding::{Check, Finding, Opinion, Threat};
use mailguard_core::mime::Summary;

/// Most threats that an engine records of one message; any of them decides.
pub const MAX_THREATS: usize = 16;

/// Longest name in a finding, characters.
const MAX_NAME_CHARACTERS: usize = 120;

/// Threats, each once, and why the rest couldn't be looked for.
#[derive(Debug, Default)]
pub struct Threats {
    found: Vec<(Threat, String)>,
    failure: Option<String>,
}

impl Threats {
    /// Notes a threat, and why it is one.
    pub fn add(&mut self, threat: Threat, reason: String) {
        if self.found.len() < MAX_THREATS && !self.found.iter().any(|(known, _)| *known == threat) {
            self.found.push((threat, reason));
        }
    }

    /// Notes that a part couldn't be checked.
    pub fn fail(&mut self, cause: String) {
        self.failure.get_or_insert(cause);
    }

    /// Whether a part couldn't be checked: the message isn't passed any more, whatever the others hold.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// A finding for each threat and for the failure, or else a pass.
    pub fn into_findings(self, check: Check, walk: &Summary) -> Vec<Finding> {
        let found = self.found.into_iter();
        let mut findings: Vec<Finding> =
            found.map(|(threat, reason)| Finding::new(check, Opinion::Found(threat), reason)).collect();
        if let Some(cause) = self.failure {
            findings.push(Finding::new(check, Opinion::Unavailable(cause.clone()), cause));
        }
        if findings.is_empty() {
            findings.push(Finding::new(check, Opinion::Pass, nothing_found(walk)));
        }
        findings
    }
}

/// `12 parts, nothing found`, and where readers differ, how it was read.
fn nothing_found(walk: &Summary) -> String {
    use std::fmt::Write as _;
    let plural = if walk.parts == 1 { "part" } else { "parts" };
    let mut text = format!("{} {plural}, nothing found", walk.parts);
    for (index, ambiguity) in walk.ambiguities.iter().enumerate() {
        // Writing to a String can't fail.
        let _ = write!(text, "{}{ambiguity}", if index == 0 { "; read in each way: " } else { ", " });
    }
    text
}

/// A name as findings show it: of a long one the beginning and the end, where the extension stands.
pub(crate) fn shown(name: &str) -> String {
    let length = name.chars().count();
    if length <= MAX_NAME_CHARACTERS {
        return name.to_owned();
    }
    let half = MAX_NAME_CHARACTERS / 2;
    let (head, tail) = (name.chars().take(half), name.chars().skip(length - half + 1));
    head.chain(['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threats_are_recorded_once_and_a_bounded_number_of_them() {
        let mut threats = Threats::default();
        for number in 0..2 * MAX_THREATS {
            threats.add(Threat::File(format!("{}.exe", number / 2)), String::new());
        }
        threats.add(Threat::File("one more.exe".to_owned()), String::new());
        threats.fail("the first".to_owned());
        threats.fail("the second".to_owned());
        let findings = threats.into_findings(Check::Files, &Summary::default());
        let opinions: Vec<String> = findings.iter().map(|finding| finding.opinion.to_string()).collect();
        assert_eq!(opinions.len(), MAX_THREATS + 1);
        assert_eq!(opinions[1], "found: blocked file 1.exe");
        assert_eq!(opinions[MAX_THREATS], "unavailable: the first");
    }

    #[test]
    fn a_long_name_is_shown_by_both_its_ends() {
        assert_eq!(shown("a.exe"), "a.exe");
        let long = shown(&format!("{}.exe", "ä".repeat(MAX_NAME_CHARACTERS)));
        assert_eq!(long.chars().count(), MAX_NAME_CHARACTERS);
        assert!(long.starts_with("ää") && long.contains('…') && long.ends_with("ää.exe"), "{long}");
    }
}
