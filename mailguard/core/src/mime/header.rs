//! Header of a message or part: where it ends, and the three fields that say how the body is read (RFC 5322 §2.2,
//! RFC 2045 §3). Knows the readings of a header whose end is in doubt.

use std::ops::Range;

use memchr::{memchr, memchr2};

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

/// Every way to read the header of `entity`: one where it is well-formed, never none, at most four.
pub(super) fn readings(entity: &[u8]) -> Vec<Header<'_>> {
    let (mut readings, extent) = parse(entity, LineEnd::Lf);
    if has_bare_cr(&entity[..extent]) {
        for header in parse(entity, LineEnd::Any).0 {
            let known = readings
                .iter()
                .any(|other| other.body == header.body && other.fields.len() == header.fields.len());
            if !known {
                readings.push(header);
            }
        }
    }
    readings
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

/// One reading or two, and how far was read.
fn parse(entity: &[u8], ends: LineEnd) -> (Vec<Header<'_>>, usize) {
    let mut collector = Collector { entity, fields: Vec::new(), current: None, overflow: false };
    let mut early: Option<Header<'_>> = None;
    let (mut at, mut in_field) = (0, false);
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
        } else if let Some((name, value)) = split_field(line) {
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
    (readings, body)
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

/// The message's subject for people: decoded, one line, cut to a length fit for a trace. Absent where there is none.
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
