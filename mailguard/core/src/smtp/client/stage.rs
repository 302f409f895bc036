//! What a session waits for, and how long (RFC 5321 §4.5.3.2).

use std::fmt;
use std::time::Duration;

/// For the greeting.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// For the reply to EHLO, HELO or RSET: the RFC names none; that of MAIL.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// For the reply to MAIL.
pub const MAIL_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// For the reply to each RCPT.
pub const RCPT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// For the reply to DATA.
pub const DATA_TIMEOUT: Duration = Duration::from_secs(2 * 60);
/// For the server to take a block of the content.
pub const BLOCK_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// For the reply to the final dot.
pub const END_OF_DATA_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// For each reply to AUTH, which may ask elsewhere (RFC 4954 §4); that of MAIL.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// For the TLS handshake: who takes longer takes mail in the clear sooner.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// For the reply to QUIT. Nothing depends on it, so we don't wait as long as we might.
pub const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the server is to answer or to take next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its greeting.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// The TLS handshake.
    Handshake,
    /// AUTH and what belongs to it.
    Auth,
    /// RSET.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The content.
    Content,
    /// The final dot.
    EndOfData,
    /// QUIT.
    Quit,
}

impl Stage {
    /// How long the server may take.
    pub const fn timeout(self) -> Duration {
        match self {
            Stage::Greeting => GREETING_TIMEOUT,
            Stage::Ehlo | Stage::Helo | Stage::StartTls | Stage::Reset => HELLO_TIMEOUT,
            Stage::Handshake => HANDSHAKE_TIMEOUT,
            Stage::Auth => AUTH_TIMEOUT,
            Stage::Mail => MAIL_TIMEOUT,
            Stage::Rcpt => RCPT_TIMEOUT,
            Stage::Data => DATA_TIMEOUT,
            Stage::Content => BLOCK_TIMEOUT,
            Stage::EndOfData => END_OF_DATA_TIMEOUT,
            Stage::Quit => QUIT_TIMEOUT,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Greeting => "connection",
            Stage::Ehlo => "EHLO",
            Stage::Helo => "HELO",
            Stage::StartTls => "STARTTLS",
            Stage::Handshake => "TLS handshake",
            Stage::Auth => "AUTH",
            Stage::Reset => "RSET",
            Stage::Mail => "MAIL FROM",
            Stage::Rcpt => "RCPT TO",
            Stage::Data => "DATA",
            Stage::Content => "content",
            Stage::EndOfData => "end of data",
            Stage::Quit => "QUIT",
        })
    }
}
