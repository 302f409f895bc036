//! The configuration file: read by the privileged process, parsed where it is needed, edited with its
//! comments kept.
//!
//! `source` reads the file and what it names, and decides nothing. `tree` turns TOML into the tree that
//! `mailguard_core::config` resolves. `report` tells people where an error stands. `edit` changes one of the
//! `lists` within the `document`, unless it would then stand for `everybody`, and `write` puts the result in
//! its place, whole (`replace`). `applied` keeps what was in force last, by the file's path as a `name`;
//! `kept` knows whether that was possible, and what is a `stand_in` for a file that can't be used. What the
//! values mean is the core's.

mod applied;
mod batch;
mod edit;
mod everybody;
mod document;
mod kept;
mod lists;
mod name;
mod replace;
mod report;
mod source;
mod tree;
mod stand_in;
mod write;

pub use applied::{AppliedError, LastApplied, Version};
pub use batch::{BatchError, batch};
pub use edit::{Change, Edit, EditError, MAX_EDIT_VALUES, edit};
pub use kept::Kept;
pub use lists::{EditList, ListEntry, entries};
pub use name::as_name;
pub use replace::sweep;
pub use report::{Errors, Located};
pub use source::{Include, IncludeContent, LoadError, MAX_SOURCE_OCTETS, ReadError, Source, load};
pub use stand_in::{MAX_TOLD_ERRORS, Refused, StandIn};
pub use write::{WriteError, write};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mailguard_core::config::named::{NamedFiles, TextFile, text_files};
use mailguard_core::config::resolve::{DEFAULT_PIN_DIR, DEFAULT_RUNTIME_DIR, DEFAULT_STATE_DIR};
use mailguard_core::config::review;
use mailguard_core::config::{Config, ConfigError, Place, Problem, Value, resolve};
use mailguard_core::named_hop;

/// Where the file is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/mailguard/mailguard.toml";

/// What the source means, or everything that is wrong with it. Pure: reads no file.
pub fn parse_and_validate(source: &Source) -> Result<Config, Errors> {
    let mut errors = Vec::new();
    let mut root = match tree::from_toml(&source.text) {
        Ok(root) => root,
        Err(errors) => return Err(Errors::new(source, errors)),
    };
    tree::expand(&mut root, &source.includes, &mut errors);
    let files = files(&root, source, &mut errors);
    match resolve(&root, files) {
        Ok(config) if errors.is_empty() => Ok(config),
        Ok(_) => Err(Errors::new(source, errors)),
        Err(more) => {
            errors.extend(more);
            errors.sort_by_key(|error| error.place);
            Err(Errors::new(source, errors))
        }
    }
}

/// The next hops of `config`, which `source` means, that are ourselves by what is written alone; `listens`
/// knows where we do.
pub fn hops_to_ourselves(
    source: &Source,
    config: &Config,
    listens: impl Fn(SocketAddr) -> bool,
) -> Vec<Located> {
    let root = tree::salvage(&source.text);
    Errors::new(source, named_hop::ourselves(config, &root, listens)).into_told()
}

/// What of `config`, which `source` means, is probably not meant so.
pub fn doubts(source: &Source, config: &Config) -> Vec<Located> {
    let root = tree::salvage(&source.text);
    Errors::new(source, review::doubts(config, &root)).into_told()
}

/// Where the running daemon is found, whatever else is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `runtime_dir`
    pub runtime_dir: PathBuf,
    /// `kernel.pin_dir`
    pub pin_dir: PathBuf,
    /// `state_dir`
    pub state_dir: PathBuf,
}

/// Reads the places of a configuration that may be under repair. Fails only if the file can't be read.
pub fn places(path: &Path) -> Result<Places, LoadError> {
    let text = source::read_text(path).map_err(|cause| LoadError { path: path.to_owned(), cause })?;
    let root = tree::salvage(&text);
    let place = |keys: &[&str], default: &str| {
        let said = root.at(keys).and_then(Value::as_text).filter(|path| path.starts_with('/'));
        PathBuf::from(said.unwrap_or(default))
    };
    Ok(Places {
        runtime_dir: place(&["runtime_dir"], DEFAULT_RUNTIME_DIR),
        pin_dir: place(&["kernel", "pin_dir"], DEFAULT_PIN_DIR),
        state_dir: place(&["state_dir"], DEFAULT_STATE_DIR),
    })
}

/// What the named files hold, as far as they could be read.
fn files(root: &Value, source: &Source, errors: &mut Vec<ConfigError>) -> NamedFiles {
    let mut files = NamedFiles::default();
    for Include { path, content } in &source.rules {
        match content {
            IncludeContent::Text(text) => files.rules.push((path.clone(), text.clone())),
            IncludeContent::Unreadable(cause) => {
                let place = root.at(&source::RULES_DIR).map_or(root.place, |value| value.place);
                errors.push(unreadable(source::RULES_DIR.join("."), place, path, cause));
            }
        }
    }
    for TextFile { key, place, path } in text_files(root) {
        let content =
            source.texts.iter().find(|include| include.path == path).map(|include| &include.content);
        match content {
            Some(IncludeContent::Text(text)) => files.texts.push((path, text.clone())),
            Some(IncludeContent::Unreadable(cause)) => errors.push(unreadable(key, place, &path, cause)),
            None => errors.push(unreadable(key, place, &path, "was not read")),
        }
    }
    files
}

fn unreadable(key: String, place: Place, path: &Path, cause: &str) -> ConfigError {
    let what = format!("{}: {cause}", path.display());
    ConfigError { key, place, problem: Problem::Text { what, remedy: None } }
}

#[cfg(test)]
pub(crate) mod tests;
