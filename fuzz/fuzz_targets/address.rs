//! Addresses: what parses prints as something that parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::mail::Mailbox;

fuzz_target!(|text: &str| {
    if let Ok(mailbox) = Mailbox::parse(text) {
        let again = Mailbox::parse(&mailbox.to_string());
        assert_eq!(again.as_ref(), Ok(&mailbox));
        assert!(!text.contains(['\r', '\n']), "a line end within an address");
    }
});
