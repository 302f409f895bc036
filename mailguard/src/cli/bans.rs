//! `mailguard ban`.

use std::fmt::Write;
use std::time::Duration;

use mailguard_core::mail::UnixTime;
use mailguard_core::subscriber::Subscriber;

use super::args::BanCommand;
use super::daemon::Daemon;
use super::terminal::{Table, ago, span};
use super::{Printed, wrong_answer};
use crate::control::{Answer, BanRow, Request};

/// Shows or changes who is banned.
pub(super) fn bans(daemon: &mut Daemon, command: BanCommand, now: UnixTime) -> anyhow::Result<Printed> {
    match command {
        BanCommand::List { output } => match daemon.ask(&Request::Bans)? {
            Answer::Bans(rows) => Printed::result(output, &rows, || print(&rows, now)),
            _ => wrong_answer(),
        },
        BanCommand::Add { clients, time, reason, output } => {
            let seconds = time.map(|time| time.as_secs());
            match daemon.ask(&Request::BanAdd { clients, seconds, reason })? {
                Answer::Bans(rows) => Printed::result(output, &rows, || print_added(&rows)),
                _ => wrong_answer(),
            }
        }
        BanCommand::Lift { clients, all, output } => {
            match daemon.ask(&Request::BanLift { clients: (!all).then_some(clients) })? {
                Answer::Lifted(clients) => Printed::result(output, &clients, || print_lifted(&clients)),
                _ => wrong_answer(),
            }
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
