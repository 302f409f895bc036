//! A body on its way to a server: as it stands where nothing needs stuffing, encoded piece by piece
//! otherwise.

use std::io;

use mailguard_core::mail::header::MAX_HEADER_OCTETS;
use mailguard_core::mime::seven_bit::{Conversion, Survey};
use mailguard_core::smtp::client::content::{ContentEncoder, END_OF_DATA, is_wire_ready};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::spool::{Body, BodyWriter};

/// Octets read from a body file at a time.
const PIECE_OCTETS: usize = 64 * 1024;

/// Whether the body must be declared as 8-bit. A file is declared so without a look where the server takes
/// 8-bit content: the declaration allows it, and costs nothing.
pub(super) async fn eight_bit(body: &Body, offered: bool) -> io::Result<bool> {
    match body {
        Body::Memory(octets) => Ok(!octets.is_ascii()),
        Body::File(_) if offered => Ok(true),
        Body::File(_) => {
            let mut octets = Octets::of(body).await?;
            while let Some(piece) = octets.next().await? {
                if !piece.is_ascii() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// Whether the header holds more than ASCII, which it may where MAIL said SMTPUTF8 (RFC 6532).
pub(super) async fn utf8_header(body: &Body) -> io::Result<bool> {
    let head = body.head(MAX_HEADER_OCTETS).await?;
    let end = memchr::memmem::find(&head, b"\r\n\r\n").unwrap_or(head.len());
    Ok(!head[..end].is_ascii())
}

/// The body made 7-bit, written by `writer`. None where that can't be done without a guess.
pub(super) async fn seven_bit(body: &Body, mut writer: BodyWriter) -> io::Result<Option<Body>> {
    let mut survey = Survey::new();
    let mut octets = Octets::of(body).await?;
    while let Some(piece) = octets.next().await? {
        survey.push(piece);
    }
    let plan = match survey.finish() {
        Ok(plan) => plan,
        Err(why) => {
            tracing::debug!(%why, "the message can't be made 7-bit");
            return Ok(None);
        }
    };
    let mut conversion = Conversion::new(plan);
    let mut converted = Vec::new();
    let mut octets = Octets::of(body).await?;
    while let Some(piece) = octets.next().await? {
        conversion.push(piece, &mut converted);
        writer.push(&converted).await?;
        converted.clear();
    }
    conversion.finish(&mut converted);
    writer.push(&converted).await?;
    writer.finish().await.map(Some)
}

/// The octets of a body, in pieces of at most [`PIECE_OCTETS`].
enum Octets<'a> {
    Memory(std::slice::Chunks<'a, u8>),
    File(File, Vec<u8>),
}

impl<'a> Octets<'a> {
    async fn of(body: &'a Body) -> io::Result<Self> {
        Ok(match body {
            Body::Memory(octets) => Octets::Memory(octets.chunks(PIECE_OCTETS)),
            Body::File(file) => Octets::File(File::open(file.path()).await?, vec![0; PIECE_OCTETS]),
        })
    }

    async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        match self {
            Octets::Memory(chunks) => Ok(chunks.next()),
            Octets::File(file, piece) => match file.read(piece).await? {
                0 => Ok(None),
                octets => Ok(Some(&piece[..octets])),
            },
        }
    }
}

/// The wire form of a body, in pieces.
pub(super) struct Pieces<'a> {
    source: Source<'a>,
    wire: Vec<u8>,
}

enum Source<'a> {
    /// Goes out as it is.
    Ready(&'a [u8]),
    /// Is encoded, end and all, in `wire`.
    Encoded,
    File {
        file: File,
        encoder: Option<ContentEncoder>,
        piece: Vec<u8>,
    },
}

impl<'a> Pieces<'a> {
    /// The pieces of `body`.
    pub(super) async fn of(body: &'a Body) -> io::Result<Self> {
        let mut wire = Vec::new();
        let source = match body {
            Body::Memory(octets) if is_wire_ready(octets) => Source::Ready(octets),
            Body::Memory(octets) => {
                wire.reserve(octets.len() + octets.len() / 32 + END_OF_DATA.len());
                let mut encoder = ContentEncoder::new();
                encoder.encode(octets, &mut wire);
                encoder.finish(&mut wire);
                Source::Encoded
            }
            Body::File(file) => {
                let file = File::open(file.path()).await?;
                Source::File { file, encoder: Some(ContentEncoder::new()), piece: vec![0; PIECE_OCTETS] }
            }
        };
        Ok(Self { source, wire })
    }

    /// The next piece, until what is left is the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Source::File { file, encoder: Some(encoder), piece } = &mut self.source else { return Ok(None) };
        let octets = file.read(piece).await?;
        self.wire.clear();
        if octets == 0 {
            return Ok(None);
        }
        encoder.encode(&piece[..octets], &mut self.wire);
        Ok(Some(&self.wire))
    }

    /// The last octets, with the final dot, in two slices.
    pub(super) fn end(&mut self) -> [&[u8]; 2] {
        match &mut self.source {
            Source::Ready(octets) => [octets, END_OF_DATA],
            Source::Encoded => [&self.wire, &[]],
            Source::File { encoder, .. } => {
                if let Some(encoder) = encoder.take() {
                    encoder.finish(&mut self.wire);
                }
                [&self.wire, &[]]
            }
        }
    }
}
