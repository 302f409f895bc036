//! `mailguard check`: a configuration as the daemon would take it, or everything that is wrong with it.

use std::fmt::Write;
use std::path::Path;

use mailguard_core::config::model::Inactive;
use serde_json::json;

use super::args::Output;
use super::lists::notes;
use super::terminal::Table;
use super::{Printed, Processes};
use crate::config;

/// Checks a file.
pub(super) fn check(path: &Path, output: Output, processes: &impl Processes) -> anyhow::Result<Printed> {
    let source = config::load(path)?;
    let config = match config::parse_and_validate(&source) {
        Ok(config) => config,
        Err(errors) => {
            let value = json!({ "file": path, "valid": false, "errors": errors });
            let printed = Printed::result(output, &value, || format!("{errors}\n"))?;
            return Ok(Printed { failed: true, ..printed });
        }
    };
    let untried = processes.validate(&source, &config)?;
    let warnings = processes.warnings(&source, &config);
    let value = json!({
        "file": path, "valid": true, "warnings": warnings, "untried": untried, "inactive": config.inactive,
    });
    Printed::result(output, &value, || {
        let mut text = format!("{}: OK\n", path.display());
        notes(&mut text, &untried);
        for warning in &warnings {
            let _ = writeln!(text, "\nwarning: {warning}");
        }
        inactive(&mut text, &config.inactive);
        text
    })
}

/// The protections that are configured and not there, with a blank line before them.
pub(super) fn inactive(text: &mut String, inactive: &[Inactive]) {
    if inactive.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nConfigured, but not active in this version:");
    let mut table = Table::lines();
    for Inactive { key, what } in inactive {
        table.row([key.clone(), what.clone()]);
    }
    table.print(text, "  ");
}
