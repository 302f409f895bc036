//! What follows from the outcomes of an attempt: done, again later, or the end, and then who is told. Pure.
//!
//! A failure or a long delay is reported to the sender only where its zone gets reports (`server.dsn_zones`),
//! or where it had logged in; from other zones the sender may be forged, so that a message that fails is
//! quarantined, and the administrator, who is told, decides. A report that fails itself is dropped: reports
//! about reports never end (RFC 5321 §4.5.5, §6.1; RFC 3461 §4.1).

use std::time::Duration;

use mailguard_core::attempt::Consequence;
use mailguard_core::config::Config;
use mailguard_core::dsn::{Action, wants_delay, wants_failure};
use mailguard_core::mail::{RecipientIndex, ReversePath, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::schedule::RetryPolicy;
use mailguard_core::smtp::{Detail, EnhancedStatus};

use crate::store::spool::{Ending, MessageRecord, Queued, Reason, RecipientState};

/// Delivery time expired (RFC 3463 §3.5).
const EXPIRED: EnhancedStatus = EnhancedStatus::transient(Detail::DELIVERY_TIME_EXPIRED);

/// What follows from an attempt.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judgement<'o> {
    /// For each recipient that had an outcome and waited for one.
    pub(super) recipients: Vec<JudgedRecipient<'o>>,
}

/// What follows for one recipient.
#[derive(Debug, PartialEq)]
pub(super) struct JudgedRecipient<'o> {
    pub(super) index: RecipientIndex,
    /// What the attempt came to for it.
    pub(super) outcome: &'o Outcome,
    pub(super) follows: Follows,
}

/// What follows from an outcome.
#[derive(Debug, PartialEq)]
pub(super) struct Follows {
    /// What the trace says.
    pub(super) consequence: Consequence,
    pub(super) next: Next,
    /// What the sender is told.
    pub(super) report: Option<(Action, Report)>,
}

/// How a recipient stands from now on.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// In the queue, or at its end there.
    State(RecipientState),
    /// In the quarantine.
    Quarantine(Reason),
}

/// The configured pace of retries.
pub(super) fn retry_policy(config: &Config) -> RetryPolicy {
    RetryPolicy {
        min: config.delivery.retry_min,
        max: config.delivery.retry_max,
        give_up_after: config.delivery.max_queue_time,
    }
}

/// Judges the outcomes.
pub(super) fn judge<'o>(
    config: &Config,
    record: &MessageRecord,
    outcomes: &'o [(RecipientIndex, Outcome)],
    now: UnixTime,
) -> Judgement<'o> {
    let judged = outcomes.iter().filter_map(|(index, outcome)| match record.state(*index) {
        RecipientState::Queued(queued) => {
            let follows = follows(config, record, (*index, queued), outcome, now);
            Some(JudgedRecipient { index: *index, outcome, follows })
        }
        RecipientState::Ended(_) => None,
    });
    Judgement { recipients: judged.collect() }
}

impl Judgement<'_> {
    /// Whether every recipient has the message, and nobody is to be told.
    pub(super) fn is_done(&self) -> bool {
        self.recipients.iter().all(|judged| judged.follows.consequence == Consequence::Done)
    }

    /// When the first of them is due again.
    pub(super) fn next_due(&self) -> Option<UnixTime> {
        let due = |judged: &JudgedRecipient<'_>| match judged.follows.consequence {
            Consequence::Retry(at) => Some(at),
            _ => None,
        };
        self.recipients.iter().filter_map(due).min()
    }
}

impl Follows {
    fn ended(ending: Ending, consequence: Consequence) -> Self {
        Self { consequence, next: Next::State(RecipientState::Ended(ending)), report: None }
    }
}

fn follows(
    config: &Config,
    record: &MessageRecord,
    (index, queued): (RecipientIndex, &Queued),
    outcome: &Outcome,
    now: UnixTime,
) -> Follows {
    let report = match outcome {
        Outcome::Delivered(_) => return Follows::ended(Ending::Delivered, Consequence::Done),
        Outcome::Relayed(report) => return relayed(config, record, index, report),
        Outcome::Failed(report) => return failed(config, record, index, report.clone()),
        Outcome::Deferred(report) => report,
    };
    let attempts = queued.attempts.saturating_add(1);
    let Some(at) = retry_policy(config).next(record.received_at, attempts, now) else {
        return failed(config, record, index, expired(config, report));
    };
    let warned = warning_is_due(config, record, index, now);
    let state = Queued {
        redirected_to: queued.redirected_to.clone(),
        attempts,
        next_attempt: at,
        last: Some(report.clone()),
        warned: queued.warned || warned,
        added_by_us: queued.added_by_us,
    };
    Follows {
        consequence: Consequence::Retry(at),
        next: Next::State(RecipientState::Queued(state)),
        report: warned.then(|| (Action::Delayed, report.clone())),
    }
}

fn relayed(config: &Config, record: &MessageRecord, index: RecipientIndex, report: &Report) -> Follows {
    if !sender_gets_reports(config, record, index) || record.envelope.reverse_path == ReversePath::Null {
        return Follows::ended(Ending::Delivered, Consequence::Done);
    }
    let report = Some((Action::Relayed, report.clone()));
    Follows { report, ..Follows::ended(Ending::Delivered, Consequence::Report) }
}

fn failed(config: &Config, record: &MessageRecord, index: RecipientIndex, report: Report) -> Follows {
    let consequence = on_failure(config, record, index);
    if consequence == Consequence::Quarantine {
        let next = Next::Quarantine(Reason::Undeliverable(report));
        return Follows { consequence, next, report: None };
    }
    let told = (consequence == Consequence::Report).then(|| (Action::Failed, report.clone()));
    Follows { report: told, ..Follows::ended(Ending::Failed(report), consequence) }
}

/// What is done when a recipient can't be reached for good.
fn on_failure(config: &Config, record: &MessageRecord, index: RecipientIndex) -> Consequence {
    let Origin::Client(_) = &record.origin else { return Consequence::Drop };
    if record.is_copy(index) {
        return Consequence::Drop;
    }
    if !sender_gets_reports(config, record, index) {
        return Consequence::Quarantine;
    }
    if record.envelope.reverse_path == ReversePath::Null || !wants_failure(record.recipient(index)) {
        return Consequence::Drop;
    }
    Consequence::Report
}

/// Whether the sender is to be told now that the message waits for this recipient.
fn warning_is_due(config: &Config, record: &MessageRecord, index: RecipientIndex, now: UnixTime) -> bool {
    let RecipientState::Queued(queued) = record.state(index) else { return false };
    let after = config.delivery.delay_warning;
    !after.is_zero()
        && !queued.warned
        && now >= record.received_at.plus(after)
        && record.envelope.reverse_path != ReversePath::Null
        && wants_delay(record.recipient(index))
        && sender_gets_reports(config, record, index)
}

/// When somebody is told if a message still waits for these recipients: its time is up, or its sender is
/// warned.
pub(super) fn notify_at(config: &Config, record: &MessageRecord, recipients: &[RecipientIndex]) -> UnixTime {
    let warned_at = record.received_at.plus(config.delivery.delay_warning);
    let expires = record.received_at.plus(config.delivery.max_queue_time);
    match recipients.iter().any(|&index| warning_is_due(config, record, index, warned_at)) {
        true => warned_at.min(expires),
        false => expires,
    }
}

/// Whether the sender is one to whom reports go. What was redirected to somebody else is not the sender's to
/// hear of.
fn sender_gets_reports(config: &Config, record: &MessageRecord, index: RecipientIndex) -> bool {
    let Origin::Client(client) = &record.origin else { return false };
    let redirected =
        matches!(record.state(index), RecipientState::Queued(Queued { redirected_to: Some(_), .. }));
    !redirected && (client.user.is_some() || config.server.dsn_zones.contains(&client.zone))
}

fn expired(config: &Config, last: &Report) -> Report {
    let text = format!("not delivered within {}: {}", span(config.delivery.max_queue_time), last.text);
    Report {
        status: EXPIRED,
        remote: last.remote.clone(),
        reply: last.reply.clone(),
        text,
        transfer: last.transfer.clone(),
    }
}

/// `5 days`, `90 minutes`, `30 seconds`.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    for (unit, name) in [(86_400, "days"), (3_600, "hours"), (60, "minutes")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{} {name}", seconds / unit);
        }
    }
    format!("{seconds} seconds")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mailguard_core::mail::{Notify, QueueId};

    use super::*;
    use crate::spool::Body;
    use crate::spool::fixture::{client, config, mailbox, message};
    use crate::store::spool::{StoredBody, first_states};

    const FIRST: RecipientIndex = RecipientIndex::new(0);
    const SECOND: RecipientIndex = RecipientIndex::new(1);
    const DAY: u64 = 86_400_000_000;

    fn report(class: u8) -> Report {
        Report::about(EnhancedStatus::new(class, 1, 1), "mx.test".to_owned(), "no".to_owned())
    }

    fn record() -> MessageRecord {
        let new = message(QueueId(1), &["a@b.test"], Body::Memory("".into()));
        MessageRecord::new(
            new.origin,
            new.envelope,
            UnixTime(0),
            StoredBody::Row { octets: 0 },
            first_states(&new.dispositions, UnixTime(0)),
        )
    }

    fn check(change: impl FnOnce(&mut MessageRecord), outcome: Outcome, now: u64, expect: Consequence) {
        let mut record = record();
        change(&mut record);
        let config = config(Path::new("/"));
        let outcomes = [(FIRST, outcome.clone())];
        let judgement = judge(&config, &record, &outcomes, UnixTime(now));
        let what = format!("{outcome:?} at {now} of {record:?}");
        let [JudgedRecipient { index: FIRST, follows, .. }] = &judgement.recipients[..] else {
            panic!("{what}")
        };
        assert_eq!(follows.consequence, expect, "{what}");
        let quarantined = matches!(follows.next, Next::Quarantine(_));
        assert_eq!(quarantined, expect == Consequence::Quarantine, "{what}");
        assert_eq!(follows.report.is_some(), expect == Consequence::Report, "{what}");
        let again = matches!(follows.next, Next::State(RecipientState::Queued(_)));
        assert_eq!(again, matches!(expect, Consequence::Retry(_)), "{what}");
    }

    #[test]
    fn outcomes_and_what_follows() {
        let failed = || Outcome::Failed(report(5));
        let deferred = || Outcome::Deferred(report(4));
        check(|_| {}, Outcome::Delivered(report(2)), 1, Consequence::Done);
        check(|_| {}, deferred(), 0, Consequence::Retry(UnixTime(300_000_000)));
        check(|_| {}, deferred(), 5 * DAY, Consequence::Report);
        check(|_| {}, failed(), 1, Consequence::Report);
        check(|r| r.origin = client("red"), failed(), 1, Consequence::Quarantine);
        check(|r| r.origin = client("red"), deferred(), 5 * DAY, Consequence::Quarantine);
        check(|r| r.origin = Origin::Internal, failed(), 1, Consequence::Drop);
        check(|r| r.origin = Origin::Internal, deferred(), 1, Consequence::Retry(UnixTime(300_000_001)));
        check(|r| r.envelope.reverse_path = ReversePath::Null, failed(), 1, Consequence::Drop);
        let null_from_red = |r: &mut MessageRecord| {
            r.origin = client("red");
            r.envelope.reverse_path = ReversePath::Null;
        };
        check(null_from_red, failed(), 1, Consequence::Quarantine);
        let never = |r: &mut MessageRecord| r.envelope.recipients[0].notify = Some(Notify::NEVER);
        check(never, failed(), 1, Consequence::Drop);
        let redirected = |r: &mut MessageRecord| {
            let RecipientState::Queued(queued) = &mut r.states[0] else { panic!("queued") };
            queued.redirected_to = Some(mailbox("admin@y.test"));
        };
        check(redirected, failed(), 1, Consequence::Quarantine);
        let copy = |r: &mut MessageRecord| {
            r.origin = client("red");
            r.copy_to(vec![mailbox("bcc@b.test")], UnixTime(0));
            r.envelope.recipients.remove(0);
            r.states.remove(0);
        };
        check(copy, failed(), 1, Consequence::Drop);
        let logged_in = |r: &mut MessageRecord| {
            r.origin = client("red");
            let Origin::Client(client) = &mut r.origin else { panic!("a client") };
            client.user = Some("alice".to_owned());
        };
        check(logged_in, failed(), 1, Consequence::Report);
        let relayed = || Outcome::Relayed(report(2));
        check(|_| {}, relayed(), 1, Consequence::Report);
        check(|r| r.origin = client("red"), relayed(), 1, Consequence::Done);
        check(|r| r.origin = Origin::Internal, relayed(), 1, Consequence::Done);
        check(|r| r.envelope.reverse_path = ReversePath::Null, relayed(), 1, Consequence::Done);
        check(redirected, relayed(), 1, Consequence::Done);
    }

    /// A warning is due once, when `delay_warning` has passed, to who gets reports and wants this one.
    #[test]
    fn a_delay_is_told_once() {
        const HOURS: u64 = 3_600_000_000;
        type Change = fn(&mut MessageRecord);
        let warned = |change: Change, now: u64| {
            let mut record = record();
            change(&mut record);
            let outcomes = [(FIRST, Outcome::Deferred(report(4)))];
            let judgement = judge(&config(Path::new("/")), &record, &outcomes, UnixTime(now));
            let Follows { next, report, .. } = &judgement.recipients[0].follows;
            let Next::State(RecipientState::Queued(state)) = next else { panic!("waits") };
            (report.iter().map(|(action, _)| *action).collect::<Vec<_>>(), state.warned)
        };
        let nobody: Change = |_| {};
        let already: Change = |r| {
            let RecipientState::Queued(queued) = &mut r.states[0] else { panic!("queued") };
            queued.warned = true;
        };
        let stranger: Change = |r| r.origin = client("red");
        let silent: Change = |r| r.envelope.recipients[0].notify = Some(Notify::NEVER);
        let null: Change = |r| r.envelope.reverse_path = ReversePath::Null;
        let own: Change = |r| r.origin = Origin::Internal;
        assert_eq!(warned(nobody, 4 * HOURS - 1), (vec![], false));
        assert_eq!(warned(nobody, 4 * HOURS), (vec![Action::Delayed], true));
        assert_eq!(warned(already, 5 * HOURS), (vec![], true));
        for change in [stranger, silent, null, own] {
            assert_eq!(warned(change, 5 * HOURS), (vec![], false));
        }
    }

    #[test]
    fn expiry_says_how_long_and_what_was_last_heard() {
        let outcomes = [(FIRST, Outcome::Deferred(report(4)))];
        let judgement = judge(&config(Path::new("/")), &record(), &outcomes, UnixTime(6 * DAY));
        let Some((_, report)) = &judgement.recipients[0].follows.report else { panic!("{judgement:?}") };
        assert_eq!(report.status, EXPIRED);
        assert_eq!(report.text, "not delivered within 5 days: no");
    }

    #[test]
    fn a_recipient_that_has_ended_takes_nobody_elses_consequence() {
        let new = message(QueueId(1), &["a@b.test", "c@b.test"], Body::Memory("".into()));
        let mut states = first_states(&new.dispositions, UnixTime(0));
        states[0] = RecipientState::Ended(Ending::Delivered);
        let body = StoredBody::Row { octets: 0 };
        let record = MessageRecord::new(new.origin, new.envelope, UnixTime(0), body, states);
        let outcomes = [(FIRST, Outcome::Delivered(report(2))), (SECOND, Outcome::Failed(report(5)))];
        let judgement = judge(&config(Path::new("/")), &record, &outcomes, UnixTime(1));
        let [JudgedRecipient { index: SECOND, outcome: Outcome::Failed(_), follows }] =
            &judgement.recipients[..]
        else {
            panic!("{judgement:?}")
        };
        assert_eq!(follows.consequence, Consequence::Report);
    }

    #[test]
    fn spans_are_said_in_the_greatest_unit() {
        for (seconds, text) in
            [(432_000, "5 days"), (5_400, "90 minutes"), (7_200, "2 hours"), (61, "61 seconds")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
