//! What is on disk, row by row, as text: a file a table, in the folders `spool`, `facts` and `run`
//! (docs/adr/0025).
//!
//! A test of the room that a row belongs to reads it and writes it again: the octets must be the same, or
//! those that the file says they become. Here is how such a file is read, and the tests that every table has
//! one and that the databases take their rows. What stands in such a file was written by some version of
//! mailguard: rows are added to it and never changed.
//!
//! A file is read line by line: one that begins with `#` is a remark, one without indentation the key of the
//! row that follows. The indented ones are the row, without their indentation and line ends. After [`AGAIN`]
//! comes what the row becomes when it is written again, where that is something else: an older version left
//! out what is written now.

mod names;
mod tests;

use std::fs;

use serde::Serialize;
use serde::de::DeserializeOwned;

use names::Names;

/// The line before what a row becomes.
const AGAIN: &str = "written again:";

/// One of the files.
pub(crate) struct Golden(&'static str);

/// One row of it.
#[derive(Debug)]
pub(crate) struct GoldenRow {
    pub(crate) key: &'static str,
    /// As some version stored it.
    pub(crate) row: String,
    /// As this version does.
    pub(crate) again: Option<String>,
}

pub(crate) const MESSAGES: Golden = Golden(include_str!("spool/messages.txt"));
pub(crate) const QUARANTINE: Golden = Golden(include_str!("spool/quarantine.txt"));
pub(crate) const DAMAGED: Golden = Golden(include_str!("spool/damaged.txt"));
pub(crate) const TRACES: Golden = Golden(include_str!("facts/traces.txt"));
pub(crate) const ATTEMPTS: Golden = Golden(include_str!("facts/attempts.txt"));
pub(crate) const BANS: Golden = Golden(include_str!("facts/bans.txt"));
pub(crate) const GREYLIST: Golden = Golden(include_str!("facts/greylist.txt"));
pub(crate) const NAMES: Golden = Golden(include_str!("run/names.txt"));
pub(crate) const LOCK: Golden = Golden(include_str!("run/lock.txt"));

impl Golden {
    /// That of a table in this folder.
    fn of(folder: &str, table: &str) -> Self {
        let path = format!("{}/src/store/golden/{folder}/{table}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}: a table needs its golden rows"));
        Self(text.leak())
    }

    /// Its rows, in their order.
    pub(crate) fn rows(&self) -> Vec<GoldenRow> {
        let mut rows: Vec<GoldenRow> = Vec::new();
        for line in self.0.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match (rows.last_mut(), line.strip_prefix(' ')) {
                (Some(GoldenRow { again: Some(text), .. } | GoldenRow { row: text, .. }), Some(part)) => {
                    text.push_str(part.trim_start());
                }
                (Some(row), None) if line == AGAIN => row.again = Some(String::new()),
                (_, None) => rows.push(GoldenRow { key: line, row: String::new(), again: None }),
                (None, Some(_)) => panic!("a row without a key: {line}"),
            }
        }
        assert!(!rows.is_empty(), "a golden file without a row");
        rows
    }

    /// Reads its rows as `T` and writes them again. They must show all names of all types in them, but for
    /// those that are `never` stored; all must be written out in the source, too, so that no change of Rust's
    /// names is one of the disk's.
    pub(crate) fn check<T: Serialize + DeserializeOwned>(&self, never: &[&str]) {
        check::<T>(&self.rows(), never);
    }
}

/// The same for some rows of a file.
pub(crate) fn check<T: Serialize + DeserializeOwned>(rows: &[GoldenRow], never: &[&str]) {
    let names = Names::default();
    for GoldenRow { key, row, again } in rows {
        let read: T = serde_json::from_str(row).unwrap_or_else(|error| panic!("{key}: {error}: {row}"));
        assert_eq!(&serde_json::to_string(&read).unwrap(), again.as_ref().unwrap_or(row), "{key}");
        if let Some(again) = again {
            let read: T = serde_json::from_str(again).unwrap();
            assert_eq!(&serde_json::to_string(&read).unwrap(), again, "{key}");
        }
        names.note::<T>(again.as_ref().unwrap_or(row));
    }
    names.assert_all_shown(never);
    names.assert_written_out();
}
