//! The service extensions that we offer in answer to EHLO (RFC 5321 §4.1.1.1, §2.2).
//!
//! Each is offered here and nowhere else; what it allows is carried out in `command` and `server`.

use std::fmt;

/// One line of the answer to EHLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// Commands may be sent in groups (RFC 2920).
    Pipelining,
    /// Messages of up to this many octets, and MAIL may say how large one is (RFC 1870).
    Size(u64),
    /// Content may hold octets above 127 (RFC 6152).
    EightBitMime,
    /// Replies carry enhanced status codes (RFC 2034).
    EnhancedStatusCodes,
    /// Content may come in chunks of a size that is said before (RFC 3030).
    Chunking,
    /// MAIL and RCPT may say what reports the sender wants (RFC 3461).
    Dsn,
    /// Addresses and header may hold more than ASCII (RFC 6531).
    SmtpUtf8,
    /// The session may go on encrypted (RFC 3207).
    StartTls,
    /// The client may authenticate (RFC 4954).
    Auth,
}

/// What every client is offered; the limit of a message's size is in octets.
pub fn offered_to_all(max_message_octets: u64) -> [Extension; 7] {
    [
        Extension::Pipelining,
        Extension::Size(max_message_octets),
        Extension::EightBitMime,
        Extension::EnhancedStatusCodes,
        Extension::Chunking,
        Extension::Dsn,
        Extension::SmtpUtf8,
    ]
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extension::Pipelining => f.write_str("PIPELINING"),
            Extension::Size(octets) => write!(f, "SIZE {octets}"),
            Extension::EightBitMime => f.write_str("8BITMIME"),
            Extension::EnhancedStatusCodes => f.write_str("ENHANCEDSTATUSCODES"),
            Extension::Chunking => f.write_str("CHUNKING"),
            Extension::Dsn => f.write_str("DSN"),
            Extension::SmtpUtf8 => f.write_str("SMTPUTF8"),
            Extension::StartTls => f.write_str("STARTTLS"),
            Extension::Auth => f.write_str("AUTH PLAIN LOGIN"),
        }
    }
}
