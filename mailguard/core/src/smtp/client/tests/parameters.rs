//! What of the envelope's parameters goes to a server that understands it (RFC 3461 §5.2, RFC 6531 §3.4).

use super::*;

#[test]
fn a_header_in_utf8_goes_where_smtputf8_is_offered() {
    check_open(
        "! begin a@b.test c@d.test utf8 utf8-header
        = Settled: failed 5.6.7
        ! begin a@b.test c@d.test utf8
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: DATA",
    );
    check(
        "S: 220 mx
        C: EHLO guard.test
        S: 250-mx
        S: 250 SMTPUTF8
        = ready
        ! begin a@b.test c@d.test utf8 utf8-header
        C: MAIL FROM:<a@b.test> SMTPUTF8",
    );
}

/// A server behind this one may not offer it.
#[test]
fn what_needs_no_smtputf8_is_not_made_to_need_it() {
    check(
        "S: 220 mx
        C: EHLO guard.test
        S: 250-mx
        S: 250-PIPELINING
        S: 250 SMTPUTF8
        = ready
        ! begin a@bücher.test c@bücher.test
        C: MAIL FROM:<a@xn--bcher-kva.test>
        C: RCPT TO:<c@xn--bcher-kva.test>
        C: DATA",
    );
}

#[test]
fn dsn_parameters_are_passed_on_where_dsn_is_offered() {
    check_open(
        "! begin a@b.test c@d.test hdrs envid=x never orcpt=rfc822;c@d.test
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: DATA",
    );
    check_open(
        "! begin a@b.test c@d.test success
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        = content
        ! sent
        S: 250 2.6.0 queued
        = Settled: relayed 2.6.0",
    );
    let understood = "S: 220 mx
        C: EHLO guard.test
        S: 250-mx
        S: 250-PIPELINING
        S: 250 DSN
        = ready
        ";
    check(&format!(
        "{understood}! begin a@b.test c@d.test hdrs envid=x never orcpt=rfc822;c@d.test
        C: MAIL FROM:<a@b.test> RET=HDRS ENVID=x
        C: RCPT TO:<c@d.test> NOTIFY=NEVER ORCPT=rfc822;c@d.test
        C: DATA"
    ));
    check(&format!(
        "{understood}! begin a@b.test c@d.test success orcpt=utf-8;ü@d.test
        C: MAIL FROM:<a@b.test>
        C: RCPT TO:<c@d.test> NOTIFY=SUCCESS,DELAY
        C: DATA"
    ));
}

#[test]
fn a_probe_asks_whether_a_server_would_take_a_recipient() {
    // What it is asked about is forgotten before the next message.
    check_open(
        "! begin - c@d.test ask
        C: MAIL FROM:<>
        C: RCPT TO:<c@d.test>
        S: 250 ok
        S: 250 2.1.5 fine
        = Settled: delivered 2.1.5
        ! begin a@b.test c@d.test
        C: RSET
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: DATA",
    );
    // Its word about us is none about the recipient.
    for (replies, outcome) in [
        ("250 ok\nS: 550 5.1.1 nobody", "failed 5.1.1"),
        ("250 ok\nS: 450 4.2.0 later", "deferred 4.2.0"),
        ("554 5.7.1 not you\nS: 503 5.5.1 MAIL first", "deferred 5.7.1"),
        ("451 4.3.0 later\nS: 503 5.5.1 MAIL first", "deferred 4.3.0"),
    ] {
        check_open(&format!(
            "! begin - c@d.test ask
            C: MAIL FROM:<>
            C: RCPT TO:<c@d.test>
            S: {replies}
            = Settled: {outcome}"
        ));
    }
    check(
        "S: 220 mx
        C: EHLO guard.test
        S: 250 mx
        = ready
        ! begin - c@d.test ask
        C: MAIL FROM:<>
        S: 250 ok
        C: RCPT TO:<c@d.test>
        S: 250 ok
        = Settled: delivered 2.0.0",
    );
}
