//! What is wrong with a configuration file that can't be used, and the version that stands in for it.

use std::path::Path;

use mailguard_core::log_value;
use mailguard_core::mail::{UnixTime, is_obeyed, rfc3339};
use serde::{Deserialize, Serialize};

use super::{Errors, LoadError, Located, Version};

/// Errors that are told one by one where another version stands in for the file; the rest is counted.
pub const MAX_TOLD_ERRORS: usize = 20;
/// What is told of each, octets.
const MAX_ERROR_OCTETS: usize = 400;

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// As `mailguard check` says it.
    text: String,
    /// The first [`MAX_TOLD_ERRORS`], one line each.
    lines: Vec<String>,
    /// How many there are.
    count: usize,
}

impl Refused {
    fn new(text: String, lines: impl Iterator<Item = String>, count: usize) -> Self {
        let line =
            |text: String| log_value::cut(&text.replace(is_obeyed, " "), MAX_ERROR_OCTETS).into_owned();
        Self { text, lines: lines.take(MAX_TOLD_ERRORS).map(line).collect(), count }
    }

    /// This, and why no other version stands in.
    pub fn and(self, why: impl std::fmt::Display) -> Self {
        Self { text: format!("{}\n{why}", self.text), ..self }
    }

    /// The version that stands in for a file with which this is the matter.
    pub fn stand_in(self, version: &Version) -> StandIn {
        StandIn { applied_at: version.applied_at, errors: self.lines, count: self.count }
    }

    /// The same stand-in, for a file with which now this is the matter.
    pub fn instead(&self, stand_in: StandIn) -> StandIn {
        StandIn { errors: self.lines.clone(), count: self.count, ..stand_in }
    }
}

impl From<LoadError> for Refused {
    fn from(error: LoadError) -> Self {
        let text = error.to_string();
        Self::new(text.clone(), std::iter::once(text), 1)
    }
}

impl From<Errors> for Refused {
    fn from(errors: Errors) -> Self {
        let line = |Located { file, line, key, message, remedy, .. }: &Located| {
            // Others may see these lines than who may read the file.
            let message = if key.contains("password") { "isn't accepted" } else { message };
            let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
            let remedy = remedy.as_ref().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
            format!("{}:{line}: {key}{message}{remedy}", file.display())
        };
        Self::new(errors.to_string(), errors.iter().map(line), errors.count())
    }
}

/// What the parts that use a configuration find wrong with it.
impl From<Vec<String>> for Refused {
    fn from(problems: Vec<String>) -> Self {
        let count = problems.len();
        Self::new(problems.join("\n"), problems.into_iter(), count)
    }
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
    /// That it stands in for the configuration file at `path`, in one line: for whoever may not know what is
    /// in the file.
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
