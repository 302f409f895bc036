//! How values look on a terminal: tables, ages, sizes; nothing that a stranger wrote can move the cursor.

use std::fmt::Write;
use std::time::Duration;

use mailguard_core::log_value;
use mailguard_core::mail::{UnixTime, is_obeyed};
use serde::Serialize;

/// Longest cell of a table, in characters; `show` and `--json` tell the rest.
const MAX_CELL_CHARACTERS: usize = 60;

/// Rows of cells, printed in columns.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Whether long cells are cut.
    cut: bool,
}

impl Table {
    /// A table with these headings, its long cells cut: an overview.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { cut: true, ..Self::whole(headings) }
    }

    /// A table with these headings and whole cells: for values that somebody types again.
    pub(super) fn whole(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()], cut: false }
    }

    /// A table without headings, its cells whole.
    pub(super) fn lines() -> Self {
        Self { rows: Vec::new(), cut: false }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.into());
    }

    /// Adds a row of any length.
    pub(super) fn cells(&mut self, cells: Vec<String>) {
        let cell = |cell: &String| if self.cut { short(&plain(cell)) } else { plain(cell) };
        self.rows.push(cells.iter().map(cell).collect());
    }

    /// The text, each line behind `indent`, the columns two blanks apart.
    pub(super) fn print(&self, out: &mut String, indent: &str) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a String can't fail; so everywhere in this module's users.
                let _ = write!(line, "{cell:width$}  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// `text` without anything that a terminal obeys: control characters and those that turn the direction of
/// writing.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// JSON of which nothing is obeyed where it is shown, ending in a line end.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string_pretty(value)?;
    Ok(format!("{}\n", log_value::json(&json)))
}

/// The same for a text of several lines, each behind `indent`.
pub(super) fn plain_lines(text: &str, indent: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "{indent}{}", plain(&line.replace('\t', " ")));
        out
    })
}

fn short(text: &str) -> String {
    if text.chars().nth(MAX_CELL_CHARACTERS).is_none() {
        return text.to_owned();
    }
    text.chars().take(MAX_CELL_CHARACTERS - 1).chain(['…']).collect()
}

/// A span in its largest unit: `45s`, `12m`, `3h`, `5d`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `12m ago`
pub(super) fn ago(now: UnixTime, then: UnixTime) -> String {
    format!("{} ago", span(now.since(then)))
}

/// `in 12m`, or `now`.
pub(super) fn until(now: UnixTime, then: UnixTime) -> String {
    if then <= now { "now".to_owned() } else { format!("in {}", span(then.since(now))) }
}

/// `512 B`, `4.0 KB`, `1.2 GB`.
pub(super) fn size(octets: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if octets < 1_024 {
        return format!("{octets} B");
    }
    let mut value = octets as f64 / 1_024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // What would print as 1024.0 is one of the next unit.
        if value < 1_023.95 {
            break;
        }
        value /= 1_024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// `1 message`, `3 messages`.
pub(super) fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (octets, expect) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KB"),
            (1_048_575, "1.0 MB"),
            (1_500_000_000, "1.4 GB"),
            (u64::MAX, "16777216.0 TB"),
        ] {
            assert_eq!(size(octets), expect);
        }
        for (seconds, expect) in [(0, "0s"), (59, "59s"), (60, "1m"), (7_199, "1h"), (172_800, "2d")] {
            assert_eq!(span(Duration::from_secs(seconds)), expect);
        }
        let at = |seconds: u64| UnixTime(seconds * 1_000_000);
        assert_eq!((ago(at(90), at(10)), ago(at(10), at(90))), ("1m ago".to_owned(), "0s ago".to_owned()));
        assert_eq!((until(at(10), at(90)), until(at(90), at(10))), ("in 1m".to_owned(), "now".to_owned()));
    }

    #[test]
    fn json_shows_what_would_be_obeyed_or_overlooked_as_numbers() {
        let odd = "a\u{202e}b\u{9b}c\u{7f}d\u{1b}e\u{2066}\u{200b}\u{feff}\u{61c}\u{e0041}\u{ad}\u{85}\u{2028}é漢😀\n\t\"\\";
        let value = serde_json::json!({ odd: [odd], "n": 1 });
        let json = json(&value).unwrap();
        let escaped = "a\\u202eb\\u009bc\\u007fd\\u001be\\u2066\\u200b\\ufeff\\u061c\\udb40\\udc41\\u00ad\\u0085\\u2028é漢😀\\n\\t\\\"\\\\";
        assert!(json.matches(escaped).count() == 2 && json.lines().count() == 6, "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value, "nothing is lost");
    }

    #[test]
    fn tables() {
        let mut table = Table::new(&["A", "LONG", "B"]);
        table.row(["x\u{1b}[2J".to_owned(), "1".to_owned(), "\u{202e}gpj".to_owned()]);
        table.row(["é".to_owned(), String::new(), "y".repeat(70)]);
        let mut out = String::new();
        table.print(&mut out, " ");
        let expect =
            format!(" A      LONG  B\n x\u{fffd}[2J  1     \u{fffd}gpj\n é            {}…\n", "y".repeat(59));
        assert_eq!(out, expect);
        assert_eq!(plain_lines("a\tb\r\nc\x07", "> "), "> a b\n> c\u{fffd}\n");
    }
}
