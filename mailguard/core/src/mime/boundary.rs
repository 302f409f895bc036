//! Boundaries and delimiter lines of a multipart (RFC 2046 §5.1.1): the exact ones, and those that only
//! lenient readers take.

use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

use super::words;

/// Longest boundary that RFC 2046 allows; there are readers that cut longer ones.
const MAX_BOUNDARY_OCTETS: usize = 70;

/// Every boundary that readers make of one value of the parameter, the standard one first: folds removed,
/// with the white space after them or made one space; white space and single quotes around it kept or not;
/// cut at a control character, or without any; encoded words decoded; cut to the longest.
pub(super) fn spellings(value: &[u8]) -> Vec<Vec<u8>> {
    let mut spellings = vec![value.trim_ascii_end().to_vec()];
    for other in [unfolded, decoded, without_controls, unwrapped, cut] {
        for index in 0..spellings.len() {
            for spelling in other(&spellings[index]) {
                if !spellings.contains(&spelling) {
                    spellings.push(spelling);
                }
            }
        }
    }
    spellings
}

fn unfolded(value: &[u8]) -> Vec<Vec<u8>> {
    if memchr2(b'\r', b'\n', value).is_none() {
        return Vec::new();
    }
    let lines = || value.split(|octet| matches!(octet, b'\r' | b'\n')).filter(|line| !line.is_empty());
    let trimmed: Vec<&[u8]> = lines().map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
    vec![lines().collect::<Vec<_>>().concat(), trimmed.join(&b' '), trimmed.concat()]
}

fn decoded(value: &[u8]) -> Vec<Vec<u8>> {
    if memmem::find(value, b"=?").is_none() {
        return Vec::new();
    }
    words::readings(&words::unlabelled(value)).into_iter().map(String::into_bytes).collect()
}

fn without_controls(value: &[u8]) -> Vec<Vec<u8>> {
    let is_control = |octet: &u8| octet.is_ascii_control() && !matches!(octet, b'\t' | b'\r' | b'\n');
    match value.iter().position(is_control) {
        Some(first) => {
            vec![value[..first].to_vec(), value.iter().copied().filter(|octet| !is_control(octet)).collect()]
        }
        None => Vec::new(),
    }
}

fn unwrapped(value: &[u8]) -> Vec<Vec<u8>> {
    let trimmed = value.trim_ascii();
    let inner = trimmed.strip_prefix(b"'").unwrap_or(trimmed);
    vec![trimmed.to_vec(), inner.strip_suffix(b"'").unwrap_or(inner).to_vec()]
}

fn cut(value: &[u8]) -> Vec<Vec<u8>> {
    value.get(..MAX_BOUNDARY_OCTETS).map(|cut| cut.trim_ascii_end().to_vec()).into_iter().collect()
}

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

/// The boundaries that a body would have for a reader that takes one from there: of the first line that
/// begins with `--`, and of the last one that looks like a closing delimiter.
pub(super) fn guesses(body: &[u8]) -> Vec<&[u8]> {
    let is_start = |hit: &usize| *hit == 0 || matches!(body[hit - 1], b'\n' | b'\r');
    let first = memmem::find_iter(body, b"--").find(is_start);
    let last = memmem::rfind(body, b"\n--").map(|end| end + 1);
    let mut guesses = Vec::new();
    for start in [first, last].into_iter().flatten() {
        let rest = &body[start + 2..];
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = rest[..end].trim_ascii_end();
        let boundary = line.strip_suffix(b"--").unwrap_or(line);
        if !guesses.contains(&boundary) {
            guesses.push(boundary);
        }
    }
    guesses
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
    fn boundaries_from_the_body() {
        let check = |body: &str, expect: &[&str]| {
            let seen: Vec<_> = guesses(body.as_bytes()).into_iter().map(String::from_utf8_lossy).collect();
            assert_eq!(seen, expect, "{body:?}");
        };
        check("--x y\r\n", &["x y"]);
        check("text\r\n--abc--\r\n", &["abc"]);
        check("text\r--abc\r", &["abc"]);
        check("-- \r\ntext\r\n--abc--\r\n", &["", "abc"]);
        check("text -- x", &[]);
        check("--\r\nx\r\n----\r\n", &[""]);
    }

    #[test]
    fn boundaries_of_one_value() {
        let check = |value: &str, expect: &[&str]| {
            let seen = spellings(value.as_bytes());
            let seen: Vec<_> = seen.iter().map(|spelling| String::from_utf8_lossy(spelling)).collect();
            assert_eq!(seen, expect, "{value:?}");
        };
        check("b c ", &["b c"]);
        check("", &[""]);
        check(" b", &[" b", "b"]);
        check("'b'", &["'b'", "b"]);
        check("b\r\n \tc", &["b\r\n \tc", "b \tc", "b c", "bc"]);
        check("b\0c", &["b\0c", "b", "bc"]);
        check("=?utf-8?q?b=63?=", &["=?utf-8?q?b=63?=", "bc"]);
        let long = "b".repeat(80);
        check(&long, &[&long, &long[..70]]);
    }
}
