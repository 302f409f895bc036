//! The copyright file of the package (Debian policy 12.5): our own licences, and the notices of every library
//! that is linked in, as they stand in the library's source; most ask for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{output_of, repository};

/// How files begin that hold a notice.
const NOTICES: [&str; 5] = ["license", "licence", "copying", "copyright", "notice"];
/// Longest notice that is taken over, octets.
const MAX_NOTICE_OCTETS: usize = 100_000;

/// The file's text.
pub(super) fn text() -> Result<String> {
    let mut text = "mailguard is licensed under MIT or Apache-2.0, as you like.\n".to_owned();
    for own in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let licence = fs::read_to_string(repository().join(own)).with_context(|| own.to_owned())?;
        let _ = write!(text, "\n{licence}");
    }
    text.push_str("\nIt holds the following libraries, each under the licence that is named.\n");
    // Most of them have the same words.
    let mut notices: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    text.push_str("\nThe standard library of Rust: MIT OR Apache-2.0\n");
    for library in libraries()? {
        let _ = writeln!(text, "\n{} {}: {}", library.name, library.version, library.licence);
        for notice in notices_in(Path::new(&library.folder))? {
            notices.entry(notice).or_default().insert(library.name.clone());
        }
    }
    for (notice, names) in notices {
        let names: Vec<String> = names.into_iter().collect();
        let _ = write!(text, "\n── {} ──\n\n{}\n", names.join(", "), notice.trim_end());
    }
    Ok(text)
}

struct Library {
    name: String,
    version: String,
    licence: String,
    folder: String,
}

/// Every library that is linked into the program, or into the kernel's programs in it.
fn libraries() -> Result<Vec<Library>> {
    let mut libraries = linked(&repository(), "mailguard")?;
    libraries.extend(linked(&repository().join("mailguard-ebpf"), "mailguard-ebpf")?);
    libraries.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    libraries.dedup_by(|one, other| (&one.name, &one.version) == (&other.name, &other.version));
    Ok(libraries)
}

/// What is linked into this package of the workspace in `folder`.
fn linked(folder: &Path, package: &str) -> Result<Vec<Library>> {
    let cargo = |arguments: &[&str]| {
        let output = output_of(Command::new("cargo").current_dir(folder).args(arguments));
        output.with_context(|| format!("cargo {} failed in {}", arguments.join(" "), folder.display()))
    };
    let tree =
        cargo(&["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"])?;
    let linked: BTreeSet<(&str, &str)> = tree.lines().filter_map(name_and_version).collect();
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--locked"])?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let text = |package: &Value, field: &str| package[field].as_str().unwrap_or_default().to_owned();
    let libraries = packages.iter().filter(|package| !package["source"].is_null()).map(|package| Library {
        name: text(package, "name"),
        version: text(package, "version"),
        licence: text(package, "license"),
        folder: text(package, "manifest_path").trim_end_matches("Cargo.toml").to_owned(),
    });
    Ok(libraries.filter(|one| linked.contains(&(one.name.as_str(), one.version.as_str()))).collect())
}

/// `serde v1.0.1` and what follows.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

/// What the files in `folder`, and below it, say that hold a notice: much of what is vendored has its own
/// there.
fn notices_in(folder: &Path) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if entry.file_type()?.is_dir() {
            notices.extend(notices_in(&entry.path())?);
        } else if entry.file_type()?.is_file() && is_notice(&name) {
            let notice = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
            if notice.len() > MAX_NOTICE_OCTETS {
                bail!("{}: longer than {MAX_NOTICE_OCTETS} octets: is it a notice?", entry.path().display());
            }
            notices.push(notice);
        }
    }
    notices.sort();
    notices.dedup();
    Ok(notices)
}

/// `LICENSE-MIT`, `COPYING`, `license.txt`; not `license.rs`.
fn is_notice(name: &str) -> bool {
    let is_text = [".txt", ".md"].iter().any(|end| name.ends_with(end)) || !name.contains('.');
    is_text && NOTICES.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_that_is_linked_in_is_named() {
        assert_eq!(name_and_version("serde v1.0.228"), Some(("serde", "1.0.228")));
        assert_eq!(name_and_version("serde_derive v1.0.228 (proc-macro)"), Some(("serde_derive", "1.0.228")));
        let libraries = libraries().unwrap();
        for name in ["tokio", "rustls", "redb", "aya", "aya-ebpf"] {
            assert!(libraries.iter().any(|library| library.name == name), "{name}");
        }
        assert!(!libraries.iter().any(|library| library.name == "proptest"), "for tests only");
        assert!(libraries.iter().all(|library| !library.licence.is_empty()));
        let text = text().unwrap();
        assert!(text.contains("UNICODE LICENSE"), "a notice below a library's top folder");
    }
}
