//! The table of what was expected and what was seen.

use std::fmt::Write;

use super::scenario::{Client, Peer, Scenario, Seen};

/// The rows so far.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<[String; 5]>,
    unexpected: usize,
}

impl Table {
    pub(super) fn add(&mut self, run: &str, scenario: &Scenario, expected: Seen, seen: &Seen) {
        self.row(run, scenario.name, expected == *seen, words(&expected), words(seen));
    }

    /// A reply, as far as it is expected.
    pub(super) fn add_reply(&mut self, run: &str, name: &str, expected: &str, seen: &str) {
        self.row(run, name, seen.starts_with(expected), expected.to_owned(), seen.to_owned());
    }

    fn row(&mut self, run: &str, name: &str, good: bool, expected: String, seen: String) {
        self.unexpected += usize::from(!good);
        println!("demo: {run}: {name}: {}", if good { "as expected" } else { "NOT AS EXPECTED" });
        let verdict = if good { "ok" } else { "WRONG" };
        self.rows.push([run.to_owned(), name.to_owned(), expected, seen, verdict.to_owned()]);
    }

    /// Results that were not as expected.
    pub(super) fn unexpected(&self) -> usize {
        self.unexpected
    }

    pub(super) fn render(&self) -> String {
        let head = ["mailguard", "message", "expected", "seen", ""].map(str::to_owned);
        let rows = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| rows().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = String::from("\n");
        for row in rows() {
            for (cell, &width) in row.iter().zip(&widths) {
                // Writing to a String can't fail.
                let _ = write!(text, "{cell:width$}  ");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

fn words(seen: &Seen) -> String {
    let client = match seen.client {
        Client::Accepted => "accepted",
        Client::Refused => "refused",
        Client::NoConnection => "no connection",
    };
    let server = match seen.server {
        None => "nothing arrives",
        Some(Peer::Client) => "arrives from the client",
        Some(Peer::Firewall) => "arrives from the firewall",
        Some(Peer::Other) => "arrives from elsewhere",
    };
    let marked = if seen.marked { ", our Received" } else { "" };
    let direct = if seen.direct { ", client's SYN seen" } else { "" };
    format!("{client}; {server}{marked}{direct}")
}
