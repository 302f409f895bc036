//! Changes one list of the configuration and nothing else: comments, order and layout stay as they are.
//!
//! Pure: from a source to the source that `write` puts in its place.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use mailguard_core::config::Config;
use serde::{Deserialize, Serialize};

use super::document::{Document, Written};
use super::everybody::newly_everybody;
use super::lists::{EditList, Entry, ListEntry, listed};
use super::report::Errors;
use super::source::Source;

/// Values that one edit may add or remove: as many as a list holds.
pub const MAX_EDIT_VALUES: usize = mailguard_core::config::resolve::MAX_LIST_VALUES;

/// What happens to the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// They are put at the end of the list.
    Add,
    /// They are taken out, with a comment behind them on their line.
    Remove,
}

/// One change of one list: made as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// Which list.
    pub list: EditList,
    /// Add or remove.
    pub change: Change,
    /// The values, as an administrator typed them; 1 to [`MAX_EDIT_VALUES`].
    pub values: Vec<String>,
    /// Also where the list then stands for everybody.
    #[serde(default)]
    pub all: bool,
}

/// Why an edit isn't made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Not a value of this list.
    #[error("{value} is not accepted in {key}: it takes {accepted}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Value {
        /// The key path of the list.
        key: String,
        /// What was given, quoted.
        value: String,
        /// What is accepted.
        accepted: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// None, or more than [`MAX_EDIT_VALUES`].
    #[error("an edit names 1 to {MAX_EDIT_VALUES} values, this one {0}")]
    Count(usize),
    /// Adding the same thing two times.
    #[error("{0} is named twice")]
    Twice(String),
    /// Adding what is there.
    #[error("{value} is already in {key}: {}, line {line}", file.display())]
    Present {
        /// The key path of the list.
        key: String,
        /// The value.
        value: String,
        /// Where it stands.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// Adding what is there without being written.
    #[error("{value} is in {key} already, which isn't written: it is the default")]
    Default {
        /// The key path of the list.
        key: String,
        /// The value.
        value: String,
    },
    /// Removing what isn't there.
    #[error("{value} is not in {key}")]
    Absent {
        /// The key path of the list.
        key: String,
        /// The value.
        value: String,
    },
    /// Removing what stands in a file that the list names.
    #[error("{value} stands in {}, line {line}: remove it there, then run `mailguard reload`", file.display())]
    InFile {
        /// The value.
        value: String,
        /// The list file.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The list would hold every host of a family.
    #[error(
        "with this, {key} and what works as one with it would hold every {family} host: if that is meant, add --all; nothing \
         was changed"
    )]
    Everybody {
        /// The key path of the list.
        key: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// Line ends are mixed, or something else that can't be kept as it stands.
    #[error(
        "the file can't be changed without changing lines that have nothing to do with it: edit it by hand"
    )]
    Document,
    /// The result wouldn't be a configuration.
    #[error("the configuration would not be valid:\n{0}")]
    Invalid(Errors),
}

/// The source after the edit, and what it means; before it means `config`. A value named twice, one that is
/// there already or one that isn't there makes the whole edit fail. What is added has an effect: where a
/// switch keeps its list from having one, it is switched on, and a value that was there without an effect is
/// as good as added. Nothing comes into force with it that isn't written. Each text is parsed once: the one
/// that changes, and the one that comes of it.
pub fn edit(source: &Source, config: &Config, edit: &Edit) -> Result<(Source, Config), EditError> {
    if !(1..=MAX_EDIT_VALUES).contains(&edit.values.len()) {
        return Err(EditError::Count(edit.values.len()));
    }
    let list = edit.list;
    let values = edit.values.iter().map(|text| list.read(text.trim())).collect::<Result<Vec<Entry>, _>>()?;
    let (mut document, written) = Document::open(source, list)?;
    match edit.change {
        Change::Add if list.switch().is_some() && !written.is_on => {
            refuse_present(list, &values, &HashMap::new())?;
            list.switched_with().iter().try_for_each(|list| document.write(*list, &[]))?;
            let known = known(source, list, &written, &[]);
            let new = values.iter().filter(|value| !known.contains_key(&value.compared));
            document.push(list, new.map(|value| value.written.as_str()))?;
            document.switch_on(list)?;
        }
        Change::Add => {
            write_default(&mut document, list, &written, &values)?;
            refuse_present(list, &values, &known(source, list, &written, &[]))?;
            document.push(list, values.iter().map(|value| value.written.as_str()))?;
        }
        Change::Remove => {
            write_default(&mut document, list, &written, &[])?;
            refuse_absent(source, list, &values, &known(source, list, &written, list.default_values()))?;
            let gone: HashSet<&str> = values.iter().map(|value| value.compared.as_str()).collect();
            let is_gone =
                |text: &str| list.read(text).is_ok_and(|item| gone.contains(item.compared.as_str()));
            document.take(list, is_gone)?;
        }
    }
    let edited = Source { text: document.text(), ..source.clone() };
    let after = super::parse_and_validate(&edited).map_err(EditError::Invalid)?;
    if edit.change == Change::Add
        && !edit.all
        && let Some(family) = newly_everybody(config, &after, list)
    {
        return Err(EditError::Everybody { key: list.key(), family });
    }
    Ok((edited, after))
}

/// Writes down what the list holds where it isn't written; none of `added` may be among that.
fn write_default(
    document: &mut Document,
    list: EditList,
    written: &Written,
    added: &[Entry],
) -> Result<(), EditError> {
    let default = list.default_values();
    if written.values.is_some() || default.is_empty() {
        return Ok(());
    }
    if let Some(entry) = added.iter().find(|entry| default.contains(&entry.compared.as_str())) {
        return Err(EditError::Default { key: list.key(), value: entry.written.clone() });
    }
    document.write(list, default)
}

/// What is on the list, by the form in which values are compared: what is written, or else `unwritten`.
fn known(
    source: &Source,
    list: EditList,
    written: &Written,
    unwritten: &[&str],
) -> HashMap<String, ListEntry> {
    let entries = match &written.values {
        Some(values) => {
            let values = values.iter().map(|(value, line)| (value.as_str(), *line));
            listed(source, list, values)
        }
        // In no line yet, and nobody is told of one.
        None => listed(source, list, unwritten.iter().map(|value| (*value, 0))),
    };
    let mut known: HashMap<String, ListEntry> = HashMap::new();
    for entry in entries {
        // Of a value that stands twice, the one in a file of its own is what an administrator must hear of.
        let Ok(Entry { compared, .. }) = list.read(&entry.value) else { continue };
        if entry.file != source.path || !known.contains_key(&compared) {
            known.insert(compared, entry);
        }
    }
    known
}

fn refuse_present(
    list: EditList,
    values: &[Entry],
    known: &HashMap<String, ListEntry>,
) -> Result<(), EditError> {
    let mut added = HashSet::new();
    for Entry { written, compared } in values {
        if let Some(ListEntry { file, line, .. }) = known.get(compared).cloned() {
            return Err(EditError::Present { key: list.key(), value: written.clone(), file, line });
        }
        if !added.insert(compared) {
            return Err(EditError::Twice(written.clone()));
        }
    }
    Ok(())
}

fn refuse_absent(
    source: &Source,
    list: EditList,
    values: &[Entry],
    known: &HashMap<String, ListEntry>,
) -> Result<(), EditError> {
    for Entry { written, compared } in values {
        match known.get(compared) {
            None => return Err(EditError::Absent { key: list.key(), value: written.clone() }),
            Some(found) if found.file != source.path => {
                let ListEntry { value, file, line, .. } = found.clone();
                return Err(EditError::InFile { value, file, line });
            }
            Some(_) => {}
        }
    }
    Ok(())
}
