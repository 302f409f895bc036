//! Domain names as mail uses them (RFC 5321 §2.3.5, RFC 5890 for internationalised ones).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest domain name in octets (RFC 5321 §4.5.3.1.2).
pub const MAX_DOMAIN_OCTETS: usize = 255;

/// Longest label in octets (RFC 1035 §2.3.4).
const MAX_LABEL_OCTETS: usize = 63;

/// A syntactically valid domain name, kept as it was written and, for every comparison, as lower-case
/// A-labels.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain {
    written: String,
    ascii: String,
}

/// Why a text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing, or only a dot.
    #[error("a domain name is empty")]
    Empty,
    /// More than [`MAX_DOMAIN_OCTETS`].
    #[error("a domain name is longer than {MAX_DOMAIN_OCTETS} octets")]
    TooLong,
    /// An empty or overlong label, or a character that no host name holds.
    #[error(
        "\"{0}\" is not a domain name: labels hold letters, digits, '-' and '_', 1 to {MAX_LABEL_OCTETS} octets"
    )]
    Label(String),
}

impl Domain {
    /// Parses a domain name; one trailing dot is accepted and removed.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let written = text.strip_suffix('.').unwrap_or(text);
        if written.is_empty() {
            return Err(DomainError::Empty);
        }
        let ascii = if written.is_ascii() {
            written.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(written).map_err(|_| DomainError::Label(written.to_owned()))?
        };
        if ascii.len() > MAX_DOMAIN_OCTETS {
            return Err(DomainError::TooLong);
        }
        if !ascii.split('.').all(is_label) {
            return Err(DomainError::Label(written.to_owned()));
        }
        Ok(Self { written: written.to_owned(), ascii })
    }

    /// The name as it was written, for the wire and for people.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The name in lower-case A-labels, for comparison and for the DNS.
    pub fn ascii(&self) -> &str {
        &self.ascii
    }

    /// The name as it was written where that is ASCII, in A-labels elsewhere: what anybody can read and any
    /// server take.
    pub fn in_ascii(&self) -> &str {
        if self.written.is_ascii() { &self.written } else { &self.ascii }
    }

    /// Whether this name is `parent` or lies below it.
    pub fn is_within(&self, parent: &Domain) -> bool {
        match self.ascii.strip_suffix(parent.ascii.as_str()) {
            Some(rest) => rest.is_empty() || rest.ends_with('.'),
            None => false,
        }
    }

    /// Whether the name has at least two labels.
    pub fn is_fully_qualified(&self) -> bool {
        self.ascii.contains('.')
    }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_OCTETS).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.ascii == other.ascii
    }
}
impl Eq for Domain {}
impl std::hash::Hash for Domain {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.ascii.hash(state);
    }
}
impl PartialOrd for Domain {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Domain {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.ascii.cmp(&other.ascii)
    }
}
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}
impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.written)
    }
}
impl TryFrom<String> for Domain {
    type Error = DomainError;
    fn try_from(text: String) -> Result<Self, DomainError> {
        Self::parse(&text)
    }
}
impl From<Domain> for String {
    fn from(domain: Domain) -> String {
        domain.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, DomainError>) {
        assert_eq!(Domain::parse(text).map(|d| d.ascii().to_owned()), expect.map(str::to_owned), "{text}");
    }

    #[test]
    fn domain_name_syntax() {
        check("Example.COM", Ok("example.com"));
        check("example.com.", Ok("example.com"));
        check("bücher.example", Ok("xn--bcher-kva.example"));
        check("", Err(DomainError::Empty));
        check("a..b", Err(DomainError::Label("a..b".into())));
        check("-a.b", Err(DomainError::Label("-a.b".into())));
        check("a b.c", Err(DomainError::Label("a b.c".into())));
        check(&"a.".repeat(200), Err(DomainError::TooLong));
    }

    #[test]
    fn subdomains_match_whole_labels_only() {
        let parent = Domain::parse("example.com").unwrap();
        for (name, within) in
            [("example.com", true), ("a.EXAMPLE.com", true), ("badexample.com", false), ("com", false)]
        {
            assert_eq!(Domain::parse(name).unwrap().is_within(&parent), within, "{name}");
        }
    }
}
