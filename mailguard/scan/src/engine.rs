//! What an engine is: it is shown every part of a message, in every reading, and says at the end what it
//! thinks.
//!
//! An engine that must be asked about the whole message, over a socket, is none of these: those wait, and
//! stand in `mailguard`'s own `scan`.

use mailguard_core::finding::{Check, Finding};
use mailguard_core::mime::{Part, Summary};

/// A content check that computes. One serves all messages at once.
pub trait PartEngine: Send + Sync {
    /// The name under which its findings stand. What it counts as when it fails, or when a message isn't seen
    /// to its end, is derived from that check's family.
    fn check(&self) -> Check;

    /// Begins a message.
    fn begin(&self) -> Box<dyn Tally + '_>;
}

/// What an engine has come to about one message so far.
pub trait Tally {
    /// Looks at a part. Parts come in the order of the walk, the message as it stands last
    /// ([`PartKind::Message`](mailguard_core::mime::PartKind::Message)). The engine bounds its own time for
    /// each.
    fn part(&mut self, part: &Part<'_>);

    /// At least one finding. Where the walk ended early a pass is taken out again: whoever has called sees to
    /// that.
    fn finish(self: Box<Self>, walk: &Summary) -> Vec<Finding>;
}
