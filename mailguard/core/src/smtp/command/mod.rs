//! Command lines of a client as values (RFC 5321 §4.1.1 to §4.1.3; RFC 3030, RFC 3207 and RFC 4954 for
//! further commands).
//!
//! The arguments of MAIL and RCPT are `parameter`'s. What is written wrongly becomes a typed error with one
//! reply each. Whether a command may come now is for `server`, whether we want what it says for `policy`.

mod parameter;

use std::fmt;

use crate::mail::{AddressError, BodyType, DsnReturn, Recipient, ReversePath};

use super::enhanced_status::Detail;
use super::line::{COMMAND_LINE_OCTETS, MAIL_PARAMETER_OCTETS, RCPT_PARAMETER_OCTETS};
use super::reply::{Reply, ReplyCode};

use parameter::{parse_mail, parse_rcpt};

/// Most digits of a SIZE value (RFC 1870 §3).
const SIZE_DIGITS: usize = 20;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO
    Helo(HeloName),
    /// EHLO
    Ehlo(HeloName),
    /// MAIL
    Mail(MailCommand),
    /// RCPT
    Rcpt(RcptCommand),
    /// DATA
    Data,
    /// BDAT: that many octets of content follow (RFC 3030 §2).
    Bdat(Chunk),
    /// RSET
    Rset,
    /// NOOP, its argument ignored.
    Noop,
    /// HELP, its argument ignored.
    Help,
    /// VRFY, whomever it asks about.
    Vrfy,
    /// QUIT
    Quit,
    /// STARTTLS (RFC 3207 §4).
    StartTls,
    /// AUTH (RFC 4954 §4).
    Auth(AuthCommand),
}

/// The arguments of MAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailCommand {
    /// FROM
    pub reverse_path: ReversePath,
    /// SIZE= in octets; a number past `u64` is the largest `u64`.
    pub size: Option<u64>,
    /// BODY=
    pub body: BodyType,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// RET=
    pub dsn_return: Option<DsnReturn>,
    /// ENVID=, as it stands.
    pub envelope_id: Option<String>,
}

/// The arguments of RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptCommand {
    /// TO, NOTIFY=, ORCPT=
    pub recipient: Recipient,
    /// A path or a parameter is written in more than ASCII, which MAIL must have announced (RFC 6531 §3.4).
    pub needs_utf8: bool,
}

/// The arguments of AUTH.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthCommand {
    /// In upper case.
    pub mechanism: String,
    /// The initial response, as it stands.
    pub initial: Option<String>,
}

/// Without the response: it holds a password.
impl fmt::Debug for AuthCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthCommand").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// The arguments of BDAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Octets that follow the command; a number past `u64` is the largest `u64`.
    pub octets: u64,
    /// Whether the message ends with them.
    pub last: bool,
}

/// The argument of HELO or EHLO: what the client says it is called. Text without control characters; many
/// real clients send no domain, so its syntax is a question of policy. Empty only where
/// [`Strictness::Lenient`] lets it be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeloName(String);

impl HeloName {
    /// The text as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a line is no command that we carry out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Longer than its limit.
    #[error("Line too long")]
    TooLong,
    /// A control character, a bare CR or LF among them.
    #[error("Command holds a control character or a bare CR or LF")]
    Control,
    /// Nothing we know.
    #[error("Command not recognised")]
    Unrecognised,
    /// A command of RFC 5321, or of an extension that isn't offered.
    #[error("Command not implemented")]
    NotImplemented,
    /// The arguments are wrong; this is how to write it.
    #[error("Syntax: {0}")]
    Syntax(&'static str),
    /// MAIL's path holds no address.
    #[error("Bad sender address: {0}")]
    ReversePath(AddressError),
    /// RCPT's path holds no address.
    #[error("Bad recipient address: {0}")]
    ForwardPath(AddressError),
    /// An address outside ASCII, which needs SMTPUTF8 (RFC 6531 §3.5).
    #[error("Address holds characters outside ASCII")]
    NotAscii,
    /// A parameter that we know with a value that it can't have, or a second time.
    #[error("Bad parameter {0}")]
    Parameter(&'static str),
    /// A parameter of no extension that is offered.
    #[error("Parameter not recognised")]
    UnknownParameter,
    /// BDAT without a size: where the next command begins can't be told.
    #[error("Syntax: BDAT octets [LAST]")]
    Chunk,
}

impl CommandError {
    /// The reply to the line (RFC 5321 §4.2.4, RFC 3463 §3.2, §3.6).
    pub fn reply(&self) -> Reply {
        let (code, detail) = match self {
            CommandError::TooLong | CommandError::Control => (ReplyCode::SYNTAX_ERROR, Detail::SYNTAX_ERROR),
            CommandError::Unrecognised => (ReplyCode::SYNTAX_ERROR, Detail::INVALID_COMMAND),
            CommandError::NotImplemented => (ReplyCode::NOT_IMPLEMENTED, Detail::INVALID_COMMAND),
            CommandError::Syntax(_) | CommandError::Chunk => {
                (ReplyCode::PARAMETER_SYNTAX_ERROR, Detail::SYNTAX_ERROR)
            }
            CommandError::Parameter(_) => (ReplyCode::PARAMETER_SYNTAX_ERROR, Detail::INVALID_ARGUMENTS),
            CommandError::ReversePath(_) => (ReplyCode::PARAMETER_SYNTAX_ERROR, Detail::BAD_SENDER_SYNTAX),
            CommandError::ForwardPath(_) => {
                (ReplyCode::PARAMETER_SYNTAX_ERROR, Detail::BAD_DESTINATION_SYNTAX)
            }
            CommandError::NotAscii => (ReplyCode::MAILBOX_NAME_NOT_ALLOWED, Detail::NON_ASCII_ADDRESSES),
            CommandError::UnknownParameter => {
                (ReplyCode::PARAMETER_NOT_RECOGNISED, Detail::INVALID_ARGUMENTS)
            }
        };
        Reply::new(code, detail, self.to_string())
    }
}

const AUTH_SYNTAX: &str = "AUTH mechanism [initial-response]";

/// How closely a line must keep to the grammar (RFC 5321 §4.1.1, §4.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// As it is written there, spaces before a path forgiven: who sends spam often doesn't.
    Strict,
    /// Paths without <> and HELO or EHLO without a name are taken, too: printers, scanners and scripts send
    /// them.
    Lenient,
}

impl Command {
    /// Parses a line without its CRLF. White space at its end is ignored (RFC 5321 §4.1.1).
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        Self::parse_as(line, Strictness::Strict)
    }

    /// As [`Command::parse`], as closely as `strictness` says.
    pub fn parse_as(line: &[u8], strictness: Strictness) -> Result<Self, CommandError> {
        // Whatever is wrong with it: content of unknown length follows.
        let is_bdat = line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
            && line.get(4).is_none_or(|octet| !octet.is_ascii_graphic());
        Self::parse_any(line, strictness).map_err(|error| if is_bdat { CommandError::Chunk } else { error })
    }

    fn parse_any(line: &[u8], strictness: Strictness) -> Result<Self, CommandError> {
        if line.iter().any(|&octet| octet.is_ascii_control() && octet != b'\t') {
            return Err(CommandError::Control);
        }
        let text = line.trim_ascii_end();
        let end = text.iter().position(|&octet| octet == b' ' || octet == b'\t').unwrap_or(text.len());
        let (verb, argument) = (&text[..end], text[end..].trim_ascii_start());
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        let limit = match verb {
            _ if is(b"MAIL") => COMMAND_LINE_OCTETS + MAIL_PARAMETER_OCTETS,
            _ if is(b"RCPT") => COMMAND_LINE_OCTETS + RCPT_PARAMETER_OCTETS,
            // Initial responses are longer than RFC 4954 §4 lets them be, and do no harm.
            _ if is(b"AUTH") => usize::MAX,
            _ => COMMAND_LINE_OCTETS,
        };
        if line.len() + 2 > limit {
            return Err(CommandError::TooLong);
        }
        if is(b"MAIL") {
            parse_mail(argument, strictness).map(Command::Mail)
        } else if is(b"RCPT") {
            parse_rcpt(argument, strictness).map(Command::Rcpt)
        } else if is(b"DATA") {
            alone(argument, Command::Data, "DATA")
        } else if is(b"BDAT") {
            parse_bdat(argument).map(Command::Bdat)
        } else if is(b"EHLO") {
            parse_helo(argument, strictness, "EHLO hostname").map(Command::Ehlo)
        } else if is(b"HELO") {
            parse_helo(argument, strictness, "HELO hostname").map(Command::Helo)
        } else if is(b"RSET") {
            alone(argument, Command::Rset, "RSET")
        } else if is(b"QUIT") {
            alone(argument, Command::Quit, "QUIT")
        } else if is(b"NOOP") {
            Ok(Command::Noop)
        } else if is(b"HELP") {
            Ok(Command::Help)
        } else if is(b"VRFY") {
            if argument.is_empty() { Err(CommandError::Syntax("VRFY address")) } else { Ok(Command::Vrfy) }
        } else if is(b"STARTTLS") {
            alone(argument, Command::StartTls, "STARTTLS")
        } else if is(b"AUTH") {
            parse_auth(argument).map(Command::Auth)
        } else if [b"EXPN", b"TURN", b"SEND", b"SOML", b"SAML", b"ETRN"].iter().any(|name| is(*name)) {
            Err(CommandError::NotImplemented)
        } else {
            Err(CommandError::Unrecognised)
        }
    }
}

fn alone(argument: &[u8], command: Command, syntax: &'static str) -> Result<Command, CommandError> {
    if argument.is_empty() { Ok(command) } else { Err(CommandError::Syntax(syntax)) }
}

fn parse_helo(
    argument: &[u8],
    strictness: Strictness,
    syntax: &'static str,
) -> Result<HeloName, CommandError> {
    if argument.is_empty() && strictness == Strictness::Strict {
        return Err(CommandError::Syntax(syntax));
    }
    Ok(HeloName(String::from_utf8_lossy(argument).into_owned()))
}

/// RFC 4954 §4: `AUTH SP sasl-mech [SP initial-response]`
fn parse_auth(argument: &[u8]) -> Result<AuthCommand, CommandError> {
    let wrong = CommandError::Syntax(AUTH_SYNTAX);
    let Ok(argument) = std::str::from_utf8(argument) else { return Err(wrong) };
    let mut words = argument.split_ascii_whitespace();
    let (mechanism, initial) = match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => (mechanism.to_ascii_uppercase(), initial.map(str::to_owned)),
        _ => return Err(wrong),
    };
    Ok(AuthCommand { mechanism, initial })
}

/// 1*20DIGIT, as SIZE and BDAT have it; past `u64` the largest.
fn number(digits: &[u8]) -> Option<u64> {
    let right = (1..=SIZE_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    right.then(|| digits.iter().fold(0, add))
}

/// RFC 3030 §2: `BDAT SP chunk-size [SP "LAST"]`
fn parse_bdat(argument: &[u8]) -> Result<Chunk, CommandError> {
    let mut words = argument.split(|&octet| octet == b' ').filter(|word| !word.is_empty());
    let octets = words.next().and_then(number).ok_or(CommandError::Chunk)?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Chunk { octets, last: false }),
        (Some(word), None) if word.eq_ignore_ascii_case(b"LAST") => Ok(Chunk { octets, last: true }),
        _ => Err(CommandError::Chunk),
    }
}

#[cfg(test)]
mod tests;
