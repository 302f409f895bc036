//! Message headers: any octets have a summary, and the end is found wherever the pieces are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::mail::header::{MAX_FROM_ADDRESSES, end, summarise};

fuzz_target!(|message: &[u8]| {
    let summary = summarise(message);
    assert!(summary.from.len() <= MAX_FROM_ADDRESSES);
    let whole = end(message, 0);
    for cut in 0..=message.len() {
        assert_eq!(end(&message[..cut], 0).or_else(|| end(message, cut)), whole, "cut at {cut}");
    }
});
