//! Which addresses anybody's word may lead mail to: a recipient's domain, an address literal, an original
//! destination.
//!
//! From this host an address of the loopback, of no host or of many leads to services that trust whoever is
//! local, or nowhere. What an administrator wrote isn't judged here, and addresses of this host's interfaces
//! are `routing`'s to know. (RFC 6890: special addresses; RFC 6052, RFC 8215, RFC 4291 §2.5.5, RFC 3056:
//! addresses with another one inside.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address it is, where mail by anybody's word must not go there.
pub fn unfit(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => unfit_v4(v4),
        IpAddr::V6(v6) => unfit_v6(v6).or_else(|| inside(v6).into_iter().find_map(unfit_v4)),
    }
}

fn unfit_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [127, ..] => Some("a loopback address"),
        [0, ..] => Some("no host's address"),
        [169, 254, ..] => Some("a link-local address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a broadcast or reserved address"),
        _ => None,
    }
}

fn unfit_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("no host's address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // Site-local ones (RFC 3879) are as good as these.
        [0xfe80..=0xfeff, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        _ => None,
    }
}

/// The IPv4 address to which a translator, a tunnel or the system itself would take it.
fn inside(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        // Compatible, mapped, translated.
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        // NAT64, by its own prefix and by a local one.
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        // 6to4.
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_this_host_or_to_none_is_unfit() {
        for address in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:0.0.0.0",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1:2:3:4:127.0.0.1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(unfit(address.parse().unwrap()).is_some(), "{address}");
        }
    }

    #[test]
    fn what_is_a_host_is_not() {
        for address in [
            "192.0.2.1",
            "10.0.0.25",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "2001:db8::1",
            "fd00::25",
            "::ffff:192.0.2.1",
            "64:ff9b::192.0.2.1",
            "2002:c000:201::1",
        ] {
            assert_eq!(unfit(address.parse().unwrap()), None, "{address}");
        }
    }
}
