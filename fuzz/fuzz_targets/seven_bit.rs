//! Content made 7-bit: ASCII or a reason why not, the same in pieces of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::mime::seven_bit::{Conversion, Survey};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, message) = input;
    let convert = |size: usize| {
        let mut survey = Survey::new();
        message.chunks(size).for_each(|piece| survey.push(piece));
        let mut conversion = Conversion::new(survey.finish()?);
        let mut out = Vec::new();
        message.chunks(size).for_each(|piece| conversion.push(piece, &mut out));
        conversion.finish(&mut out);
        Ok::<_, mailguard_core::mime::seven_bit::Impossible>(out)
    };
    let whole = convert(message.len().max(1));
    assert_eq!(convert(usize::from(size).max(1)), whole);
    if let Ok(converted) = whole {
        assert!(converted.is_ascii());
    }
});
