//! Message data on the wire: where they end, and the dots (RFC 5321 §4.5.2, §2.3.8): dot-stuffing, bare line
//! ends, NUL.
//!
//! Data end with CRLF "." CRLF and with nothing else: two servers that disagree about that is what SMTP
//! smuggling needs. A CR or LF that isn't half of a CRLF never counts as a line end while the end is looked
//! for. The [`Decoder`] reports it, and hands out CRLF in its place: what leaves it never holds another line
//! end.
//!
//! Data in chunks (RFC 3030) have neither that end nor stuffed dots; their line ends are held to the same
//! rule.
//!
//! NUL is no content: there are servers that drop it as they read, and to one of those CR LF NUL "." CR LF is
//! the end of data. The end is looked for first, with every NUL where it stands; then each is left out. What
//! only its absence brings together is no end, and no line end, here; on its way out it is stuffed like
//! everything else.
//!
//! Octets above 127 are content like any other. The other direction, stuffing, is the client's (`client`).
//! Sizes, and whether a message with bare line ends or NUL is taken at all, is decided by `server`.

use memchr::memchr3;

const CRLF: &[u8] = b"\r\n";

/// A piece of decoded data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Content as it stands in the input, the last octets of those that are done with.
    Content(&'a [u8]),
    /// A line end, CRLF, that the sender wrote otherwise or that lay across two inputs.
    LineEnd,
    /// CRLF.CRLF was read. Octets after it are no data.
    End,
}

/// Where the decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// After a CRLF, or at the very beginning.
    LineStart,
    /// A "." at the start of a line was read; it isn't content.
    Dot,
    /// A CR after such a dot was read.
    DotCr,
    /// Within a line.
    Line,
    /// This many CR were read, and nothing of them handed out.
    Cr(u64),
    /// This many line ends are owed for bare CR.
    Owed(u64),
    /// CRLF.CRLF was read.
    Ended,
}

/// Takes data from the wire: finds the end, removes the stuffed dots, repairs line ends.
#[derive(Debug)]
pub struct Decoder {
    position: Position,
    bare_line_end: bool,
    /// NULs that were left out.
    nuls: u64,
    /// Whether a dot at the start of a line is no content.
    dots: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { position: Position::LineStart, bare_line_end: false, nuls: 0, dots: true }
    }
}

impl Decoder {
    /// For data that come in chunks: nothing in them is their end, [`Decoder::finish`] is told of it.
    pub fn of_chunks() -> Self {
        Self { dots: false, ..Self::default() }
    }

    /// The last chunk was decoded. To be called until it returns nothing: what comes out ends the last line,
    /// so that what came in chunks ends with a line end, too.
    pub fn finish(&mut self) -> Option<Piece<'static>> {
        let owed = match self.position {
            Position::Cr(count) | Position::Owed(count) => count,
            Position::Line => 0,
            _ => return None,
        };
        self.bare_line_end |= owed > 0;
        self.position = if owed > 1 { Position::Owed(owed - 1) } else { Position::LineStart };
        Some(Piece::LineEnd)
    }

    /// Whether a bare CR or LF was seen. Content handed out after the first one isn't what the client sent
    /// octet for octet: each bare LF, and each CR that no LF follows, became CRLF; of several CR before one
    /// LF one stayed.
    pub fn saw_bare_line_end(&self) -> bool {
        self.bare_line_end
    }

    /// How many NULs were seen, and left out.
    pub fn nuls(&self) -> u64 {
        self.nuls
    }

    /// Takes what it can from the front of `input`. The first value is the number of octets that are done
    /// with: the caller gives the others again. No piece means that all were used and more are needed.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> (usize, Option<Piece<'a>>) {
        let mut done = 0;
        loop {
            let rest = &input[done..];
            // The two positions that don't wait for an octet.
            match self.position {
                Position::Ended => return (done, Some(Piece::End)),
                Position::Owed(count) => {
                    self.position =
                        if count > 1 { Position::Owed(count - 1) } else { self.after_bare_line_end() };
                    return (done, Some(Piece::LineEnd));
                }
                _ => {}
            }
            let Some(&octet) = rest.first() else { return (done, None) };
            match (self.position, octet) {
                (Position::LineStart, b'.') if self.dots => {
                    self.position = Position::Dot;
                    done += 1;
                }
                (Position::Dot, b'\r') => {
                    self.position = Position::DotCr;
                    done += 1;
                }
                (Position::DotCr, b'\n') => {
                    self.position = Position::Ended;
                    done += 1;
                }
                (Position::DotCr, _) => self.position = Position::Cr(1),
                (Position::Cr(count), b'\n') => {
                    self.bare_line_end |= count > 1;
                    self.position = Position::LineStart;
                    return (done + 1, Some(Piece::LineEnd));
                }
                (Position::Cr(count), b'\r') => {
                    self.position = Position::Cr(count.saturating_add(1));
                    done += 1;
                }
                (Position::Cr(count), _) => {
                    self.bare_line_end = true;
                    self.position = Position::Owed(count);
                }
                (_, 0) => {
                    self.nuls = self.nuls.saturating_add(1);
                    self.position = Position::Line;
                    done += 1;
                }
                (_, b'\n') => {
                    self.bare_line_end = true;
                    self.position = self.after_bare_line_end();
                    return (done + 1, Some(Piece::LineEnd));
                }
                _ => match self.plain(rest) {
                    0 => done += 1, // a lone CR, noted
                    length => return (done + length, Some(Piece::Content(&rest[..length]))),
                },
            }
        }
    }

    /// A line end that isn't CRLF begins no line as far as a dot is concerned.
    fn after_bare_line_end(&self) -> Position {
        if self.dots { Position::Line } else { Position::LineStart }
    }

    /// The length of the longest front of `rest`, which starts within a line, that is content as it stands:
    /// up to a dot at the start of a line, a NUL, or a line end that is no CRLF. Zero means: a CR whose fate
    /// the next octet decides; it counts as read.
    fn plain(&mut self, rest: &[u8]) -> usize {
        let mut length = 0;
        self.position = Position::Line;
        while let Some(offset) = memchr3(b'\r', b'\n', 0, &rest[length..]) {
            let end = length + offset;
            if matches!(rest[end], b'\n' | 0) {
                return end;
            }
            if rest.get(end + 1) != Some(&b'\n') {
                if end == 0 {
                    self.position = Position::Cr(1);
                }
                return end;
            }
            length = end + CRLF.len();
            let begins_with_dot = self.dots && rest.get(length) == Some(&b'.');
            if length == rest.len() || begins_with_dot {
                self.position = Position::LineStart;
                return length;
            }
        }
        rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// What comes of the wire octets given in pieces: the content, whether the end was found, whether a bare
    /// line end was seen, and the octets behind the end.
    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, bool, bool, Vec<u8>) {
        let (mut decoder, mut content, mut kept, mut ended) = (Decoder::default(), vec![], vec![], false);
        for piece in pieces {
            kept.extend_from_slice(piece);
            while !ended {
                let (done, found) = decoder.decode(&kept);
                match found {
                    Some(Piece::Content(octets)) => content.extend_from_slice(octets),
                    Some(Piece::LineEnd) => content.extend_from_slice(CRLF),
                    Some(Piece::End) => ended = true,
                    None => assert_eq!(done, kept.len(), "without a piece everything is used"),
                }
                let stop = found.is_none();
                kept.drain(..done);
                if stop {
                    break;
                }
            }
        }
        (content, ended, decoder.saw_bare_line_end(), kept)
    }

    fn check(wire: &[u8], content: &[u8], ended: bool, bare: bool) {
        let single: Vec<&[u8]> = wire.chunks(1).collect();
        for pieces in [&[wire][..], &single] {
            let (seen, seen_ended, seen_bare, _) = decode(pieces);
            assert_eq!(seen.escape_ascii().to_string(), content.escape_ascii().to_string(), "content");
            assert_eq!((seen_ended, seen_bare), (ended, bare), "end, bare line end");
        }
    }

    #[test]
    fn dot_stuffing_and_the_end_of_data() {
        check(b".\r\n", b"", true, false);
        check(b"a\r\n.\r\n", b"a\r\n", true, false);
        check(b"..\r\n..a\r\n.b\r\nc.\r\n.\r\n", b".\r\n.a\r\nb\r\nc.\r\n", true, false);
        check(b"\r\n.\r\n", b"\r\n", true, false);
        check(b"a\r\n", b"a\r\n", false, false);
    }

    /// The same for content in chunks: the content, and whether a bare line end was seen.
    fn check_chunks(wire: &[u8], content: &[u8], bare: bool) {
        for length in [1, 2, wire.len().max(1)] {
            let (mut decoder, mut seen) = (Decoder::of_chunks(), Vec::new());
            let mut take = |piece| match piece {
                Piece::Content(octets) => seen.extend_from_slice(octets),
                Piece::LineEnd => seen.extend_from_slice(CRLF),
                Piece::End => panic!("chunks have no end of their own"),
            };
            for mut rest in wire.chunks(length) {
                while let (done, Some(piece)) = decoder.decode(rest) {
                    take(piece);
                    rest = &rest[done..];
                }
            }
            while let Some(piece) = decoder.finish() {
                take(piece);
            }
            assert_eq!(seen.escape_ascii().to_string(), content.escape_ascii().to_string(), "by {length}");
            assert_eq!(decoder.saw_bare_line_end(), bare, "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn bdat_chunks_hold_dots_and_their_last_line_ends() {
        check_chunks(b"", b"", false);
        check_chunks(b"a\r\n", b"a\r\n", false);
        check_chunks(b"a", b"a\r\n", false);
        check_chunks(b".\r\n..\r\n.\r\nb\r\n", b".\r\n..\r\n.\r\nb\r\n", false);
        check_chunks(b"a\n.\nb", b"a\r\n.\r\nb\r\n", true);
        check_chunks(b"a\n", b"a\r\n", true);
        check_chunks(b"a\r", b"a\r\n", true);
        check_chunks(b"a\r\r", b"a\r\n\r\n", true);
        check_chunks(b"a\r\r\n", b"a\r\n", true);
        check_chunks(b"a\rb\0\r\n", b"a\r\nb\r\n", true);
    }

    #[test]
    fn nul_is_left_out_and_smuggles_no_end_of_data() {
        check(b"a\0b\r\n.\r\n", b"ab\r\n", true, false);
        check(b"\0\0\r\n.\r\n", b"\r\n", true, false);
        check(b"a\r\n\0.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", true, false);
        check(b"a\r\n.\0\r\nb\r\n.\r\n", b"a\r\n\r\nb\r\n", true, false);
        check(b"a\r\n.\r\0\nb\r\n.\r\n", b"a\r\n\r\n\r\nb\r\n", true, true);
        check(b"a\r\0\n.\r\nb\r\n.\r\n", b"a\r\n\r\n.\r\nb\r\n", true, true);
        check(b"a\0\r\0\n\0.\0\r\0\n", b"a\r\n\r\n.\r\n\r\n", false, true);
        check(b"\0.\r\n.\r\n", b".\r\n", true, false);
        check_chunks(b"\0a\r\0\n\0", b"a\r\n\r\n\r\n", true);
        check_chunks(b"a\r\n\0.\r\n", b"a\r\n.\r\n", false);
        let mut decoder = Decoder::default();
        let mut wire = b"\0a\0".as_slice();
        while let (done, Some(_)) = decoder.decode(wire) {
            wire = &wire[done..];
        }
        assert_eq!(decoder.nuls(), 2);
    }

    #[test]
    fn what_follows_the_end_is_left() {
        assert_eq!(decode(&[b"a\r\n.\r\nMAIL"]).3, b"MAIL");
    }

    #[test]
    fn smuggling_by_other_line_ends_ends_no_data() {
        for wire in [
            b"a\n.\n".as_slice(),
            b"a\n.\r\n",
            b"a\r\n.\n",
            b"a\r.\r",
            b"a\r.\r\n",
            b"a\r\n.\r",
            b"a\n\n.\r\n",
            b"a\r\n\0.\r\n",
            b"a\r\n.\r\r\n",
            b"a\r\n. \r\n",
        ] {
            assert!(!decode(&[wire]).1, "{}", wire.escape_ascii());
        }
        assert!(decode(&[b"a\r\r\n.\r\n"]).1, "these five octets are the end, whatever came before");
    }

    #[test]
    fn bare_cr_and_bare_lf_become_crlf() {
        check(b"a\nb\r\n.\r\n", b"a\r\nb\r\n", true, true);
        check(b"a\rb\r\n.\r\n", b"a\r\nb\r\n", true, true);
        check(b"a\r\rb\r\n.\r\n", b"a\r\n\r\nb\r\n", true, true);
        check(b"a\r\r\n.\r\n", b"a\r\n", true, true);
        check(b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", true, true);
        check(b".\rb\r\n.\r\n", b"\r\nb\r\n", true, true);
        check(b".\n\r\n.\r\n", b"\r\n\r\n", true, true);
    }

    /// A plain reading of RFC 5321: the end first, then line by line.
    fn reference(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
        let framed = [CRLF, wire].concat();
        let end = framed.windows(5).position(|w| w == b"\r\n.\r\n")?;
        let lines = framed[..end + 2].split_inclusive(|&b| b == b'\n').fold(vec![vec![]], |mut all, part| {
            all.last_mut().unwrap().extend_from_slice(part);
            if part.ends_with(CRLF) {
                all.push(vec![]);
            }
            all
        });
        let unstuffed: Vec<u8> =
            lines.iter().skip(1).flat_map(|l| l.strip_prefix(b".").unwrap_or(l).to_vec()).collect();
        let mut content = String::from_utf8(unstuffed).unwrap();
        while content.contains("\r\r\n") {
            content = content.replace("\r\r\n", "\r\n");
        }
        let content = content.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
        Some((content.replace('\0', "").into_bytes(), end + 5 - 2))
    }

    fn stuff(content: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for line in content.split_inclusive(|&b| b == b'\n') {
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        [wire, b".\r\n".to_vec()].concat()
    }

    fn pieces<'a>(wire: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|w| &wire[w[0]..w[1]]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn agrees_with_the_reference(
            wire in vec(proptest::sample::select(b"\r\n.a\0".as_slice()), 0..40),
            cuts in vec(0_usize..64, 0..6),
        ) {
            let (content, ended, _, left) = decode(&pieces(&wire, &cuts));
            match reference(&wire) {
                Some((expect, used)) => {
                    prop_assert!(ended);
                    prop_assert_eq!(content, expect);
                    prop_assert_eq!(left, &wire[used..]);
                }
                None => prop_assert!(!ended),
            }
        }

        #[test]
        fn what_was_dot_stuffed_is_what_is_decoded(
            lines in vec("\\.{0,3}[ -~é]{0,12}", 0..12),
            cuts in vec(0_usize..256, 0..6),
        ) {
            let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let wire = stuff(content.as_bytes());
            let (decoded, ended, bare, left) = decode(&pieces(&wire, &cuts));
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), content);
            prop_assert!(ended && !bare && left.is_empty());
        }
    }
}
