//! A server's side of a session, from greeting to the end: one outcome a recipient, whatever it says.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use mailguard_core::config::model::{Login, Mechanism};
use mailguard_core::mail::{
    BodyType, Domain, DsnReturn, Envelope, ForwardPath, Host, Mailbox, Recipient, ReversePath,
};
use mailguard_core::outcome::TlsUsed;
use mailguard_core::smtp::client::{Action, Client, ContentForm, Encryption, Settings, Transaction};

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk, wire) = input;
    let name = |text| Domain::parse(text).expect("a name");
    let recipients: Vec<Recipient> = ["a@example.test", "b@example.test"]
        .iter()
        .map(|text| Recipient::new(ForwardPath::Mailbox(Mailbox::parse(text).expect("an address"))))
        .collect();
    let now = Instant::now();
    let settings = Settings {
        helo: Host::Domain(name("client.example.test")),
        own_names: vec![name("client.example.test")],
        remote: "server".to_owned(),
        destination: "example.test".to_owned(),
        encryption: Encryption::Offered,
        login: Some(Login {
            user: "user".to_owned(),
            password: "password".to_owned(),
            methods: Mechanism::ALL.to_vec(),
        }),
        host: "mx.example.test".to_owned(),
        cnonce: "0123456789abcdef".to_owned(),
    };
    let mut client = Client::new(settings, now);
    let envelope = Envelope {
        reverse_path: ReversePath::Null,
        recipients: recipients.clone(),
        body: BodyType::SevenBit,
        smtputf8: true,
        dsn_return: Some(DsnReturn::Headers),
        envelope_id: Some("x".to_owned()),
    };
    let addressed: Vec<_> = recipients.iter().collect();
    let transaction = Transaction {
        envelope: &envelope,
        recipients: &addressed,
        content: (chunk % 2 == 0).then_some(ContentForm { size: 100, eight_bit: false, utf8_header: false }),
    };
    let (mut begun, mut ended) = (0, 0);
    for piece in wire.chunks(usize::from(chunk).max(1)) {
        client.handle_input(now, piece);
        while let Some(action) = client.poll_action() {
            match action {
                Action::Ready => {}
                Action::StartTls => {
                    let (version, cipher) = ("TLSv1.3".to_owned(), String::new());
                    client.tls_established(now, TlsUsed { version, cipher, verified: false });
                }
                Action::SendContent => client.content_sent(now),
                Action::Concluded(conclusion) => {
                    assert_eq!(conclusion.outcomes.len(), recipients.len());
                    ended += 1;
                }
                Action::Send(octets) => assert!(octets.ends_with(b"\r\n")),
                Action::Unusable(_) | Action::Close => {}
            }
        }
        if client.is_ready() && begun == ended {
            client.begin(now, &transaction);
            begun += 1;
        }
    }
    client.handle_lost("the end of the input");
    while let Some(action) = client.poll_action() {
        ended += i32::from(matches!(action, Action::Concluded(_)));
    }
    assert_eq!(begun, ended, "each transaction has exactly one conclusion");
});
