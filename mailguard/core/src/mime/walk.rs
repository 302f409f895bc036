//! The walk itself: entities, multiparts, nested messages, in every reading, within the limits.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

use super::boundary::{self, Delimiter};
use super::encoding::{TransferEncoding, base64, base64_other_readings, quoted_printable};
use super::header::{self, ContentField, Field};
use super::parameter::{MAX_FIELD_READINGS, Parameters};
use super::{
    Ambiguity, Budget, Limit, MAX_BOUNDARIES, MAX_CONTENT_FIELD_OCTETS, MAX_MESSAGE_NESTING,
    MAX_MULTIPART_NESTING, MAX_READINGS, MIN_EXAMINED_OCTETS, Part, PartKind, PartPath, Summary, names,
    uuencode,
};

/// Extensions of files that mail readers open as messages.
const MESSAGE_EXTENSIONS: [&str; 4] = [".eml", ".mht", ".mhtml", ".nws"];

/// Break ends the walk: a limit.
type Flow = ControlFlow<()>;

pub(super) struct Walker<'v, 't> {
    budget: &'v Budget<'t>,
    visit: &'v mut dyn FnMut(&Part<'_>) -> Result<(), Limit>,
    summary: Summary,
    /// Octets that may still be looked at.
    readings: u64,
}

/// How deep we are.
#[derive(Clone, Copy, Default)]
struct Nesting<'a> {
    /// The message that we are in, but for the outermost.
    message: Option<&'a PartPath<'a>>,
    multiparts: usize,
}

/// A run of octets that entities are ranges of: the message, or something decoded.
struct Buffer<'a> {
    octets: &'a [u8],
    /// Entities already read: different readings of the structure share most of them.
    seen: BTreeSet<(usize, usize)>,
}

impl<'a> Buffer<'a> {
    fn new(octets: &'a [u8]) -> Self {
        Self { octets, seen: BTreeSet::new() }
    }
}

/// What a header says about its body, all fields taken together.
#[derive(Default)]
struct Declared {
    is_multipart: bool,
    is_digest: bool,
    is_message: bool,
    is_leaf: bool,
    boundaries: Vec<Vec<u8>>,
    encodings: Vec<TransferEncoding>,
    names: Vec<String>,
}

/// Where an entity stands in its multipart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Preamble,
    Inside { digest: bool },
    Epilogue,
}

impl<'v, 't> Walker<'v, 't> {
    pub(super) fn new(
        message: &[u8],
        budget: &'v Budget<'t>,
        visit: &'v mut dyn FnMut(&Part<'_>) -> Result<(), Limit>,
    ) -> Self {
        let readings =
            (message.len() as u64).saturating_mul(MAX_READINGS).saturating_add(MIN_EXAMINED_OCTETS);
        Self { budget, visit, summary: Summary::default(), readings }
    }

    pub(super) fn run(mut self, message: &[u8]) -> Summary {
        // Why it ended stands in the summary.
        let _ended = self.message(message, Nesting::default());
        self.summary
    }

    fn message(&mut self, octets: &[u8], nesting: Nesting<'_>) -> Flow {
        let place = Place::Inside { digest: false };
        self.entity(&mut Buffer::new(octets), 0..octets.len(), nesting, place)
    }

    fn exceed(&mut self, limit: Limit) -> Flow {
        self.summary.exceeded = Some(limit);
        ControlFlow::Break(())
    }

    /// Ends the walk at a limit.
    fn within(&mut self, spent: Result<(), Limit>) -> Flow {
        spent.map_or_else(|limit| self.exceed(limit), ControlFlow::Continue)
    }

    fn note(&mut self, ambiguity: Ambiguity) {
        self.summary.ambiguities.insert(ambiguity);
    }

    /// Charges octets about to be looked at.
    fn examine(&mut self, octets: usize) -> Flow {
        match self.readings.checked_sub(octets as u64) {
            Some(left) => {
                self.readings = left;
                ControlFlow::Continue(())
            }
            None => self.exceed(Limit::Readings),
        }
    }

    /// Shows one reading of a body of `encoded` octets.
    fn show(&mut self, part: &Part<'_>, encoded: usize) -> Flow {
        if part.kind == PartKind::Content {
            self.within(self.budget.spend_octets(encoded, part.content.len()))?;
        }
        let visited = (self.visit)(part);
        self.within(visited)
    }

    fn count_entry(&mut self) -> Flow {
        self.within(self.budget.spend_entry())?;
        self.summary.parts += 1;
        ControlFlow::Continue(())
    }

    /// A header and its body, in each reading of the header.
    fn entity(
        &mut self,
        buffer: &mut Buffer<'_>,
        range: Range<usize>,
        nesting: Nesting<'_>,
        place: Place,
    ) -> Flow {
        if !buffer.seen.insert((range.start, range.end)) {
            return ControlFlow::Continue(());
        }
        self.count_entry()?;
        let octets = buffer.octets;
        let entity = &octets[range.clone()];
        let readings = header::readings(entity);
        let longest = readings.iter().map(|header| header.body).max().unwrap_or(0);
        self.examine(longest)?;
        if readings.len() > 1 {
            self.note(Ambiguity::HeaderEnd);
        }
        for header in &readings {
            if header.overflow {
                return self.exceed(Limit::Header);
            }
            match place {
                Place::Preamble if !header.fields.is_empty() => self.note(Ambiguity::Preamble),
                Place::Epilogue if !header.fields.is_empty() => self.note(Ambiguity::Epilogue),
                _ => {}
            }
            let declared = self.declared(&header.fields, place)?;
            let body = range.start + header.body..range.end;
            self.body(buffer, &entity[..header.body], body, &declared, nesting)?;
        }
        ControlFlow::Continue(())
    }

    /// Reads the content fields.
    fn declared(&mut self, fields: &[Field<'_>], place: Place) -> ControlFlow<(), Declared> {
        let mut declared = Declared::default();
        let mut parsed: Vec<Parameters> = Vec::new();
        let (mut types, mut dispositions) = (0, 0);
        for field in fields {
            // Once for each way to take it apart, at most.
            self.examine(field.value.len().saturating_mul(MAX_FIELD_READINGS))?;
            if field.value.len() > MAX_CONTENT_FIELD_OCTETS {
                self.exceed(Limit::Header)?;
            }
            match field.name {
                ContentField::Type => {
                    let parameters = Parameters::parse(field.value);
                    types += 1;
                    declared.add_type(&parameters);
                    parsed.push(parameters);
                }
                ContentField::Disposition => {
                    dispositions += 1;
                    parsed.push(Parameters::parse(field.value));
                }
                ContentField::TransferEncoding => {
                    let encoding = TransferEncoding::parse(field.value);
                    if !declared.encodings.contains(&encoding) {
                        declared.encodings.push(encoding);
                    }
                }
            }
        }
        if parsed.iter().any(|parameters| parameters.overflow) || declared.boundaries.len() > MAX_BOUNDARIES {
            self.exceed(Limit::Header)?;
        }
        let names = names::of_parameters(&parsed);
        self.examine(names.list.iter().map(String::len).sum())?;
        if names.overflow {
            self.exceed(Limit::Header)?;
        }
        declared.names = names.list;
        if types == 0 {
            declared.is_leaf = true;
            declared.is_message |= place == Place::Inside { digest: true };
        }
        declared.is_message |= declared.has_message_name();
        self.note_conflicts(&declared, types, dispositions);
        if declared.encodings.is_empty() {
            declared.encodings.push(TransferEncoding::Identity);
        }
        ControlFlow::Continue(declared)
    }

    fn note_conflicts(&mut self, declared: &Declared, types: usize, dispositions: usize) {
        for (holds, ambiguity) in [
            (types > 1, Ambiguity::Types),
            (dispositions > 1, Ambiguity::Dispositions),
            (declared.encodings.len() > 1, Ambiguity::Encodings),
            (declared.encodings.contains(&TransferEncoding::Unknown), Ambiguity::UnknownEncoding),
            (declared.boundaries.len() > 1, Ambiguity::Boundaries),
        ] {
            if holds {
                self.note(ambiguity);
            }
        }
    }

    /// A body, as everything that it is declared to be.
    fn body(
        &mut self,
        buffer: &mut Buffer<'_>,
        header: &[u8],
        body: Range<usize>,
        declared: &Declared,
        nesting: Nesting<'_>,
    ) -> Flow {
        let content = &buffer.octets[body.clone()];
        let mut is_split = false;
        if declared.is_multipart || !declared.boundaries.is_empty() {
            is_split = self.multipart(buffer, body.clone(), declared, nesting)?;
            if declared.is_multipart && !declared.names.is_empty() {
                let (names, path) = (&declared.names, nesting.path_of(&declared.names));
                let part = Part { header, names, content, kind: PartKind::Multipart, path };
                self.show(&part, content.len())?;
            }
        }
        let leaf = Leaf { header, encoded: content.len(), declared, nesting };
        let is_encoded = declared.encodings.iter().any(|encoding| *encoding != TransferEncoding::Identity);
        if !is_split || declared.is_leaf || is_encoded {
            return self.leaf(content, &leaf);
        }
        ControlFlow::Continue(())
    }

    /// Splits a body by every boundary; says whether any of them was in it. Of a multipart that none of them
    /// splits, the body itself says what it could be split by.
    fn multipart(
        &mut self,
        buffer: &mut Buffer<'_>,
        body: Range<usize>,
        declared: &Declared,
        nesting: Nesting<'_>,
    ) -> ControlFlow<(), bool> {
        let inside = Nesting { multiparts: nesting.multiparts + 1, ..nesting };
        let mut found = false;
        for boundary in &declared.boundaries {
            found |= self.split(buffer, body.clone(), boundary, inside, declared.is_digest)?;
        }
        if found || !declared.is_multipart {
            return ControlFlow::Continue(found);
        }
        let octets = buffer.octets;
        self.examine(body.len())?;
        let guesses = boundary::guesses(&octets[body.clone()]);
        if declared.boundaries.is_empty() || !guesses.is_empty() {
            self.note(Ambiguity::NoBoundary);
        }
        for boundary in guesses {
            found |= self.split(buffer, body.clone(), boundary, inside, declared.is_digest)?;
        }
        ControlFlow::Continue(found)
    }

    /// Splits by one boundary: by exact delimiters, by loose ones, and beyond the end where no delimiter
    /// closes.
    fn split(
        &mut self,
        buffer: &mut Buffer<'_>,
        body: Range<usize>,
        boundary: &[u8],
        nesting: Nesting<'_>,
        digest: bool,
    ) -> ControlFlow<(), bool> {
        let mut body = body;
        let mut found_any = false;
        loop {
            self.examine(body.len())?;
            let limit = self.budget.max_entries().saturating_add(1);
            let found = boundary::delimiters(buffer.octets, body.clone(), boundary, limit);
            if found.overflow {
                self.exceed(Limit::Entries)?;
            }
            if found.exact.is_empty() && found.loose.is_empty() {
                break;
            }
            if nesting.multiparts > MAX_MULTIPART_NESTING {
                self.exceed(Limit::Depth)?;
            }
            found_any = true;
            if !found.loose.is_empty() {
                self.note(Ambiguity::LooseDelimiter);
            }
            let all = if found.loose.is_empty() { &found.exact } else { &found.loose };
            let closed = all.iter().any(|delimiter| delimiter.closing);
            for list in [&found.exact, &found.loose] {
                self.segments(buffer, body.clone(), list, nesting, digest)?;
            }
            if closed {
                break;
            }
            self.note(Ambiguity::NoClose);
            if body.end == buffer.octets.len() {
                break;
            }
            // A reader that looks for this boundary alone doesn't stop at the enclosing ones.
            body.end = buffer.octets.len();
        }
        ControlFlow::Continue(found_any)
    }

    fn segments(
        &mut self,
        buffer: &mut Buffer<'_>,
        body: Range<usize>,
        list: &[Delimiter],
        nesting: Nesting<'_>,
        digest: bool,
    ) -> Flow {
        let Some(first) = list.first() else { return ControlFlow::Continue(()) };
        let mut ranges = vec![(body.start..first.start, Place::Preamble)];
        for (index, delimiter) in list.iter().enumerate() {
            let end = list.get(index + 1).map_or(body.end, |next| next.start);
            let place = if delimiter.closing { Place::Epilogue } else { Place::Inside { digest } };
            ranges.push((delimiter.end..end, place));
        }
        for (range, place) in ranges {
            let blank =
                buffer.octets.get(range.clone()).unwrap_or_default().iter().all(u8::is_ascii_whitespace);
            if blank {
                continue;
            }
            self.entity(buffer, range.clone(), nesting, place)?;
            if range.end == body.end {
                continue;
            }
            // A reader that is within a header doesn't stop at a delimiter there.
            self.examine(range.len())?;
            if header::is_open(&buffer.octets[range.start..body.end], range.len()) {
                self.note(Ambiguity::HeaderEnd);
                self.entity(buffer, range.start..body.end, nesting, place)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// A body that isn't split, decoded in every way.
    fn leaf(&mut self, body: &[u8], leaf: &Leaf<'_>) -> Flow {
        let unknown = leaf.declared.encodings.contains(&TransferEncoding::Unknown);
        let wanted = |encoding| unknown || leaf.declared.encodings.contains(&encoding);
        if wanted(TransferEncoding::Identity) || wanted(TransferEncoding::Uuencode) {
            self.content(body, leaf)?;
        }
        if wanted(TransferEncoding::QuotedPrintable) {
            self.examine(body.len())?;
            self.decoded(&quoted_printable(body), leaf)?;
        }
        if wanted(TransferEncoding::Base64) {
            self.examine(body.len())?;
            let usual = base64(body);
            self.decoded(&usual.content, leaf)?;
            if !unknown && usual.junk_at.is_some() {
                self.note(Ambiguity::Base64Junk);
            }
            if !unknown && usual.padding_at.is_some() {
                self.note(Ambiguity::Base64Padding);
            }
            self.examine(body.len())?;
            for content in base64_other_readings(body, &usual) {
                self.examine(body.len())?;
                self.decoded(&content, leaf)?;
            }
        }
        if leaf.declared.is_message && !wanted(TransferEncoding::Identity) {
            // A message may not be encoded; a reader that knows that reads it as it stands.
            self.note(Ambiguity::EncodedContainer);
            self.nested(body, leaf)?;
        }
        ControlFlow::Continue(())
    }

    /// One reading of the content: shown, and looked into.
    fn content(&mut self, content: &[u8], leaf: &Leaf<'_>) -> Flow {
        let (header, names, path) = (leaf.header, &leaf.declared.names, leaf.path());
        self.show(&Part { header, names, content, kind: PartKind::Content, path }, leaf.encoded)?;
        self.uuencoded(content, leaf)?;
        if leaf.declared.is_message { self.nested(content, leaf) } else { ControlFlow::Continue(()) }
    }

    /// The same for octets that don't stand so in the message: parts of an encoded multipart are found only
    /// here.
    fn decoded(&mut self, content: &[u8], leaf: &Leaf<'_>) -> Flow {
        self.content(content, leaf)?;
        if leaf.declared.is_multipart || !leaf.declared.boundaries.is_empty() {
            self.note(Ambiguity::EncodedContainer);
            let mut buffer = Buffer::new(content);
            self.multipart(&mut buffer, 0..content.len(), leaf.declared, leaf.nesting)?;
        }
        ControlFlow::Continue(())
    }

    fn nested(&mut self, content: &[u8], leaf: &Leaf<'_>) -> Flow {
        let path = leaf.path();
        let depth = path.depth() + 1;
        self.within(self.budget.allow_depth(depth))?;
        if depth > MAX_MESSAGE_NESTING {
            return self.exceed(Limit::Depth);
        }
        self.message(content, Nesting { message: Some(&path), ..leaf.nesting })
    }

    fn uuencoded(&mut self, content: &[u8], leaf: &Leaf<'_>) -> Flow {
        self.examine(content.len())?;
        let mut at = 0;
        while let Some((file, next)) = uuencode::next(content, at) {
            at = next;
            self.count_entry()?;
            let names = &names::of_text(file.name);
            let (content, path) = (&file.content, leaf.nesting.path_of(names));
            self.show(&Part { header: &[], names, content, kind: PartKind::Content, path }, leaf.encoded)?;
        }
        ControlFlow::Continue(())
    }
}

/// What all readings of a leaf have in common.
struct Leaf<'a> {
    header: &'a [u8],
    /// How long it is as it stands, octets.
    encoded: usize,
    declared: &'a Declared,
    nesting: Nesting<'a>,
}

impl Leaf<'_> {
    fn path(&self) -> PartPath<'_> {
        self.nesting.path_of(&self.declared.names)
    }
}

impl<'a> Nesting<'a> {
    /// The path of a part that has these names.
    fn path_of(&self, names: &'a [String]) -> PartPath<'a> {
        PartPath::new(self.message, names.first().map(String::as_str))
    }
}

impl Declared {
    fn add_type(&mut self, parameters: &Parameters) {
        let kind = parameters.first.as_str();
        if kind.starts_with("multipart/") || kind == "multipart" {
            self.is_multipart = true;
            self.is_digest |= kind == "multipart/digest";
        } else {
            self.is_message |= kind.starts_with("message/") || kind == "message";
            self.is_leaf = true;
        }
        for value in parameters.values("boundary") {
            for boundary in boundary::spellings(&value.octets) {
                let room = self.boundaries.len() <= MAX_BOUNDARIES;
                if room && !self.boundaries.contains(&boundary) {
                    self.boundaries.push(boundary);
                }
            }
        }
    }

    fn has_message_name(&self) -> bool {
        self.names.iter().any(|name| {
            let name = name.to_ascii_lowercase();
            MESSAGE_EXTENSIONS.iter().any(|extension| name.ends_with(extension))
        })
    }
}
