//! The keys of the contract that nothing acts on yet. Each is accepted at its default, so that the contract
//! file loads as it stands; a protection among them that is on by default is reported as inactive.
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
            ("sender", Text("")),
            ("only_incoming_domains", Flag(true)),
            ("max_per_hour", Count(60)),
        ]);
        let what = "recipients aren't told yet of a message that was quarantined for a virus";
        section.protection("notify_virus_recipients", Flag(true), Some(Flag(false)), true, what);
        let what =
            "nobody is written to yet when mailguard needs a hand: watch its log and `mailguard status`";
        section.protection("operator", Text(""), None, true, what);
    });
    root.table("admin", admin);
    if root.has("dkim") {
        root.ask("dkim");
        root.conflict("dkim", "[[dkim]] is not supported yet: no mail is signed", "remove it");
    }
}

fn admin(section: &mut Section<'_>) {
    if section.has("password_file") {
        section.ask("password_file");
        let what =
            "there is no such file any more: accounts with their passwords are kept in admin.state_dir";
        section.conflict("password_file", what, "remove the key");
    }
    let what = "there is no web page, REST API or /metrics yet";
    section.protection("listen", Text("127.0.0.1:8025"), Some(Text("")), true, what);
    section.unbuilt(&[
        ("state_dir", Text("/var/lib/mailguard-admin")),
        ("user", Text("mailguard-web")),
        ("tls_certificate", Text("")),
        ("tls_key", Text("")),
        ("public_url", Text("")),
        ("trusted_proxies", Texts(&[])),
        ("allow_from", Texts(&[])),
        ("session_idle", Time("30m")),
        ("session_lifetime", Time("12h")),
        ("require_totp", Flag(false)),
        ("metrics_from", Texts(&["127.0.0.1", "::1"])),
    ]);
}

/// `[quarantine.users]`, off by default.
pub(super) fn quarantine(section: &mut Section<'_>) {
    section.table("users", |users| {
        users.unbuilt(&[
            ("enabled", Flag(false)),
            ("login", Flag(true)),
            ("release", Text("spam")),
            ("lists", Flag(true)),
            ("digest", Text("daily")),
            ("digest_at", Text("07:00")),
            ("link_lifetime", Time("7d")),
        ]);
    });
}

/// Keys of `[server]`.
pub(super) fn server(section: &mut Section<'_>) {
    section.unbuilt(&[("max_recipients_per_hour", Count(0))]);
}

/// Keys of `[spam]`.
pub(super) fn spam(spam: &mut Section<'_>) {
    let what = "no message is scored, marked or quarantined as spam yet";
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
        section.unbuilt(&[("rules_dir", Text(""))]);
    });
    who_sent_it(spam, enabled);
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

/// What senders and links are asked about.
fn who_sent_it(spam: &mut Section<'_>, enabled: bool) {
    spam.table("authentication", |section| {
        let what = "SPF isn't looked at yet";
        section.protection("spf", Flag(true), Some(Flag(false)), enabled, what);
        let what = "DKIM signatures aren't verified yet";
        section.protection("dkim", Flag(true), Some(Flag(false)), enabled, what);
        let what = "what a domain asks for by DMARC isn't looked at yet";
        section.protection("dmarc", Text("score"), Some(Text("off")), enabled, what);
        section.unbuilt(&[("trusted_arc", Texts(&[]))]);
    });
    spam.table("links", |section| {
        section.unbuilt(&[("lists", Texts(&[])), ("timeout", Time("3s"))]);
    });
    spam.table("impersonation", |section| {
        let what = "senders that look like somebody known aren't told apart yet";
        let on = section.protection("enabled", Flag(true), Some(Flag(false)), enabled, what);
        let what = "domains that look like one of ours, or like a correspondent's, aren't told apart yet";
        section.protection("lookalikes", Flag(true), Some(Flag(false)), enabled && on, what);
        section.unbuilt(&[("protected", Texts(&[])), ("remember", Time("180d"))]);
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
            ("heuristics", Text("record")),
        ]);
    });
}

/// Keys of `[files]`.
pub(super) fn files(section: &mut Section<'_>, enabled: bool) {
    section.unbuilt(&[
        ("admin", Text("")),
        ("encrypted_archives", Text("pass")),
        ("unreadable_archives", Text("pass")),
        ("inconsistent_archives", Text("pass")),
        ("encrypted_documents", Text("pass")),
        ("macros", Text("pass")),
        ("external_content", Text("pass")),
        ("allow_senders", Texts(&[])),
        ("double_extensions_ending", Texts(DOUBLE_EXTENSIONS)),
    ]);
    let what = "archives are not opened yet: blocked types inside them pass, and so do archive bombs";
    let archives = section.protection("archives", Flag(true), Some(Flag(false)), enabled, what);
    let what = "no password is tried on encrypted archives yet";
    section.protection("archive_passwords", Flag(true), Some(Flag(false)), enabled && archives, what);
    let what = "double extensions are not looked for yet";
    section.protection("double_extensions", Flag(true), Some(Flag(false)), enabled, what);
    let what = "recipients aren't told yet of a message that was quarantined for a file";
    section.protection("notify_recipients", Flag(true), Some(Flag(false)), enabled, what);
}

/// Keys of `[files.limits]`.
pub(super) fn file_limits(limits: &mut Section<'_>, enabled: bool) {
    limits.unbuilt(&[("max_ratio", Count(250))]);
    let what = "the processor time that a message may take isn't limited yet";
    limits.protection("max_scan_time", Time("20s"), None, enabled, what);
}
