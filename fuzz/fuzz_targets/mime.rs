//! The walk over a message's parts keeps its bounds, whatever the message.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use mailguard_core::mime::{self, Limits};

const LIMITS: Limits = Limits { max_depth: 4, max_entries: 200, max_unpacked: 1 << 20 };

fuzz_target!(|message: &[u8]| {
    let mut octets = 0;
    let summary = mime::walk(message, LIMITS, &mut |part| {
        assert!(part.depth <= LIMITS.max_depth);
        assert!(part.names.iter().all(|name| !name.is_empty()));
        octets += if part.is_container { 0 } else { part.content.len() as u64 };
        ControlFlow::Continue(())
    });
    assert!(octets <= LIMITS.max_unpacked);
    assert!(summary.parts <= LIMITS.max_entries);
    let _ = mime::subject(message);
});
