//! Receiving data: hand out the body while it is wanted, find its end in any case (RFC 5321 §4.1.1.4, RFC 1870 §6.3).

use std::time::Instant;

use crate::smtp::data::{Decoder, Piece};
use crate::smtp::refusal::Refusal;

use super::{Action, BareLineEnds, Emit, Progress, Question, Server, Settings, State};

/// A body on its way.
#[derive(Debug)]
pub(super) struct Reception {
    decoder: Decoder,
    /// Content so far.
    octets: u64,
    /// Why the body isn't wanted any more.
    refusal: Option<Refusal>,
    /// When all of it must be here.
    pub(super) last_moment: Instant,
}

impl Reception {
    pub(super) fn new(last_moment: Instant) -> Self {
        Self { decoder: Decoder::default(), octets: 0, refusal: None, last_moment }
    }
}

impl<R> Server<R> {
    /// Takes the next piece of data from the input.
    pub(super) fn receive(&mut self) -> Progress {
        let State::Receiving(id, reception) = &mut self.state else { return Progress::Blocked };
        let id = *id;
        loop {
            let (done, piece) = reception.decoder.decode(&self.input[self.used..]);
            self.used += done;
            let (length, emit) = match piece {
                None => return Progress::Starved,
                Some(Piece::End) => break,
                Some(Piece::LineEnd) => (2, Emit::Plain(Action::Body(b"\r\n"))),
                Some(Piece::Content(content)) => {
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
            Some(refusal) => {
                self.state = State::Ready;
                self.refuse(&refusal.reply(id));
                Progress::Again
            }
            None => {
                self.state = State::JudgingData(id);
                Progress::Emit(Emit::Plain(Action::Judge(Question::Data)))
            }
        }
    }
}

impl Reception {
    /// What is wrong with the body so far.
    fn objection(&self, settings: &Settings) -> Option<Refusal> {
        if settings.bare_line_ends == BareLineEnds::Refuse && self.decoder.saw_bare_line_end() {
            Some(Refusal::BareLineEnd)
        } else if self.octets > settings.max_message_octets {
            Some(Refusal::TooLarge(settings.max_message_octets))
        } else {
            None
        }
    }
}
