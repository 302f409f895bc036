//! Our client and our server with each other: whatever is sent, however it is cut and whatever breaks, each
//! recipient has one outcome, and one that is delivered was stored as it was sent.
//!
//! [`pair`] joins the two ends, [`scenario`] says what they are told. Chunks (BDAT) are none of the client's;
//! they are tried with the server alone.

mod pair;
mod scenario;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::client::{END_OF_DATA_TIMEOUT, Encryption, Ending, MAX_PIPELINED_COMMANDS};
use super::server::{AuthOffer, UncleanData};
use crate::config::model::Mechanism;
use crate::mail::{Notify, Recipient, ReversePath};
use crate::outcome::Outcome;
use crate::testing::login;
use pair::{Done, Fate, Fault, Stored, Timing, play};
use scenario::{CONTENTS, EXTENSIONS, Message, Scenario, some_scenario, words};

const FAULTS: [Fault; 3] = [Fault::Reset, Fault::Closed, Fault::Silent];

/// What holds of every session, whatever breaks.
fn check_promises(scenario: &Scenario, done: &Done) {
    assert_eq!(done.fates.len(), scenario.messages.len(), "each message comes to an end, once");
    for (message, fate) in scenario.messages.iter().zip(&done.fates) {
        let envelope = &message.envelope;
        assert_eq!(fate.outcomes.len(), envelope.recipients.len(), "one outcome a recipient");
        let stored: Vec<&Stored> = done.stored.iter().filter(|stored| is_of(stored, message)).collect();
        assert!(stored.len() <= 1, "stored twice in one session: {stored:?}");
        check_message(message, fate, stored.first().copied());
    }
    let known = |stored: &Stored| scenario.messages.iter().any(|message| is_of(stored, message));
    assert!(done.stored.iter().all(known), "smuggled: {:?}", done.stored);
}

fn is_of(stored: &Stored, message: &Message) -> bool {
    stored.mail.reverse_path == message.envelope.reverse_path
}

/// 250 means that there is a receipt for just this message; and a receipt that the client doesn't know of,
/// that it is in doubt.
fn check_message(message: &Message, fate: &Fate, stored: Option<&Stored>) {
    let is_delivered = |outcome: &&Outcome| matches!(outcome, Outcome::Delivered(_) | Outcome::Relayed(_));
    let pairs = message.envelope.recipients.iter().zip(&fate.outcomes);
    let delivered: Vec<&Recipient> =
        pairs.filter(|(_, outcome)| is_delivered(outcome)).map(|(recipient, _)| recipient).collect();
    let Some(stored) = stored else {
        assert!(delivered.is_empty() || message.asks_only, "delivered, and nobody has it: {fate:?}");
        return;
    };
    assert!(!message.asks_only, "a question was taken for a message");
    assert!(!stored.recipients.is_empty(), "stored for nobody");
    assert_eq!(stored.content, message.meant(), "content arrives as it was meant");
    match fate.ending {
        Some(Ending::InDoubt) => assert!(delivered.is_empty(), "delivered and in doubt: {fate:?}"),
        Some(Ending::Settled | Ending::Interrupted) => {
            let paths = |recipients: &mut dyn Iterator<Item = &Recipient>| {
                recipients.map(|recipient| recipient.forward_path.clone()).collect::<Vec<_>>()
            };
            let theirs = paths(&mut stored.recipients.iter());
            assert_eq!(theirs, paths(&mut delivered.into_iter()), "stored for whom it is delivered to");
        }
        ending => panic!("stored, and the client would send it again: {ending:?}"),
    }
}

/// Nothing broke: nobody waited, and each recipient has the outcome that both ends said.
fn check_undisturbed(scenario: &Scenario, done: &Done) {
    assert_eq!(done.waited, Duration::ZERO, "somebody waited for what never came");
    let said = |fate: &Fate| fate.outcomes.iter().map(words).collect::<Vec<_>>();
    if let Some(obstacle) = scenario.obstacle() {
        assert_eq!(said(&done.fates[0]), vec![obstacle; done.fates[0].outcomes.len()]);
        return;
    }
    for (message, fate) in scenario.messages.iter().zip(&done.fates) {
        assert_eq!(said(fate), scenario.outcomes(message), "{message:?}");
        assert_eq!(fate.ending, Some(Ending::Settled));
    }
    for stored in &done.stored {
        let message = scenario.messages.iter().find(|message| is_of(stored, message)).unwrap();
        check_parameters(scenario, message, stored);
    }
}

/// What the envelope says besides addresses arrives where the server offers to hear it, and only there.
fn check_parameters(scenario: &Scenario, message: &Message, stored: &Stored) {
    let (mail, envelope) = (&stored.mail, &message.envelope);
    let size = scenario.shows("SIZE").then_some(stored.content.len() as u64);
    assert_eq!(mail.size, size, "SIZE");
    let dsn = scenario.shows("DSN");
    assert_eq!(mail.dsn_return, envelope.dsn_return.filter(|_| dsn), "RET");
    assert_eq!(mail.envelope_id, envelope.envelope_id.clone().filter(|_| dsn), "ENVID");
    for theirs in &stored.recipients {
        let ours = |ours: &&Recipient| {
            let told = |recipient: &Recipient| (recipient.notify, recipient.original_recipient.clone());
            let expect = if dsn { told(ours) } else { (None, None) };
            ours.forward_path == theirs.forward_path && told(theirs) == expect
        };
        assert!(envelope.recipients.iter().any(|recipient| ours(&recipient)), "NOTIFY, ORCPT: {theirs:?}");
    }
}

/// Octets of reads and writes, in turn: many small ones, or none that is cut.
fn some_timing() -> impl Strategy<Value = Timing> {
    let lengths = prop_oneof![vec(1_usize..4, 1..5), vec(1_usize..200, 1..9), Just(vec![usize::MAX]),];
    let window = prop_oneof![1_usize..40, Just(usize::MAX)];
    (lengths, vec(any::<bool>(), 1..9), window, any::<bool>()).prop_map(
        |(lengths, turns, window, slow_recipients)| Timing {
            lengths,
            turns,
            window,
            slow_recipients,
            fault: None,
        },
    )
}

proptest! {
    #[test]
    fn each_recipient_has_the_outcome_that_both_ends_said(
        scenario in some_scenario(),
        timing in some_timing(),
    ) {
        let done = play(&scenario, &timing);
        check_promises(&scenario, &done);
        check_undisturbed(&scenario, &done);
    }

    #[test]
    fn each_recipient_has_one_outcome_wherever_the_connection_breaks(
        scenario in some_scenario(),
        timing in some_timing(),
        part in 0.0_f64..1.0,
        fault in select(FAULTS.to_vec()),
    ) {
        let octets = play(&scenario, &timing).octets as f64;
        let timing = Timing { fault: Some(((octets * part) as usize, fault)), ..timing };
        let done = play(&scenario, &timing);
        check_promises(&scenario, &done);
        prop_assert!(done.waited <= END_OF_DATA_TIMEOUT, "waited {:?}", done.waited);
    }
}

/// Two messages, and a recipient of each kind.
fn two_messages() -> Vec<Message> {
    let mut first = Message::new(0, &["rcpt0", "refused1", "deferred2", "rcpt3"], b"a\r\n..b\r\n");
    first.envelope.recipients[0].notify = Some(Notify { success: true, ..Notify::NEVER });
    vec![first, Message::new(1, &["rcpt0"], b"no line end")]
}

/// Sessions as they differ by what is offered and wanted, and whether the server takes its time over
/// recipients.
fn sessions() -> Vec<(Scenario, bool)> {
    let plain = Scenario::with(two_messages());
    let login = login("alice", "secret", &[Mechanism::Login]);
    let stepwise = Scenario { hidden: vec!["PIPELINING"], ..plain.clone() };
    let old = Scenario { knows_ehlo: false, ..plain.clone() };
    let guarded = Scenario {
        encryption: Encryption::Required,
        offers_tls: true,
        auth: AuthOffer::Encrypted,
        login: Some(login),
        ..plain.clone()
    };
    // Nobody takes the first, and RSET comes before the next.
    let refused = Scenario::with(vec![
        Message::new(0, &["refused0"], b"x\r\n"),
        Message { asks_only: true, ..Message::new(1, &["rcpt0", "refused1"], b"") },
        Message::new(2, &["rcpt0"], b".\r\n"),
    ]);
    vec![
        (plain.clone(), true),
        (plain, false),
        (stepwise, false),
        (old, false),
        (guarded, false),
        (refused, true),
    ]
}

/// The connection suffers the fault after each octet of each of the sessions.
fn break_at_each_octet(fault: Fault) {
    for (scenario, slow_recipients) in sessions() {
        let timing = Timing { slow_recipients, ..Timing::smooth() };
        let whole = play(&scenario, &timing);
        check_undisturbed(&scenario, &whole);
        for octets in 0..whole.octets {
            let timing = Timing { fault: Some((octets, fault)), ..timing.clone() };
            let done = play(&scenario, &timing);
            check_promises(&scenario, &done);
            assert!(done.waited <= END_OF_DATA_TIMEOUT, "{:?} after {octets} octets", done.waited);
        }
    }
}

#[test]
fn a_reset_at_each_octet_loses_and_doubles_no_message() {
    break_at_each_octet(Fault::Reset);
}

#[test]
fn a_close_at_each_octet_loses_and_doubles_no_message() {
    break_at_each_octet(Fault::Closed);
}

#[test]
fn a_silence_at_each_octet_loses_and_doubles_no_message_and_keeps_nobody() {
    break_at_each_octet(Fault::Silent);
}

#[test]
fn content_arrives_as_it_was_meant_however_it_is_cut() {
    let long = [vec![b'.'; 1_500], b"\r\n.\r\n".to_vec()].concat();
    for content in CONTENTS.into_iter().chain([long.as_slice()]) {
        for unclean_data in [UncleanData::Refuse, UncleanData::Repair] {
            let scenario =
                Scenario { unclean_data, ..Scenario::with(vec![Message::new(0, &["rcpt0"], content)]) };
            for length in [1, 2, 3, 7, usize::MAX] {
                let done = play(&scenario, &Timing { lengths: vec![length], ..Timing::smooth() });
                check_promises(&scenario, &done);
                check_undisturbed(&scenario, &done);
            }
        }
    }
}

/// Firewalls take lines out of the answer to EHLO.
#[test]
fn mail_goes_with_and_without_each_extension() {
    let login = login("alice", "secret", &Mechanism::ALL);
    let mut messages = two_messages();
    messages[1].content = "größe\r\n".as_bytes().to_vec();
    messages.push(Message::new(2, &["größe0", "rcpt1"], b"x\r\n"));
    messages.push(Message::new(3, &["rcpt0"], &[b'x'; 4_000]));
    let offering = Scenario {
        offers_tls: true,
        auth: AuthOffer::Always,
        login: Some(login),
        encryption: Encryption::Offered,
        ..Scenario::with(messages)
    };
    let alone = EXTENSIONS.map(|extension| vec![extension]);
    let only =
        EXTENSIONS.map(|extension| EXTENSIONS.into_iter().filter(|other| *other != extension).collect());
    for hidden in [vec![], EXTENSIONS.to_vec()].into_iter().chain(alone).chain(only) {
        for login in [None, offering.login.clone()] {
            let scenario = Scenario { hidden: hidden.clone(), login, ..offering.clone() };
            let done = play(&scenario, &Timing::smooth());
            check_promises(&scenario, &done);
            check_undisturbed(&scenario, &done);
        }
    }
}

/// Neither end waits for the other to read (RFC 2920 §3.1).
#[test]
fn hundreds_of_recipients_fit_through_the_smallest_window() {
    let names: Vec<String> = (0..10 * MAX_PIPELINED_COMMANDS).map(|index| format!("rcpt{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = Message::new(0, &names, b"x\r\n");
    let scenario = Scenario { max_recipients: names.len(), ..Scenario::with(vec![message]) };
    for window in [1, 100, 4_096] {
        let done = play(&scenario, &Timing { window, ..Timing::smooth() });
        check_promises(&scenario, &done);
        check_undisturbed(&scenario, &done);
    }
}

#[test]
fn the_null_reverse_path_arrives() {
    let mut message = Message::new(0, &["rcpt0"], b"x\r\n");
    message.envelope.reverse_path = ReversePath::Null;
    let scenario = Scenario::with(vec![message]);
    let done = play(&scenario, &Timing::smooth());
    check_promises(&scenario, &done);
    check_undisturbed(&scenario, &done);
    assert_eq!(done.stored[0].mail.reverse_path, ReversePath::Null);
}
