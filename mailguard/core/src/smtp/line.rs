//! Splits what a client sends into command lines, in bounded memory (RFC 5321 §2.3.8, §4.5.3.1.4).
//!
//! Only CRLF ends a line. A CR or LF by itself stays in the line, where `command` refuses it: no other
//! server's idea of a line end can make two commands of one here. Message data has its own framing, `data`.

use memchr::memmem;

/// Longest command line in octets, CRLF included (RFC 5321 §4.5.3.1.4).
pub const COMMAND_LINE_OCTETS: usize = 512;

/// What parameters may add to the line of a MAIL command, in octets: SIZE (RFC 1870 §3), BODY (RFC 6152 §2),
/// SMTPUTF8 (RFC 6531 §3.1), AUTH (RFC 4954 §3), RET and ENVID (RFC 3461 §4.3, §4.4).
pub const MAIL_PARAMETER_OCTETS: usize = 26 + 17 + 10 + 500 + 9 + 107;

/// What parameters may add to the line of a RCPT command, in octets: NOTIFY and ORCPT (RFC 3461 §4.1, §4.2).
pub const RCPT_PARAMETER_OCTETS: usize = 29 + 507;

/// Longest line that is kept, in octets, CRLF included: two names and a password of 255 octets each (RFC 4616
/// §2) in base64 stay below it.
pub const MAX_LINE_OCTETS: usize = 2048;

/// One line of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// The line without its CRLF.
    Complete(&'a [u8]),
    /// A line longer than [`MAX_LINE_OCTETS`]; its end was found, its text is gone.
    TooLong {
        /// It began with BDAT: content of unknown length follows.
        chunk: bool,
    },
}

/// Finds line ends in an input that arrives in pieces.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The line's beginning was thrown away, whether it was BDAT or not; wait for its end.
    overlong: Option<bool>,
}

impl Splitter {
    /// Takes the next line from `input`. The first value is the number of octets that are done with: the
    /// caller gives the others again, with what arrived after them. At most [`MAX_LINE_OCTETS`] are left
    /// undone when there is no whole line.
    pub fn next_line<'a>(&mut self, input: &'a [u8]) -> (usize, Option<Line<'a>>) {
        match memmem::find(input, b"\r\n") {
            Some(end) => {
                let fits = end + 2 <= MAX_LINE_OCTETS;
                let line = match self.overlong.take() {
                    None if fits => Line::Complete(&input[..end]),
                    overlong => Line::TooLong { chunk: overlong.unwrap_or_else(|| is_chunk(input)) },
                };
                (end + 2, Some(line))
            }
            None if self.overlong.is_some() || input.len() > MAX_LINE_OCTETS => {
                self.overlong.get_or_insert_with(|| is_chunk(input));
                // The CR of a line end may be the last octet that came.
                let kept = usize::from(input.last() == Some(&b'\r'));
                (input.len() - kept, None)
            }
            None => (0, None),
        }
    }
}

fn is_chunk(line: &[u8]) -> bool {
    line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces; returns the lines ("!" for one too long) and the most octets that were ever kept.
    fn split(pieces: &[&[u8]]) -> (Vec<String>, usize) {
        let (mut splitter, mut kept, mut most, mut lines) = (Splitter::default(), Vec::new(), 0, Vec::new());
        for piece in pieces {
            kept.extend_from_slice(piece);
            loop {
                let (done, line) = splitter.next_line(&kept);
                let found = line.map(|line| match line {
                    Line::Complete(text) => String::from_utf8_lossy(text).into_owned(),
                    Line::TooLong { chunk } => if chunk { "! chunk" } else { "!" }.to_owned(),
                });
                kept.drain(..done);
                match found {
                    Some(text) => lines.push(text),
                    None => break,
                }
            }
            most = most.max(kept.len());
        }
        (lines, most)
    }

    fn check(input: &[u8], expect: &[&str]) {
        assert_eq!(split(&[input]).0, expect);
        let octets: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(split(&octets).0, expect, "octet by octet");
    }

    #[test]
    fn only_crlf_ends_a_line() {
        check(b"NOOP\r\nRSET\r\n", &["NOOP", "RSET"]);
        check(b"\r\n\r\n", &["", ""]);
        check(b"a\nb\rc\r\n", &["a\nb\rc"]);
        check(b"a\r\r\nb", &["a\r"]);
        check(b"a\n", &[]);
    }

    #[test]
    fn an_overlong_line_is_one_error_and_kept_nowhere() {
        let longest = [vec![b'a'; MAX_LINE_OCTETS - 2], b"\r\n".to_vec()].concat();
        check(&longest, &[std::str::from_utf8(&longest[..MAX_LINE_OCTETS - 2]).unwrap()]);
        check(&[b"a".as_slice(), &longest, b"NOOP\r\n"].concat(), &["!", "NOOP"]);
        check(&[b"bdat 7 ".as_slice(), &longest, b"NOOP\r\n"].concat(), &["! chunk", "NOOP"]);
        check(&[&longest[..1], b"BDAT".as_slice(), &longest].concat(), &["!"]);
        let flood = vec![b'a'; 10_000];
        let (lines, most) = split(&[&flood, &flood, b"\r", b"\nNOOP\r\n"]);
        assert_eq!(lines, ["!", "NOOP"]);
        assert!(most <= MAX_LINE_OCTETS);
    }
}
