//! `[virus]` and `[files]`: what is looked for in messages, and what becomes of those in which it is found.

use std::path::PathBuf;

use super::model::{Files, Handling, ScannerFailure, Virus};
use super::section::Section;
use super::{syntax, unbuilt};
use crate::file_sets::FileSet;

/// Blocked file name extensions and sets of them.
const MAX_EXTENSIONS: usize = 1_024;

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

/// `handling` and `redirect_to`.
fn handling(section: &mut Section<'_>) -> Handling {
    let address = section.text_or_empty("redirect_to", &syntax::MAILBOX);
    let redirect = address.map_or(Handling::Quarantine, Handling::Redirect);
    if section.says("handling", "reject") || section.says("handling", "strip") {
        section.refuse("handling", "\"quarantine\", \"redirect\", \"pass\" or \"drop\"");
        return Handling::Quarantine;
    }
    let chosen = section.choice(
        "handling",
        "quarantine",
        &[
            ("quarantine", Handling::Quarantine),
            ("redirect", redirect),
            ("pass", Handling::Pass),
            ("drop", Handling::Drop),
        ],
    );
    if section.says("handling", "redirect") && !section.has_text("redirect_to") {
        let remedy = "add redirect_to = \"ADDRESS\"";
        section.conflict("handling", "handling = \"redirect\" needs redirect_to", remedy);
    }
    chosen
}

pub(super) fn virus(section: &mut Section<'_>, rules: Vec<(PathBuf, String)>) -> Virus {
    let enabled = section.flag("enabled", true);
    let handling = handling(section);
    let on_scanner_failure = section.choice(
        "on_scanner_failure",
        "defer",
        &[("defer", ScannerFailure::Defer), ("pass", ScannerFailure::Pass)],
    );
    unbuilt::virus(section);
    let signatures = section.table("signatures", |section| {
        section.text_or_empty("rules_dir", &syntax::PATH);
        section.flag("enabled", true)
    });
    Virus { signatures: enabled && signatures, rules, handling, on_scanner_failure }
}

pub(super) fn files(section: &mut Section<'_>) -> Files {
    let enabled = section.flag("enabled", true);
    unbuilt::files(section, enabled);
    let handling = handling(section);
    let extensions = extensions(section);
    section.table("limits", |limits| {
        unbuilt::file_limits(limits, enabled);
        Files {
            enabled,
            handling,
            extensions,
            max_depth: limits.count("max_depth", 8, 1..=64) as usize,
            max_entries: limits.count("max_entries", 10_000, 1..=1_000_000) as usize,
            max_unpacked: limits.size("max_unpacked", 256 * MB, KB..=16 * GB),
        }
    })
}

/// `extensions`, each set replaced by what is in it, each once.
fn extensions(section: &mut Section<'_>) -> Vec<String> {
    let listed = section.list("extensions", &syntax::EXTENSIONS, MAX_EXTENSIONS);
    let listed = listed.map_or_else(|| syntax::of_set(FileSet::Common), |values| values.concat());
    let mut each: Vec<String> = Vec::with_capacity(listed.len());
    for extension in listed {
        if !each.contains(&extension) {
            each.push(extension);
        }
    }
    each
}
