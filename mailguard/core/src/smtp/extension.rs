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
}

/// What a server with this size limit, in octets, offers.
pub fn offered(max_message_octets: u64) -> [Extension; 5] {
    [
        Extension::Pipelining,
        Extension::Size(max_message_octets),
        Extension::EightBitMime,
        Extension::EnhancedStatusCodes,
        Extension::Chunking,
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
        }
    }
}
