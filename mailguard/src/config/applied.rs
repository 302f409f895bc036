//! The version of a configuration that was in force last, kept for a start with a file that doesn't check:
//! transparent zones must not stand open after a boot because of a slip in it.
//!
//! What is kept is the whole [`Source`], so with the contents of every file that it names. It lies in a
//! folder of root's own, at a place that no configuration can change, for the slip may be in `state_dir`
//! (which is the mail user's, besides), under the file's path as its name. Whether it can be used is for
//! others to say.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mailguard_core::mail::{UnixTime, rfc3339};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use serde::{Deserialize, Serialize};

use super::name::as_name;
use super::replace::Fresh;
use super::source::Source;

/// Where versions are kept. The manual names it, and what installs and purges mailguard knows it.
const FOLDER: &str = "/var/lib/mailguard-applied";
/// Longest kept version, octets: the largest source fits, with the signs that JSON adds.
const MAX_KEPT_OCTETS: u64 = 64 << 20;
/// The form in which versions are written here: another one whenever its meaning changes.
const FORM: u32 = 1;
/// Bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// Why a version can't be kept, or a kept one not read.
#[derive(Debug, thiserror::Error)]
pub enum AppliedError {
    /// The folder isn't root's alone.
    #[error("{}: must be a folder that belongs to root and that nobody else can write to: remove it", .0.display())]
    ForeignFolder(PathBuf),
    /// Nor is the file.
    #[error("{}: must be a file that belongs to root and that nobody else can write to: remove it", .0.display())]
    ForeignFile(PathBuf),
    /// It can't be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It isn't what was written.
    #[error("{} is damaged: {cause}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        #[source]
        cause: serde_json::Error,
    },
    /// It is of another form.
    #[error("{} was written by mailguard {program}, in the form {form}: this one reads the form {FORM}", path.display())]
    OtherForm {
        /// The file.
        path: PathBuf,
        /// Who wrote it.
        program: String,
        /// In which form.
        form: u32,
    },
    /// Over [`MAX_KEPT_OCTETS`].
    #[error("{} is too large: at most {MAX_KEPT_OCTETS} octets are kept", .0.display())]
    TooLarge(PathBuf),
}

/// Keeps versions, of each file the last.
#[derive(Debug)]
pub struct LastApplied {
    folder: PathBuf,
}

/// A configuration that was in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Since when.
    pub applied_at: UnixTime,
    /// What it was read from, then.
    pub source: Source,
}

/// What stands in the file. `applied_a_version` in the tests is one that must be read for ever, or get
/// another [`FORM`].
#[derive(Serialize, Deserialize)]
struct Record<S> {
    form: u32,
    /// The version of the program that wrote it.
    program: String,
    #[serde(with = "rfc3339")]
    applied_at: UnixTime,
    source: S,
}

/// What stands in a file of any form.
#[derive(Deserialize)]
struct Head {
    form: u32,
    program: String,
}

impl LastApplied {
    /// Those of this machine.
    pub fn of_this_machine() -> Self {
        Self::within(FOLDER)
    }

    /// Those in this folder.
    pub(crate) fn within(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the version of the configuration file at this path is kept.
    fn file(&self, config: &Path) -> Result<PathBuf, AppliedError> {
        let name = as_name(config).map_err(|cause| AppliedError::Io { path: config.to_owned(), cause })?;
        Ok(self.folder.join(name))
    }

    /// The version that is kept of the configuration file at this path, if there is one.
    pub fn load(&self, config: &Path) -> Result<Option<Version>, AppliedError> {
        let path = self.file(config)?;
        let failed = |cause| AppliedError::Io { path: path.clone(), cause };
        let open = File::options().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(&path);
        let file = match open {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        self.refuse_foreign_folder()?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() || facts.uid() != 0 || facts.mode() & OTHERS_WRITE != 0 {
            return Err(AppliedError::ForeignFile(path));
        }
        let mut octets = Vec::new();
        file.take(MAX_KEPT_OCTETS + 1).read_to_end(&mut octets).map_err(failed)?;
        if octets.len() as u64 > MAX_KEPT_OCTETS {
            return Err(AppliedError::TooLarge(path));
        }
        read(&path, &octets).map(|version| Some(of_path(version, config)))
    }

    /// Keeps what is in force since `now`, in the place of what was kept of the same file; on disk when it
    /// returns. What is kept already stays, with its time.
    pub fn keep(&self, source: &Source, now: UnixTime) -> Result<(), AppliedError> {
        if self.load(&source.path).is_ok_and(|kept| kept.is_some_and(|kept| kept.source == *source)) {
            return Ok(());
        }
        let path = self.file(&source.path)?;
        let failed = |cause| AppliedError::Io { path: path.clone(), cause };
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        self.refuse_foreign_folder()?;
        let program = env!("CARGO_PKG_VERSION").to_owned();
        let record = Record { form: FORM, program, applied_at: now, source };
        let octets = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        if octets.len() as u64 > MAX_KEPT_OCTETS {
            return Err(AppliedError::TooLarge(path));
        }
        Fresh::write(&path, &octets, |_| Ok(())).and_then(Fresh::put).map_err(failed)
    }

    fn refuse_foreign_folder(&self) -> Result<(), AppliedError> {
        let foreign = || AppliedError::ForeignFolder(self.folder.clone());
        let facts = fs::symlink_metadata(&self.folder).map_err(|_| foreign())?;
        let is_roots = facts.is_dir() && facts.uid() == 0 && facts.mode() & OTHERS_WRITE == 0;
        if is_roots { Ok(()) } else { Err(foreign()) }
    }
}

fn read(path: &Path, octets: &[u8]) -> Result<Version, AppliedError> {
    let damaged = |cause| AppliedError::Damaged { path: path.to_owned(), cause };
    let Head { form, program } = serde_json::from_slice(octets).map_err(damaged)?;
    if form != FORM {
        return Err(AppliedError::OtherForm { path: path.to_owned(), program, form });
    }
    let Record { applied_at, source, .. } = serde_json::from_slice(octets).map_err(damaged)?;
    Ok(Version { applied_at, source })
}

/// The same with the path as it is written now: relative, absolute.
fn of_path(version: Version, config: &Path) -> Version {
    Version { source: Source { path: config.to_owned(), ..version.source }, ..version }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use tempfile::TempDir;

    use super::super::source::{Include, IncludeContent};
    use super::*;

    const THEN: UnixTime = UnixTime(1_764_288_000_000_000);

    /// A folder for versions that isn't there yet, and a source with everything that one can have.
    fn scene() -> (TempDir, LastApplied, Source) {
        let place = tempfile::tempdir().unwrap();
        let kept = LastApplied::within(place.path().join("kept"));
        let text = |path: &str, text: &str| Include {
            path: path.into(),
            content: IncludeContent::Text(text.to_owned()),
        };
        let gone = IncludeContent::Unreadable("can't be read: gone".to_owned());
        let source = Source {
            includes: vec![
                text("/etc/partners.txt", "192.0.2.1\n"),
                Include { path: "/x".into(), content: gone },
            ],
            rules: vec![text("/etc/rules/a.yar", "rule A { condition: true }\n")],
            texts: vec![text("/etc/key.pem", "a key\n")],
            ..Source::of_text("/etc/mailguard/mailguard.toml", "hostname = \"gate.example.org\"\n")
        };
        (place, kept, source)
    }

    #[test]
    fn what_is_kept_is_what_was_in_force_with_every_file_that_it_named() {
        let (_place, kept, source) = scene();
        assert_eq!(kept.load(&source.path).unwrap(), None);
        kept.keep(&source, THEN).unwrap();
        let version = Version { applied_at: THEN, source: source.clone() };
        assert_eq!(kept.load(&source.path).unwrap(), Some(version.clone()));
        kept.keep(&source, UnixTime(1)).unwrap();
        assert_eq!(kept.load(&source.path).unwrap(), Some(version), "the same one: in force since then");
        let later = Source { text: format!("{}# more\n", source.text), ..source.clone() };
        kept.keep(&later, UnixTime(1)).unwrap();
        assert_eq!(kept.load(&source.path).unwrap().unwrap().source, later);
        assert_eq!(fs::read_dir(&kept.folder).unwrap().count(), 1, "nothing else is left");
        let other = Source { path: "/etc/mailguard/other.toml".into(), ..source };
        kept.keep(&other, THEN).unwrap();
        assert_eq!(kept.load(&later.path).unwrap().unwrap().source, later, "each file has its own");
    }

    #[test]
    fn only_root_reads_a_kept_version_and_nobody_else_can_have_written_it() {
        let (place, kept, source) = scene();
        kept.keep(&source, THEN).unwrap();
        let file = kept.file(&source.path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&kept.folder), mode(&file)), (0o700, 0o600));
        let foreign = |what: &str| {
            let error = kept.load(&source.path).unwrap_err();
            let is = matches!(error, AppliedError::ForeignFile(_) | AppliedError::ForeignFolder(_));
            assert!(is, "{what}: {error}");
        };
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&file, 0o620);
        foreign("a file that its group writes");
        set(&file, 0o600);
        chown(&file, Some(1), None).unwrap();
        foreign("somebody else's file");
        chown(&file, Some(0), None).unwrap();
        set(&kept.folder, 0o777);
        foreign("a folder that everybody writes");
        assert!(matches!(
            kept.keep(&Source { text: String::new(), ..source.clone() }, THEN),
            Err(AppliedError::ForeignFolder(_))
        ));
        set(&kept.folder, 0o750);
        kept.load(&source.path).unwrap();
        // A link is somebody's wish to have us read, or write, something else.
        let elsewhere = place.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        kept.load(&source.path).unwrap_err();
        kept.keep(&Source { text: "a = 1\n".to_owned(), ..source.clone() }, THEN).unwrap();
        assert!(!fs::read_to_string(&elsewhere).unwrap().contains("a = 1"), "it isn't followed");
        assert_eq!(kept.load(&source.path).unwrap().unwrap().source.text, "a = 1\n");
    }

    #[test]
    fn what_is_damaged_or_of_another_form_is_named_and_replaced_by_the_next() {
        let (_place, kept, source) = scene();
        kept.keep(&source, THEN).unwrap();
        let file = kept.file(&source.path).unwrap();
        let whole = fs::read_to_string(&file).unwrap();
        for (text, expect) in [
            (whole[..whole.len() / 2].to_owned(), "is damaged"),
            (String::new(), "is damaged"),
            ("\0".repeat(100), "is damaged"),
            (whole.replace("\"applied_at\"", "\"applied\""), "is damaged"),
            (whole.replace("\"form\":1", "\"form\":2"), "in the form 2: this one reads the form 1"),
        ] {
            fs::write(&file, text).unwrap();
            let error = kept.load(&source.path).unwrap_err().to_string();
            assert!(error.contains(expect) && error.contains("mailguard.toml"), "{error}");
            kept.keep(&source, THEN).unwrap();
            assert_eq!(kept.load(&source.path).unwrap().unwrap().source, source);
        }
    }

    #[test]
    fn a_version_that_was_written_in_this_form_is_read_for_ever() {
        let applied_a_version = r#"{"form":1,"program":"0.1.0","applied_at":"2025-11-28T00:00:00Z","source":{
            "path":"/etc/mailguard/mailguard.toml","text":"hostname = \"gate.example.org\"\n",
            "includes":[{"path":"/etc/partners.txt","content":{"Text":"192.0.2.1\n"}},
                        {"path":"/x","content":{"Unreadable":"can't be read: gone"}}],
            "rules":[{"path":"/etc/rules/a.yar","content":{"Text":"rule A { condition: true }\n"}}],
            "texts":[{"path":"/etc/key.pem","content":{"Text":"a key\n"}}]}}"#;
        let version = read(Path::new("/kept"), applied_a_version.as_bytes()).unwrap();
        assert_eq!(version, Version { applied_at: THEN, source: scene().2 });
    }

    #[test]
    fn a_folder_that_can_not_be_made_and_a_name_that_is_too_long_are_told() {
        let (place, _, source) = scene();
        let nowhere = LastApplied::within(place.path().join("a/b"));
        assert!(matches!(nowhere.keep(&source, THEN), Err(AppliedError::Io { .. })));
        let kept = LastApplied::within(place.path().join("kept"));
        for length in [60, 80, 300] {
            let path = PathBuf::from("/x".repeat(length));
            let error = kept.keep(&Source { path: path.clone(), ..source.clone() }, THEN);
            assert_eq!(error.is_err(), length > 60, "{length}: {error:?}");
        }
    }
}
