//! Files uuencoded inside text, as mail carried them before MIME and as some readers still show them.

use memchr::{memchr, memmem};

use super::encoding::base64;

/// A file found in a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Uuencoded<'a> {
    /// The name in the first line, as it stands.
    pub(super) name: &'a [u8],
    /// Decoded.
    pub(super) content: Vec<u8>,
}

/// Finds `begin MODE NAME` (or `begin-base64`) at the start of a line from `at` on, decodes what follows, and
/// gives the file and where to look on.
pub(super) fn next(text: &[u8], mut at: usize) -> Option<(Uuencoded<'_>, usize)> {
    while let Some(found) = memmem::find(text.get(at..)?, b"begin") {
        let hit = at + found;
        at = hit + 5;
        if hit > 0 && !matches!(text[hit - 1], b'\n' | b'\r') {
            continue;
        }
        let (line, body) = line_at(text, at);
        let (is_base64, rest) = match line.strip_prefix(b"-base64") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let Some(name) = name_in(rest) else { continue };
        let (content, end) = if is_base64 { base64_body(text, body) } else { uu_body(text, body) };
        if content.is_empty() {
            continue;
        }
        return Some((Uuencoded { name, content }, end));
    }
    None
}

/// A line without its end, and where the next one begins.
fn line_at(text: &[u8], start: usize) -> (&[u8], usize) {
    let rest = &text[start..];
    let end = memchr(b'\n', rest);
    let line = &rest[..end.unwrap_or(rest.len())];
    (line.strip_suffix(b"\r").unwrap_or(line), end.map_or(text.len(), |end| start + end + 1))
}

/// ` 644 name`
fn name_in(rest: &[u8]) -> Option<&[u8]> {
    let rest = rest.strip_prefix(b" ")?.trim_ascii();
    let space = rest.iter().position(u8::is_ascii_whitespace)?;
    let (mode, name) = rest.split_at(space);
    let is_mode = (3..=6).contains(&mode.len()) && mode.iter().all(|digit| matches!(digit, b'0'..=b'7'));
    is_mode.then(|| name.trim_ascii())
}

/// Lines up to `end` or to one that can't be uuencoded.
fn uu_body(text: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let mut content = Vec::new();
    while at < text.len() {
        let (line, next) = line_at(text, at);
        let Some(&first) = line.first() else { break };
        if line.trim_ascii_end() == b"end" || !(b' '..=b'`').contains(&first) {
            break;
        }
        let length = usize::from((first - b' ') & 63);
        let start = content.len();
        for four in line[1..].chunks(4).take(length.div_ceil(3)) {
            // Trailing spaces get lost on the way: a missing digit is a space, that is zero.
            let bits = (0..4).fold(0_u32, |bits, i| {
                let digit = four.get(i).map_or(0, |octet| octet.wrapping_sub(b' ') & 63);
                bits << 6 | u32::from(digit)
            });
            content.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
        content.truncate(start + length);
        at = next;
    }
    (content, at)
}

/// Base64 up to a line of '='.
fn base64_body(text: &[u8], start: usize) -> (Vec<u8>, usize) {
    let end = memmem::find(&text[start..], b"\n====").map_or(text.len(), |found| start + found);
    (base64(&text[start..end]).content, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[(&str, &str)]) {
        let (mut at, mut seen) = (0, Vec::new());
        while let Some((file, next)) = next(text.as_bytes(), at) {
            seen.push((
                String::from_utf8_lossy(file.name).into_owned(),
                String::from_utf8_lossy(&file.content).into_owned(),
            ));
            at = next;
        }
        let expect: Vec<_> = expect.iter().map(|(n, c)| ((*n).to_owned(), (*c).to_owned())).collect();
        assert_eq!(seen, expect, "{text:?}");
    }

    #[test]
    fn files_in_text() {
        check("hello\r\nbegin 644 a b.exe\r\n#86)C\r\n`\r\nend\r\nbye", &[("a b.exe", "abc")]);
        check("begin 644 a\n#86)C\nend\nbegin 755 b\n#86)C\n", &[("a", "abc"), ("b", "abc")]);
        check("begin-base64 644 a.exe\nYWJj\n====\n", &[("a.exe", "abc")]);
        check("we begin 644 now\nbegin with this\nbegin 644 x\n\n", &[]);
    }
}
