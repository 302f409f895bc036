//! Which room of the program may use which: the arrows of ARCHITECTURE.md's "The rooms", as far as `crate::`
//! names them.
//!
//! A new room is a line of [`ARROWS`]; so is a new arrow, and whoever adds one says by it that the house is
//! meant so. Tests use what they need: modules for tests only are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the rooms are.
const HOUSE: &str = "mailguard/src";

/// What isn't a room: it only names them.
const DOORS: [&str; 2] = ["lib", "main"];

/// The one room that may use every other.
const WIRES: &str = "process";

/// Each room, and the others that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    // The way of a packet and of a message, downwards.
    ("datapath", &["intercept"]),
    ("names", &["datapath", "inheritance", "lookup"]),
    ("intercept", &[]),
    ("session", &["greylist", "lookup", "mail_log", "spool", "tls", "trace", "verification"]),
    ("tls", &[]),
    ("auth", &["lookup", "tls"]),
    ("lookup", &[]),
    ("bans", &["datapath", "store"]),
    ("greylist", &["store"]),
    ("verification", &["delivery"]),
    ("scan", &["spool"]),
    ("store", &[]),
    ("spool", &["store"]),
    ("quarantine", &["store"]),
    ("queue", &["lookup", "routing", "spool", "store"]),
    ("routing", &["lookup"]),
    // It implements the queue's `Deliver` and `Reached`.
    ("delivery", &["lookup", "queue", "routing", "spool", "tls"]),
    // It implements the queue's `AttemptObserver`, and hands on what it hears.
    ("trace", &["mail_log", "queue", "store"]),
    ("mail_log", &["trace"]),
    // What people ask and change.
    ("config", &[]),
    (
        "admin",
        &[
            "bans",
            "config",
            "datapath",
            "delivery",
            "quarantine",
            "queue",
            "routing",
            "session",
            "spool",
            "store",
            "trace",
        ],
    ),
    ("control", &["admin", "config"]),
    ("cli", &["admin", "config", "control", "datapath", "doctor", "lookup", "session", "store", "trace"]),
    ("doctor", &["admin", "config", "control", "datapath", "delivery", "intercept", "routing"]),
    // What every process does with its descriptors.
    ("inheritance", &[]),
];

/// Arrows that aren't in the table, and rooms that the table or the house doesn't have.
pub(super) fn faults(sources: &[(PathBuf, String)]) -> Vec<String> {
    faults_by(ARROWS, sources)
}

fn faults_by(arrows: &[(&str, &[&str])], sources: &[(PathBuf, String)]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = arrows.iter().copied().collect();
    let for_tests: BTreeSet<PathBuf> =
        sources.iter().flat_map(|(path, text)| modules_for_tests(path, text)).collect();
    let files: Vec<(&str, &Path, &str)> = sources
        .iter()
        .filter_map(|(path, text)| Some((room(path)?, path.as_path(), text.as_str())))
        .filter(|(room, ..)| !DOORS.contains(room))
        .collect();
    let rooms: BTreeSet<&str> = files.iter().map(|(room, ..)| *room).collect();
    let known = |room: &str| room == WIRES || allowed.contains_key(room);
    let mut faults: Vec<String> = rooms
        .iter()
        .filter(|room| !known(room))
        .map(|room| format!("{HOUSE}/{room} has no line in xtask/src/tidy/rooms.rs"))
        .collect();
    let gone = allowed.iter().flat_map(|(room, others)| others.iter().chain([room]));
    let gone: BTreeSet<&&str> = gone.filter(|room| !rooms.contains(**room)).collect();
    faults.extend(
        gone.into_iter().map(|room| format!("xtask/src/tidy/rooms.rs names {room}, which is no room")),
    );
    for (room, path, text) in files {
        if room == WIRES || for_tests.iter().any(|module| is_within(path, module)) {
            continue;
        }
        let allowed = allowed.get(room).copied().unwrap_or_default();
        let others = rooms_named(text, &rooms).into_iter().filter(|other| *other != room);
        faults.extend(others.filter(|other| !allowed.contains(other)).map(|other| {
            format!("{}: {room} may not use {other} (xtask/src/tidy/rooms.rs)", path.display())
        }));
    }
    faults
}

/// The room that a file belongs to.
fn room(path: &Path) -> Option<&str> {
    let first = path.strip_prefix(HOUSE).ok()?.components().next()?;
    let name = first.as_os_str().to_str()?;
    Some(name.strip_suffix(".rs").unwrap_or(name))
}

/// Modules that are declared for tests only, as paths without an extension.
fn modules_for_tests(path: &Path, text: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap_or_default();
    let folder = if ["mod", "lib", "main"].iter().any(|name| stem == *name) {
        path.parent().unwrap_or(Path::new("")).to_owned()
    } else {
        path.with_extension("")
    };
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]")
            && let Some(declared) = lines.next().and_then(|line| line.strip_suffix(';'))
            && let Some((_, name)) = declared.split_once("mod ")
        {
            found.push(folder.join(name));
        }
    }
    found
}

fn is_within(path: &Path, module: &Path) -> bool {
    path.with_extension("") == module || path.starts_with(module)
}

/// The rooms that stand behind `crate::` in what isn't a comment, up to the module of tests at the end.
fn rooms_named<'a>(text: &'a str, rooms: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    let mut named = BTreeSet::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let begins_tests = code.starts_with("#[cfg(test)]")
            && lines.peek().is_some_and(|next| next.contains("mod ") && next.ends_with('{'));
        if begins_tests {
            break;
        }
        if code.starts_with("//") {
            continue;
        }
        for rest in code.split("crate::").skip(1) {
            let group = rest.strip_prefix('{').map(|rest| rest.split('}').next().unwrap_or(rest));
            let names = group.map_or(vec![rest], |group| group.split(',').collect());
            let first = |name: &'a str| {
                name.trim_start().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()
            };
            named.extend(names.into_iter().filter_map(first).filter(|name| rooms.contains(name)));
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, &[&str])] = &[("session", &["spool"]), ("spool", &[])];

    fn check(files: &[(&str, &str)], expect: &[&str]) {
        let mut sources: Vec<(PathBuf, String)> =
            files.iter().map(|(path, text)| (Path::new(HOUSE).join(path), (*text).to_owned())).collect();
        for room in ["session/mod.rs", "spool.rs"] {
            sources.push((Path::new(HOUSE).join(room), String::new()));
        }
        assert_eq!(faults_by(TABLE, &sources), expect);
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_a_fault() {
        let upward = "mailguard/src/spool/body.rs: spool may not use session (xtask/src/tidy/rooms.rs)";
        check(&[("session/driver.rs", "use crate::spool::Body;\n")], &[]);
        check(&[("spool/body.rs", "use crate::session::Limits;\n")], &[upward]);
        check(&[("spool/body.rs", "fn a(b: &crate::session::Limits) {}\n")], &[upward]);
        check(&[("spool/body.rs", "use crate::{spool, session::Limits};\n")], &[upward]);
        check(&[("spool/body.rs", "// As crate::session does.\nuse crate::spool::a;\n")], &[]);
        check(&[("process/mail.rs", "use crate::session::serve;\n")], &[]);
    }

    #[test]
    fn tests_use_what_they_need() {
        check(&[("spool/a.rs", "#[cfg(test)]\nmod tests {\n    use crate::session::serve;\n}\n")], &[]);
        let declared = ("spool/mod.rs", "#[cfg(test)]\npub(crate) mod fixture;\n");
        check(&[declared, ("spool/fixture.rs", "use crate::session::serve;\n")], &[]);
        let within = ("spool/fixture/a.rs", "use crate::session::serve;\n");
        check(&[declared, within], &[]);
    }

    #[test]
    fn a_room_without_a_line_and_a_line_without_a_room_are_faults() {
        check(&[("web/mod.rs", "")], &["mailguard/src/web has no line in xtask/src/tidy/rooms.rs"]);
        let sources = [(Path::new(HOUSE).join("spool.rs"), String::new())];
        let expect = ["xtask/src/tidy/rooms.rs names session, which is no room"];
        assert_eq!(faults_by(TABLE, &sources), expect);
    }
}
