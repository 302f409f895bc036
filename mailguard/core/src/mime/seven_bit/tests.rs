//! Messages before and after, and what can be read of both.

use proptest::prelude::*;

use super::super::{Budget, Limits, PartKind, walk};
use super::*;

fn convert(message: &[u8], size: usize) -> Result<Vec<u8>, Impossible> {
    let mut survey = Survey::new();
    message.chunks(size).for_each(|piece| survey.push(piece));
    let mut conversion = Conversion::new(survey.finish()?);
    let mut out = Vec::new();
    message.chunks(size).for_each(|piece| conversion.push(piece, &mut out));
    conversion.finish(&mut out);
    Ok(out)
}

fn check(message: &str, expect: &str) {
    for size in [1, 7, 4096] {
        let converted = convert(message.replace('\n', "\r\n").as_bytes(), size).unwrap();
        let text = String::from_utf8(converted).unwrap().replace("\r\n", "\n");
        assert_eq!(text, expect, "in pieces of {size}");
    }
}

#[test]
fn without_8bitmime_text_becomes_quoted_printable() {
    check(
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: 8bit\n\nGrüße = 1 \nplain\n",
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe =3D 1=20\nplain\n",
    );
    check(
        "Subject: x\n\nü\n",
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n\
         Content-Transfer-Encoding: quoted-printable\n\n=C3=BC\n",
    );
}

#[test]
fn without_8bitmime_only_the_parts_that_need_it_change() {
    let multipart = |encoding: &str, first: &str, second: &str| {
        format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b b\"\n\
             Content-Transfer-Encoding: {encoding}\n\npreamble\n--b b\n{first}\n--b b\n{second}\n--b b--\nend\n"
        )
    };
    check(
        &multipart(
            "8bit",
            "Content-Type: text/plain\n\nplain = text",
            "Content-Type: application/x\nContent-Transfer-Encoding: binary\n\nä\nö",
        ),
        &multipart(
            "7bit",
            "Content-Type: text/plain\n\nplain = text",
            "Content-Type: application/x\nContent-Transfer-Encoding: base64\n\nw6QNCsO2",
        ),
    );
}

#[test]
fn a_message_within_is_looked_into() {
    check(
        "MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: y\n\
         MIME-Version: 1.0\nContent-Type: text/plain\n\nü\n",
        "MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nSubject: y\n\
         MIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC\n",
    );
    let digest = |within: &str| {
        format!(
            "MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=b\n\n--b\n\n{within}\n--b\n\n\
             Subject: z\n\nplain\n--b--\n"
        )
    };
    check(
        &digest("Subject: y\n\nü"),
        &digest(
            "Subject: y\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n\
             Content-Transfer-Encoding: quoted-printable\n\n=C3=BC",
        ),
    );
}

#[test]
fn many_messages_side_by_side_are_not_nested() {
    let part = "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nplain\r\n";
    let many = part.repeat(MAX_MESSAGE_NESTING + 10);
    let message = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{many}--b--\r\n");
    assert_eq!(convert(message.as_bytes(), 100).unwrap(), message.as_bytes());
}

#[test]
fn without_8bitmime_what_needs_nothing_stays_octet_for_octet() {
    for message in ["Subject: x\n\nplain\n", "Subject: x\n", "", "no header at all\n\n\n.\n"] {
        let message = message.replace('\n', "\r\n");
        let expect = if message.contains("\r\n\r\n") { message.clone() } else { format!("{message}\r\n") };
        assert_eq!(convert(message.as_bytes(), 5).unwrap(), expect.as_bytes(), "{message:?}");
    }
    check(
        "MIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC and ü=\n\n",
        "MIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n=C3=BC and =C3=BC=\n\n",
    );
}

#[test]
fn what_would_be_a_guess_is_not_done() {
    for (message, expect) in [
        ("Subject: ü\n\nx\n", Impossible::Header),
        ("Content-Type: multipart/mixed\n\nü\n", Impossible::Part),
        ("Content-Transfer-Encoding: base64\n\nü\n", Impossible::Part),
        ("Content-Type: message/partial\n\nü\n", Impossible::Part),
        ("Content-Transfer-Encoding: x-uuencode\n\nü\n", Impossible::Part),
        ("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nü\n", Impossible::Part),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b\nX-Y: ü\n\n\n--b--\n",
            Impossible::Header,
        ),
    ] {
        assert_eq!(convert(message.replace('\n', "\r\n").as_bytes(), 9), Err(expect), "{message}");
    }
    let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(MAX_MESSAGE_NESTING + 1);
    assert_eq!(convert(deep.as_bytes(), 100), Err(Impossible::TooMuch));
    let endless = format!("X-Y: {}\r\n", "y".repeat(100)).repeat(MAX_HEADER_OCTETS / 100);
    assert_eq!(convert(endless.as_bytes(), 1000), Err(Impossible::TooMuch));
}

/// Every part's content as the walk decodes it.
fn contents(message: &[u8]) -> Vec<Vec<u8>> {
    let limits = Limits { max_depth: 8, max_entries: 100, max_unpacked: 1 << 20, max_ratio: 250 };
    let mut found = Vec::new();
    walk(message, &Budget::new(limits, &|| false), &mut |part| {
        if part.kind == PartKind::Content {
            found.push(part.content.to_vec());
        }
        Ok(())
    });
    found
}

proptest! {
    #[test]
    fn it_is_7_bit_and_says_the_same(
        text in "([a-zü= .]{0,30}\r\n){0,8}",
        other in "([a-zü= .]{0,90}\r\n){0,8}",
        size in 1usize..64,
    ) {
        let message = format!(
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=bound\r\n\r\n--bound\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n--bound\r\n\
             Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{other}\r\n--bound--\r\n"
        );
        let converted = convert(message.as_bytes(), size).unwrap();
        prop_assert!(converted.is_ascii());
        prop_assert!(converted.split(|&octet| octet == b'\n').all(|line| line.len() <= 998));
        prop_assert_eq!(contents(&converted), contents(message.as_bytes()));
    }

    #[test]
    fn anything_ends(octets in proptest::collection::vec(any::<u8>(), 0..400), size in 1usize..32) {
        if let Ok(converted) = convert(&octets, size) {
            prop_assert!(converted.is_ascii());
        }
    }
}
