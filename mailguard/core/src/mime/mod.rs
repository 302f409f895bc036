//! One walk over a message's octets that feeds every content check: each part, decoded, with every name it
//! could have (RFC 2045, 2046, 2047, 2183, 2231, 5322).
//!
//! Mail readers disagree about malformed messages, and a filter that reads one way where the reader reads
//! another is passed unseen. So wherever readers are known to differ, each reading is walked and all of them
//! yield parts:
//!
//! | ambiguity | readings |
//! |---|---|
//! | two different boundaries, in one Content-Type or in several | the body is split by each |
//! | duplicate or conflicting Content-Type | container and leaf, whichever any of them says |
//! | duplicate or conflicting Content-Disposition | the names of all |
//! | duplicate or conflicting Content-Transfer-Encoding | decoded by each |
//! | unknown transfer encoding | as it stands, as base64, as quoted-printable |
//! | a transfer encoding on a multipart or a message | the body as it stands, and decoded |
//! | a boundary: empty, folded, in single quotes, with control characters, encoded, longer than 70 | see `boundary` |
//! | a parameter: comments, escapes, quotes that nothing closes, where a token ends | see `parameter` |
//! | multipart without a boundary, or with none that splits it | the first line that begins with `--`, or the last, gives one |
//! | a boundary on a type that isn't multipart | leaf, and split |
//! | multipart without its delimiters | a leaf |
//! | no closing delimiter | to the end of the enclosing part, and on past the enclosing delimiters |
//! | boundary that is the prefix of a line, delimiter after a bare CR | exact lines only, and the loose ones too |
//! | content before the first or after the closing delimiter | a part like any other |
//! | header without an empty line: a line without a colon, a blank line, bare CR | header ends there, or goes on |
//! | a delimiter within a header | the part ends there, or goes on to the end of the enclosing one |
//! | content field without a colon, behind white space or a byte order mark | no field, or one |
//! | octets outside base64's alphabet | skipped; the end |
//! | padding inside base64 | a new quantum begins; the end; skipped |
//! | base64's URL alphabet | junk, and as digits |
//! | names: encoded words, RFC 2231, both, percent, quoted or not, folded, marks | see [`names`] |
//! | uuencoded files inside text | the text, and the file |
//! | a message under a file name | a leaf, and a message |
//!
//! Everything is bounded: nested messages, parts, decoded octets and time by the [`Budget`], which what opens
//! archives spends from, too, and by the constants here what an honest message never reaches. A walk that
//! meets a bound stops and says which. What the parts mean is left to the checks; archives are opened
//! elsewhere.

mod boundary;
mod budget;
mod encoding;
mod header;
pub mod names;
mod parameter;
mod part;
pub mod seven_bit;
#[cfg(test)]
mod tests;
mod uuencode;
mod walk;
pub mod words;

use std::collections::BTreeSet;
use std::fmt;

pub use budget::{Budget, Limit, Limits, RATIO_FREE_OCTETS};
pub use header::subject;
pub use part::{Part, PartKind, PartPath};

/// Deepest nesting of multiparts, in all the nested messages together.
pub const MAX_MULTIPART_NESTING: usize = 32;
/// Deepest nesting of messages, whatever the configuration says: protects the stack.
pub const MAX_MESSAGE_NESTING: usize = 64;
/// Most Content-* fields that one part's header may hold.
pub const MAX_CONTENT_FIELDS: usize = 64;
/// Most parameters that one field may hold.
pub const MAX_PARAMETERS: usize = 256;
/// Most boundaries that one part may declare, each reading one of them.
pub const MAX_BOUNDARIES: usize = 16;
/// Longest Content-* field of a part, octets.
pub const MAX_CONTENT_FIELD_OCTETS: usize = 64 * 1024;
/// All readings together may look at each octet this many times on average ...
pub const MAX_READINGS: u64 = 48;
/// ... and at this many octets besides, so that small messages are not judged by their size.
pub const MIN_EXAMINED_OCTETS: u64 = 4 * 1024 * 1024;

/// A place where mail readers differ, met in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ambiguity {
    /// More than one boundary.
    Boundaries,
    /// More than one Content-Type.
    Types,
    /// More than one Content-Disposition.
    Dispositions,
    /// More than one Content-Transfer-Encoding.
    Encodings,
    /// A Content-Transfer-Encoding that nobody knows.
    UnknownEncoding,
    /// A multipart or message that is itself encoded.
    EncodedContainer,
    /// A multipart that names no boundary, or none that is there.
    NoBoundary,
    /// A multipart without closing delimiter.
    NoClose,
    /// Delimiter lines that only some readers take for such.
    LooseDelimiter,
    /// A header whose end is in doubt.
    HeaderEnd,
    /// A header where the first delimiter should be.
    Preamble,
    /// A header after the closing delimiter.
    Epilogue,
    /// Octets in base64 that don't belong there.
    Base64Junk,
    /// Padding in the middle of base64.
    Base64Padding,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ambiguity::Boundaries => "two boundaries",
            Ambiguity::Types => "two content types",
            Ambiguity::Dispositions => "two content dispositions",
            Ambiguity::Encodings => "two transfer encodings",
            Ambiguity::UnknownEncoding => "unknown transfer encoding",
            Ambiguity::EncodedContainer => "encoded container",
            Ambiguity::NoBoundary => "no boundary named",
            Ambiguity::NoClose => "no closing delimiter",
            Ambiguity::LooseDelimiter => "loose delimiters",
            Ambiguity::HeaderEnd => "unclear end of header",
            Ambiguity::Preamble => "content in the preamble",
            Ambiguity::Epilogue => "content in the epilogue",
            Ambiguity::Base64Junk => "junk in base64",
            Ambiguity::Base64Padding => "padding inside base64",
        })
    }
}

/// What a walk came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Parts met, all readings together.
    pub parts: usize,
    /// Where readers differ.
    pub ambiguities: BTreeSet<Ambiguity>,
    /// The bound that ended the walk early.
    pub exceeded: Option<Limit>,
}

/// Walks a whole message, header included, spending from the budget, and shows every part to `visit`. It may
/// open what it is shown, within the same budget: a limit that it meets ends the walk.
pub fn walk(
    message: &[u8],
    budget: &Budget<'_>,
    visit: &mut dyn FnMut(&Part<'_>) -> Result<(), Limit>,
) -> Summary {
    walk::Walker::new(message, budget, visit).run(message)
}
