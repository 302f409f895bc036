//! Content on its way into DATA: dot-stuffed and ended (RFC 5321 §4.5.2), every line end CRLF (§2.3.8).
//!
//! The spool holds CRLF lines only. A bare CR or LF is made a line end here all the same: a downstream that
//! takes bare LF for a line end would otherwise read a smuggled end of data.

/// Ends the content after its last CRLF.
pub const END_OF_DATA: &[u8] = b".\r\n";

/// Whether `content` followed by [`END_OF_DATA`] is already what goes on the wire: CRLF lines, none of which
/// begins with a dot, the last one ended.
pub fn is_wire_ready(content: &[u8]) -> bool {
    let mut rest = content;
    while !rest.is_empty() {
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else { return false };
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
            if self.position == Position::AfterCr && first == b'\n' {
                self.position = Position::LineStart;
                rest = &rest[1..];
                continue;
            }
            if self.position != Position::InLine && first == b'.' {
                out.push(b'.');
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                out.extend_from_slice(rest);
                self.position = Position::InLine;
                return;
            };
            out.extend_from_slice(&rest[..end]);
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
    fn dots_and_line_ends() {
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
        let mut text = content.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
        if !text.is_empty() && !text.ends_with("\r\n") {
            text.push_str("\r\n");
        }
        text
    }

    proptest! {
        #[test]
        fn decoding_gives_the_content_back(content in "[a.\r\n]{0,40}", size in 1usize..8) {
            let wire = encode(content.as_bytes(), size);
            prop_assert_eq!(decode(&wire), Some(normalised(&content).into_bytes()));
            prop_assert_eq!(is_wire_ready(content.as_bytes()), wire == [content.as_bytes(), END_OF_DATA].concat());
        }
    }
}
