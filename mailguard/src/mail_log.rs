//! The mail log (`log.mail`): one line at the end of a session, for a message that was taken or refused, for
//! a recipient that was refused, for an attempt at delivery, for a notice of our own and for a login that
//! failed. The id comes first, then the event. Made for grep, fail2ban and programs that count; `trace` holds
//! the same for the command line, and more.
//!
//! What the lines hold is in docs/operations.md: a key that is there stays there. How they are written, so
//! that no peer's text passes for a line or key, is `core::log_value`'s; here texts of peers are cut to a
//! length.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mailguard_core::attempt::{Attempted, Consequence};
use mailguard_core::config::model::ZoneKind;
use mailguard_core::disposition::Disposition;
use mailguard_core::language::ENGLISH;
use mailguard_core::log_value::{MAX_SHOWN_OCTETS, cut, fits_a_line, listed};
use mailguard_core::mail::{ForwardPath, QueueId, ReversePath};
use mailguard_core::origin::{ClientOrigin, Origin};
use mailguard_core::outcome::Outcome;
use mailguard_core::smtp::server::LoginRefused;
use mailguard_core::smtp::{Refusal, Reply, Severity};
use tracing::info;

use crate::trace::{Record, RefusedRecipient, TransactionResult};

/// The target of the lines.
pub const TARGET: &str = "mail";

/// Octets of the list of recipients in the line of a message; `mailguard trace` names them all.
const MAX_LIST_OCTETS: usize = 640;

/// The mail process's log goes on through the datapath process, which takes lines of a certain length.
const _: () = assert!(fits_a_line(6 * MAX_SHOWN_OCTETS + MAX_LIST_OCTETS));

/// What one session came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were taken.
    pub taken: u32,
    /// Messages that were refused for good.
    pub refused: u32,
    /// Messages that were refused for now.
    pub deferred: u32,
    /// Messages that the client gave up.
    pub abandoned: u32,
    /// Logins that failed.
    pub failed_logins: u32,
}

/// A session that is over.
#[derive(Debug)]
pub struct SessionLine<'a> {
    /// Its id, which the lines of its messages name.
    pub id: QueueId,
    /// The client.
    pub client: SocketAddr,
    /// Its original destination.
    pub destination: SocketAddr,
    /// The zone's name and kind.
    pub zone: (&'a str, ZoneKind),
    /// How long it lasted.
    pub lasted: Duration,
    /// How it ended, in a word or two.
    pub end: &'a str,
    /// What it came to.
    pub counts: &'a Counts,
    /// Whether it was encrypted.
    pub encrypted: bool,
    /// What the client called itself.
    pub helo: Option<&'a str>,
    /// Who it had shown to be.
    pub user: Option<&'a str>,
}

/// A session is over.
pub fn session(line: &SessionLine<'_>) {
    let SessionLine { counts, .. } = line;
    info!(
        target: TARGET,
        id = %line.id,
        event = "session",
        end = line.end,
        client = %line.client.ip(),
        port = line.client.port(),
        zone = line.zone.0,
        kind = kind(line.zone.1),
        destination = %line.destination,
        seconds = line.lasted.as_millis() as f64 / 1000.0,
        taken = counts.taken,
        refused = counts.refused,
        deferred = counts.deferred,
        abandoned = counts.abandoned,
        failed_logins = counts.failed_logins,
        tls = line.encrypted,
        user = line.user.map(|user| shown(user)).as_deref(),
        helo = line.helo.map(|helo| shown(helo)).as_deref(),
    );
}

/// What clients that have brought nothing yet can cause a line about, as often as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cheap {
    /// A session that is over.
    Session,
    /// A message that wasn't taken.
    Message,
    /// A recipient that was refused.
    Recipient,
    /// A login that failed.
    Login,
}

/// So many came at one time that not each has its line.
pub fn unlisted(what: Cheap, number: u64) {
    match what {
        Cheap::Session => info!(target: TARGET, id = "-", event = "unlisted-sessions", sessions = number),
        Cheap::Message => info!(target: TARGET, id = "-", event = "unlisted-messages", messages = number),
        Cheap::Recipient => {
            info!(target: TARGET, id = "-", event = "unlisted-recipients", recipients = number)
        }
        Cheap::Login => info!(target: TARGET, id = "-", event = "unlisted-logins", logins = number),
    }
}

/// A client wasn't let in by its name and password.
pub fn failed_login(session: QueueId, client: IpAddr, zone: (&str, ZoneKind), user: &str, why: LoginRefused) {
    let (result, reason) = match why {
        LoginRefused::Wrong => ("refused", "wrong"),
        LoginRefused::ForAnother => ("refused", "for-another"),
        LoginRefused::TooMany => ("refused", "too-many"),
        LoginRefused::Unavailable => ("deferred", "unavailable"),
    };
    info!(
        target: TARGET,
        id = %session,
        event = "login",
        result,
        reason,
        client = %client,
        zone = zone.0,
        kind = kind(zone.1),
        user = &*shown(user),
    );
}

/// A transaction ended: its message was taken or refused.
pub fn message(session: QueueId, record: &Record) {
    let (result, disposition, reply) = match &record.result {
        TransactionResult::Accepted { dispositions } => ("taken", dispositions.first(), None),
        TransactionResult::Refused(reply) => (refusal(reply), None, Some(reply)),
    };
    let origin = origin(&record.origin);
    let helo = origin.map(|client| client.helo.as_str()).filter(|helo| !helo.is_empty());
    let to = record.recipients.iter().map(ForwardPath::to_string);
    info!(
        target: TARGET,
        id = %record.id,
        event = "message",
        result,
        client = origin.map(|origin| display(origin.client)),
        zone = origin.map(|origin| origin.zone.as_str()),
        kind = origin.map(|origin| kind(origin.kind)),
        session = %session,
        size = record.size,
        recipients = record.recipients.len(),
        refused_recipients = record.refused_recipients.len(),
        disposition = disposition.map(name_of),
        check = reply.and_then(|reply| check(record, reply)),
        user = origin.and_then(|origin| origin.user.as_deref()).map(shown).as_deref(),
        from = record.reverse_path.as_ref().map(path).as_deref(),
        to = Some(listed(to, MAX_LIST_OCTETS)).filter(|to| !to.is_empty()),
        helo = helo.map(shown).as_deref(),
        reply = reply.map(|reply| shown(&reply.to_string()).into_owned()),
        why = disposition.and_then(why).as_deref(),
    );
}

/// A recipient was refused.
pub fn recipient(session: QueueId, record: &Record, refused: &RefusedRecipient) {
    let origin = origin(&record.origin);
    info!(
        target: TARGET,
        id = %record.id,
        event = "recipient",
        result = refusal(&refused.reply),
        client = origin.map(|origin| display(origin.client)),
        zone = origin.map(|origin| origin.zone.as_str()),
        kind = origin.map(|origin| kind(origin.kind)),
        session = %session,
        check = check(record, &refused.reply),
        from = record.reverse_path.as_ref().map(path).as_deref(),
        to = &*shown(&refused.recipient.to_string()),
        reply = &*shown(&refused.reply.to_string()),
    );
}

/// An attempt ended for one recipient.
pub fn attempt(attempted: &Attempted) {
    let (result, report) = match &attempted.outcome {
        Outcome::Delivered(report) | Outcome::Relayed(report) => ("delivered", report),
        Outcome::Deferred(report) => ("deferred", report),
        Outcome::Failed(report) => ("failed", report),
    };
    let (consequence, retry_at) = match attempted.consequence {
        Consequence::Done => ("done", None),
        Consequence::Retry(at) => ("retry", Some(at.rfc3339().to_string())),
        Consequence::Report => ("report", None),
        Consequence::Quarantine => ("quarantine", None),
        Consequence::Drop => ("drop", None),
    };
    let said = report.reply.as_ref().map_or_else(|| report.text.clone(), Reply::to_string);
    info!(
        target: TARGET,
        id = %attempted.id,
        event = "attempt",
        result,
        status = %report.status,
        next = consequence,
        retry_at,
        next_hop = attempted.next_hop.as_ref().map(|hop| shown(&hop.to_string()).into_owned()),
        remote = report.remote.as_deref().map(shown).as_deref(),
        tls = report.transfer.tls.as_ref().map(|tls| tls.version.as_str()),
        to = &*shown(&attempted.recipient.to_string()),
        reply = &*shown(&said),
    );
}

/// A notice of our own, about a message, is in the queue.
pub fn notice(id: QueueId, about: QueueId) {
    info!(target: TARGET, id = %id, event = "notice", about = %about);
}

fn shown(text: &str) -> Cow<'_, str> {
    cut(text, MAX_SHOWN_OCTETS)
}

fn path(path: &ReversePath) -> String {
    shown(&path.to_string()).into_owned()
}

/// Whether the client may come again with it.
pub fn is_deferral(reply: &Reply) -> bool {
    reply.code.severity() == Severity::Transient
}

fn refusal(reply: &Reply) -> &'static str {
    if is_deferral(reply) { "deferred" } else { "refused" }
}

fn origin(origin: &Origin) -> Option<&ClientOrigin> {
    match origin {
        Origin::Internal => None,
        Origin::Client(client) => Some(client),
    }
}

fn kind(kind: ZoneKind) -> &'static str {
    match kind {
        ZoneKind::Green => "green",
        ZoneKind::Orange => "orange",
        ZoneKind::Red => "red",
        ZoneKind::Blue => "blue",
    }
}

/// The check that wanted this reply: the first of which the refusal is so numbered.
fn check(record: &Record, reply: &Reply) -> Option<&'static str> {
    let wanted = |refusal: &Refusal| {
        let its = refusal.reply(record.id, ENGLISH);
        (its.code, its.status) == (reply.code, reply.status)
    };
    let mut findings = record.findings.iter();
    findings.find(|finding| finding.objection().is_some_and(wanted)).map(|finding| finding.check.name())
}

/// All recipients of a message share its disposition.
fn name_of(disposition: &Disposition) -> &'static str {
    match disposition {
        Disposition::Deliver => "deliver",
        Disposition::Quarantine(_) => "quarantine",
        Disposition::Redirect(_) => "redirect",
        Disposition::Discard(_) => "discard",
    }
}

/// Why it isn't delivered, or where it goes instead.
fn why(disposition: &Disposition) -> Option<String> {
    let text = match disposition {
        Disposition::Deliver => return None,
        Disposition::Quarantine(threat) | Disposition::Discard(threat) => threat.to_string(),
        Disposition::Redirect(address) => format!("redirected to {address}"),
    };
    Some(shown(&text).into_owned())
}

#[cfg(test)]
mod tests;
