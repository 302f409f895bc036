//! Text in headers: encoded words (RFC 2047) and octets of a known or unknown charset.
//!
//! People are shown one text. For a name every reading counts: UTF-16 without a mark is read from either end,
//! and who doesn't know a charset takes the octets as they are.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::encoding::{base64, hex_pair};

/// Base64 without padding, whatever its last bits are.
const STANDARD_NO_PAD_LAX: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes every encoded word; everything else stays. Words are found wherever they stand, also where RFC
/// 2047 forbids them: inside quotes, without white space around them, with the last `?=` missing.
pub fn decode(text: &str) -> String {
    decode_by(text, Reading::Usual)
}

/// Every text that readers make of encoded words, the usual one first.
pub fn readings(text: &str) -> Vec<String> {
    let mut readings: Vec<String> = Reading::ALL.iter().map(|reading| decode_by(text, *reading)).collect();
    readings.dedup();
    readings
}

/// Every text that readers make of octets in a charset, the usual one first.
pub fn readings_in_charset(octets: &[u8], charset: &str) -> Vec<String> {
    let read = |reading: &Reading| in_charset_by(octets, charset, *reading);
    let mut readings: Vec<String> = Reading::ALL.iter().map(read).collect();
    readings.dedup();
    readings
}

fn decode_by(text: &str, reading: Reading) -> String {
    let mut out = String::with_capacity(text.len());
    // Octets of adjacent words of one charset are joined before they are decoded: characters get split.
    let mut pending: Option<(&str, Vec<u8>)> = None;
    let mut rest = text;
    while let Some(start) = rest.find("=?") {
        let Some(word) = Word::parse(&rest[start..]) else {
            flush(&mut out, &mut pending, reading);
            out.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
            continue;
        };
        let between = &rest[..start];
        if pending.is_none() || !between.trim().is_empty() {
            flush(&mut out, &mut pending, reading);
            out.push_str(between);
        }
        match &mut pending {
            Some((charset, octets)) if charset.eq_ignore_ascii_case(word.charset) => {
                octets.extend_from_slice(&word.octets);
            }
            _ => {
                flush(&mut out, &mut pending, reading);
                pending = Some((word.charset, word.octets));
            }
        }
        rest = &rest[start + word.length..];
    }
    flush(&mut out, &mut pending, reading);
    out.push_str(rest);
    out
}

fn flush(out: &mut String, pending: &mut Option<(&str, Vec<u8>)>, reading: Reading) {
    if let Some((charset, octets)) = pending.take() {
        out.push_str(&in_charset_by(&octets, charset, reading));
    }
}

struct Word<'a> {
    charset: &'a str,
    octets: Vec<u8>,
    /// Octets of the whole word in the text.
    length: usize,
}

impl<'a> Word<'a> {
    /// Parses the word that `text` begins with: `=?charset*language?B?octets?=`.
    fn parse(text: &'a str) -> Option<Self> {
        let inner = text.get(2..)?;
        let (charset, rest) = inner.split_once('?')?;
        let (kind, rest) = rest.split_once('?')?;
        if charset.is_empty() || !charset.bytes().all(|b| b.is_ascii_graphic()) || kind.len() != 1 {
            return None;
        }
        let head = 2 + charset.len() + 1 + kind.len() + 1;
        let (body, tail) = match rest.find("?=") {
            Some(end) => (&rest[..end], 2),
            None => (rest, 0),
        };
        let octets = match kind.as_bytes()[0] {
            b'b' | b'B' => base64(body.as_bytes()).content,
            b'q' | b'Q' => q_octets(body.as_bytes()),
            _ => return None,
        };
        let charset = charset.split('*').next().unwrap_or(charset);
        Some(Self { charset, octets, length: head + body.len() + tail })
    }
}

fn q_octets(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'_' => out.push(b' '),
            b'=' => {
                if let Some(octet) = hex_pair(&body[at + 1..]) {
                    out.push(octet);
                    at += 2;
                } else {
                    out.push(b'=');
                }
            }
            octet => out.push(octet),
        }
        at += 1;
    }
    out
}

/// How octets of a labelled charset are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// As the label says; an unknown one is none.
    Usual,
    /// UTF-16 in the other order of octets.
    Swapped,
    /// As if there were no label.
    Unlabelled,
    /// An unknown label is one of the many EBCDICs.
    Ebcdic,
}

impl Reading {
    const ALL: [Self; 4] = [Self::Usual, Self::Swapped, Self::Unlabelled, Self::Ebcdic];
}

fn in_charset_by(octets: &[u8], charset: &str, reading: Reading) -> String {
    let known = Encoding::for_label(charset.as_bytes());
    match (reading, known) {
        (Reading::Swapped, Some(encoding)) if encoding == UTF_16LE => {
            UTF_16BE.decode_without_bom_handling(octets).0.into_owned()
        }
        (Reading::Swapped, Some(encoding)) if encoding == UTF_16BE => {
            UTF_16LE.decode_without_bom_handling(octets).0.into_owned()
        }
        (Reading::Ebcdic, None) => octets.iter().map(|octet| ebcdic(*octet)).collect(),
        (Reading::Unlabelled, _) => unlabelled(octets),
        (_, Some(encoding)) => encoding.decode(octets).0.into_owned(),
        (_, None) if is_utf_7(charset) => utf_7(octets),
        (_, None) => unlabelled(octets),
    }
}

fn is_utf_7(charset: &str) -> bool {
    ["utf-7", "utf7", "unicode-1-1-utf-7", "csunicode11utf7"]
        .iter()
        .any(|label| charset.eq_ignore_ascii_case(label))
}

/// UTF-7 (RFC 2152): UTF-16 in base64 between '+' and the first character that is no digit; a '-' there goes.
fn utf_7(octets: &[u8]) -> String {
    let text = unlabelled(octets);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some((before, shifted)) = rest.split_once('+') {
        out.push_str(before);
        let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
        let end = shifted.find(|c| !is_digit(c)).unwrap_or(shifted.len());
        let (digits, after) = shifted.split_at(end);
        match digits {
            "" => out.push('+'),
            // Whole octets are all that counts; what is left over is padding.
            _ => {
                let whole = &digits[..digits.len() / 4 * 4 + [0, 0, 2, 3][digits.len() % 4]];
                let decoded = STANDARD_NO_PAD_LAX.decode(whole).unwrap_or_default();
                out.push_str(&UTF_16BE.decode_without_bom_handling(&decoded[..decoded.len() & !1]).0);
            }
        }
        rest = after.strip_prefix('-').unwrap_or(after);
    }
    out.push_str(rest);
    out
}

/// The characters of a name that all EBCDIC code pages have in one place.
fn ebcdic(octet: u8) -> char {
    let among = |first: u8, letter: u8| char::from(letter + (octet - first));
    match octet {
        0x81..=0x89 => among(0x81, b'a'),
        0x91..=0x99 => among(0x91, b'j'),
        0xA2..=0xA9 => among(0xA2, b's'),
        0xC1..=0xC9 => among(0xC1, b'A'),
        0xD1..=0xD9 => among(0xD1, b'J'),
        0xE2..=0xE9 => among(0xE2, b'S'),
        0xF0..=0xF9 => among(0xF0, b'0'),
        0x4B => '.',
        0x60 => '-',
        0x61 => '/',
        0x6D => '_',
        0x40 => ' ',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// Octets of no known charset: UTF-8 if they are, else Windows-1252, which has a character for each.
pub fn unlabelled(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(octets).0.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(decode(text), expect, "{text}");
    }

    #[test]
    fn encoded_words() {
        check("plain =? text", "plain =? text");
        check("=?utf-8?Q?a=2Eexe?=", "a.exe");
        check("=?UTF-8*en?B?YS5leGU=?=", "a.exe");
        check("=?utf-8?q?a?= \r\n =?utf-8?q?.exe?=", "a.exe");
        check("=?utf-8?q?caf=C3?= =?UTF-8?q?=A9?=", "café");
        check("=?iso-8859-1?q?a?= and =?utf-8?q?b?=", "a and b");
        check("x=?utf-8?q?.e?=xe", "x.exe");
        check("=?utf-8?b?YS5leGU", "a.exe");
        check("=?iso-2022-jp?B?GyRCRnxLXBsoQi5leGU=?=", "日本.exe");
        check("=?utf-16le?b?YQAuAGUAeABlAA==?=", "a.exe");
        check("=?no-such?q?a=2Eexe?=", "a.exe");
        check("=?utf-8?x?abc?=", "=?utf-8?x?abc?=");
        check("=?utf-8?q?=ZZ_=?=", "=ZZ =");
        check("=?utf-7?q?a+AC4-exe_+-?=", "a.exe +");
        check("=?UTF-7?q?+AGEALgBlAHgAZQ?=", "a.exe");
    }

    #[test]
    fn charsets_that_readers_differ_about() {
        for text in [
            "=?utf-16?B?AGEALgBlAHgAZQ==?=",
            "=?utf-16?B?YQAuAGUAeABlAA==?=",
            "=?utf-16be?B?YQAuAGUAeABlAA==?=",
            "=?cp037?Q?=81=4B=85=A7=85?=",
        ] {
            let readings = readings(text);
            assert!(readings.iter().any(|reading| reading == "a.exe"), "{text} gives {readings:?}");
        }
        assert_eq!(readings("=?utf-8?q?a=2Eexe?= b"), ["a.exe b"]);
        assert!(readings_in_charset(b"\0a\0.\0e\0x\0e", "utf-16").contains(&"a.exe".to_owned()));
    }
}
