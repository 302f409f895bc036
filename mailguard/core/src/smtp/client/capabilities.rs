//! What a server offers: the reply to EHLO (RFC 5321 §4.1.1.1), as far as we make use of it.

use crate::config::model::Mechanism;
use crate::smtp::Reply;

/// Extensions of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): the largest message in octets, 0 where no limit is named.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// STARTTLS (RFC 3207).
    pub start_tls: bool,
    /// AUTH (RFC 4954): the mechanisms that we know, too.
    pub auth: Vec<Mechanism>,
}

impl Capabilities {
    /// Reads an EHLO reply; its first line is the greeting. Unknown keywords are ignored.
    pub fn of(ehlo: &Reply) -> Self {
        let mut capabilities = Self::default();
        for line in ehlo.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default();
            if keyword.eq_ignore_ascii_case("PIPELINING") {
                capabilities.pipelining = true;
            } else if keyword.eq_ignore_ascii_case("8BITMIME") {
                capabilities.eight_bit_mime = true;
            } else if keyword.eq_ignore_ascii_case("SMTPUTF8") {
                capabilities.smtputf8 = true;
            } else if keyword.eq_ignore_ascii_case("DSN") {
                capabilities.dsn = true;
            } else if keyword.eq_ignore_ascii_case("CHUNKING") {
                capabilities.chunking = true;
            } else if keyword.eq_ignore_ascii_case("STARTTLS") {
                capabilities.start_tls = true;
            } else if let Some(mechanisms) = auth(line) {
                capabilities.auth = mechanisms;
            } else if keyword.eq_ignore_ascii_case("SIZE") {
                // A limit that can't be read is no limit: the server will say what it thinks at MAIL.
                capabilities.size = Some(words.next().and_then(|word| word.parse().ok()).unwrap_or(0));
            }
        }
        capabilities
    }

    /// Whether a message of this many octets exceeds what the server said it takes.
    pub fn excludes_size(&self, octets: u64) -> bool {
        self.size.is_some_and(|limit| limit != 0 && octets > limit)
    }
}

/// The known mechanisms of an AUTH line; before RFC 4954 some servers wrote "AUTH=" in front of them.
fn auth(line: &str) -> Option<Vec<Mechanism>> {
    let keyword = line.get(..4).filter(|keyword| keyword.eq_ignore_ascii_case("AUTH"))?;
    let mechanisms = line[keyword.len()..].strip_prefix([' ', '='])?;
    let known = |word: &str| Mechanism::ALL.into_iter().find(|known| word.eq_ignore_ascii_case(known.name()));
    Some(mechanisms.split_ascii_whitespace().filter_map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::ReplyCode;

    fn check(lines: &[&str], expect: Capabilities) {
        let lines = std::iter::once(&"mx.example PIPELINING").chain(lines).map(|line| line.to_string());
        assert_eq!(Capabilities::of(&Reply::bare(ReplyCode::OK, lines.collect())), expect);
    }

    #[test]
    fn ehlo_keywords() {
        let none = Capabilities::default;
        check(&[], none());
        check(&["PIPELINING"], Capabilities { pipelining: true, ..none() });
        check(&["pipelining", "8bitMime"], Capabilities { pipelining: true, eight_bit_mime: true, ..none() });
        check(&["SIZE", "XPIPELINING", ""], Capabilities { size: Some(0), ..none() });
        check(
            &["SIZE 35882577", "SMTPUTF8"],
            Capabilities { size: Some(35_882_577), smtputf8: true, ..none() },
        );
        check(&["DSN", "CHUNKING"], Capabilities { dsn: true, chunking: true, ..none() });
        check(&["SIZE many", "starttls"], Capabilities { size: Some(0), start_tls: true, ..none() });
        check(&["SIZE 99999999999999999999"], Capabilities { size: Some(0), ..none() });
        let auth = vec![Mechanism::Plain, Mechanism::CramMd5];
        check(&["AUTH plain GSSAPI CRAM-MD5"], Capabilities { auth: auth.clone(), ..none() });
        check(
            &["AUTH=PLAIN CRAM-MD5", "AUTHENTIC é", "AUT", "AUTé", "abcé", "é", "AUTH"],
            Capabilities { auth, ..none() },
        );
    }

    proptest::proptest! {
        #[test]
        fn any_ehlo_line_is_read(line in "(AUTH|[a-zé=]{0,5})[ =]?.{0,20}") {
            Capabilities::of(&Reply::bare(ReplyCode::OK, vec!["mx".to_owned(), line]));
        }
    }

    #[test]
    fn size_limits() {
        for (size, octets, excluded) in
            [(None, u64::MAX, false), (Some(0), u64::MAX, false), (Some(10), 10, false), (Some(10), 11, true)]
        {
            let capabilities = Capabilities { size, ..Capabilities::default() };
            assert_eq!(capabilities.excludes_size(octets), excluded, "{size:?} {octets}");
        }
    }
}
