//! A login at an IMAP server that says anything: bounded, and never accepted before it was told all of the
//! password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailguard_core::credentials::Credentials;
use mailguard_core::imap::{Action, Login, Transport, Verdict};

/// Parts two writes of the server's in the input.
const PAUSE: u8 = 0xff;

fuzz_target!(|input: &[u8]| {
    let credentials = Credentials { user: "alice".to_owned(), password: "secret".to_owned() };
    let mut login = Login::new(credentials, Transport::StartTls);
    let (mut encrypted, mut told) = (false, false);
    for octets in input.split(|&octet| octet == PAUSE) {
        login.handle_input(octets);
        while let Some(action) = login.poll_action() {
            match action {
                Action::Send(octets) => {
                    let text = String::from_utf8_lossy(&octets).into_owned();
                    let holds_password = text.contains("AGFsaWNlAHNlY3JldA==") || text.contains("secret");
                    assert!(encrypted || !holds_password, "a password in the clear");
                    told |= holds_password;
                }
                Action::StartTls => {
                    encrypted = true;
                    login.tls_established();
                }
                Action::Done(verdict) => assert!(told || verdict != Verdict::Accepted),
            }
        }
    }
});
