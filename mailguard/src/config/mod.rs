//! The configuration file: read by the privileged process, parsed where it is needed, edited with its comments
//! kept.
//!
//! `source` reads the file and what it names, and decides nothing. `tree` turns TOML into the tree that
//! `mailguard_core::config` resolves. `report` tells people where an error stands. `edit` changes one of the
//! `lists` within the `layout` of the file, and `write` puts the result in its place. What the values mean is the core's.

mod edit;
mod layout;
mod lists;
mod report;
mod source;
mod tree;
mod write;

pub use edit::{Change, Edit, EditError, MAX_EDIT_VALUES, edit};
pub use lists::{EditList, ListEntry, entries};
pub use report::{Errors, Located};
pub use source::{Include, IncludeContent, LoadError, MAX_SOURCE_OCTETS, ReadError, Source, load};
pub use write::{WriteError, write};

use mailguard_core::config::{Config, ConfigError, Problem, resolve};

/// Where the file is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/mailguard/mailguard.toml";

/// What the source means, or everything that is wrong with it. Pure: reads no file.
pub fn parse(source: &Source) -> Result<Config, Errors> {
    let mut errors = Vec::new();
    let mut root = match tree::from_toml(&source.text) {
        Ok(root) => root,
        Err(errors) => return Err(Errors::new(source, errors)),
    };
    tree::expand(&mut root, &source.includes, &mut errors);
    let rules = rules(&root, source, &mut errors);
    match resolve(&root, rules) {
        Ok(config) if errors.is_empty() => Ok(config),
        Ok(_) => Err(Errors::new(source, errors)),
        Err(more) => {
            errors.extend(more);
            errors.sort_by_key(|error| error.place);
            Err(Errors::new(source, errors))
        }
    }
}

/// The YARA sources, as far as they could be read.
fn rules(
    root: &mailguard_core::config::Value,
    source: &Source,
    errors: &mut Vec<ConfigError>,
) -> Vec<(std::path::PathBuf, String)> {
    let mut rules = Vec::with_capacity(source.rules.len());
    for Include { path, content } in &source.rules {
        match content {
            IncludeContent::Text(text) => rules.push((path.clone(), text.clone())),
            IncludeContent::Unreadable(cause) => errors.push(ConfigError {
                key: source::RULES_DIR.join("."),
                place: root.at(&source::RULES_DIR).map_or(root.place, |value| value.place),
                problem: Problem::Text { what: format!("{}: {cause}", path.display()), remedy: None },
            }),
        }
    }
    rules
}

#[cfg(test)]
mod tests;
