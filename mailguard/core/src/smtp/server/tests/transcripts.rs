//! What is said in which case.

use super::*;

#[test]
fn a_message_one_command_at_a_time() {
    check_greeted(
        "
        C: MAIL FROM:<a@client.example> SIZE=30 BODY=8BITMIME
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 Recipient ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: Subject: x
        C:
        C: ..dot
        C: .
        = body Subject: x\\r\\n\\r\\n.dot\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        C: QUIT
        S: 221 2.0.0 Bye
        = close Quit
        ",
    );
}

#[test]
fn pipelining_gives_groups_of_commands_groups_of_replies() {
    check_greeted(
        "
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@mx.example>
        C: RCPT TO:<refused@mx.example>
        C: RCPT TO:<c@mx.example>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 250 2.1.5 Recipient ok
        S: 354 End data with <CR><LF>.<CR><LF>
        C: text
        C: .
        C: MAIL FROM:<a@client.example>
        C: RSET
        C: NOOP
        C: QUIT
        = body text\\r\\n
        = abandon
        S: 250 2.0.0 Ok: queued as 11
        S: 250 2.1.0 Sender ok
        S: 250 2.0.0 Ok
        S: 250 2.0.0 Ok
        --
        S: 221 2.0.0 Bye
        = close Quit
        ",
    );
}

#[test]
fn pipelining_keeps_no_reply_back_that_a_client_may_wait_for() {
    check_greeted(
        "
        C: NOOP
        C: VRFY x
        C: RSET
        C: WRONG
        C: RSET
        S: 250 2.0.0 Ok
        --
        S: 252 2.0.0 Cannot verify, but will take a message and attempt delivery
        --
        S: 250 2.0.0 Ok
        S: 500 5.5.1 Command not recognised
        --
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn a_pipelining_group_whose_recipients_are_all_refused_gets_no_354() {
    check_greeted(
        "
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<refused@mx.example>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 554 5.5.1 No valid recipients
        C: RSET
        = abandon
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn helo_offers_nothing() {
    check(
        "
        S: 220 mx.example ESMTP
        C: HELO client.example
        S: 250 mx.example greets client.example
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        ",
    );
}

#[test]
fn commands_out_of_order() {
    check_greeted(
        "
        C: RCPT TO:<b@mx.example>
        S: 503 5.5.1 MAIL comes first
        C: DATA
        S: 503 5.5.1 MAIL and RCPT come first
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: MAIL FROM:<>
        S: 503 5.5.1 MAIL was given already
        C: EHLO client.example
        = abandon
        S: 250-mx.example greets client.example
        S: 250-PIPELINING
        S: 250-SIZE 100
        S: 250-8BITMIME
        S: 250-ENHANCEDSTATUSCODES
        S: 250-CHUNKING
        S: 250-DSN
        S: 250 SMTPUTF8
        C: DATA
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
        ",
    );
}

#[test]
fn a_refused_sender_begins_no_transaction() {
    check_greeted(
        "
        C: MAIL FROM:<deferred@client.example>
        C: RCPT TO:<b@mx.example>
        S: 452 4.3.1 Insufficient storage, try later (ref 11)
        S: 503 5.5.1 MAIL comes first
        ",
    );
}

#[test]
fn what_needs_no_transaction() {
    check(
        "
        S: 220 mx.example ESMTP
        C: NOOP
        S: 250 2.0.0 Ok
        C: HELP
        S: 214 2.0.0 HELO EHLO MAIL RCPT DATA BDAT RSET NOOP HELP VRFY QUIT
        C: VRFY postmaster
        S: 252 2.0.0 Cannot verify, but will take a message and attempt delivery
        C: EXPN staff
        S: 502 5.5.1 Command not implemented
        C: RSET
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn the_bare_postmaster_is_a_recipient() {
    check_greeted(
        "
        C: MAIL FROM:<>
        C: RCPT TO:<Postmaster>
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        ",
    );
}

#[test]
fn recipients_past_max_recipients_are_deferred() {
    check_greeted(
        "
        C: MAIL FROM:<>
        C: RCPT TO:<a@mx.example>
        C: RCPT TO:<b@mx.example>
        C: RCPT TO:<c@mx.example>
        C: RCPT TO:<d@mx.example>
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 452 4.5.3 Too many recipients, the limit is 3 (ref 11)
        ",
    );
}

#[test]
fn past_the_hard_error_limit_the_session_ends() {
    check_greeted(
        "
        C: MIAL
        S: 500 5.5.1 Command not recognised
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<refused@mx.example>
        C: RCPT TO:<b@>
        S: 250 2.1.0 Sender ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 501 5.1.3 Bad recipient address: a domain name is empty
        C: RCPT TO:<refused@mx.example>
        C: RCPT TO:<b@mx.example>
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
        ",
    );
}

#[test]
fn deferrals_are_no_errors() {
    // As many as may be named in one transaction; three errors are allowed.
    let deferred = "
        C: RCPT TO:<deferred@mx.example>
        S: 452 4.3.1 Insufficient storage, try later (ref 11)
    ";
    check_greeted(&format!("C: MAIL FROM:<>\nS: 250 2.1.0 Sender ok\n{}", deferred.repeat(6)));
}

#[test]
fn a_stored_message_clears_the_errors() {
    let wrong = "
        C: WRONG
        S: 500 5.5.1 Command not recognised
    ";
    let message = "
        C: x
        C: .
        = body x\\r\\n
        S: 250 2.0.0 Ok: queued as 11
    ";
    check_greeted(&format!("{0}{IN_DATA}{message}{0}", wrong.repeat(3)));
}

#[test]
fn idle_commands_without_end_are_errors() {
    let noop = "
        C: NOOP
        S: 250 2.0.0 Ok
    ";
    let count = MAX_IDLE_COMMANDS as usize + 3;
    let end = "
        C: NOOP
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
    ";
    check_greeted(&format!("{}{end}", noop.repeat(count)));
}

#[test]
fn an_early_talker_is_refused() {
    let mut session = Session::new(SETTINGS());
    session.input(b"EHLO bot.example\r\n");
    assert_eq!(
        session.seen,
        ["S: 554 5.5.1 Protocol error: you spoke before the greeting", "= close EarlyTalker"]
    );
}

#[test]
fn who_does_not_wait_for_a_reply_without_pipelining_is_refused() {
    let refused = "
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised
    ";
    check(&format!("S: 220 mx.example ESMTP\nC: EHLO bot.example\nC: MAIL FROM:<>{refused}"));
    check(&format!("S: 220 mx.example ESMTP\nC: NOOP\nC: NOOP{refused}"));
    let helo = "
        S: 220 mx.example ESMTP
        C: HELO bot.example
        S: 250 mx.example greets bot.example
    ";
    check(&format!("{helo}\nC: MAIL FROM:<>\nC: RCPT TO:<a@mx.example>{refused}"));
    check_greeted(
        "
        C: MAIL FROM:<>
        C: RCPT TO:<a@mx.example>
        C: DATA
        C: text before 354
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised
        ",
    );
}

#[test]
fn only_crlf_ends_a_command() {
    check_greeted(
        "
        C| NOOP\\nNOOP\\r\\n
        S: 500 5.5.2 Command holds a control character or a bare CR or LF
        C| NOOP\\n
        + 299s
        + 1s
        S: 421 4.4.2 Timeout, closing the connection
        = close Timeout
        ",
    );
}

#[test]
fn overlong_commands() {
    let long = "x".repeat(5_000);
    check_greeted(&format!(
        "
        C: NOOP {long}
        S: 500 5.5.2 Line too long
        C: NOOP
        S: 250 2.0.0 Ok
        "
    ));
}

#[test]
fn smuggling_fails_for_only_crlf_dot_crlf_ends_data() {
    check_greeted(&format!(
        "{IN_DATA}
        C| a\\n.\\nMAIL FROM:<x@client.example>\\n.\\r\\nb\\r\\n.\\nc\\r.\\r\\n
        --
        C: .
        = body a\\r\\n.\\r\\nMAIL FROM:<x@client.example>\\r\\n.\\r\\nb\\r\\n\\r\\nc\\r\\n.\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        "
    ));
}

#[test]
fn bare_line_ends_are_refused_in_red() {
    let settings = Settings { unclean_data: UncleanData::Refuse, ..SETTINGS() };
    check_with(
        settings,
        &format!(
            "{GREETED}{IN_DATA}
            C| a\\n.\\nMAIL FROM:<x@client.example>\\r\\nmore\\r\\n
            = refuse body BareLineEnd
            C: .
            S: 554 5.6.0 Message holds a bare CR or LF (ref 11)
            C: NOOP
            S: 250 2.0.0 Ok
            "
        ),
    );
}

#[test]
fn nul_is_refused_in_red_and_left_out_elsewhere() {
    // To a server that drops NUL the data end at each of these.
    let smuggled = "C| a\\r\\n\\0.\\r\\nb\\r\\n.\\0\\r\\nMAIL FROM:<x@client.example>\\0\\r\\n";
    let settings = Settings { unclean_data: UncleanData::Refuse, ..SETTINGS() };
    check_with(
        settings,
        &format!(
            "{GREETED}{IN_DATA}
            {smuggled}
            = refuse body Nul
            C: .
            S: 554 5.6.0 Message holds a NUL octet (ref 11)
            C: NOOP
            S: 250 2.0.0 Ok
            "
        ),
    );
    check_greeted(&format!(
        "{IN_DATA}
        {smuggled}
        --
        C: .
        = body a\\r\\n.\\r\\nb\\r\\n\\r\\nMAIL FROM:<x@client.example>\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        {IN_DATA}
        C: {}
        = refuse body TooLarge(100)
        C: .
        S: 552 5.3.4 Message exceeds the limit of 100 octets (ref 11)
        ",
        "\\0".repeat(101)
    ));
    check_greeted(
        "
        C: MAIL FROM:<a\\0@client.example>
        S: 500 5.5.2 Command holds a control character or a bare CR or LF
        ",
    );
}

#[test]
fn greetings_are_ascii() {
    check_with(
        Settings { hostname: Domain::parse("größe.example").unwrap(), ..SETTINGS() },
        "
        S: 220 xn--gre-6ka8i.example ESMTP
        C: HELO bücher.example
        S: 250 xn--gre-6ka8i.example greets b?cher.example
        ",
    );
}

#[test]
fn the_size_limit_counts_octets_without_dot_stuffing() {
    let fits = format!("C: ..{}", "x".repeat(97));
    let content = fits[4..].to_owned();
    check_greeted(&format!(
        "{IN_DATA}
        {fits}
        C: .
        = body {content}\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        {IN_DATA}
        {fits}x
        = refuse body TooLarge(100)
        C: more
        C: .
        S: 552 5.3.4 Message exceeds the limit of 100 octets (ref 11)
        C: NOOP
        S: 250 2.0.0 Ok
        "
    ));
}

#[test]
fn memory_stays_bounded_whatever_is_sent() {
    let mut session = Session::new(SETTINGS());
    session.server.greet(session.now);
    session.perform();
    let flood = vec![b'x'; 10_000];
    let mut most = 0;
    let mut pour = |session: &mut Session, times: usize| {
        for _ in 0..times {
            session.input(&flood);
            let replies = session.server.take_replies().len();
            most = most.max(session.server.input.rest().len() + replies);
        }
    };
    pour(&mut session, 100);
    session.input(b"\r\n");
    session.input(b"EHLO a\r\n");
    session.input(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n");
    pour(&mut session, 100);
    assert!(session.seen.iter().any(|line| line == "= refuse body TooLarge(100)"), "{:?}", session.seen);
    assert!(session.octets_handed_out <= 100);
    assert!(most <= crate::smtp::line::MAX_LINE_OCTETS, "{most}");
}

#[test]
fn a_full_disk_at_the_end_of_data() {
    check_greeted(&format!(
        "{IN_DATA}
        C: full
        C: .
        = body full\\r\\n
        S: 452 4.3.1 Insufficient storage, try later (ref 11)
        "
    ));
}

#[test]
fn slow_clients_meet_the_command_timeout_and_the_data_timeout() {
    let bye = "
        S: 421 4.4.2 Timeout, closing the connection
        = close Timeout
    ";
    check(&format!("S: 220 mx.example ESMTP\n+ 299s\n+ 1s\n{bye}"));
    // Octets that end no command win no time.
    check(&format!("S: 220 mx.example ESMTP\n+ 200s\nC| NO\n+ 100s\n{bye}"));
    check(&format!("S: 220 mx.example ESMTP\n+ 200s\nC: NOOP\nS: 250 2.0.0 Ok\n+ 299s\n+ 1s\n{bye}"));
    check_greeted(&format!("{IN_DATA}\n+ 59s\nC| a\n+ 59s\nC| b\n+ 60s\n{bye}"));
    // However steadily it trickles, there is an end.
    let trickle = "+ 59s\nC| a\n".repeat(6);
    check_greeted(&format!("{IN_DATA}\n{trickle}\n+ 6s\n{bye}"));
}

#[test]
fn shutting_down_waits_for_the_message() {
    let bye = "
        S: 421 4.3.2 mx.example is shutting down, try again later
        = close ShutDown
    ";
    check_greeted(&format!("! shut down{bye}"));
    check_greeted(&format!(
        "{IN_DATA}
        ! shut down
        C: text
        C: .
        = body text\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        {}",
        bye.trim_start()
    ));
}
