//! A TOML document whose arrays change and whose comments, order and line ends don't.

use toml_edit::{Array, DocumentMut, Item, TableLike};

use super::edit::EditError;
use super::lists::EditList;
use super::report::Text;
use super::source::Source;
use super::tree;

/// The document with what `toml_edit` would not keep by itself: the kind of line end.
pub(super) struct Document {
    document: DocumentMut,
    crlf: bool,
}

/// What a text says of a list before anything changes.
pub(super) struct Written {
    /// Its values, each with its line, from 1; absent where the list isn't written.
    pub(super) values: Option<Vec<(String, usize)>>,
    /// Whether its switch is on, if it has one. None is on where it isn't written.
    pub(super) is_on: bool,
}

impl Document {
    /// The document of a source's text, and what that says of `list`; refused if it would not come out again
    /// as it stands.
    pub(super) fn open(source: &Source, list: EditList) -> Result<(Self, Written), EditError> {
        let text = &source.text;
        let crlf = text.contains("\r\n");
        let mut plain = if crlf { text.replace("\r\n", "\n") } else { text.clone() };
        if !plain.ends_with('\n') && !plain.is_empty() {
            plain.push('\n');
        }
        let mixed = crlf && plain.replace('\n', "\r\n").trim_end() != text.trim_end();
        tree::note_parse();
        let parsed = toml_edit::Document::parse(plain.as_str()).map_err(|_| EditError::Document)?;
        let written = Written::of(&parsed, &Text::new(&source.path, &plain), list);
        let document = parsed.into_mut();
        if mixed || document.to_string() != plain {
            return Err(EditError::Document);
        }
        Ok((Self { document, crlf }, written))
    }

    /// Puts values at the end of a list.
    pub(super) fn push<'a>(
        &mut self,
        list: EditList,
        values: impl Iterator<Item = &'a str>,
    ) -> Result<(), EditError> {
        let array = self.array(list)?;
        values.for_each(|value| push(array, value));
        Ok(())
    }

    /// Takes values out of a list.
    pub(super) fn take(&mut self, list: EditList, is_gone: impl Fn(&str) -> bool) -> Result<(), EditError> {
        let array = self.array(list)?;
        for index in (0..array.len()).rev() {
            if array.get(index).and_then(toml_edit::Value::as_str).is_some_and(&is_gone) {
                take(array, index);
            }
        }
        Ok(())
    }

    /// Writes a list down that isn't written.
    pub(super) fn write(&mut self, list: EditList, values: &[&str]) -> Result<(), EditError> {
        let [_, key] = list.path();
        let written = || toml_edit::value(values.iter().copied().collect::<Array>());
        self.table(list)?.entry(key).or_insert_with(written);
        Ok(())
    }

    /// Sets the switch of the list's table, if it has one.
    pub(super) fn switch_on(&mut self, list: EditList) -> Result<(), EditError> {
        let Some(key) = list.switch() else { return Ok(()) };
        match self.table(list)?.entry(key).or_insert_with(|| toml_edit::value(true)) {
            Item::Value(value) => {
                let decor = value.decor().clone();
                *value = toml_edit::Value::from(true);
                *value.decor_mut() = decor;
                Ok(())
            }
            _ => Err(EditError::Document),
        }
    }

    /// The array, made if it is missing, and its table likewise.
    fn array(&mut self, list: EditList) -> Result<&mut Array, EditError> {
        let [_, key] = list.path();
        let table = self.table(list)?;
        let empty = || toml_edit::value(Array::new());
        table.entry(key).or_insert_with(empty).as_array_mut().ok_or(EditError::Document)
    }

    /// The list's table, made if it is missing.
    fn table(&mut self, list: EditList) -> Result<&mut dyn TableLike, EditError> {
        let [table, _] = list.path();
        let beginning = self.document.is_empty();
        let item = self.document.entry(table).or_insert_with(|| {
            let mut table = toml_edit::Table::new();
            table.decor_mut().set_prefix(if beginning { "" } else { "\n" });
            Item::Table(table)
        });
        item.as_table_like_mut().ok_or(EditError::Document)
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        let text = self.document.to_string();
        if self.crlf { text.replace('\n', "\r\n") } else { text }
    }
}

impl Written {
    fn of(document: &toml_edit::Document<&str>, text: &Text<'_>, list: EditList) -> Self {
        let [table, key] = list.path();
        let table = document.get(table).and_then(Item::as_table_like);
        let item = |key| table.and_then(|table| table.get(key));
        let value = |value: &toml_edit::Value| {
            let line = value.span().map_or(1, |span| text.line(span.start));
            Some((value.as_str()?.to_owned(), line))
        };
        let values = item(key).and_then(Item::as_array);
        let switch = list.switch().and_then(item).and_then(Item::as_bool);
        Self {
            values: values.map(|values| values.iter().filter_map(value).collect()),
            is_on: switch == Some(true),
        }
    }
}

/// How far the entries of a list are indented when none is there to show it.
const INDENT: &str = "    ";

/// Puts a value at the end, laid out as the one before it.
fn push(array: &mut Array, text: &str) {
    let new = toml_edit::Value::from(text);
    let Some(count) = array.len().checked_sub(1) else {
        let trailing = raw(Some(array.trailing()));
        // Between the brackets are lines with comments: the value gets a line after them.
        let (prefix, trailing) = match trailing.rsplit_once('\n') {
            Some((comments, last)) => (format!("{comments}\n{INDENT}"), format!("\n{last}")),
            None => (String::new(), String::new()),
        };
        array.set_trailing_comma(!prefix.is_empty());
        array.push_formatted(new.decorated(prefix, ""));
        array.set_trailing(trailing);
        return;
    };
    let comma = array.trailing_comma();
    let trailing = raw(Some(array.trailing()));
    let Some(last) = array.get_mut(count) else { return };
    let prefix = raw(last.decor().prefix());
    let tail = if comma { trailing } else { raw(last.decor().suffix()) };
    let (prefix, tail) = if prefix.contains('\n') || tail.contains('\n') {
        // A comment behind the last value stays with it.
        let indent = prefix.rsplit_once('\n').map_or(INDENT, |(_, indent)| indent);
        let (comment, rest) = tail.split_at(tail.find('\n').unwrap_or(0));
        (format!("{comment}\n{indent}"), rest.to_owned())
    } else {
        (" ".to_owned(), tail)
    };
    if comma {
        array.push_formatted(new.decorated(prefix, ""));
        array.set_trailing(tail);
    } else {
        last.decor_mut().set_suffix("");
        array.push_formatted(new.decorated(prefix, tail));
    }
}

/// Takes a value out, together with its line if it has one of its own.
fn take(array: &mut Array, index: usize) {
    let Some(value) = array.get(index) else { return };
    let (before, behind) = (raw(value.decor().prefix()), raw(value.decor().suffix()));
    let comma = array.trailing_comma();
    let is_last = index + 1 == array.len();
    array.remove(index);
    if !is_last {
        if let Some(next) = array.get_mut(index) {
            let joined = join(&before, &raw(next.decor().prefix()));
            next.decor_mut().set_prefix(joined);
        }
        return;
    }
    let tail = join(&before, &if comma { raw(Some(array.trailing())) } else { behind });
    match index.checked_sub(1).and_then(|previous| array.get_mut(previous)) {
        None => {
            array.set_trailing_comma(false);
            array.set_trailing(if tail.contains('#') { tail } else { String::new() });
        }
        Some(_) if comma => array.set_trailing(tail),
        Some(previous) => {
            let suffix = raw(previous.decor().suffix()) + &tail;
            previous.decor_mut().set_suffix(suffix);
        }
    }
}

/// What stands where a value was: `before` it, and `behind` it up to the next. A comment on its own line goes
/// with it; those on lines above it, and behind the value before it, stay.
fn join(before: &str, behind: &str) -> String {
    let mut joined = match (before.rsplit_once('\n'), behind.find('\n')) {
        (Some((kept, _)), Some(end_of_line)) => format!("{kept}{}", &behind[end_of_line..]),
        // The next one shared the line, and begins it now.
        (Some(_), None) if !behind.is_empty() => before.to_owned(),
        (Some((kept, _)), None) => kept.to_owned(),
        (None, Some(_)) => behind.to_owned(),
        (None, None) => before.to_owned(),
    };
    if joined.rsplit('\n').next().is_some_and(|last| last.contains('#')) {
        joined.push('\n');
    }
    joined
}

fn raw(text: Option<&toml_edit::RawString>) -> String {
    text.and_then(toml_edit::RawString::as_str).unwrap_or_default().to_owned()
}
