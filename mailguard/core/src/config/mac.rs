//! Hardware addresses, as configurations name them: of one network card, for only from those do frames come.

use std::fmt;

use super::syntax::Mismatch;

/// Six octets in hexadecimal digits, between colons.
pub(super) fn parse_mac(text: &str) -> Result<[u8; 6], Mismatch> {
    let mut octets = [0; 6];
    let mut parts = text.split([':', '-']);
    for octet in &mut octets {
        let digits = parts.next().ok_or(Mismatch::Wrong)?;
        if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Mismatch::Wrong);
        }
        *octet = u8::from_str_radix(digits, 16).map_err(|_| Mismatch::Wrong)?;
    }
    if parts.next().is_some() {
        return Err(Mismatch::Wrong);
    }
    match of_one_sender(octets) {
        Err(why) => Err(Mismatch::Hint(why.to_owned())),
        Ok(octets) if text.contains('-') => Err(Mismatch::Hint(format!("write \"{}\"", Mac(octets)))),
        Ok(octets) => Ok(octets),
    }
}

/// The address, if a frame of one network card can come from it (IEEE 802-2014 §8.2).
fn of_one_sender(octets: [u8; 6]) -> Result<[u8; 6], &'static str> {
    const GROUP: u8 = 1;
    match octets {
        [0, 0, 0, 0, 0, 0] => Err("nobody has this one"),
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Err("it stands for everybody: no frame comes from it"),
        [first, ..] if first & GROUP != 0 => Err("it stands for a group: no frame comes from it"),
        octets => Ok(octets),
    }
}

/// A hardware address as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_that_no_frame_comes_from() {
        for (text, why) in [
            ("00:00:00:00:00:00", "nobody has this one"),
            ("ff:ff:ff:ff:ff:ff", "it stands for everybody: no frame comes from it"),
            ("01:00:5e:00:00:01", "it stands for a group: no frame comes from it"),
            ("33:33:00:00:00:01", "it stands for a group: no frame comes from it"),
            ("03:00:5e:10:00:01", "it stands for a group: no frame comes from it"),
        ] {
            assert_eq!(parse_mac(text), Err(Mismatch::Hint(why.to_owned())), "{text}");
        }
        assert_eq!(parse_mac("fe:ff:ff:ff:ff:ff"), Ok([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]));
    }
}
