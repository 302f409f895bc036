//! `mailguard ban`.

use std::fmt::Write;
use std::time::Duration;

use mailguard_core::mail::UnixTime;
use mailguard_core::subscriber::Subscriber;

use super::Printed;
use super::args::BanCommand;
use super::daemon::Daemon;
use super::terminal::{Table, ago, span};
use crate::admin::BanRow;
use crate::admin::request::{BanAdd, BanLift, Bans};

/// Shows or changes who is banned.
pub(super) fn bans(daemon: &mut Daemon, command: BanCommand, now: UnixTime) -> anyhow::Result<Printed> {
    match command {
        BanCommand::List { output } => {
            let rows = daemon.ask(Bans {})?;
            Printed::result(output, &rows, || print(&rows, now))
        }
        BanCommand::Add { clients, time, reason, output } => {
            let seconds = time.map(|time| time.as_secs());
            let rows = daemon.ask(BanAdd { clients, seconds, reason })?;
            Printed::result(output, &rows, || print_added(&rows))
        }
        BanCommand::Lift { clients, all, output } => {
            let lifted = daemon.ask(BanLift { clients: (!all).then_some(clients) })?;
            Printed::result(output, &lifted, || print_lifted(&lifted))
        }
    }
}

fn left(row: &BanRow) -> String {
    span(Duration::from_secs(row.seconds_left))
}

fn print(rows: &[BanRow], now: UnixTime) -> String {
    if rows.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut table = Table::whole(&["CLIENT", "SINCE", "LEFT", "REASON", "REFUSED", "LAST"]);
    for row in rows {
        table.row([
            row.client.to_string(),
            ago(now, row.since),
            left(row),
            row.reason.clone(),
            row.packets.to_string(),
            row.last.map_or_else(|| "-".to_owned(), |last| ago(now, last)),
        ]);
    }
    let mut text = String::new();
    table.print(&mut text, "");
    text
}

fn print_added(rows: &[BanRow]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        let _ = writeln!(text, "banned: {} for {}", row.client, left(row));
        text
    })
}

fn print_lifted(clients: &[Subscriber]) -> String {
    if clients.is_empty() {
        return "nobody was banned\n".to_owned();
    }
    clients.iter().fold(String::new(), |mut text, client| {
        let _ = writeln!(text, "lifted: {client}");
        text
    })
}
