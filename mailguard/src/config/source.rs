//! Reads the configuration file and the files that it names. Runs in the privileged process; the result
//! travels to the mail process, which reads none of them itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mailguard_core::config::named::text_files;
use mailguard_core::config::resolve::LISTS_FROM_FILES;
use mailguard_core::config::{Data, Value};
use serde::{Deserialize, Serialize};

use super::tree;

/// Longest file, octets: the configuration, a list or a file of YARA rules.
pub(super) const MAX_FILE_OCTETS: u64 = 8 << 20;
/// All files of a configuration together, octets.
pub const MAX_SOURCE_OCTETS: u64 = 32 << 20;
/// Files that a configuration may name, YARA files included.
pub(super) const MAX_INCLUDES: usize = 256;

/// The key of the folder with YARA rules.
pub(super) const RULES_DIR: [&str; 3] = ["virus", "signatures", "rules_dir"];

/// Everything that a configuration was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The configuration file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The files that lists name by `@/path`, each once.
    pub includes: Vec<Include>,
    /// The `*.yar` files of `virus.signatures.rules_dir`, in order of path.
    pub rules: Vec<Include>,
    /// The files with one text that keys name: certificates, a private key.
    pub texts: Vec<Include>,
}

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Include {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub content: IncludeContent,
}

/// What came of reading a file that the configuration names. A failure is an error of the configuration, at
/// the line that names the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IncludeContent {
    /// The text.
    Text(String),
    /// Why there is none.
    Unreadable(String),
}

/// The configuration file itself can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub cause: ReadError,
}

impl LoadError {
    /// Whether the file may be right, and isn't for this user to read.
    pub fn is_permission(&self) -> bool {
        matches!(&self.cause, ReadError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says so.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe, a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Over [`MAX_FILE_OCTETS`], or all together over [`MAX_SOURCE_OCTETS`].
    #[error("is too large: at most {MAX_FILE_OCTETS} octets a file and {MAX_SOURCE_OCTETS} in all are read")]
    TooLarge,
    /// Line of the first octet that isn't.
    #[error("is not UTF-8 in line {0}")]
    NotUtf8(usize),
    /// More than [`MAX_INCLUDES`].
    #[error("is one too many: at most {MAX_INCLUDES} files may be named")]
    TooMany,
}

impl Source {
    /// A source of this text alone, as if the file named no other.
    pub fn of_text(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            includes: Vec::new(),
            rules: Vec::new(),
            texts: Vec::new(),
        }
    }
}

/// Reads `path` and every file that it names.
pub fn load(path: &Path) -> Result<Source, LoadError> {
    let mut reader = Reader { left: MAX_SOURCE_OCTETS, files: MAX_INCLUDES };
    let text = reader.read(path).map_err(|cause| LoadError { path: path.to_owned(), cause })?;
    let mut source = Source::of_text(path, text);
    // What isn't TOML names no file; `parse_and_validate` says what is wrong with it.
    if let Ok(root) = tree::from_toml(&source.text) {
        source.includes = named_files(&root).into_iter().map(|path| reader.include(path)).collect();
        source.rules = reader.rules(&root);
        source.texts = text_files(&root).into_iter().map(|file| reader.include(file.path)).collect();
    }
    Ok(source)
}

/// The paths behind '@', each once, in the order of the file.
fn named_files(root: &Value) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for list in LISTS_FROM_FILES.iter().flat_map(|path| root.all_at(path)) {
        let Data::Array(items) = &list.data else { continue };
        for path in items.iter().filter_map(|item| tree::named_file(item.as_text()?)) {
            if !paths.contains(&path) && paths.len() <= MAX_INCLUDES {
                paths.push(path);
            }
        }
    }
    paths
}

/// Reads one text file within the limits.
pub(super) fn read_text(path: &Path) -> Result<String, ReadError> {
    Reader { left: MAX_SOURCE_OCTETS, files: 0 }.read(path)
}

struct Reader {
    /// Octets that may still be read.
    left: u64,
    /// Files that may still be named.
    files: usize,
}

impl Reader {
    fn include(&mut self, path: PathBuf) -> Include {
        let result = match self.files.checked_sub(1) {
            None => Err(ReadError::TooMany),
            Some(left) => {
                self.files = left;
                self.read(&path)
            }
        };
        let content = match result {
            Ok(text) => IncludeContent::Text(text),
            Err(cause) => IncludeContent::Unreadable(cause.to_string()),
        };
        Include { path, content }
    }

    fn rules(&mut self, root: &Value) -> Vec<Include> {
        let folder = root.at(&RULES_DIR).and_then(Value::as_text).unwrap_or_default();
        if !folder.starts_with('/') {
            return Vec::new();
        }
        match yara_files(Path::new(folder)) {
            Ok(paths) => paths.into_iter().map(|path| self.include(path)).collect(),
            Err(error) => {
                let content = IncludeContent::Unreadable(ReadError::Io(error).to_string());
                vec![Include { path: folder.into(), content }]
            }
        }
    }

    fn read(&mut self, path: &Path) -> Result<String, ReadError> {
        // Opening a pipe must not wait for its writer.
        let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(ReadError::NotAFile);
        }
        let limit = MAX_FILE_OCTETS.min(self.left);
        let mut octets = Vec::new();
        file.take(limit + 1).read_to_end(&mut octets)?;
        self.left = self.left.checked_sub(octets.len() as u64).ok_or(ReadError::TooLarge)?;
        if octets.len() as u64 > limit {
            return Err(ReadError::TooLarge);
        }
        String::from_utf8(octets).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            ReadError::NotUtf8(1 + valid.iter().filter(|octet| **octet == b'\n').count())
        })
    }
}

/// The `*.yar` files of a folder, in order of path.
fn yara_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yar") && paths.len() <= MAX_INCLUDES {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
