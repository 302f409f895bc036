//! `mailguard bypass` and `mailguard blacklist`.

use std::fmt::Write;
use std::time::Duration;

use anyhow::bail;

use super::Printed;
use super::args::{Kind, ListCommand, Output};
use super::daemon::Daemon;
use super::terminal::{Table, plain, span};
use crate::admin::request::Entries;
use crate::admin::{Edited, EntryRow};
use crate::config::{Change, Edit, EditList};

/// Values that are named one by one after a change; more are only counted.
const MAX_NAMED: usize = 20;

/// Shows or changes lists of one family.
pub(super) fn lists<K: Kind>(daemon: &mut Daemon, command: ListCommand<K>) -> anyhow::Result<Printed> {
    match command {
        ListCommand::List { kind, output } => {
            let lists = match kind {
                Some(kind) => vec![kind.list()],
                None => K::value_variants().iter().map(Kind::list).collect(),
            };
            let entries = daemon.ask(Entries { lists })?;
            Printed::result(output, &entries, || print(&entries))
        }
        ListCommand::Add { kind, values, all, output } => {
            let (list, change) = (kind.list(), Change::Add);
            let values = values.read(list)?;
            if let Some(everybody) = values.iter().find(|value| !all && is_everybody(value)) {
                bail!("{everybody} is everybody: if that is meant, add --all; nothing was changed");
            }
            edit(daemon, Edit { list, change, values, all }, output, print_edited)
        }
        ListCommand::Remove { kind, values, output } => {
            let (list, change) = (kind.list(), Change::Remove);
            edit(daemon, Edit { list, change, values: values.read(list)?, all: false }, output, print_edited)
        }
    }
}

/// Whether a value stands for every address there is.
fn is_everybody(value: &str) -> bool {
    value.trim().rsplit_once('/').is_some_and(|(_, prefix)| prefix.parse() == Ok(0_u8))
}

/// Has a list changed, and prints what was done.
pub(super) fn edit(
    daemon: &mut Daemon,
    edit: Edit,
    output: Output,
    print: fn(&Edited) -> String,
) -> anyhow::Result<Printed> {
    let edited = daemon.ask(edit)?;
    Printed::result(output, &edited, || print(&edited))
}

/// What an administrator should know of a change, a line each.
pub(super) fn notes(text: &mut String, notes: &[String]) {
    for note in notes {
        let _ = writeln!(text, "  {}", plain(note));
    }
}

fn print(entries: &[EntryRow]) -> String {
    if entries.is_empty() {
        return "nothing is listed\n".to_owned();
    }
    let mut table = Table::whole(&["KIND", "VALUE", "HITS", "LAST HIT", "WRITTEN IN"]);
    let mut names = String::new();
    for row in entries {
        let EntryRow { entry, packets, last_hit_seconds_ago, .. } = row;
        name(&mut names, row);
        let last = last_hit_seconds_ago.map(|seconds| format!("{} ago", span(Duration::from_secs(seconds))));
        table.row([
            entry.list.kind().to_owned(),
            entry.value.clone(),
            packets.map_or("-".to_owned(), |packets| packets.to_string()),
            last.unwrap_or("-".to_owned()),
            format!("{}:{}", entry.file.display(), entry.line),
        ]);
    }
    let mut text = String::new();
    table.print(&mut text, "");
    text + &names
}

/// Which addresses a name stands for, if it is one.
fn name(text: &mut String, row: &EntryRow) {
    let Some(addresses) = &row.addresses else { return };
    if text.is_empty() {
        text.push('\n');
    }
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let shown = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") };
    let _ = writeln!(text, "{}: {shown}", plain(&row.entry.value));
    if let Some(note) = &row.note {
        let _ = writeln!(text, "  {}", plain(note));
    }
}

fn print_edited(edited: &Edited) -> String {
    let done = match edited.change {
        Change::Add => "added",
        Change::Remove => "removed",
    };
    let mut text = String::new();
    let (kind, count) = (edited.list.kind(), edited.values.len());
    if count > MAX_NAMED {
        let _ = writeln!(text, "{done}: {count} values of {kind}");
    } else {
        for value in &edited.values {
            let _ = writeln!(text, "{done}: {kind} {value}");
        }
    }
    let _ = writeln!(text, "in force, and written into {}", edited.config.display());
    if edited.list == EditList::BypassToName && edited.change == Change::Add {
        text.push_str("connections pass once the DNS has answered: see `mailguard bypass list to-name`\n");
    }
    notes(&mut text, &edited.notes);
    text
}
