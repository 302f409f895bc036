//! Notices as new messages: the report to the sender, and what the administrator is told of mail of which no
//! sender hears. Composed in core, committed together with the states that they tell of.

use std::time::Duration;

use mailguard_core::config::Config;
use mailguard_core::dsn::{
    self, Action, DsnRequest, MAX_RETURNED_HEADER_OCTETS, MAX_RETURNED_OCTETS, Reader, ReportedRecipient,
};
use mailguard_core::mail::{DsnReturn, Mailbox, QueueId, Recipient, RecipientIndex, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Report;

use crate::store::body::Body;
use crate::store::spool::{Accept, Committed, MessageRecord, Queued, RecipientState, StoredBody};

/// Most notices to the administrator an hour: a flood of them hides what it tells. What exceeds it is in the
/// log, and in `mailguard quarantine list` as everything else.
const MAX_ADMINISTRATOR_NOTICES_AN_HOUR: u32 = 60;

const HOUR: Duration = Duration::from_secs(3600);

/// The message that is reported of.
pub(super) struct Reported<'a> {
    pub(super) id: QueueId,
    pub(super) record: &'a MessageRecord,
    pub(super) reader: Reader<'a>,
    /// What is reported.
    pub(super) told: &'a [ReportedOutcome],
    pub(super) body: &'a Body,
}

/// What is reported of one recipient.
pub(super) struct ReportedOutcome {
    pub(super) index: RecipientIndex,
    pub(super) action: Action,
    pub(super) report: Report,
}

/// How many notices the administrator got lately.
#[derive(Debug, Default)]
pub(super) struct AdministratorNotices {
    since: UnixTime,
    count: u32,
}

impl AdministratorNotices {
    /// Whether one more may go out at `now`; it counts.
    pub(super) fn allow(&mut self, now: UnixTime) -> bool {
        if now.since(self.since) >= HOUR {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= MAX_ADMINISTRATOR_NOTICES_AN_HOUR
    }
}

/// The report as a message named `id`; none where there is nobody to tell.
pub(super) async fn notice(
    config: &Config,
    message: Reported<'_>,
    id: QueueId,
    now: UnixTime,
) -> Option<Accept> {
    let Reported { record, body, reader, .. } = message;
    let octets = usize::try_from(body.octets()).unwrap_or(usize::MAX);
    let failed = message.told.iter().any(|told| told.action == Action::Failed);
    // Of what is on its way, or in the quarantine, nobody needs another copy (RFC 3461 §4.3).
    let ret = if failed && reader == Reader::Sender {
        dsn::returned(&record.envelope, octets)
    } else {
        DsnReturn::Headers
    };
    let limit = match ret {
        DsnReturn::Full => MAX_RETURNED_OCTETS,
        DsnReturn::Headers => MAX_RETURNED_HEADER_OCTETS,
    };
    let original = body.head(limit).await.unwrap_or_else(|error| {
        tracing::error!(id = %message.id, %error, "a failed message can't be read: its report says only why");
        bytes::Bytes::new()
    });
    // The administrator is told where it went, the sender what he had written.
    let recipients: Vec<Recipient> = message
        .told
        .iter()
        .map(|told| match reader {
            Reader::Sender => record.recipient(told.index).clone(),
            Reader::Administrator(_) => Recipient::new(record.destination(told.index)),
        })
        .collect();
    let told = message.told.iter().zip(&recipients);
    let told = told.map(|(ReportedOutcome { action, report, .. }, recipient)| ReportedRecipient {
        recipient,
        action: *action,
        report,
    });
    let content = dsn::compose(&DsnRequest {
        reporting_mta: &config.hostname,
        sender: &sender(config)?,
        reader,
        language: config.language,
        id: message.id,
        arrival: record.received_at,
        now,
        retry_until: record.received_at.plus(config.delivery.max_queue_time),
        envelope: &record.envelope,
        told: &told.collect::<Vec<_>>(),
        original: &original,
        ret,
    });
    let envelope = dsn::envelope(&record.envelope, reader, &content)?;
    let body = Body::Memory(content.into());
    let states = vec![RecipientState::Queued(Queued::first(None, now))];
    let record = MessageRecord::new(Origin::Internal, envelope, now, StoredBody::of(&body), states);
    let row = record.row().ok()?;
    let handover = Some(Committed { id, cached: None });
    Some(Accept { id, message: Some(row), quarantine: None, body, handover })
}

/// Who our reports are from: the postmaster of this host (RFC 3464 §2, RFC 5321 §4.5.1).
fn sender(config: &Config) -> Option<Mailbox> {
    Mailbox::parse(&format!("postmaster@{}", config.hostname)).ok()
}
