//! The judgement, on texts as the system prints them.

mod filters;
mod forward;
mod hops;
mod machine;
mod rulesets;

use super::*;
use crate::config::Source;

/// Zones: green, transparent, on lan0 and lan1; red, active, on wan0; blue, inactive, on wlan0.
const TEXT: &str = r#"hostname = "mailguard.example.org"
[[zone]]
name = "green"
kind = "green"
interfaces = ["lan0", "lan1"]
mode = "transparent"
[[zone]]
name = "red"
kind = "red"
interfaces = ["wan0"]
mode = "active"
[[zone]]
name = "blue"
kind = "blue"
interfaces = ["wlan0"]
mode = "inactive"
"#;

fn config() -> Config {
    config::parse_and_validate(&Source::of_text("m.toml", TEXT)).unwrap()
}

/// The check and severity of each finding that isn't ok.
fn complaints(findings: &[Finding]) -> Vec<(&str, Severity)> {
    let complaints = findings.iter().filter(|finding| finding.severity != Severity::Ok);
    complaints.map(|finding| (finding.check.as_str(), finding.severity)).collect()
}
