//! Delimiter lines of a multipart (RFC 2046 §5.1.1): the exact ones, and those that only lenient readers take.

use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

/// One delimiter line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delimiter {
    /// Where the part before ends: the line end before the delimiter belongs to the delimiter.
    pub(super) start: usize,
    /// Where the part after begins.
    pub(super) end: usize,
    /// `--boundary--`
    pub(super) closing: bool,
}

/// The delimiters found in a body.
#[derive(Debug, Default)]
pub(super) struct Delimiters {
    /// Lines that hold the delimiter and nothing else.
    pub(super) exact: Vec<Delimiter>,
    /// Those, and lines that only begin with it or follow a bare CR. Empty where it would be the same.
    pub(super) loose: Vec<Delimiter>,
    /// Whether there are more than asked for.
    pub(super) overflow: bool,
}

/// Finds the delimiters of `boundary` in `buffer[body]`, at most `limit` of each kind.
pub(super) fn delimiters(buffer: &[u8], body: Range<usize>, boundary: &[u8], limit: usize) -> Delimiters {
    let mut found = Delimiters::default();
    let mut differs = false;
    let needle = [b"--", boundary].concat();
    let area = &buffer[..body.end];
    for hit in memmem::find_iter(&area[body.start..], &needle).map(|hit| body.start + hit) {
        let before = (hit > body.start).then(|| area[hit - 1]);
        if !matches!(before, None | Some(b'\n' | b'\r')) {
            continue;
        }
        let after = hit + needle.len();
        let start = part_end(area, body.start, hit);
        let exact = if before == Some(b'\r') { None } else { exact_line(area, after) };
        let (end, closing) = exact.unwrap_or_else(|| loose_line(area, after));
        let delimiter = Delimiter { start, end, closing };
        if found.loose.len() == limit {
            found.overflow = true;
            break;
        }
        if exact.is_some() {
            found.exact.push(delimiter.clone());
        } else {
            differs = true;
        }
        found.loose.push(delimiter);
    }
    if !differs {
        found.loose.clear();
    }
    found
}

/// The line end before a delimiter, if any, isn't the part's.
fn part_end(area: &[u8], floor: usize, hit: usize) -> usize {
    match area[floor..hit] {
        [.., b'\r', b'\n'] => hit - 2,
        [.., b'\r' | b'\n'] => hit - 1,
        _ => hit,
    }
}

/// Where the next line begins, and whether the delimiter closes, if nothing but white space follows it.
fn exact_line(area: &[u8], after: usize) -> Option<(usize, bool)> {
    let rest = &area[after..];
    let line_end = memchr(b'\n', rest);
    let line = &rest[..line_end.unwrap_or(rest.len())];
    let next = line_end.map_or(area.len(), |end| after + end + 1);
    let blank = |text: &[u8]| {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        text.iter().all(|octet| matches!(octet, b' ' | b'\t'))
    };
    match line.strip_prefix(b"--") {
        _ if blank(line) => Some((next, false)),
        Some(rest) if blank(rest) => Some((next, true)),
        _ => None,
    }
}

/// The same for a reader that looks at the beginning of a line only.
fn loose_line(area: &[u8], after: usize) -> (usize, bool) {
    let rest = &area[after..];
    let closing = rest.starts_with(b"--");
    let next = match memchr2(b'\r', b'\n', rest) {
        Some(end) if rest[end..].starts_with(b"\r\n") => after + end + 2,
        Some(end) => after + end + 1,
        None => area.len(),
    };
    (next, closing)
}

/// The boundary that a body's first line beginning with `--` would make, for a multipart that names none.
pub(super) fn guess(body: &[u8]) -> Option<&[u8]> {
    let start = if body.starts_with(b"--") { 2 } else { memmem::find(body, b"\n--")? + 3 };
    let rest = &body[start..];
    let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
    let line = rest[..end].trim_ascii_end();
    let boundary = line.strip_suffix(b"--").unwrap_or(line);
    (!boundary.is_empty()).then_some(boundary)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts between the delimiters of "b", closing ones marked by '!'.
    fn parts(body: &str, list: &[Delimiter]) -> Vec<String> {
        let ends = list.iter().skip(1).map(|next| next.start).chain([body.len()]);
        list.iter()
            .zip(ends)
            .map(|(d, end)| format!("{}{}", if d.closing { "!" } else { "" }, &body[d.end..end.max(d.end)]))
            .collect()
    }

    #[track_caller]
    fn check(body: &str, exact: &[&str], loose: &[&str]) {
        let found = delimiters(body.as_bytes(), 0..body.len(), b"b", 100);
        assert_eq!(
            (parts(body, &found.exact), parts(body, &found.loose)),
            (
                exact.iter().map(|s| (*s).to_owned()).collect(),
                loose.iter().map(|s| (*s).to_owned()).collect()
            ),
            "{body:?}"
        );
    }

    #[test]
    fn delimiter_lines() {
        check("--b\r\none\r\n--b \r\ntwo\n--b--\r\nend", &["one", "two", "!end"], &[]);
        check("x --b\r\n", &[], &[]);
        check("--b\r\none\r\n--bc\r\ntwo", &["one\r\n--bc\r\ntwo"], &["one", "two"]);
        check("--b\r\none\r--b\rtwo", &["one\r--b\rtwo"], &["one", "two"]);
        check("--b\r\none\r\n--b--x\r\nrest", &["one\r\n--b--x\r\nrest"], &["one", "!rest"]);
        check("--b", &[""], &[]);
    }

    #[test]
    fn guesses() {
        for (body, expect) in [
            ("--x y\r\n", Some("x y")),
            ("text\r\n--abc--\r\n", Some("abc")),
            ("text -- x", None),
            ("--\r\n", None),
        ] {
            assert_eq!(guess(body.as_bytes()), expect.map(str::as_bytes), "{body:?}");
        }
    }
}
