//! Content in chunks (RFC 3030).

use super::*;

/// Goes on after [`GREETED`]: chunks may follow.
const IN_TRANSACTION: &str = "
    C: MAIL FROM:<a@client.example>
    C: RCPT TO:<b@mx.example>
    S: 250 2.1.0 Sender ok
    S: 250 2.1.5 Recipient ok
";

#[test]
fn a_message_in_bdat_chunks() {
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT 12
        C| Subject: x\\r\\n
        S: 250 2.0.0 Ok: 12 octets received
        C: BDAT 5
        C| \\r\\n.\\r\\n
        C: BDAT 6 LAST
        C| .\\r\\nend
        = body Subject: x\\r\\n\\r\\n.\\r\\n.\\r\\nend\\r\\n
        S: 250 2.0.0 Ok: 5 octets received
        S: 250 2.0.0 Ok: queued as 11
        C: QUIT
        S: 221 2.0.0 Bye
        = close Quit
        "
    ));
}

#[test]
fn pipelining_takes_a_whole_transaction_with_bdat_in_one_write() {
    check_greeted(
        "
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@mx.example>
        C: BDAT 6 LAST
        C| text\\r\\n
        C: QUIT
        = body text\\r\\n
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.0.0 Ok: queued as 11
        S: 221 2.0.0 Bye
        = close Quit
        ",
    );
}

#[test]
fn an_empty_bdat_last_ends_the_message() {
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT 6
        C| text\\r\\n
        S: 250 2.0.0 Ok: 6 octets received
        C: BDAT 0 LAST
        = body text\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        "
    ));
}

#[test]
fn what_looks_like_commands_in_a_bdat_chunk_is_content() {
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT 12 LAST
        C| a\\r\\n.\\r\\nQUIT\\r\\n
        C| NOOP\\r\\n
        = body a\\r\\n.\\r\\nQUIT\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        S: 250 2.0.0 Ok
        "
    ));
}

#[test]
fn bdat_chunks_out_of_order_are_thrown_away() {
    check_greeted(
        "
        C: BDAT 12 LAST
        C| MAIL FROM:<>
        S: 503 5.5.1 MAIL and RCPT come first
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<refused@mx.example>
        C: BDAT 6
        C| QUIT\\r\\n
        C: BDAT 6 LAST
        C| QUIT\\r\\n
        S: 250 2.1.0 Sender ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 554 5.5.1 No valid recipients
        S: 554 5.5.1 No valid recipients
        C: NOOP
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn only_bdat_follows_bdat() {
    check_with(
        Settings { hard_error_limit: 9, ..SETTINGS() },
        &format!(
            "{GREETED}{IN_TRANSACTION}
            C: BDAT 1
            C| a
            S: 250 2.0.0 Ok: 1 octets received
            C: MAIL FROM:<>
            S: 503 5.5.1 MAIL was given already
            C: RCPT TO:<c@mx.example>
            S: 503 5.5.1 The message isn't complete: BDAT or RSET
            C: DATA
            S: 503 5.5.1 The message isn't complete: BDAT or RSET
            C: NOOP
            S: 250 2.0.0 Ok
            C: BDAT 1
            C| b
            S: 250 2.0.0 Ok: 1 octets received
            C: RSET
            = abandon
            S: 250 2.0.0 Ok
            C: BDAT 1 LAST
            C| c
            S: 503 5.5.1 MAIL and RCPT come first
            "
        ),
    );
}

#[test]
fn a_bdat_chunk_too_many_refuses_the_message_and_those_under_way() {
    let sixty = "x".repeat(60);
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT 60
        C| {sixty}
        C: BDAT 60
        C| {sixty}
        C: BDAT 60
        C| {sixty}
        C: BDAT 60 LAST
        C| {sixty}
        = refuse body TooLarge(100)
        S: 250 2.0.0 Ok: 60 octets received
        S: 552 5.3.4 Message exceeds the limit of 100 octets (ref 11)
        S: 503 5.5.1 The message was refused
        S: 503 5.5.1 The message was refused
        {IN_TRANSACTION}
        C: BDAT 1 LAST
        C| x
        = body x\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        "
    ));
}

#[test]
fn bare_line_ends_in_bdat_chunks_are_refused_in_red_and_mended_elsewhere() {
    let smuggled = "
        C: BDAT 12 LAST
        C| a\\n.\\nMAIL b\\r\\n
    ";
    check_greeted(&format!(
        "{IN_TRANSACTION}{smuggled}
        = body a\\r\\n.\\r\\nMAIL b\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        "
    ));
    check_with(
        Settings { unclean_data: UncleanData::Refuse, ..SETTINGS() },
        &format!(
            "{GREETED}{IN_TRANSACTION}{smuggled}
            = refuse body BareLineEnd
            S: 554 5.6.0 Message holds a bare CR or LF (ref 11)
            "
        ),
    );
}

#[test]
fn nul_in_bdat_chunks_is_refused_in_red_and_left_out_elsewhere() {
    // The first chunk holds nothing else.
    let smuggled = "
        C: BDAT 2
        C| \\0\\0
        S: 250 2.0.0 Ok: 2 octets received
        C: BDAT 9 LAST
        C| a\\r\\n.\\0\\r\\nb\\0
    ";
    check_greeted(&format!(
        "{IN_TRANSACTION}{smuggled}
        = body a\\r\\n.\\r\\nb\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        "
    ));
    check_with(
        Settings { unclean_data: UncleanData::Refuse, ..SETTINGS() },
        &format!(
            "{GREETED}{IN_TRANSACTION}{smuggled}
            = refuse body Nul
            S: 554 5.6.0 Message holds a NUL octet (ref 11)
            "
        ),
    );
}

#[test]
fn bdat_without_a_size_ends_the_session() {
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT LAST
        C: MAIL FROM:<smuggled@client.example>
        S: 501 5.5.2 Syntax: BDAT octets [LAST]
        = close BadChunk
        "
    ));
}

#[test]
fn an_unwanted_bdat_chunk_is_answered_when_it_has_come() {
    check_greeted(
        "
        C: BDAT 12
        --
        C| MAIL FROM:
        --
        C| <>
        S: 503 5.5.1 MAIL and RCPT come first
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<refused@mx.example>
        S: 250 2.1.0 Sender ok
        S: 554 5.7.1 Relay access denied (ref 11)
        C: BDAT 100
        + 59s
        C| x
        + 59s
        C| x
        + 60s
        S: 421 4.4.2 Timeout, closing the connection
        = close Timeout
        ",
    );
}

#[test]
fn after_helo_there_is_no_chunking() {
    check(
        "
        S: 220 mx.example ESMTP
        C: HELO client.example
        S: 250 mx.example greets client.example
        C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 Recipient ok
        C: BDAT 6 LAST
        S: 503 5.5.1 EHLO comes first
        = close BadChunk
        ",
    );
    check(
        "
        S: 220 mx.example ESMTP
        C: HELO client.example
        S: 250 mx.example greets client.example
        C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 Recipient ok
        C: BDAT 6 LAST
        C| text\\r\\n
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised
        ",
    );
}

#[test]
fn slow_and_endless_bdat_chunks() {
    let late = "
        S: 421 4.4.2 Timeout, closing the connection
        = close Timeout
    ";
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT 100
        C| a
        + 59s
        + 1s{late}"
    ));
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT 1
        C| a
        S: 250 2.0.0 Ok: 1 octets received
        + 299s
        + 1s{late}"
    ));
    // Six times the data timeout for the whole message, however steadily chunks come.
    let another = "
        C: BDAT 1
        C| a
        S: 250 2.0.0 Ok: 1 octets received
        + 59s
    ";
    check_greeted(&format!("{IN_TRANSACTION}{}+ 6s{late}", another.repeat(6)));
    let noop = "
        C: NOOP
        S: 250 2.0.0 Ok
    ";
    check_greeted(&format!("{IN_TRANSACTION}{}{noop}+ 6s{late}", another.repeat(6)));
    let empty = "
        C: BDAT 0
        S: 250 2.0.0 Ok: 0 octets received
    ";
    check_greeted(&format!(
        "{IN_TRANSACTION}{}
        C: BDAT 0
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
        ",
        empty.repeat(MAX_IDLE_COMMANDS as usize + 3)
    ));
    let nobodys = "
        C: BDAT 0
        S: 554 5.5.1 No valid recipients
    ";
    check_greeted(&format!(
        "
        C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 Sender ok
        {}
        C: BDAT 0
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
        ",
        nobodys.repeat(MAX_IDLE_COMMANDS as usize + 3)
    ));
}

#[test]
fn shutting_down_waits_for_the_last_bdat_chunk() {
    check_greeted(&format!(
        "{IN_TRANSACTION}
        C: BDAT 1
        C| a
        S: 250 2.0.0 Ok: 1 octets received
        ! shut down
        C: BDAT 1 LAST
        C| b
        = body ab\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        S: 421 4.3.2 mx.example is shutting down, try again later
        = close ShutDown
        "
    ));
}

#[test]
fn an_overlong_bdat_command_ends_the_session() {
    let overlong = format!("BDAT {}7", " ".repeat(3_000));
    check_greeted(&format!(
        "C: {overlong}
        S: 501 5.5.2 Syntax: BDAT octets [LAST]
        = close BadChunk"
    ));
}
