//! `mailguard doctor`: errors first, then warnings, then what was looked at and is fine.

use std::fmt::Write;

use serde_json::json;

use super::Printed;
use super::args::Output;
use super::terminal::plain;
use crate::doctor::{Finding, Report, Severity};

/// Prints a report; failed if it holds errors.
pub(super) fn doctor(output: Output, report: &Report) -> anyhow::Result<Printed> {
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let value = json!({ "errors": errors, "warnings": warnings, "findings": report.findings });
    let printed = Printed::result(output, &value, || {
        let mut text = String::new();
        for severity in [Severity::Error, Severity::Warning, Severity::Ok] {
            for finding in report.findings.iter().filter(|finding| finding.severity == severity) {
                print(&mut text, finding);
            }
        }
        let _ = writeln!(text, "\n{}, {}", count(errors, "error"), count(warnings, "warning"));
        text
    })?;
    Ok(Printed { failed: errors > 0, ..printed })
}

fn print(text: &mut String, finding: &Finding) {
    let word = match finding.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "warning",
        Severity::Ok => "ok",
    };
    // An error of the configuration has several lines.
    let mut lines = finding.what.lines().map(plain);
    let _ = writeln!(text, "{word:8} {}: {}", finding.check, lines.next().unwrap_or_default());
    let indented = lines.chain((!finding.why.is_empty()).then(|| plain(&finding.why)));
    for line in indented {
        let _ = writeln!(text, "         {line}");
    }
    for command in &finding.commands {
        let _ = writeln!(text, "         # {}", plain(command));
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
