//! Where a session stands: each state owns what exists in it only.

use std::time::Instant;

use crate::mail::QueueId;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Exchange;

use super::CloseReason;
use super::receiving::Reception;

/// Where the session stands.
#[derive(Debug)]
pub(super) enum State {
    /// Connected, not greeted yet.
    Connected,
    /// No transaction.
    Ready(Aftermath),
    /// MAIL was given, and waits for its answer.
    JudgingMail {
        /// It said SMTPUTF8.
        smtputf8: bool,
    },
    /// A SASL exchange; the client's next response is due.
    Authenticating(Exchange),
    /// The client has sent its credentials; they are being checked.
    JudgingAuth { user: String },
    /// The client gave the authorization identity of another user; the refusal is due.
    RefusingAuth,
    /// STARTTLS was given; once the reply is written, the driver is told.
    TlsDue,
    /// The driver does the handshake.
    StartingTls,
    /// In a transaction; recipients may be given, or data.
    Collecting(Transaction),
    /// RCPT was given, and waits for its answer.
    JudgingRcpt(Transaction),
    /// Data are coming.
    Receiving(Reception),
    /// A chunk of the data came, and was not the last.
    BetweenChunks(Reception),
    /// A BDAT chunk is being discarded.
    Skipping(UnwantedChunk),
    /// All data came; the message waits for its answer.
    JudgingData(Reference),
    /// The last reply is to be written.
    Closing(CloseReason),
    /// Over.
    Closed,
}

impl State {
    /// No transaction, and no pipelined commands of a refused one to be expected.
    pub(super) const READY: Self = State::Ready(Aftermath::Nothing);
}

/// Which pipelined commands (RFC 2920) of the last transaction may still arrive: the client sent them before
/// it knew, so that they don't count as errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aftermath {
    /// Nothing.
    Nothing,
    /// MAIL was refused; so many commands of its transaction were answered 503 since.
    MailRefused {
        /// Commands so far.
        commands: usize,
    },
    /// A BDAT chunk was refused; those pipelined behind it are discarded.
    ChunkRefused,
}

/// The transaction's id, for the `ref` of refusals, and their character set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    pub(super) id: QueueId,
    /// MAIL said SMTPUTF8.
    pub(super) smtputf8: bool,
}

/// What the protocol must know of a transaction; the envelope is the driver's.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) reference: Reference,
    /// Recipients that were taken.
    pub(super) accepted: usize,
    /// Recipients that were asked about, whatever the answer.
    pub(super) named: usize,
    pub(super) sender: SenderFault,
}

/// Whether a recipient was refused for who the sender is: that is one error a transaction, however many hear
/// of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SenderFault {
    /// None was so far.
    Uncounted,
    /// The error is counted.
    Counted,
}

impl SenderFault {
    /// One more is refused for that: whether the error was counted before.
    pub(super) fn was_counted(&mut self) -> bool {
        std::mem::replace(self, SenderFault::Counted) == SenderFault::Counted
    }
}

impl Transaction {
    /// One without recipients.
    pub(super) fn new(reference: Reference) -> Self {
        Self { reference, accepted: 0, named: 0, sender: SenderFault::Uncounted }
    }
}

/// A BDAT chunk that is discarded, and answered once all of it has arrived (RFC 3030 §2).
#[derive(Debug)]
pub(super) struct UnwantedChunk {
    /// Octets that are still to come.
    pub(super) left: u64,
    pub(super) reply: Reply,
    pub(super) counts: CountsAs,
    /// When all of it must be here.
    pub(super) last_moment: Instant,
    /// The state that follows.
    pub(super) then: Box<State>,
}

/// As what a refused command counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountsAs {
    /// An error of the client's.
    Error,
    /// An idle command: the client had pipelined it.
    Idle,
}
