//! From TOML to the tree that the core resolves; the lines of `@/path` files take the place of their name.

use std::path::{Path, PathBuf};

use mailguard_core::config::resolve::{LISTS_FROM_FILES, MAX_LIST_VALUES};
use mailguard_core::config::{ConfigError, Data, Entry, Place, Problem, Value};
use toml::de::{DeTable, DeValue};

use super::source::{Include, IncludeContent};

/// Syntax errors that are reported of one file: what follows the first few is mostly their consequence.
const MAX_SYNTAX_ERRORS: usize = 10;

/// The tree of a TOML text, or what isn't TOML in it.
pub(super) fn from_toml(text: &str) -> Result<Value, Vec<ConfigError>> {
    note_parse();
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<ConfigError> = errors.iter().map(|error| syntax_error(error, text)).collect();
    // A missing key of the root stands nowhere; the beginning of the file is shown without a line.
    let mut root = Value { place: place(0..0), data: Data::Boolean(false) };
    if errors.is_empty() {
        root.data = table_of(table.get_ref(), &mut errors);
    }
    if errors.is_empty() {
        return Ok(root);
    }
    errors.sort_by_key(|error| error.place);
    errors.truncate(MAX_SYNTAX_ERRORS);
    Err(errors)
}

/// A text is parsed: with full lists that takes a while, so the tests count how often it happens.
pub(super) fn note_parse() {
    #[cfg(test)]
    super::tests::PARSES.with(|parses| parses.set(parses.get() + 1));
}

/// What can be made out of a text, whatever is wrong with the rest of it.
pub(super) fn salvage(text: &str) -> Value {
    note_parse();
    let (table, _) = DeTable::parse_recoverable(text);
    Value { place: place(0..0), data: table_of(table.get_ref(), &mut Vec::new()) }
}

fn syntax_error(error: &toml::de::Error, text: &str) -> ConfigError {
    let end = text.len();
    let problem = Problem::Text { what: format!("not TOML: {}", error.message()), remedy: None };
    ConfigError { key: String::new(), place: place(error.span().unwrap_or(end..end)), problem }
}

fn place(span: std::ops::Range<usize>) -> Place {
    Place { text: 0, start: span.start, end: span.end }
}

fn table_of(table: &DeTable<'_>, errors: &mut Vec<ConfigError>) -> Data {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key_text: &std::borrow::Cow<'_, str> = key.get_ref();
        let data = data_of(value, errors);
        Entry {
            key: key_text.clone().into_owned(),
            key_place: place(key.span()),
            value: Value { place: place(value.span()), data },
        }
    };
    Data::Table(table.iter().map(entry).collect())
}

fn data_of(value: &toml::Spanned<DeValue<'_>>, errors: &mut Vec<ConfigError>) -> Data {
    match value.get_ref() {
        DeValue::String(text) => Data::Text(text.clone().into_owned()),
        DeValue::Boolean(flag) => Data::Boolean(*flag),
        DeValue::Datetime(date) => Data::Date(date.to_string()),
        DeValue::Table(table) => table_of(table, errors),
        DeValue::Array(items) => Data::Array(
            items
                .iter()
                .map(|item| Value { place: place(item.span()), data: data_of(item, errors) })
                .collect(),
        ),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Data::Integer(number),
            Err(_) => number_error(value, errors),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Data::Float(number),
            Err(_) => number_error(value, errors),
        },
    }
}

fn number_error(value: &toml::Spanned<DeValue<'_>>, errors: &mut Vec<ConfigError>) -> Data {
    let problem = Problem::Text { what: "not TOML: a number out of range".to_owned(), remedy: None };
    errors.push(ConfigError { key: String::new(), place: place(value.span()), problem });
    Data::Integer(0)
}

/// The file that an entry names, if it is `@/path`.
pub(super) fn named_file(entry: &str) -> Option<PathBuf> {
    entry.strip_prefix('@').filter(|path| path.starts_with('/')).map(PathBuf::from)
}

/// Puts the entries of each named file in the place of its name.
pub(super) fn expand(root: &mut Value, includes: &[Include], errors: &mut Vec<ConfigError>) {
    for path in LISTS_FROM_FILES {
        for list in root.all_at_mut(path) {
            if let Data::Array(items) = &mut list.data {
                expand_list(&path.join("."), items, includes, errors);
            }
        }
    }
}

fn expand_list(key: &str, items: &mut Vec<Value>, includes: &[Include], errors: &mut Vec<ConfigError>) {
    if !items.iter().any(|item| item.as_text().and_then(named_file).is_some()) {
        return;
    }
    let mut expanded = Vec::new();
    for item in std::mem::take(items) {
        let Some(path) = item.as_text().and_then(named_file) else {
            expanded.push(item);
            continue;
        };
        match read_lines(&path, includes, MAX_LIST_VALUES.saturating_sub(expanded.len())) {
            Ok(lines) => expanded.extend(lines),
            Err(what) => {
                let what = format!("{}: {what}", path.display());
                let problem = Problem::Text { what, remedy: None };
                errors.push(ConfigError { key: key.to_owned(), place: item.place, problem });
            }
        }
    }
    *items = expanded;
}

fn read_lines(path: &Path, includes: &[Include], room: usize) -> Result<Vec<Value>, String> {
    let index = includes.iter().position(|include| include.path == path).ok_or("was not read")?;
    let text = match &includes[index].content {
        IncludeContent::Text(text) => text,
        IncludeContent::Unreadable(cause) => return Err(cause.clone()),
    };
    let mut values = Vec::new();
    for (start, entry) in lines(text) {
        if values.len() == room {
            return Err(format!("the list would hold more than {MAX_LIST_VALUES} entries"));
        }
        let place = Place { text: index + 1, start, end: start + entry.len() };
        values.push(Value { place, data: Data::Text(entry.to_owned()) });
    }
    Ok(values)
}

/// The entries of a list file, one a line, with their offsets. A '#' at the beginning of a line or after a
/// blank begins a comment: within a word it may belong to a mail address.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut offset = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let start = offset;
        offset += line.len();
        let comment = line
            .char_indices()
            .find(|&(index, c)| c == '#' && (index == 0 || line[..index].ends_with([' ', '\t', '\u{feff}'])))
            .map_or(line.len(), |(index, _)| index);
        let content = line[..comment].trim_start_matches('\u{feff}');
        let entry = content.trim();
        let blanks = content.len() - content.trim_start().len() + (comment - content.len());
        (!entry.is_empty()).then_some((start + blanks, entry))
    })
}
