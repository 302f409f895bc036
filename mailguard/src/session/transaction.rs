//! Transactions: the envelope, the facts for `policy`, the decision, the trace.
//!
//! The answers go back to `smtp::server`, which says them. A transaction ends in exactly one way: stored,
//! refused or abandoned; where anything was refused, and where a message was stored, there is a record.

use std::sync::Arc;
use std::time::SystemTime;

use mailguard_core::config::Config;
use mailguard_core::config::model::ZoneKind;
use mailguard_core::credentials::Credentials;
use mailguard_core::disposition::{Decision, Disposition, DispositionPolicy, decide};
use mailguard_core::finding::{Check, Finding, Opinion};
use mailguard_core::language::Wording;
use mailguard_core::mail::header::MAX_HEADER_OCTETS;
use mailguard_core::mail::{Domain, Envelope, ForwardPath, QueueId, Recipient, UnixTime};
use mailguard_core::origin::{ClientOrigin, Origin};
use mailguard_core::policy::stage::rcpt::{Judged, Next, Verdict};
use mailguard_core::policy::{Known, Subject, Trust, stage};
use mailguard_core::smtp::server::{LoginRefused, Settings};
use mailguard_core::smtp::{MailCommand, Refusal};
use rustls::ServerConfig;

use super::facts::{self, Patience};
use super::incoming_body::{IncomingBody, Received};
use super::received_header::TraceFields;
use super::{Introduction, Peer, Roles, SessionLog, Sink};
use crate::spool::{CommitError, NewMessage};
use crate::trace::{Record, RefusedRecipient, TransactionResult};

/// Most findings about recipients that one transaction's trace keeps; the verdicts don't depend on it.
const MAX_TRACED_FINDINGS: usize = 256;
/// Most refused recipients that one transaction's trace names.
const MAX_TRACED_REFUSALS: usize = 64;

/// The transactions of one session, one at a time.
pub(super) struct Transactions<S> {
    config: Arc<Config>,
    roles: Arc<Roles<S>>,
    peer: Peer,
    zone: String,
    kind: ZoneKind,
    /// What was found about the client.
    connect: Vec<Finding>,
    /// What was learned of others.
    known: Known,
    current: Option<Transaction>,
    log: SessionLog,
}

#[derive(Debug)]
struct Transaction {
    id: QueueId,
    at: UnixTime,
    client: Introduction,
    envelope: Envelope,
    /// How long it may still wait for others.
    patience: Patience,
    /// About client, HELO and reverse-path, found without asking.
    before: Vec<Finding>,
    /// About client and sender, found by asking.
    asked: Vec<Finding>,
    /// About recipients and content, for the trace.
    traced: Vec<Finding>,
    /// Recipients that were refused, for the trace.
    refused: Vec<RefusedRecipient>,
    /// Every recipient so far was taken because of a whitelist.
    all_whitelisted: bool,
    /// The last one that the client was told.
    refusal: Option<Refusal>,
    body: Option<IncomingBody>,
}

impl<S: Sink> Transactions<S> {
    pub(super) fn new(
        config: Arc<Config>,
        roles: Arc<Roles<S>>,
        peer: Peer,
        (zone, kind): (String, ZoneKind),
        log: SessionLog,
    ) -> Self {
        let connect = stage::connect::judge(&config.access, peer.client.ip());
        let known = Known::default();
        Self { config, roles, peer, zone, kind, connect, known, current: None, log }
    }

    /// What STARTTLS needs, where it is offered.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        // Under a stranger's address one of our own making would turn away every client that verifies it.
        let has_name = self.peer.destination_is_local || self.config.server.tls.is_some();
        self.roles.in_force.tls().filter(|_| has_name)
    }

    /// The kind of the client's zone.
    pub(super) fn kind(&self) -> ZoneKind {
        self.kind
    }

    /// The protocol's settings.
    pub(super) fn settings(&self, offers_tls: bool) -> Settings {
        let settings = Settings::new(&self.config, self.kind, self.peer.destination_is_local);
        Settings { offers_tls, ..settings }
    }

    /// The session is over.
    pub(super) fn ended(&mut self, end: &'static str, client: Introduction) {
        self.log.end = end;
        self.log.encrypted = client.encrypted;
        self.log.helo = client.greeting.name().map(ToString::to_string);
        self.log.user = client.user;
    }

    /// The session ended for too many errors, which a red zone bans for.
    pub(super) async fn abused(&self, errors: u32) {
        if self.kind == ZoneKind::Red {
            let allowed = self.config.server.hard_error_limit;
            let reason = format!("{errors} errors in a session, {allowed} allowed");
            self.log.abused(&reason).await;
        }
    }

    /// What transactions go by.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// From the next transaction on goes by the configuration in force, and returns the protocol's settings
    /// if it is another one. One that doesn't have the zone any more is nothing to go by: the session ends by
    /// the one before.
    pub(super) fn take_configuration_in_force(&mut self, offers_tls: bool) -> Option<Settings> {
        let config = self.roles.in_force.config();
        if Arc::ptr_eq(&config, &self.config) {
            return None;
        }
        self.kind = config.zones.iter().find(|zone| zone.name == self.zone)?.kind;
        self.connect = stage::connect::judge(&config.access, self.peer.client.ip());
        self.config = config;
        Some(self.settings(offers_tls))
    }

    /// Whether the client is who it says it is.
    pub(super) async fn login(&mut self, credentials: Credentials) -> Result<(), LoginRefused> {
        let user = credentials.user.clone();
        let verdict = self.roles.logins.login(self.peer.client.ip(), credentials).await;
        if let Err(why) = verdict {
            self.log.failed_login(&user, why);
        }
        verdict
    }

    /// What the client is told that says it is `user` and would act for somebody else.
    pub(super) fn login_for_another(&mut self, user: &str) -> LoginRefused {
        let why = self.roles.logins.login_for_another(self.peer.client.ip());
        self.log.failed_login(user, why);
        why
    }

    /// Begins a transaction, unless it is over the limits.
    pub(super) async fn mail(
        &mut self,
        mail: MailCommand,
        client: Introduction,
    ) -> (QueueId, Result<(), Refusal>) {
        let id = self.roles.sink.mint();
        let mut before = self.connect.clone();
        if let Some(user) = &client.user {
            let reason = format!("the client is {user}");
            before.push(Finding::new(Check::Authentication, Opinion::Pass, reason));
        }
        before.extend(stage::mail::judge(&self.config, client.greeting.name(), &mail.reverse_path));
        let storage = self.roles.sink.storage_available();
        let limits = stage::mail::limits(&self.config.server, mail.size, storage);
        let verdict = stage::mail::verdict(&limits);
        self.known.next_transaction();
        self.current = Some(Transaction {
            id,
            at: SystemTime::now().into(),
            patience: Patience::default(),
            client,
            envelope: Envelope {
                reverse_path: mail.reverse_path,
                recipients: Vec::new(),
                body: mail.body,
                smtputf8: mail.smtputf8,
                dsn_return: mail.dsn_return,
                envelope_id: mail.envelope_id,
            },
            before,
            asked: Vec::new(),
            traced: limits,
            refused: Vec::new(),
            all_whitelisted: true,
            refusal: None,
            body: None,
        });
        if let Err(refusal) = &verdict {
            self.refuse(refusal.clone()).await;
        }
        (id, verdict)
    }

    /// Judges a recipient, and adds it if nothing speaks against it.
    pub(super) async fn rcpt(&mut self, recipient: Recipient) -> Result<(), Refusal> {
        let Some(mut transaction) = self.current.take() else { return Err(Refusal::NoTransaction) };
        // Lists that name somebody twice: once is what everybody means. With other parameters it is another
        // wish.
        if transaction.envelope.recipients.contains(&recipient) {
            self.current = Some(transaction);
            return Ok(());
        }
        let judged = self.judge_recipient(&mut transaction, &recipient.forward_path).await;
        let Judged { verdict, about_sender, about_recipient } = judged;
        if transaction.asked.len() < about_sender.len() {
            transaction.asked = about_sender;
        }
        let wording = self.wording(&transaction);
        let transaction = self.current.insert(transaction);
        let room = MAX_TRACED_FINDINGS.saturating_sub(transaction.traced.len());
        transaction.traced.extend(about_recipient.into_iter().take(room));
        match verdict {
            Verdict::Refused(refusal) => {
                if transaction.refused.len() < MAX_TRACED_REFUSALS {
                    let reply = refusal.reply(transaction.id, wording);
                    let recipient = recipient.forward_path;
                    transaction.refused.push(RefusedRecipient { recipient, reply });
                }
                transaction.refusal = Some(refusal.clone());
                return Err(refusal);
            }
            Verdict::Accepted => transaction.all_whitelisted = false,
            Verdict::Whitelisted => {}
        }
        transaction.envelope.recipients.push(recipient);
        Ok(())
    }

    /// Asks what the answer depends on, and nothing else.
    async fn judge_recipient(&mut self, transaction: &mut Transaction, forward_path: &ForwardPath) -> Judged {
        let Transaction { client, envelope, before, patience, .. } = transaction;
        let subject = Subject {
            config: &self.config,
            trust: Trust::of(self.kind, client.user.is_some()),
            client: self.peer.client.ip(),
            helo: client.greeting.name().and_then(|name| Domain::parse(name.as_str()).ok()),
            reverse_path: &envelope.reverse_path,
            forward_path,
        };
        self.known.next_recipient();
        loop {
            let needs = match stage::rcpt::needed(&subject, &self.known, before) {
                Next::Answer(judged) => return judged,
                Next::Ask(needs) => needs,
            };
            // By itself: a session that asks nothing needn't hold what it needs.
            let facts = &*self.roles.facts;
            Box::pin(facts::learn(facts, &self.config, needs, patience, &mut self.known)).await;
        }
    }

    /// Makes ready for a body.
    pub(super) fn begin_body(&mut self) {
        let Some(transaction) = &mut self.current else { return };
        let only_recipient = match transaction.envelope.recipients.as_slice() {
            [only] => Some(only.forward_path.clone()),
            _ => None,
        };
        let fields = TraceFields {
            id: transaction.id,
            hostname: self.config.hostname.clone(),
            client: self.peer.client.ip(),
            zone: self.kind,
            introduction: transaction.client.clone(),
            smtputf8: transaction.envelope.smtputf8,
            only_recipient,
            at: SystemTime::now().into(),
        };
        transaction.body = Some(IncomingBody::new(fields, self.roles.sink.body_writer()));
    }

    /// Takes a piece of the body.
    pub(super) async fn body(&mut self, piece: &[u8]) {
        if let Some(body) = self.current.as_mut().and_then(|transaction| transaction.body.as_mut()) {
            body.push(piece).await;
        }
    }

    /// The body isn't wanted: its sender broke a rule of the protocol.
    pub(super) async fn refuse_body(&mut self, refusal: Refusal) {
        let check = match refusal {
            Refusal::TooLarge(_) => Check::MessageSize,
            _ => Check::Limits,
        };
        if let Some(transaction) = &mut self.current {
            let outcome = Opinion::Refuse(refusal.clone());
            transaction.traced.push(Finding::new(check, outcome, "while the body was received"));
        }
        self.refuse(refusal).await;
    }

    /// Decides on the complete message and stores it, if that is the decision.
    pub(super) async fn end_of_data(&mut self) -> Result<S::Receipt, Refusal> {
        let current = self.current.take();
        let with_body = current.and_then(|mut transaction| Some((transaction.body.take()?, transaction)));
        let Some((incoming, mut transaction)) = with_body else {
            // The state machine asks within a transaction only. Were it otherwise, the client keeps its
            // message.
            tracing::error!("the end of a message that never began");
            return Err(Refusal::Busy);
        };
        let size = incoming.octets();
        let received = match incoming.finish().await {
            Ok(received) => received,
            Err(error) => {
                let failure = CommitError::from(error);
                tracing::error!(id = %transaction.id, error = %failure, "a body can't be kept");
                self.record_refused(transaction, size, None, failure.refusal()).await;
                return Err(failure.refusal());
            }
        };
        let subject = received.subject.clone();
        let (stored, dispositions) = match self.judge(&mut transaction, received).await {
            Ok(stored) => stored,
            Err(refusal) => {
                self.record_refused(transaction, size, subject, refusal.clone()).await;
                return Err(refusal);
            }
        };
        let record = self.record(transaction, size, subject, TransactionResult::Accepted { dispositions });
        self.log.transaction(&record).await;
        Ok(stored)
    }

    /// Checks the content, decides, stores.
    async fn judge(
        &self,
        transaction: &mut Transaction,
        received: Received,
    ) -> Result<(S::Receipt, Vec<Disposition>), Refusal> {
        let Config { access, virus, files, .. } = &*self.config;
        let mut findings = stage::end_of_data::judge(access, &received.header, transaction.all_whitelisted);
        let objected = findings.iter().any(|finding| finding.objection().is_some());
        let body = received.body.filter(|_| !objected);
        if let Some(body) = &body {
            findings.extend(self.roles.content.scan(body).await);
        }
        let policy = DispositionPolicy {
            virus: virus.handling.clone(),
            files: files.handling.clone(),
            on_scanner_failure: virus.on_scanner_failure,
        };
        let decision = decide(&transaction.envelope, &findings, |_| &policy);
        transaction.traced.append(&mut findings);
        match (decision, body) {
            (Decision::Refuse(refusal), _) => Err(refusal),
            // The one reason why there is none.
            (Decision::Accept(_), None) => Err(Refusal::HeaderTooLarge(MAX_HEADER_OCTETS)),
            (Decision::Accept(dispositions), Some(body)) => {
                let message = NewMessage {
                    id: transaction.id,
                    origin: Origin::Client(self.origin(&transaction.client)),
                    envelope: transaction.envelope.clone(),
                    dispositions: dispositions.clone(),
                    body,
                    received_at: SystemTime::now().into(),
                };
                Ok((self.roles.sink.commit(message).await?, dispositions))
            }
        }
    }

    /// The transaction ends without a message: by RSET, EHLO, or with the session.
    pub(super) async fn abandon(&mut self) {
        let Some(transaction) = self.current.take() else { return };
        match transaction.refusal.clone() {
            None => self.log.abandoned(),
            Some(refusal) => {
                let size = transaction.body.as_ref().map_or(0, IncomingBody::octets);
                self.record_refused(transaction, size, None, refusal).await;
            }
        }
    }

    /// The transaction ends with this refusal.
    async fn refuse(&mut self, refusal: Refusal) {
        let Some(transaction) = self.current.take() else { return };
        let size = transaction.body.as_ref().map_or(0, IncomingBody::octets);
        self.record_refused(transaction, size, None, refusal).await;
    }

    async fn record_refused(
        &mut self,
        transaction: Transaction,
        size: u64,
        subject: Option<String>,
        refusal: Refusal,
    ) {
        let reply = refusal.reply(transaction.id, self.wording(&transaction));
        let record = self.record(transaction, size, subject, TransactionResult::Refused(reply));
        self.log.transaction(&record).await;
    }

    /// How the client is spoken to, for the trace.
    fn wording(&self, transaction: &Transaction) -> Wording {
        Wording { language: self.config.language, utf8: transaction.envelope.smtputf8 }
    }

    fn record(
        &self,
        transaction: Transaction,
        size: u64,
        subject: Option<String>,
        result: TransactionResult,
    ) -> Record {
        let Transaction { id, at, client, envelope, before, asked, traced, refused, .. } = transaction;
        let mut findings = before;
        findings.extend(asked);
        findings.extend(traced);
        Record {
            id,
            at,
            origin: Origin::Client(self.origin(&client)),
            reverse_path: Some(envelope.reverse_path),
            recipients: envelope.recipients.into_iter().map(|recipient| recipient.forward_path).collect(),
            refused_recipients: refused,
            subject: subject.unwrap_or_default(),
            size,
            findings,
            result,
            attempts: Vec::new(),
        }
    }

    fn origin(&self, client: &Introduction) -> ClientOrigin {
        ClientOrigin {
            zone: self.zone.clone(),
            kind: self.kind,
            client: self.peer.client.ip(),
            destination: self.peer.destination,
            destination_is_local: self.peer.destination_is_local,
            helo: client.greeting.name().map(ToString::to_string).unwrap_or_default(),
            user: client.user.clone(),
        }
    }
}
