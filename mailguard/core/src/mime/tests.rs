//! The walk as a whole: each ambiguity of the module's table with what its readings yield, and the limits.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { max_depth: 8, max_entries: 1000, max_unpacked: 1024 * 1024, max_ratio: 250 };

/// Walks, and gives `name|name: content` of each part, line ends shown as '/'.
fn parts_within(message: &[u8], limits: Limits) -> (Vec<String>, Summary) {
    let mut parts = Vec::new();
    let mut octets = 0;
    let summary = walk(message, &Budget::new(limits, &|| false), &mut |part| {
        octets += if part.kind == PartKind::Content { part.content.len() as u64 } else { 0 };
        assert!(octets <= limits.max_unpacked);
        let content = String::from_utf8_lossy(part.content).replace("\r\n", "/");
        let kind = if part.kind == PartKind::Multipart { "[multipart]".to_owned() } else { content };
        let names = part.names.join("|");
        parts.push(if names.is_empty() { kind } else { format!("{names}: {kind}") });
        Ok(())
    });
    (parts, summary)
}

/// The message (one line a line) yields exactly these parts, and these notes.
#[track_caller]
fn check(message: &str, expect: &[&str], ambiguities: &[Ambiguity]) {
    let message = message.replace('\n', "\r\n");
    let (parts, summary) = parts_within(message.as_bytes(), LIMITS);
    let noted: Vec<Ambiguity> = summary.ambiguities.into_iter().collect();
    assert_eq!(
        (parts, noted.as_slice()),
        (expect.iter().map(|s| (*s).to_owned()).collect(), ambiguities),
        "{message}"
    );
    assert_eq!(summary.exceeded, None);
}

#[track_caller]
fn check_limit(message: &str, limits: Limits, expect: Option<Limit>) {
    let (_, summary) = parts_within(message.replace('\n', "\r\n").as_bytes(), limits);
    assert_eq!(summary.exceeded, expect);
}

#[test]
fn well_formed_messages_have_one_reading() {
    check("Subject: x\n\nhello\n", &["hello/"], &[]);
    check("Content-Transfer-Encoding: base64\n\nYWJj\n", &["abc"], &[]);
    check(
        "Content-Type: multipart/mixed; boundary=\"b\"\n\nThis is MIME.\n--b\n\ntext\n--b\n\
         Content-Type: application/x; name=\"a.exe\"\nContent-Transfer-Encoding: base64\n\nYWJj\n--b--\nbye\n",
        &["This is MIME.", "text", "a.exe: abc", "bye/"],
        &[],
    );
    check(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/alternative; boundary=i\n\n\
         --i\n\none\n--i\nContent-Transfer-Encoding: quoted-printable\n\nt=77o\n--i--\n\n--o\n\nthree\n--o--\n",
        &["one", "two", "three"],
        &[],
    );
    check(
        "Content-Type: message/rfc822\n\nContent-Disposition: attachment; filename=a.exe\n\nx",
        &["Content-Disposition: attachment; filename=a.exe//x", "a.exe: x"],
        &[],
    );
    check(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: y\nContent-Transfer-Encoding: base64\n\nYWJj\n--b--\n",
        &["Subject: y/Content-Transfer-Encoding: base64//YWJj", "abc"],
        &[],
    );
}

#[test]
fn two_boundaries() {
    let body = "\n--a\n\none\n--a--\n--b\n\ntwo\n--b--\n";
    let expect = ["one", "--b//two/--b--/", "--a//one/--a--", "two"];
    let both = [Ambiguity::Boundaries];
    check(&format!("Content-Type: multipart/mixed; boundary=a; boundary=b\n{body}"), &expect, &both);
    check(
        &format!(
            "Content-Type: multipart/mixed; boundary=a\nContent-Type: multipart/mixed; boundary=b\n{body}"
        ),
        &expect,
        &[Ambiguity::Boundaries, Ambiguity::Types],
    );
}

/// The encoded part of a multipart is found by the reader that takes this field value and these delimiters
/// for its own. What the body itself could be split by leads elsewhere.
#[track_caller]
fn check_boundary(declared: &str, boundary: &str) {
    let message = format!(
        "Content-Type: multipart/mixed; {declared}\n\n--first\n\n--{boundary}\n\
         Content-Transfer-Encoding: base64\n\nZm91bmQ=\n--{boundary}--\n\n--last--\n"
    );
    let (parts, summary) = parts_within(message.replace('\n', "\r\n").as_bytes(), LIMITS);
    assert!(parts.iter().any(|part| part == "found"), "{message} yields {parts:?}");
    assert_eq!(summary.exceeded, None, "{message}");
}

#[test]
fn a_boundary_in_every_spelling_that_readers_make_of_it() {
    let long = "b".repeat(80);
    for (declared, boundary) in [
        ("boundary=b", "b"),
        ("boundary=\"b\n c\"", "b c"),
        ("boundary=\"b\n\tc\"", "b\tc"),
        ("boundary=\"b\n c\"", "bc"),
        ("boundary=\"\"", ""),
        ("boundary=", ""),
        ("boundary=()b", "b"),
        ("boundary=(x(y))\"b\"", "b"),
        ("boundary(x)=b", "b"),
        ("boundary=b(x)", "b(x)"),
        ("boundary=\"b", "\"b"),
        ("boundary=\"b", "b"),
        ("boundary=b=c", "b"),
        ("boundary=b=c", "b=c"),
        ("boundary='b'", "b"),
        ("boundary='b'", "'b'"),
        ("boundary=b/c", "b"),
        ("boundary=\" b\"", "b"),
        ("boundary=\"b\u{b}c\"", "b"),
        ("boundary=\"b\0c\"", "bc"),
        ("boundary*=utf-8''%62", "b"),
        ("boundary*0=b; boundary*1=c", "bc"),
        ("boundary==?utf-8?q?b?=", "b"),
        ("boundary=x; boundary=b", "b"),
        ("x=\"y; boundary=b", "b"),
        ("BOUNDARY = \"b\"", "b"),
        (&format!("boundary={long}"), &long[..70]),
        (&format!("boundary={long}"), &long),
    ] {
        check_boundary(declared, boundary);
    }
}

#[test]
fn a_decoy_hides_no_other_reading() {
    for (parameters, usual, other) in [
        ("; boundary=\"b", "b", "\"b"),
        ("; boundary='b'", "'b'", "b"),
        ("; boundary=b=c", "b=c", "b"),
        ("; boundary=()b", "()b", "b"),
        ("; boundary=\"\"; boundary=b", "b", ""),
    ] {
        let part = |boundary: &str, text: &str| format!("--{boundary}\n\n{text}\n--{boundary}--\n");
        let message = format!(
            "Content-Type: multipart/mixed{parameters}\n\n{}{}",
            part(usual, "decoy"),
            part(other, "hidden")
        );
        let (parts, _) = parts_within(message.replace('\n', "\r\n").as_bytes(), LIMITS);
        for text in ["decoy", "hidden"] {
            assert!(parts.iter().any(|part| part == text), "{parameters:?} gives {parts:?}");
        }
    }
}

#[test]
fn more_names_than_are_read_are_a_limit() {
    let names = |count: usize| (0..count).map(|i| format!("; filename=\"x/{i}.txt\"")).collect::<String>();
    let message = |count| format!("Content-Disposition: attachment{}\n\nx", names(count));
    check_limit(&message(10), LIMITS, None);
    check_limit(&message(MAX_PARAMETERS), LIMITS, None);
    let one_more =
        format!("Content-Type: a{}\nContent-Disposition: x; filename=a.exe\n\nx", names(MAX_PARAMETERS));
    check_limit(&one_more, LIMITS, Some(Limit::Header));
    let long = |octets: usize| format!("Content-Type: a; name={}\n\nx", "n".repeat(octets));
    check_limit(&long(MAX_CONTENT_FIELD_OCTETS - 9), LIMITS, None);
    check_limit(&long(MAX_CONTENT_FIELD_OCTETS), LIMITS, Some(Limit::Header));
}

#[test]
fn a_header_that_a_delimiter_cuts_short_goes_on_for_some() {
    let message = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
                   Content-Type: multipart/mixed; boundary=i\n--b--\n\n--i\n\
                   Content-Transfer-Encoding: base64\n\nZm91bmQ=\n--i--\n";
    let (parts, summary) = parts_within(message.replace('\n', "\r\n").as_bytes(), LIMITS);
    assert!(parts.iter().any(|part| part == "found"), "{parts:?}");
    assert!(summary.ambiguities.contains(&Ambiguity::HeaderEnd));
}

#[test]
fn content_fields_that_only_some_readers_see() {
    for field in ["Content-Transfer-Encoding base64", "\u{FEFF}Content-Transfer-Encoding: base64"] {
        let (parts, _) = parts_within(format!("{field}\r\n\r\nZm91bmQ=").as_bytes(), LIMITS);
        assert!(parts.iter().any(|part| part == "found"), "{field} yields {parts:?}");
    }
}

#[test]
fn conflicting_fields() {
    check(
        "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--",
        &["x", "--b//x/--b--"],
        &[Ambiguity::Types],
    );
    check(
        "Content-Disposition: inline; filename=a.txt\nContent-Disposition: attachment; filename=a.exe\n\nx",
        &["a.txt|a.exe: x"],
        &[Ambiguity::Dispositions],
    );
    check(
        "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\nYWJj",
        &["YWJj", "abc"],
        &[Ambiguity::Encodings],
    );
    check(
        "Content-Transfer-Encoding: base-64\n\nYWI=",
        &["YWI=", "YWI", "ab"],
        &[Ambiguity::UnknownEncoding],
    );
}

#[test]
fn boundaries_that_are_missing_or_not_expected() {
    check(
        "Content-Type: multipart/mixed\n\n--b\n\none\n--b\n\ntwo\n--b--",
        &["one", "two"],
        &[Ambiguity::NoBoundary],
    );
    check("Content-Type: multipart/mixed; boundary=b\n\ntext", &["text"], &[]);
    check("Content-Type: text/plain; boundary=b\n\n--b\n\none\n--b--", &["one", "--b//one/--b--"], &[]);
}

#[test]
fn a_missing_close() {
    check("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none", &["one"], &[Ambiguity::NoClose]);
    // The inner part goes on past the outer delimiter for a reader that looks for the inner one only.
    check(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; boundary=i\n\n\
         --i\n\none\n--o\ntwo\n--i--\n--o--",
        &["one", "one/--o/two", "--o--", "two/--i--"],
        &[Ambiguity::NoClose],
    );
}

#[test]
fn loose_delimiters() {
    check(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--bc\n\ntwo\n--b--",
        &["one/--bc//two", "one", "two"],
        &[Ambiguity::LooseDelimiter],
    );
    check(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\r--b\r\rtwo\n--b--",
        &["one\r--b\r\rtwo", "one", "\rtwo", "two"],
        &[Ambiguity::LooseDelimiter, Ambiguity::HeaderEnd],
    );
}

#[test]
fn content_outside_the_delimiters() {
    let part = "Content-Disposition: attachment; filename=a.exe\nContent-Transfer-Encoding: base64\n\nYWJj";
    check(
        &format!("Content-Type: multipart/mixed; boundary=b\n\n{part}\n--b\n\none\n--b--\n"),
        &["a.exe: abc", "one"],
        &[Ambiguity::Preamble],
    );
    check(
        &format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n{part}"),
        &["one", "a.exe: abc"],
        &[Ambiguity::Epilogue],
    );
    check(
        &format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n--b\n{part}\n--b--\n"),
        &["one", "a.exe: abc"],
        &[],
    );
}

#[test]
fn the_end_of_a_header() {
    check(
        "Content-Transfer-Encoding: quoted-printable\nno colon=2E\n\na=62",
        &["ab", "no colon.//ab"],
        &[Ambiguity::HeaderEnd],
    );
}

#[test]
fn base64_that_readers_decode_differently() {
    let check = |body: &str, expect: &[&str], ambiguities: &[Ambiguity]| {
        check(&format!("Content-Transfer-Encoding: base64\n\n{body}"), expect, ambiguities);
    };
    check("YW!Jj", &["abc", "a"], &[Ambiguity::Base64Junk]);
    check("YWI=YWJj", &["ababc", "ab", "ab\u{18}X\u{fffd}"], &[Ambiguity::Base64Padding]);
}

#[test]
fn encoded_containers() {
    // --b CRLF CRLF one CRLF --b--
    let encoded = "LS1iDQoNCm9uZQ0KLS1iLS0=";
    check(
        &format!("Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n{encoded}"),
        &["--b//one/--b--", "one"],
        &[Ambiguity::EncodedContainer],
    );
    // Content-Disposition: x; name=a.exe CRLF CRLF abc
    let encoded = "Q29udGVudC1EaXNwb3NpdGlvbjogeDsgbmFtZT1hLmV4ZQ0KDQphYmM=";
    check(
        &format!("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{encoded}"),
        &["Content-Disposition: x; name=a.exe//abc", "a.exe: abc", encoded],
        &[Ambiguity::EncodedContainer],
    );
}

#[test]
fn files_inside_text_and_messages_under_a_name() {
    check(
        "\nhello\nbegin 644 a.exe\n#86)C\n`\nend\n",
        &["hello/begin 644 a.exe/#86)C/`/end/", "a.exe: abc"],
        &[],
    );
    check(
        "Content-Type: application/octet-stream; name=x.eml\n\nContent-Type: a; name=a.exe\n\nabc",
        &["x.eml: Content-Type: a; name=a.exe//abc", "a.exe: abc"],
        &[],
    );
    check(
        "Content-Type: multipart/mixed; boundary=b; name=a.exe\n\n--b\n\none\n--b--",
        &["one", "a.exe: [multipart]"],
        &[],
    );
}

fn nested_messages(depth: usize) -> String {
    "Content-Type: message/rfc822\n\n".repeat(depth) + "\nx"
}

fn nested_multiparts(depth: usize) -> String {
    (0..depth).map(|i| format!("Content-Type: multipart/mixed; boundary=\"b{i}.\"\n\n--b{i}.\n")).collect()
}

fn many_parts(count: usize) -> String {
    "Content-Type: multipart/mixed; boundary=b\n".to_owned() + &"\n--b\n\nx".repeat(count) + "\n--b--\n"
}

#[test]
fn limits() {
    check_limit(&nested_messages(8), LIMITS, None);
    check_limit(&nested_messages(9), LIMITS, Some(Limit::Depth));
    check_limit(&nested_multiparts(MAX_MULTIPART_NESTING), LIMITS, None);
    check_limit(&nested_multiparts(MAX_MULTIPART_NESTING + 1), LIMITS, Some(Limit::Depth));
    check_limit(&many_parts(9), Limits { max_entries: 10, ..LIMITS }, None);
    check_limit(&many_parts(10), Limits { max_entries: 10, ..LIMITS }, Some(Limit::Entries));
    check_limit("\n0123456789", Limits { max_unpacked: 10, ..LIMITS }, None);
    check_limit("\n0123456789a", Limits { max_unpacked: 10, ..LIMITS }, Some(Limit::Unpacked));
    check_limit(&"Content-Type: a\n".repeat(MAX_CONTENT_FIELDS), LIMITS, None);
    check_limit(&"Content-Type: a\n".repeat(MAX_CONTENT_FIELDS + 1), LIMITS, Some(Limit::Header));
    check_limit(
        &format!("Content-Type: a{}", ";a=b".repeat(MAX_PARAMETERS + 1)),
        LIMITS,
        Some(Limit::Header),
    );
    let boundaries: String = (0..=MAX_BOUNDARIES).map(|i| format!(";boundary=b{i}")).collect();
    check_limit(&format!("Content-Type: multipart/mixed{boundaries}"), LIMITS, Some(Limit::Header));
}

/// Every level declares all boundaries, closes none: each reading is as long as the message.
#[test]
fn ambiguity_without_end_is_cut_off() {
    let boundaries: String = (0..MAX_BOUNDARIES).map(|i| format!(";boundary=b{i}")).collect();
    let level = |i: usize| {
        format!(
            "--b{}\nContent-Type: multipart/mixed{boundaries}\n\n{}\n",
            i % MAX_BOUNDARIES,
            "filling ".repeat(200)
        )
    };
    let message =
        format!("Content-Type: multipart/mixed{boundaries}\n\n{}", (0..400).map(level).collect::<String>());
    let limits = Limits { max_entries: usize::MAX, max_unpacked: u64::MAX, ..LIMITS };
    let (_, summary) = parts_within(message.as_bytes(), limits);
    assert!(matches!(summary.exceeded, Some(Limit::Readings | Limit::Depth)), "{summary:?}");
}

#[test]
fn a_limit_that_the_visitor_meets_ends_the_walk() {
    let message = many_parts(5);
    let mut seen = 0;
    let summary = walk(message.as_bytes(), &Budget::new(LIMITS, &|| false), &mut |_| {
        seen += 1;
        if seen == 2 { Err(Limit::Ratio) } else { Ok(()) }
    });
    assert_eq!((seen, summary.exceeded), (2, Some(Limit::Ratio)));
}

#[test]
fn paths_of_parts() {
    let message = "Content-Type: multipart/mixed; boundary=b\n\n\
        --b\n\ntext\nbegin 644 u.txt\n#86)C\n`\nend\n\
        --b\nContent-Type: message/rfc822; name=outer.eml\n\n\
        Content-Type: message/rfc822\n\n\
        Content-Type: application/x; name=\"in/a.exe\"\n\nx\n--b--\n";
    let mut paths = Vec::new();
    walk(message.replace('\n', "\r\n").as_bytes(), &Budget::new(LIMITS, &|| false), &mut |part| {
        paths.push(format!("{}: {}", part.path.depth(), part.path));
        Ok(())
    });
    let expect = [
        "0: (unnamed)",
        "0: u.txt",
        "0: outer.eml",
        "1: outer.eml/(unnamed)",
        "2: outer.eml/(unnamed)/a.exe",
    ];
    assert_eq!(paths, expect);
}

#[test]
fn a_walk_ends_when_the_time_is_up() {
    let left = std::cell::Cell::new(5);
    let time_is_up = || left.replace(left.get() - 1) == 0;
    let mut seen = 0;
    let summary = walk(many_parts(9).as_bytes(), &Budget::new(LIMITS, &time_is_up), &mut |_| {
        seen += 1;
        Ok(())
    });
    assert_eq!((seen, summary.exceeded), (2, Some(Limit::Time)));
}

#[test]
fn who_is_shown_a_part_spends_from_the_same_budget() {
    let budget = Budget::new(Limits { max_entries: 5, ..LIMITS }, &|| false);
    let mut opened = 0;
    let summary = walk(many_parts(5).as_bytes(), &budget, &mut |_| {
        opened += 1;
        budget.spend_entry()
    });
    // The multipart, two parts, and what lies in each of these; then there is nothing left for the third
    // part.
    assert_eq!((summary.parts, opened, summary.exceeded), (3, 2, Some(Limit::Entries)));
}

#[test]
fn a_budget_that_is_spent_in_part_bounds_the_next_walk() {
    let budget = Budget::new(Limits { max_entries: 5, ..LIMITS }, &|| false);
    let parts = || {
        let summary = walk(many_parts(2).as_bytes(), &budget, &mut |_| Ok(()));
        (summary.parts, summary.exceeded)
    };
    assert_eq!([parts(), parts()], [(3, None), (2, Some(Limit::Entries))]);
}

/// Pieces that make structure likely where random octets would make none.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "Content-Type: ",
        "multipart/mixed",
        "message/rfc822",
        "; boundary=b",
        "; boundary=\"bc\"",
        "; name=",
        "Content-Disposition: attachment; filename",
        "*0*=utf-8''",
        "*1=",
        "Content-Transfer-Encoding: ",
        "base64",
        "quoted-printable",
        "x",
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        "--b",
        "--b--",
        "--bc",
        "\r\n--b\r\n",
        "=?utf-8?q?",
        "?=",
        "=",
        "%41",
        "begin 644 a\r\n",
        "#86)C\r\n",
        "YWJj",
        "\"",
        "\\",
        ";",
        ":",
        "(",
        ")",
        " ",
        "\t",
        "\0",
        ".eml",
    ]);
    prop_oneof![
        4 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    /// Whatever comes in: no panic, no more parts or octets than allowed, the same result each time.
    #[test]
    fn any_octets_are_walked_within_the_limits(fragments in prop::collection::vec(fragment(), 0..60)) {
        let message = fragments.concat();
        let limits = Limits { max_depth: 3, max_entries: 50, max_unpacked: 2000, ..LIMITS };
        let (parts, summary) = parts_within(&message, limits);
        prop_assert!(summary.parts <= limits.max_entries);
        prop_assert_eq!(parts_within(&message, limits), (parts, summary));
    }

    /// Any text survives a walk through each encoding, alone and inside a multipart.
    #[test]
    fn what_was_attached_is_found(text in "[ -<>-~]{1,60}") {
        let qp: String = text.bytes().map(|octet| format!("={octet:02X}")).collect();
        let part = format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{qp}");
        let message = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{part}\r\n--b--\r\n");
        for message in [part.as_str(), message.as_str()] {
            let (parts, _) = parts_within(message.as_bytes(), LIMITS);
            prop_assert!(parts.contains(&text), "{:?}", parts);
        }
    }
}
