//! What a configuration file says, before anybody asked what it means: values, each with its place in a text.
//!
//! The file layer makes the tree from TOML and puts the lines of `@/path` files where they were named; this
//! crate knows neither TOML nor files.

/// A range of octets in one of the texts of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which text: 0 is the configuration file, n + 1 its n-th included file.
    pub text: usize,
    /// First octet.
    pub start: usize,
    /// The octet after the last one.
    pub end: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Where.
    pub place: Place,
    /// What.
    pub data: Data,
}

/// The kinds of value.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// `"text"`
    Text(String),
    /// `12`
    Integer(i64),
    /// `1.5`
    Float(f64),
    /// `true`
    Boolean(bool),
    /// A date or time, which no key accepts.
    Date(String),
    /// `[…]`
    Array(Vec<Value>),
    /// `[table]` or `{…}`
    Table(Vec<Entry>),
}

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// Its value.
    pub value: Value,
}

impl Value {
    /// The value of `key`, if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Data::Table(entries) = &self.data else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The values at a path of keys, on which lists of tables may lie: of each table, in their order.
    pub fn all_at(&self, path: &[&str]) -> Vec<&Value> {
        let Some((key, rest)) = path.split_first() else { return vec![self] };
        match &self.data {
            Data::Array(items) => items.iter().flat_map(|item| item.all_at(path)).collect(),
            Data::Table(_) => self.get(key).map(|value| value.all_at(rest)).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// [`Value::all_at`], to be changed.
    pub fn all_at_mut(&mut self, path: &[&str]) -> Vec<&mut Value> {
        let Some((key, rest)) = path.split_first() else { return vec![self] };
        match &mut self.data {
            Data::Array(items) => items.iter_mut().flat_map(|item| item.all_at_mut(path)).collect(),
            Data::Table(entries) => match entries.iter_mut().find(|entry| entry.key == *key) {
                Some(entry) => entry.value.all_at_mut(rest),
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// The text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What an error says was found: the value as written, or what kind of thing it is; bounded in length.
    pub fn describe(&self) -> String {
        match &self.data {
            Data::Text(text) => quoted(text),
            Data::Integer(number) => format!("the integer {number}"),
            Data::Float(number) => format!("the number {number}"),
            Data::Boolean(value) => format!("{value}"),
            Data::Date(text) => format!("the date or time {text}"),
            Data::Array(items) if items.is_empty() => "an empty list".to_owned(),
            Data::Array(items) => match items.len() {
                1 => "a list of one value".to_owned(),
                count => format!("a list of {count} values"),
            },
            Data::Table(_) => "a table".to_owned(),
        }
    }
}

/// Longest text that an error repeats, in characters.
const MAX_QUOTED_CHARACTERS: usize = 60;

/// `text` in quotes for an error message: cut when long, control characters replaced.
pub fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_QUOTED_CHARACTERS)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(MAX_QUOTED_CHARACTERS).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}
