//! The beginning of a session: greeting, EHLO, STARTTLS (RFC 3207), AUTH (RFC 4954); then it is ready.

use std::time::Instant;

use super::capabilities::Capabilities;
use super::sasl::{self, Exchange};
use super::transaction::refusal;
use super::{Action, Client, Encryption, LeftBehind, Settings, Stage, State, loop_report};
use crate::config::model::Mechanism;
use crate::mail::{Domain, Host};
use crate::outcome::{Outcome, Report, TlsUsed};
use crate::smtp::{Detail, EnhancedStatus, Reply, ReplyCode, Severity};

/// Encryption needed for the requested mechanism, or at all (RFC 3463 §3.8, X.7.4: security features not
/// supported).
const NO_SECURITY: EnhancedStatus = EnhancedStatus::transient(Detail::SECURITY_FEATURES_NOT_SUPPORTED);

/// Authentication credentials invalid (RFC 4954 §6), as a transient status: the administrator mends it, and
/// no mail fails.
const WRONG_CREDENTIALS: EnhancedStatus = EnhancedStatus::transient(Detail::CREDENTIALS_INVALID);

/// Replies to AUTH that are about the mechanism, not about name and password (RFC 4954 §6).
const MECHANISM_REFUSED: [ReplyCode; 2] =
    [ReplyCode::PARAMETER_NOT_IMPLEMENTED, ReplyCode::MECHANISM_TOO_WEAK];

impl Client {
    /// The connection is encrypted: nothing counts that was said before (RFC 3207 §4.2).
    pub fn tls_established(&mut self, now: Instant, used: TlsUsed) {
        self.transfer.tls = Some(used);
        if matches!(self.state, State::Handshake) {
            self.settings.encryption = Encryption::Established;
            self.offers = Capabilities::default();
            self.say_ehlo(now);
        }
    }

    /// The handshake failed; why, in one line.
    pub fn tls_failed(&mut self, cause: &str) {
        let (remote, text) = (self.settings.remote.clone(), format!("TLS handshake failed: {cause}"));
        self.give_up(Outcome::Deferred(Report::about(NO_SECURITY, remote, text)));
    }

    fn say_ehlo(&mut self, now: Instant) {
        self.state = State::Ehlo;
        let hello = format!("EHLO {}\r\n", self.helo_argument());
        self.send_alone(now, Stage::Ehlo, hello.into_bytes());
    }

    pub(super) fn on_greeting(&mut self, now: Instant, reply: &Reply) {
        match reply.code.severity() {
            Severity::Completed if self.greets_as_ourselves(reply) => self.loop_found(),
            Severity::Completed => self.say_ehlo(now),
            _ => self.unusable(reply, Stage::Greeting),
        }
    }

    pub(super) fn on_ehlo(&mut self, now: Instant, reply: &Reply) {
        match reply.code.severity() {
            Severity::Completed if self.greets_as_ourselves(reply) => self.loop_found(),
            Severity::Completed => {
                self.offers = Capabilities::of(reply);
                self.encrypt_or_log_in(now);
            }
            // A server from before RFC 1869.
            Severity::Permanent if self.settings.encryption == Encryption::Required => {
                self.insecure("the server knows no EHLO");
            }
            Severity::Permanent => {
                self.state = State::Helo;
                let hello = format!("HELO {}\r\n", self.helo_argument());
                self.send_alone(now, Stage::Helo, hello.into_bytes());
            }
            _ => self.unusable(reply, Stage::Ehlo),
        }
    }

    pub(super) fn on_helo(&mut self, now: Instant, reply: &Reply) {
        match reply.code.severity() {
            Severity::Completed => self.log_in(now),
            _ => self.unusable(reply, Stage::Helo),
        }
    }

    fn encrypt_or_log_in(&mut self, now: Instant) {
        match (self.settings.encryption, self.offers.start_tls) {
            (Encryption::Offered | Encryption::Required, true) => {
                self.state = State::StartTls;
                self.send_alone(now, Stage::StartTls, b"STARTTLS\r\n".to_vec());
            }
            (Encryption::Required, false) => self.insecure("the server doesn't offer STARTTLS"),
            _ => self.log_in(now),
        }
    }

    pub(super) fn on_start_tls(&mut self, now: Instant, reply: &Reply) {
        match reply.code.severity() {
            Severity::Completed if self.parser.is_empty() => {
                self.state = State::Handshake;
                self.deadline = Some(now + Stage::Handshake.timeout());
                self.actions.push_back(Action::StartTls);
            }
            // It came in the clear, and would be taken for what comes encrypted.
            Severity::Completed => self.broken_ahead(),
            _ if self.settings.encryption == Encryption::Required => {
                self.insecure(&format!("the server refuses STARTTLS: {reply}"));
            }
            _ if reply.code == ReplyCode::NOT_AVAILABLE => self.unusable(reply, Stage::StartTls),
            _ => {
                self.settings.encryption = Encryption::Failed;
                self.log_in(now);
            }
        }
    }

    fn insecure(&mut self, why: &str) {
        let text = format!("{why}, and tls = \"required\" allows nothing else");
        let remote = self.settings.remote.clone();
        self.give_up(Outcome::Deferred(Report::about(NO_SECURITY, remote, text)));
    }

    fn log_in(&mut self, now: Instant) {
        let Some(login) = &self.settings.login else { return self.ready() };
        let may_tell = matches!(self.settings.encryption, Encryption::Off | Encryption::Established);
        let Some(mechanism) = sasl::choose(login, &self.offers.auth, may_tell) else {
            let offered: Vec<_> = self.offers.auth.iter().map(|mechanism| mechanism.name()).collect();
            let offered = offered.join(" and ");
            let text = if offered.is_empty() {
                "the server offers no way to log in that is known".to_owned()
            } else if may_tell {
                format!("the server offers to log in by {offered} only, and `methods` allows none of it")
            } else {
                format!(
                    "the server offers to log in by {offered} only, and the session isn't encrypted: PLAIN and LOGIN go \
                     over TLS only, unless tls = \"off\""
                )
            };
            let remote = self.settings.remote.clone();
            return self.give_up(Outcome::Deferred(Report::about(NO_SECURITY, remote, text)));
        };
        let mut exchange = Exchange::new(mechanism);
        let command = exchange.command(login);
        self.state = State::Auth(exchange);
        self.send_alone(now, Stage::Auth, command);
    }

    pub(super) fn on_auth(&mut self, now: Instant, reply: &Reply) {
        let State::Auth(exchange) = &mut self.state else { return };
        let Settings { login: Some(login), host, cnonce, .. } = &self.settings else { return };
        let mechanism = exchange.mechanism();
        match reply.code.severity() {
            Severity::Intermediate => {
                let challenge = reply.lines.first().map(String::as_str).unwrap_or_default();
                match exchange.respond(login, challenge, host, cnonce) {
                    Ok(response) => self.send_alone(now, Stage::Auth, response),
                    Err(why) => self.not_logged_in(mechanism, why),
                }
            }
            // Some prove themselves with their last reply (RFC 4954 §4).
            Severity::Completed if !exchange.is_done() => {
                let proof = reply.lines.first().and_then(|line| line.split_ascii_whitespace().last());
                match exchange.respond(login, proof.unwrap_or_default(), host, cnonce) {
                    Ok(_) if exchange.is_done() => self.logged_in(mechanism),
                    _ => {
                        self.not_logged_in(mechanism, "the server has not proved that it knows the password")
                    }
                }
            }
            Severity::Completed => self.logged_in(mechanism),
            _ if reply.code == ReplyCode::NOT_AVAILABLE => self.unusable(reply, Stage::Auth),
            // Only the code: a server may repeat what it was told.
            Severity::Transient => {
                self.not_logged_in(
                    mechanism,
                    &format!("the server can't check it now, it answers {}", reply.code),
                );
            }
            Severity::Permanent if MECHANISM_REFUSED.contains(&reply.code) => {
                let why = format!(
                    "the server can't do it after all, it answers {}: leave it out of `methods`",
                    reply.code
                );
                self.not_logged_in(mechanism, &why);
            }
            Severity::Permanent => {
                let why = format!("the server answers {}. Look at username and password", reply.code);
                self.not_logged_in(mechanism, &why);
            }
        }
    }

    fn logged_in(&mut self, mechanism: Mechanism) {
        self.transfer.authenticated = Some(mechanism.name().to_owned());
        self.ready();
    }

    /// A wrong password is the administrator's to mend: no mail fails by it.
    fn not_logged_in(&mut self, mechanism: Mechanism, why: &str) {
        let user = self.settings.login.as_ref().map(|login| login.user.as_str()).unwrap_or_default();
        let text = format!("can't log in as {user} by {}: {why}", mechanism.name());
        let remote = self.settings.remote.clone();
        self.give_up(Outcome::Deferred(Report::about(WRONG_CREDENTIALS, remote, text)));
    }

    fn ready(&mut self) {
        if !self.parser.is_empty() {
            return self.broken_ahead();
        }
        self.state = State::Ready(LeftBehind::Nothing);
        self.deadline = None;
        self.actions.push_back(Action::Ready);
    }

    fn unusable(&mut self, reply: &Reply, stage: Stage) {
        self.give_up(refusal(reply, stage, &self.settings.remote));
    }

    fn loop_found(&mut self) {
        let Settings { remote, destination, .. } = &self.settings;
        self.give_up(Outcome::Failed(loop_report(
            destination,
            Some(remote),
            "it greets with our own name. Change the route, or the name of one of the two",
        )));
    }

    fn helo_argument(&self) -> String {
        match &self.settings.helo {
            Host::Domain(domain) => domain.ascii().to_owned(),
            Host::Literal(literal) => literal.to_string(),
        }
    }

    /// The first word of a greeting or of the reply to EHLO is the server's name (RFC 5321 §4.2).
    fn greets_as_ourselves(&self, reply: &Reply) -> bool {
        let word =
            reply.lines.first().and_then(|line| line.split_ascii_whitespace().next()).unwrap_or_default();
        Domain::parse(word).is_ok_and(|name| self.settings.own_names.contains(&name))
    }
}
