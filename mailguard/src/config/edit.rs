//! Changes one list of the configuration and nothing else: comments, order and layout stay as they are.
//!
//! Pure: from a source to the source that `write` puts in its place.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use mailguard_core::config::{Config, Data};
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::everybody::newly_everybody;
use super::lists::{EditList, Entry, ListEntry, entries};
use super::report::Errors;
use super::source::Source;
use super::tree;

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

/// The source after the edit. A value named twice, one that is there already or one that isn't there makes the whole
/// edit fail. What is added has an effect: where a switch keeps its list from having one, it is switched on, and a value
/// that was there without an effect is as good as added. Nothing comes into force with it that isn't written.
pub fn edit(source: &Source, edit: &Edit) -> Result<Source, EditError> {
    if !(1..=MAX_EDIT_VALUES).contains(&edit.values.len()) {
        return Err(EditError::Count(edit.values.len()));
    }
    let list = edit.list;
    let values = edit.values.iter().map(|text| list.read(text.trim())).collect::<Result<Vec<Entry>, _>>()?;
    let mut document = Document::open(&source.text)?;
    match edit.change {
        Change::Add if is_off(source, list) => {
            refuse_present(list, &values, &HashMap::new())?;
            list.switched_with().iter().try_for_each(|list| document.write(*list, &[]))?;
            let known = known(source, list);
            let new = values.iter().filter(|value| !known.contains_key(&value.compared));
            document.push(list, new.map(|value| value.written.as_str()))?;
            document.switch_on(list)?;
        }
        Change::Add => {
            write_default(&mut document, source, list, &values)?;
            refuse_present(list, &values, &known(source, list))?;
            document.push(list, values.iter().map(|value| value.written.as_str()))?;
        }
        Change::Remove => {
            write_default(&mut document, source, list, &[])?;
            let written = Source { text: document.text(), ..source.clone() };
            refuse_absent(source, list, &values, &known(&written, list))?;
            let gone: HashSet<&str> = values.iter().map(|value| value.compared.as_str()).collect();
            let is_gone =
                |text: &str| list.read(text).is_ok_and(|item| gone.contains(item.compared.as_str()));
            document.take(list, is_gone)?;
        }
    }
    let edited = Source { text: document.text(), ..source.clone() };
    let config = super::parse(&edited).map_err(EditError::Invalid)?;
    if edit.change == Change::Add && !edit.all {
        refuse_everybody(source, &config, list)?;
    }
    Ok(edited)
}

fn refuse_everybody(source: &Source, after: &Config, list: EditList) -> Result<(), EditError> {
    let before = super::parse(source).map_err(EditError::Invalid)?;
    match newly_everybody(&before, after, list) {
        Some(family) => Err(EditError::Everybody { key: list.key(), family }),
        None => Ok(()),
    }
}

/// Writes down what the list holds where it isn't written; none of `added` may be among that.
fn write_default(
    document: &mut Document,
    source: &Source,
    list: EditList,
    added: &[Entry],
) -> Result<(), EditError> {
    let is_written = tree::from_toml(&source.text).is_ok_and(|root| root.at(&list.path()).is_some());
    let default = list.default_values();
    if is_written || default.is_empty() {
        return Ok(());
    }
    if let Some(entry) = added.iter().find(|entry| default.contains(&entry.compared.as_str())) {
        return Err(EditError::Default { key: list.key(), value: entry.written.clone() });
    }
    document.write(list, default)
}

/// What is on the list, by the form in which values are compared.
fn known(source: &Source, list: EditList) -> HashMap<String, ListEntry> {
    let mut known: HashMap<String, ListEntry> = HashMap::new();
    for entry in entries(source, list) {
        // Of a value that stands twice, the one in a file of its own is what an administrator must hear of.
        let Ok(Entry { compared, .. }) = list.read(&entry.value) else { continue };
        if entry.file != source.path || !known.contains_key(&compared) {
            known.insert(compared, entry);
        }
    }
    known
}

/// Whether a switch keeps the list from having any effect. No such switch is on where it isn't written.
fn is_off(source: &Source, list: EditList) -> bool {
    let [table, _] = list.path();
    let Some(switch) = list.switch() else { return false };
    let root = tree::from_toml(&source.text);
    let flag = root.as_ref().ok().and_then(|root| root.at(&[table, switch]));
    !flag.is_some_and(|value| matches!(value.data, Data::Boolean(true)))
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
