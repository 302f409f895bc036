//! `mailguard trace`.

use std::fmt::Write;

use mailguard_core::mail::UnixTime;

use super::messages::{describe, field, heading};
use super::terminal::{Table, ago, plain};
use crate::admin::{AttemptRow, TraceRow};

/// A table, or everything: of a single message anyway, of several if `full`.
pub(super) fn print(rows: &[TraceRow], full: bool, now: UnixTime) -> String {
    match rows {
        [] => "no message matches\n".to_owned(),
        [row] => print_one(row, now),
        rows if full => rows.iter().map(|row| print_one(row, now)).collect::<Vec<_>>().join("\n"),
        rows => print_table(rows, now),
    }
}

fn print_table(rows: &[TraceRow], now: UnixTime) -> String {
    let mut table = Table::new(&["ID", "WHEN", "CLIENT", "FROM", "TO", "SUBJECT", "RESULT"]);
    for row in rows {
        let to = match &row.recipients[..] {
            [] => String::new(),
            [only] => only.address.clone(),
            [first, rest @ ..] => format!("{} +{}", first.address, rest.len()),
        };
        table.row([
            row.id.to_string(),
            ago(now, row.at),
            row.source.as_ref().map_or_else(|| "-".to_owned(), |source| source.client.to_string()),
            row.sender.clone(),
            to,
            row.subject.clone(),
            result(row),
        ]);
    }
    let mut text = String::new();
    table.print(&mut text, "");
    text
}

/// The latest thing that is known: a refusal, a disposition that isn't delivery, or what the attempts came
/// to.
fn result(row: &TraceRow) -> String {
    if let Some(held) = row.recipients.iter().find(|to| !matches!(to.disposition.as_str(), "" | "deliver")) {
        return held.disposition.clone();
    }
    match row.attempts.last() {
        Some(attempt) => format!("{}: {}", attempt.outcome, attempt.text),
        None => row.result.clone(),
    }
}

/// What the next hop said, and how the session with it stood.
fn text_of(attempt: &AttemptRow) -> String {
    match attempt.transfer.as_str() {
        "" => attempt.text.clone(),
        transfer => format!("{} ({transfer})", attempt.text),
    }
}

fn print_one(row: &TraceRow, now: UnixTime) -> String {
    let mut text = heading(row.id, row.octets, row.at, now);
    field(&mut text, "client", &describe(row.source.as_ref()));
    field(&mut text, "sender", &row.sender);
    for recipient in &row.recipients {
        let disposition = &recipient.disposition;
        let then = if disposition.is_empty() { String::new() } else { format!(": {disposition}") };
        field(&mut text, "recipient", &format!("{}{then}", recipient.address));
    }
    field(&mut text, "subject", &row.subject);
    for check in &row.checks {
        let reason = if check.reason.is_empty() { String::new() } else { format!(" ({})", check.reason) };
        field(&mut text, "check", &format!("{}: {}{reason}", check.check, check.outcome));
    }
    field(&mut text, "result", &row.result);
    for attempt in &row.attempts {
        let _ = writeln!(
            text,
            "  {:<10} {}: {} to {} via {}: {}",
            "attempt",
            ago(now, attempt.at),
            plain(&attempt.outcome),
            plain(&attempt.recipient),
            plain(&attempt.next_hop),
            plain(&text_of(attempt))
        );
    }
    text
}
