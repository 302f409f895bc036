//! Receiving DATA and BDAT: the body is handed out until it is refused, and read to its end in any case (RFC
//! 5321 §4.1.1.4, RFC 1870 §6.3, RFC 3030 §2).

use std::time::Instant;

use crate::smtp::command::Chunk;
use crate::smtp::data::{Decoder, Piece};
use crate::smtp::enhanced_status::Detail;
use crate::smtp::refusal::Refusal;

use super::state::{Aftermath, CountsAs, Reference, State, UnwantedChunk};
use super::{Action, Emit, MAX_IDLE_COMMANDS, Progress, Question, Server, Settings, UncleanData, ok};

/// How the end of the data is marked.
#[derive(Debug)]
enum Framing {
    /// DATA: CRLF.CRLF.
    Dot,
    /// BDAT: by the size of each chunk.
    Chunk {
        /// What is left of it.
        rest: Chunk,
        /// Its octets when it began.
        octets: u64,
    },
}

impl Framing {
    fn chunk(chunk: Chunk) -> Self {
        Framing::Chunk { rest: chunk, octets: chunk.octets }
    }

    /// The octets of the chunk that is coming.
    fn octets(&self) -> u64 {
        match self {
            Framing::Dot => 0,
            Framing::Chunk { octets, .. } => *octets,
        }
    }
}

/// A body that is being received.
#[derive(Debug)]
pub(super) struct Reception {
    reference: Reference,
    decoder: Decoder,
    /// Content so far.
    octets: u64,
    /// Why the body is refused; the rest of it is discarded.
    refusal: Option<Refusal>,
    framing: Framing,
    /// When all of it must be here.
    pub(super) last_moment: Instant,
}

impl Reception {
    pub(super) fn new(reference: Reference, last_moment: Instant) -> Self {
        let decoder = Decoder::default();
        Self { reference, decoder, octets: 0, refusal: None, framing: Framing::Dot, last_moment }
    }

    /// One whose content comes in chunks, the first of which follows.
    pub(super) fn in_chunks(reference: Reference, last_moment: Instant, first: Chunk) -> Self {
        let decoder = Decoder::of_chunks();
        Self { decoder, framing: Framing::chunk(first), ..Self::new(reference, last_moment) }
    }

    /// The next chunk follows.
    pub(super) fn expect(&mut self, chunk: Chunk) {
        self.framing = Framing::chunk(chunk);
    }

    /// Takes the next piece from the front of `input`: the octets that are done with, and what was found.
    fn decode(&mut self, input: &[u8]) -> (usize, Found) {
        let Framing::Chunk { rest, .. } = &mut self.framing else {
            let (done, piece) = self.decoder.decode(input);
            return (done, piece.map_or(Found::Nothing, Found::of));
        };
        let here = usize::try_from(rest.octets).map_or(input.len(), |left| left.min(input.len()));
        let (done, piece) = self.decoder.decode(&input[..here]);
        rest.octets -= done as u64;
        let found = match (piece, rest) {
            (Some(piece), _) => Found::of(piece),
            (None, Chunk { octets: 0, last: false }) => Found::ChunkEnd,
            (None, Chunk { octets: 0, last: true }) => {
                self.decoder.finish().map_or(Found::MessageEnd, Found::of)
            }
            (None, _) => Found::Nothing,
        };
        (done, found)
    }
}

/// What [`Reception::decode`] came to.
enum Found {
    /// Content: so many octets, the last of those that are done with.
    Content(usize),
    /// A line end that doesn't stand in the input as CRLF.
    LineEnd,
    /// More is needed.
    Nothing,
    /// The chunk is complete; another one will come.
    ChunkEnd,
    /// The message is complete.
    MessageEnd,
}

impl Found {
    fn of(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Content(content) => Found::Content(content.len()),
            Piece::LineEnd => Found::LineEnd,
            Piece::End => Found::MessageEnd,
        }
    }
}

impl<R> Server<R> {
    /// Takes the next piece of data from the input.
    pub(super) fn receive(&mut self) -> Progress {
        let State::Receiving(reception) = &mut self.state else { return Progress::Blocked };
        loop {
            let (done, found) = reception.decode(self.input.rest());
            self.input.advance(done);
            let (length, emit) = match found {
                Found::Nothing => return Progress::Starved,
                Found::ChunkEnd => return self.end_chunk(),
                Found::MessageEnd => return self.end_message(),
                Found::LineEnd => (2, Emit::Plain(Action::Body(b"\r\n"))),
                Found::Content(length) => (length, Emit::Content(self.input.last_used(length))),
            };
            if reception.refusal.is_some() {
                continue;
            }
            reception.octets = reception.octets.saturating_add(length as u64);
            reception.refusal = reception.objection(&self.settings);
            return Progress::Emit(match &reception.refusal {
                None => emit,
                Some(refusal) => Emit::Plain(Action::RefuseBody(refusal.clone())),
            });
        }
    }

    /// All data came.
    fn end_message(&mut self) -> Progress {
        let State::Receiving(reception) = std::mem::replace(&mut self.state, State::READY) else {
            return Progress::Again;
        };
        match reception.refusal {
            Some(refusal) => {
                self.refuse(&self.told(&refusal, reception.reference));
                Progress::Again
            }
            None => {
                self.state = State::JudgingData(reception.reference);
                Progress::Emit(Emit::Plain(Action::Judge(Question::Data)))
            }
        }
    }

    /// A chunk that isn't the last is complete. What is wrong with the body is said now; the chunks that the
    /// client has pipelined already are discarded one by one.
    fn end_chunk(&mut self) -> Progress {
        let aftermath = State::Ready(Aftermath::ChunkRefused);
        let State::Receiving(reception) = std::mem::replace(&mut self.state, aftermath) else {
            return Progress::Again;
        };
        if let Some(refusal) = &reception.refusal {
            self.refuse(&self.told(refusal, reception.reference));
            return Progress::Again;
        }
        let octets = reception.framing.octets();
        self.state = State::BetweenChunks(reception);
        let reply = ok(Detail::UNDEFINED, &format!("Ok: {octets} octets received"));
        if octets == 0 {
            self.idle(&reply)
        } else {
            self.say(&reply)
        }
        Progress::Again
    }

    /// Discards what arrived of a refused chunk; once it is complete it is answered.
    pub(super) fn skip_chunk(&mut self) -> Progress {
        let State::Skipping(chunk) = &mut self.state else { return Progress::Blocked };
        let here = self.input.rest().len();
        let skipped = usize::try_from(chunk.left).map_or(here, |left| left.min(here));
        self.input.advance(skipped);
        chunk.left -= skipped as u64;
        if chunk.left > 0 {
            return Progress::Starved;
        }
        let State::Skipping(UnwantedChunk { reply, counts, then, .. }) =
            std::mem::replace(&mut self.state, State::READY)
        else {
            return Progress::Again;
        };
        self.state = *then;
        self.tally.idle_commands = self.tally.idle_commands.saturating_add(1);
        if counts == CountsAs::Error || self.tally.idle_commands > MAX_IDLE_COMMANDS {
            self.refuse(&reply);
        } else {
            self.say(&reply);
        }
        Progress::Again
    }
}

impl Reception {
    /// What is wrong with the body so far.
    fn objection(&self, settings: &Settings) -> Option<Refusal> {
        let refused = settings.unclean_data == UncleanData::Refuse;
        // What is left out counts: it was sent.
        let octets = self.octets.saturating_add(self.decoder.nuls());
        if refused && self.decoder.saw_bare_line_end() {
            Some(Refusal::BareLineEnd)
        } else if refused && self.decoder.nuls() > 0 {
            Some(Refusal::Nul)
        } else if octets > settings.max_message_octets {
            Some(Refusal::TooLarge(settings.max_message_octets))
        } else {
            None
        }
    }
}
