//! The two processes, as the command line sees them: which is asked what, and how they fare.

use std::path::PathBuf;

use mailguard_core::mail::{UnixTime, rfc3339};
use serde::{Deserialize, Serialize};

use crate::config::StandIn;
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
