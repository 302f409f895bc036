//! Whole messages through all engines: what is found where, what a limit makes of it, and a third engine.

mod third_engine;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailguard_core::mime::Limits;

use crate::{BlockedFiles, Engines, PartEngine, SCAN_TIMEOUT, Signatures};

const LIMITS: Limits =
    Limits { max_depth: 2, max_entries: 100, max_unpacked: 16 * 1024 * 1024, max_ratio: 250 };

/// The EICAR test file, put together here so that no scanner takes this file for it.
pub(crate) fn eicar() -> String {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-", "TEST-FILE!$H+H*"].concat()
}

fn files() -> Box<dyn PartEngine> {
    Box::new(BlockedFiles::new(&["exe".to_owned(), "com".to_owned()]))
}

fn signatures() -> Box<dyn PartEngine> {
    Box::new(Signatures::compile(&[]).unwrap())
}

/// The findings as `check: opinion (reason)`.
fn findings(engines: &Engines, message: &str, has_taken: &dyn Fn(Duration) -> bool) -> Vec<String> {
    let findings = engines.scan(message.replace('\n', "\r\n").as_bytes(), has_taken);
    findings.iter().map(|f| format!("{}: {} ({})", f.check, f.opinion, f.reason)).collect()
}

#[track_caller]
fn check(engines: Vec<Box<dyn PartEngine>>, message: &str, expect: &[&str]) {
    assert_eq!(findings(&Engines::of(engines, LIMITS), message, &|_| false), expect);
}

#[test]
fn findings_of_whole_messages() {
    let both = || vec![files(), signatures()];
    check(
        both(),
        "Subject: x\n\nhello",
        &["files: pass (1 part, nothing found)", "signatures: pass (1 part, nothing found)"],
    );
    check(
        both(),
        &format!(
            "Content-Disposition: attachment; filename=a.exe\nContent-Transfer-Encoding: base64\n\n{}",
            STANDARD.encode(eicar())
        ),
        &[
            "files: found: blocked file a.exe (extension .exe of \"a.exe\")",
            "signatures: found: virus EICAR_Test_File (rule EICAR_Test_File matches \"a.exe\")",
        ],
    );
    check(
        both(),
        &format!("\n{}", eicar()),
        &[
            "files: pass (1 part, nothing found)",
            "signatures: found: virus EICAR_Test_File (rule EICAR_Test_File matches a part)",
        ],
    );
    check(
        both(),
        &format!("Subject: {}\n\nx", eicar()),
        &[
            "files: pass (1 part, nothing found)",
            "signatures: found: virus EICAR_Test_File (rule EICAR_Test_File matches the message)",
        ],
    );
    check(Vec::new(), "\nx", &[]);
}

#[test]
fn a_virus_is_found_wherever_it_stands() {
    let (plain, encoded) = (eicar(), STANDARD.encode(eicar()));
    let qp = plain.replace('=', "=3D").replace('E', "=45");
    let engines = Engines::of(vec![signatures()], LIMITS);
    for message in [
        format!("Subject: {plain}\n\n"),
        format!("\n{plain}"),
        format!("Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n{encoded}"),
        format!("Content-Transfer-Encoding: quoted-printable\n\n{qp}"),
        format!("Content-Transfer-Encoding: x-unknown\n\n{encoded}"),
        format!(
            "Content-Type: multipart/mixed; boundary=a; boundary=b\n\n--b\nContent-Transfer-Encoding: base64\n\n{encoded}\n--b--"
        ),
        format!("Content-Type: message/rfc822\n\nContent-Transfer-Encoding: base64\n\n{encoded}"),
        format!(
            "Content-Type: multipart/mixed; boundary=a\n\n--a--\nContent-Transfer-Encoding: base64\n\n{encoded}"
        ),
    ] {
        let seen = findings(&engines, &message, &|_| false);
        assert_eq!(seen.len(), 1, "{message}");
        assert!(seen[0].starts_with("signatures: found: virus EICAR_Test_File"), "{message}: {seen:?}");
    }
}

/// Nested one deeper than allowed; what lies there isn't looked at.
fn too_deep() -> String {
    "Content-Type: message/rfc822\n\n".repeat(LIMITS.max_depth + 1) + "Content-Type: a; name=a.exe\n\nx"
}

#[test]
fn beyond_the_limits_the_file_check_blocks() {
    check(
        vec![files(), signatures()],
        &too_deep(),
        &[
            "files: found: blocked file (beyond the limits) (handled as blocked: nested deeper than files.limits.max_depth)",
            "signatures: pass (3 parts, nothing found)",
        ],
    );
}

#[test]
fn beyond_the_limits_a_virus_scan_alone_is_not_complete() {
    check(
        vec![signatures()],
        &too_deep(),
        &["signatures: unavailable: not scanned to its end: nested deeper than files.limits.max_depth \
           (not scanned to its end: nested deeper than files.limits.max_depth)"],
    );
}

/// A file that is blocked and a virus, and another part behind it.
fn two_parts() -> String {
    format!(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: a; name=a.exe\n\n{}\n--b\n\nx\n--b--",
        eicar()
    )
}

#[test]
fn a_message_that_takes_too_long_is_neither_passed_nor_blocked() {
    let late = |seconds| {
        let cause = format!("the message took longer than {seconds} s");
        format!("unavailable: {cause} ({cause})")
    };
    let both = [format!("files: {}", late(120)), format!("signatures: {}", late(60))];
    let engines = Engines::of(vec![files(), signatures()], LIMITS);
    assert_eq!(findings(&engines, "\nx", &|_| true), both);
    // What was found before stands.
    let asked = std::cell::Cell::new(0);
    let after_the_first_part = |_| {
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    assert_eq!(
        findings(&engines, &two_parts(), &after_the_first_part),
        [
            "files: found: blocked file a.exe (extension .exe of \"a.exe\")",
            &both[0],
            "signatures: found: virus EICAR_Test_File (rule EICAR_Test_File matches \"a.exe\")",
            &both[1],
        ]
    );
}

/// `virus.on_scanner_failure` speaks of virus scanners: where it says "pass", rules that are slow hold up no
/// mail.
#[test]
fn slow_rules_leave_the_file_check_its_time() {
    let late =
        "signatures: unavailable: the message took longer than 60 s (the message took longer than 60 s)";
    let engines = Engines::of(vec![files(), signatures()], LIMITS);
    assert_eq!(
        findings(&engines, &two_parts(), &|time| time <= SCAN_TIMEOUT),
        ["files: found: blocked file a.exe (extension .exe of \"a.exe\")", late]
    );
    assert_eq!(
        findings(&engines, "\nx", &|time| time <= SCAN_TIMEOUT),
        ["files: pass (1 part, nothing found)", late]
    );
}

#[test]
fn a_third_engine_is_one_file_and_one_line() {
    let engines = || -> Vec<Box<dyn PartEngine>> {
        vec![
            files(),
            signatures(),
            Box::new(third_engine::Forwarded), // the line
        ]
    };
    check(
        engines(),
        "Content-Type: message/rfc822; name=fwd.eml\n\nContent-Type: a; name=a.txt\nContent-Type: b\n\nx",
        &[
            "files: pass (2 parts, nothing found; read in each way: two content types)",
            "signatures: pass (2 parts, nothing found; read in each way: two content types)",
            "files: score: 1.50 (fwd.eml/a.txt)",
            "files: score: 0.25 (readers differ)",
        ],
    );
    check(
        engines(),
        "\nx",
        &[
            "files: pass (1 part, nothing found)",
            "signatures: pass (1 part, nothing found)",
            "files: pass (nothing forwarded)",
        ],
    );
    // What it counts as when a message isn't seen to its end is its family's, without a word of it here.
    let blocked = "files: found: blocked file (beyond the limits) (handled as blocked: nested deeper than files.limits.max_depth)";
    check(engines(), &too_deep(), &[blocked, "signatures: pass (3 parts, nothing found)", blocked]);
}
