//! `mailguard files`: the sets of extensions that `files.extensions` may name. Asks no daemon.

use mailguard_core::file_sets::FileSet;
use serde::Serialize;

use super::Printed;
use super::args::FilesCommand;

/// Longest printed line, characters.
const LINE_CHARACTERS: usize = 100;

/// A set, as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    set: &'static str,
    about: &'static str,
    extensions: Vec<&'static str>,
}

/// Answers about files.
pub(super) fn files(command: FilesCommand) -> anyhow::Result<Printed> {
    let FilesCommand::Sets { output } = command;
    let rows =
        FileSet::ALL.map(|set| Row { set: set.name(), about: set.about(), extensions: set.extensions() });
    Printed::result(output, &rows, || rows.iter().map(print).collect())
}

fn print(row: &Row) -> String {
    let mut text = format!("{}  {}\n ", row.set, row.about);
    let mut column = 1;
    for extension in &row.extensions {
        if column + 1 + extension.len() > LINE_CHARACTERS {
            text.push_str("\n ");
            column = 1;
        }
        text.push(' ');
        text.push_str(extension);
        column += 1 + extension.len();
    }
    text + "\n"
}
