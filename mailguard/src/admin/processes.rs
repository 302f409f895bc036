//! The two processes, as the command line sees them: which is asked what, and how they fare.

use std::path::{Path, PathBuf};

use mailguard_core::mail::{UnixTime, rfc3339};
use serde::{Deserialize, Serialize};

use crate::datapath::DatapathStatus;

/// Which process answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// The datapath process: root asks root.
    Datapath,
    /// The mail process.
    Mail,
}

/// What the datapath process knows, however its mail process is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Of the program that runs.
    pub version: String,
    /// `hostname`
    pub hostname: String,
    /// The configuration file.
    pub config: PathBuf,
    /// The process id of the datapath process.
    pub pid: u32,
    /// When it began.
    #[serde(with = "rfc3339")]
    pub started_at: UnixTime,
    /// What keeps mailguard from doing its work right now, one line each.
    pub problems: Vec<String>,
    /// The version by which it runs where the file can't be used; absent: it runs by the file.
    #[serde(default)]
    pub stand_in: Option<StandIn>,
    /// The mail process.
    pub mail: MailProcess,
    /// The kernel side: programs on each interface, maps, counters; absent while nothing is known of it.
    pub kernel: Option<DatapathStatus>,
}

/// A version of the configuration that was in force before, and is instead of a file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// When it was put in force.
    #[serde(with = "rfc3339")]
    pub applied_at: UnixTime,
    /// What is wrong with the file: the first errors, one line each.
    pub errors: Vec<String>,
    /// How many errors there are.
    pub count: usize,
}

impl StandIn {
    /// That it stands in for the configuration file at `path`, in one line: for whoever may not know what is in the file.
    pub fn summary(&self, path: &Path) -> String {
        let Self { applied_at, count, .. } = self;
        let errors = if *count == 1 { "1 error" } else { &format!("{count} errors") };
        format!(
            "mailguard runs by the configuration that was applied at {}, not by {}, which can't be used ({errors})",
            applied_at.rfc3339(),
            path.display()
        )
    }

    /// The same with the first error, and what to do.
    pub fn problem(&self, path: &Path) -> String {
        let first = self.errors.first().map_or("", String::as_str);
        format!("{}: {first}: mend it (mailguard check), then mailguard reload", self.summary(path))
    }
}

/// How the mail process is, seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailProcess {
    /// Its process id; absent: none runs now.
    pub pid: Option<u32>,
    /// When it was started.
    #[serde(default, with = "rfc3339::option")]
    pub started_at: Option<UnixTime>,
    /// Milliseconds since its last sign of life; absent before the first.
    pub silent_milliseconds: Option<u64>,
    /// How many ended by themselves since the datapath process began.
    pub restarts: u64,
    /// When the last of those ended.
    #[serde(default, with = "rfc3339::option")]
    pub last_ended_at: Option<UnixTime>,
    /// How it ended.
    pub last_cause: Option<String>,
    /// What it said last.
    pub last_words: Vec<String>,
}
