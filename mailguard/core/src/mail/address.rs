//! Mailboxes and the two kinds of SMTP path (RFC 5321 §4.1.2, RFC 6531 §3.3 for UTF-8 local parts).
//!
//! Dots may stand anywhere in a local part: carriers gave `a..b@` and `abc.@` to millions of people before
//! they knew the grammar, and mail from and to those is mail. It leaves as it came, for quotes would make
//! another address of it to them.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::domain::{Domain, DomainError};

/// Longest local part in octets (RFC 5321 §4.5.3.1.1).
pub const MAX_LOCAL_PART_OCTETS: usize = 64;

/// Why a text is not a mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no '@' that separates local part and domain.
    #[error("an address is written local-part@domain")]
    NoAt,
    /// Neither words with dots nor a quoted string.
    #[error(
        "the local part is neither a dot-string nor a quoted string of at most {MAX_LOCAL_PART_OCTETS} octets"
    )]
    LocalPart,
    /// The part after '@' isn't a domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The part after '@' is a malformed address literal.
    #[error("an address literal is written [192.0.2.1] or [IPv6:2001:db8::1]")]
    Literal,
}

/// The part before the '@', as it stands on the wire (quotes kept).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalPart(String);

impl LocalPart {
    /// Parses a dot-string, superfluous dots allowed, or a quoted string.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let fits = (1..=MAX_LOCAL_PART_OCTETS).contains(&text.len());
        if fits && (is_dot_string(text) || is_quoted_string(text)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AddressError::LocalPart)
        }
    }

    /// The wire form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which lists compare: quotes and escapes removed where they change nothing, lower case.
    pub fn comparison_key(&self) -> String {
        let Some(inner) = self.0.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
            return self.0.to_lowercase();
        };
        let mut key = String::with_capacity(inner.len());
        let mut characters = inner.chars();
        while let Some(c) = characters.next() {
            let c = if c == '\\' { characters.next().unwrap_or(c) } else { c };
            key.extend(c.to_lowercase());
        }
        key
    }
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

fn is_dot_string(text: &str) -> bool {
    text.chars().all(|c| c == '.' || is_atext(c)) && !text.chars().all(|c| c == '.')
}

fn is_quoted_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return false };
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(escaped) if !escaped.is_control() => {}
                _ => return false,
            },
            '"' => return false,
            c if c.is_control() => return false,
            _ => {}
        }
    }
    text.len() >= 2
}

/// A host given by address, `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressLiteral(pub IpAddr);

impl AddressLiteral {
    /// Parses the literal with its brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or(AddressError::Literal)?;
        let tagged = inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let address = if tagged {
            inner[5..].parse().map(IpAddr::V6).map_err(|_| AddressError::Literal)?
        } else {
            inner.parse().map(IpAddr::V4).map_err(|_| AddressError::Literal)?
        };
        Ok(Self(address))
    }
}

impl fmt::Display for AddressLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "[{address}]"),
            IpAddr::V6(address) => write!(f, "[IPv6:{address}]"),
        }
    }
}

/// What stands after the '@'.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Host {
    /// A name.
    Domain(Domain),
    /// An address.
    Literal(AddressLiteral),
}

impl Host {
    /// Parses a domain or an address literal.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('[') {
            AddressLiteral::parse(text).map(Host::Literal)
        } else {
            Ok(Host::Domain(Domain::parse(text)?))
        }
    }

    /// The domain name, if it is one.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Host::Domain(domain) => Some(domain),
            Host::Literal(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Domain(domain) => domain.fmt(f),
            Host::Literal(literal) => literal.fmt(f),
        }
    }
}

/// `local-part@host`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mailbox {
    /// Before the '@'.
    pub local_part: LocalPart,
    /// After it.
    pub host: Host,
}

impl Mailbox {
    /// Parses `local-part@host`; the last '@' outside quotes separates.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = text.rfind('@').ok_or(AddressError::NoAt)?;
        Ok(Self { local_part: LocalPart::parse(&text[..at])?, host: Host::parse(&text[at + 1..])? })
    }

    /// The domain name, unless the host is an address literal.
    pub fn domain(&self) -> Option<&Domain> {
        self.host.domain()
    }

    /// Whether both name the same mailbox as far as lists are concerned (letter case ignored).
    pub fn same_as(&self, other: &Mailbox) -> bool {
        self.host == other.host && self.local_part.comparison_key() == other.local_part.comparison_key()
    }

    /// The address in ASCII, its domain in A-labels if need be. Nothing where the local part isn't ASCII: it
    /// has no other form.
    pub fn in_ascii(&self) -> Option<String> {
        let local_part = self.local_part.as_str();
        local_part.is_ascii().then(|| match &self.host {
            Host::Domain(domain) => format!("{local_part}@{}", domain.in_ascii()),
            Host::Literal(_) => self.to_string(),
        })
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part.as_str(), self.host)
    }
}
impl TryFrom<String> for Mailbox {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}
impl From<Mailbox> for String {
    fn from(mailbox: Mailbox) -> String {
        mailbox.to_string()
    }
}

/// Where failures are reported: MAIL FROM's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReversePath {
    /// `<>`: a notification that must never be answered with another.
    #[serde(rename = "Null")]
    Null,
    /// A sender.
    #[serde(rename = "Mailbox")]
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The sender, unless the path is null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

/// The path with its angle brackets.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => f.write_str("<>"),
            ReversePath::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

/// Where a message goes: RCPT TO's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain (RFC 5321 §4.5.1).
    #[serde(rename = "Postmaster")]
    Postmaster,
    /// A recipient.
    #[serde(rename = "Mailbox")]
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// The recipient, unless it is the bare postmaster.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ForwardPath::Postmaster => None,
            ForwardPath::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

/// The path with its angle brackets.
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardPath::Postmaster => f.write_str("<postmaster>"),
            ForwardPath::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, AddressError>) {
        assert_eq!(Mailbox::parse(text).map(|m| m.to_string()), expect.map(str::to_owned), "{text}");
    }

    #[test]
    fn mailboxes() {
        check("a.b+c@example.com", Ok("a.b+c@example.com"));
        check("\"a b@c\"@example.com", Ok("\"a b@c\"@example.com"));
        check("\"a\\\"b\"@example.com", Ok("\"a\\\"b\"@example.com"));
        check("jörg@bücher.example", Ok("jörg@bücher.example"));
        check("a@[192.0.2.1]", Ok("a@[192.0.2.1]"));
        check("a@[ipv6:2001:DB8::1]", Ok("a@[IPv6:2001:db8::1]"));
        check("example.com", Err(AddressError::NoAt));
        check("...@example.com", Err(AddressError::LocalPart));
        check("a b@example.com", Err(AddressError::LocalPart));
        check("\"a\"b\"@example.com", Err(AddressError::LocalPart));
        check("\"@example.com", Err(AddressError::LocalPart));
        check("a\r\n@example.com", Err(AddressError::LocalPart));
        check("a@[192.0.2]", Err(AddressError::Literal));
        check("a@[2001:db8::1]", Err(AddressError::Literal));
        check("a@", Err(AddressError::Domain(DomainError::Empty)));
        check(&format!("{}@b.c", "a".repeat(65)), Err(AddressError::LocalPart));
    }

    #[test]
    fn dots_stand_where_carriers_let_them() {
        for address in
            ["a..b@docomo.example", "abc.@docomo.example", ".abc@docomo.example", "a...b.@ezweb.example"]
        {
            check(address, Ok(address));
            assert_eq!(Mailbox::parse(address).unwrap().in_ascii().as_deref(), Some(address));
        }
        let plain = Mailbox::parse("a.b@docomo.example").unwrap();
        assert!(!plain.same_as(&Mailbox::parse("a..b@docomo.example").unwrap()), "another subscriber");
        assert!(
            Mailbox::parse("A..B@docomo.example")
                .unwrap()
                .same_as(&Mailbox::parse("\"a..b\"@docomo.example").unwrap())
        );
    }

    #[test]
    fn addresses_in_ascii() {
        let ascii = |text: &str| Mailbox::parse(text).unwrap().in_ascii();
        assert_eq!(ascii("J.Doe@Example.com").as_deref(), Some("J.Doe@Example.com"));
        assert_eq!(ascii("a@bücher.example").as_deref(), Some("a@xn--bcher-kva.example"));
        assert_eq!(ascii("a@[192.0.2.1]").as_deref(), Some("a@[192.0.2.1]"));
        assert_eq!(ascii("jörg@example.com"), None);
    }

    #[test]
    fn lists_compare_without_case_or_needless_quotes() {
        let written = Mailbox::parse("\"J.Doe\"@Example.com").unwrap();
        assert!(written.same_as(&Mailbox::parse("j.doe@example.COM").unwrap()));
        assert!(!written.same_as(&Mailbox::parse("j.do@example.com").unwrap()));
    }
}
