//! What can be wrong with a configuration: each error says where, what was found, what is accepted, what to
//! do.

use super::value::Place;

/// One error. The file layer adds file, line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key path: `kernel.xdp`, `zone[1].interfaces[0]`; empty for the file as a whole.
    pub key: String,
    /// Where it stands, or where it should.
    pub place: Place,
    /// What is wrong.
    pub problem: Problem,
}

/// The kinds of error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A key that isn't in the contract.
    #[error("unknown key")]
    UnknownKey {
        /// The key path that was probably meant.
        meant: Option<String>,
    },
    /// A key without which there is no configuration.
    #[error("missing: {accepted}")]
    Missing {
        /// What is accepted.
        accepted: String,
    },
    /// Wrong type, out of range, or not what the key's syntax allows.
    #[error("found {found}, accepted: {accepted}")]
    Invalid {
        /// What stands there.
        found: String,
        /// What is accepted.
        accepted: String,
        /// What to do.
        remedy: Option<String>,
    },
    /// In the contract, but nothing acts on it in this version.
    #[error("found {found}, not supported yet: only {accepted} is accepted")]
    NotSupportedYet {
        /// What stands there.
        found: String,
        /// The default, as it would be written.
        accepted: String,
    },
    /// Something that may stand once only.
    #[error("{what} stands here twice")]
    Duplicate {
        /// What.
        what: String,
        /// Where it stood first, as a key path.
        first: String,
    },
    /// Values, each accepted by itself, that contradict one another.
    #[error("{what}")]
    Conflict {
        /// The contradiction.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The text isn't TOML, or a file that it names can't be used. From the file layer.
    #[error("{what}")]
    Text {
        /// What is wrong with it.
        what: String,
        /// What to do.
        remedy: Option<String>,
    },
}

impl Problem {
    /// What to do, where the message doesn't say it already.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Problem::UnknownKey { meant: Some(meant) } => Some(format!("did you mean {meant}?")),
            Problem::UnknownKey { meant: None } => Some("remove it".to_owned()),
            Problem::Missing { .. } => Some("add the key".to_owned()),
            Problem::Invalid { remedy, .. } | Problem::Text { remedy, .. } => remedy.clone(),
            Problem::NotSupportedYet { accepted, .. } => Some(format!("remove it, or write {accepted}")),
            Problem::Duplicate { first, .. } => {
                Some(format!("it stands first in {first}; remove one of them"))
            }
            Problem::Conflict { remedy, .. } => Some(remedy.clone()),
        }
    }
}
