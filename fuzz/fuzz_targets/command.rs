//! Command lines: whatever comes, a command or a refusal that is one well-formed reply.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::smtp::command::{Command, Strictness};

fuzz_target!(|line: &[u8]| {
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        if let Err(error) = Command::parse_as(line, strictness) {
            let mut reply = Vec::new();
            error.reply().encode(&mut reply);
            assert!(reply.ends_with(b"\r\n"));
            assert_eq!(reply.iter().filter(|&&octet| octet == b'\n').count(), 1);
        }
    }
});
