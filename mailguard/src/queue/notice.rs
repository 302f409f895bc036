//! The report to the sender as a new message: composed in core, committed together with the states that it tells of.

use mailguard_core::config::Config;
use mailguard_core::dsn::{self, Action, DsnRequest, MAX_RETURNED_HEADER_OCTETS, MAX_RETURNED_OCTETS, Told};
use mailguard_core::mail::{DsnReturn, Mailbox, QueueId, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Report;

use crate::store::body::Body;
use crate::store::intake::Committed;
use crate::store::record::{MessageRecord, Queued, RecipientState, StoredBody};
use crate::store::rows::Accept;

/// The message that is reported of.
pub(super) struct Reported<'a> {
    pub(super) id: QueueId,
    pub(super) record: &'a MessageRecord,
    /// The recipients to report, by place in the envelope.
    pub(super) reported: &'a [(usize, Action, Report)],
    pub(super) body: &'a Body,
}

/// The report as a message named `id`; none where there is nobody to tell.
pub(super) async fn notice(
    config: &Config,
    message: Reported<'_>,
    id: QueueId,
    now: UnixTime,
) -> Option<Accept> {
    let Reported { record, body, .. } = message;
    let octets = usize::try_from(body.octets()).unwrap_or(usize::MAX);
    let failed = message.reported.iter().any(|(_, action, _)| *action == Action::Failed);
    // Of what is on its way nobody needs another copy (RFC 3461 §4.3).
    let ret = if failed { dsn::returned(&record.envelope, octets) } else { DsnReturn::Headers };
    let limit = match ret {
        DsnReturn::Full => MAX_RETURNED_OCTETS,
        DsnReturn::Headers => MAX_RETURNED_HEADER_OCTETS,
    };
    let original = body.head(limit).await.unwrap_or_else(|error| {
        tracing::error!(id = %message.id, %error, "a failed message can't be read: its report says only why");
        bytes::Bytes::new()
    });
    let told = message.reported.iter().map(|(index, action, report)| Told {
        recipient: &record.envelope.recipients[*index],
        action: *action,
        report,
    });
    let content = dsn::compose(&DsnRequest {
        reporting_mta: &config.hostname,
        sender: &sender(config)?,
        id: message.id,
        arrival: record.received_at,
        now,
        envelope: &record.envelope,
        told: &told.collect::<Vec<_>>(),
        original: &original,
        ret,
    });
    let envelope = dsn::envelope(&record.envelope, &content)?;
    let body = Body::Memory(content.into());
    let state = Queued { redirected_to: None, attempts: 0, next_attempt: now, last: None };
    let record = MessageRecord {
        origin: Origin::Own,
        envelope,
        received_at: now,
        body: StoredBody::of(&body),
        states: vec![RecipientState::Queued(state)],
    };
    let row = serde_json::to_vec(&record).ok()?;
    let handover = Some(Committed { id, held: None });
    Some(Accept { id, message: Some(row), quarantine: None, body, handover })
}

/// Who our reports are from: the postmaster of this host (RFC 3464 §2, RFC 5321 §4.5.1).
fn sender(config: &Config) -> Option<Mailbox> {
    Mailbox::parse(&format!("postmaster@{}", config.hostname)).ok()
}
