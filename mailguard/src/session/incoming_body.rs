//! The body on its way in: the header is read once, our fields go before it, everything goes to the spool's
//! writer.
//!
//! Kept here is the header only, at most [`MAX_HEADER_OCTETS`]. The client's octets aren't changed, but for a
//! byte order mark before the header, which is left out: below our fields it would end the header, and its
//! fields would be text.

use std::io;

use mailguard_core::mail::header::{self, BYTE_ORDER_MARK, MAX_HEADER_OCTETS, Summary};
use mailguard_core::mime;
use mailguard_core::policy::stage::end_of_data::Header;

use super::received_header::TraceFields;
use crate::spool::{Body, BodyWriter};

/// A body that is being received.
#[derive(Debug)]
pub(super) struct IncomingBody {
    fields: TraceFields,
    octets: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The header's end hasn't come yet.
    Header(Vec<u8>, BodyWriter),
    /// It has.
    Body(Summary, Option<String>, BodyWriter),
    /// There was no end to it.
    HeaderTooLong,
    /// The disk failed; the client hears of it at the end of data.
    Failed(io::Error),
}

/// A body that is complete.
#[derive(Debug)]
pub(super) struct Received {
    /// What its header says.
    pub(super) header: Header,
    /// The subject for people.
    pub(super) subject: Option<String>,
    /// The octets with our fields; absent when the header is too long to be taken.
    pub(super) body: Option<Body>,
}

impl IncomingBody {
    pub(super) fn new(fields: TraceFields, writer: BodyWriter) -> Self {
        Self { fields, octets: 0, stage: Stage::Header(Vec::new(), writer) }
    }

    /// Octets of the content so far.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Takes the next piece.
    pub(super) async fn push(&mut self, piece: &[u8]) {
        self.octets = self.octets.saturating_add(piece.len() as u64);
        let outcome = match &mut self.stage {
            Stage::Body(_, _, writer) => writer.push(piece).await,
            Stage::HeaderTooLong | Stage::Failed(_) => Ok(()),
            Stage::Header(kept, _) => {
                let mut searched = kept.len();
                kept.extend_from_slice(piece);
                let marks =
                    kept.chunks(BYTE_ORDER_MARK.len()).take_while(|chunk| *chunk == BYTE_ORDER_MARK).count();
                if marks > 0 {
                    kept.drain(..marks * BYTE_ORDER_MARK.len());
                    searched = 0;
                }
                match header::end(kept, searched) {
                    Some(end) if end <= MAX_HEADER_OCTETS => self.header_ends(end).await,
                    None if kept.len() <= MAX_HEADER_OCTETS => Ok(()),
                    _ => {
                        self.stage = Stage::HeaderTooLong;
                        Ok(())
                    }
                }
            }
        };
        if let Err(error) = outcome {
            self.stage = Stage::Failed(error);
        }
    }

    /// Writes what was kept, with our fields before it. Text without a header gets an empty line between.
    async fn header_ends(&mut self, end: usize) -> io::Result<()> {
        let stage = std::mem::replace(&mut self.stage, Stage::HeaderTooLong);
        let Stage::Header(kept, mut writer) = stage else { return Ok(()) };
        let summary = header::summarise(&kept[..end]);
        let subject = mime::subject(&kept[..end]);
        let mut lines = self.fields.lines(&summary);
        if !kept.starts_with(b"\r\n") && !header::begins_with_field(&kept) {
            lines.push_str("\r\n");
        }
        let written = match writer.push(lines.as_bytes()).await {
            Ok(()) => writer.push(&kept).await,
            failed => failed,
        };
        self.stage = Stage::Body(summary, subject, writer);
        written
    }

    /// The whole body. A failure is the disk's.
    pub(super) async fn finish(mut self) -> io::Result<Received> {
        if let Stage::Header(kept, _) = &self.stage {
            let end = kept.len();
            self.header_ends(end).await?;
        }
        match self.stage {
            Stage::Body(summary, subject, writer) => {
                let body = Some(writer.finish().await?);
                Ok(Received { header: Header::Read(summary), subject, body })
            }
            Stage::HeaderTooLong | Stage::Header(..) => {
                Ok(Received { header: Header::TooLong, subject: None, body: None })
            }
            Stage::Failed(error) => Err(error),
        }
    }
}
