//! Both ends of a session with a driver each, a connection in memory between them, and a clock that moves
//! only when nothing else does.
//!
//! The drivers do what the program's do: the server's reads on only when all that it said is written and
//! done; the client's listens while it writes. How the octets are cut, who moves first and what breaks is the
//! [`Timing`]'s; what is said, the [`Scenario`]'s. A session that waits for ever, or that goes on for ever,
//! is a panic.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::scenario::{Scenario, verdict};
use crate::mail::{QueueId, Recipient};
use crate::outcome::{Outcome, TlsUsed};
use crate::smtp::client::{self, Client, Ending, Transaction, content};
use crate::smtp::server::{Action, LoginRefused, Question, Server};
use crate::smtp::{MailCommand, Refusal};

/// No session takes more: each step writes or reads an octet, or does what one of the ends asks for.
const MAX_STEPS: usize = 400_000;

/// How long the server's driver waits for the client to take a reply, or for a handshake.
const SERVER_WRITE_TIMEOUT: Duration = Duration::from_secs(300);

/// How a session's octets travel.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    /// Most octets of one write or read, in turn.
    pub(super) lengths: Vec<usize>,
    /// Whether the client is the first to move, in turn.
    pub(super) turns: Vec<bool>,
    /// Octets that may be under way in one direction.
    pub(super) window: usize,
    /// The server takes its time over each recipient, and says meanwhile what there is to say.
    pub(super) slow_recipients: bool,
    /// After so many octets, read by either end, this happens.
    pub(super) fault: Option<(usize, Fault)>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is reset: what was under way is lost.
    Reset,
    /// It is closed: what was under way arrives, and nothing that is written later.
    Closed,
    /// Nothing arrives any more, and nobody is told.
    Silent,
}

impl Timing {
    /// All at once, and nothing breaks.
    pub(super) fn smooth() -> Self {
        Self {
            lengths: vec![usize::MAX],
            turns: vec![true],
            window: usize::MAX,
            slow_recipients: false,
            fault: None,
        }
    }
}

/// The receipt of a stored message; only [`ServerEnd`] makes one.
struct Receipt;

/// A message for which there is a receipt.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) mail: MailCommand,
    pub(super) recipients: Vec<Recipient>,
    pub(super) content: Vec<u8>,
}

/// What the client's side learnt of one message.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) outcomes: Vec<Outcome>,
    /// Nothing where the session didn't come about.
    pub(super) ending: Option<Ending>,
}

/// What a session came to.
#[derive(Debug)]
pub(super) struct Done {
    /// One a message, in their order.
    pub(super) fates: Vec<Fate>,
    pub(super) stored: Vec<Stored>,
    /// How long both waited for something that didn't come.
    pub(super) waited: Duration,
    /// Octets that were read by either end.
    pub(super) octets: usize,
}

/// One direction of the connection.
struct Wire {
    under_way: VecDeque<u8>,
    window: usize,
    closed: bool,
    silent: bool,
}

impl Wire {
    fn new(window: usize) -> Self {
        Self { under_way: VecDeque::new(), window, closed: false, silent: false }
    }

    /// Takes what it has room for, and says how much that was; a closed one takes everything, and loses it.
    fn put(&mut self, outgoing: &mut VecDeque<u8>, most: usize) -> usize {
        let room = if self.closed { usize::MAX } else { self.window.saturating_sub(self.under_way.len()) };
        let taken = outgoing.drain(..outgoing.len().min(most).min(room));
        let length = taken.len();
        if !self.closed {
            self.under_way.extend(taken);
        }
        length
    }

    /// What arrives.
    fn take(&mut self, most: usize) -> Vec<u8> {
        let here = if self.silent { 0 } else { self.under_way.len().min(most) };
        self.under_way.drain(..here).collect()
    }

    /// Whether the reader learns that nothing more comes.
    fn has_ended(&self) -> bool {
        self.closed && self.under_way.is_empty() && !self.silent
    }

    fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Reset => {
                self.under_way.clear();
                self.closed = true;
            }
            Fault::Closed => self.closed = true,
            Fault::Silent => self.silent = true,
        }
    }
}

/// The server and its driver, which stores what it is given.
struct ServerEnd<'a> {
    scenario: &'a Scenario,
    slow_recipients: bool,
    server: Server<Receipt>,
    outgoing: VecDeque<u8>,
    wants_handshake: bool,
    /// Until when the client must have taken what was written, or done its part of the handshake.
    patience: Instant,
    over: bool,
    mail: Option<MailCommand>,
    recipients: Vec<Recipient>,
    content: Vec<u8>,
    stored: Vec<Stored>,
    transactions: u64,
}

impl<'a> ServerEnd<'a> {
    fn new(scenario: &'a Scenario, slow_recipients: bool, now: Instant) -> Self {
        let mut server = Server::new(scenario.server_settings(), now);
        server.greet(now);
        Self {
            scenario,
            slow_recipients,
            server,
            outgoing: VecDeque::new(),
            wants_handshake: false,
            patience: now,
            over: false,
            mail: None,
            recipients: Vec::new(),
            content: Vec::new(),
            stored: Vec::new(),
            transactions: 0,
        }
    }

    /// Does one thing: the octets that were read for it, or nothing if there was nothing to do.
    fn step(&mut self, now: Instant, from: &mut Wire, to: &mut Wire, most: usize) -> Option<usize> {
        if !self.outgoing.is_empty() {
            return (to.put(&mut self.outgoing, most) > 0).then_some(0);
        }
        if self.over || self.wants_handshake {
            return None;
        }
        if self.perform(now) {
            return Some(0);
        }
        if from.has_ended() {
            self.over = true;
            return Some(0);
        }
        let octets = from.take(most);
        if octets.is_empty() {
            return None;
        }
        self.server.handle_input(now, &octets);
        Some(octets.len())
    }

    /// Performs one action.
    fn perform(&mut self, now: Instant) -> bool {
        let Some(action) = self.server.poll_action() else { return false };
        match action {
            Action::Write(octets) => {
                self.outgoing.extend(self.scenario.passed_on(octets));
                self.patience = now + SERVER_WRITE_TIMEOUT;
            }
            Action::Judge(Question::Mail(mail)) => {
                self.transactions += 1;
                let (id, verdict) = (QueueId(self.transactions), self.scenario.judge_mail(&mail));
                self.mail = Some(mail);
                self.recipients.clear();
                self.server.answer_mail(now, id, verdict);
            }
            Action::Judge(Question::Rcpt(recipient)) => {
                let verdict = verdict(&recipient);
                if verdict.is_ok() {
                    self.recipients.push(recipient);
                }
                if self.slow_recipients {
                    self.outgoing.extend(self.server.take_replies());
                    self.patience = now + SERVER_WRITE_TIMEOUT;
                }
                self.server.answer_rcpt(now, verdict);
            }
            Action::Judge(Question::Auth(credentials)) => {
                let right = self.scenario.is_right(&credentials);
                let verdict = if right { Ok(()) } else { Err(LoginRefused::Wrong) };
                self.server.answer_auth(now, verdict);
            }
            Action::Judge(Question::AuthForAnother { .. }) => {
                self.server.refuse_auth(now, LoginRefused::ForAnother);
            }
            Action::Judge(Question::Data) => {
                let verdict = self.store();
                self.server.answer_data(now, verdict);
            }
            Action::BeginBody => self.content.clear(),
            Action::Body(piece) => self.content.extend_from_slice(piece),
            Action::StartTls => {
                self.wants_handshake = true;
                self.patience = now + SERVER_WRITE_TIMEOUT;
            }
            Action::Abandon | Action::RefuseBody(_) => {}
            Action::Close(_) => self.over = true,
        }
        true
    }

    fn store(&mut self) -> Result<Receipt, Refusal> {
        if self.content.starts_with(super::scenario::FULL) {
            return Err(Refusal::StorageFull);
        }
        self.stored.push(Stored {
            mail: self.mail.take().expect("a message follows MAIL"),
            recipients: std::mem::take(&mut self.recipients),
            content: std::mem::take(&mut self.content),
        });
        Ok(Receipt)
    }

    fn deadline(&self) -> Option<Instant> {
        let waits_for_client = self.wants_handshake || !self.outgoing.is_empty();
        match self.over {
            true => None,
            false if waits_for_client => Some(self.patience),
            false => self.server.poll_timeout(),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.wants_handshake || !self.outgoing.is_empty() {
            self.over |= now >= self.patience;
        } else {
            self.server.handle_timeout(now);
        }
    }
}

/// The client and its driver, which has some messages to send.
struct ClientEnd<'a> {
    scenario: &'a Scenario,
    client: Client,
    lengths: Vec<usize>,
    outgoing: VecDeque<u8>,
    sends_content: bool,
    wants_handshake: bool,
    over: bool,
    fates: Vec<Fate>,
}

impl<'a> ClientEnd<'a> {
    fn new(scenario: &'a Scenario, lengths: Vec<usize>, now: Instant) -> Self {
        Self {
            scenario,
            client: Client::new(scenario.client_settings(), now),
            lengths,
            outgoing: VecDeque::new(),
            sends_content: false,
            wants_handshake: false,
            over: false,
            fates: Vec::new(),
        }
    }

    /// Does one thing: the octets that were read for it, or nothing if there was nothing to do.
    fn step(&mut self, now: Instant, from: &mut Wire, to: &mut Wire, most: usize) -> Option<usize> {
        if self.client.is_closed() {
            (self.outgoing, self.sends_content) = (VecDeque::new(), false);
        }
        if self.outgoing.is_empty() {
            if self.perform(now, to) {
                return Some(0);
            }
        } else if to.put(&mut self.outgoing, most) > 0 {
            self.client.content_progress(now);
            if self.outgoing.is_empty() && std::mem::take(&mut self.sends_content) {
                self.client.content_sent(now);
            }
            return Some(0);
        }
        if self.over || self.wants_handshake {
            return None;
        }
        if from.has_ended() {
            self.client.handle_lost("the server closed the connection");
            return Some(0);
        }
        let octets = from.take(most);
        if octets.is_empty() {
            return None;
        }
        self.client.handle_input(now, &octets);
        Some(octets.len())
    }

    /// Performs one action.
    fn perform(&mut self, now: Instant, to: &mut Wire) -> bool {
        let Some(action) = self.client.poll_action() else { return false };
        match action {
            client::Action::Send(octets) => self.outgoing.extend(octets),
            client::Action::SendContent => {
                let content = &self.scenario.messages[self.fates.len()].content;
                self.outgoing.extend(encoded(content, &self.lengths));
                self.sends_content = true;
            }
            client::Action::StartTls => self.wants_handshake = true,
            client::Action::Ready => self.go_on(now),
            client::Action::Unusable(outcome) => {
                let message = &self.scenario.messages[self.fates.len()];
                let outcomes = vec![outcome; message.envelope.recipients.len()];
                self.fates.push(Fate { outcomes, ending: None });
            }
            client::Action::Concluded(conclusion) => {
                let ending = Some(conclusion.ending);
                self.fates.push(Fate { outcomes: conclusion.outcomes, ending });
                self.go_on(now);
            }
            client::Action::Close => {
                to.closed = true;
                // Each message that is begun later has a close of its own.
                if !std::mem::replace(&mut self.over, true) {
                    self.go_on(now);
                }
            }
        }
        true
    }

    /// Begins the next message, or says goodbye.
    fn go_on(&mut self, now: Instant) {
        let Some(message) = self.scenario.messages.get(self.fates.len()) else {
            return self.client.quit(now);
        };
        let (envelope, content) = (&message.envelope, message.form());
        if self.client.is_ready() || self.over {
            let recipients: Vec<_> = envelope.recipients.iter().collect();
            let transaction = Transaction { envelope, recipients: &recipients, content };
            self.client.begin(now, &transaction);
        }
    }
}

/// The content as it goes on the wire, encoded in pieces of these lengths.
fn encoded(octets: &[u8], lengths: &[usize]) -> Vec<u8> {
    if content::is_wire_ready(octets) {
        return [octets, content::END_OF_DATA].concat();
    }
    let (mut encoder, mut wire) = (content::ContentEncoder::new(), Vec::new());
    let (mut rest, mut lengths) = (octets, lengths.iter().cycle());
    while !rest.is_empty() {
        let (piece, left) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
        encoder.encode(piece, &mut wire);
        rest = left;
    }
    encoder.finish(&mut wire);
    wire
}

/// One session.
struct Pair<'a> {
    scenario: &'a Scenario,
    timing: &'a Timing,
    now: Instant,
    server: ServerEnd<'a>,
    client: ClientEnd<'a>,
    to_server: Wire,
    to_client: Wire,
    octets: usize,
}

/// Plays a session from the greeting to its end.
pub(super) fn play(scenario: &Scenario, timing: &Timing) -> Done {
    let start = Instant::now();
    let mut pair = Pair {
        scenario,
        timing,
        now: start,
        server: ServerEnd::new(scenario, timing.slow_recipients, start),
        client: ClientEnd::new(scenario, timing.lengths.clone(), start),
        to_server: Wire::new(timing.window),
        to_client: Wire::new(timing.window),
        octets: 0,
    };
    for step in 0..MAX_STEPS {
        if !(pair.step(step) || pair.shake_hands() || pair.wait()) {
            return pair.done(start);
        }
    }
    panic!("the session doesn't end: {:?}, {:?}", pair.server.server, pair.client.client);
}

impl Pair<'_> {
    /// Lets one of the ends do something.
    fn step(&mut self, step: usize) -> bool {
        self.break_if_due();
        let Timing { lengths, turns, fault, .. } = self.timing;
        let until_fault = match fault {
            Some((after, _)) if *after > self.octets => after - self.octets,
            _ => usize::MAX,
        };
        let most = lengths[step % lengths.len()].min(until_fault);
        let client_first = turns[step % turns.len()];
        for client in [client_first, !client_first] {
            let (now, server, wires) =
                (self.now, &mut self.server, (&mut self.to_server, &mut self.to_client));
            let read = if client {
                self.client.step(now, wires.1, wires.0, most)
            } else {
                server.step(now, wires.0, wires.1, most)
            };
            // Who has gone hears nothing more, and says no more than was written.
            if self.server.over && self.server.outgoing.is_empty() {
                self.to_client.closed = true;
                self.to_server.suffer(Fault::Reset);
            }
            if let Some(read) = read {
                self.octets += read;
                return true;
            }
        }
        false
    }

    fn break_if_due(&mut self) {
        if let Some((after, fault)) = self.timing.fault
            && self.octets == after
        {
            self.to_server.suffer(fault);
            self.to_client.suffer(fault);
        }
    }

    /// The handshake, once both have come to it.
    fn shake_hands(&mut self) -> bool {
        let Self { server, client, to_server, to_client, .. } = self;
        if !(server.wants_handshake || client.wants_handshake) || to_server.silent {
            return false;
        }
        let both = server.wants_handshake && client.wants_handshake;
        if both && !to_server.closed && self.scenario.handshake_succeeds {
            assert!(to_server.under_way.is_empty(), "the client went on in the clear");
            assert!(to_client.under_way.is_empty(), "the server went on in the clear");
            let (version, cipher) = ("TLSv1.3".to_owned(), "AES".to_owned());
            server.server.tls_established(self.now);
            client.client.tls_established(self.now, TlsUsed { version, cipher, verified: false });
        } else if both || to_server.closed || to_client.closed {
            server.over |= server.wants_handshake;
            if client.wants_handshake {
                client.client.tls_failed("no certificate");
            }
            to_server.closed = true;
            to_client.closed = true;
        } else {
            return false;
        }
        (server.wants_handshake, client.wants_handshake) = (false, false);
        true
    }

    /// Lets time pass until one of the ends gives up; without effect when both are done.
    fn wait(&mut self) -> bool {
        let client = self.client.client.poll_timeout().filter(|_| !self.client.over);
        let Some(deadline) = [client, self.server.deadline()].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(deadline);
        if !self.client.over {
            self.client.client.handle_timeout(self.now);
            self.client.wants_handshake &= !self.client.client.is_closed();
        }
        self.server.handle_timeout(self.now);
        true
    }

    fn done(self, start: Instant) -> Done {
        assert!(self.client.over && self.server.over, "both wait, and neither for ever");
        Done {
            fates: self.client.fates,
            stored: self.server.stored,
            waited: self.now - start,
            octets: self.octets,
        }
    }
}
