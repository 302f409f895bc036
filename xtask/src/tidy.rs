//! What the compiler doesn't check: the documents tell the truth about the tree, and files stay readable.

mod crates;
mod rooms;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{read, repository};

/// Lines beyond which a source file needs a line `//! Long because: …`.
const MAX_FILE_LINES: usize = 600;

/// Columns beyond which a comment is wrapped: rustfmt, whose width this is, wraps none.
const MAX_COMMENT_COLUMNS: usize = 110;

/// Every feature of the product, by id. `docs/features.md` has a row for each.
const FEATURES: &[(char, u8)] = &[('Z', 15), ('S', 14), ('C', 18), ('R', 10), ('Q', 12), ('O', 4)];

/// The table of the RFCs' rules and their tests.
const RULES: &str = "docs/rfc.md";

/// Marks of unfinished work that nothing in the tree carries.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"];

/// Runs every check and reports all that is wrong at once.
pub(crate) fn run() -> Result<()> {
    let root = repository();
    let files = tracked()?;
    let sources: Vec<(PathBuf, String)> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| fs::read_to_string(root.join(path)).ok().map(|text| (path.clone(), text)))
        .collect();
    let mut faults = Vec::new();
    faults.extend(sources.iter().filter_map(|(path, text)| source_faults(path, text)));
    faults.extend(sources.iter().filter_map(|(path, text)| crate_fault(path, text)));
    let defined = Defined::by(sources.iter().map(|(_, text)| text.as_str()));
    for document in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(root.join(document)).with_context(|| document.display().to_string())?;
        faults.extend(document_faults(&root, document, &text, &defined));
    }
    faults.extend(sources.iter().flat_map(|(path, text)| wide_comments(path, text)));
    faults.extend(rooms::faults(&sources));
    let tests: BTreeSet<&str> = sources.iter().flat_map(|(_, text)| test_names(text)).collect();
    faults.extend(feature_faults(&root, &tests)?);
    let rules = fs::read_to_string(root.join(RULES)).context(RULES)?;
    faults.extend(rule_faults(&root, &rules, &tests));
    faults.extend(crates::faults(&fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock")?));
    if faults.is_empty() {
        println!("tidy: {} files, nothing found", files.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    bail!("{} faults", faults.len())
}

fn tracked() -> Result<Vec<PathBuf>> {
    let listing = read("git", &["ls-files"])?;
    Ok(listing.lines().map(PathBuf::from).collect())
}

fn source_faults(path: &Path, text: &str) -> Option<String> {
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES && !text.contains("//! Long because:") {
        return Some(format!("{}: {lines} lines, {MAX_FILE_LINES} are the limit", path.display()));
    }
    let has_header = text.trim_start().starts_with("//!");
    if !has_header {
        return Some(format!("{}: no //! that says what the file is for", path.display()));
    }
    if path.ends_with("xtask/src/tidy.rs") {
        return None;
    }
    UNFINISHED
        .iter()
        .find(|mark| text.contains(**mark))
        .map(|mark| format!("{}: holds {mark}", path.display()))
}

/// Comments that are too wide, but for rows of tables and what can't be wrapped.
fn wide_comments(path: &Path, text: &str) -> Vec<String> {
    let is_wide = |line: &str| {
        let comment = line.trim_start();
        let said = comment.trim_start_matches(['/', '!']).trim();
        comment.starts_with("//")
            && line.chars().count() > MAX_COMMENT_COLUMNS
            && !said.starts_with('|')
            && said.contains(' ')
    };
    let wide = text.lines().enumerate().filter(|(_, line)| is_wide(line));
    wide.map(|(at, _)| {
        format!("{}:{}: a comment of more than {MAX_COMMENT_COLUMNS} columns", path.display(), at + 1)
    })
    .collect()
}

/// Crates that only one room of the program may name: the others know what it makes of them.
const CRATES_OF_ROOMS: &[(&str, &[&str])] = &[
    ("mailguard/src/store", &["redb"]),
    ("mailguard/src/datapath", &["aya", "aya_obj", "rtnetlink", "netlink_packet_route"]),
];

/// A crate that is named outside its room.
fn crate_fault(path: &Path, text: &str) -> Option<String> {
    if !path.starts_with("mailguard/src") {
        return None;
    }
    let others = CRATES_OF_ROOMS.iter().filter(|(room, _)| !path.starts_with(room));
    let mut named = others.flat_map(|(room, crates)| crates.iter().map(move |name| (room, name)));
    let (room, name) = named.find(|(_, name)| names_crate(text, name))?;
    Some(format!("{}: names the crate {name}, which stands in {room} only", path.display()))
}

/// Whether a path of this crate stands in a source.
fn names_crate(text: &str, name: &str) -> bool {
    text.match_indices(&format!("{name}::"))
        .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        || text.contains(&format!("use {name};"))
}

/// Links within the repository lead somewhere. In documents that tell how things are today, paths, functions
/// and types exist, too: not in decisions and changes, which tell how things were.
fn document_faults(root: &Path, document: &Path, text: &str, defined: &Defined<'_>) -> Vec<String> {
    let folder = root.join(document.parent().unwrap_or(Path::new("")));
    let links = links(text).filter(|link| !folder.join(link).exists());
    let mut faults: Vec<String> = links.map(|link| format!("the link to {link} leads nowhere")).collect();
    if is_of_today(document) {
        let paths = backquoted(text).filter(|name| is_path(name) && !root.join(name).exists());
        faults.extend(paths.map(|name| format!("{name} doesn't exist")));
        let functions = backquoted(text).filter_map(called).filter(|name| !defined.functions.contains(name));
        faults.extend(functions.map(|name| format!("no function is called {name}")));
        let types = backquoted(text).flat_map(types_within).filter(|name| !defined.types.contains(name));
        faults.extend(types.map(|name| format!("no type is called {name}")));
    }
    faults.into_iter().map(|fault| format!("{}: {fault}", document.display())).collect()
}

fn is_of_today(document: &Path) -> bool {
    let folder = document.parent().unwrap_or(Path::new(""));
    (folder == Path::new("") || folder == Path::new("docs")) && document != Path::new("CHANGELOG.md")
}

/// What stands in backquotes is a path if it holds a slash or ends in a known extension. What a build makes
/// isn't looked for.
fn is_path(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let rooted = name.starts_with('/')
        || name.starts_with('.') && !name.starts_with(".ci") && !name.starts_with(".cargo");
    let is_made = name.starts_with("target/");
    plain
        && !rooted
        && !is_made
        && (name.contains('/') || [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end)))
}

/// What the sources define.
struct Defined<'a> {
    functions: BTreeSet<&'a str>,
    types: BTreeSet<&'a str>,
}

impl<'a> Defined<'a> {
    fn by(sources: impl Iterator<Item = &'a str> + Clone) -> Self {
        let named = |keywords: &'static [&'static str]| {
            sources
                .clone()
                .flat_map(move |text| keywords.iter().flat_map(move |keyword| names(text, keyword)))
                .collect()
        };
        Self { functions: named(&["fn "]), types: named(&["struct ", "enum ", "trait ", "type "]) }
    }
}

/// What stands behind a keyword, up to what can't belong to a name.
fn names<'a>(text: &'a str, keyword: &str) -> impl Iterator<Item = &'a str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(keyword)
        .skip(1)
        .filter_map(move |rest| rest.split(ends).next())
        .filter(|name| !name.is_empty())
}

/// The function of `module::function()`.
fn called(name: &str) -> Option<&str> {
    name.strip_suffix("()")?.rsplit("::").next().filter(|function| is_identifier(function))
}

/// The types of a path such as `Type::Variant` or `module::Type::function()`.
fn types_within(name: &str) -> impl Iterator<Item = &str> {
    let parents = name.rsplit("::").skip(1);
    parents.filter(|name| is_identifier(name) && name.starts_with(|c: char| c.is_ascii_uppercase()))
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Where Markdown's links lead within the repository, as they stand: from the document's folder, without the
/// place in a file.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://"))
        .filter_map(|target| target.split('#').next())
        .filter(|path| !path.is_empty())
}

fn backquoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

struct Row<'a> {
    id: &'a str,
    state: &'a str,
    files: &'a str,
    tests: &'a str,
}

fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let row = Row { id: cells.next()?, state: cells.next()?, files: cells.next()?, tests: cells.next()? };
        row.id.chars().next().is_some_and(|c| c.is_ascii_uppercase() && row.id.len() <= 3).then_some(row)
    })
}

fn feature_faults(root: &Path, tests: &BTreeSet<&str>) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join("docs/features.md")).context("docs/features.md")?;
    let mut missing: BTreeSet<String> =
        FEATURES.iter().flat_map(|&(letter, last)| (1..=last).map(move |n| format!("{letter}{n}"))).collect();
    let mut faults = Vec::new();
    for row in rows(&text) {
        missing.remove(row.id);
        let mut fault = |what: String| faults.push(format!("docs/features.md: {}: {what}", row.id));
        match row.state {
            "planned" => continue,
            "partial" | "done" => {}
            other => fault(format!("\"{other}\" is none of planned, partial, done")),
        }
        for file in backquoted(row.files).filter(|file| !root.join(file).exists()) {
            fault(format!("{file} doesn't exist"));
        }
        if backquoted(row.tests).next().is_none() {
            fault("names no test".to_owned());
        }
        for test in backquoted(row.tests).filter(|test| !tests.contains(test)) {
            fault(format!("no test is called {test}"));
        }
    }
    faults.extend(missing.into_iter().map(|id| format!("docs/features.md: no row for {id}")));
    Ok(faults)
}

/// Each row of the RFCs' rules names a test, all that it names exist, and so do the modules that are said to
/// hold them.
fn rule_faults(root: &Path, text: &str, tests: &BTreeSet<&str>) -> Vec<String> {
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let rows = rows.filter(|line| !line.starts_with("| section |"));
    let mut faults = Vec::new();
    for row in rows {
        let rule = row.split('|').nth(2).unwrap_or_default().trim();
        let last = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
        let (modules, named): (Vec<&str>, Vec<&str>) =
            backquoted(last).partition(|name| !tests.contains(name) && is_module(root, name));
        if named.is_empty() {
            faults.push(format!("{RULES}: \"{rule}\" names no test, {} modules", modules.len()));
        }
        let missing = named.iter().filter(|test| !tests.contains(**test));
        faults.extend(missing.map(|test| format!("{RULES}: \"{rule}\": no test or module is called {test}")));
    }
    faults
}

/// Whether a name of the rules' table, such as `core::smtp::line` or `session`, is a module's.
fn is_module(root: &Path, name: &str) -> bool {
    let (folder, rest) = match name.split_once("::").unwrap_or((name, "")) {
        ("core", rest) => ("mailguard/core/src", rest),
        ("scan", rest) if !rest.is_empty() => ("mailguard/scan/src", rest),
        _ => ("mailguard/src", name),
    };
    let path = root.join(folder).join(rest.replace("::", "/"));
    !rest.is_empty() && (path.is_dir() || path.with_extension("rs").is_file())
}

/// Names of the functions that follow a test attribute, or that stand in a `proptest!` block with one.
fn test_names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut armed = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            armed = true;
        } else if armed && let Some(rest) = line.trim_start_matches("async ").strip_prefix("fn ") {
            names.extend(rest.split(['(', '<']).next());
            armed = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_no_wider_than_code() {
        let words = "word ".repeat(30);
        let link = format!("/// <https://example.org/{}>", "x".repeat(120));
        for (line, faults) in [
            (format!("    /// {words}"), 1),
            (format!("// {words}"), 1),
            (format!("//! | {words}|"), 0),
            (link, 0),
            (format!("let text = \"{words}\";"), 0),
            ("/// Short.".to_owned(), 0),
        ] {
            assert_eq!(wide_comments(Path::new("a.rs"), &line).len(), faults, "{line}");
        }
    }

    #[test]
    fn test_functions_are_found() {
        let text = "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test(flavor = \"x\")]\nasync fn c() {}\n";
        assert_eq!(test_names(text), ["a", "c"]);
    }

    #[test]
    fn a_crate_is_named_in_its_room_only() {
        let fault = |path: &str, text: &str| crate_fault(Path::new(path), text);
        for (path, text, is_fault) in [
            ("mailguard/src/store/spool/ops.rs", "use redb::Database;", false),
            ("mailguard/src/queue/runner.rs", "Err(redb::Error::Corrupted(cause))", true),
            ("mailguard/src/queue/runner.rs", "let path = \"spool.redb\"; our_redb::open()", false),
            ("mailguard/src/bans/mod.rs", "use aya::maps::HashMap;", true),
            ("mailguard/src/bans/mod.rs", "use redb;", true),
            ("mailguard/src/datapath/links.rs", "aya::Ebpf, rtnetlink::Handle", false),
            ("mailguard/src/datapath/links.rs", "redb::Database", true),
            ("tests/tests/processes.rs", "redb::Database::create(path)", false),
        ] {
            assert_eq!(fault(path, text).is_some(), is_fault, "{path}: {text}");
        }
    }

    #[test]
    fn what_the_tree_must_hold_is_told_from_other_words() {
        for (name, is) in [
            ("mailguard/src/main.rs", true),
            ("README.md", true),
            ("target/dist/mailguard", false),
            ("/etc/mailguard", false),
            ("cargo xtask tidy", false),
        ] {
            assert_eq!(is_path(name), is, "{name}");
        }
    }

    #[test]
    fn links_within_the_repository_are_found() {
        let text = "[a](docs/a.md), [b](https://b.example/x), [c](#c) and\n[d](../d.md#e)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md", "../d.md"]);
    }

    #[test]
    fn a_document_names_what_exists() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        fs::write(folder.path().join("docs/a.md"), "").unwrap();
        let defined = Defined::by(["enum Part {}\nfn walk("].into_iter());
        let faults =
            |document: &str, text: &str| document_faults(folder.path(), Path::new(document), text, &defined);
        let right = "[a](a.md) `docs/a.md` `mime::walk()` `Part::File` `target/b` `/etc/c` `a b/c` `()`";
        assert_eq!(faults("docs/b.md", right), Vec::<String>::new());
        let wrong = "[a](docs/a.md) `docs/b.md` `mime::run()` `Piece::walk()`";
        let expect = [
            "the link to docs/a.md leads nowhere",
            "docs/b.md doesn't exist",
            "no function is called run",
            "no type is called Piece",
        ];
        assert_eq!(faults("docs/b.md", wrong), expect.map(|fault| format!("docs/b.md: {fault}")));
        // Decisions and changes tell of what was.
        for document in ["docs/adr/1.md", "CHANGELOG.md"] {
            assert_eq!(faults(document, "`docs/b.md` `run()`"), Vec::<String>::new());
        }
    }

    #[test]
    fn what_sources_define_is_found_wherever_it_stands() {
        let text =
            "pub(super) async fn b<T>(\n    const fn a(\npub struct C<'a>;\n#[x] enum D {\ntrait E: F {";
        let defined = Defined::by([text].into_iter());
        assert_eq!(defined.functions, BTreeSet::from(["a", "b"]));
        assert_eq!(defined.types, BTreeSet::from(["C", "D", "E"]));
    }

    #[test]
    fn a_rule_names_tests_that_exist() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("mailguard/core/src/smtp")).unwrap();
        let tests = BTreeSet::from(["kept"]);
        let faults = |cell: &str| {
            let table = format!("| section | rule | test |\n|---|---|---|\n| 4.1 | A rule | {cell} |\n");
            rule_faults(folder.path(), &table, &tests)
        };
        assert_eq!(faults("`core::smtp` `kept`"), Vec::<String>::new());
        let gone = "docs/rfc.md: \"A rule\": no test or module is called";
        assert_eq!(faults("`core::smtp` `kept`, `broken`"), [format!("{gone} broken")]);
        assert_eq!(faults("`core::imap` `kept`"), [format!("{gone} core::imap")]);
        assert_eq!(faults("`core::smtp`"), ["docs/rfc.md: \"A rule\" names no test, 1 modules"]);
    }

    #[test]
    fn only_feature_rows_are_read() {
        let text = "| id | state | files | tests |\n|---|---|---|---|\n| Z1 | done | `a.rs` | `t` |\n";
        let ids: Vec<&str> = rows(text).map(|row| row.id).collect();
        assert_eq!(ids, ["Z1"]);
    }
}
