//! Content on its way into DATA: dot-stuffed and ended (RFC 5321 §4.5.2), every line end CRLF (§2.3.8).
//!
//! The spool holds CRLF lines only, and no NUL. A bare CR or LF is made a line end here all the same, and NUL
//! is left out: a downstream that takes bare LF for a line end, or drops NUL as it reads, would otherwise
//! read a smuggled end of data. Whatever wrote the spool, an earlier version or a restore, nothing else
//! leaves.

/// Ends the content after its last CRLF.
pub const END_OF_DATA: &[u8] = b".\r\n";

/// Whether `content` followed by [`END_OF_DATA`] is already what goes on the wire: CRLF lines, none of which
/// begins with a dot, the last one ended.
pub fn is_wire_ready(content: &[u8]) -> bool {
    let mut rest = content;
    while !rest.is_empty() {
        let Some(end) = memchr::memchr3(b'\r', b'\n', 0, rest) else { return false };
        if rest[0] == b'.' || !rest[end..].starts_with(b"\r\n") {
            return false;
        }
        rest = &rest[end + 2..];
    }
    true
}

/// Where the encoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    /// A line start after a CR, already written as CRLF: an LF that follows belongs to it.
    AfterCr,
    InLine,
}

/// Encodes content piece by piece.
#[derive(Debug)]
pub struct ContentEncoder {
    position: Position,
}

impl ContentEncoder {
    /// An encoder before the first octet.
    pub fn new() -> Self {
        Self { position: Position::LineStart }
    }

    /// Appends the wire form of `piece` to `out`: at most three times its length.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            if first == 0 {
                // As if it had never been there: CR and LF around it are one line end, a dot after it begins
                // the line.
                rest = &rest[1..];
                continue;
            }
            if self.position == Position::AfterCr && first == b'\n' {
                self.position = Position::LineStart;
                rest = &rest[1..];
                continue;
            }
            if self.position != Position::InLine && first == b'.' {
                out.push(b'.');
            }
            let end = memchr::memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..end]);
            if rest.get(end).is_none_or(|&octet| octet == 0) {
                self.position = Position::InLine;
                rest = &rest[end..];
                continue;
            }
            out.extend_from_slice(b"\r\n");
            self.position = if rest[end] == b'\r' { Position::AfterCr } else { Position::LineStart };
            rest = &rest[end + 1..];
        }
    }

    /// Appends the end: a CRLF if the last line lacks it, the dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.position == Position::InLine {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(END_OF_DATA);
    }
}

impl Default for ContentEncoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(content: &[u8], size: usize) -> Vec<u8> {
        let (mut encoder, mut out) = (ContentEncoder::new(), Vec::new());
        content.chunks(size).for_each(|piece| encoder.encode(piece, &mut out));
        encoder.finish(&mut out);
        out
    }

    fn check(content: &str, wire: &str) {
        assert_eq!(String::from_utf8(encode(content.as_bytes(), 4096)).unwrap(), wire, "{content:?}");
        assert_eq!(is_wire_ready(content.as_bytes()), wire == format!("{content}.\r\n"), "{content:?}");
    }

    #[test]
    fn dot_stuffing_and_line_ends() {
        check("", ".\r\n");
        check("a\r\n", "a\r\n.\r\n");
        check("a", "a\r\n.\r\n");
        check(".\r\n", "..\r\n.\r\n");
        check("a\r\n.b\r\n..\r\n", "a\r\n..b\r\n...\r\n.\r\n");
        check("a.b\r\n", "a.b\r\n.\r\n");
        check("a\n.\nb\n", "a\r\n..\r\nb\r\n.\r\n");
        check("a\r.\rb", "a\r\n..\r\nb\r\n.\r\n");
        check("a\r\r\n.", "a\r\n\r\n..\r\n.\r\n");
        check("a\r\n\n.\r\n", "a\r\n\r\n..\r\n.\r\n");
        check("\r\n\r\n", "\r\n\r\n.\r\n");
    }

    #[test]
    fn nul_never_leaves_and_smuggles_no_dot() {
        check("\0", ".\r\n");
        check("a\0b\r\n", "ab\r\n.\r\n");
        check("a\r\n\0.\r\n", "a\r\n..\r\n.\r\n");
        check("\0.\0\r\n", "..\r\n.\r\n");
        check("a\r\0\n.\0\r\0\nb", "a\r\n..\r\nb\r\n.\r\n");
        check("a\n\0\n\0.", "a\r\n\r\n..\r\n.\r\n");
    }

    /// A server's reading of DATA, as RFC 5321 §4.5.2 says it; nothing if the end doesn't end the stream.
    fn decode(wire: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let mut rest = wire;
        while rest != END_OF_DATA {
            let end = rest.windows(2).position(|pair| pair == b"\r\n")? + 2;
            let (line, after) = rest.split_at(end);
            if line == END_OF_DATA {
                return None;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            rest = after;
        }
        Some(content)
    }

    /// Line ends made CRLF, the slow and plain way.
    fn normalised(content: &str) -> String {
        let mut text =
            content.replace('\0', "").replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
        if !text.is_empty() && !text.ends_with("\r\n") {
            text.push_str("\r\n");
        }
        text
    }

    proptest! {
        #[test]
        fn decoding_gives_the_content_back(content in "[a.\r\n\0]{0,40}", size in 1usize..8) {
            let wire = encode(content.as_bytes(), size);
            prop_assert_eq!(decode(&wire), Some(normalised(&content).into_bytes()));
            prop_assert_eq!(is_wire_ready(content.as_bytes()), wire == [content.as_bytes(), END_OF_DATA].concat());
        }
    }
}
