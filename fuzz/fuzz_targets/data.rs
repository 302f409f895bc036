//! Message data: only CRLF.CRLF ends them, no bare line end and no NUL leaves the decoder, and any chunking
//! gives the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::smtp::data::{Decoder, Piece};

fn decode(wire: &[u8], chunk: usize) -> (Vec<u8>, bool, bool) {
    let (mut decoder, mut content, mut kept) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in wire.chunks(chunk) {
        kept.extend_from_slice(piece);
        loop {
            let (done, found) = decoder.decode(&kept);
            match found {
                Some(Piece::Content(octets)) => content.extend_from_slice(octets),
                Some(Piece::LineEnd) => content.extend_from_slice(b"\r\n"),
                Some(Piece::End) => return (content, true, decoder.saw_bare_line_end()),
                None => {
                    kept.drain(..done);
                    break;
                }
            }
            kept.drain(..done);
        }
    }
    (content, false, decoder.saw_bare_line_end())
}

fuzz_target!(|wire: &[u8]| {
    let whole = decode(wire, wire.len().max(1));
    assert_eq!(whole, decode(wire, 1));
    assert_eq!(whole, decode(wire, 3));
    let ends = wire.starts_with(b".\r\n") || wire.windows(5).any(|octets| octets == b"\r\n.\r\n");
    assert_eq!(whole.1, ends, "the end is CRLF.CRLF and nothing else");
    for (index, &octet) in whole.0.iter().enumerate() {
        match octet {
            b'\n' => assert!(index > 0 && whole.0[index - 1] == b'\r', "a bare LF left the decoder"),
            0 => panic!("a NUL left the decoder"),
            b'\r' => assert!(
                whole.0.get(index + 1).is_none_or(|&next| next == b'\n'),
                "a bare CR left the decoder"
            ),
            _ => {}
        }
    }
});
