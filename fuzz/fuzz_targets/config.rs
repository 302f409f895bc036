//! Configurations: whatever the file says, it has a meaning or errors, each at a place within it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::config::named::NamedFiles;
use mailguard_core::config::{Data, Entry, Place, Value, resolve};

fuzz_target!(|text: &str| {
    let Ok(table) = text.parse::<toml::Table>() else { return };
    let whole = Place { text: 0, start: 0, end: text.len() };
    let root = value(toml::Value::Table(table), whole);
    match resolve(&root, NamedFiles::default()) {
        Ok(_meaning) => {}
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            for error in errors {
                assert_eq!(error.place, whole, "{}", error.key);
                assert!(!error.problem.to_string().is_empty(), "{}", error.key);
            }
        }
    }
});

fn value(value: toml::Value, place: Place) -> Value {
    let data = match value {
        toml::Value::String(text) => Data::Text(text),
        toml::Value::Integer(number) => Data::Integer(number),
        toml::Value::Float(number) => Data::Float(number),
        toml::Value::Boolean(flag) => Data::Boolean(flag),
        toml::Value::Datetime(date) => Data::Date(date.to_string()),
        toml::Value::Array(items) => {
            Data::Array(items.into_iter().map(|item| self::value(item, place)).collect())
        }
        toml::Value::Table(table) => {
            let entry = |(key, item)| Entry { key, key_place: place, value: self::value(item, place) };
            Data::Table(table.into_iter().map(entry).collect())
        }
    };
    Value { place, data }
}
