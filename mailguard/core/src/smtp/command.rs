//! Command lines of a client as values (RFC 5321 §4.1.1 to §4.1.3; RFC 1870 and RFC 6152 for MAIL's parameters).
//!
//! What is written wrongly becomes a typed error with one reply each. Whether a command may come now is for
//! `server`, whether we want what it says for `policy`.

use std::fmt;

use crate::mail::{AddressError, BodyType, Domain, ForwardPath, Mailbox, ReversePath};

use super::enhanced_status::EnhancedStatus;
use super::line::COMMAND_LINE_OCTETS;
use super::reply::{Reply, ReplyCode};

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
    Rcpt(ForwardPath),
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
}

/// The arguments of BDAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Octets that follow the command; a number past `u64` is the largest `u64`.
    pub octets: u64,
    /// Whether the message ends with them.
    pub last: bool,
}

/// The argument of HELO or EHLO: what the client says it is called. Text without control characters; many real
/// clients send no domain, so its syntax is a question of policy.
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
        let (code, subject, detail) = match self {
            CommandError::TooLong | CommandError::Control => (ReplyCode::SYNTAX_ERROR, 5, 2),
            CommandError::Unrecognised => (ReplyCode::SYNTAX_ERROR, 5, 1),
            CommandError::NotImplemented => (ReplyCode::NOT_IMPLEMENTED, 5, 1),
            CommandError::Syntax(_) | CommandError::Chunk => (ReplyCode::PARAMETER_SYNTAX_ERROR, 5, 2),
            CommandError::Parameter(_) => (ReplyCode::PARAMETER_SYNTAX_ERROR, 5, 4),
            CommandError::ReversePath(_) => (ReplyCode::PARAMETER_SYNTAX_ERROR, 1, 7),
            CommandError::ForwardPath(_) => (ReplyCode::PARAMETER_SYNTAX_ERROR, 1, 3),
            CommandError::NotAscii => (ReplyCode::MAILBOX_NAME_NOT_ALLOWED, 6, 7),
            CommandError::UnknownParameter => (ReplyCode::PARAMETER_NOT_RECOGNISED, 5, 4),
        };
        Reply::new(code, EnhancedStatus::new(5, subject, detail), self.to_string())
    }
}

const MAIL_SYNTAX: &str = "MAIL FROM:<address> [SIZE=octets] [BODY=7BIT|8BITMIME]";
const RCPT_SYNTAX: &str = "RCPT TO:<address>";

impl Command {
    /// Parses a line without its CRLF. White space at its end is ignored (RFC 5321 §4.1.1).
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        // Whatever is wrong with it: content follows, and nobody can tell how much.
        let is_bdat = line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
            && line.get(4).is_none_or(|octet| !octet.is_ascii_graphic());
        Self::parse_any(line).map_err(|error| if is_bdat { CommandError::Chunk } else { error })
    }

    fn parse_any(line: &[u8]) -> Result<Self, CommandError> {
        if line.iter().any(|&octet| octet.is_ascii_control() && octet != b'\t') {
            return Err(CommandError::Control);
        }
        let text = line.trim_ascii_end();
        let end = text.iter().position(|&octet| octet == b' ' || octet == b'\t').unwrap_or(text.len());
        let (verb, argument) = (&text[..end], text[end..].trim_ascii_start());
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        if !is(b"MAIL") && line.len() + 2 > COMMAND_LINE_OCTETS {
            return Err(CommandError::TooLong);
        }
        if is(b"MAIL") {
            parse_mail(argument).map(Command::Mail)
        } else if is(b"RCPT") {
            parse_rcpt(argument).map(Command::Rcpt)
        } else if is(b"DATA") {
            alone(argument, Command::Data, "DATA")
        } else if is(b"BDAT") {
            parse_bdat(argument).map(Command::Bdat)
        } else if is(b"EHLO") {
            parse_helo(argument, "EHLO hostname").map(Command::Ehlo)
        } else if is(b"HELO") {
            parse_helo(argument, "HELO hostname").map(Command::Helo)
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
        } else if [b"EXPN", b"TURN", b"SEND", b"SOML", b"SAML", b"AUTH", b"ETRN"].iter().any(|n| is(*n))
            || is(b"STARTTLS")
        {
            Err(CommandError::NotImplemented)
        } else {
            Err(CommandError::Unrecognised)
        }
    }
}

fn alone(argument: &[u8], command: Command, syntax: &'static str) -> Result<Command, CommandError> {
    if argument.is_empty() { Ok(command) } else { Err(CommandError::Syntax(syntax)) }
}

fn parse_helo(argument: &[u8], syntax: &'static str) -> Result<HeloName, CommandError> {
    if argument.is_empty() {
        return Err(CommandError::Syntax(syntax));
    }
    Ok(HeloName(String::from_utf8_lossy(argument).into_owned()))
}

fn parse_mail(argument: &[u8]) -> Result<MailCommand, CommandError> {
    let (path, parameters) = split_path(argument, b"FROM:", MAIL_SYNTAX)?;
    let reverse_path = match path {
        "" => ReversePath::Null,
        _ => ReversePath::Mailbox(mailbox(path, MAIL_SYNTAX, CommandError::ReversePath)?),
    };
    let (mut size, mut body) = (None, None);
    for parameter in parameters {
        let (keyword, value) = parameter?;
        if keyword.eq_ignore_ascii_case("SIZE") {
            if size.replace(parse_size(value)?).is_some() {
                return Err(CommandError::Parameter("SIZE"));
            }
        } else if keyword.eq_ignore_ascii_case("BODY") {
            if body.replace(parse_body(value)?).is_some() {
                return Err(CommandError::Parameter("BODY"));
            }
        } else {
            return Err(CommandError::UnknownParameter);
        }
    }
    Ok(MailCommand { reverse_path, size, body: body.unwrap_or_default() })
}

fn parse_rcpt(argument: &[u8]) -> Result<ForwardPath, CommandError> {
    let (path, mut parameters) = split_path(argument, b"TO:", RCPT_SYNTAX)?;
    if let Some(parameter) = parameters.next() {
        return Err(parameter.err().unwrap_or(CommandError::UnknownParameter));
    }
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster);
    }
    mailbox(path, RCPT_SYNTAX, CommandError::ForwardPath).map(ForwardPath::Mailbox)
}

fn parse_size(value: Option<&str>) -> Result<u64, CommandError> {
    value.and_then(|digits| number(digits.as_bytes())).ok_or(CommandError::Parameter("SIZE"))
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

fn parse_body(value: Option<&str>) -> Result<BodyType, CommandError> {
    match value {
        Some(name) if name.eq_ignore_ascii_case("7BIT") => Ok(BodyType::SevenBit),
        Some(name) if name.eq_ignore_ascii_case("8BITMIME") => Ok(BodyType::EightBitMime),
        _ => Err(CommandError::Parameter("BODY")),
    }
}

/// `keyword` or `keyword=value`.
type Parameter<'a> = Result<(&'a str, Option<&'a str>), CommandError>;

/// Takes `FROM:<path> parameters` apart. Spaces before the '<' aren't allowed, but common, and mislead nobody.
fn split_path<'a>(
    argument: &'a [u8],
    prefix: &[u8],
    syntax: &'static str,
) -> Result<(&'a str, impl Iterator<Item = Parameter<'a>>), CommandError> {
    let wrong = CommandError::Syntax(syntax);
    let Some((head, rest)) = argument.split_at_checked(prefix.len()) else { return Err(wrong) };
    if !head.eq_ignore_ascii_case(prefix) {
        return Err(wrong);
    }
    let rest = std::str::from_utf8(rest).map_err(|_| CommandError::NotAscii)?;
    let Some(rest) = rest.trim_start().strip_prefix('<') else { return Err(wrong) };
    let Some(end) = path_end(rest) else { return Err(wrong) };
    let (path, parameters) = (&rest[..end], &rest[end + 1..]);
    if !path.is_ascii() {
        return Err(CommandError::NotAscii);
    }
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(wrong);
    }
    Ok((path, parameters.split_ascii_whitespace().map(move |parameter| split_parameter(parameter, syntax))))
}

/// Where the '>' stands that ends the path: not one within a quoted string.
fn path_end(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

/// `esmtp-param` of RFC 5321 §4.1.2.
fn split_parameter<'a>(text: &'a str, syntax: &'static str) -> Parameter<'a> {
    let (keyword, value) = match text.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (text, None),
    };
    let named = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let valued = value.is_none_or(|v| !v.is_empty() && v.bytes().all(|o| o.is_ascii_graphic() && o != b'='));
    if named && valued { Ok((keyword, value)) } else { Err(CommandError::Syntax(syntax)) }
}

/// The mailbox of a path. A source route, `@one,@two:`, is checked and then ignored (RFC 5321 §4.1.1.3, appendix C).
fn mailbox(
    path: &str,
    syntax: &'static str,
    wrong: impl Fn(AddressError) -> CommandError,
) -> Result<Mailbox, CommandError> {
    let address = match path.strip_prefix('@') {
        None => path,
        Some(routed) => {
            let (route, address) = routed.split_once(':').ok_or(CommandError::Syntax(syntax))?;
            for (index, hop) in route.split(',').enumerate() {
                let name = if index == 0 { Some(hop) } else { hop.strip_prefix('@') };
                Domain::parse(name.ok_or(CommandError::Syntax(syntax))?)
                    .map_err(|error| wrong(error.into()))?;
            }
            address
        }
    };
    Mailbox::parse(address).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command in a short form, or the reply to the wrong one.
    fn read(line: &[u8]) -> String {
        match Command::parse(line) {
            Ok(Command::Mail(MailCommand { reverse_path, size, body })) => {
                let size = size.map(|octets| format!(" size {octets}")).unwrap_or_default();
                format!(
                    "mail {reverse_path}{size}{}",
                    if body == BodyType::EightBitMime { " 8bit" } else { "" }
                )
            }
            Ok(Command::Rcpt(forward_path)) => format!("rcpt {forward_path}"),
            Ok(Command::Helo(name)) => format!("helo {name}"),
            Ok(Command::Ehlo(name)) => format!("ehlo {name}"),
            Ok(Command::Bdat(Chunk { octets, last })) => {
                format!("bdat {octets}{}", if last { " last" } else { "" })
            }
            Ok(other) => format!("{other:?}").to_lowercase(),
            Err(error) => error.reply().to_string(),
        }
    }

    /// `expect` is the whole short form, or a reply's beginning.
    fn check(line: impl AsRef<[u8]>, expect: &str) {
        let seen = read(line.as_ref());
        let same = if expect.starts_with('5') { seen.starts_with(expect) } else { seen == expect };
        assert!(same, "{}: {seen:?}, not {expect:?}", line.as_ref().escape_ascii());
    }

    #[test]
    fn verbs() {
        check("EHLO client.example", "ehlo client.example");
        check("helo my computer ", "helo my computer");
        check("Ehlo [IPv6:2001:db8::1]", "ehlo [IPv6:2001:db8::1]");
        check("DATA", "data");
        check("rset  ", "rset");
        check("QUIT", "quit");
        check("NOOP whatever", "noop");
        check("HELP MAIL", "help");
        check("VRFY someone", "vrfy");
        check("VRFY", "501 5.5.2");
        check("EHLO", "501 5.5.2");
        check("DATA now", "501 5.5.2");
        check("EXPN list", "502 5.5.1");
        check("STARTTLS", "502 5.5.1");
        check("AUTH PLAIN", "502 5.5.1");
        check("", "500 5.5.1");
        check("MAILFROM:<a@b.example>", "500 5.5.1");
        check("GET / HTTP/1.1", "500 5.5.1");
        check("NOOP\nRSET", "500 5.5.2");
        check("NOOP\r", "500 5.5.2");
        check("NO\0OP", "500 5.5.2");
        check(format!("NOOP {}", "a".repeat(505)), "noop");
        check(format!("NOOP {}", "a".repeat(506)), "500 5.5.2");
    }

    #[test]
    fn chunks() {
        check("BDAT 0", "bdat 0");
        check("bdat 1000 last", "bdat 1000 last");
        check("BDAT  7  LAST ", "bdat 7 last");
        check("BDAT 99999999999999999999", "bdat 18446744073709551615");
        check("BDAT", "501 5.5.2");
        check("BDAT LAST", "501 5.5.2");
        check("BDAT -1", "501 5.5.2");
        check("BDAT 0x10", "501 5.5.2");
        check("BDAT 7 FIRST", "501 5.5.2");
        check("BDAT 7 LAST LAST", "501 5.5.2");
        check("BDAT 000000000000000000007", "501 5.5.2");
        check("BDAT 7\0LAST", "501 5.5.2");
        check("BDAT 7\nLAST", "501 5.5.2");
        check(format!("BDAT 7{}", " ".repeat(600)), "501 5.5.2");
        check("BDATA 7", "500 5.5.1");
    }

    #[test]
    fn reverse_paths() {
        check("MAIL FROM:<a@b.example>", "mail <a@b.example>");
        check("mail from: <a@b.example>", "mail <a@b.example>");
        check("MAIL FROM:<>", "mail <>");
        check("MAIL FROM:<\"a>b\\\"\"@b.example>", "mail <\"a>b\\\"\"@b.example>");
        check("MAIL FROM:<@one.example,@two.example:a@b.example>", "mail <a@b.example>");
        check("MAIL FROM:<@one.example,two.example:a@b.example>", "501 5.5.2");
        check("MAIL FROM:<@one.example>", "501 5.5.2");
        check("MAIL FROM:<@:a@b.example>", "501 5.1.7");
        check("MAIL FROM:<a@[192.0.2.1]>", "mail <a@[192.0.2.1]>");
        check("MAIL FROM:a@b.example", "501 5.5.2");
        check("MAIL FROM:<a@b.example", "501 5.5.2");
        check("MAIL FROM:<a@b.example>x", "501 5.5.2");
        check("MAIL FROM <a@b.example>", "501 5.5.2");
        check("MAIL", "501 5.5.2");
        check("MAIL TO:<a@b.example>", "501 5.5.2");
        check("MAIL FROM:<a>", "501 5.1.7");
        check("MAIL FROM:<a b@c.example>", "501 5.1.7");
        check("MAIL FROM:<jörg@b.example>", "553 5.6.7");
        check(b"MAIL FROM:<j\xf6rg@b.example>", "553 5.6.7");
    }

    #[test]
    fn forward_paths() {
        check("RCPT TO:<a@b.example>", "rcpt <a@b.example>");
        check("RCPT TO:<PostMaster>", "rcpt <postmaster>");
        check("RCPT TO:<postmaster@b.example>", "rcpt <postmaster@b.example>");
        check("RCPT TO:<@relay.example:a@b.example>", "rcpt <a@b.example>");
        check("RCPT TO:<>", "501 5.1.3");
        check("RCPT TO:<abuse>", "501 5.1.3");
        check("RCPT TO:<a@b.example> NOTIFY=NEVER", "555 5.5.4");
        check("RCPT TO:<a@b.example> =", "501 5.5.2");
    }

    #[test]
    fn mail_parameters() {
        check("MAIL FROM:<> SIZE=1000 BODY=8BITMIME", "mail <> size 1000 8bit");
        check("MAIL FROM:<> body=7bit size=0", "mail <> size 0");
        check("MAIL FROM:<> SIZE=99999999999999999999", "mail <> size 18446744073709551615");
        check("MAIL FROM:<> SIZE=999999999999999999999", "501 5.5.4");
        check("MAIL FROM:<> SIZE=-1", "501 5.5.4");
        check("MAIL FROM:<> SIZE=", "501 5.5.2");
        check("MAIL FROM:<> SIZE", "501 5.5.4");
        check("MAIL FROM:<> SIZE=1 SIZE=1", "501 5.5.4");
        check("MAIL FROM:<> BODY=9BIT", "501 5.5.4");
        check("MAIL FROM:<> BODY=7BIT BODY=8BITMIME", "501 5.5.4");
        check("MAIL FROM:<> SMTPUTF8", "555 5.5.4");
        check("MAIL FROM:<> AUTH=<>", "555 5.5.4");
        check("MAIL FROM:<> -X=1", "501 5.5.2");
        check("MAIL FROM:<> X=a=b", "501 5.5.2");
    }

    proptest::proptest! {
        #[test]
        fn any_octets_have_an_answer(line in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            read(&line);
        }

        #[test]
        fn what_is_written_is_what_is_read(
            local in "[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\\.[a-z]{1,9}){0,2}|\"([ -!#-\\[\\]-~]|\\\\[ -~]){0,20}\"",
            host in "[a-z0-9]{1,9}(\\.[a-z]{1,9}){0,3}|\\[192\\.0\\.2\\.[1-9]\\]",
        ) {
            let line = format!("MAIL FROM:<{local}@{host}>");
            proptest::prop_assert_eq!(read(line.as_bytes()), format!("mail <{local}@{host}>"));
        }
    }
}
