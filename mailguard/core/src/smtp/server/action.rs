//! What the driver has to do for a session, in the order in which it is handed out.

use crate::credentials::Credentials;
use crate::mail::Recipient;
use crate::smtp::command::MailCommand;
use crate::smtp::refusal::Refusal;

/// One action.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Write these octets, the replies to one or more commands, in one go.
    Write(&'a [u8]),
    /// Find the answer to this question and give it.
    Judge(Question),
    /// The transaction ended without a message: RSET, or EHLO again.
    Abandon,
    /// Forget the transaction and all that the client said, do the TLS handshake as its server, and call
    /// [`super::Server::tls_established`]. If it fails the session is over.
    StartTls,
    /// A body follows: make ready to take it.
    BeginBody,
    /// The next octets of the body, unstuffed, line ends CRLF.
    Body(&'a [u8]),
    /// Discard the body: this refusal will answer the end of data, or of the chunk, whatever else comes.
    RefuseBody(Refusal),
    /// Close the connection; nothing comes after this.
    Close(CloseReason),
}

/// What policy must decide.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    /// May this transaction begin? [`super::Server::answer_mail`]
    Mail(MailCommand),
    /// May this recipient be added? [`super::Server::answer_rcpt`]
    Rcpt(Recipient),
    /// Is the client who it says it is? [`super::Server::answer_auth`]
    Auth(Credentials),
    /// The client gave an authorization identity other than its own, which is refused: with which reply?
    /// [`super::Server::refuse_auth`]
    AuthForAnother {
        /// Who it says it is.
        user: String,
    },
    /// The body is complete: what becomes of it? [`super::Server::answer_data`]
    Data,
}

/// Why a session ended from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said QUIT.
    Quit,
    /// It sent before the greeting: an early talker.
    EarlyTalker,
    /// It sent more where it had to wait for our reply: PIPELINING wasn't offered, or doesn't allow it there.
    Unsynchronised,
    /// It sent content where no command can follow: BDAT without a size, or without EHLO.
    BadChunk,
    /// It made too many errors.
    TooManyErrors,
    /// A timeout passed.
    Timeout,
    /// We are shutting down.
    ShutDown,
}
