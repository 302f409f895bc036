//! Command lines: whatever comes, a command or a refusal that is one well-formed reply.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::smtp::command::Command;

fuzz_target!(|line: &[u8]| {
    if let Err(error) = Command::parse(line) {
        let mut reply = Vec::new();
        error.reply().encode(&mut reply);
        assert!(reply.ends_with(b"\r\n"));
        assert_eq!(reply.iter().filter(|&&octet| octet == b'\n').count(), 1);
    }
});
