//! Replies of a server, out of a stream of octets (RFC 5321 §4.2, RFC 2034 §4).
//!
//! The server isn't trusted: every line, the number of lines and their sum are bounded, and a reply whose
//! lines don't belong together is an error, never a guess. What a reply means is left to the session.

use crate::smtp::{EnhancedStatus, Reply, ReplyCode, Severity};

/// Longest line taken, in octets with its end. RFC 5321 allows 512; servers that explain themselves exceed
/// it.
pub const MAX_LINE_OCTETS: usize = 2048;

/// Most lines of one reply.
pub const MAX_REPLY_LINES: usize = 128;

/// Most octets of one reply, all lines together.
pub const MAX_REPLY_OCTETS: usize = 16 * 1024;

/// Why octets are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not three digits, the first 2 to 5, then a space, a hyphen or the end of the line.
    #[error("a line that is no reply")]
    Syntax,
    /// A continued reply with another code.
    #[error("a reply that changes its code from {0} to {1}")]
    CodeChanged(ReplyCode, ReplyCode),
    /// More than [`MAX_LINE_OCTETS`].
    #[error("a reply line of more than {MAX_LINE_OCTETS} octets")]
    LineTooLong,
    /// More than [`MAX_REPLY_LINES`] or [`MAX_REPLY_OCTETS`].
    #[error("a reply of more than {MAX_REPLY_LINES} lines or {MAX_REPLY_OCTETS} octets")]
    ReplyTooLong,
}

/// Collects octets until they make a reply.
#[derive(Debug, Default)]
pub(super) struct ReplyParser {
    buffer: Vec<u8>,
    consumed: usize,
    /// The lines of a reply whose last line isn't here yet, and their octets.
    begun: Option<(Reply, usize)>,
}

impl ReplyParser {
    /// Takes what the server sent. Call [`ReplyParser::next_reply`] until it has no more.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// Whether nothing waits: neither a reply nor a part of one.
    pub(super) fn is_empty(&self) -> bool {
        self.consumed == self.buffer.len() && self.begun.is_none()
    }

    /// The next whole reply, or nothing until more octets are here. After an error the stream is worthless.
    pub(super) fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let rest = &self.buffer[self.consumed..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                return if rest.len() >= MAX_LINE_OCTETS { Err(ReplyError::LineTooLong) } else { Ok(None) };
            };
            if end >= MAX_LINE_OCTETS {
                return Err(ReplyError::LineTooLong);
            }
            let line = Line::parse(&rest[..end])?;
            self.consumed += end + 1;
            if let Some(reply) = self.add(line, end + 1)? {
                return Ok(Some(reply));
            }
        }
    }

    fn add(&mut self, line: Line, octets: usize) -> Result<Option<Reply>, ReplyError> {
        let (mut reply, total) = match self.begun.take() {
            None => (Reply { code: line.code, status: line.status, lines: Vec::with_capacity(1) }, octets),
            Some((reply, before)) if reply.code == line.code => (reply, before + octets),
            Some((reply, _)) => return Err(ReplyError::CodeChanged(reply.code, line.code)),
        };
        if reply.lines.len() >= MAX_REPLY_LINES || total > MAX_REPLY_OCTETS {
            return Err(ReplyError::ReplyTooLong);
        }
        // A status that isn't the first line's stays in the text: nothing the server said is lost.
        let text = match line.status {
            Some(status) if reply.status != Some(status) => format!("{status} {}", line.text),
            _ => line.text,
        };
        reply.lines.push(text);
        if line.last {
            return Ok(Some(reply));
        }
        self.begun = Some((reply, total));
        Ok(None)
    }
}

struct Line {
    code: ReplyCode,
    status: Option<EnhancedStatus>,
    text: String,
    last: bool,
}

impl Line {
    /// Parses a line without its LF; a CR before that is expected, not insisted on.
    fn parse(line: &[u8]) -> Result<Self, ReplyError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (digits, rest) = line.split_at_checked(3).ok_or(ReplyError::Syntax)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(ReplyError::Syntax);
        }
        let number = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        let code = ReplyCode::new(number).ok_or(ReplyError::Syntax)?;
        let (last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(ReplyError::Syntax),
        };
        let text = String::from_utf8_lossy(text);
        let (first, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let (status, text) = match first.parse::<EnhancedStatus>() {
            Ok(status) if belongs(status, code) => (Some(status), rest),
            _ => (None, &*text),
        };
        Ok(Self { code, status, text: printable(text), last })
    }
}

/// A status code of another class than the reply's is text (RFC 2034 §4).
fn belongs(status: EnhancedStatus, code: ReplyCode) -> bool {
    match code.severity() {
        Severity::Intermediate => false,
        severity => status.is_of(severity),
    }
}

/// The text goes into logs, traces and reports: no control character does.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `input` in pieces of `size`; the replies as one-line texts, then the error if there was one.
    fn parse(input: &[u8], size: usize) -> Vec<String> {
        let mut parser = ReplyParser::default();
        let mut seen = Vec::new();
        for piece in input.chunks(size) {
            parser.push(piece);
            loop {
                match parser.next_reply() {
                    Ok(Some(reply)) => seen.push(reply.to_string()),
                    Ok(None) => break,
                    Err(error) => {
                        seen.push(format!("! {error}"));
                        return seen;
                    }
                }
            }
        }
        if !parser.is_empty() {
            seen.push("...".to_owned());
        }
        seen
    }

    fn check(input: &str, expect: &[&str]) {
        assert_eq!(parse(input.as_bytes(), usize::MAX), expect, "{input:?}");
        assert_eq!(parse(input.as_bytes(), 1), expect, "{input:?} octet by octet");
    }

    #[test]
    fn replies() {
        check("220 mx.example ESMTP\r\n", &["220 mx.example ESMTP"]);
        check("250\r\n", &["250 "]);
        check("250 \n", &["250 "]);
        check("250-a\r\n250-B 1\r\n250 C\r\n354 go\r\n", &["250 a / B 1 / C", "354 go"]);
        check("550 5.1.1 no such user\r\n", &["550 5.1.1 no such user"]);
        check("550-5.1.1 no\r\n550 5.1.1 user\r\n", &["550 5.1.1 no / user"]);
        check("550-5.1.1 no\r\n550 5.7.1 user\r\n", &["550 5.1.1 no / 5.7.1 user"]);
        check("550-no\r\n550 5.7.1 user\r\n", &["550 no / 5.7.1 user"]);
        check("250 2.0.0\r\n", &["250 2.0.0 "]);
        check("250-half", &["..."]);
        check("250-half\r\n", &["..."]);
    }

    #[test]
    fn a_status_of_another_class_is_text() {
        check("550 4.2.1 full\r\n", &["550 4.2.1 full"]);
        let mut parser = ReplyParser::default();
        parser.push(b"550 4.2.1 full\r\n");
        let reply = parser.next_reply().unwrap().unwrap();
        assert_eq!((reply.status, reply.lines), (None, vec!["4.2.1 full".to_owned()]));
    }

    #[test]
    fn foreign_octets() {
        let no_reply = "! a line that is no reply";
        for input in
            ["\r\n", "25\r\n", "SSH-2.0-OpenSSH\r\n", "199 a\r\n", "600 a\r\n", "250_a\r\n", "2500 a\r\n"]
        {
            check(input, &[no_reply]);
        }
        check("250-a\r\n251 b\r\n", &["! a reply that changes its code from 250 to 251"]);
        check("250 a\0b\x1b[2J\rc\r\n", &["250 a?b?[2J?c"]);
        assert_eq!(parse(b"250 \xff\r\n", 3), ["250 \u{fffd}"]);
    }

    #[test]
    fn bounds() {
        let long = |octets: usize| format!("250 {}\r\n", "x".repeat(octets - 6));
        assert_eq!(parse(long(MAX_LINE_OCTETS).as_bytes(), 100).len(), 1);
        let too_long = format!("! {}", ReplyError::LineTooLong);
        check(&long(MAX_LINE_OCTETS + 1), &[&too_long]);
        check(&"x".repeat(MAX_LINE_OCTETS), &[&too_long]);
        let endless = format!("! {}", ReplyError::ReplyTooLong);
        check(&"250-a\r\n".repeat(MAX_REPLY_LINES + 1), &[&endless]);
        check(&format!("250-{}\r\n", "x".repeat(1500)).repeat(12), &[&endless]);
    }

    proptest! {
        #[test]
        fn chunks_change_nothing(input in "([2-5][0-9][0-9][ -][ -~]{0,20}\r?\n){0,6}[ -~\r\n]{0,20}", size in 1usize..40) {
            prop_assert_eq!(parse(input.as_bytes(), size), parse(input.as_bytes(), usize::MAX));
        }
    }
}
