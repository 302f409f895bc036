//! The small languages of values: sizes, durations, networks, address patterns and the like.
//!
//! Each is a [`Syntax`]: the parser together with the sentence that tells an administrator what it accepts.
//! The editor of the file checks new entries by the same syntaxes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use super::mac::Mac;
use super::mac::parse_mac;
use super::model::{AddressPattern, ClientPattern, MailServer, Mechanism, OutgoingAddress, SmarthostAddress};
use crate::file_sets::FileSet;
use crate::mail::{Domain, Mailbox};
use crate::rbl;
use crate::route::SMTP_PORT;

/// What a value may be.
pub struct Syntax<T> {
    /// Completes "accepted: …".
    pub accepted: &'static str,
    /// Text to value.
    pub parse: fn(&str) -> Result<T, Mismatch>,
}

/// Why a text isn't accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// It isn't of the syntax.
    Wrong,
    /// It isn't, but what was meant can be guessed: what to do.
    Hint(String),
}

/// `KB`, `MB`, `GB`: octets.
pub const SIZE: Syntax<u64> =
    Syntax { accepted: "a size like \"512KB\", \"30MB\" or \"10GB\"", parse: parse_size };
/// `s`, `m`, `h`, `d`.
pub const DURATION: Syntax<Duration> =
    Syntax { accepted: "a duration like \"30s\", \"5m\", \"4h\" or \"5d\"", parse: parse_duration };
/// A network with a prefix length and no host bits.
pub const NETWORK: Syntax<IpNet> =
    Syntax { accepted: "a network like \"192.168.5.0/24\" or \"2001:db8::/32\"", parse: parse_network };
/// An IP address.
pub const ADDRESS: Syntax<IpAddr> =
    Syntax { accepted: "an address like \"192.168.5.7\" or \"2001:db8::7\"", parse: parse_address };
/// A hardware address.
pub const MAC: Syntax<[u8; 6]> = Syntax {
    accepted: "a hardware address of one network card like \"02:00:5e:10:00:01\"",
    parse: parse_mac,
};
/// Address, network or host name of a client; an address is a network of one.
pub const CLIENT: Syntax<ClientPattern> = Syntax {
    accepted: "an address like \"192.0.2.7\", a network like \"192.0.2.0/24\" or a host name like \"mx.example.com\"",
    parse: parse_client,
};
/// Address or network of a client; an address is a network of one.
pub const CLIENT_NETWORK: Syntax<IpNet> = Syntax {
    accepted: "an address like \"192.0.2.7\" or a network like \"192.0.2.0/24\"",
    parse: parse_client_network,
};
/// A sender or recipient.
pub const PATTERN: Syntax<AddressPattern> = Syntax {
    accepted: "a mail address like \"user@example.com\", or a domain like \"example.com\"",
    parse: parse_pattern,
};
/// A mail address.
pub const MAILBOX: Syntax<Mailbox> =
    Syntax { accepted: "a mail address like \"user@example.com\"", parse: parse_mailbox };
/// The name of this host.
pub const HOST_NAME: Syntax<Domain> =
    Syntax { accepted: "a fully qualified host name like \"mail.example.com\"", parse: parse_host_name };
/// What we call ourselves to a next hop.
pub const HELO_NAME: Syntax<Domain> = Syntax {
    accepted: "a fully qualified host name, \"address\" for the literal of the outgoing address, or \"\" for hostname",
    parse: parse_host_name,
};
/// An absolute path.
pub const PATH: Syntax<PathBuf> =
    Syntax { accepted: "an absolute path like \"/var/lib/mailguard\"", parse: parse_path };
/// An incoming domain, with a leading dot for its subdomains only.
pub const INCOMING: Syntax<(Domain, bool)> = Syntax {
    accepted: "a domain like \"example.com\", or \".example.com\" for its subdomains",
    parse: parse_incoming,
};
/// A mail server: its address, or its name.
pub const MAIL_SERVER: Syntax<MailServer> = Syntax {
    accepted: "\"ADDRESS\", \"HOST NAME\", either with \":PORT\", or \"[IPV6]:PORT\"",
    parse: parse_mail_server,
};
/// Address of a name server.
pub const NAME_SERVER: Syntax<SocketAddr> = Syntax {
    accepted: "\"ADDRESS\", \"ADDRESS:PORT\" or \"[IPV6]:PORT\"",
    parse: |text| parse_socket_address(text, 53),
};
/// Name or address of a smarthost.
pub const SMARTHOST: Syntax<SmarthostAddress> =
    Syntax { accepted: "a host name like \"relay.example.net\" or an address", parse: parse_smarthost };
/// A domain.
pub const DOMAIN: Syntax<Domain> = Syntax { accepted: "a domain like \"example.com\"", parse: parse_domain };
/// Where connections come from.
pub const OUTGOING: Syntax<OutgoingAddress> =
    Syntax { accepted: "an address of this host, or the name of an interface", parse: parse_outgoing };
/// A user's name or password.
pub const CREDENTIAL: Syntax<String> =
    Syntax { accepted: "a text of 1 to 255 octets without control characters", parse: parse_credential };
/// A SASL mechanism.
pub const MECHANISM: Syntax<Mechanism> =
    Syntax { accepted: "\"CRAM-MD5\", \"DIGEST-MD5\", \"PLAIN\" or \"LOGIN\"", parse: parse_mechanism };
/// A file name extension, a leading dot allowed, or all those of a set.
pub const EXTENSIONS: Syntax<Vec<String>> = Syntax {
    accepted: "a file name extension like \"exe\", without wildcards or further dots, or a set like \"@common\"",
    parse: parse_extensions,
};
/// A DNS block list, several, or all of a kind.
pub const BLOCK_LIST: Syntax<String> = Syntax {
    accepted: "a list's zone like \"zen.spamhaus.org\", a family of `mailguard rbl list` like \"uceprotect\", or \"all\"",
    parse: parse_block_list,
};
/// The name of a zone.
pub const ZONE_NAME: Syntax<String> =
    Syntax { accepted: "a name of 1 to 32 letters, digits, '-' and '_'", parse: parse_zone_name };
/// A name of a network interface.
pub const INTERFACE: Syntax<String> =
    Syntax { accepted: "the name of a network interface like \"eth0\"", parse: parse_interface };
/// The name of a system user.
pub const USER: Syntax<String> =
    Syntax { accepted: "the name of a system user like \"mailguard\"", parse: parse_user };

fn parse_size(text: &str) -> Result<u64, Mismatch> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit {
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ if ["kb", "mb", "gb"].contains(&unit.to_lowercase().as_str()) => {
            return Err(Mismatch::Hint(format!("write \"{number}{}\"", unit.to_uppercase())));
        }
        _ => return Err(Mismatch::Wrong),
    };
    number.checked_mul(factor).ok_or(Mismatch::Wrong)
}

fn parse_duration(text: &str) -> Result<Duration, Mismatch> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(Mismatch::Wrong),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or(Mismatch::Wrong)
}

fn split_unit(text: &str) -> Result<(u64, &str), Mismatch> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse().map_err(|_| Mismatch::Wrong)?;
    Ok((number, &text[digits..]))
}

fn parse_address(text: &str) -> Result<IpAddr, Mismatch> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Err(Mismatch::Hint(format!("{network} is a network; this list holds single addresses")));
    }
    let address: IpAddr = text.parse().map_err(|_| Mismatch::Wrong)?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(Mismatch::Hint(format!("write it as IPv4: \"{}\"", address.to_canonical())))
        }
        _ => Ok(address),
    }
}

fn parse_network(text: &str) -> Result<IpNet, Mismatch> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(Mismatch::Hint(format!("write \"{}\" for this one address", IpNet::from(address))));
    }
    let network: IpNet = text.parse().map_err(|_| Mismatch::Wrong)?;
    if network.trunc() != network {
        return Err(Mismatch::Hint(format!(
            "write \"{}\": no bits beyond the prefix length",
            network.trunc()
        )));
    }
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(Mismatch::Hint("write it as an IPv4 network".to_owned()))
        }
        _ => Ok(network),
    }
}

fn parse_client(text: &str) -> Result<ClientPattern, Mismatch> {
    match Domain::parse(text) {
        Ok(name) if is_host_name(text) && name.is_fully_qualified() => Ok(ClientPattern::Name(name)),
        _ => parse_client_network(text).map(ClientPattern::Network).map_err(|mismatch| {
            let hint = |domain| format!("write \"{domain}\" for the hosts of the domain and its subdomains");
            meant_domain(text).map_or(mismatch, |domain| Mismatch::Hint(hint(domain)))
        }),
    }
}

fn parse_client_network(text: &str) -> Result<IpNet, Mismatch> {
    match text {
        _ if text.contains('/') => parse_network(text),
        _ if text.parse::<IpAddr>().is_ok() => parse_address(text).map(IpNet::from),
        _ => Err(Mismatch::Wrong),
    }
}

/// A name, and not a mistyped address: no top-level domain begins with a digit.
fn is_host_name(text: &str) -> bool {
    let top = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    Domain::parse(text).is_ok() && !top.starts_with(|c: char| c.is_ascii_digit())
}

fn parse_pattern(text: &str) -> Result<AddressPattern, Mismatch> {
    match meant_domain(text) {
        Some(domain) => Err(Mismatch::Hint(with_subdomains(domain))),
        None if text.contains('@') => parse_mailbox(text).map(AddressPattern::Mailbox),
        None => Domain::parse(text).map(AddressPattern::Domain).map_err(|_| without_wildcards(text)),
    }
}

/// An address. A '*' within would be part of it, and is never meant so unless it is quoted.
fn parse_mailbox(text: &str) -> Result<Mailbox, Mismatch> {
    match Mailbox::parse(text) {
        Ok(mailbox) if mailbox.local_part.as_str().starts_with('"') => Ok(mailbox),
        _ if text.contains('*') => Err(without_wildcards(text)),
        parsed => parsed.map_err(|error| Mismatch::Hint(error.to_string())),
    }
}

fn parse_domain(text: &str) -> Result<Domain, Mismatch> {
    match meant_domain(text) {
        Some(domain) => Err(Mismatch::Hint(with_subdomains(domain))),
        None => Domain::parse(text).map_err(|_| without_wildcards(text)),
    }
}

/// The domain that is meant by what other programs' files would say: `*@example.com`, `@example.com`,
/// `*.example.com` or `.example.com`.
fn meant_domain(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('*').unwrap_or(text);
    let domain = rest.strip_prefix(['@', '.'])?;
    let domain = domain.strip_prefix("*.").unwrap_or(domain);
    Domain::parse(domain).is_ok().then_some(domain)
}

fn with_subdomains(domain: &str) -> String {
    format!("write \"{domain}\" for the domain and its subdomains")
}

/// Why a text isn't accepted, where it may be a pattern of another program.
fn without_wildcards(text: &str) -> Mismatch {
    if text.contains('*') {
        let hint = "'*' stands for nothing here: write a whole address, or a domain";
        Mismatch::Hint(hint.to_owned())
    } else {
        Mismatch::Wrong
    }
}

fn parse_host_name(text: &str) -> Result<Domain, Mismatch> {
    match Domain::parse(text) {
        Ok(domain) if domain.is_fully_qualified() && is_host_name(text) => Ok(domain),
        _ => Err(Mismatch::Wrong),
    }
}

fn parse_path(text: &str) -> Result<PathBuf, Mismatch> {
    if text.starts_with('/') && !text.contains('\0') { Ok(PathBuf::from(text)) } else { Err(Mismatch::Wrong) }
}

fn parse_incoming(text: &str) -> Result<(Domain, bool), Mismatch> {
    let name = text.strip_prefix('.').unwrap_or(text);
    match (Domain::parse(name), meant_domain(text)) {
        (Ok(domain), _) => Ok((domain, text.starts_with('.'))),
        (Err(_), Some(meant)) if text.contains('@') => Err(Mismatch::Hint(format!("write \"{meant}\""))),
        (Err(_), Some(meant)) => {
            Err(Mismatch::Hint(format!("write \".{meant}\" for the subdomains, and \"{meant}\" for itself")))
        }
        (Err(_), None) => Err(Mismatch::Wrong),
    }
}

fn parse_socket_address(text: &str, default_port: u16) -> Result<SocketAddr, Mismatch> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, default_port),
        Err(_) => text.parse::<SocketAddr>().map_err(|_| {
            let name = text.rsplit_once(':').map_or(text, |(name, _)| name);
            if is_host_name(name) {
                Mismatch::Hint("write its address: names are not looked up here".to_owned())
            } else {
                Mismatch::Wrong
            }
        })?,
    };
    if address.port() == 0 { Err(Mismatch::Wrong) } else { Ok(address) }
}

fn parse_mail_server(text: &str) -> Result<MailServer, Mismatch> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (text, Some(SMTP_PORT)),
    };
    match (Domain::parse(name), port) {
        (Ok(name), Some(port)) if port != 0 && is_host_name(name.ascii()) => Ok(MailServer::Host(name, port)),
        _ => parse_socket_address(text, SMTP_PORT).map(MailServer::Address).map_err(|_| Mismatch::Wrong),
    }
}

fn parse_smarthost(text: &str) -> Result<SmarthostAddress, Mismatch> {
    if let Ok(address) = text.parse() {
        return Ok(SmarthostAddress::Ip(address));
    }
    match Domain::parse(text) {
        Ok(domain) if is_host_name(text) => Ok(SmarthostAddress::Name(domain)),
        _ if text.contains(':') => Err(Mismatch::Hint("the port goes into `port`".to_owned())),
        _ => Err(Mismatch::Wrong),
    }
}

fn parse_outgoing(text: &str) -> Result<OutgoingAddress, Mismatch> {
    match text.parse() {
        Ok(address) => Ok(OutgoingAddress::Address(address)),
        Err(_) => parse_interface(text).map(OutgoingAddress::Interface),
    }
}

fn parse_credential(text: &str) -> Result<String, Mismatch> {
    if (1..=255).contains(&text.len()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Mismatch::Wrong)
    }
}

fn parse_mechanism(text: &str) -> Result<Mechanism, Mismatch> {
    let name = text.to_ascii_uppercase();
    Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name).ok_or(Mismatch::Wrong)
}

fn parse_block_list(text: &str) -> Result<String, Mismatch> {
    let name = text.to_ascii_lowercase();
    let known = name == "all" || rbl::family(&name).next().is_some();
    match Domain::parse(&name) {
        _ if known => Ok(name),
        Ok(domain) if domain.is_fully_qualified() => Ok(domain.ascii().to_owned()),
        _ => Err(Mismatch::Wrong),
    }
}

fn parse_extensions(text: &str) -> Result<Vec<String>, Mismatch> {
    if !text.starts_with('@') {
        return parse_extension(text).map(|extension| vec![extension]);
    }
    if text.starts_with("@/") {
        let remedy = "write the extensions here: only lists of addresses, networks, domains and clients come from files";
        return Err(Mismatch::Hint(remedy.to_owned()));
    }
    let sets = FileSet::ALL.map(FileSet::name).join(", ");
    FileSet::named(text).map(of_set).ok_or_else(|| Mismatch::Hint(format!("the sets are {sets}")))
}

/// The extensions of a set, as values of a list.
pub(super) fn of_set(set: FileSet) -> Vec<String> {
    set.extensions().into_iter().map(str::to_owned).collect()
}

fn parse_extension(text: &str) -> Result<String, Mismatch> {
    /// Octets; what is longer is no extension that anybody blocks.
    const MAX_EXTENSION_OCTETS: usize = 64;
    let extension = text.strip_prefix('.').unwrap_or(text);
    let stray = |c: char| c.is_whitespace() || c.is_control() || "./\\*?".contains(c);
    if extension.is_empty() || extension.len() > MAX_EXTENSION_OCTETS || extension.contains(stray) {
        return Err(Mismatch::Wrong);
    }
    Ok(extension.to_lowercase())
}

fn parse_zone_name(text: &str) -> Result<String, Mismatch> {
    let fits = (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(text.to_owned()) } else { Err(Mismatch::Wrong) }
}

/// One of the kernel's names of an interface: the first has up to 15 octets (IFNAMSIZ), others (`altname`) up
/// to 127.
fn parse_interface(text: &str) -> Result<String, Mismatch> {
    let stray = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let fits = (1..=127).contains(&text.len()) && !text.contains(stray) && text != "." && text != "..";
    if fits { Ok(text.to_owned()) } else { Err(Mismatch::Wrong) }
}

fn parse_user(text: &str) -> Result<String, Mismatch> {
    let first = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if first && rest && text.len() <= 32 { Ok(text.to_owned()) } else { Err(Mismatch::Wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Ok`: the value as it prints for debugging. `Err`: the hint, empty for a plain refusal.
    fn check<T: std::fmt::Debug>(syntax: &Syntax<T>, text: &str, expect: Result<&str, &str>) {
        let seen = match (syntax.parse)(text) {
            Ok(value) => Ok(format!("{value:?}")),
            Err(Mismatch::Wrong) => Err(String::new()),
            Err(Mismatch::Hint(hint)) => Err(hint),
        };
        assert_eq!(seen, expect.map(str::to_owned).map_err(str::to_owned), "{text}");
    }

    #[test]
    fn sizes_and_durations() {
        check(&SIZE, "512KB", Ok("524288"));
        check(&SIZE, "10GB", Ok("10737418240"));
        for text in ["", "MB", "1", "1.5MB", "-1MB", "1 MB", "1TB", "99999999999GB", "99999999999999999999MB"]
        {
            check(&SIZE, text, Err(""));
        }
        check(&SIZE, "30mb", Err("write \"30MB\""));
        check(&DURATION, "5d", Ok("432000s"));
        check(&DURATION, "0s", Ok("0ns"));
        for text in ["", "5", "5w", "5 m", "5M", "999999999999999999d"] {
            check(&DURATION, text, Err(""));
        }
    }

    #[test]
    fn networks_and_addresses() {
        check(&NETWORK, "192.168.5.0/24", Ok("192.168.5.0/24"));
        check(&NETWORK, "0.0.0.0/0", Ok("0.0.0.0/0"));
        check(&NETWORK, "192.168.5.7/24", Err("write \"192.168.5.0/24\": no bits beyond the prefix length"));
        check(&NETWORK, "192.168.5.7", Err("write \"192.168.5.7/32\" for this one address"));
        check(&NETWORK, "::ffff:192.0.2.0/120", Err("write it as an IPv4 network"));
        check(&NETWORK, "192.168.5.0/33", Err(""));
        check(&ADDRESS, "2001:DB8::1", Ok("2001:db8::1"));
        check(&ADDRESS, "192.0.2.0/24", Err("192.0.2.0/24 is a network; this list holds single addresses"));
        check(&ADDRESS, "::ffff:192.0.2.1", Err("write it as IPv4: \"192.0.2.1\""));
        check(&CLIENT, "192.0.2.1", Ok("Network(192.0.2.1/32)"));
        check(&CLIENT, "2001:db8::/32", Ok("Network(2001:db8::/32)"));
        check(&CLIENT, "mail.example.com", Ok("Name(Domain(mail.example.com))"));
        check(&CLIENT, "192.0.2.256", Err(""));
        check(&CLIENT, "nonsense", Err(""));
        check(&CLIENT_NETWORK, "mail.example.com", Err(""));
        check(&MAC, "02:00:5E:10:00:01", Ok("[2, 0, 94, 16, 0, 1]"));
        check(&MAC, "02-00-5e-10-00-01", Err("write \"02:00:5e:10:00:01\""));
        for text in ["02:00:5e:10:00", "02:00:5e:10:00:01:02", "2:0:5e:10:0:1", "+2:00:5e:10:00:01"] {
            check(&MAC, text, Err(""));
        }
    }

    #[test]
    fn mail_addresses_and_domains() {
        check(&PATTERN, "example.com", Ok("Domain(Domain(example.com))"));
        let hint = Err("write \"example.com\" for the domain and its subdomains");
        check(&PATTERN, ".example.com", hint);
        check(&PATTERN, "@example.com", hint);
        check(&PATTERN, "a b", Err(""));
        check(
            &PATTERN,
            "a..b@docomo.example",
            Ok("Mailbox(Mailbox { local_part: LocalPart(\"a..b\"), host: Domain(Domain(docomo.example)) })"),
        );
        check(&MAILBOX, "example.com", Err("an address is written local-part@domain"));
        check(&HOST_NAME, "mail.example.com", Ok("Domain(mail.example.com)"));
        check(&HOST_NAME, "localhost", Err(""));
        check(&HOST_NAME, "192.0.2.1", Err(""));
        check(&INCOMING, ".example.com", Ok("(Domain(example.com), true)"));
        check(&INCOMING, "..example.com", Err(""));
    }

    #[test]
    fn patterns_of_other_programs_are_refused_with_what_to_write() {
        let with_subdomains = Err("write \"example.com\" for the domain and its subdomains");
        let nothing = Err("'*' stands for nothing here: write a whole address, or a domain");
        for text in ["*@example.com", "*.example.com", "*@*.example.com"] {
            check(&PATTERN, text, with_subdomains);
            check(&DOMAIN, text, with_subdomains);
        }
        for text in ["*", "*@*", "sales*@example.com", "*example.com", "a@*.example.com"] {
            check(&PATTERN, text, nothing);
            check(&MAILBOX, text, nothing);
        }
        check(&MAILBOX, "*@example.com", nothing);
        check(
            &MAILBOX,
            "\"*\"@example.com",
            Ok("Mailbox { local_part: LocalPart(\"\\\"*\\\"\"), host: Domain(Domain(example.com)) }"),
        );
        check(
            &CLIENT,
            "*.example.com",
            Err("write \"example.com\" for the hosts of the domain and its subdomains"),
        );
        check(
            &INCOMING,
            "*.example.com",
            Err("write \".example.com\" for the subdomains, and \"example.com\" for itself"),
        );
        check(&INCOMING, "*@example.com", Err("write \"example.com\""));
        check(&INCOMING, "@example.com", Err("write \"example.com\""));
    }

    #[test]
    fn servers() {
        check(&MAIL_SERVER, "10.0.0.25", Ok("Address(10.0.0.25:25)"));
        check(&MAIL_SERVER, "2001:db8::1", Ok("Address([2001:db8::1]:25)"));
        check(&MAIL_SERVER, "[2001:db8::1]:2525", Ok("Address([2001:db8::1]:2525)"));
        check(&MAIL_SERVER, "mx_1.example.com", Ok("Host(Domain(mx_1.example.com), 25)"));
        check(&MAIL_SERVER, "exchange:2525", Ok("Host(Domain(exchange), 2525)"));
        for text in [
            "10.0.0.25:0",
            "10.0.0.256",
            "mx.example.com:0",
            "mx.example.com:smtp",
            "mx.example.com:",
            "",
            ":25",
        ] {
            check(&MAIL_SERVER, text, Err(""));
        }
        check(&NAME_SERVER, "ns.example.com", Err("write its address: names are not looked up here"));
        check(&NAME_SERVER, "127.0.0.1", Ok("127.0.0.1:53"));
        check(&SMARTHOST, "relay.example.net", Ok("Name(Domain(relay.example.net))"));
        check(&SMARTHOST, "2001:db8::1", Ok("Ip(2001:db8::1)"));
        check(&SMARTHOST, "relay.example.net:587", Err("the port goes into `port`"));
    }

    #[test]
    fn names() {
        check(&EXTENSIONS, ".EXE", Ok("[\"exe\"]"));
        for text in ["", ".", "*.exe", "tar.gz", "e e"] {
            check(&EXTENSIONS, text, Err(""));
        }
        check(&EXTENSIONS, "@programs", Ok(&format!("{:?}", FileSet::Programs.extensions())));
        let sets =
            "the sets are @common, @gmail, @outlook, @programs, @scripts, @disk-images, @macros, @archives";
        check(&EXTENSIONS, "@comon", Err(sets));
        check(&EXTENSIONS, "@", Err(sets));
        let remedy = "write the extensions here: only lists of addresses, networks, domains and clients come from files";
        check(&EXTENSIONS, "@/etc/mailguard/extensions", Err(remedy));
        check(&INTERFACE, "enp3s0f1np1", Ok("\"enp3s0f1np1\""));
        check(&INTERFACE, "a-name-of-more-than-15-letters", Ok("\"a-name-of-more-than-15-letters\""));
        let too_long = "x".repeat(128);
        for text in ["", "..", "a/b", &too_long] {
            check(&INTERFACE, text, Err(""));
        }
        check(&ZONE_NAME, "dmz-2", Ok("\"dmz-2\""));
        check(&ZONE_NAME, "dmz 2", Err(""));
        check(&USER, "mailguard", Ok("\"mailguard\""));
        check(&USER, "0", Err(""));
        check(&PATH, "relative", Err(""));
    }
}
