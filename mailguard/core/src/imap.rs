//! One login at an IMAP server, to learn whether name and password are right (RFC 9051, RFC 3501): octets go
//! in, actions come out.
//!
//! Nothing else is done there. What a server says that isn't understood, or too much of, is an outage, never
//! a "no", and a "yes" counts only once it has been told all of the password. Nothing that it says after that
//! is repeated.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::credentials::Credentials;

/// Longest line of the server's that is read, octets.
pub const MAX_LINE_OCTETS: usize = 8 * 1024;
/// Most octets that the server may say in one login.
pub const MAX_OCTETS: usize = 64 * 1024;

/// How the connection stands as the login begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// It is encrypted, or it is not to be.
    AsItIs,
    /// STARTTLS comes before the password.
    StartTls,
}

/// What the server says of name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are right.
    Accepted,
    /// They are not.
    Refused,
    /// It doesn't say; why, in one line.
    Unavailable(String),
}

/// What the driver has to do. Not to be printed: it holds the password.
#[derive(PartialEq, Eq)]
pub enum Action {
    /// Write these octets.
    Send(Vec<u8>),
    /// Do the TLS handshake as its client, and call [`Login::tls_established`].
    StartTls,
    /// All is known. The connection is of no more use.
    Done(Verdict),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Greeting,
    Capabilities,
    StartTls,
    Handshake,
    /// The answer to AUTHENTICATE or LOGIN; so many pieces of it are sent.
    Login(usize),
    Over,
}

/// What the server can do.
#[derive(Debug, Default)]
struct Capabilities {
    start_tls: bool,
    login_disabled: bool,
    plain: bool,
    initial_response: bool,
}

/// A login.
pub struct Login {
    credentials: Credentials,
    transport: Transport,
    wait: Wait,
    /// What the server said, as far as it did.
    capabilities: Option<Capabilities>,
    input: Vec<u8>,
    /// Octets that the server said.
    said: usize,
    /// Octets of a literal that are still to be passed over.
    literal: usize,
    /// The next line goes on with a response that held a literal.
    continued: bool,
    /// The number of the last command: its tag.
    commands: u32,
    /// What is sent piece by piece, each when the server says go on.
    pieces: Vec<Vec<u8>>,
    actions: std::collections::VecDeque<Action>,
}

impl Login {
    /// A login on a connection that was just made.
    pub fn new(credentials: Credentials, transport: Transport) -> Self {
        Self {
            credentials,
            transport,
            wait: Wait::Greeting,
            capabilities: None,
            input: Vec::new(),
            said: 0,
            literal: 0,
            continued: false,
            commands: 0,
            pieces: Vec::new(),
            actions: std::collections::VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The server closed the connection.
    pub fn handle_end(&mut self) {
        self.unavailable("the server closed the connection");
    }

    /// The connection is encrypted: nothing is believed that was said before (RFC 9051 §6.2.1).
    pub fn tls_established(&mut self) {
        if self.wait == Wait::Handshake {
            self.transport = Transport::AsItIs;
            self.input.clear();
            (self.literal, self.continued) = (0, false);
            self.ask_capabilities();
        }
    }

    /// Takes what the server said.
    pub fn handle_input(&mut self, octets: &[u8]) {
        if self.wait == Wait::Over {
            return;
        }
        self.said = self.said.saturating_add(octets.len());
        if self.said > MAX_OCTETS {
            return self.unavailable("the server says too much");
        }
        self.input.extend_from_slice(octets);
        while self.wait != Wait::Over {
            if self.wait == Wait::Handshake {
                // It came in the clear, and would be taken for what comes encrypted.
                return self.unavailable("the server went on talking after STARTTLS");
            }
            let skipped = self.literal.min(self.input.len());
            self.input.drain(..skipped);
            self.literal -= skipped;
            let Some(end) = memchr::memmem::find(&self.input, b"\r\n") else {
                if self.input.len() > MAX_LINE_OCTETS {
                    self.unavailable("the server sent a line without an end");
                }
                return;
            };
            let line: Vec<u8> = self.input.drain(..end + 2).take(end).collect();
            let continues = std::mem::take(&mut self.continued);
            if continues || holds_data(&line) {
                self.literal = literal(&line).unwrap_or(0);
                self.continued = literal(&line).is_some();
            }
            if !continues {
                self.handle_line(&String::from_utf8_lossy(&line));
            }
            if self.wait == Wait::Handshake && self.input.is_empty() {
                return;
            }
        }
    }

    fn handle_line(&mut self, line: &str) {
        if let Some(untagged) = line.strip_prefix("* ") {
            return self.handle_untagged(untagged);
        }
        if line == "+" || line.starts_with("+ ") {
            return self.go_on();
        }
        match line.split_once(' ') {
            Some((tag, rest)) if self.commands > 0 && tag == self.tag() => self.handle_tagged(rest),
            _ => self.unavailable("the server doesn't speak IMAP"),
        }
    }

    fn handle_untagged(&mut self, text: &str) {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match self.wait {
            _ if word.eq_ignore_ascii_case("BYE") => {
                self.says("BYE", rest);
            }
            Wait::Greeting if word.eq_ignore_ascii_case("OK") => self.ask_capabilities(),
            Wait::Greeting => self.unavailable("the server's greeting isn't OK"),
            Wait::Capabilities if word.eq_ignore_ascii_case("CAPABILITY") => {
                self.capabilities = Some(Capabilities::of(rest));
            }
            _ => {}
        }
    }

    fn handle_tagged(&mut self, text: &str) {
        let (status, rest) = text.split_once(' ').unwrap_or((text, ""));
        let ok = status.eq_ignore_ascii_case("OK");
        match self.wait {
            Wait::Capabilities if ok && self.transport == Transport::StartTls => self.start_tls(),
            Wait::Capabilities if ok => self.log_in(),
            Wait::StartTls if ok => {
                self.wait = Wait::Handshake;
                self.actions.push_back(Action::StartTls);
            }
            Wait::Login(sent) if sent == self.pieces.len() && ok => self.done(Verdict::Accepted),
            Wait::Login(sent)
                if sent == self.pieces.len() && status.eq_ignore_ascii_case("NO") && !is_outage(rest) =>
            {
                self.done(Verdict::Refused);
            }
            _ => self.says(status, rest),
        }
    }

    /// What the server says instead of an answer. Once it was told the password, its text may hold that.
    fn says(&mut self, status: &str, text: &str) {
        let told = matches!(self.wait, Wait::Login(_));
        let known = ["OK", "NO", "BAD", "BYE"].iter().find(|known| known.eq_ignore_ascii_case(status));
        match known {
            Some(status) if told => self.unavailable(&format!("the server answers the login with {status}")),
            Some(status) => self.unavailable(&format!("the server says {status} {}", shown(text))),
            None => self.unavailable("the server doesn't speak IMAP"),
        }
    }

    fn ask_capabilities(&mut self) {
        self.capabilities = None;
        self.wait = Wait::Capabilities;
        self.command("CAPABILITY");
    }

    fn start_tls(&mut self) {
        if !self.capabilities.as_ref().is_some_and(|capabilities| capabilities.start_tls) {
            return self.unavailable("the server doesn't offer STARTTLS");
        }
        self.wait = Wait::StartTls;
        self.command("STARTTLS");
    }

    /// AUTHENTICATE where the server has it (RFC 4616, RFC 4959), else LOGIN, name and password as literals:
    /// no character of theirs needs a quote then.
    fn log_in(&mut self) {
        let Credentials { user, password } = &self.credentials;
        if user.contains('\0') || password.contains('\0') {
            return self.done(Verdict::Refused);
        }
        let Some(capabilities) = &self.capabilities else {
            return self.unavailable("the server doesn't say what it can do");
        };
        let plain = STANDARD.encode(format!("\0{user}\0{password}"));
        let tag = format!("a{}", self.commands + 1);
        self.pieces = if capabilities.plain && capabilities.initial_response {
            vec![format!("{tag} AUTHENTICATE PLAIN {plain}\r\n").into_bytes()]
        } else if capabilities.plain {
            vec![format!("{tag} AUTHENTICATE PLAIN\r\n").into_bytes(), format!("{plain}\r\n").into_bytes()]
        } else if !capabilities.login_disabled {
            vec![
                format!("{tag} LOGIN {{{}}}\r\n", user.len()).into_bytes(),
                format!("{user} {{{}}}\r\n", password.len()).into_bytes(),
                format!("{password}\r\n").into_bytes(),
            ]
        } else {
            return self.unavailable("the server offers neither AUTH=PLAIN nor LOGIN on this connection");
        };
        self.commands += 1;
        self.wait = Wait::Login(0);
        self.go_on();
    }

    fn go_on(&mut self) {
        let Wait::Login(sent) = self.wait else { return self.unavailable("the server waits for nothing") };
        match self.pieces.get_mut(sent) {
            Some(piece) => {
                self.actions.push_back(Action::Send(std::mem::take(piece)));
                self.wait = Wait::Login(sent + 1);
            }
            None => self.unavailable("the server wants more than name and password"),
        }
    }

    fn command(&mut self, command: &str) {
        self.commands += 1;
        self.actions.push_back(Action::Send(format!("{} {command}\r\n", self.tag()).into_bytes()));
    }

    fn tag(&self) -> String {
        format!("a{}", self.commands)
    }

    fn unavailable(&mut self, why: &str) {
        self.done(Verdict::Unavailable(why.to_owned()));
    }

    fn done(&mut self, verdict: Verdict) {
        if self.wait != Wait::Over {
            self.wait = Wait::Over;
            self.actions.push_back(Action::Done(verdict));
        }
    }
}

impl Capabilities {
    fn of(words: &str) -> Self {
        let mut capabilities = Self::default();
        for word in words.split_ascii_whitespace() {
            let is = |name: &str| word.eq_ignore_ascii_case(name);
            capabilities.start_tls |= is("STARTTLS");
            capabilities.login_disabled |= is("LOGINDISABLED");
            capabilities.plain |= is("AUTH=PLAIN");
            capabilities.initial_response |= is("SASL-IR");
        }
        capabilities
    }
}

/// Whether a line begins an untagged response with data. The text of the others is for people, whatever it
/// ends with.
fn holds_data(line: &[u8]) -> bool {
    let word = line.strip_prefix(b"* ").and_then(|rest| rest.split(|&octet| octet == b' ').next());
    let is_text = |word: &[u8]| {
        [&b"OK"[..], b"NO", b"BAD", b"BYE", b"PREAUTH"].iter().any(|known| word.eq_ignore_ascii_case(known))
    };
    word.is_some_and(|word| !is_text(word))
}

/// The length of the literal that a line announces at its end, `{7}`.
fn literal(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}")?;
    let digits = &line[line.iter().rposition(|&octet| octet == b'{')? + 1..];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether a NO says that it isn't about name and password (RFC 5530 §3).
fn is_outage(text: &str) -> bool {
    ["[UNAVAILABLE", "[SERVERBUG", "[INUSE", "[LIMIT", "[PRIVACYREQUIRED"]
        .iter()
        .any(|code| text.get(..code.len()).is_some_and(|start| start.eq_ignore_ascii_case(code)))
}

/// What a log may show of a server's text.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::transcript::{self, End, Tried, written};

    /// A login that hears at most so many octets at once.
    struct Session {
        login: Login,
        octets: usize,
    }

    impl Tried for Session {
        fn hear(&mut self, octets: &[u8]) {
            octets.chunks(self.octets.min(octets.len())).for_each(|part| self.login.handle_input(part));
        }

        fn pass(&mut self, _: Duration) {}

        fn told(&mut self, what: &str) {
            panic!("{what}");
        }

        /// `= tls` is a handshake, `=` else the verdict.
        fn did(&mut self) -> Vec<String> {
            let mut did = Vec::new();
            while let Some(action) = self.login.poll_action() {
                match action {
                    Action::Send(octets) => did.extend(written(End::Client, &octets)),
                    Action::StartTls => {
                        self.login.tls_established();
                        did.push("= tls".to_owned());
                    }
                    Action::Done(Verdict::Unavailable(why)) => did.push(format!("= {why}")),
                    Action::Done(verdict) => did.push(format!("= {verdict:?}")),
                }
            }
            did
        }
    }

    #[track_caller]
    fn check(transport: Transport, user: &str, password: &str, transcript: &str) {
        for octets in [1, usize::MAX] {
            let credentials = Credentials { user: user.to_owned(), password: password.to_owned() };
            let mut session = Session { login: Login::new(credentials, transport), octets };
            transcript::check(&mut session, End::Server, transcript);
        }
    }

    const GREETED: &str = "
        S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready {20}
        C: a1 CAPABILITY
    ";

    fn check_greeted(password: &str, transcript: &str) {
        check(Transport::AsItIs, "alice", password, &format!("{GREETED}{transcript}"));
    }

    #[test]
    fn authenticate_where_it_is_offered() {
        check_greeted(
            "secret",
            "S: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN
             S: a1 OK done
             C: a2 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
             S: * CAPABILITY IMAP4rev1
             S: a2 OK logged in
             = Accepted",
        );
        check_greeted(
            "wrong",
            "S: * capability imap4rev1 auth=plain
             S: a1 ok done
             C: a2 AUTHENTICATE PLAIN
             S: +
             C: AGFsaWNlAHdyb25n
             S: a2 NO [AUTHENTICATIONFAILED] no
             = Refused",
        );
    }

    #[test]
    fn login_with_literals_otherwise() {
        check_greeted(
            "se\"cr\\et ß",
            "S: * CAPABILITY IMAP4rev1
             S: a1 OK done
             C: a2 LOGIN {5}
             S: + go on
             C: alice {11}
             S: + go on
             C: se\"cr\\et ß
             S: a2 OK [CAPABILITY IMAP4rev1] logged in
             = Accepted",
        );
    }

    #[test]
    fn a_literal_is_no_answer() {
        check_greeted(
            "secret",
            "S: * X {14}
             S: a1 OK in data
             S:  and on {4}
             S: a1
             S: OK
             S: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN
             S: a1 OK done
             C: a2 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
             S: a2 OK logged in
             = Accepted",
        );
    }

    #[test]
    fn what_is_no_answer_is_an_outage() {
        let offered = "S: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN
             S: a1 OK done
             C: a2 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==";
        for (said, why) in [
            ("a2 NO [UNAVAILABLE] database down", "the server answers the login with NO"),
            ("a2 BAD what is AGFsaWNlAHNlY3JldA==?", "the server answers the login with BAD"),
            ("* BYE too many connections", "the server answers the login with BYE"),
            ("a1 OK done again", "the server doesn't speak IMAP"),
            ("+ c2F5IG1vcmU=", "the server wants more than name and password"),
            ("HTTP/1.1 400 Bad Request", "the server doesn't speak IMAP"),
        ] {
            check_greeted("secret", &format!("{offered}\nS: {said}\n= {why}"));
        }
        check_greeted(
            "secret",
            "S: * CAPABILITY AUTH=PLAIN
             S: a1 OK done
             C: a2 AUTHENTICATE PLAIN
             S: a2 OK without the password
             = the server answers the login with OK",
        );
        check_greeted(
            "secret",
            "S: * CAPABILITY IMAP4rev1
             S: a1 OK done
             C: a2 LOGIN {5}
             S: a2 NO not now
             = the server answers the login with NO",
        );
        check_greeted("secret", "S: a1 OK done\n= the server doesn't say what it can do");
        check_greeted(
            "secret",
            "S: * CAPABILITY IMAP4rev1 LOGINDISABLED
             S: a1 OK done
             = the server offers neither AUTH=PLAIN nor LOGIN on this connection",
        );
        check(Transport::AsItIs, "a", "b", "S: * BYE full\n= the server says BYE full");
        check(Transport::AsItIs, "a", "b", "S: * PREAUTH hello\n= the server's greeting isn't OK");
        check(Transport::AsItIs, "a", "b", "S: 220 mx.example ESMTP\n= the server doesn't speak IMAP");
    }

    #[test]
    fn the_password_waits_for_encryption() {
        check(
            Transport::StartTls,
            "alice",
            "secret",
            "S: * OK ready
             C: a1 CAPABILITY
             S: * CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED
             S: a1 OK done
             C: a2 STARTTLS
             S: a2 OK begin
             = tls
             C: a3 CAPABILITY
             S: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN
             S: a3 OK done
             C: a4 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
             S: a4 OK logged in
             = Accepted",
        );
        check(
            Transport::StartTls,
            "alice",
            "secret",
            "S: * OK ready
             C: a1 CAPABILITY
             S: * CAPABILITY IMAP4rev1 AUTH=PLAIN
             S: a1 OK done
             = the server doesn't offer STARTTLS",
        );
    }

    #[test]
    fn what_comes_with_the_answer_to_starttls_is_not_believed() {
        let mut login =
            Login::new(Credentials { user: "a".to_owned(), password: "b".to_owned() }, Transport::StartTls);
        login.handle_input(
            b"* OK ready\r\n* CAPABILITY STARTTLS\r\na1 OK done\r\na2 OK begin\r\na3 OK in\r\n",
        );
        let actions: Vec<_> = std::iter::from_fn(|| login.poll_action()).collect();
        assert!(matches!(&actions[..], [.., Action::Done(Verdict::Unavailable(_))]));
    }

    #[test]
    fn endless_talk_is_cut_off() {
        let of = |said: &[u8]| {
            let mut login =
                Login::new(Credentials { user: "a".to_owned(), password: "b".to_owned() }, Transport::AsItIs);
            for _ in 0..1_000 {
                login.handle_input(said);
            }
            assert!(login.input.len() <= MAX_LINE_OCTETS + said.len());
            std::iter::from_fn(|| login.poll_action()).last()
        };
        for said in [&b"* OK again and again and again, on and on, without an end to it all\r\n"[..], &[b'a'; 100], b"* X {18446744073709551615}\r\n........................................................................................\r\n"] {
            assert!(matches!(of(said), Some(Action::Done(Verdict::Unavailable(_)))));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_octets_are_survived(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let credentials = Credentials { user: "a".to_owned(), password: "b".to_owned() };
            let mut login = Login::new(credentials, Transport::StartTls);
            login.handle_input(b"* OK\r\n");
            login.handle_input(&octets);
        }
    }
}
