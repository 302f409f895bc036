//! Whole sessions: whatever a client writes, replies are well-formed, bodies hold CRLF line ends only and no
//! NUL, and nothing is "queued" that the driver gave no receipt for.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use mailguard_core::language::Language;
use mailguard_core::mail::{Domain, QueueId};
use mailguard_core::smtp::{Refusal, Strictness};
use mailguard_core::smtp::server::{
    Action, AuthOffer, Introduction, LoginRefused, Question, Server, Settings, UncleanData,
};

/// Parts two writes of the client's in the input.
const PAUSE: u8 = 0xff;

const MAX_MESSAGE_OCTETS: u64 = 200;

struct Receipt;

fn settings() -> Settings {
    Settings {
        hostname: Domain::parse("mx.example").unwrap(),
        language: Language::German,
        max_message_octets: MAX_MESSAGE_OCTETS,
        max_recipients: 3,
        hard_error_limit: 20,
        command_timeout: Duration::from_secs(300),
        data_timeout: Duration::from_secs(600),
        unclean_data: UncleanData::Repair,
        strictness: Strictness::Lenient,
        offers_tls: true,
        auth: AuthOffer::Encrypted,
    }
}

fuzz_target!(|input: &[u8]| {
    let now = Instant::now();
    let mut server: Server<Receipt> = Server::new(settings(), now);
    server.greet(now);
    let (mut body, mut written, mut receipts) = (Vec::new(), Vec::new(), 0);
    for octets in input.split(|&octet| octet == PAUSE) {
        server.handle_input(now, octets);
        while let Some(action) = server.poll_action() {
            match action {
                Action::Write(octets) => written.extend_from_slice(octets),
                Action::Judge(Question::Mail(_)) => server.answer_mail(now, QueueId(1), Ok(())),
                Action::Judge(Question::Auth(credentials)) => {
                    assert!(server.introduction().encrypted, "a password in the clear");
                    let right = credentials.password.len() > 1;
                    server.answer_auth(now, if right { Ok(()) } else { Err(LoginRefused::Wrong) });
                }
                Action::StartTls => {
                    server.tls_established(now);
                    let Introduction { greeting, user, .. } = server.introduction();
                    assert!(user.is_none() && greeting.name().is_none());
                }
                Action::Judge(Question::AuthForAnother { .. }) => {
                    server.refuse_auth(now, LoginRefused::ForAnother);
                }
                Action::Judge(Question::Rcpt(recipient)) => {
                    let verdict = recipient.forward_path.mailbox().map(|_| ()).ok_or(Refusal::RelayDenied);
                    server.answer_rcpt(now, verdict);
                }
                Action::Judge(Question::Data) => {
                    let text = String::from_utf8_lossy(&body).replace("\r\n", "");
                    assert!(!text.contains(['\r', '\n', '\0']), "a bare line end or a NUL in a body");
                    receipts += 1;
                    server.answer_data(now, Ok(Receipt));
                }
                Action::BeginBody => body.clear(),
                Action::Body(octets) => {
                    body.extend_from_slice(octets);
                    assert!(body.len() as u64 <= MAX_MESSAGE_OCTETS);
                }
                Action::Abandon | Action::RefuseBody(_) | Action::Close(_) => {}
            }
        }
    }
    let text = String::from_utf8(written).expect("replies are text");
    assert!(text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']));
    assert_eq!(text.matches("250 2.0.0 Ok: queued as").count(), receipts);
});
