//! Header of a message or part: where it ends, and the three fields that say how the body is read (RFC 5322
//! §2.2, RFC 2045 §3). Knows the readings of a header whose end is in doubt.

use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

use super::{MAX_CONTENT_FIELDS, words};

/// Longest subject kept for people, octets.
const MAX_SUBJECT_OCTETS: usize = 1024;

/// The Content-* fields that the walk reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentField {
    Type,
    Disposition,
    TransferEncoding,
}

/// A field's name and its value, folds and all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) name: ContentField,
    pub(super) value: &'a [u8],
}

impl Field<'_> {
    /// Which octets its value is.
    fn place(&self) -> (*const u8, usize) {
        (self.value.as_ptr(), self.value.len())
    }
}

/// One way to read the beginning of an entity.
#[derive(Debug)]
pub(super) struct Header<'a> {
    /// Content fields in their order.
    pub(super) fields: Vec<Field<'a>>,
    /// Where the body begins.
    pub(super) body: usize,
    /// Whether there were more than [`MAX_CONTENT_FIELDS`].
    pub(super) overflow: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// LF, with or without CR.
    Lf,
    /// A bare CR too.
    Any,
}

/// Every way to read the header of `entity`: one where it is well-formed, never none, at most eight.
pub(super) fn readings(entity: &[u8]) -> Vec<Header<'_>> {
    let (mut readings, extent) = parse(entity, LineEnd::Lf);
    if has_bare_cr(&entity[..extent]) {
        add_new(&mut readings, parse(entity, LineEnd::Any).0);
    }
    readings
}

/// Whether the header of what `length` octets of `octets` hold, or of a message in it, goes on behind them:
/// its last lines hold a content field, and no empty line follows.
pub(super) fn is_open(octets: &[u8], length: usize) -> bool {
    let part = &octets[..length];
    let after = |end: &[u8]| memmem::rfind(part, end).map_or(0, |found| found + end.len());
    let last = after(b"\n\r\n").max(after(b"\n\n"));
    // The line end before a delimiter may be the empty line.
    let ends_there = part.ends_with(b"\n") || last == length;
    // What is long mostly is base64, which has no hyphen.
    if ends_there || memchr(b'-', &part[last..]).is_none() {
        return false;
    }
    let fields = part[last..].split(|octet| *octet == b'\n');
    fields.map(<[u8]>::trim_ascii_end).any(|line| matches!(split_field(line), Some((Some(_), _))))
}

fn add_new<'a>(readings: &mut Vec<Header<'a>>, others: Vec<Header<'a>>) {
    for header in others {
        let is_same = |other: &Header<'_>| {
            other.body == header.body
                && other.fields.iter().map(Field::place).eq(header.fields.iter().map(Field::place))
        };
        if !readings.iter().any(is_same) {
            readings.push(header);
        }
    }
}

fn has_bare_cr(octets: &[u8]) -> bool {
    let mut from = 0;
    while let Some(found) = memchr(b'\r', &octets[from..]) {
        from += found + 1;
        if octets.get(from).is_some_and(|next| *next != b'\n') {
            return true;
        }
    }
    false
}

/// The line that begins at `start`: its end without and with the line end.
fn line_at(octets: &[u8], start: usize, ends: LineEnd) -> (usize, usize) {
    let rest = &octets[start..];
    let found = match ends {
        LineEnd::Lf => memchr(b'\n', rest),
        LineEnd::Any => memchr2(b'\r', b'\n', rest),
    };
    let Some(found) = found else { return (octets.len(), octets.len()) };
    let end = start + found;
    if octets[end] == b'\r' {
        let next = if octets.get(end + 1) == Some(&b'\n') { end + 2 } else { end + 1 };
        (end, next)
    } else if end > start && octets[end - 1] == b'\r' {
        (end - 1, end + 1)
    } else {
        (end, end + 1)
    }
}

/// Which lines begin a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldSyntax {
    /// A name and a colon.
    Rfc5322,
    /// Content fields without a colon, or with what doesn't belong there before it, too.
    Lenient,
}

/// Collects the fields as the lines go by.
struct Collector<'a> {
    entity: &'a [u8],
    fields: Vec<Field<'a>>,
    current: Option<(ContentField, Range<usize>)>,
    overflow: bool,
}

impl<'a> Collector<'a> {
    fn close(&mut self) {
        let Some((name, range)) = self.current.take() else { return };
        if self.fields.len() == MAX_CONTENT_FIELDS {
            self.overflow = true;
        } else {
            self.fields.push(Field { name, value: &self.entity[range] });
        }
    }

    fn header(&self, body: usize) -> Header<'a> {
        Header { fields: self.fields.clone(), body, overflow: self.overflow }
    }
}

/// One reading to four, and how far was read.
fn parse(entity: &[u8], ends: LineEnd) -> (Vec<Header<'_>>, usize) {
    let (mut readings, mut extent, has_odd_fields) = parse_by(entity, ends, FieldSyntax::Rfc5322);
    if has_odd_fields {
        let (lenient, further, _) = parse_by(entity, ends, FieldSyntax::Lenient);
        add_new(&mut readings, lenient);
        extent = extent.max(further);
    }
    (readings, extent)
}

/// One reading or two, how far was read, and whether the lenient syntax could find more.
fn parse_by(entity: &[u8], ends: LineEnd, syntax: FieldSyntax) -> (Vec<Header<'_>>, usize, bool) {
    let mut collector = Collector { entity, fields: Vec::new(), current: None, overflow: false };
    let mut early: Option<Header<'_>> = None;
    let (mut at, mut in_field, mut has_odd_fields) = (0, false, false);
    let body = loop {
        if at >= entity.len() {
            break entity.len();
        }
        let (end, next) = line_at(entity, at, ends);
        let line = &entity[at..end];
        if line.is_empty() {
            break next;
        }
        if in_field && matches!(line[0], b' ' | b'\t') {
            if let Some((_, range)) = &mut collector.current {
                range.end = end;
            }
            if early.is_none() && line.iter().all(u8::is_ascii_whitespace) {
                early = Some(closed(&mut collector, next));
            }
        } else if let Some((name, value)) = field_by(line, syntax, &mut has_odd_fields) {
            collector.close();
            collector.current = name.map(|name| (name, at + value..end));
            in_field = true;
        } else if !(at == 0 && is_mbox_line(line)) {
            if early.is_none() {
                early = Some(closed(&mut collector, at));
            }
            in_field = true;
        }
        at = next;
    };
    collector.close();
    let whole = collector.header(body);
    let readings = match early {
        None => vec![whole],
        // Text without a header: nothing was gained by reading on.
        Some(early) if whole.fields.is_empty() && !whole.overflow => vec![early],
        Some(early) => vec![whole, early],
    };
    (readings, body, has_odd_fields)
}

/// The header as it is if it ends here; what was being collected goes on.
fn closed<'a>(collector: &mut Collector<'a>, body: usize) -> Header<'a> {
    let current = collector.current.clone();
    collector.close();
    let header = collector.header(body);
    if current.is_some() && !collector.overflow {
        collector.fields.pop();
    }
    collector.current = current;
    header
}

fn is_mbox_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

/// The field that a line begins, and where its value starts. White space before the colon is let pass.
fn split_field(line: &[u8]) -> Option<(Option<ContentField>, usize)> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some((field_name(name), colon + 1))
}

/// The field by the syntax; notes a line that only the lenient one takes for a content field.
fn field_by(line: &[u8], syntax: FieldSyntax, has_odd: &mut bool) -> Option<(Option<ContentField>, usize)> {
    let strict = split_field(line);
    if matches!(strict, Some((Some(_), _))) {
        return strict;
    }
    let Some((name, value)) = odd_field(line) else { return strict };
    *has_odd = true;
    if syntax == FieldSyntax::Lenient { Some((Some(name), value)) } else { strict }
}

/// A content field behind white space, control characters or a byte order mark, or whose name no colon
/// follows at once.
fn odd_field(line: &[u8]) -> Option<(ContentField, usize)> {
    let start = line.iter().position(u8::is_ascii_graphic)?;
    let is_name = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
    let length = line[start..].iter().take_while(|octet| is_name(octet)).count();
    let name = field_name(&line[start..start + length])?;
    let after = start + length;
    let gap = line[after..].iter().take_while(|octet| !octet.is_ascii_graphic()).count();
    let colon = usize::from(line.get(after + gap) == Some(&b':'));
    Some((name, after + gap + colon))
}

fn field_name(name: &[u8]) -> Option<ContentField> {
    let rest = name.get(..8).filter(|prefix| prefix.eq_ignore_ascii_case(b"content-")).map(|_| &name[8..])?;
    if rest.eq_ignore_ascii_case(b"type") {
        Some(ContentField::Type)
    } else if rest.eq_ignore_ascii_case(b"disposition") {
        Some(ContentField::Disposition)
    } else if rest.eq_ignore_ascii_case(b"transfer-encoding") {
        Some(ContentField::TransferEncoding)
    } else {
        None
    }
}

/// The message's subject for people: decoded, one line, cut to a length fit for a trace. Absent where there
/// is none.
pub fn subject(message: &[u8]) -> Option<String> {
    let mut at = 0;
    while at < message.len() {
        let (end, next) = line_at(message, at, LineEnd::Lf);
        let line = &message[at..end];
        if line.is_empty() {
            return None;
        }
        if line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"subject:")) {
            return Some(subject_from(message, at + 8));
        }
        at = next;
    }
    None
}

fn subject_from(message: &[u8], start: usize) -> String {
    let (mut end, mut next) = line_at(message, start, LineEnd::Lf);
    while end - start < MAX_SUBJECT_OCTETS && matches!(message.get(next), Some(b' ' | b'\t')) {
        (end, next) = line_at(message, next, LineEnd::Lf);
    }
    let value = &message[start..end.min(start + MAX_SUBJECT_OCTETS)];
    let text = words::decode(&words::unlabelled(value));
    let mut subject = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !subject.is_empty() {
            subject.push(' ');
        }
        subject.push_str(word);
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entity: &str, expect: &[(&[&str], &str)]) {
        let seen: Vec<(Vec<&str>, &str)> = readings(entity.as_bytes())
            .iter()
            .map(|header| {
                let values = header.fields.iter().map(|f| std::str::from_utf8(f.value).unwrap().trim());
                (values.collect(), &entity[header.body..])
            })
            .collect();
        let expect: Vec<(Vec<&str>, &str)> = expect.iter().map(|(f, b)| (f.to_vec(), *b)).collect();
        assert_eq!(seen, expect, "{entity:?}");
    }

    #[test]
    fn one_reading_of_a_header_in_order() {
        check("Content-Type: a\r\nX: y\r\n\r\nbody", &[(&["a"], "body")]);
        check("From x\nContent-type : a;\n b\n\nbody", &[(&["a;\n b"], "body")]);
        check("just text\r\n\r\nmore", &[(&[], "just text\r\n\r\nmore")]);
        check("\r\nbody", &[(&[], "body")]);
        check("X: y", &[(&[], "")]);
        check("", &[(&[], "")]);
    }

    #[test]
    fn two_where_its_end_is_in_doubt() {
        check(
            "Content-Type: a\r\njunk\r\nContent-Type: b\r\n\r\nbody",
            &[(&["a", "b"], "body"), (&["a"], "junk\r\nContent-Type: b\r\n\r\nbody")],
        );
        check("Content-Type: a\r\n \r\nX: y\r\n\r\nb", &[(&["a"], "b"), (&["a"], "X: y\r\n\r\nb")]);
        check("X: y\rContent-Type: a\r\rbody\n\nrest", &[(&[], "rest"), (&["a"], "body\n\nrest")]);
    }

    #[test]
    fn two_where_a_field_is_written_oddly() {
        for odd in [
            "Content-Type a",
            "\u{feff}Content-Type: a",
            "\0Content-Type: a",
            " content-type: a",
            "Content-Type\u{b}: a",
            "Content-Type a:",
        ] {
            let entity = format!("{odd}\r\nX: y\r\n\r\nbody");
            let readings = readings(entity.as_bytes());
            let found =
                readings.iter().find(|header| header.fields.len() == 1).unwrap_or_else(|| panic!("{odd:?}"));
            assert!(found.fields[0].value.trim_ascii().starts_with(b"a") && entity[found.body..] == *"body");
            assert!(readings.iter().any(|header| header.fields.is_empty()), "{odd:?}");
        }
    }

    #[test]
    fn headers_that_go_on_behind_their_part() {
        let check = |part: &str, expect: bool| {
            let octets = format!("{part}\r\n--b\r\n\r\nrest");
            assert_eq!(is_open(octets.as_bytes(), part.len()), expect, "{part:?}");
        };
        check("Content-Type: a", true);
        check("Content-Type: a\r\nX: y", true);
        check("Content-Type: message/rfc822\r\n\r\nContent-Type: a", true);
        check("Content-Type: a\r\n", false);
        check("Content-Type: a\r\n\r\ntext", false);
        check("X: y", false);
        check("", false);
    }

    #[test]
    fn subjects_are_one_decoded_line() {
        let check = |message: &str, expect: Option<&str>| {
            assert_eq!(subject(message.as_bytes()).as_deref(), expect, "{message:?}");
        };
        check(
            "To: a\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n =?utf-8?b?IGRlcyA=?=\r\n\tarts\r\n\r\n",
            Some("café des arts"),
        );
        check("To: a\r\n\r\nSubject: no", None);
        check("subject:", Some(""));
    }
}
