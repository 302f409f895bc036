//! `mailguard queue` and `mailguard quarantine`.

use std::fmt::Write;

use anyhow::Context;
use mailguard_core::mail::{Mailbox, QueueId, UnixTime};

use super::Printed;
use super::args::{Listed, One, Output, Paused, QuarantineCommand, QueueCommand};
use super::daemon::Daemon;
use super::terminal::{Table, ago, messages, plain, plain_lines, size, until};
use crate::admin::request::{
    QuarantineDelete, QuarantineList, QuarantineRelease, QuarantineShow, QueueHold, QueueList, QueuePause,
    QueueRemove, QueueRetry, QueueShow,
};
use crate::admin::{
    Ask, Done, Listing, MAX_ROWS, Page, QuarantineMessage, QuarantineRow, QueueMessage, QueueRow, SourceRow,
};

/// Shows or changes what waits.
pub(super) fn queue(daemon: &mut Daemon, command: QueueCommand, now: UnixTime) -> anyhow::Result<Printed> {
    match command {
        QueueCommand::List(Listed { limit, output }) => {
            let listing = gather(limit, |page| Ok(daemon.ask(QueueList(page))?))?;
            Printed::result(output, &listing.rows, || print_queue(&listing, now))
        }
        QueueCommand::Show(One { id, output }) => {
            let message = daemon.ask(QueueShow { id })?;
            Printed::result(output, &message, || print_queue_message(&message, now))
        }
        QueueCommand::Retry(chosen) => {
            let question = QueueRetry { which: chosen.which() };
            change(daemon, chosen.output, question, "is due now", "are due now")
        }
        QueueCommand::Hold(chosen) => {
            let question = QueueHold { which: chosen.which(), held: true };
            change(daemon, chosen.output, question, "is held", "are held")
        }
        QueueCommand::Release(chosen) => {
            let question = QueueHold { which: chosen.which(), held: false };
            change(daemon, chosen.output, question, "is no longer held", "are no longer held")
        }
        QueueCommand::Remove(chosen) => {
            let question = QueueRemove { which: chosen.which() };
            change(daemon, chosen.output, question, "removed", "removed")
        }
        QueueCommand::Pause(Paused { destination, output }) => pause(daemon, destination, true, output),
        QueueCommand::Resume(Paused { destination, output }) => pause(daemon, destination, false, output),
    }
}

fn pause(daemon: &mut Daemon, destination: String, paused: bool, output: Output) -> anyhow::Result<Printed> {
    let all = daemon.ask(QueuePause { destination, paused })?;
    Printed::result(output, &all, || match all.as_slice() {
        [] => "no destination is paused\n".to_owned(),
        all => format!("paused: {}\n", plain(&all.join(" "))),
    })
}

/// Shows or changes what is quarantined.
pub(super) fn quarantine(
    daemon: &mut Daemon,
    command: QuarantineCommand,
    now: UnixTime,
) -> anyhow::Result<Printed> {
    match command {
        QuarantineCommand::List(Listed { limit, output }) => {
            let listing = gather(limit, |page| Ok(daemon.ask(QuarantineList(page))?))?;
            Printed::result(output, &listing.rows, || print_quarantine(&listing, now))
        }
        QuarantineCommand::Show(One { id, output }) => {
            let message = daemon.ask(QuarantineShow { id })?;
            Printed::result(output, &message, || print_quarantine_message(&message, now))
        }
        QuarantineCommand::Release { chosen, to, with_virus } => {
            let to = to.map(|text| Mailbox::parse(&text).context(text)).transpose()?;
            let question = QuarantineRelease { which: chosen.which(), to, with_virus };
            change(daemon, chosen.output, question, "released", "released")
        }
        QuarantineCommand::Delete(chosen) => {
            change(daemon, chosen.output, QuarantineDelete { which: chosen.which() }, "deleted", "deleted")
        }
    }
}

/// Asks page after page until `limit` rows are there or nothing more comes.
fn gather<T>(
    limit: u32,
    mut ask: impl FnMut(Page) -> anyhow::Result<Listing<T>>,
) -> anyhow::Result<Listing<T>> {
    let mut whole = ask(Page { after: None, limit: limit.min(MAX_ROWS) })?;
    while let Some(after) = whole.next {
        let left = limit.saturating_sub(u32::try_from(whole.rows.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        let more = ask(Page { after: Some(after), limit: left.min(MAX_ROWS) })?;
        whole.rows.extend(more.rows);
        whole.next = more.next;
    }
    Ok(whole)
}

/// Does something to messages. Those that aren't there are a failure, the others are done nevertheless.
fn change(
    daemon: &mut Daemon,
    output: Output,
    question: impl Ask<Answer = Done>,
    one: &str,
    many: &str,
) -> anyhow::Result<Printed> {
    let done = daemon.ask(question)?;
    let verb = if done.messages == 1 { one } else { many };
    let mut printed = Printed::result(output, &done, || format!("{} {verb}\n", messages(done.messages)))?;
    for id in &done.missing {
        let _ = writeln!(printed.complaint, "mailguard: there is no message {id}");
    }
    Ok(printed)
}

fn print_queue(listing: &Listing<QueueRow>, now: UnixTime) -> String {
    if listing.rows.is_empty() {
        return "the queue is empty\n".to_owned();
    }
    let mut table = Table::new(&["ID", "AGE", "SIZE", "FROM", "TO", "TRIES", "NEXT", "LAST"]);
    for row in &listing.rows {
        let to = match row.waiting {
            0 | 1 => row.first_recipient.clone(),
            waiting => format!("{} +{}", row.first_recipient, waiting - 1),
        };
        table.row([
            row.id.to_string(),
            super::terminal::span(now.since(row.received_at)),
            size(row.octets),
            row.sender.clone(),
            to,
            row.attempts.to_string(),
            if row.held { "held".to_owned() } else { until(now, row.next_attempt) },
            row.last.clone(),
        ]);
    }
    print_listing(&table, listing.rows.len(), listing.total)
}

fn print_quarantine(listing: &Listing<QuarantineRow>, now: UnixTime) -> String {
    if listing.rows.is_empty() {
        return "the quarantine is empty\n".to_owned();
    }
    let mut table = Table::new(&["ID", "AGE", "SIZE", "FROM", "TO", "REASON"]);
    for row in &listing.rows {
        let to = match &row.recipients[..] {
            [first, _, ..] => format!("{first} +{}", row.recipients.len() - 1),
            _ => row.recipients.concat(),
        };
        table.row([
            row.id.to_string(),
            super::terminal::span(now.since(row.since)),
            size(row.octets),
            row.sender.clone(),
            to,
            row.reason.clone(),
        ]);
    }
    print_listing(&table, listing.rows.len(), listing.total)
}

fn print_listing(table: &Table, shown: usize, total: u64) -> String {
    let mut text = String::new();
    table.print(&mut text, "");
    if (shown as u64) < total {
        let _ = writeln!(text, "{shown} of {total} shown, see --limit");
    }
    text
}

fn print_queue_message(message: &QueueMessage, now: UnixTime) -> String {
    let QueueMessage { row, source, recipients, header } = message;
    let mut text = heading(row.id, row.octets, row.received_at, now);
    field(&mut text, "client", &describe(source.as_ref()));
    field(&mut text, "sender", &row.sender);
    for recipient in recipients {
        let mut line = format!("{}: {}", recipient.address, recipient.state);
        if recipient.attempts > 0 {
            let times = if recipient.attempts == 1 { "attempt" } else { "attempts" };
            let _ = write!(line, ", {} {times}", recipient.attempts);
        }
        if let Some(next) = recipient.next_attempt {
            let _ = write!(line, ", next {}", until(now, next));
        }
        if !recipient.last.is_empty() {
            let _ = write!(line, "; {}", recipient.last);
        }
        field(&mut text, "recipient", &line);
    }
    text + "\n" + &plain_lines(header, "  ")
}

fn print_quarantine_message(message: &QuarantineMessage, now: UnixTime) -> String {
    let QuarantineMessage { row, source, reasons, header, text: body } = message;
    let mut text = heading(row.id, row.octets, row.received_at, now);
    field(&mut text, "client", &describe(source.as_ref()));
    field(&mut text, "sender", &row.sender);
    for (recipient, reason) in row.recipients.iter().zip(reasons) {
        field(&mut text, "recipient", &format!("{recipient}: {reason}"));
    }
    field(&mut text, "since", &ago(now, row.since));
    text + "\n" + &plain_lines(header, "  ") + "\n" + &plain_lines(body, "  ")
}

/// The first line of what is shown of one message.
pub(super) fn heading(id: QueueId, octets: u64, at: UnixTime, now: UnixTime) -> String {
    format!("{id}  {}, {}, {}\n", at.rfc3339(), ago(now, at), size(octets))
}

/// One line of what is shown of one message.
pub(super) fn field(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<10} {}", plain(value));
}

/// Who brought a message.
pub(super) fn describe(source: Option<&SourceRow>) -> String {
    match source {
        None => "mailguard itself".to_owned(),
        Some(SourceRow { client, zone, destination, helo }) => {
            let helo = if helo.is_empty() { "without HELO".to_owned() } else { format!("HELO {helo}") };
            format!("{client} in zone {zone}, to {destination}, {helo}")
        }
    }
}
