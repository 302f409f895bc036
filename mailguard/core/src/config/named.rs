//! The files that a configuration names, lists apart: which they are, and what was read of them.

use std::path::{Path, PathBuf};

use super::value::{Data, Place, Value};

/// The keys, outside of lists of tables, whose value is the path of a file with one text.
const TEXT_FILES: [[&str; 2]; 5] = [
    ["server", "tls_certificate"],
    ["server", "tls_key"],
    ["imap_auth", "ca_file"],
    ["smarthost", "ca_file"],
    ["smarthost", "password_file"],
];

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct NamedFiles {
    /// The YARA sources found in `virus.signatures.rules_dir`, path and text, in order of path.
    pub rules: Vec<(PathBuf, String)>,
    /// Path and text of those that [`text_files`] finds.
    pub texts: Vec<(PathBuf, String)>,
}

impl NamedFiles {
    pub(super) fn text(&self, path: &Path) -> Option<String> {
        self.texts.iter().find(|(named, _)| named == path).map(|(_, text)| text.clone())
    }
}

/// A file with one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// The key that names it.
    pub key: String,
    /// Where the path stands.
    pub place: Place,
    /// The path.
    pub path: PathBuf,
}

/// The files with one text that a configuration names by absolute paths.
pub fn text_files(root: &Value) -> Vec<TextFile> {
    let mut found = Vec::new();
    for [section, key] in TEXT_FILES {
        note(&mut found, format!("{section}.{key}"), root.at(&[section, key]));
    }
    if let Some(Data::Array(routes)) = root.at(&["domain_route"]).map(|value| &value.data) {
        for (index, route) in routes.iter().enumerate() {
            for key in ["ca_file", "password_file"] {
                let name = format!("domain_route[{index}].smarthost.{key}");
                note(&mut found, name, route.at(&["smarthost", key]));
            }
        }
    }
    found
}

fn note(found: &mut Vec<TextFile>, key: String, value: Option<&Value>) {
    let Some(value) = value else { return };
    if let Some(path) = value.as_text().filter(|path| path.starts_with('/')) {
        found.push(TextFile { key, place: value.place, path: path.into() });
    }
}
