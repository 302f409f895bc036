//! What the stores and the kernel side hold, as the rows that people read.

use std::collections::HashMap;
use std::fmt::Display;

use mailguard_core::disposition::Disposition;
use mailguard_core::finding::Finding;
use mailguard_core::mail::{Domain, ForwardPath, QueueId, RecipientIndex, ReversePath};
use mailguard_core::names::{self, NameStatus};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::{NoRoute, Route};
use mailguard_core::rule_key::RuleKey;

use super::answer::{
    AttemptRow, BanRow, CheckRow, EntryRow, QuarantineMessage, QuarantineRow, QueueMessage, QueueRecipient,
    QueueRow, RouteRow, SourceRow, TraceRecipient, TraceRow,
};
use crate::bans::Ban;
use crate::config::{EditList, ListEntry};
use crate::datapath::RuleCount;
use crate::quarantine::Shown;
use crate::routing::Destination;
use crate::store::spool::{Ending, MessageRecord, QuarantineRecord, RecipientState};
use crate::trace::{AttemptRecord, Record, TransactionResult};

/// An address without the angle brackets of its path.
fn plain(path: impl Display) -> String {
    path.to_string().trim_start_matches('<').trim_end_matches('>').to_owned()
}

fn said(report: &Report) -> String {
    report.reply.as_ref().map_or_else(|| report.text.clone(), ToString::to_string)
}

fn source(origin: &Origin) -> Option<SourceRow> {
    match origin {
        Origin::Internal => None,
        Origin::Client(client) => Some(SourceRow {
            client: client.client,
            zone: client.zone.clone(),
            destination: client.destination,
            helo: client.helo.clone(),
        }),
    }
}

/// Entries of lists with what the kernel counted for each. Entries that mean the same share a rule and its
/// count; a name has those of the addresses that it stands for.
pub(super) fn entry_rows(
    entries: Vec<ListEntry>,
    counts: &[RuleCount],
    names: &[NameStatus],
) -> Vec<EntryRow> {
    let counts: HashMap<&RuleKey, &RuleCount> = counts.iter().map(|count| (&count.key, count)).collect();
    let names: HashMap<&str, &NameStatus> = names.iter().map(|name| (name.name.as_str(), name)).collect();
    let row = |entry: ListEntry| {
        if entry.list == EditList::BypassToName {
            let ascii = Domain::parse(&entry.value).map(|name| name.ascii().to_owned());
            let status = ascii.ok().and_then(|name| names.get(name.as_str()).copied());
            return name_row(entry, status, &counts);
        }
        let key = entry.list.rule_key(&entry.value);
        let count = key.as_ref().and_then(|key| counts.get(key));
        EntryRow {
            packets: key.as_ref().map(|_| count.map_or(0, |count| count.packets)),
            last_hit_seconds_ago: count.map(|count| count.last_hit_seconds_ago),
            addresses: None,
            note: None,
            entry,
        }
    };
    entries.into_iter().map(row).collect()
}

fn name_row(
    entry: ListEntry,
    status: Option<&NameStatus>,
    counts: &HashMap<&RuleKey, &RuleCount>,
) -> EntryRow {
    let addresses = status.map(|status| status.addresses.clone()).unwrap_or_default();
    let rules = addresses
        .iter()
        .filter_map(|address| counts.get(&RuleKey::bypass_to((*address).into())).copied())
        .collect::<Vec<_>>();
    EntryRow {
        packets: Some(rules.iter().map(|count| count.packets).sum()),
        last_hit_seconds_ago: rules.iter().map(|count| count.last_hit_seconds_ago).min(),
        addresses: Some(addresses),
        note: status.and_then(name_note),
        entry,
    }
}

/// What an administrator should know of a name, in one line.
fn name_note(status: &NameStatus) -> Option<String> {
    let kept = || status.trouble.as_ref().map(|cause| format!("no answer, the last one is kept: {cause}"));
    let refused = || {
        let refused = status.refused.iter().map(|(address, why)| (address, why));
        (!status.refused.is_empty()).then(|| format!("refused: {}", names::listed(refused)))
    };
    status.problem.clone().or_else(kept).or_else(refused)
}

pub(super) fn queue_row(id: QueueId, record: &MessageRecord) -> QueueRow {
    let first = record.queued().map(|(index, _)| plain(record.destination(index))).next();
    let latest = record.queued().max_by_key(|(_, queued)| queued.attempts);
    QueueRow {
        id,
        received_at: record.received_at,
        octets: record.body.octets(),
        sender: record.envelope.reverse_path.to_string(),
        waiting: record.queued().count() as u64,
        first_recipient: first.unwrap_or_default(),
        next_attempt: record.due().unwrap_or(record.received_at),
        attempts: latest.map_or(0, |(_, queued)| queued.attempts),
        held: record.on_hold,
        last: latest.and_then(|(_, queued)| queued.last.as_ref()).map(said).unwrap_or_default(),
    }
}

pub(super) fn queue_message(id: QueueId, record: &MessageRecord, header: String) -> QueueMessage {
    let recipients = record.recipients();
    QueueMessage {
        row: queue_row(id, record),
        source: source(&record.origin),
        recipients: recipients.map(|(index, state)| queue_recipient(record, index, state)).collect(),
        header,
    }
}

fn queue_recipient(record: &MessageRecord, index: RecipientIndex, state: &RecipientState) -> QueueRecipient {
    let address = plain(record.destination(index));
    match state {
        RecipientState::Queued(queued) => QueueRecipient {
            address,
            state: "queued".to_owned(),
            attempts: queued.attempts,
            next_attempt: Some(queued.next_attempt),
            last: queued.last.as_ref().map(said).unwrap_or_default(),
        },
        RecipientState::Ended(ending) => {
            let (state, last) = match ending {
                Ending::Delivered => ("delivered", String::new()),
                Ending::Failed(report) => ("failed", said(report)),
                Ending::Quarantined => ("quarantined", String::new()),
                Ending::Merged => ("merged", String::new()),
                Ending::Discarded => ("discarded", String::new()),
            };
            QueueRecipient { address, state: state.to_owned(), attempts: 0, next_attempt: None, last }
        }
    }
}

pub(super) fn quarantine_row(id: QueueId, record: &QuarantineRecord) -> QuarantineRow {
    QuarantineRow {
        id,
        received_at: record.received_at,
        since: record.since(),
        octets: record.body.octets(),
        sender: record.envelope.reverse_path.to_string(),
        recipients: record
            .envelope
            .recipients
            .iter()
            .map(|recipient| plain(&recipient.forward_path))
            .collect(),
        reason: record
            .quarantined
            .first()
            .map(|quarantined| quarantined.reason.to_string())
            .unwrap_or_default(),
    }
}

pub(super) fn quarantine_message(id: QueueId, shown: Shown) -> QuarantineMessage {
    QuarantineMessage {
        row: quarantine_row(id, &shown.record),
        source: source(&shown.record.origin),
        reasons: shown.record.quarantined.iter().map(|quarantined| quarantined.reason.to_string()).collect(),
        header: shown.header,
        text: shown.text,
    }
}

pub(super) fn trace_row(record: Record) -> TraceRow {
    let (result, dispositions) = match &record.result {
        TransactionResult::Refused(reply) => (reply.to_string(), &[][..]),
        TransactionResult::Accepted { dispositions } => ("accepted".to_owned(), &dispositions[..]),
    };
    let accepted = record.recipients.iter().enumerate().map(|(index, path)| TraceRecipient {
        address: plain(path),
        disposition: dispositions.get(index).map(words).unwrap_or_default(),
    });
    let refused = record.refused_recipients.iter().map(|refused| TraceRecipient {
        address: plain(&refused.recipient),
        disposition: refused.reply.to_string(),
    });
    TraceRow {
        id: record.id,
        at: record.at,
        source: source(&record.origin),
        sender: record.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default(),
        recipients: accepted.chain(refused).collect(),
        subject: record.subject,
        octets: record.size,
        checks: record.findings.iter().map(check_row).collect(),
        result,
        attempts: record.attempts.iter().map(attempt_row).collect(),
    }
}

fn words(disposition: &Disposition) -> String {
    match disposition {
        Disposition::Deliver => "deliver".to_owned(),
        Disposition::Quarantine(threat) => format!("quarantine: {threat}"),
        Disposition::Redirect(address) => format!("redirect: {address}"),
        Disposition::Discard(threat) => format!("discard: {threat}"),
    }
}

fn check_row(finding: &Finding) -> CheckRow {
    CheckRow {
        check: finding.check.to_string(),
        outcome: finding.opinion.to_string(),
        reason: finding.reason.clone(),
    }
}

fn attempt_row(attempt: &AttemptRecord) -> AttemptRow {
    let outcome = match &attempt.outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Relayed(_) => "relayed",
        Outcome::Deferred(_) => "deferred",
        Outcome::Failed(_) => "failed",
    };
    AttemptRow {
        at: attempt.at,
        recipient: plain(&attempt.recipient),
        next_hop: attempt.next_hop.as_ref().map(ToString::to_string).unwrap_or_default(),
        outcome: outcome.to_owned(),
        text: said(attempt.outcome.report()),
        transfer: attempt.outcome.report().transfer.to_string(),
    }
}

pub(super) fn ban_row(ban: Ban) -> BanRow {
    let Ban { client, since, until, left, reason, packets, last } = ban;
    BanRow { client, since, until, seconds_left: left.as_secs(), reason, packets, last }
}

/// Where mail would go.
pub(super) fn route_row(
    sender: &ReversePath,
    recipient: &ForwardPath,
    steps: Vec<String>,
    route: Option<Route>,
    servers: Result<Vec<Destination>, NoRoute>,
) -> RouteRow {
    let (servers, problem) = match servers {
        Ok(servers) => (servers.iter().map(ToString::to_string).collect(), None),
        Err(none) => (Vec::new(), Some(format!("{} {}", none.status, none.reason))),
    };
    let login = route.as_ref().and_then(|route| route.smarthost.as_ref()?.login.as_ref());
    RouteRow {
        recipient: plain(recipient),
        sender: sender.to_string(),
        steps,
        next_hop: route.as_ref().map(|route| route.next_hop.to_string()),
        servers,
        outgoing_address: route.as_ref().and_then(|route| Some(route.outgoing.as_ref()?.to_string())),
        tls: route.as_ref().map(|route| route.tls.to_string()),
        username: login.map(|login| login.user.clone()),
        problem,
    }
}
