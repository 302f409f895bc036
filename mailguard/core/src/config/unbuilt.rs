//! The keys of the contract that nothing acts on yet. Each is accepted at its default, so that the contract file
//! loads as it stands; a protection among them that is on by default is reported as inactive.
//!
//! Building a feature moves its keys from here to `resolve`.

use super::section::Fixed::{Count, Flag, Number, Text, Texts, Time};
use super::section::{Fixed, Section};

/// Programs, media and documents whose doubled extensions are watched.
const DOUBLE_EXTENSIONS: &[&str] = &[
    "jpg", "png", "gif", "pdf", "txt", "doc", "docx", "xls", "xlsx", "exe", "com", "vbs", "pif", "scr",
    "bat", "cmd", "dll",
];

/// Keys of the root table and whole sections.
pub(super) fn root(root: &mut Section<'_>) {
    root.table("notifications", |section| {
        section.unbuilt(&[
            ("sender", Text("postmaster@mailguard.example.org")),
            ("notify_virus_recipients", Flag(false)),
            ("only_incoming_domains", Flag(true)),
            ("max_per_hour", Count(60)),
        ]);
    });
    root.table("admin", |section| {
        section.unbuilt(&[("password_file", Text("/etc/mailguard/admin.password"))]);
        let what = "there is no web page, REST API or /metrics yet";
        section.protection("listen", Text("127.0.0.1:8025"), Some(Text("")), true, what);
    });
}

/// Keys of `[spam]`.
pub(super) fn spam(spam: &mut Section<'_>) {
    let what = "no message is scored, marked or withheld as spam yet";
    let enabled = spam.protection("enabled", Flag(true), Some(Flag(false)), true, what);
    spam.unbuilt(&[
        ("handling", Text("quarantine")),
        ("redirect_to", Text("")),
        ("subject_prefix", Text("*** SPAM *** ")),
        ("admin", Text("")),
        ("notify_recipients", Flag(false)),
        ("tag_level", Number(3.0)),
        ("mark_level", Number(6.0)),
        ("quarantine_level", Number(15.0)),
        ("notify_below", Number(20.0)),
        ("report", Flag(false)),
        ("japanese", Flag(false)),
    ]);
    spam.table("builtin", |section| {
        let what = "there is no built-in spam engine yet";
        let builtin = section.protection("enabled", Flag(true), Some(Flag(false)), enabled, what);
        let what = "nothing learns from spam yet";
        section.protection("bayes", Flag(true), Some(Flag(false)), enabled && builtin, what);
    });
    engines(spam);
    spam.table("levels", |section| {
        section.unbuilt(&[
            ("confirmed", Number(9.0)),
            ("bulk", Number(7.0)),
            ("suspected", Number(4.0)),
            ("unknown", Number(2.0)),
            ("nonspam", Number(-1.0)),
        ]);
    });
    spam.table("lists", |section| {
        section.unbuilt(&[("whitelist_senders", Texts(&[])), ("blacklist_senders", Texts(&[]))]);
    });
}

/// The engines outside mailguard, all of them off by default.
fn engines(spam: &mut Section<'_>) {
    const OFF: (&str, Fixed) = ("enabled", Flag(false));
    spam.table("spamassassin", |section| {
        section.unbuilt(&[OFF, ("address", Text("127.0.0.1:783")), ("timeout", Time("30s"))]);
    });
    spam.table("rspamd", |section| {
        section.unbuilt(&[OFF, ("url", Text("http://127.0.0.1:11333")), ("timeout", Time("10s"))]);
    });
    spam.table("reputation", |section| {
        section.unbuilt(&[
            OFF,
            ("address", Text("127.0.0.1:8088")),
            ("timeout", Time("5s")),
            ("shortcircuit", Flag(true)),
            ("ignore_networks", Texts(&[])),
        ]);
        section.table("scores", |scores| {
            scores.unbuilt(&[
                ("confirmed", Number(10.0)),
                ("bulk", Number(8.0)),
                ("suspected", Number(5.0)),
                ("unknown", Number(0.0)),
                ("nonspam", Number(-2.0)),
            ]);
        });
    });
}

/// Keys of `[virus]`.
pub(super) fn virus(section: &mut Section<'_>) {
    section.unbuilt(&[("admin", Text(""))]);
    section.table("clamd", |clamd| {
        clamd.unbuilt(&[
            ("enabled", Flag(false)),
            ("address", Text("unix:/run/clamav/clamd.ctl")),
            ("timeout", Time("60s")),
        ]);
    });
}

/// Keys of `[files]`.
pub(super) fn files(section: &mut Section<'_>, enabled: bool) {
    section.unbuilt(&[
        ("admin", Text("")),
        ("notify_recipients", Flag(false)),
        ("encrypted_archives", Text("pass")),
        ("double_extensions_ending", Texts(DOUBLE_EXTENSIONS)),
    ]);
    let what = "archives are not opened yet: blocked types inside them pass, and so do archive bombs";
    section.protection("archives", Flag(true), Some(Flag(false)), enabled, what);
    let what = "double extensions are not looked for yet";
    section.protection("double_extensions", Flag(true), Some(Flag(false)), enabled, what);
}
