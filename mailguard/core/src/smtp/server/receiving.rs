//! Receiving data: hand out the body while it is wanted, find its end in any case (RFC 5321 §4.1.1.4, RFC 1870 §6.3, RFC
//! 3030 §2).

use std::time::Instant;

use crate::mail::QueueId;
use crate::smtp::command::Chunk;
use crate::smtp::data::{Decoder, Piece};
use crate::smtp::enhanced_status::Detail;
use crate::smtp::refusal::Refusal;

use super::{Action, Emit, Progress, Question, Server, Settings, State, UncleanData, ok};

/// A body on its way.
#[derive(Debug)]
pub(super) struct Reception {
    decoder: Decoder,
    /// Content so far.
    octets: u64,
    /// Why the body isn't wanted any more.
    refusal: Option<Refusal>,
    /// What is left of the chunk that is coming; nothing where the data themselves say where they end.
    chunk: Option<Chunk>,
    /// Octets of that chunk when it began.
    chunk_octets: u64,
    /// When all of it must be here.
    pub(super) last_moment: Instant,
}

impl Reception {
    pub(super) fn new(last_moment: Instant) -> Self {
        let decoder = Decoder::default();
        Self { decoder, octets: 0, refusal: None, chunk: None, chunk_octets: 0, last_moment }
    }

    /// One whose content comes in chunks; the first is to be told with [`Reception::expect`].
    pub(super) fn in_chunks(last_moment: Instant) -> Self {
        Self { decoder: Decoder::of_chunks(), ..Self::new(last_moment) }
    }

    /// The next chunk follows.
    pub(super) fn expect(&mut self, chunk: Chunk) {
        (self.chunk, self.chunk_octets) = (Some(chunk), chunk.octets);
    }

    /// Takes the next piece from the front of `input`: the octets that are done with, and what was found.
    fn decode<'a>(&mut self, input: &'a [u8]) -> (usize, Found<'a>) {
        let Some(chunk) = &mut self.chunk else {
            return match self.decoder.decode(input) {
                (done, None) => (done, Found::Nothing),
                (done, Some(Piece::End)) => (done, Found::MessageEnd),
                (done, Some(piece)) => (done, Found::Piece(piece)),
            };
        };
        let here = usize::try_from(chunk.octets).map_or(input.len(), |left| left.min(input.len()));
        let (done, piece) = self.decoder.decode(&input[..here]);
        chunk.octets -= done as u64;
        let found = match (piece, chunk) {
            (Some(piece), _) => Found::Piece(piece),
            (None, Chunk { octets: 0, last: false }) => Found::ChunkEnd,
            (None, Chunk { octets: 0, last: true }) => {
                self.decoder.finish().map_or(Found::MessageEnd, Found::Piece)
            }
            (None, _) => Found::Nothing,
        };
        (done, found)
    }
}

/// What [`Reception::decode`] came to.
enum Found<'a> {
    /// Some content.
    Piece(Piece<'a>),
    /// More is needed.
    Nothing,
    /// The chunk is complete; another one will come.
    ChunkEnd,
    /// The message is complete.
    MessageEnd,
}

impl<R> Server<R> {
    /// Takes the next piece of data from the input.
    pub(super) fn receive(&mut self) -> Progress {
        let State::Receiving(id, reception) = &mut self.state else { return Progress::Blocked };
        let id = *id;
        loop {
            let (done, found) = reception.decode(&self.input[self.used..]);
            self.used += done;
            let (length, emit) = match found {
                Found::Nothing => return Progress::Starved,
                Found::ChunkEnd => return self.end_chunk(),
                Found::MessageEnd | Found::Piece(Piece::End) => break,
                Found::Piece(Piece::LineEnd) => (2, Emit::Plain(Action::Body(b"\r\n"))),
                Found::Piece(Piece::Content(content)) => {
                    (content.len(), Emit::Content(self.used - content.len()..self.used))
                }
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
        match reception.refusal.take() {
            Some(refusal) => self.refuse_message(id, &refusal),
            None => {
                self.state = State::JudgingData(id);
                Progress::Emit(Emit::Plain(Action::Judge(Question::Data)))
            }
        }
    }

    fn refuse_message(&mut self, id: QueueId, refusal: &Refusal) -> Progress {
        self.state = State::Ready;
        self.refuse(&self.told(refusal, id));
        Progress::Again
    }

    /// A chunk that isn't the last is complete. What is wrong with the body is said now; the chunks that the client has
    /// under way already are thrown away one by one.
    fn end_chunk(&mut self) -> Progress {
        let State::Receiving(id, mut reception) = std::mem::replace(&mut self.state, State::Ready) else {
            return Progress::Again;
        };
        if let Some(refusal) = reception.refusal.take() {
            self.chunks_refused = true;
            return self.refuse_message(id, &refusal);
        }
        let octets = reception.chunk_octets;
        self.state = State::BetweenChunks(id, reception);
        let reply = ok(Detail::UNDEFINED, &format!("Ok: {octets} octets received"));
        if octets == 0 {
            self.idle(&reply)
        } else {
            self.say(&reply)
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
