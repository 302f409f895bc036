//! What is said in the sessions of a [`super::pair`]: extensions, envelopes and contents, the verdicts of the
//! server's surroundings, and what must become of each recipient when nothing breaks.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::config::model::{Login, Mechanism};
use crate::credentials::Credentials;
use crate::language::Language;
use crate::mail::{
    BodyType, Domain, DsnReturn, Envelope, ForwardPath, Host, Mailbox, Notify, Recipient, ReversePath,
};
use crate::outcome::Outcome;
use crate::smtp::client::{self, ContentForm, Encryption};
use crate::smtp::server::{self, AuthOffer, UncleanData};
use crate::smtp::{MailCommand, Refusal, Strictness};
use crate::testing::login;

/// The server stores no content that begins so.
pub(super) const FULL: &[u8] = b"full";

/// The largest message that the server takes.
pub(super) const MAX_MESSAGE_OCTETS: u64 = 3_000;

/// Most recipients that the server takes of one message.
pub(super) const MAX_RECIPIENTS: usize = 4;

/// What the server offers to everybody, and to those who may use it.
pub(super) const EXTENSIONS: [&str; 9] = [
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "DSN",
    "SMTPUTF8",
    "STARTTLS",
    "AUTH",
];

/// Contents that a client or a server may read another way than the one between them means.
pub(super) const CONTENTS: [&[u8]; 18] = [
    b"",
    b"\r\n",
    b"Subject: x\r\n\r\ntext\r\n",
    b"no line end",
    b".",
    b".\r\n",
    b"..\r\n.\r\n...\r\n",
    b"a\r\n.\r\nMAIL FROM:<smuggled@client.test>\r\nRCPT TO:<rcpt0@mx.test>\r\nDATA\r\nb\r\n.\r\n",
    b"a\n.\nMAIL FROM:<smuggled@client.test>\n",
    b"a\r.\rb\r\r\n.\r\n",
    b"a\r\n.\rb\n\r.\n",
    b"\0.\0\r\n\0.\r\0\nb\r\n.\0\r\n",
    b"\0",
    b"\r\n.\r\n.\r\n",
    b"8 bit: \xc3\xb6, \xff\xfe and \x80\r\n",
    b"QUIT\r\nRSET\r\nSTARTTLS\r\n",
    b"full\r\n",
    b"\r\n\r\n\r\n",
];

/// A message, or the question whether it would be taken.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) envelope: Envelope,
    pub(super) content: Vec<u8>,
    /// The header needs SMTPUTF8.
    pub(super) utf8_header: bool,
    /// The server is only asked about the recipients.
    pub(super) asks_only: bool,
}

impl Message {
    pub(super) fn new(index: usize, recipients: &[&str], content: &[u8]) -> Self {
        let sender = Mailbox::parse(&format!("sender{index}@client.test")).unwrap();
        let envelope = Envelope {
            reverse_path: ReversePath::Mailbox(sender),
            recipients: recipients.iter().map(|name| recipient(name)).collect(),
            body: BodyType::SevenBit,
            smtputf8: false,
            dsn_return: None,
            envelope_id: None,
        };
        Self { envelope, content: content.to_vec(), utf8_header: false, asks_only: false }
    }

    fn eight_bit(&self) -> bool {
        !self.content.is_ascii()
    }

    /// What arrives: every line end CRLF, the last line ended, no NUL.
    pub(super) fn meant(&self) -> Vec<u8> {
        let mut meant: Vec<u8> = Vec::new();
        let mut after_cr = false;
        for octet in self.content.iter().copied().filter(|&octet| octet != 0) {
            match octet {
                b'\n' if after_cr => {}
                b'\r' | b'\n' => meant.extend_from_slice(b"\r\n"),
                octet => meant.push(octet),
            }
            after_cr = octet == b'\r';
        }
        if !meant.is_empty() && !meant.ends_with(b"\r\n") {
            meant.extend_from_slice(b"\r\n");
        }
        meant
    }

    pub(super) fn form(&self) -> Option<ContentForm> {
        let form = ContentForm {
            size: self.meant().len() as u64,
            eight_bit: self.eight_bit(),
            utf8_header: self.utf8_header,
        };
        (!self.asks_only).then_some(form)
    }
}

/// `NAME`, at our server.
fn recipient(name: &str) -> Recipient {
    Recipient::new(ForwardPath::Mailbox(Mailbox::parse(&format!("{name}@mx.test")).unwrap()))
}

fn local_part(recipient: &Recipient) -> &str {
    recipient.forward_path.mailbox().map(|mailbox| mailbox.local_part.as_str()).unwrap_or_default()
}

/// What the server's surroundings think of a recipient: that is in its name.
pub(super) fn verdict(recipient: &Recipient) -> Result<(), Refusal> {
    match local_part(recipient) {
        name if name.starts_with("refused") => Err(Refusal::RelayDenied),
        name if name.starts_with("deferred") => Err(Refusal::StorageFull),
        _ => Ok(()),
    }
}

/// What both ends are told, and what stands between them.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// Extensions that something between both ends takes out of the answer to EHLO.
    pub(super) hidden: Vec<&'static str>,
    /// Something between both ends knows no EHLO.
    pub(super) knows_ehlo: bool,
    pub(super) encryption: Encryption,
    pub(super) offers_tls: bool,
    pub(super) handshake_succeeds: bool,
    pub(super) auth: AuthOffer,
    pub(super) login: Option<Login>,
    pub(super) unclean_data: UncleanData,
    pub(super) strictness: Strictness,
    pub(super) max_recipients: usize,
    pub(super) messages: Vec<Message>,
}

impl Scenario {
    /// A stranger's session in the clear.
    pub(super) fn with(messages: Vec<Message>) -> Self {
        Self {
            hidden: Vec::new(),
            knows_ehlo: true,
            encryption: Encryption::Offered,
            offers_tls: false,
            handshake_succeeds: true,
            auth: AuthOffer::Never,
            login: None,
            unclean_data: UncleanData::Refuse,
            strictness: Strictness::Strict,
            max_recipients: MAX_RECIPIENTS,
            messages,
        }
    }

    pub(super) fn server_settings(&self) -> server::Settings {
        server::Settings {
            hostname: Domain::parse("mx.test").unwrap(),
            language: Language::English,
            max_message_octets: MAX_MESSAGE_OCTETS,
            max_recipients: self.max_recipients,
            // That the client sends nothing wrong is what is tested.
            hard_error_limit: 1_000,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(300),
            unclean_data: self.unclean_data,
            strictness: self.strictness,
            offers_tls: self.offers_tls,
            auth: self.auth,
        }
    }

    pub(super) fn client_settings(&self) -> client::Settings {
        client::Settings {
            helo: Host::Domain(Domain::parse("client.test").unwrap()),
            own_names: vec![Domain::parse("client.test").unwrap()],
            remote: "mx.test[192.0.2.1]:25".to_owned(),
            destination: "mx.test".to_owned(),
            encryption: self.encryption,
            login: self.login.clone(),
            host: "mx.test".to_owned(),
            cnonce: "OA6MHXh6VqTrRk".to_owned(),
        }
    }

    pub(super) fn is_right(&self, credentials: &Credentials) -> bool {
        (credentials.user.as_str(), credentials.password.as_str()) == ("alice", "secret")
    }

    /// What the server's surroundings think of a transaction (RFC 1870 §6.1).
    pub(super) fn judge_mail(&self, mail: &MailCommand) -> Result<(), Refusal> {
        match mail.size {
            Some(size) if size > MAX_MESSAGE_OCTETS => Err(Refusal::TooLarge(MAX_MESSAGE_OCTETS)),
            _ => Ok(()),
        }
    }

    /// What the client gets of a reply. Only EHLO's has several lines.
    pub(super) fn passed_on(&self, reply: &[u8]) -> Vec<u8> {
        if !reply.starts_with(b"250-") {
            return reply.to_vec();
        }
        if !self.knows_ehlo {
            return b"502 5.5.1 Command not implemented\r\n".to_vec();
        }
        let text = std::str::from_utf8(reply).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| &line[4..]).collect();
        let is_hidden = |line: &str| self.hidden.iter().any(|hidden| line.split(' ').next() == Some(hidden));
        let shown: Vec<&str> = lines.into_iter().filter(|line| !is_hidden(line)).collect();
        let end = |index: usize| if index + 1 == shown.len() { ' ' } else { '-' };
        let line = |(index, line): (usize, &&str)| format!("250{}{line}\r\n", end(index));
        shown.iter().enumerate().map(line).collect::<String>().into_bytes()
    }

    /// Whether the client sees an extension that the server offers.
    pub(super) fn shows(&self, keyword: &str) -> bool {
        self.knows_ehlo && !self.hidden.contains(&keyword)
    }

    pub(super) fn encrypts(&self) -> bool {
        let wanted = matches!(self.encryption, Encryption::Offered | Encryption::Required);
        wanted && self.offers_tls && self.shows("STARTTLS")
    }

    /// Why the session doesn't come about, as the outcome of everything that was meant for it.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        let encrypts = self.encrypts();
        if encrypts && !self.handshake_succeeds || self.encryption == Encryption::Required && !encrypts {
            return Some("deferred 4.7.4");
        }
        let login = self.login.as_ref()?;
        let offered = match self.auth {
            AuthOffer::Never => false,
            AuthOffer::Encrypted => encrypts,
            AuthOffer::Always => true,
        };
        let known = login.methods.iter().any(|method| matches!(method, Mechanism::Plain | Mechanism::Login));
        let may_tell = encrypts || self.encryption == Encryption::Off;
        if !(offered && self.shows("AUTH") && known && may_tell) {
            return Some("deferred 4.7.4");
        }
        (login.password != "secret").then_some("deferred 4.7.8")
    }

    /// What becomes of a message's recipients when nothing breaks.
    pub(super) fn outcomes(&self, message: &Message) -> Vec<&'static str> {
        let too_large = message.meant().len() as u64 > MAX_MESSAGE_OCTETS;
        let all = |outcome| vec![outcome; message.envelope.recipients.len()];
        if !message.asks_only {
            if self.shows("SIZE") && too_large {
                return all("failed 5.3.4");
            }
            if message.eight_bit() && !self.shows("8BITMIME") {
                return all("failed 5.6.3");
            }
            if message.utf8_header && !self.shows("SMTPUTF8") {
                return all("failed 5.6.7");
            }
        }
        let mut taken = 0;
        let outcome = |recipient: &Recipient| {
            let name = local_part(recipient);
            let success = recipient.notify.is_some_and(|notify| notify.success);
            if !name.is_ascii() && !self.shows("SMTPUTF8") {
                return "failed 5.6.7";
            }
            if taken == self.max_recipients {
                return "deferred 4.5.3";
            }
            match verdict(recipient) {
                Err(Refusal::RelayDenied) => return "failed 5.7.1",
                Err(_) => return "deferred 4.3.1",
                Ok(()) => taken += 1,
            }
            match message.content.starts_with(FULL) {
                _ if message.asks_only => "delivered 2.1.5",
                _ if too_large => "failed 5.3.4",
                true => "deferred 4.3.1",
                false if success && !self.shows("DSN") => "relayed 2.0.0",
                false => "delivered 2.0.0",
            }
        };
        message.envelope.recipients.iter().map(outcome).collect()
    }
}

/// An outcome in the words of [`Scenario::outcomes`].
pub(super) fn words(outcome: &Outcome) -> String {
    let word = match outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Relayed(_) => "relayed",
        Outcome::Deferred(_) => "deferred",
        Outcome::Failed(_) => "failed",
    };
    format!("{word} {}", outcome.report().status)
}

fn some_recipient() -> impl Strategy<Value = Recipient> {
    let notify = select(vec![
        None,
        Some(Notify::NEVER),
        Some(Notify { success: true, ..Notify::NEVER }),
        Some(Notify { failure: true, delay: true, ..Notify::NEVER }),
    ]);
    let name = prop_oneof![4 => "rcpt[0-9]", 1 => "refused[0-9]", 1 => "deferred[0-9]", 1 => "größe[0-9]"];
    let original = proptest::option::of("rfc822;[a-z]{1,9}@[a-z]{1,9}\\.test");
    (name, notify, original).prop_map(|(name, notify, original_recipient)| Recipient {
        notify,
        original_recipient,
        ..recipient(&name)
    })
}

fn some_content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => select(CONTENTS.to_vec()).prop_map(<[u8]>::to_vec),
        4 => "[a.\r\n\0]{0,40}".prop_map(String::into_bytes),
        2 => "[aö.\r\n\0]{0,200}".prop_map(String::into_bytes),
        1 => (900_usize..1_100, 1_usize..5).prop_map(|(length, lines)| {
            let line = [vec![b'x'; length], b"\r\n".to_vec()].concat();
            line.repeat(lines)
        }),
    ]
}

fn some_message() -> impl Strategy<Value = Message> {
    let ret = select(vec![None, Some(DsnReturn::Full), Some(DsnReturn::Headers)]);
    let id = proptest::option::of("[a-z0-9]{1,9}");
    let flags = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2));
    (vec(some_recipient(), 1..7), some_content(), ret, id, flags).prop_map(
        |(recipients, content, dsn_return, envelope_id, (smtputf8, utf8_header, asks_only))| {
            let mut message = Message::new(0, &[], &content);
            message.envelope = Envelope { recipients, smtputf8, dsn_return, envelope_id, ..message.envelope };
            message.utf8_header = utf8_header && smtputf8;
            message.asks_only = asks_only;
            message
        },
    )
}

fn some_login() -> impl Strategy<Value = Option<Login>> {
    let methods = subsequence(Mechanism::ALL.to_vec(), 1..=4);
    let password = prop_oneof![3 => Just("secret"), 1 => Just("wrong")];
    proptest::option::of(
        (password, methods).prop_map(|(password, methods)| login("alice", password, &methods)),
    )
}

prop_compose! {
    pub(super) fn some_scenario()(
        hidden in subsequence(EXTENSIONS.to_vec(), 0..=4),
        knows_ehlo in proptest::bool::weighted(0.9),
        encryption in select(vec![
            Encryption::Off, Encryption::Failed, Encryption::Offered, Encryption::Offered, Encryption::Required,
        ]),
        offers_tls in any::<bool>(),
        handshake_succeeds in proptest::bool::weighted(0.9),
        auth in select(vec![AuthOffer::Never, AuthOffer::Encrypted, AuthOffer::Always, AuthOffer::Always]),
        login in some_login(),
        (unclean_data, strictness) in select(vec![
            (UncleanData::Refuse, Strictness::Strict), (UncleanData::Repair, Strictness::Lenient),
        ]),
        messages in vec(some_message(), 1..4),
    ) -> Scenario {
        let messages = messages.into_iter().enumerate().map(|(index, mut message)| {
            message.envelope.reverse_path = Message::new(index, &[], b"").envelope.reverse_path;
            message
        });
        Scenario {
            hidden, knows_ehlo, encryption, offers_tls, handshake_succeeds, auth, login, unclean_data, strictness,
            ..Scenario::with(messages.collect())
        }
    }
}
