//! Configurations as a file gives them: a test says in TOML what it is about, [`resolve`] says the rest.
//!
//! So a test has no value that no file could have, and a new key costs no test a line.

use std::path::PathBuf;

use toml::{Table, Value as Toml};

use crate::config::model::{Login, Mechanism};
use crate::config::named::NamedFiles;
use crate::config::{Config, Data, Entry, Place, Value, resolve};

/// What every one of them says unless the test says otherwise: a green zone and a red one.
const LEAST: &str = r#"
hostname = "guard.test"

[[zone]]
name = "green"
kind = "green"
interfaces = ["green"]
mode = "active"

[[zone]]
name = "red"
kind = "red"
interfaces = ["red"]
mode = "active"
"#;

/// Nothing that is resolved here is shown with its place.
const NOWHERE: Place = Place { text: 0, start: 0, end: 0 };

/// The configuration of a file that says this and the least.
#[track_caller]
pub fn config(text: &str) -> Config {
    TestConfig::default().with(text).resolve()
}

/// Who we are to a smarthost.
#[track_caller]
pub fn login(user: &str, password: &str, methods: &[Mechanism]) -> Login {
    let methods: Vec<&str> = methods.iter().map(|method| method.name()).collect();
    let text = format!(
        "smarthost = {{ enabled = true, address = \"mx.test\", username = {user:?}, password = {password:?}, \
         methods = {methods:?} }}"
    );
    let smarthost = config(&text).smarthost.expect("it is enabled");
    smarthost.login.clone().expect("it has a user")
}

/// A configuration in the making.
#[derive(Debug, Clone)]
pub struct TestConfig {
    said: Table,
    files: NamedFiles,
}

impl Default for TestConfig {
    fn default() -> Self {
        Self { said: parse(LEAST), files: NamedFiles::default() }
    }
}

impl TestConfig {
    /// Says this, too: a key or a list in place of what was said before, a table key by key.
    #[must_use]
    #[track_caller]
    pub fn with(mut self, text: &str) -> Self {
        merge(&mut self.said, parse(text));
        self
    }

    /// With the YARA rules of a file.
    #[must_use]
    pub fn with_rules(mut self, path: &str, text: &str) -> Self {
        self.files.rules.push((PathBuf::from(path), text.to_owned()));
        self
    }

    /// With a file whose path is the value of a key.
    #[must_use]
    pub fn with_file(mut self, path: &str, text: &str) -> Self {
        self.files.texts.push((PathBuf::from(path), text.to_owned()));
        self
    }

    /// What all of it means.
    #[track_caller]
    pub fn resolve(self) -> Config {
        match resolve(&value(Toml::Table(self.said)), self.files) {
            Ok(config) => config,
            Err(errors) => panic!("a test's configuration: {errors:#?}"),
        }
    }
}

#[track_caller]
fn parse(text: &str) -> Table {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn merge(said: &mut Table, more: Table) {
    for (key, value) in more {
        match (said.get_mut(&key), value) {
            (Some(Toml::Table(said)), Toml::Table(more)) => merge(said, more),
            (_, value) => {
                said.insert(key, value);
            }
        }
    }
}

fn value(toml: Toml) -> Value {
    let data = match toml {
        Toml::String(text) => Data::Text(text),
        Toml::Integer(number) => Data::Integer(number),
        Toml::Float(number) => Data::Float(number),
        Toml::Boolean(flag) => Data::Boolean(flag),
        Toml::Datetime(date) => Data::Date(date.to_string()),
        Toml::Array(items) => Data::Array(items.into_iter().map(value).collect()),
        Toml::Table(table) => {
            let entry = |(key, item)| Entry { key, key_place: NOWHERE, value: value(item) };
            Data::Table(table.into_iter().map(entry).collect())
        }
    };
    Value { place: NOWHERE, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_later_takes_the_place_of_what_was_said_before() {
        let config = TestConfig::default()
            .with("server.max_recipients = 200\nserver.require_helo = false\nlanguage = \"de\"")
            .with("server = { max_recipients = 300 }\nzone = [{ name = \"a\", kind = \"blue\", interfaces = [\"b\"], mode = \"active\" }]")
            .resolve();
        assert_eq!((config.server.max_recipients, config.server.require_helo), (300, false));
        assert_eq!((config.zones.len(), config.zones[0].name.as_str()), (1, "a"));
        assert_eq!(config.language, crate::language::Language::German);
    }

    #[test]
    #[should_panic(expected = "a test's configuration")]
    fn what_no_file_may_say_no_test_says() {
        config("server.max_recipients = 3");
    }
}
