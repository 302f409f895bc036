//! Texts in a line of the log, whoever wrote them: none ends a line, begins a key, or moves a cursor. Pure;
//! which lines there are is for others to say.
//!
//! A line of text is `key=value` after `key=value`. A value of harmless ASCII stands as it is. Any other is a
//! JSON string of ASCII, in which '=' is escaped, too: neither a program that knows of quotes nor a pattern
//! that doesn't finds a key in it.

use std::borrow::Cow;
use std::fmt::Write;

use crate::mail::{is_obeyed, is_unseen};

/// What is shown of a text that a stranger chose, octets: as long as an address can be (RFC 5321 §4.5.3.1).
pub const MAX_SHOWN_OCTETS: usize = 320;

/// Longest line that is passed on from one process to another, octets.
pub const MAX_LINE_OCTETS: usize = 16 << 10;
/// Of that, what a line holds besides texts of others: time, level, target, keys, numbers and names of
/// addresses.
const FRAME_OCTETS: usize = 1 << 10;
/// Octets that become of one of a text, at most: `\u0000`.
const ESCAPED_OCTETS: usize = 6;

/// What stands for the rest of a text that was cut.
const CUT: &str = "...";

/// How a line goes on after a line end in a message of our own: nothing else in the log begins like that.
const CONTINUED: &str = "\n    ";

/// Whether a line with so many octets of others' texts is passed on whole, whatever they are.
pub const fn fits_a_line(texts: usize) -> bool {
    texts * ESCAPED_OCTETS + FRAME_OCTETS <= MAX_LINE_OCTETS
}

/// A value as it stands in a line.
pub fn value(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' if c != '=' => out.push(c),
            c => escape(c, &mut out),
        }
    }
    out.push('"');
    Cow::Owned(out)
}

/// A message of our own as it stands in a line. A stranger's words may be part of it, and it may have several
/// lines.
pub fn message(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| !is_obeyed(c);
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str(CONTINUED),
            c if is_harmless(c) => out.push(c),
            c => escape(c, &mut out),
        }
    }
    Cow::Owned(out)
}

/// JSON in which every character that isn't to be obeyed, or that nobody would see, is written as its number:
/// nothing is lost, and nothing happens where it is shown.
pub fn json(json: &str) -> Cow<'_, str> {
    // Line ends and the like stand between values only; within them they are written as numbers already.
    let is_harmless = |c: char| c.is_ascii() && c != '\u{7f}' || !(is_obeyed(c) || is_unseen(c));
    if json.chars().all(is_harmless) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        if is_harmless(c) {
            out.push(c);
        } else {
            escape(c, &mut out);
        }
    }
    Cow::Owned(out)
}

/// As much of a text as `octets` hold.
pub fn cut(text: &str, octets: usize) -> Cow<'_, str> {
    if text.len() <= octets {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(octets.saturating_sub(CUT.len()));
    Cow::Owned(format!("{}{CUT}", &text[..end]))
}

/// As many items as `octets` hold, with commas between them.
pub fn listed(items: impl IntoIterator<Item = impl AsRef<str>>, octets: usize) -> String {
    let mut out = String::new();
    for item in items {
        let item = cut(item.as_ref(), MAX_SHOWN_OCTETS);
        let comma = if out.is_empty() { "" } else { "," };
        if out.len() + comma.len() + item.len() + CUT.len() > octets {
            out.push_str(comma);
            out.push_str(CUT);
            break;
        }
        out.push_str(comma);
        out.push_str(&item);
    }
    out
}

/// As JSON has it: what is above U+FFFF as two surrogates.
fn escape(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // A string takes everything.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(value(text), expect, "{text:?}");
    }

    #[test]
    fn harmless_values_stand_as_they_are_and_others_are_json() {
        check("<alice@a.test>", "<alice@a.test>");
        check("[2001:db8::1]:25", "[2001:db8::1]:25");
        check("", r#""""#);
        check("550 5.7.1 no", r#""550 5.7.1 no""#);
        check("a\"b\\c", r#""a\"b\\c""#);
        check("x\r\n\ty\0\x1b[2J\x7f", r#""x\r\n\ty\u0000\u001b[2J\u007f""#);
        check("x client=192.0.2.1", r#""x client\u003d192.0.2.1""#);
        check("jörg", r#""j\u00f6rg""#);
        check("\u{202e}\u{1f600}", r#""\u202e\ud83d\ude00""#);
    }

    #[test]
    fn a_message_of_several_lines_is_one_entry() {
        assert_eq!(message("jörg: all is well"), "jörg: all is well");
        assert_eq!(
            message("no:\n2026-11-28T08:00:00Z  INFO mail: id\r\x1b[1m\u{202e}"),
            "no:\n    2026-11-28T08:00:00Z  INFO mail: id\\u000d\\u001b[1m\\u202e"
        );
    }

    #[test]
    fn json_stays_json_and_is_obeyed_by_nobody() {
        assert_eq!(json("{\"a\":\"é漢😀\\n\"}\n"), "{\"a\":\"é漢😀\\n\"}\n");
        assert_eq!(
            json("{\"a\":\"\u{202e}\u{9b}\u{7f}\u{200b}\u{e0041}\"}\n"),
            "{\"a\":\"\\u202e\\u009b\\u007f\\u200b\\udb40\\udc41\"}\n"
        );
    }

    #[test]
    fn long_texts_and_lists_are_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc...");
        assert_eq!(cut("aööö", 5), "a...");
        assert_eq!(listed(["a", "b"], 8), "a,b");
        assert_eq!(listed(["abc", "de", "f"], 8), "abc,...");
        assert!(listed([&"x".repeat(1000)], 640).len() <= 640);
        assert!(listed(vec!["x".repeat(100); 1000], 640).len() <= 644);
    }

    proptest! {
        #[test]
        fn no_text_ends_a_line_or_begins_a_key(text in any::<String>()) {
            let value = value(&text);
            prop_assert!(value.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{value}");
            prop_assert!(!value.contains('='), "{value}");
            match value.starts_with('"') {
                true => prop_assert_eq!(serde_json::from_str::<String>(&value).unwrap(), text),
                false => prop_assert!(!value.contains([' ', '"']) && value == text),
            }
        }
    }
}
