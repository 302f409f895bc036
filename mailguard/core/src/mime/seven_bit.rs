//! 8-bit content made 7-bit for a server that takes nothing else (RFC 6152 §3, RFC 2045 §6): line by line, in
//! pieces of any size, with little memory.
//!
//! Twice over the message: a [`Survey`] finds which parts hold octets above 127, and whether they can be
//! encoded at all; a [`Conversion`] then encodes those and leaves the others as they are. Text becomes
//! quoted-printable, the rest base64. What can't be done without a guess isn't: header fields that aren't
//! ASCII, multiparts without a boundary, base64 with 8-bit octets in it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::MAX_MESSAGE_NESTING;
use super::parameter::Parameters;
use crate::mail::header::MAX_HEADER_OCTETS;

/// Longest piece of a line that is looked at as one, octets; a boundary has at most 70 (RFC 2046 §5.1.1).
const MAX_LINE_OCTETS: usize = 4096;

/// Most entities of a message that is converted.
const MAX_ENTITIES: usize = 10_000;

/// Longest line of quoted-printable, without its soft break (RFC 2045 §6.7).
const QUOTED_LINE_OCTETS: usize = 75;

/// Octets whose base64 is a line (RFC 2045 §6.8).
const BASE64_LINE_OCTETS: usize = 57;

/// Why a message can't be made 7-bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// A header field holds 8-bit octets.
    #[error("a header field isn't ASCII")]
    Header,
    /// More header, entities or nesting than is looked at.
    #[error("it has too many parts, or too large a header")]
    TooMuch,
    /// 8-bit octets where none may be encoded.
    #[error("a part that may not be encoded holds 8-bit octets")]
    Part,
}

/// Which entities, in the order of their headers, hold 8-bit octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Vec<bool>);

/// The first pass.
#[derive(Debug)]
pub struct Survey(Machine);

/// The second pass.
#[derive(Debug)]
pub struct Conversion(Machine);

impl Survey {
    /// A survey before the first octet.
    pub fn new() -> Self {
        Self(Machine::new(None))
    }

    /// Takes the next octets.
    pub fn push(&mut self, octets: &[u8]) {
        self.0.push(octets, &mut Vec::new());
    }

    /// What is to be done.
    pub fn finish(mut self) -> Result<Plan, Impossible> {
        self.0.finish(&mut Vec::new());
        match self.0.failure {
            Some(failure) => Err(failure),
            None => Ok(Plan(self.0.found)),
        }
    }
}

impl Default for Survey {
    fn default() -> Self {
        Self::new()
    }
}

impl Conversion {
    /// A conversion of the message of which `plan` was made.
    pub fn new(plan: Plan) -> Self {
        Self(Machine::new(Some(plan.0)))
    }

    /// Takes the next octets and appends what is ready to `out`: at most some three times as many.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        self.0.push(octets, out);
    }

    /// Appends the rest.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.0.finish(out);
    }
}

/// How the body of an entity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    AsItIs,
    Quoted,
    /// Quoted-printable already, with 8-bit octets among it.
    QuoteRest,
    Base64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Body(Form),
}

/// Something that holds entities.
#[derive(Debug)]
enum Level {
    /// A multipart, by its boundary; `digest`: of messages, unless a part says otherwise (RFC 2046 §5.1.5).
    Multipart { boundary: Vec<u8>, digest: bool },
    /// A message.
    Message,
}

#[derive(Debug)]
struct Machine {
    /// None: the first pass.
    plan: Option<Vec<bool>>,
    found: Vec<bool>,
    /// What is open, the innermost last.
    open: Vec<Level>,
    place: Place,
    line: Vec<u8>,
    /// The piece at hand goes on with a line.
    continued: bool,
    header: Vec<u8>,
    /// Entities whose 8-bit octets nobody may encode.
    untouchable: bool,
    base64: Vec<u8>,
    /// A line end that belongs to the content only if no delimiter follows.
    line_end_due: bool,
    failure: Option<Impossible>,
}

impl Machine {
    fn new(plan: Option<Vec<bool>>) -> Self {
        Self {
            plan,
            found: Vec::new(),
            open: Vec::new(),
            place: Place::Header,
            line: Vec::new(),
            continued: false,
            header: Vec::new(),
            untouchable: false,
            base64: Vec::new(),
            line_end_due: false,
            failure: None,
        }
    }

    fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
        while !octets.is_empty() && self.failure.is_none() {
            let room = MAX_LINE_OCTETS - self.line.len();
            let end = memchr::memchr(b'\n', octets).map_or(octets.len(), |at| at + 1).min(room);
            self.line.extend_from_slice(&octets[..end]);
            octets = &octets[end..];
            let ended = self.line.ends_with(b"\n");
            if ended || self.line.len() == MAX_LINE_OCTETS {
                self.take_line(out);
                self.continued = !ended;
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.take_line(out);
        }
        if self.place == Place::Header {
            self.end_header(out);
        }
        self.end_body(true, out);
    }

    fn take_line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        if !self.continued && line.starts_with(b"--") && self.delimiter(&line, out) {
            return;
        }
        match self.place {
            Place::Header if line == b"\r\n" && !self.continued => self.end_header(out),
            Place::Header => self.header_line(&line),
            Place::Body(form) => self.body_line(form, &line, out),
        }
        self.line = line;
        self.line.clear();
    }

    /// Whether the line delimits a part of an open multipart: what is within ends here.
    fn delimiter(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let said = line[2..].trim_ascii_end();
        let ends = |boundary: &[u8]| said.strip_suffix(b"--") == Some(boundary);
        let is = |level: &Level| match level {
            Level::Multipart { boundary, .. } => said == boundary.as_slice() || ends(boundary),
            Level::Message => false,
        };
        let Some(depth) = self.open.iter().rposition(is) else { return false };
        if self.place == Place::Header {
            self.end_header(out);
        }
        self.end_body(false, out);
        self.open.truncate(depth + 1);
        self.write(line, out);
        let last =
            matches!(&self.open[depth], Level::Multipart { boundary, .. } if said != boundary.as_slice());
        if !last {
            self.place = Place::Header;
        } else {
            self.open.pop();
            self.place = Place::Body(Form::AsItIs);
            // The epilogue; nobody reads it.
            self.untouchable = true;
        }
        true
    }

    fn header_line(&mut self, line: &[u8]) {
        if !line.is_ascii() {
            self.failure = Some(Impossible::Header);
        } else if self.header.len() + line.len() > MAX_HEADER_OCTETS {
            self.failure = Some(Impossible::TooMuch);
        } else {
            self.header.extend_from_slice(line);
        }
    }

    /// An entity's header is whole: writes it, changed where its body will be.
    fn end_header(&mut self, out: &mut Vec<u8>) {
        let header = std::mem::take(&mut self.header);
        let index = self.found.len();
        if index >= MAX_ENTITIES {
            self.failure = Some(Impossible::TooMuch);
            return;
        }
        self.found.push(false);
        let within = self.open.last();
        let digest = matches!(within, Some(Level::Multipart { digest: true, .. }));
        let is_message = within.is_none_or(|level| matches!(level, Level::Message));
        let entity = Entity::of(&header, digest);
        let encode = self.plan.as_ref().is_some_and(|plan| plan.get(index).copied().unwrap_or(false));
        let encoding = entity.encoding.as_str();
        self.untouchable = false;
        let form = match entity.kind {
            Kind::Leaf | Kind::Text if encoding == "quoted-printable" && encode => Form::QuoteRest,
            // Of base64, or an encoding that nobody knows, 8-bit octets are no part.
            Kind::Leaf | Kind::Text
                if !matches!(encoding, "" | "7bit" | "8bit" | "binary" | "quoted-printable") =>
            {
                self.untouchable = true;
                Form::AsItIs
            }
            Kind::Leaf | Kind::Text if !encode => Form::AsItIs,
            Kind::Text => Form::Quoted,
            Kind::Leaf => Form::Base64,
            Kind::Multipart { .. } | Kind::Message | Kind::Opaque => {
                self.untouchable = true;
                Form::AsItIs
            }
        };
        if self.plan.is_some() {
            write_header(&header, &entity, form, is_message, out);
        }
        self.write(b"\r\n", out);
        self.place = Place::Body(form);
        match entity.kind {
            Kind::Multipart { boundary, digest } => self.open.push(Level::Multipart { boundary, digest }),
            Kind::Message => {
                self.place = Place::Header;
                self.open.push(Level::Message);
            }
            Kind::Leaf | Kind::Text | Kind::Opaque => {}
        }
        if self.open.len() > MAX_MESSAGE_NESTING {
            self.failure = Some(Impossible::TooMuch);
        }
    }

    fn body_line(&mut self, form: Form, line: &[u8], out: &mut Vec<u8>) {
        if !line.is_ascii() {
            if self.untouchable {
                self.failure = Some(Impossible::Part);
            }
            if let Some(last) = self.found.last_mut() {
                *last = true;
            }
        }
        match form {
            Form::AsItIs => self.write(line, out),
            Form::Quoted => quote(line, out),
            Form::QuoteRest => quote_rest(line, out),
            Form::Base64 => {
                if std::mem::take(&mut self.line_end_due) {
                    self.base64.extend_from_slice(b"\r\n");
                }
                let content = line.strip_suffix(b"\r\n");
                self.line_end_due = content.is_some();
                self.base64.extend_from_slice(content.unwrap_or(line));
                let whole = self.base64.len() / BASE64_LINE_OCTETS * BASE64_LINE_OCTETS;
                write_base64(&self.base64[..whole], out);
                self.base64.drain(..whole);
            }
        }
    }

    /// The body ends: with the message, or at a delimiter, to which the last line end belongs.
    fn end_body(&mut self, with_message: bool, out: &mut Vec<u8>) {
        if self.place != Place::Body(Form::Base64) {
            return;
        }
        if std::mem::take(&mut self.line_end_due) && with_message {
            self.base64.extend_from_slice(b"\r\n");
        }
        write_base64(&std::mem::take(&mut self.base64), out);
    }

    fn write(&self, octets: &[u8], out: &mut Vec<u8>) {
        if self.plan.is_some() {
            out.extend_from_slice(octets);
        }
    }
}

/// What an entity is, as far as its body's encoding goes.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Leaf,
    Multipart {
        boundary: Vec<u8>,
        digest: bool,
    },
    /// message/rfc822, in which another header follows.
    Message,
    /// A composite that can't be looked into: its octets are as they are (RFC 2045 §6.4).
    Opaque,
}

#[derive(Debug)]
struct Entity {
    kind: Kind,
    encoding: String,
    typed: bool,
    mime: bool,
}

impl Entity {
    /// `digest`: it is a part of a digest.
    fn of(header: &[u8], digest: bool) -> Self {
        let usual = if digest { Kind::Message } else { Kind::Text };
        let (mut kind, mut encoding, mut typed, mut mime) = (usual, String::new(), false, false);
        for (name, value) in fields(header) {
            match name.to_ascii_lowercase().as_slice() {
                b"content-type" if !typed => {
                    typed = true;
                    kind = Kind::of(value);
                }
                b"content-transfer-encoding" if encoding.is_empty() => {
                    encoding = Parameters::parse(value).first.to_ascii_lowercase();
                }
                b"mime-version" => mime = true,
                _ => {}
            }
        }
        // A message that is encoded in spite of RFC 2045 §6.4 can't be looked into as it stands.
        if kind == Kind::Message && matches!(encoding.as_str(), "base64" | "quoted-printable") {
            kind = Kind::Opaque;
        }
        Self { kind, encoding, typed, mime }
    }
}

impl Kind {
    fn of(value: &[u8]) -> Self {
        let parameters = Parameters::parse(value);
        let media = parameters.first.to_ascii_lowercase();
        match media.split_once('/').map_or(media.as_str(), |(top, _)| top) {
            "multipart" => match parameters.values("boundary").into_iter().next() {
                Some(boundary) if !boundary.octets.is_empty() => {
                    Kind::Multipart { boundary: boundary.octets, digest: media == "multipart/digest" }
                }
                _ => Kind::Opaque,
            },
            "message" if media == "message/rfc822" || media == "message/global" => Kind::Message,
            "message" => Kind::Opaque,
            "text" | "" => Kind::Text,
            _ => Kind::Leaf,
        }
    }
}

/// The fields of a header: name, and all of its lines but the name.
fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    split_fields(header).filter_map(|field| {
        let colon = memchr::memchr(b':', field)?;
        Some((field[..colon].trim_ascii_end(), &field[colon + 1..]))
    })
}

/// The header's fields with their folds.
fn split_fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        loop {
            end += memchr::memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |at| at + 1);
            if !rest[end..].starts_with(b" ") && !rest[end..].starts_with(b"\t") {
                break;
            }
        }
        let (field, after) = rest.split_at(end);
        rest = after;
        Some(field)
    })
}

/// The header with the encoding that the body has now.
fn write_header(header: &[u8], entity: &Entity, form: Form, is_message: bool, out: &mut Vec<u8>) {
    let composite = matches!(entity.kind, Kind::Multipart { .. } | Kind::Message | Kind::Opaque);
    let wide = matches!(entity.encoding.as_str(), "8bit" | "binary");
    let said = match form {
        Form::Quoted => Some("quoted-printable"),
        Form::Base64 => Some("base64"),
        // What is below has become 7-bit; a leaf that holds no 8-bit octet is it already.
        Form::AsItIs if composite || wide => wide.then_some("7bit"),
        Form::AsItIs | Form::QuoteRest => None,
    };
    let Some(said) = said else { return out.extend_from_slice(header) };
    for field in split_fields(header) {
        let name = field.split(|&octet| octet == b':').next().unwrap_or_default().trim_ascii_end();
        if !name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            out.extend_from_slice(field);
        }
    }
    if is_message && !entity.mime && said != "7bit" {
        out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    }
    if form != Form::AsItIs && !entity.typed {
        // Nobody said in which character set it is (RFC 1428).
        out.extend_from_slice(b"Content-Type: text/plain; charset=unknown-8bit\r\n");
    }
    out.extend_from_slice(format!("Content-Transfer-Encoding: {said}\r\n").as_bytes());
}

/// A line, or a piece of one, in quoted-printable.
fn quote(line: &[u8], out: &mut Vec<u8>) {
    let content = line.strip_suffix(b"\r\n").unwrap_or(line);
    let ended = content.len() < line.len();
    let mut column = 0;
    for (at, &octet) in content.iter().enumerate() {
        let last = at + 1 == content.len();
        let plain = match octet {
            b'=' => false,
            b' ' | b'\t' => !last,
            33..=126 => true,
            _ => false,
        };
        let width = if plain { 1 } else { 3 };
        if column + width > QUOTED_LINE_OCTETS {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        column += width;
        if plain {
            out.push(octet);
        } else {
            out.extend_from_slice(format!("={octet:02X}").as_bytes());
        }
    }
    out.extend_from_slice(if ended { b"\r\n" } else { b"=\r\n" });
}

/// A line of quoted-printable: what it shouldn't hold is encoded, the rest stays.
fn quote_rest(line: &[u8], out: &mut Vec<u8>) {
    for &octet in line {
        if octet.is_ascii() {
            out.push(octet);
        } else {
            out.extend_from_slice(format!("={octet:02X}").as_bytes());
        }
    }
}

fn write_base64(octets: &[u8], out: &mut Vec<u8>) {
    for line in octets.chunks(BASE64_LINE_OCTETS) {
        out.extend_from_slice(STANDARD.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
