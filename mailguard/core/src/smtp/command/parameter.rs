//! The arguments of MAIL and RCPT: paths and the parameters of the extensions (RFC 5321 §4.1.2; RFC 1870 §3,
//! RFC 3461 §4, RFC 4954 §5, RFC 6152 §2, RFC 6531 §3.4).

use crate::mail::{
    AddressError, BodyType, Domain, DsnReturn, ForwardPath, Mailbox, Notify, Recipient, ReversePath,
};
use crate::smtp::xtext;

use super::{CommandError, MailCommand, RcptCommand, Strictness, number};

/// Longest ENVID value, octets (RFC 3461 §4.4).
const MAX_ENVELOPE_ID_OCTETS: usize = 100;

/// Longest ORCPT value, octets (RFC 3461 §4.2).
const MAX_ORIGINAL_RECIPIENT_OCTETS: usize = 500;

const MAIL_SYNTAX: &str =
    "MAIL FROM:<address> [SIZE=octets] [BODY=7BIT|8BITMIME] [SMTPUTF8] [RET=FULL|HDRS] [ENVID=id]";
const RCPT_SYNTAX: &str = "RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]";

/// `keyword` or `keyword=value`.
type Parameter<'a> = Result<(&'a str, Option<&'a str>), CommandError>;

pub(super) fn parse_mail(argument: &[u8], strictness: Strictness) -> Result<MailCommand, CommandError> {
    let (path, parameters) = split_path(argument, b"FROM:", strictness, MAIL_SYNTAX)?;
    let mut mail = MailCommand {
        reverse_path: match path {
            "" => ReversePath::Null,
            _ => ReversePath::Mailbox(mailbox(path, MAIL_SYNTAX, CommandError::ReversePath)?),
        },
        size: None,
        body: BodyType::SevenBit,
        smtputf8: false,
        dsn_return: None,
        envelope_id: None,
    };
    let mut seen = Seen::default();
    for parameter in parameters {
        let (keyword, value) = parameter?;
        match seen.keyword(keyword, &["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"])? {
            "SIZE" => mail.size = Some(parse_size(value)?),
            "BODY" => mail.body = parse_body(value)?,
            "SMTPUTF8" if value.is_none() => mail.smtputf8 = true,
            "RET" => mail.dsn_return = Some(parse_return(value)?),
            "ENVID" => mail.envelope_id = Some(parse_envelope_id(value)?),
            // The identity that submitted the message elsewhere isn't trusted (RFC 4954 §5).
            "AUTH" if value.is_some_and(|value| xtext::decode(value).is_some()) => {}
            name => return Err(CommandError::Parameter(name)),
        }
    }
    if !mail.smtputf8 && !path.is_ascii() {
        return Err(CommandError::NotAscii);
    }
    Ok(mail)
}

pub(super) fn parse_rcpt(argument: &[u8], strictness: Strictness) -> Result<RcptCommand, CommandError> {
    let (path, parameters) = split_path(argument, b"TO:", strictness, RCPT_SYNTAX)?;
    let mut recipient = Recipient::new(if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(mailbox(path, RCPT_SYNTAX, CommandError::ForwardPath)?)
    });
    let mut seen = Seen::default();
    for parameter in parameters {
        let (keyword, value) = parameter?;
        match seen.keyword(keyword, &["NOTIFY", "ORCPT"])? {
            "NOTIFY" => recipient.notify = Some(parse_notify(value)?),
            _ => recipient.original_recipient = Some(parse_original_recipient(value)?),
        }
    }
    let original_is_ascii = recipient.original_recipient.as_ref().is_none_or(|original| original.is_ascii());
    Ok(RcptCommand { needs_utf8: !path.is_ascii() || !original_is_ascii, recipient })
}

/// The keywords that a command has had.
#[derive(Default)]
struct Seen(Vec<&'static str>);

impl Seen {
    /// The one of `known` that `keyword` is; an error if it is none of them, or comes again.
    fn keyword(
        &mut self,
        keyword: &str,
        known: &'static [&'static str],
    ) -> Result<&'static str, CommandError> {
        let Some(name) = known.iter().find(|name| name.eq_ignore_ascii_case(keyword)) else {
            return Err(CommandError::UnknownParameter);
        };
        if self.0.contains(name) {
            return Err(CommandError::Parameter(name));
        }
        self.0.push(name);
        Ok(name)
    }
}

fn parse_size(value: Option<&str>) -> Result<u64, CommandError> {
    value.and_then(|digits| number(digits.as_bytes())).ok_or(CommandError::Parameter("SIZE"))
}

fn parse_body(value: Option<&str>) -> Result<BodyType, CommandError> {
    match value {
        Some(name) if name.eq_ignore_ascii_case("7BIT") => Ok(BodyType::SevenBit),
        Some(name) if name.eq_ignore_ascii_case("8BITMIME") => Ok(BodyType::EightBitMime),
        _ => Err(CommandError::Parameter("BODY")),
    }
}

fn parse_return(value: Option<&str>) -> Result<DsnReturn, CommandError> {
    match value {
        Some(name) if name.eq_ignore_ascii_case("FULL") => Ok(DsnReturn::Full),
        Some(name) if name.eq_ignore_ascii_case("HDRS") => Ok(DsnReturn::Headers),
        _ => Err(CommandError::Parameter("RET")),
    }
}

/// xtext of printable characters, as it stands.
fn parse_envelope_id(value: Option<&str>) -> Result<String, CommandError> {
    let fits = |value: &&str| value.len() <= MAX_ENVELOPE_ID_OCTETS && xtext::decode(value).is_some();
    value.filter(fits).map(str::to_owned).ok_or(CommandError::Parameter("ENVID"))
}

/// NEVER alone, or some of the others (RFC 3461 §4.1).
fn parse_notify(value: Option<&str>) -> Result<Notify, CommandError> {
    let wrong = || CommandError::Parameter("NOTIFY");
    let value = value.ok_or_else(wrong)?;
    let mut notify = Notify::NEVER;
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(notify);
    }
    for event in value.split(',') {
        let wanted = match event {
            _ if event.eq_ignore_ascii_case("SUCCESS") => &mut notify.success,
            _ if event.eq_ignore_ascii_case("FAILURE") => &mut notify.failure,
            _ if event.eq_ignore_ascii_case("DELAY") => &mut notify.delay,
            _ => return Err(wrong()),
        };
        *wanted = true;
    }
    Ok(notify)
}

/// `addr-type;xtext`, as it stands (RFC 3461 §4.2).
fn parse_original_recipient(value: Option<&str>) -> Result<String, CommandError> {
    let fits = |value: &&str| {
        let named = |kind: &str| {
            !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        };
        let parts = value.split_once(';').filter(|(kind, _)| named(kind));
        value.len() <= MAX_ORIGINAL_RECIPIENT_OCTETS
            && parts.is_some_and(|(kind, address)| {
                // utf-8-addr-unitext is no xtext (RFC 6533 §3).
                !address.is_empty()
                    && (kind.eq_ignore_ascii_case("utf-8") || xtext::decode(address).is_some())
            })
    };
    value.filter(fits).map(str::to_owned).ok_or(CommandError::Parameter("ORCPT"))
}

/// Takes `FROM:<path> parameters` apart. Spaces before the '<' aren't allowed, but common, and mislead
/// nobody.
fn split_path<'a>(
    argument: &'a [u8],
    prefix: &[u8],
    strictness: Strictness,
    syntax: &'static str,
) -> Result<(&'a str, impl Iterator<Item = Parameter<'a>>), CommandError> {
    let wrong = CommandError::Syntax(syntax);
    let Some((head, rest)) = argument.split_at_checked(prefix.len()) else { return Err(wrong) };
    if !head.eq_ignore_ascii_case(prefix) {
        return Err(wrong);
    }
    let rest = std::str::from_utf8(rest).map_err(|_| CommandError::NotAscii)?;
    let rest = rest.trim_start();
    let (path, parameters) = match rest.strip_prefix('<') {
        Some(rest) => path_end(rest, '>').map(|end| (&rest[..end], &rest[end + 1..])),
        // An empty argument is not the null reverse-path.
        None if rest.is_empty() || strictness == Strictness::Strict => None,
        None => Some(rest.split_at(path_end(rest, ' ').unwrap_or(rest.len()))),
    }
    .ok_or(wrong.clone())?;
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(wrong);
    }
    Ok((path, parameters.split_ascii_whitespace().map(move |parameter| split_parameter(parameter, syntax))))
}

/// Where the character stands that ends the path, in ASCII: not one within a quoted string.
fn path_end(text: &str, end: char) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            octet if char::from(octet) == end && !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

/// `esmtp-param` of RFC 5321 §4.1.2, its value as RFC 6531 §3.3 widens it.
fn split_parameter<'a>(text: &'a str, syntax: &'static str) -> Parameter<'a> {
    let (keyword, value) = match text.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (text, None),
    };
    let named = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let valued = value.is_none_or(|v| {
        !v.is_empty()
            && v.chars().all(|c| c != '=' && (c.is_ascii_graphic() || (!c.is_ascii() && !c.is_control())))
    });
    if named && valued { Ok((keyword, value)) } else { Err(CommandError::Syntax(syntax)) }
}

/// The mailbox of a path. A source route, `@one,@two:`, is checked and then ignored (RFC 5321 §4.1.1.3,
/// appendix C).
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
