//! Transfer encodings (RFC 2045 §6): every reading of base64, and quoted-printable.

/// What Content-Transfer-Encoding says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferEncoding {
    /// 7bit, 8bit, binary, or nothing said.
    Identity,
    Base64,
    QuotedPrintable,
    /// x-uuencode and its spellings: read where uuencoded text is looked for anyway.
    Uuencode,
    Unknown,
}

impl TransferEncoding {
    /// Reads a field's value; comments, quotes and what follows a ';' are let pass.
    pub(super) fn parse(value: &[u8]) -> Self {
        let mut word = Vec::with_capacity(16);
        let mut comment = 0_usize;
        for &octet in value {
            match octet {
                b'(' => comment += 1,
                b')' => comment = comment.saturating_sub(1),
                b';' if comment == 0 => break,
                _ if comment > 0 || octet.is_ascii_whitespace() || octet == b'"' || word.len() == 32 => {}
                _ => word.push(octet.to_ascii_lowercase()),
            }
        }
        match word.as_slice() {
            // What isn't the first word may be what a reader looks for.
            word if ENCODINGS.iter().any(|known| *known != word && contains(value, known)) => Self::Unknown,
            b"" | b"7bit" | b"8bit" | b"binary" | b"7-bit" | b"8-bit" => Self::Identity,
            b"base64" => Self::Base64,
            b"quoted-printable" => Self::QuotedPrintable,
            b"uuencode" | b"x-uuencode" | b"uue" | b"x-uue" => Self::Uuencode,
            _ => Self::Unknown,
        }
    }
}

/// The encodings that change something.
const ENCODINGS: [&[u8]; 2] = [b"base64", b"quoted-printable"];

/// Whether `word`, in lower case, stands somewhere in `value`, in whatever case.
fn contains(value: &[u8], word: &[u8]) -> bool {
    value.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

const JUNK: u8 = 0xFF;
const PAD: u8 = 0xFE;
const SPACE: u8 = 0xFD;
/// '-' and '_': digits of the URL alphabet (RFC 4648 §5).
const URL: u8 = 0xFC;

const fn table() -> [u8; 256] {
    let mut table = [JUNK; 256];
    let mut i = 0;
    while i < 26 {
        table[b'A' as usize + i] = i as u8;
        table[b'a' as usize + i] = 26 + i as u8;
        i += 1;
    }
    let mut i = 0;
    while i < 10 {
        table[b'0' as usize + i] = 52 + i as u8;
        i += 1;
    }
    table[b'+' as usize] = 62;
    table[b'/' as usize] = 63;
    table[b'=' as usize] = PAD;
    table[b'-' as usize] = URL;
    table[b'_' as usize] = URL;
    table[b'\r' as usize] = SPACE;
    table[b'\n' as usize] = SPACE;
    table[b' ' as usize] = SPACE;
    table[b'\t' as usize] = SPACE;
    table
}

static TABLE: [u8; 256] = table();

/// How padding and the URL alphabet are read.
#[derive(Clone, Copy)]
struct Rules {
    /// '=' ends a quantum and a new one begins; else it is skipped.
    realign: bool,
    /// '-' and '_' are digits.
    url: bool,
}

/// Decoded base64 and where readers would differ.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    /// The usual reading: junk is skipped, a new quantum begins after padding.
    pub(super) content: Vec<u8>,
    /// Where in the input the first octet outside the alphabet stands.
    pub(super) junk_at: Option<usize>,
    /// Where in the input padding stands that more digits follow.
    pub(super) padding_at: Option<usize>,
    has_url: bool,
}

/// The usual reading.
pub(super) fn base64(input: &[u8]) -> Base64 {
    base64_by(input, Rules { realign: true, url: false })
}

/// Every other reading of the input that gave `usual`, as contents of their own.
pub(super) fn base64_other_readings(input: &[u8], usual: &Base64) -> Vec<Vec<u8>> {
    let mut others: Vec<Vec<u8>> = Vec::new();
    for end in [usual.junk_at, usual.padding_at].into_iter().flatten() {
        others.push(base64(&input[..end.min(input.len())]).content);
    }
    if usual.padding_at.is_some() {
        others.push(base64_by(input, Rules { realign: false, url: false }).content);
    }
    if usual.has_url {
        others.push(base64_by(input, Rules { realign: true, url: true }).content);
    }
    others.retain(|content| !content.is_empty() && *content != usual.content);
    others.dedup();
    others
}

fn base64_by(input: &[u8], rules: Rules) -> Base64 {
    let mut out = Base64 { content: Vec::with_capacity(input.len() / 4 * 3 + 3), ..Base64::default() };
    let (mut bits, mut digits) = (0_u32, 0_u8);
    let mut padded: Option<usize> = None;
    let mut at = 0;
    while at < input.len() {
        if digits == 0 && padded.is_none() {
            at += quanta(&input[at..], &mut out.content);
            if at >= input.len() {
                break;
            }
        }
        let octet = input[at];
        at += 1;
        let digit = match TABLE[usize::from(octet)] {
            SPACE => continue,
            URL if rules.url => 62 + u8::from(octet == b'_'),
            URL | JUNK => {
                out.has_url |= octet == b'-' || octet == b'_';
                out.junk_at.get_or_insert(at - 1);
                continue;
            }
            PAD => {
                if rules.realign {
                    flush(&mut out.content, &mut bits, &mut digits);
                }
                padded.get_or_insert(at - 1);
                continue;
            }
            digit => digit,
        };
        out.padding_at = out.padding_at.or(padded);
        bits = bits << 6 | u32::from(digit);
        digits += 1;
        if digits == 4 {
            out.content.extend_from_slice(&bits.to_be_bytes()[1..]);
            (bits, digits) = (0, 0);
        }
    }
    flush(&mut out.content, &mut bits, &mut digits);
    out
}

/// Decodes whole quanta as long as nothing but digits comes; gives the octets taken.
fn quanta(input: &[u8], out: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    for four in input.chunks_exact(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| TABLE[usize::from(four[i])]);
        if (a | b | c | d) & 0xC0 != 0 {
            break;
        }
        let bits = u32::from(a) << 18 | u32::from(b) << 12 | u32::from(c) << 6 | u32::from(d);
        out.extend_from_slice(&bits.to_be_bytes()[1..]);
        taken += 4;
    }
    taken
}

/// What an incomplete quantum holds.
fn flush(out: &mut Vec<u8>, bits: &mut u32, digits: &mut u8) {
    match *digits {
        2 => out.push((*bits >> 4) as u8),
        3 => out.extend_from_slice(&((*bits >> 2) as u16).to_be_bytes()),
        _ => {}
    }
    (*bits, *digits) = (0, 0);
}

/// The octet that two hexadecimal digits at the start of `input` stand for.
pub(super) fn hex_pair(input: &[u8]) -> Option<u8> {
    let digit = |octet: u8| (octet as char).to_digit(16);
    let (high, low) = (digit(*input.first()?)?, digit(*input.get(1)?)?);
    u8::try_from(high << 4 | low).ok()
}

/// Quoted-printable (RFC 2045 §6.7). Escapes that are none stay as they are; white space at a line's end
/// goes.
pub(super) fn quoted_printable(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    for line in input.split_inclusive(|octet| *octet == b'\n') {
        let text = line.trim_ascii_end();
        let end: &[u8] = if line.ends_with(b"\r\n") {
            b"\r\n"
        } else if line.ends_with(b"\n") {
            b"\n"
        } else {
            &line[text.len()..]
        };
        let (text, soft) = match text.strip_suffix(b"=") {
            Some(text) => (text, true),
            None => (text, false),
        };
        unescape(text, &mut out);
        if !soft {
            out.extend_from_slice(end);
        }
    }
    out
}

fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(found) = memchr::memchr(b'=', text) {
        out.extend_from_slice(&text[..found]);
        let after = &text[found + 1..];
        match hex_pair(after) {
            Some(octet) => {
                out.push(octet);
                text = &after[2..];
            }
            None => {
                out.push(b'=');
                text = after;
            }
        }
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_base64(input: &str, usual: &str, others: &[&str]) {
        let decoded = base64(input.as_bytes());
        assert_eq!(String::from_utf8_lossy(&decoded.content), usual, "{input}");
        let seen = base64_other_readings(input.as_bytes(), &decoded);
        let seen: Vec<_> = seen.iter().map(|content| String::from_utf8_lossy(content)).collect();
        assert_eq!(seen, others, "{input}");
    }

    #[test]
    fn base64_and_its_readings() {
        check_base64("", "", &[]);
        check_base64("YWJj", "abc", &[]);
        check_base64("YWJjZA==\r\n", "abcd", &[]);
        check_base64("YW\r\nJjZGU", "abcde", &[]);
        check_base64("YWJ!jZA==", "abcd", &["ab"]);
        check_base64("YWJjZA==ZWZn", "abcdefg", &["abcd", "abcd\u{6}Vf"]);
        check_base64("Pz8-", "??", &["??>"]);
    }

    #[test]
    fn transfer_encodings() {
        for (value, expect) in [
            ("", TransferEncoding::Identity),
            (" 8BIT ", TransferEncoding::Identity),
            (" \"Base64\" (so they say)", TransferEncoding::Base64),
            ("quoted-printable;x", TransferEncoding::QuotedPrintable),
            ("x-uue", TransferEncoding::Uuencode),
            ("base-64", TransferEncoding::Unknown),
            ("7bit; base64", TransferEncoding::Unknown),
            ("8bit (or Base64)", TransferEncoding::Unknown),
        ] {
            assert_eq!(TransferEncoding::parse(value.as_bytes()), expect, "{value}");
        }
    }

    #[test]
    fn quoted_printable_lines() {
        for (input, expect) in [
            ("a=2Eexe", "a.exe"),
            ("a=\r\nb=  \r\nc\t\r\nd", "abc\r\nd"),
            ("=4=4D=4d=", "=4MM"),
            ("a \n", "a\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&quoted_printable(input.as_bytes())), expect, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn base64_of_any_octets_comes_back(octets in prop::collection::vec(any::<u8>(), 0..200), width in 1..80_usize) {
            const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let mut text = Vec::new();
            for three in octets.chunks(3) {
                let bits = three.iter().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - three.len()));
                for i in 0..4 {
                    text.push(if i > three.len() { b'=' } else { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] });
                }
            }
            let lines: Vec<&[u8]> = text.chunks(width).collect();
            prop_assert_eq!(base64(&lines.join(&b"\r\n"[..])).content, octets);
        }
    }
}
