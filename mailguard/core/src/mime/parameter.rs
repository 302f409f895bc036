//! Parameters of Content-Type and Content-Disposition (RFC 2045 §5.1, RFC 2231), in every reading: quoted or
//! not, escaped or not, in sections, with a charset, with comments or parentheses, with quotes that nothing
//! closes.

use super::{MAX_PARAMETERS, encoding::hex_pair};

/// Most ways in which a field as a whole is read.
pub(super) const MAX_FIELD_READINGS: usize = 16;

/// Most readings of one value that sections are joined by.
const MAX_JOINED_READINGS: usize = 8;

/// A value as octets, with the charset that RFC 2231 gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) octets: Vec<u8>,
    pub(super) charset: Option<String>,
}

/// A field's value taken apart.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// What stands before the first ';', lower case, without comments and white space.
    pub(super) first: String,
    /// The parameters, once for each way to read the field as a whole; the standard one first.
    readings: Vec<Vec<Piece>>,
    /// Whether there were more than [`MAX_PARAMETERS`].
    pub(super) overflow: bool,
}

/// One `name*section*=value`.
#[derive(Debug, PartialEq)]
struct Piece {
    /// What the name could be, lower case, without section and star: one word, or each of several.
    bases: Vec<String>,
    section: Option<u32>,
    extended: bool,
    /// Every reading of the value, the standard one first.
    readings: Vec<Vec<u8>>,
}

impl Parameters {
    /// Takes a field's value apart, folded as it is. Never fails: what can't be a parameter is passed over.
    pub(super) fn parse(value: &[u8]) -> Self {
        let mut parameters = Self { first: leading_token(value).0, ..Self::default() };
        for reading in whole_readings(value) {
            let pieces = parameters.pieces(&reading);
            if !parameters.readings.contains(&pieces) {
                parameters.readings.push(pieces);
            }
        }
        parameters
    }

    fn pieces(&mut self, value: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (_, mut at) = leading_token(value);
        while at < value.len() {
            let (name, after) = match parameter_name(value, at) {
                Ok(found) => found,
                Err(next) => {
                    at = next;
                    continue;
                }
            };
            if pieces.len() == MAX_PARAMETERS {
                self.overflow = true;
                break;
            }
            let (readings, next) = value_readings(value, after);
            pieces.push(Piece::new(name, readings));
            at = next;
        }
        pieces
    }

    /// Every reading of the parameter `base`, each once, the standard one first.
    pub(super) fn values(&self, base: &str) -> Vec<Value> {
        let mut values = Vec::new();
        for value in self.readings.iter().flat_map(|pieces| values_in(pieces, base)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    }
}

fn values_in(pieces: &[Piece], base: &str) -> Vec<Value> {
    let mut values = Vec::new();
    let mut sections: Vec<&Piece> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.bases.iter().any(|name| name == base)) {
        if piece.section.is_some() {
            sections.push(piece);
        }
        for reading in &piece.readings {
            if piece.extended {
                values.push(extended_value(reading));
            }
            if !piece.extended || piece.section.is_none() {
                values.push(Value { octets: reading.clone(), charset: None });
            }
        }
    }
    let readings = sections.iter().map(|piece| piece.readings.len()).max().unwrap_or(0);
    for reading in 0..readings.min(MAX_JOINED_READINGS) {
        values.append(&mut joined(sections.clone(), reading));
    }
    values
}

/// The field as a whole in each way that readers differ about, the standard one first: parentheses are
/// comments or not, a backslash keeps a quote from closing or doesn't, a quote that nothing closes counts or
/// doesn't, control characters are white space or not. What changes nothing is left out.
fn whole_readings(value: &[u8]) -> Vec<Vec<u8>> {
    let mut readings = vec![value.to_vec()];
    for other in [without_comments, without_escapes, without_open_quotes, without_controls] {
        for index in 0..readings.len() {
            if let Some(reading) = other(&readings[index]).filter(|reading| !readings.contains(reading)) {
                readings.push(reading);
            }
        }
    }
    readings
}

/// Comments taken out, nested ones whole; what stands in quotes isn't one.
fn without_comments(value: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'(', value)?;
    let mut out = Vec::with_capacity(value.len());
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for &octet in value {
        let is_escaped = std::mem::take(&mut escaped);
        match octet {
            b'\\' if !is_escaped => escaped = true,
            b'"' if depth == 0 && !is_escaped => quoted = !quoted,
            b'(' if !quoted && !is_escaped => depth += 1,
            b')' if depth > 0 && !is_escaped => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            out.push(octet);
        }
    }
    Some(out)
}

/// A backslash before a quote is none.
fn without_escapes(value: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(value, b"\\\"")?;
    let mut octets = value.iter().copied().peekable();
    let mut out = Vec::with_capacity(value.len());
    while let Some(octet) = octets.next() {
        if octet != b'\\' || octets.peek() != Some(&b'"') {
            out.push(octet);
        }
    }
    Some(out)
}

/// Without any quotes, where they don't come in pairs.
fn without_open_quotes(value: &[u8]) -> Option<Vec<u8>> {
    let quotes = memchr::memchr_iter(b'"', value).count();
    (quotes % 2 == 1).then(|| value.iter().copied().filter(|octet| *octet != b'"').collect())
}

/// NUL, VT, FF and their like are spaces.
fn without_controls(value: &[u8]) -> Option<Vec<u8>> {
    let is_odd = |octet: &u8| octet.is_ascii_control() && !matches!(octet, b'\t' | b'\r' | b'\n');
    let plain = |octet: &u8| if is_odd(octet) { b' ' } else { *octet };
    value.iter().any(is_odd).then(|| value.iter().map(plain).collect())
}

/// The sections in each order that a reader could put them into: as they come, by number, and of two with one
/// number the first or the last only. Of each value this reading, or the last that it has.
fn joined(mut sections: Vec<&Piece>, reading: usize) -> Vec<Value> {
    let mut values = vec![join(&sections, reading)];
    sections.sort_by_key(|piece| piece.section);
    values.push(join(&sections, reading));
    let mut first = sections.clone();
    first.dedup_by_key(|piece| piece.section);
    values.push(join(&first, reading));
    sections.reverse();
    sections.dedup_by_key(|piece| piece.section);
    sections.reverse();
    values.push(join(&sections, reading));
    values
}

impl Piece {
    fn new(name: &[u8], readings: Vec<Vec<u8>>) -> Self {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let (name, extended) = match name.strip_suffix('*') {
            Some(rest) => (rest, true),
            None => (name.as_str(), false),
        };
        let (base, section) = match name.split_once('*') {
            Some((base, section)) => (base, section.parse().ok()),
            None => (name, None),
        };
        Self { bases: words(base), section, extended, readings }
    }
}

/// The words of a name: where there are several, some reader takes each of them for it, and white space
/// inside it for nothing.
fn words(name: &str) -> Vec<String> {
    let is_token = |c: char| !c.is_whitespace() && !c.is_control() && !"()<>@,;:\\\"/[]?=".contains(c);
    let mut words: Vec<String> =
        name.split(|c| !is_token(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.len() > 1 {
        words.push(words.concat());
    }
    words
}

/// Sections in this order: charset of the first, percent decoded where a star says so.
fn join(sections: &[&Piece], reading: usize) -> Value {
    let mut joined = Value { octets: Vec::new(), charset: None };
    for piece in sections {
        let Some(reading) = piece.readings.get(reading).or(piece.readings.last()) else { continue };
        if piece.extended {
            let value = if joined.octets.is_empty() {
                extended_value(reading)
            } else {
                Value { octets: percent(reading), charset: None }
            };
            joined.octets.extend_from_slice(&value.octets);
            joined.charset = joined.charset.or(value.charset);
        } else {
            joined.octets.extend_from_slice(reading);
        }
    }
    joined
}

/// `charset'language'percent-encoded`; without quotes all of it is percent-encoded.
fn extended_value(reading: &[u8]) -> Value {
    let mut parts = reading.splitn(3, |octet| *octet == b'\'');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_), Some(rest)) => {
            let charset = String::from_utf8_lossy(charset).trim().to_owned();
            Value { octets: percent(rest), charset: (!charset.is_empty()).then_some(charset) }
        }
        _ => Value { octets: percent(reading), charset: None },
    }
}

/// Percent-decodes; what isn't an escape stays.
pub(super) fn percent(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut at = 0;
    while at < input.len() {
        match (input[at], hex_pair(&input[at + 1..])) {
            (b'%', Some(octet)) => {
                out.push(octet);
                at += 3;
            }
            (octet, _) => {
                out.push(octet);
                at += 1;
            }
        }
    }
    out
}

/// What stands before the first ';' outside comments, and the position of that ';' or the end.
fn leading_token(value: &[u8]) -> (String, usize) {
    let (mut token, mut comment) = (String::new(), 0_usize);
    for (at, &octet) in value.iter().enumerate() {
        match octet {
            b'(' => comment += 1,
            b')' => comment = comment.saturating_sub(1),
            b';' if comment == 0 => return (token, at),
            // No ';' before the first parameter: some readers don't need one.
            b'=' if comment == 0 => return leading_without_semicolon(value, at),
            _ if comment > 0 || octet.is_ascii_whitespace() || octet == b'"' || token.len() > 255 => {}
            _ => token.push(octet.to_ascii_lowercase().into()),
        }
    }
    // An unclosed comment hides no parameters.
    let end = if comment > 0 { memchr::memchr(b';', value).unwrap_or(value.len()) } else { value.len() };
    (token, end)
}

/// `text/plain name=x`: the token ends where the parameter's name begins.
fn leading_without_semicolon(value: &[u8], equals: usize) -> (String, usize) {
    let head = value[..equals].trim_ascii_end();
    let name = head.iter().rposition(u8::is_ascii_whitespace).map_or(0, |space| space + 1);
    let token = String::from_utf8_lossy(value[..name].trim_ascii()).to_ascii_lowercase();
    (token, name)
}

fn skip_to_semicolon(value: &[u8], at: usize) -> usize {
    memchr::memchr(b';', &value[at..]).map_or(value.len(), |found| at + found + 1)
}

/// The name that begins at `at` (white space and ';' passed over) and where its value begins; without a name,
/// where to look on.
fn parameter_name(value: &[u8], at: usize) -> Result<(&[u8], usize), usize> {
    let rest = &value[at..];
    let start = rest.iter().position(|octet| *octet != b';' && !octet.is_ascii_whitespace());
    let start = start.ok_or(value.len())?;
    let length = memchr::memchr2(b'=', b';', &rest[start..]).ok_or(value.len())?;
    let (name, after) = (rest[start..start + length].trim_ascii(), at + start + length + 1);
    if rest[start + length] == b';' || name.is_empty() { Err(after) } else { Ok((name, after)) }
}

/// The readings of the value that begins at `at`, and where the next parameter begins.
fn value_readings(value: &[u8], at: usize) -> (Vec<Vec<u8>>, usize) {
    let blanks = value[at..].iter().take_while(|octet| octet.is_ascii_whitespace()).count();
    let start = at + blanks;
    if value.get(start) == Some(&b'"') { quoted(value, start + 1) } else { bare(value, start) }
}

/// Inside quotes: with and without escapes, and with what follows the closing quote. Where there is none:
/// with the one that opens, too, and to the ';'.
fn quoted(value: &[u8], start: usize) -> (Vec<Vec<u8>>, usize) {
    let rest = &value[start..];
    let (mut unescaped, mut at, mut escapes) = (Vec::new(), 0, false);
    while at < rest.len() && rest[at] != b'"' {
        if rest[at] == b'\\' && at + 1 < rest.len() {
            escapes = true;
            at += 1;
        }
        unescaped.push(rest[at]);
        at += 1;
    }
    let after = (at + 1).min(rest.len());
    let end = memchr::memchr(b';', &rest[after..]).map_or(rest.len(), |found| after + found);
    let junk = rest[after..end].trim_ascii();
    let mut readings = vec![unescaped];
    if at >= rest.len() {
        let cut = &value[start - 1..start + memchr::memchr(b';', rest).unwrap_or(rest.len())];
        readings.extend([value[start - 1..].to_vec(), cut.to_vec(), cut[1..].to_vec()]);
    }
    if !junk.is_empty() {
        let mut joined = readings[0].clone();
        joined.extend(junk.iter().filter(|octet| **octet != b'"'));
        readings.push(joined);
    }
    if escapes {
        let inner_end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
        readings.push(rest[..inner_end].to_vec());
        if inner_end != at {
            readings.push(rest[..at].to_vec());
        }
    }
    (readings, start + end)
}

/// Without quotes: to the ';', to where a token ends, without quotes inside it or single ones around it, and
/// on past a ';' that no parameter follows.
fn bare(value: &[u8], start: usize) -> (Vec<Vec<u8>>, usize) {
    let end = skip_to_semicolon(value, start);
    let whole = value[start..end].strip_suffix(b";").unwrap_or(&value[start..end]).trim_ascii();
    let mut readings = vec![whole.to_vec()];
    if let Some(token) = whole.iter().position(|octet| ends_token(*octet)).filter(|token| *token > 0) {
        readings.push(whole[..token].to_vec());
    }
    if whole.contains(&b'"') {
        readings.push(whole.iter().copied().filter(|octet| *octet != b'"').collect());
    }
    if let Some(inner) = whole.strip_prefix(b"'").and_then(|inner| inner.strip_suffix(b"'")) {
        readings.push(inner.to_vec());
    }
    let rest = &value[end..];
    if !rest.trim_ascii().is_empty() && memchr::memchr(b'=', rest).is_none() {
        readings.push(value[start..].trim_ascii().to_vec());
    }
    (readings, end)
}

/// White space, control characters and RFC 2045's tspecials.
fn ends_token(octet: u8) -> bool {
    octet <= b' ' || octet == 0x7F || b"()<>@,;:\\\"/[]?=".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, first: &str, name: &str, expect: &[&str]) {
        let parameters = Parameters::parse(value.as_bytes());
        let values = parameters.values(name);
        let seen: Vec<_> = values.iter().map(|v| String::from_utf8_lossy(&v.octets).into_owned()).collect();
        assert_eq!(
            (parameters.first.as_str(), seen),
            (first, expect.iter().map(|s| (*s).to_owned()).collect()),
            "{value}"
        );
    }

    #[test]
    fn plain() {
        check(" Text/Plain (a;b); charset=utf-8", "text/plain", "charset", &["utf-8"]);
        check("a; NAME = \"b c\" ; x=y", "a", "name", &["b c"]);
        check("a; x=y; name=b", "a", "name", &["b"]);
        check("attachment filename=a.exe", "attachment", "filename", &["a.exe"]);
        check("a", "a", "name", &[]);
        check("a; name", "a", "name", &[]);
        check("a (open; name=b", "a", "name", &["b"]);
    }

    #[test]
    fn several_readings() {
        check("a; name=my file.exe; x=y", "a", "name", &["my file.exe", "my"]);
        check("a; name=b.exe(c)", "a", "name", &["b.exe(c)", "b.exe"]);
        check("a; name=()b.exe", "a", "name", &["()b.exe", "b.exe"]);
        check("a; name(x(y)\\))=b.exe", "a", "name", &["b.exe"]);
        check("a; name(=)=b.exe", "a", "name", &[")=b.exe", "b.exe"]);
        check("a; (;)name=b.exe", "a", "name", &["b.exe"]);
        check("a; \"name\"=b.exe", "a", "name", &["b.exe"]);
        check("a; x name=b.exe", "a", "name", &["b.exe"]);
        check("a; name='b.exe'", "a", "name", &["'b.exe'", "b.exe"]);
        check("a; name=b\".exe\"", "a", "name", &["b\".exe\"", "b", "b.exe"]);
        check("a; name=b=c", "a", "name", &["b=c", "b"]);
        check("a; name\0=\x0Bb\x0C", "a", "name", &["\u{b}b", "b"]);
        check("a; name=", "a", "name", &[""]);
        check("a; name=\"\"", "a", "name", &[""]);
        check("a; name=b;c.exe", "a", "name", &["b", "b;c.exe"]);
        check(r#"a; name="c:\x\b.exe""#, "a", "name", &["c:xb.exe", r"c:\x\b.exe"]);
        check(
            r#"a; name="b.exe\";x=y"#,
            "a",
            "name",
            &[
                "b.exe\";x=y",
                "\"b.exe\\\";x=y",
                "\"b.exe\\\"",
                "b.exe\\\"",
                "b.exe\\",
                "b.exe\\\";x=y",
                "b.exe",
            ],
        );
        check(r#"a; name="b".exe"#, "a", "name", &["b", "b.exe"]);
        check("a; name=\"b.exe", "a", "name", &["b.exe", "\"b.exe"]);
        check("a; x=\"y; name=b.exe", "a", "name", &["b.exe"]);
        check(r#"a; x="\"; name=b.exe; y=""#, "a", "name", &["b.exe"]);
        check("a; name=b; name=c", "a", "name", &["b", "c"]);
    }

    #[test]
    fn rfc_2231() {
        check("a; name*=utf-8'en'b%2Eexe", "a", "name", &["b.exe", "utf-8'en'b%2Eexe"]);
        check("a; name*0=b; name*1=.exe", "a", "name", &["b", ".exe", "b.exe"]);
        check("a; name*1=.exe; name*0*=''%62", "a", "name", &[".exe", "b", ".exe''b", "b.exe"]);
        check(
            "a; name*0='b.'; name*1='exe'",
            "a",
            "name",
            &["'b.'", "b.", "'exe'", "exe", "'b.''exe'", "b.exe"],
        );
    }
}
