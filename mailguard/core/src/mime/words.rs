//! Text in headers: encoded words (RFC 2047) and octets of a known or unknown charset.

use encoding_rs::{Encoding, WINDOWS_1252};

use super::encoding::{base64, hex_pair};

/// Decodes every encoded word; everything else stays. Words are found wherever they stand, also where RFC 2047
/// forbids them: inside quotes, without white space around them, with the last `?=` missing.
pub fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Octets of adjacent words of one charset are joined before they are decoded: characters get split.
    let mut pending: Option<(&str, Vec<u8>)> = None;
    let mut rest = text;
    while let Some(start) = rest.find("=?") {
        let Some(word) = Word::parse(&rest[start..]) else {
            flush(&mut out, &mut pending);
            out.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
            continue;
        };
        let between = &rest[..start];
        if pending.is_none() || !between.trim().is_empty() {
            flush(&mut out, &mut pending);
            out.push_str(between);
        }
        match &mut pending {
            Some((charset, octets)) if charset.eq_ignore_ascii_case(word.charset) => {
                octets.extend_from_slice(&word.octets);
            }
            _ => {
                flush(&mut out, &mut pending);
                pending = Some((word.charset, word.octets));
            }
        }
        rest = &rest[start + word.length..];
    }
    flush(&mut out, &mut pending);
    out.push_str(rest);
    out
}

fn flush(out: &mut String, pending: &mut Option<(&str, Vec<u8>)>) {
    if let Some((charset, octets)) = pending.take() {
        out.push_str(&in_charset(&octets, charset));
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

/// Octets in a charset given by its label; an unknown label is no label.
pub fn in_charset(octets: &[u8], charset: &str) -> String {
    match Encoding::for_label(charset.as_bytes()) {
        Some(encoding) => encoding.decode(octets).0.into_owned(),
        None => unlabelled(octets),
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
    }
}
