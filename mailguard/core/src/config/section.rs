//! Reads one table of the tree key by key: types, ranges and syntaxes, every error recorded, none final.
//!
//! After an error the value returned is some acceptable one, so that reading goes on and finds the next
//! error; no configuration is made of it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{ConfigError, Problem};
use super::model::Inactive;
use super::suggest;
use super::syntax::{self, Mismatch, Syntax};
use super::value::{Data, Entry, Place, Value};

/// The key whose value no message may hold.
pub(super) const SECRET_KEY: &str = "password";

/// What was learnt while reading.
#[derive(Default)]
pub(super) struct Report {
    /// Everything that is wrong.
    pub(super) errors: Vec<ConfigError>,
    /// Protections asked for that aren't there yet.
    pub(super) inactive: Vec<Inactive>,
    /// Every key that was asked for, without indices: the contract, as far as this file reaches into it.
    known: BTreeSet<String>,
    strays: Vec<Stray>,
}

/// A key that nobody asked for.
struct Stray {
    section: String,
    pattern: String,
    key: String,
    place: Place,
}

impl Report {
    /// All errors, in the order of the text. Unknown keys are judged now that every known one is.
    pub(super) fn finish(mut self) -> Result<Vec<Inactive>, Vec<ConfigError>> {
        for stray in &self.strays {
            let problem = Problem::UnknownKey { meant: self.meant(stray) };
            self.errors.push(ConfigError {
                key: join(&stray.section, &stray.key),
                place: stray.place,
                problem,
            });
        }
        self.errors.sort_by_key(|error| error.place);
        if self.errors.is_empty() { Ok(self.inactive) } else { Err(self.errors) }
    }

    /// A key of the same table that is spelt almost so, else the one key of another table that is spelt so.
    fn meant(&self, stray: &Stray) -> Option<String> {
        let prefix = if stray.pattern.is_empty() { String::new() } else { format!("{}.", stray.pattern) };
        let siblings = self.known.iter().filter_map(|path| path.strip_prefix(&prefix));
        let siblings = siblings.filter(|name| !name.contains('.'));
        if let Some(name) = suggest::nearest(&stray.key, siblings) {
            return Some(join(&stray.section, name));
        }
        let mut elsewhere = self.known.iter().filter(|path| path.rsplit('.').next() == Some(&stray.key));
        elsewhere.next().filter(|_| elsewhere.next().is_none()).cloned()
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A default, as the contract writes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fixed {
    /// `true`
    Flag(bool),
    /// `20`
    Count(i64),
    /// `3.0`
    Number(f64),
    /// `"text"`
    Text(&'static str),
    /// `"300s"`: compared as a time.
    Time(&'static str),
    /// `["a", "b"]`
    Texts(&'static [&'static str]),
}

impl Fixed {
    fn is(self, data: &Data) -> bool {
        match (self, data) {
            (Fixed::Flag(flag), Data::Boolean(found)) => flag == *found,
            (Fixed::Count(count), Data::Integer(found)) => count == *found,
            (Fixed::Number(number), Data::Float(found)) => number == *found,
            (Fixed::Number(number), Data::Integer(found)) => number == *found as f64,
            (Fixed::Text(text), Data::Text(found)) => text == found,
            (Fixed::Time(text), Data::Text(found)) => {
                (syntax::DURATION.parse)(text) == (syntax::DURATION.parse)(found)
            }
            (Fixed::Texts(texts), Data::Array(found)) => {
                texts.iter().copied().map(Some).eq(found.iter().map(Value::as_text))
            }
            _ => false,
        }
    }

    fn written(self) -> String {
        match self {
            Fixed::Flag(flag) => flag.to_string(),
            Fixed::Count(count) => count.to_string(),
            Fixed::Number(number) => format!("{number:?}"),
            Fixed::Text(text) | Fixed::Time(text) => format!("{text:?}"),
            Fixed::Texts(texts) => format!("{texts:?}"),
        }
    }
}

/// One table while it is read. What it doesn't ask for is unknown.
pub(super) struct Section<'v> {
    path: String,
    pattern: String,
    place: Place,
    entries: &'v [Entry],
    asked: Vec<&'static str>,
    report: Report,
}

impl<'v> Section<'v> {
    /// Reads the root table with `read`.
    pub(super) fn root<T>(root: &'v Value, read: impl FnOnce(&mut Section<'v>) -> T) -> (T, Report) {
        let mut section = Section {
            path: String::new(),
            pattern: String::new(),
            place: root.place,
            entries: entries(root),
            asked: Vec::new(),
            report: Report::default(),
        };
        let value = read(&mut section);
        (value, section.close())
    }

    /// Where the table stands.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The full path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reads the table `key`; when it is absent, an empty one.
    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'v>) -> T) -> T {
        let found = self.ask(key);
        let (place, entries) = match found {
            None => (self.place, &[][..]),
            Some(Value { place, data: Data::Table(entries) }) => (*place, &entries[..]),
            Some(value) => {
                self.invalid(key, value, format!("a table, [{}]", self.path_of(key)));
                (value.place, &[][..])
            }
        };
        let path = self.path_of(key);
        self.child(path, key, place, entries, read)
    }

    /// Reads each table of the list of tables `key`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        most: usize,
        mut read: impl FnMut(&mut Section<'v>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let accepted = format!("tables, [[{key}]]");
        let Data::Array(items) = &value.data else {
            self.invalid(key, value, accepted);
            return Vec::new();
        };
        if items.len() > most {
            self.invalid(key, value, format!("at most {most} tables [[{key}]]"));
        }
        let mut values = Vec::with_capacity(items.len().min(most));
        for (index, item) in items.iter().take(most).enumerate() {
            match &item.data {
                Data::Table(entries) => {
                    let path = self.path_of(&format!("{key}[{index}]"));
                    values.push(self.child(path, key, item.place, entries, &mut read));
                }
                _ => self.invalid(&format!("{key}[{index}]"), item, accepted.clone()),
            }
        }
        values
    }

    fn child<T>(
        &mut self,
        path: String,
        key: &'static str,
        place: Place,
        entries: &'v [Entry],
        read: impl FnOnce(&mut Section<'v>) -> T,
    ) -> T {
        let report = std::mem::take(&mut self.report);
        let pattern = join(&self.pattern, key);
        let mut child = Section { path, pattern, place, entries, asked: Vec::new(), report };
        let value = read(&mut child);
        self.report = child.close();
        value
    }

    fn close(mut self) -> Report {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            self.report.strays.push(Stray {
                section: self.path.clone(),
                pattern: self.pattern.clone(),
                key: entry.key.clone(),
                place: entry.key_place,
            });
        }
        self.report
    }

    /// The value of `key`, which is hereby known.
    pub(super) fn ask(&mut self, key: &'static str) -> Option<&'v Value> {
        self.asked.push(key);
        self.report.known.insert(join(&self.pattern, key));
        self.entry(key).map(|entry| &entry.value)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.ask(key) {
            None => default,
            Some(Value { data: Data::Boolean(flag), .. }) => *flag,
            Some(value) => {
                self.invalid(key, value, "true or false".to_owned());
                default
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn count(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some(value) = self.ask(key) else { return default };
        if let Data::Integer(number) = value.data
            && let Ok(count) = u32::try_from(number)
            && range.contains(&count)
        {
            return count;
        }
        self.invalid(key, value, format!("a whole number from {} to {}", range.start(), range.end()));
        default
    }

    /// A size in octets within `range`.
    pub(super) fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some((value, size)) = self.read(key, &syntax::SIZE) else { return default };
        if !range.contains(&size) {
            let (least, most) = (written_size(*range.start()), written_size(*range.end()));
            self.invalid(key, value, format!("a size from \"{least}\" to \"{most}\""));
        }
        size
    }

    /// A duration in seconds within `range`.
    pub(super) fn seconds(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Duration {
        let Some((value, time)) = self.read(key, &syntax::DURATION) else {
            return Duration::from_secs(default);
        };
        if !range.contains(&time.as_secs()) {
            let (least, most) = (written_seconds(*range.start()), written_seconds(*range.end()));
            self.invalid(key, value, format!("a duration from \"{least}\" to \"{most}\""));
        }
        time
    }

    /// One of a few words; `default` is one of them.
    pub(super) fn choice<T: Clone>(&mut self, key: &'static str, default: &str, choices: &[(&str, T)]) -> T {
        let of = |word: &str| choices.iter().find(|choice| choice.0 == word).map(|choice| choice.1.clone());
        let default = of(default).unwrap_or_else(|| choices[0].1.clone());
        let Some(value) = self.ask(key) else { return default };
        let found = value.as_text().unwrap_or_default();
        if let Some(choice) = of(found) {
            return choice;
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let remedy = suggest::nearest(found, choices.iter().map(|(word, _)| *word))
            .map(|word| format!("did you mean {word:?}?"));
        let problem = Problem::Invalid { found: value.describe(), accepted: one_of(&words), remedy };
        self.error(key, value.place, problem);
        default
    }

    /// A text of a syntax; none when it is absent or wrong.
    pub(super) fn text<T>(&mut self, key: &'static str, syntax: &Syntax<T>) -> Option<T> {
        self.read(key, syntax).map(|(_, parsed)| parsed)
    }

    /// As [`Section::text`], where an empty text is the same as none.
    pub(super) fn text_or_empty<T>(&mut self, key: &'static str, syntax: &Syntax<T>) -> Option<T> {
        if self.says(key, "") {
            self.ask(key);
            return None;
        }
        self.text(key, syntax)
    }

    /// A list of texts of a syntax; none when it is absent.
    pub(super) fn list<T>(&mut self, key: &'static str, syntax: &Syntax<T>, most: usize) -> Option<Vec<T>> {
        let value = self.ask(key)?;
        let Data::Array(items) = &value.data else {
            self.invalid(key, value, format!("a list, each {}", syntax.accepted));
            return None;
        };
        if items.len() > most {
            self.invalid(key, value, format!("at most {most} values, those of @ files included"));
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            // A line of an included file has no index that an administrator could count.
            let name =
                if item.place.text == value.place.text { format!("{key}[{index}]") } else { key.into() };
            values.extend(self.parse(&name, item, syntax));
        }
        Some(values)
    }

    /// A text of a syntax, or a list of such texts, one at least; none when it is absent or wrong.
    pub(super) fn one_or_several<T>(
        &mut self,
        key: &'static str,
        syntax: &Syntax<T>,
        most: usize,
    ) -> Option<Vec<T>> {
        match self.ask(key)? {
            Value { data: Data::Array(items), .. } if items.is_empty() => {
                self.conflict(key, "the list is empty", "name one");
                None
            }
            Value { data: Data::Array(items), .. } => {
                let named = items.len();
                self.list(key, syntax, most).filter(|values| values.len() == named)
            }
            _ => self.text(key, syntax).map(|value| vec![value]),
        }
    }

    fn read<T>(&mut self, key: &'static str, syntax: &Syntax<T>) -> Option<(&'v Value, T)> {
        let value = self.ask(key)?;
        self.parse(key, value, syntax).map(|parsed| (value, parsed))
    }

    fn parse<T>(&mut self, key: &str, value: &Value, syntax: &Syntax<T>) -> Option<T> {
        let result = value.as_text().map_or(Err(Mismatch::Wrong), syntax.parse);
        // A password is shown nowhere, nor is what was meant to be one.
        let found = if key == SECRET_KEY { "something else".to_owned() } else { value.describe() };
        let accepted = syntax.accepted.to_owned();
        let problem = match result {
            Ok(parsed) => return Some(parsed),
            Err(Mismatch::Wrong) => Problem::Invalid { found, accepted, remedy: None },
            Err(Mismatch::Hint(hint)) => Problem::Invalid { found, accepted, remedy: Some(hint) },
        };
        self.error(key, value.place, problem);
        None
    }

    /// A key that must be there.
    pub(super) fn require<T>(&mut self, key: &'static str, syntax: &Syntax<T>) -> Option<T> {
        let parsed = self.text(key, syntax);
        self.expect_key(key, syntax.accepted);
        parsed
    }

    /// Whether `key` says exactly this, however it is read otherwise.
    pub(super) fn says(&self, key: &str, word: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value.as_text() == Some(word))
    }

    /// Whether `key` is there at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Whether `key` is there with anything but an empty text.
    pub(super) fn has_text(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value.as_text() != Some(""))
    }

    fn entry(&self, key: &str) -> Option<&'v Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Refuses the value of `key`, which the contract knows and this version doesn't.
    pub(super) fn refuse(&mut self, key: &'static str, accepted: &str) {
        if let Some(value) = self.ask(key) {
            self.not_supported(key, value, accepted.to_owned());
        }
    }

    /// Records an error if `key` is absent.
    pub(super) fn expect_key(&mut self, key: &'static str, accepted: &str) {
        if self.entry(key).is_none() {
            self.error(key, self.place, Problem::Missing { accepted: accepted.to_owned() });
        }
    }

    /// Keys of the contract that nothing acts on yet: accepted at their default.
    pub(super) fn unbuilt(&mut self, defaults: &[(&'static str, Fixed)]) {
        for (key, default) in defaults {
            if let Some(value) = self.ask(key).filter(|value| !default.is(&value.data)) {
                self.not_supported(key, value, default.written());
            }
        }
    }

    /// A protection that is on by default and that nothing provides yet: on, it is listed as inactive; off,
    /// it is accepted without a word. Where it isn't `needed`, since what it belongs to is off, it isn't
    /// listed either. Returns whether it is on.
    pub(super) fn protection(
        &mut self,
        key: &'static str,
        on: Fixed,
        off: Option<Fixed>,
        needed: bool,
        what: &str,
    ) -> bool {
        let value = self.ask(key);
        let is_off = value.is_some_and(|value| off.is_some_and(|off| off.is(&value.data)));
        if let Some(value) = value.filter(|value| !is_off && !on.is(&value.data)) {
            let accepted: Vec<String> = std::iter::once(on).chain(off).map(Fixed::written).collect();
            self.not_supported(key, value, one_of(&accepted));
        }
        if needed && !is_off {
            self.report.inactive.push(Inactive { key: self.path_of(key), what: what.to_owned() });
        }
        !is_off
    }

    /// Notes a protection that the file asks for and doesn't get.
    pub(super) fn note_inactive(&mut self, key: &str, what: String) {
        self.report.inactive.push(Inactive { key: self.path_of(key), what });
    }

    fn not_supported(&mut self, key: &str, value: &Value, accepted: String) {
        self.error(key, value.place, Problem::NotSupportedYet { found: value.describe(), accepted });
    }

    fn invalid(&mut self, key: &str, value: &Value, accepted: String) {
        self.error(key, value.place, Problem::Invalid { found: value.describe(), accepted, remedy: None });
    }

    /// Records an error of `key`.
    pub(super) fn error(&mut self, key: &str, place: Place, problem: Problem) {
        self.report.errors.push(ConfigError { key: self.path_of(key), place, problem });
    }

    /// Records a contradiction at the value of `key`, or at the table where it is absent.
    pub(super) fn conflict(&mut self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let place = self.entry(key).map_or(self.place, |entry| entry.value.place);
        self.error(key, place, Problem::Conflict { what: what.into(), remedy: remedy.into() });
    }
}

fn entries(value: &Value) -> &[Entry] {
    match &value.data {
        Data::Table(entries) => entries,
        _ => &[],
    }
}

/// `"a", "b" or "c"`.
fn one_of(words: &[String]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn written_size(octets: u64) -> String {
    match octets {
        _ if octets != 0 && octets.is_multiple_of(1 << 30) => format!("{}GB", octets >> 30),
        _ if octets != 0 && octets.is_multiple_of(1 << 20) => format!("{}MB", octets >> 20),
        _ => format!("{}KB", octets >> 10),
    }
}

fn written_seconds(seconds: u64) -> String {
    match seconds {
        _ if seconds != 0 && seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds != 0 && seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds != 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
