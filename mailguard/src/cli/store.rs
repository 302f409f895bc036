//! `mailguard store`: the store on disk, without the daemon.

use std::fmt::Write;
use std::path::Path;

use super::args::StoreCommand;
use super::terminal::{Table, messages, plain, size};
use super::{Printed, Processes};
use crate::store::spool::inspect::Inspection;

pub(super) fn store(
    processes: &impl Processes,
    state_dir: &Path,
    command: StoreCommand,
) -> anyhow::Result<Printed> {
    match command {
        StoreCommand::Check { output } => {
            let inspection = processes.check_store(state_dir)?;
            let printed = Printed::result(output, &inspection, || print(&inspection))?;
            Ok(Printed { failed: !inspection.problems.is_empty(), ..printed })
        }
        StoreCommand::Export { folder, output } => {
            let exported = processes.export_store(state_dir, &folder)?;
            let printed = Printed::result(output, &exported, || {
                let mut text = format!("{} written to {}\n", messages(exported.messages), folder.display());
                problems(&mut text, &exported.problems);
                text
            })?;
            Ok(Printed { failed: !exported.problems.is_empty(), ..printed })
        }
    }
}

fn print(inspection: &Inspection) -> String {
    let Inspection { database, queue, quarantine, .. } = inspection;
    let mut text = format!("{}\n", database.display());
    let mut stock = Table::lines();
    for (name, stock_of) in [("queue", queue), ("quarantine", quarantine)] {
        stock.row([name.to_owned(), format!("{}, {}", messages(stock_of.messages), size(stock_of.octets))]);
    }
    stock.print(&mut text, "");
    for orphan in &inspection.orphans {
        let _ = writeln!(
            text,
            "no row names it: {}: kept; `mailguard store export` writes it, too",
            orphan.display()
        );
    }
    problems(&mut text, &inspection.problems);
    if inspection.problems.is_empty() {
        text.push_str("everything is there\n");
    }
    text
}

fn problems(text: &mut String, problems: &[String]) {
    for problem in problems {
        let _ = writeln!(text, "PROBLEM: {}", plain(problem));
    }
}
