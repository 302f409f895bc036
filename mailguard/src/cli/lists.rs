//! `mailguard bypass` and `mailguard blacklist`.

use std::fmt::Write;

use super::args::{Kind, ListCommand, Output};
use super::layout::Table;
use super::{Printed, wrong_answer};
use crate::config::{Change, Edit, EditList, ListEntry};
use crate::control::{Answer, Client, Edited, Request};

/// Shows or changes lists of one family.
pub(super) fn lists<K: Kind>(client: &mut Client, command: ListCommand<K>) -> anyhow::Result<Printed> {
    match command {
        ListCommand::List { kind, output } => {
            let lists = match kind {
                Some(kind) => vec![kind.list()],
                None => K::value_variants().iter().map(Kind::list).collect(),
            };
            match client.ask(&Request::Entries { lists })? {
                Answer::Entries(entries) => Printed::result(output, &entries, || print(&entries)),
                _ => wrong_answer(),
            }
        }
        ListCommand::Add { kind, values, output } => edit(client, kind.list(), Change::Add, values, output),
        ListCommand::Remove { kind, values, output } => {
            edit(client, kind.list(), Change::Remove, values, output)
        }
    }
}

fn edit(
    client: &mut Client,
    list: EditList,
    change: Change,
    values: Vec<String>,
    output: Output,
) -> anyhow::Result<Printed> {
    match client.ask(&Request::Edit(Edit { list, change, values }))? {
        Answer::Edited(edited) => Printed::result(output, &edited, || print_edited(&edited)),
        _ => wrong_answer(),
    }
}

fn print(entries: &[ListEntry]) -> String {
    if entries.is_empty() {
        return "nothing is listed\n".to_owned();
    }
    let mut table = Table::whole(&["KIND", "VALUE", "WRITTEN IN"]);
    for ListEntry { list, value, file, line } in entries {
        table.row([list.kind().to_owned(), value.clone(), format!("{}:{line}", file.display())]);
    }
    let mut text = String::new();
    table.print(&mut text, "");
    text
}

fn print_edited(edited: &Edited) -> String {
    let done = match edited.change {
        Change::Add => "added",
        Change::Remove => "removed",
    };
    let mut text = String::new();
    for value in &edited.values {
        let _ = writeln!(text, "{done}: {} {value}", edited.list.kind());
    }
    let _ = writeln!(text, "in force, and written into {}", edited.config.display());
    text
}
