//! The encoding of ENVID and ORCPT (RFC 3461 §4).

/// The text of an xtext. Nothing if it isn't one, or if it hides what a header field can't hold: octets
/// outside printable ASCII.
pub(crate) fn decode(xtext: &str) -> Option<String> {
    let mut text = String::with_capacity(xtext.len());
    let mut octets = xtext.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'+' => hex_digit(octets.next()?)? << 4 | hex_digit(octets.next()?)?,
            b'=' => return None,
            octet => octet,
        };
        match octet {
            b' '..=b'~' => text.push(char::from(octet)),
            _ => return None,
        }
    }
    Some(text)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(xtext: &str, expect: Option<&str>) {
        assert_eq!(decode(xtext).as_deref(), expect, "{xtext}");
    }

    #[test]
    fn xtext_is_decoded() {
        check("QQ314159", Some("QQ314159"));
        check("a+2Bb+3Dc@d", Some("a+b=c@d"));
        check("a+20b", Some("a b"));
        check("", Some(""));
        for foreign in
            ["a+", "a+2", "a+2b", "a+ZZ", "a=b", "a+0D+0AX-Evil: 1", "a+00", "a+7F", "a+C3+A9", "é", "a\r\nb"]
        {
            check(foreign, None);
        }
    }
}
