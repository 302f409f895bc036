//! Lines of a report: header and status fields and paragraphs, folded, with nothing in them that ends a line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Octets of an encoded word before encoding: with it, it has 60 characters of 75 (RFC 2047 §2), and a
/// field's name fits before it.
const MAX_ENCODED_OCTETS: usize = 36;

/// Octets after which a line is folded at the next chance.
const FOLD_OCTETS: usize = 76;

/// Octets after which a line is folded where there is no chance (RFC 5322 §2.1.1 ends them at 998).
const MAX_WORD_OCTETS: usize = 900;

/// Appends `name: value`. Control characters become '?', what isn't ASCII becomes `\x{HEX}` (RFC 6533 §3)
/// except in To, where it can only be an address that works no other way (RFC 6532).
pub(super) fn push_field(name: &str, value: &str, out: &mut Vec<u8>) {
    let value: String = if name == "To" { printable(value) } else { ascii(value) };
    push_folded(&format!("{name}:"), "\t", value.split(' '), out);
}

/// A field's text, as encoded words where it isn't ASCII (RFC 2047).
pub(super) fn encoded_words(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, more) = rest.split_at(rest.floor_char_boundary(MAX_ENCODED_OCTETS));
        words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
        rest = more;
    }
    words.join(" ")
}

/// Appends a paragraph of wrapped lines and an empty line.
pub(super) fn push_paragraph(indent: &str, text: &str, out: &mut Vec<u8>) {
    push_folded(indent, indent, printable(text).split(' '), out);
    out.extend_from_slice(b"\r\n");
}

fn push_folded<'a>(first: &str, indent: &str, words: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    out.extend_from_slice(first.as_bytes());
    let mut octets = first.len();
    for word in words {
        let mut rest = word;
        // An empty word is one more space: never a line of its own.
        if !rest.is_empty() && octets + 1 + rest.len() > FOLD_OCTETS && octets > indent.len() {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(indent.as_bytes());
            octets = indent.len();
        } else if octets > indent.len() {
            out.push(b' ');
            octets += 1;
        }
        while rest.len() > MAX_WORD_OCTETS {
            let (line, more) = rest.split_at(rest.floor_char_boundary(MAX_WORD_OCTETS));
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(if indent.is_empty() { b" " } else { indent.as_bytes() });
            rest = more;
        }
        out.extend_from_slice(rest.as_bytes());
        octets += rest.len();
    }
    out.extend_from_slice(b"\r\n");
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => escaped.push('?'),
            c if c.is_ascii() => escaped.push(c),
            c => escaped.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expect: &str) {
        let mut out = Vec::new();
        push_field("X", value, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn fields_stay_one_field() {
        check("a b", "X: a b\r\n");
        check("", "X: \r\n");
        check("a\r\nY: b\0", "X: a??Y: b?\r\n");
        check("Jörg", "X: J\\x{F6}rg\r\n");
        let word = "w".repeat(40);
        check(&format!("{word} {word}  {word}"), &format!("X: {word}\r\n\t{word} \r\n\t{word}\r\n"));
    }

    #[test]
    fn what_is_not_ascii_becomes_encoded_words() {
        assert_eq!(encoded_words("plain text"), "plain text");
        let text = "Unzustellbar: für Sie, ".repeat(4);
        let words = encoded_words(&text);
        let decoded: String = words
            .split(' ')
            .map(|word| {
                assert!(word.len() <= 75, "{word}");
                let inner = word.strip_prefix("=?utf-8?B?").unwrap().strip_suffix("?=").unwrap();
                String::from_utf8(STANDARD.decode(inner).unwrap()).unwrap()
            })
            .collect();
        assert_eq!(decoded, text);
    }

    #[test]
    fn no_line_is_too_long() {
        let mut out = Vec::new();
        push_field("X", &"é ".repeat(500), &mut out);
        push_field("X", &"é".repeat(5000), &mut out);
        push_paragraph("", &"é".repeat(5000), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.split("\r\n").all(|line| line.len() <= 998));
        assert!(text.trim_end().split("\r\n").all(|line| !line.trim().is_empty()));
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    }
}
